"""The detector whose finds are adopted: its graph in PyTorch, places and boxes, and several views made one."""

# ruff: noqa: ANN401  scripts are loaded by name, and so their types are not known here

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.training_scripts import importable, run

pytestmark = [
    pytest.mark.needs(missing=[package for package in ("torch",) if find_spec(package) is None]),
    pytest.mark.filterwarnings("ignore"),  # of other people's imports
]

ORDERS = {"there": [0, 2, 3, 1], "back": [0, 3, 1, 2], "last": [0, 2, 1]}


@pytest.fixture(scope="module")
def nanodet() -> Iterator[Any]:
    with importable():
        yield importlib.import_module("nanodet")


def write_graph(folder: Path, nodes: list[dict[str, Any]], weights: dict[str, np.ndarray], outputs: list[str]) -> Path:
    """A TensorFlow.js graph; what is float16 is kept so, and float32 to the graph."""
    entries = []
    for name, value in weights.items():
        entry: dict[str, Any] = {"name": name, "shape": list(value.shape), "dtype": str(value.dtype)}
        if value.dtype == np.float16:
            entry |= {"dtype": "float32", "quantization": {"dtype": "float16", "original_dtype": "float32"}}
        entries.append(entry)
    (folder / "graph.bin").write_bytes(b"".join(value.tobytes() for value in weights.values()))
    document = {
        "modelTopology": {"node": nodes + [{"name": name, "op": "Const", "attr": {}} for name in weights]},
        "signature": {"outputs": {f"{name}:0": {} for name in outputs}},
        "weightsManifest": [{"paths": ["graph.bin"], "weights": entries}],
    }
    path = folder / "graph.json"
    path.write_text(json.dumps(document))
    return path


def node(name: str, op: str, *inputs: str, **attributes: list[int]) -> dict[str, Any]:
    lists = {key: {"list": {"i": [str(value) for value in values]}} for key, values in attributes.items()}
    return {"name": name, "op": op, "input": list(inputs), "attr": lists | {"alpha": {"f": 0.1}}}


def test_a_graph_computes_what_its_nodes_say(nanodet: Any, tmp_path: Path) -> None:
    import torch
    from torch.nn import functional

    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 3, 4)).astype(np.float16)
    bias = rng.normal(size=4).astype(np.float16)
    one = {"alpha": np.array(1, np.int32), "size": np.array([52, 52], np.int32), "sizes": np.array([3, 5], np.int32)}
    borders = np.array([[0, 0], [0, 0], [1, 1], [1, 1]], np.int32)
    low = np.array(-np.inf, np.float32)
    orders = {name: np.array(order, np.int32) for name, order in ORDERS.items()}
    nodes = [
        {"name": "picture", "op": "Placeholder", "attr": {}},
        node("shape", "SparseToDense", "nowhere", "nowhere", "nowhere"),
        node("target", "AddV2", "alpha", "shape"),
        node("padded", "Pad", "picture", "borders"),
        node("t1", "Transpose", "padded", "there"),
        node("conv", "Conv2D", "t1", "kernel", strides=[1, 2, 2, 1]),
        node("biased", "Add", "conv", "bias"),
        node("t2", "Transpose", "biased", "back"),
        node("leaky", "LeakyRelu", "t2"),
        node("padded2", "PadV2", "leaky", "borders", "low"),
        node("t3", "Transpose", "padded2", "there"),
        node("pool", "MaxPool", "t3", ksize=[1, 3, 3, 1], strides=[1, 2, 2, 1]),
        node("larger", "ResizeBilinear", "pool", "size"),
        node("t4", "Transpose", "larger", "back"),
        node("both", "ConcatV2", "t4", "t4", "alpha"),
        node("parts", "SplitV", "both", "sizes", "alpha"),
        node("likely", "Sigmoid", "parts"),
        node("flat", "Reshape", "likely", "target"),
        node("flat2", "Reshape", "parts:1", "target"),
        node("turned", "Transpose", "flat", "last"),
        node("a", "Identity", "turned"),
        node("b", "Identity", "flat2"),
    ]
    weights = {"kernel": kernel, "bias": bias, "borders": borders, "low": low} | one | orders
    graph = nanodet.Graph(write_graph(tmp_path, nodes, weights, ["b", "a"]))

    x = torch.from_numpy(rng.normal(size=(1, 3, 64, 96)).astype(np.float32))
    found = graph(x)

    conv = functional.conv2d(x, torch.from_numpy(kernel.astype(np.float32)).permute(3, 2, 0, 1), stride=2, padding=1)
    leaky = functional.leaky_relu(conv + torch.from_numpy(bias.astype(np.float32))[:, None, None], 0.1)
    larger = functional.interpolate(functional.max_pool2d(leaky, 3, 2, 1), size=(8, 12), mode="bilinear")
    both = torch.cat([larger, larger], 1)
    torch.testing.assert_close(found[0], both[:, :3].sigmoid().flatten(2).transpose(1, 2))
    torch.testing.assert_close(found[1], both[:, 3:].flatten(2))


def test_what_is_no_such_graph_is_a_line(nanodet: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((64, 96, 3), 127, np.uint8))
    image = {"id": 3, "file_name": "grey.png", "width": 96, "height": 64}
    document = {"images": [image], "categories": [{"id": 1, "name": "person"}], "annotations": []}
    (tmp_path / "train.json").write_text(json.dumps(document))
    graph = write_graph(tmp_path, [node("a", "Softmax", "b")], {}, ["a"])
    (tmp_path / "whole").mkdir()
    whole = write_graph(tmp_path / "whole", [node("a", "Identity", "a")], {}, ["a"])
    for model, message in ((tmp_path / "none.json", "cannot be read"), (graph, "it has nodes of Softmax")):
        with pytest.raises(SystemExit) as ended:
            run("nanodet", tmp_path, "--model", model, "--out", tmp_path / "found.json")
        assert ended.value.code == 4
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        run("nanodet", tmp_path, "--model", whole, "--out", tmp_path / "nowhere" / "found.json")
    assert ended.value.code == 6
    assert "cannot be written: No such file" in capsys.readouterr().err
    document["categories"] = [{"id": 1, "name": "unicorn"}]
    (tmp_path / "train.json").write_text(json.dumps(document))
    with pytest.raises(SystemExit) as ended:
        run("nanodet", tmp_path, "--model", graph, "--out", tmp_path / "found.json")
    assert ended.value.code == 2
    assert "COCO's classes alone, and not unicorn" in capsys.readouterr().err


def test_places_and_distances_are_boxes_in_pixels_of_the_picture(nanodet: Any) -> None:
    import torch

    sizes = []

    def graph(x: torch.Tensor) -> list[torch.Tensor]:
        """A cat at the place in row 1 and column 2 of the coarsest level, one to four strides to its sides."""
        sizes.append(tuple(x.shape))
        shapes = [(x.shape[2] // stride) * (x.shape[3] // stride) for stride in nanodet.STRIDES]
        scores = [torch.zeros(1, count, 80) for count in shapes]
        sides = [torch.zeros(1, count, 44) for count in shapes]
        place = x.shape[3] // 32 + 2
        scores[2][0, place, 15] = 0.8
        for side, strides in enumerate((1, 2, 3, 4)):
            sides[2][0, place, side * 11 + strides] = 50
        return scores + sides

    detector = nanodet.NanoDet(graph, [0, 15], torch.float32, "cpu")
    found = detector(np.zeros((240, 480, 3), np.uint8), 320)
    assert sizes == [(1, 3, 160, 320)]
    np.testing.assert_allclose(found.boxes, [[72, 0, 264, 240]], atol=1e-3)  # 48, -16, 176, 176, by 1.5, inside
    np.testing.assert_allclose(found.scores, [0.8])
    assert found.labels.tolist() == [1]
    assert not len(nanodet.NanoDet(graph, [0], torch.float32, "cpu")(np.zeros((64, 64, 3), np.uint8), 320).labels)


def test_what_several_views_show_is_surer(nanodet: Any) -> None:
    def view(*finds: tuple[list[float], float, int]) -> Any:
        boxes, scores, labels = zip(*finds, strict=True) if finds else ([], [], [])
        return nanodet.Finds(
            np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int64)
        )

    found = nanodet.fuse(
        [
            view(([0, 0, 10, 10], 0.5, 1), ([50, 50, 60, 60], 0.9, 1)),
            view(([0, 0, 10, 12], 0.25, 1), ([0, 0, 10, 10], 0.3, 2)),
            view(),
        ]
    )
    np.testing.assert_allclose(found.boxes, [[50, 50, 60, 60], [0, 0, 10, 32 / 3], [0, 0, 10, 10]], rtol=1e-6)
    np.testing.assert_allclose(found.scores, [0.3, 0.25, 0.1], rtol=1e-6)
    assert found.labels.tolist() == [1, 1, 2]
    assert not len(nanodet.fuse([view(), view()]).labels)
