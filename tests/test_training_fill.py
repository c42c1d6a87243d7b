"""Outlines that leave out what one sees through them become those of the whole object; all others stay."""

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

from tests.training_scripts import importable, needing, run

pytestmark = needing("torch", "pycocotools", seconds=60)


@pytest.fixture(scope="module")
def fill() -> Iterator[ModuleType]:
    with importable():
        yield importlib.import_module("fill")


def ring(gap: int = 0) -> NDArray[np.uint8]:
    """A tyre of radius 30, 3 pixels thick, that lacks its rightmost `gap` rows."""
    mask = np.zeros((100, 120), np.uint8)
    cv2.circle(mask, (60, 50), 30, 1, 3)
    mask[50 - gap // 2 : 50 + (gap + 1) // 2, 60:] = 0
    return mask


@pytest.mark.parametrize(("gap", "closed", "whole"), [(0, 0, True), (6, 0, False), (6, 10, True), (20, 10, False)])
def test_what_an_outline_encloses_belongs_to_it_when_gaps_are_closed(
    fill: ModuleType, gap: int, closed: int, whole: bool
) -> None:
    mask = ring(gap)
    found = fill.filled(mask, closed)
    assert (found >= mask).all()
    assert (found[50, 60], found[2, 2]) == (int(whole), 0)
    disc = np.zeros_like(mask)
    cv2.circle(disc, (60, 50), 32, 1, cv2.FILLED)
    assert abs(int(found.sum()) - int((disc if whole else mask).sum())) < 0.06 * disc.sum()


def test_the_edge_of_a_picture_closes_nothing(fill: ModuleType) -> None:
    half = ring()[50:]
    assert fill.filled(half, 8)[4, 60] == 0


def run_lengths(mask: NDArray[np.uint8]) -> dict[str, Any]:
    from pycocotools import mask as coco

    found = dict(coco.encode(np.asfortranarray(mask)))
    return found | {"counts": found["counts"].decode("ascii")}


def test_only_outlines_of_the_named_classes_and_source_are_filled(fill: ModuleType, tmp_path: Path) -> None:
    from pycocotools import mask as coco

    images = [
        {"id": n, "file_name": f"{n}.png", "width": 120, "height": 100, "source": source}
        for n, source in enumerate(("voc", "coco"))
    ]
    one = {"bbox": [29, 19, 62, 62], "area": 5, "segmentation": run_lengths(ring(4)), "iscrowd": 0}
    annotations: list[dict[str, Any]] = [
        one | {"id": 1, "image_id": 0, "category_id": 2},
        one | {"id": 2, "image_id": 1, "category_id": 2},
        one | {"id": 3, "image_id": 0, "category_id": 1},
        one | {"id": 4, "image_id": 0, "category_id": 2, "iscrowd": 1},
        one | {"id": 5, "image_id": 0, "category_id": 2, "mask_valid": False},
        {"id": 6, "image_id": 0, "category_id": 2, "bbox": [1, 1, 20, 20], "iscrowd": 0},
        one | {"id": 7, "image_id": 0, "category_id": 2, "segmentation": [[1, 1, 21, 1, 21, 21, 1, 21]]},  # has no gap
    ]
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "bicycle"}]
    document = {"images": images, "categories": categories, "annotations": annotations}
    (tmp_path / "train.json").write_text(json.dumps(document))
    options = (tmp_path, "--classes", "bicycle", "--source", "voc", "--out", tmp_path / "filled.json")
    assert run("fill", *options).startswith("1 of 2 outlines were filled")
    written = json.loads((tmp_path / "filled.json").read_text())
    assert written["annotations"][1:] == annotations[1:]
    assert {key: written[key] for key in ("images", "categories")} == {"images": images, "categories": categories}
    whole = coco.decode(written["annotations"][0].pop("segmentation"))
    assert written["annotations"][0].pop("area") == whole.sum() > 2800
    assert written["annotations"][0].items() <= annotations[0].items()
    np.testing.assert_array_equal(whole, fill.filled(ring(4), round(0.16 * 62)))


@pytest.mark.parametrize("sides", [(-62, 62), (9e5, 9e5)])
def test_boxes_that_fit_no_outline_hold_up_nothing(
    fill: ModuleType, sides: tuple[float, float], tmp_path: Path
) -> None:
    image = {"id": 1, "file_name": "1.png", "width": 120, "height": 100}
    one = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [29, 19, *sides], "segmentation": run_lengths(ring())}
    document = {"images": [image], "categories": [{"id": 1, "name": "bicycle"}], "annotations": [one]}
    (tmp_path / "train.json").write_text(json.dumps(document))
    options = (tmp_path, "--classes", "bicycle", "--out", tmp_path / "filled.json")
    assert run("fill", *options).startswith("1 of 1 outlines were filled")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--classes", "car", "--out", "new.json"], 2, "has no class car; it has ball, tent"),
        (["--classes", "ball", "--out", "train.json"], 2, "is there already: give another --out"),
        (["--classes", "ball", "--out", "new.json", "--gap", "2"], 2, "from 0 to 1, not 2.0"),
        (["--classes", "ball", "--out", "none/new.json"], 6, "none does not exist; create it first"),
        (["--classes", "ball", "--out", "new.json", "--train", "other.json"], 3, "cannot be read"),
        (["--classes", "ball", "--out", "new.json", "--source", "voc"], 2, "has no picture with the source voc"),
        (["--classes", "tent", "--out", "new.json"], 3, "the annotation 4 of image 1 is damaged: a segmentation has"),
    ],
)
def test_what_cannot_be_done_is_said(
    fill: ModuleType, options: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = {"id": 1, "file_name": "1.png", "width": 9, "height": 9}
    outline = {"size": [5, 5], "counts": ""}
    damaged = {"id": 4, "image_id": 1, "category_id": 2, "bbox": [1, 1, 5, 5], "segmentation": outline}
    categories = [{"id": 1, "name": "ball"}, {"id": 2, "name": "tent"}]
    document = {"images": [image], "categories": categories, "annotations": [damaged]}
    (tmp_path / "train.json").write_text(json.dumps(document))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    place = options.index("--out") + 1
    with pytest.raises(SystemExit) as ended:
        run("fill", tmp_path, *options[:place], tmp_path / options[place], *options[place + 1 :])
    assert ended.value.code == code
    assert said in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
