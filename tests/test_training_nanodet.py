"""Weights to start from: those of NanoDet-g, read from a TensorFlow.js graph, under the names of the network."""

from __future__ import annotations

import importlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_seg.coco import COCO_NAMES
from tests.training_scripts import importable, needing, run

pytestmark = needing("torch", "safetensors", seconds=60)

Layer = tuple[str, int, int, int]
"""The name that a convolution gets, its channels after and before, and its size."""


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Iterator[None]:
    with importable():
        yield


def layers() -> Iterator[Layer]:
    """NanoDet-g's convolutions, as its authors' code lists them."""
    yield "backbone.body.stem", 32, 3, 3
    before = 32
    for stage, (width, blocks) in enumerate([(32, 1), (64, 2), (128, 2), (256, 3)]):
        place = f"backbone.body.stages.{stage}"
        yield f"{place}.enter", width, before, 3
        for block in range(blocks):
            yield f"{place}.blocks.{block}.first", width // 2, width, 3
            yield f"{place}.blocks.{block}.second", width // 2, width // 2, 3
        yield f"{place}.leave", width, width, 3
        before = 2 * width
    for level, width in enumerate((128, 256, 512)):
        yield f"backbone.lateral.{level}", 128, width, 1
    for level in range(3):
        yield f"dense.{level}.conv", 128, 128, 3
        yield f"dense.{level}", 80 + 4 * 11, 128, 1


def write_graph(folder: Path, sizes: list[Layer]) -> dict[str, tuple[NDArray[np.float16], NDArray[np.float16]]]:
    """Write graph.json, whose constants are kept in float16 beside it; returns weight and bias of each layer."""
    rng, nodes, constants, given = np.random.default_rng(0), [], {}, {}
    for number, (name, after, before, size) in enumerate(sizes):
        weight = rng.integers(-9, 9, (size, size, before, after), np.int8).astype(np.float16)
        bias = rng.integers(-9, 9, after).astype(np.float16)
        convolution = f"Call/convolution_{number}" if number else "Call/convolution"
        nodes.append({"name": convolution, "op": "Conv2D", "input": ["x", f"w{number}"]})
        nodes.append({"name": f"Call/Add_{number}", "op": "Add", "input": [convolution, f"b{number}"]})
        constants |= {f"w{number}": weight, f"b{number}": bias[None, None, None]}
        given[name] = weight, bias
    random.Random(0).shuffle(nodes)  # they are in no order
    kept = {"dtype": "float32", "quantization": {"dtype": "float16"}}
    entries = [{"name": name, "shape": list(value.shape), **kept} for name, value in constants.items()]
    (folder / "graph.bin").write_bytes(b"".join(value.tobytes() for value in constants.values()))
    document = {
        "modelTopology": {"node": [*nodes, {"name": "y", "op": "Add", "input": ["Call/Add_0", "Call/Add_1"]}]},
        "weightsManifest": [{"paths": ["graph.bin"], "weights": entries}],
    }
    (folder / "graph.json").write_text(json.dumps(document))
    return given


def test_the_detector_becomes_weights_to_train_from(tmp_path: Path) -> None:
    given = write_graph(tmp_path, list(layers()))
    out = tmp_path / "start.safetensors"
    assert run("from_nanodet", tmp_path / "graph.json", "--out", out) == (
        f"{out}: 80 classes; outlines are yet to be trained\n"
    )
    weights = importlib.import_module("weights")
    state, classes = weights.read_weights(out)
    assert classes == COCO_NAMES
    weights.start_from(out, classes, -1)
    heads = {f"dense.{level}" for level in range(3)}
    for name, (weight, bias) in given.items():
        wanted = {"weight": weight.transpose(3, 2, 0, 1), "bias": bias}
        if name == "backbone.body.stem":
            wanted["weight"] = wanted["weight"][:, ::-1]  # of RGB, where that was of BGR
        for kind, value in wanted.items():
            parts = (f"{name}.classes.{kind}", f"{name}.distances.{kind}") if name in heads else (f"{name}.{kind}",)
            np.testing.assert_array_equal(np.concatenate([state[part].numpy() for part in parts]), value)
    again = tmp_path / "again.safetensors"
    run("from_nanodet", tmp_path / "graph.json", "--out", again)
    assert again.read_bytes() == out.read_bytes()


def refused(graph: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    """The exit code and the line about it."""
    with pytest.raises(SystemExit) as ended:
        run("from_nanodet", graph, "--out", out)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return ended.value.code, line


def test_what_is_not_that_detector_is_refused_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph, out = tmp_path / "graph.json", tmp_path / "start.safetensors"
    every = list(layers())
    for sizes, said in (
        (every[:5], "is not NanoDet-g: it has 5 convolutions, of another network"),
        ([*every[:3], ("x", 16, 16, 1), *every[4:]], "stages.0.blocks.0.second are (16, 16, 1, 1)"),
        ([*every, every[-1]], "is not NanoDet-g: it has 35 convolutions"),
    ):
        write_graph(tmp_path, sizes)
        code, line = refused(graph, out, capsys)
        assert (code, said in line) == (4, True), line
    document = json.loads(graph.read_text())
    for change, said in (
        (lambda d: d.pop("weightsManifest"), "is not a TensorFlow.js graph of convolutions with biases"),
        (lambda d: d["modelTopology"]["node"].append({"op": "Conv2D", "name": "mine"}), "is not a TensorFlow.js graph"),
        (lambda d: d["weightsManifest"][0]["weights"].pop(), "is not a TensorFlow.js graph"),
        (lambda d: d["weightsManifest"][0]["paths"].append("none.bin"), "none.bin cannot be read: No such file"),
    ):
        changed = json.loads(json.dumps(document))
        change(changed)
        graph.write_text(json.dumps(changed))
        code, line = refused(graph, out, capsys)
        assert (code, said in line) == (4, True), line
    for content in ("[]", "{", "1"):
        graph.write_text(content)
        assert refused(graph, out, capsys)[0] == 4
    assert refused(tmp_path / "none.json", out, capsys) == (
        4, f"from_nanodet: {tmp_path}/none.json cannot be read: No such file or directory\n",
    )  # fmt: skip
    assert not out.exists()
    out.touch()
    assert refused(graph, out, capsys) == (2, f"from_nanodet: {out} is there already: give another --out\n")
