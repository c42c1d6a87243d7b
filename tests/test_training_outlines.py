"""Outlines drawn by a trained model into given boxes, where a data set lacks them."""

# ruff: noqa: ANN401  scripts are loaded by name, and so their types are not known here

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stream_seg.geometry import mask_roi
from tests.training_scripts import importable, needing, run, settings_kept

pytestmark = needing("torch", "safetensors", "pycocotools")

IMAGE = {"id": 1, "file_name": "grey.png", "width": 96, "height": 64}
PHOTO = Path(__file__).parents[1] / "samples" / "photo.jpg"


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    with importable():
        yield {name: importlib.import_module(name) for name in ("weights", "segmenter", "outline", "annotations")}


@pytest.fixture(scope="module")
def segmenter(scripts: dict[str, ModuleType]) -> Iterator[Any]:
    weights = scripts["weights"]
    net = weights.start_from(weights.BUILT_IN, weights.read_weights(weights.BUILT_IN)[1], -1)
    with settings_kept():
        yield scripts["segmenter"].NetSegmenter(net, 416, 0.5)


def test_boxes_get_the_outlines_of_what_is_in_them_and_all_else_stays(segmenter: Any, tmp_path: Path) -> None:
    photo = np.asarray(cv2.imread(str(PHOTO)), np.uint8)
    (found,) = segmenter([photo])
    assert len(found) >= 2
    width, height = photo.shape[1::-1]
    boxes = found.boxes.astype(float)
    given = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).round(1).tolist()
    polygon = [[5.0, 5.0, 60.0, 5.0, 60.0, 60.0]]
    annotations = [{"id": n, "image_id": 4, "category_id": 3, "bbox": box} for n, box in enumerate(given)]
    others: list[dict[str, Any]] = [
        {"id": 90, "image_id": 4, "category_id": 3, "bbox": [5, 5, 55, 55], "segmentation": polygon},
        {"id": 91, "image_id": 4, "category_id": 3, "bbox": [0, 0, 90, 90], "iscrowd": 1},
        {"id": 92, "image_id": 4, "category_id": 3, "bbox": [9, 9, 5, 40]},
        {"id": 93, "image_id": 5, "category_id": 3, "bbox": [9, 9, 40, 40]},  # of a picture that is not listed
    ]
    distrusted = annotations[0] | {"segmentation": polygon, "mask_valid": False}
    image = {"id": 4, "file_name": PHOTO.name, "width": width, "height": height, "exhaustive": []}
    document = {"images": [image], "categories": [{"id": 3, "name": "thing"}]}
    path = tmp_path / "train.json"
    path.write_text(json.dumps(document | {"annotations": [distrusted, *annotations[1:], *others]}))

    more = tmp_path / "more.json"
    printed = run("outline", tmp_path, "--images", PHOTO.parent, "--size", "416", "--sure", "0.6", "--out", more)

    assert printed.startswith(f"{len(found)} of {len(found)} boxes without an outline got one")
    written = json.loads(more.read_text())
    assert {key: written[key] for key in document} == document
    assert written["annotations"][len(found) :] == others
    for n, one in enumerate(written["annotations"][: len(found)]):
        assert one.items() >= annotations[n].items()
        assert one["mask_valid"]
        assert 0.6 <= one["outline_score"] <= 1
        wanted = np.zeros((height, width), np.uint8)
        rows, columns, inside = mask_roi(found.boxes[n], found.masks[n], (width, height))
        wanted[rows, columns] = inside
        assert _overlap(_decoded(one["segmentation"]), wanted) > 0.85


def test_outlines_that_the_model_is_not_sure_of_are_left_out(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    grey = np.full((64, 96, 3), 127, np.uint8)
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    image = {"id": 1, "file_name": "grey.png", "width": 96, "height": 64}
    nothing = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 10, 50, 40]}
    document = {"images": [image], "categories": [{"id": 1, "name": "thing"}], "annotations": [nothing]}
    (tmp_path / "train.json").write_text(json.dumps(document))
    printed = run("outline", tmp_path, "--out", tmp_path / "more.json", "--sure", "0.99", "--size", "96")
    assert printed.startswith("0 of 1 boxes")
    assert json.loads((tmp_path / "more.json").read_text()) == document
    (tmp_path / "grey.png").unlink()
    for out, code in (("train.json", 2), ("other.json", 3), ("nowhere/other.json", 6)):
        with pytest.raises(SystemExit) as ended:
            run("outline", tmp_path, "--out", tmp_path / out)
        assert ended.value.code == code
    assert json.loads((tmp_path / "train.json").read_text()) == document
    assert not (tmp_path / "other.json").exists()


def test_what_a_box_is_said_to_show_is_outlined(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where both overlap, the person or the dog; what the weights have no name for is outlined all the same."""
    asked = []

    class Noting:
        def __init__(self, *_: object) -> None: ...

        def outlines(self, _: object, boxes: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
            asked.append((boxes.tolist(), labels.tolist()))
            return np.full((len(boxes), 28, 28), 0.9, np.float32)

    monkeypatch.setattr(scripts["outline"], "NetSegmenter", Noting)
    names = {4: "dog", 5: "unicorn", 9: "person"}
    boxes = [{"id": k, "image_id": 1, "category_id": k, "bbox": [10, 10, 40, 40]} for k in names]
    document = {"images": [IMAGE], "categories": [{"id": k, "name": name} for k, name in names.items()]}
    (tmp_path / "train.json").write_text(json.dumps(document | {"annotations": boxes}))
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((64, 96, 3), 127, np.uint8))
    assert run("outline", tmp_path, "--out", tmp_path / "more.json").startswith("3 of 3 boxes")
    _, known = scripts["weights"].read_weights(scripts["weights"].BUILT_IN)
    assert asked == [([[10, 10, 50, 50]] * 3, [known.index("dog") + 1, 0, known.index("person") + 1])]


@pytest.mark.parametrize(("side", "drawn"), [(19, True), (21, False)])
def test_an_outline_that_takes_in_another_object_is_left_out(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, drawn: bool
) -> None:
    """A quarter of 40 x 40 pixels may be known to belong to something else; regions to ignore are no objects."""

    class Filling:
        def __init__(self, *_: object) -> None: ...

        def outlines(self, _: object, boxes: NDArray[np.float32], __: object) -> NDArray[np.float32]:
            return np.full((len(boxes), 28, 28), 0.9, np.float32)

    monkeypatch.setattr(scripts["outline"], "NetSegmenter", Filling)
    right, bottom = 10 + side, 10 + side
    given = {"id": 1, "image_id": 1, "category_id": 9, "bbox": [0, 0, 30, 30]}
    polygon = [[10, 10, right, 10, right, bottom, 10, bottom]]
    annotations = [
        given | {"segmentation": polygon},
        given | {"id": 2, "iscrowd": 1, "segmentation": [[0, 0, 90, 0, 90, 60, 0, 60]]},
        given | {"id": 3, "bbox": [10, 10, 40, 40]},
    ]
    document = {"images": [IMAGE], "categories": [{"id": 9, "name": "person"}], "annotations": annotations}
    (tmp_path / "train.json").write_text(json.dumps(document))
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((64, 96, 3), 127, np.uint8))
    assert run("outline", tmp_path, "--out", tmp_path / "more.json").startswith(f"{int(drawn)} of 1 boxes")
    written = json.loads((tmp_path / "more.json").read_text())["annotations"]
    assert written[:2] == annotations[:2]
    assert ("segmentation" in written[2]) == drawn


def test_a_damaged_outline_beside_is_named(segmenter: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = {"id": 1, "image_id": 1, "category_id": 9, "bbox": [10, 10, 40, 40]}
    damaged = box | {"id": 2, "segmentation": {"size": [5, 5], "counts": ""}}
    document = {"images": [IMAGE], "categories": [{"id": 9, "name": "person"}], "annotations": [box, damaged]}
    (tmp_path / "train.json").write_text(json.dumps(document))
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((64, 96, 3), 127, np.uint8))
    with pytest.raises(SystemExit) as ended:
        run("outline", tmp_path, "--out", tmp_path / "more.json", "--size", "96")
    assert ended.value.code == 3
    assert "grey.png: a segmentation has the size [5, 5]" in capsys.readouterr().err
    assert not (tmp_path / "more.json").exists()


def test_what_was_drawn_is_kept_when_a_picture_cannot_be_read(
    segmenter: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    height, width = cv2.imread(str(PHOTO)).shape[:2]
    (found,) = segmenter([np.asarray(cv2.imread(str(PHOTO)), np.uint8)])
    x1, y1, x2, y2 = found.boxes[0].tolist()
    images = [
        {"id": n, "file_name": name, "width": width, "height": height} for n, name in enumerate([PHOTO.name, "x"])
    ]
    category = 2**64  # which is an id as any other
    box = {"category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1]}
    document: dict[str, Any] = {"images": images, "categories": [{"id": category, "name": "thing"}]}
    document["annotations"] = [{**box, "id": n + 1, "image_id": n} for n in range(2)]
    (tmp_path / "train.json").write_text(json.dumps(document))
    command = ["outline", tmp_path, "--images", PHOTO.parent, "--size", "416", "--sure", "0.5", "--out"]
    with pytest.raises(SystemExit) as ended:
        run(*command, tmp_path / "more.json")
    assert ended.value.code == 3
    assert f"the annotated image {PHOTO.parent / 'x'} cannot be read" in capsys.readouterr().err
    written = json.loads((tmp_path / "more.json").read_text())["annotations"]
    assert ["segmentation" in one for one in written] == [True, False]


def test_a_mirror_image_has_mirrored_outlines(segmenter: Any) -> None:
    photo = np.asarray(cv2.imread(str(PHOTO)), np.uint8)
    (found,) = segmenter([photo])
    mirrored = found.boxes.copy()
    mirrored[:, 0::2] = photo.shape[1] - found.boxes[:, 2::-2]
    labels = found.class_ids + 1
    there = segmenter.outlines(photo, found.boxes, labels)
    back = segmenter.outlines(np.ascontiguousarray(photo[:, ::-1]), mirrored, labels)
    np.testing.assert_allclose(back[:, :, ::-1], there, atol=1e-3)


def test_where_nothing_is_found_there_are_no_boxes_and_no_masks(segmenter: Any) -> None:
    nothing = segmenter([np.full((64, 96, 3), 127, np.uint8)])
    assert [len(one) for one in nothing] == [0]
    assert nothing[0].masks.shape == (0, 28, 28)


def _decoded(outline: dict[str, Any]) -> NDArray[np.uint8]:
    from pycocotools import mask as coco

    return np.asarray(coco.decode(outline), np.uint8)


def _overlap(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    return float((first & second).sum() / (first | second).sum())
