"""One thing, one name: outlines of several classes that coincide."""

from __future__ import annotations

import numpy as np
import pytest

from stream_seg.detections import Detections
from stream_seg.naming import best_named

NAMES = ("car", "truck", "bus")
Box = tuple[float, float, float, float]
HERE: Box = (100, 100, 200, 180)


def half(side: str, cells: int = 28) -> np.ndarray:
    mask = np.zeros((cells, cells), np.float32)
    mask[:, : cells // 2] = side in ("left", "both")
    mask[:, cells // 2 :] = side in ("right", "both")
    return mask


def found(*objects: tuple[Box, float, int, str]) -> Detections:
    boxes, scores, classes, masks = zip(*objects, strict=True) if objects else ((), (), (), ())
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(classes, np.int64),
        np.array([half(mask) for mask in masks], np.float32).reshape(-1, 28, 28),
        NAMES,
    )


def remaining(*objects: tuple[Box, float, int, str]) -> list[int]:
    detections = found(*objects)
    best = best_named(detections, detections.scores)
    assert (best[best] == best).all()  # what stands for another stands for itself
    return np.flatnonzero(best == np.arange(len(best))).tolist()


def test_of_one_outline_under_several_names_the_best_remains() -> None:
    assert remaining((HERE, 0.6, 0, "both"), (HERE, 0.9, 1, "both"), (HERE, 0.7, 2, "both")) == [1]
    nearly = (103, 98, 203, 182)
    assert remaining((HERE, 0.6, 0, "both"), (nearly, 0.5, 1, "both")) == [0]


def test_what_is_preferred_need_not_be_likelier() -> None:
    detections = found((HERE, 0.6, 0, "both"), (HERE, 0.9, 1, "both"))
    assert best_named(detections, np.array([0.9, 0.6], np.float32)).tolist() == [0, 0]


def test_a_rider_and_a_horse_in_one_box_are_two() -> None:
    assert remaining((HERE, 0.6, 0, "left"), (HERE, 0.9, 1, "right")) == [0, 1]
    assert remaining((HERE, 0.6, 0, "left"), (HERE, 0.9, 1, "both")) == [0, 1]


def test_one_class_is_left_to_the_model() -> None:
    assert remaining((HERE, 0.6, 0, "both"), (HERE, 0.9, 0, "both")) == [0, 1]


@pytest.mark.parametrize("other", [(150, 100, 250, 180), (100, 100, 140, 180), (300, 300, 400, 380)])
def test_other_places_are_other_things(other: Box) -> None:
    assert remaining((HERE, 0.6, 0, "both"), (other, 0.9, 1, "both")) == [0, 1]


def test_masks_count_where_they_are_in_the_picture() -> None:
    """The left half of the wide box is all of the narrow one, and the other way round is nothing alike."""
    wide: Box = (100, 100, 220, 180)
    assert remaining((wide, 0.9, 0, "left"), ((100, 100, 162, 180), 0.8, 1, "both")) == [0]
    assert remaining((wide, 0.9, 0, "right"), ((100, 100, 162, 180), 0.8, 1, "both")) == [0, 1]


def test_what_lost_its_name_takes_no_other_with_it() -> None:
    """Each is much like the next, and the first and the last are not."""
    row = [((100 + 14.0 * i, 100.0, 200 + 14.0 * i, 180.0), 0.9 - 0.1 * i, i, "both") for i in range(3)]
    assert remaining(*row) == [0, 2]
    middle_last = found(*[(*row[i][:1], score, *row[i][2:]) for i, score in enumerate((0.9, 0.7, 0.8))])
    assert best_named(middle_last, middle_last.scores).tolist() == [0, 0, 2]  # it is the likelier one's


def test_empty_masks_boxes_without_area_and_nothing_do_no_harm() -> None:
    assert remaining() == []
    assert remaining((HERE, 0.9, 0, "none"), (HERE, 0.8, 1, "none")) == [0, 1]
    flat: Box = (100, 100, 200, 100)
    assert remaining((flat, 0.9, 0, "both"), (flat, 0.8, 1, "both")) == [0, 1]
    odd: Box = (float("nan"), 0, float("inf"), 1)
    assert remaining((odd, 0.9, 0, "both"), (odd, 0.8, 1, "both")) == [0, 1]
