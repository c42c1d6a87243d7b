"""Outlines drawn by SAM 2: what it is shown and asked, which of its outlines is taken, and which are left out."""

# ruff: noqa: ANN401  scripts are loaded by name, and so their types are not known here

from __future__ import annotations

import importlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.training_scripts import importable, needing, run

pytestmark = needing("torch", "safetensors", "pycocotools")

CELLS = 64
"""Sides of the maps of these graphs, a quarter of the real ones', so that they are quick."""


@pytest.fixture(scope="module")
def sam2() -> Iterator[Any]:
    with importable():
        yield importlib.import_module("sam2")


def encoder(path: Path) -> Path:
    """Its first map is the picture, as it is shown, in a channel; the others are mere shapes."""
    small = numpy_helper.from_array(np.array([1, 1, 1024 // CELLS, 1024 // CELLS], np.int64), "steps")
    begin, end = (numpy_helper.from_array(np.array(at, np.int64), name) for at, name in (([0], "begin"), ([1], "end")))
    axis = numpy_helper.from_array(np.array([1], np.int64), "axis")
    places = [
        numpy_helper.from_array(np.array(at, np.int64), name) for at, name in (([0] * 4, "from"), ([9999] * 4, "to"))
    ]
    nodes = [
        helper.make_node("Slice", ["image", "begin", "end", "axis"], ["red"]),
        helper.make_node("Slice", ["red", "from", "to", "", "steps"], ["high_res_feats_0"]),
        helper.make_node("Identity", ["high_res_feats_0"], ["high_res_feats_1"]),
        helper.make_node("Identity", ["high_res_feats_0"], ["image_embed"]),
    ]
    outputs = [value(name, [1, 1, CELLS, CELLS]) for name in ("high_res_feats_0", "high_res_feats_1", "image_embed")]
    return save(path, nodes, [value("image", [1, 3, 1024, 1024])], outputs, [small, begin, end, axis, *places])


def decoder(path: Path, ious: tuple[float, float, float]) -> Path:
    """Draws three: all that is red in a box, all of the box, all of the picture; and is as sure as it is told here."""
    grid = (np.arange(CELLS, dtype=np.float32) + 0.5) * (1024 / CELLS)
    constants = {
        "x": grid.reshape(1, 1, 1, -1), "y": grid.reshape(1, 1, -1, 1), "ious": np.array([ious], np.float32),
        "shape": np.array([-1, 4, 1, 1], np.int64), "minus": np.float32(-9), "plus": np.float32(9),
        "whole": np.float32(1e6),
    }  # fmt: skip
    sides = ("x1", "y1", "x2", "y2")
    nodes = [
        helper.make_node("Reshape", ["point_coords", "shape"], ["corners"]),
        helper.make_node("Split", ["corners"], list(sides), axis=1, num_outputs=4),
        *(
            helper.make_node("Sub", list(two), [f"d{n}"])
            for n, two in enumerate((("x", "x1"), ("x2", "x"), ("y", "y1"), ("y2", "y")))
        ),
        helper.make_node("Min", ["d0", "d1", "d2", "d3"], ["box"]),
        helper.make_node("Min", ["box", "high_res_feats_0"], ["red"]),
        helper.make_node("Abs", ["box"], ["far"]),
        helper.make_node("Add", ["far", "whole"], ["all"]),
        helper.make_node("Concat", ["red", "box", "all"], ["unbounded"], axis=1),
        helper.make_node("Clip", ["unbounded", "minus", "plus"], ["masks"]),
        helper.make_node("ReduceSum", ["point_labels"], ["labels"], keepdims=0),
        helper.make_node("ReduceSum", ["has_mask_input"], ["has"], keepdims=0),
        helper.make_node("ReduceSum", ["mask_input"], ["given"], keepdims=0),
        helper.make_node("ReduceMean", ["high_res_feats_1"], ["mean"], keepdims=0),
        helper.make_node("ReduceMean", ["image_embed"], ["embedded"], keepdims=0),
        helper.make_node("Sum", ["labels", "has", "given", "mean", "embedded"], ["every"]),
        helper.make_node("Sub", ["every", "every"], ["nothing"]),
        helper.make_node("Slice", ["point_labels", "from", "to", "last"], ["column"]),
        helper.make_node("Sub", ["column", "column"], ["zeros"]),
        helper.make_node("Sum", ["ious", "zeros", "nothing"], ["iou_predictions"]),
    ]
    for name, at in (("from", 0), ("to", 1), ("last", 1)):
        constants[name] = np.array([at], np.int64)
    inputs = [value(name, [1, 1, CELLS, CELLS]) for name in ("high_res_feats_0", "high_res_feats_1", "image_embed")]
    inputs += [value("point_coords", ["n", 2, 2]), value("point_labels", ["n", 2])]
    inputs += [value("mask_input", ["n", 1, CELLS, CELLS]), value("has_mask_input", [1])]
    outputs = [value("masks", ["n", 3, CELLS, CELLS]), value("iou_predictions", ["n", 3])]
    kept = [numpy_helper.from_array(np.asarray(one), name) for name, one in constants.items()]
    return save(path, nodes, inputs, outputs, kept)


def value(name: str, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any]) -> Path:
    graph = helper.make_graph(nodes, "part", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
    return path


def data(folder: Path, *boxes: list[int]) -> dict[str, Any]:
    """A picture of a red disc on blue, a data set of it, and boxes without outlines."""
    picture = np.zeros((120, 200, 3), np.uint8)
    picture[:, :] = (200, 0, 0)
    cv2.circle(picture, (60, 60), 30, (0, 0, 255), -1)
    cv2.imwrite(str(folder / "disc.png"), picture)
    image = {"id": 1, "file_name": "disc.png", "width": 200, "height": 120}
    annotations = [{"id": n, "image_id": 1, "category_id": 7, "bbox": box} for n, box in enumerate(boxes)]
    document = {"images": [image], "categories": [{"id": 7, "name": "disc"}], "annotations": annotations}
    (folder / "train.json").write_text(json.dumps(document))
    return document


def drawn(folder: Path, *options: str, ious: tuple[float, float, float] = (0.9, 0.5, 0.3)) -> tuple[str, list[Any]]:
    parts = [encoder(folder / "encoder.onnx"), decoder(folder / "decoder.onnx", ious)]
    out = folder / "more.json"
    printed = run("outline", folder, "--sam", *map(str, parts), "--out", str(out), *options)
    return printed, json.loads(out.read_text())["annotations"]


def disc() -> NDArray[np.bool_]:
    y, x = np.mgrid[:120, :200] + 0.5
    return np.asarray(np.hypot(x - 60.5, y - 60.5) < 30.5)


def overlap(annotation: dict[str, Any], truth: NDArray[np.bool_]) -> float:
    from pycocotools import mask as coco

    mask = coco.decode(annotation["segmentation"]).astype(np.bool_)
    return float((mask & truth).sum() / (mask | truth).sum())


def test_the_surest_outline_of_each_box_is_taken(sam2: Any, tmp_path: Path) -> None:
    data(tmp_path, [25, 25, 71, 71], [30, 60, 60, 60])
    printed, (whole, half) = drawn(tmp_path)
    assert printed.startswith("2 of 2 boxes")
    assert whole["outline_score"] == 0.9
    assert whole["mask_valid"]
    assert overlap(whole, disc()) > 0.93
    lower = disc()
    lower[:60] = False
    assert overlap(half, lower) > 0.9


def test_what_it_is_not_sure_of_or_what_is_larger_than_the_box_is_left_out(sam2: Any, tmp_path: Path) -> None:
    document = data(tmp_path, [25, 25, 71, 71])
    printed, annotations = drawn(tmp_path, ious=(0.79, 0.7, 0.3))
    assert printed.startswith("0 of 1 boxes")
    assert annotations == document["annotations"]
    (tmp_path / "more.json").unlink()
    assert drawn(tmp_path, "--sure", "0.7", ious=(0.79, 0.7, 0.3))[0].startswith("1 of 1 boxes")
    (tmp_path / "more.json").unlink()
    assert drawn(tmp_path, ious=(0.1, 0.2, 0.99))[0].startswith("0 of 1 boxes")  # all of the picture


def test_other_files_are_refused(sam2: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data(tmp_path, [25, 25, 71, 71])
    right = encoder(tmp_path / "encoder.onnx")
    (tmp_path / "empty.onnx").touch()
    for wrong, words in ((right, "is not that part of SAM 2: it has "), (tmp_path / "empty.onnx", "cannot be read")):
        with pytest.raises(SystemExit) as ended:
            run("outline", tmp_path, "--sam", right, wrong, "--out", tmp_path / "more.json")
        assert ended.value.code == 4
        assert f"{wrong} {words}" in capsys.readouterr().err
    assert not (tmp_path / "more.json").exists()


def test_a_second_run_draws_what_an_interruption_left(
    sam2: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = data(tmp_path, [25, 25, 71, 71])
    images = [document["images"][0] | {"id": number} for number in (1, 2, 3)]
    boxes = [document["annotations"][0] | {"id": number, "image_id": number} for number in (1, 2, 3)]
    (tmp_path / "train.json").write_text(json.dumps(document | {"images": images, "annotations": boxes}))
    original = sam2.Sam2.outlines

    def interrupted(self: Any, *arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments)

    monkeypatch.setattr(sam2.Sam2, "outlines", interrupted)
    with pytest.raises(SystemExit) as ended:
        drawn(tmp_path)
    assert ended.value.code == 130
    assert "outline: stopped" in capsys.readouterr().err
    first = json.loads((tmp_path / "more.json").read_text())["annotations"]
    assert ["segmentation" in one for one in first] == [True, False, False]
    monkeypatch.setattr(sam2.Sam2, "outlines", original)
    (tmp_path / "more.json").rename(tmp_path / "first.json")
    printed, annotations = drawn(tmp_path, "--train", "first.json")
    assert printed.startswith("2 of 2 boxes")
    assert annotations[0] == first[0]
    assert all("segmentation" in one for one in annotations)
