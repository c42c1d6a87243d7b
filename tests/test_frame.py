"""Frames and detections: what they check, pixels that are made when they are wanted, numbers that go along."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_seg.detections import Detections
from stream_seg.frame import Frame, Image
from stream_seg.geometry import paste
from stream_seg.line import Line
from stream_seg.region import Region
from stream_seg.render import Renderer
from stream_seg.steady import Steady

IMAGE = np.zeros((4, 6, 3), np.uint8)


def made(image: Image = IMAGE) -> tuple[Frame, list[int]]:
    calls: list[int] = []

    def make() -> Image:
        calls.append(1)
        return image

    return Frame(make, 0, Fraction(0), 0.0), calls


def test_pixels_are_made_once_when_they_are_first_wanted() -> None:
    frame, calls = made()
    later = dataclasses.replace(frame, index=7)
    assert calls == []
    assert later.image is IMAGE
    assert later.size == (6, 4)
    assert later.image is IMAGE
    assert len(calls) == 1


def test_a_frame_goes_to_another_process_with_its_pixels() -> None:
    """As one of a camera does whose pixels nobody has wanted yet."""
    frame = dataclasses.replace(made()[0], index=3, name="a.jpg", is_unchanged=True)
    came = pickle.loads(pickle.dumps(frame))
    assert np.array_equal(came.pixels, IMAGE)
    rest = [one.name for one in dataclasses.fields(Frame) if one.name != "pixels"]
    assert [getattr(came, name) for name in rest] == [getattr(frame, name) for name in rest]


def test_another_image_leaves_the_rest_alone() -> None:
    frame, calls = made()
    other = dataclasses.replace(frame, index=3, name="a.jpg").with_image(np.ones((2, 2, 3), np.uint8))
    assert (other.index, other.name, other.size) == (3, "a.jpg", (2, 2))
    assert calls == []


@pytest.mark.parametrize("image", [IMAGE[..., 0], IMAGE.astype(np.float32), IMAGE[:0], IMAGE[..., :2], None])
def test_what_is_no_picture_is_refused_at_once_or_when_it_is_made(image: Image) -> None:
    with pytest.raises(ValueError, match="image"):
        Frame(image, 0, Fraction(0), 0.0)
    with pytest.raises(ValueError, match="image"):
        _ = made(image)[0].image


def test_an_image_of_ones_own_becomes_a_frame_of_a_film_or_a_still() -> None:
    frame = Frame.at(IMAGE, 0.25, 3)
    assert (frame.image is IMAGE, frame.pts, frame.index, frame.is_still) == (True, Fraction(1, 4), 3, False)
    assert Frame.at(IMAGE, Fraction(1, 30)).pts == Fraction(1, 30)
    assert Frame.at(IMAGE, np.float32(0.5)).pts == Fraction(1, 2)  # type: ignore[arg-type]
    assert Frame.still(IMAGE).is_still
    for make in (lambda: Frame.at(IMAGE[0], 0), lambda: Frame.still(IMAGE[0])):
        with pytest.raises(ValueError, match="image must be"):
            make()


@pytest.mark.parametrize("takes", [Steady(), Region([(0, 0), (6, 4)]), Line((0, 2), (6, 2)), Renderer()])
def test_what_takes_frames_and_what_was_found_says_so(takes: Callable[[Any, Any], object]) -> None:
    found = dataclasses.replace(Detections.none(("cat",)), ids=np.zeros(0, np.int64))
    takes(Frame.at(IMAGE, 0), found)
    with pytest.raises(TypeError, match=r"a Frame is needed, got ndarray: .* Frame\.at\(image, seconds\)"):
        takes(IMAGE, found)
    with pytest.raises(TypeError, match=r"a Frame is needed, got NoneType$"):
        takes(None, found)
    with pytest.raises(TypeError, match=r"Detections of one frame are needed, got list: .*\(found,\) = segmenter"):
        takes(Frame.still(IMAGE), [found])
    with pytest.raises(TypeError, match=r"got ndarray$"):
        takes(Frame.still(IMAGE), IMAGE)


def test_the_numbers_of_detections_go_along_with_them() -> None:
    boxes, masks = np.zeros((3, 4), np.float32), np.zeros((3, 28, 28), np.float32)
    three = Detections(boxes, np.ones(3, np.float32), np.zeros(3, np.int64), masks, ("cat",), np.array([5, 6, 7]))
    last = three[np.array([2, 0])]
    assert last.ids is not None
    assert last.ids.tolist() == [7, 5]
    assert dataclasses.replace(three, ids=None)[:2].ids is None
    with pytest.raises(ValueError, match=r"ids must have shape \(3,\), got \(2,\)"):
        dataclasses.replace(three, ids=np.array([1, 2]))


def test_one_of_the_detections_is_had_by_its_place_and_each_by_iterating() -> None:
    boxes = np.arange(12, dtype=np.float32).reshape(3, 4)
    masks, scores = np.zeros((3, 28, 28), np.float32), np.array([0.9, 0.8, 0.7], np.float32)
    three = Detections(boxes, scores, np.array([1, 0, 1]), masks, ("cat", "dog"), np.array([5, 6, 7]))
    for one in (three[1], three[-2], three[np.int64(1)]):
        assert (len(one), one.names, one.boxes.tolist()) == (1, ["cat"], [[4, 5, 6, 7]])
        assert one.ids is not None
        assert one.ids.tolist() == [6]
    assert [one.names for one in three] == [["dog"], ["cat"], ["dog"]]
    with pytest.raises(IndexError):
        three[3]


@pytest.mark.parametrize(
    "wrong",
    [
        {"masks": np.ones((2, 28, 28), np.bool_)},
        {"masks": np.ones((2, 28, 28), np.float16)},
        {"masks": np.ones((2, 0, 0), np.float32)},
        {"masks": np.ones((2, 28), np.float32)},
        {"masks": np.ones((2, 1, 28, 28), np.float32)},
        {"masks": np.ones((3, 28, 28), np.float32)},
        {"class_ids": np.zeros(2, np.float32)},
    ],
)
def test_detections_that_could_not_be_drawn_are_refused_where_they_are_made(wrong: dict[str, NDArray[Any]]) -> None:
    right: dict[str, NDArray[Any]] = {
        "boxes": np.ones((2, 4), np.float32),
        "scores": np.ones(2, np.float32),
        "class_ids": np.zeros(2, np.int64),
        "masks": np.ones((2, 28, 28), np.float32),
    }
    Detections(**right, class_names=("thing",))
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        Detections(**right | wrong, class_names=("thing",))


@pytest.mark.parametrize("name", ["boxes", "scores", "class_ids", "masks"])
def test_detections_are_not_made_of_lists_or_arrays_of_other_libraries(name: str) -> None:
    right = {
        "boxes": np.ones((1, 4), np.float32),
        "scores": np.ones(1, np.float32),
        "class_ids": np.zeros(1, np.int64),
        "masks": np.ones((1, 28, 28), np.float32),
    }
    with pytest.raises(ValueError, match=f"^{name} must be an array of numpy, got list$"):
        Detections(**right | {name: right[name].tolist()}, class_names=("thing",))


def test_one_name_without_its_comma_is_not_taken_for_a_name_of_each_letter() -> None:
    with pytest.raises(ValueError, match=r"must be a tuple of names, got 'thing': an only one is \('name',\)"):
        Detections.none("thing")  # type: ignore[arg-type]


def test_detections_are_made_of_empty_lists_too_and_of_masks_that_are_bytes() -> None:
    """As a segmenter of one's own may do, in which a frame without objects must not end the run."""
    none: list[float] = []
    assert len(Detections(np.zeros((0, 4)), np.array(none), np.array(none), np.array(none), ("thing",))) == 0
    box, number = np.array([(0, 0, 8, 8)], np.float32), np.zeros(1, np.int64)
    one = Detections(box, np.ones(1, np.float32), number, np.ones((1, 28, 28), np.uint8), ("thing",))
    assert paste(one, (8, 8)).all()
