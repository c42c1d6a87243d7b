"""A camera that moves: how far the picture went, and that objects go with it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stream_seg.detections import Detections
from stream_seg.frame import Frame, Image
from stream_seg.motion import PictureMotion
from stream_seg.steady import Steady

SIZE = (320, 240)
Box = tuple[float, float, float, float]
OBJECTS: tuple[Box, ...] = ((150, 60, 174, 90), (180, 150, 200, 180), (250, 100, 270, 130))
STEP = (-26.0, 4.0)
"""Further than the objects are wide."""


def scene(size: tuple[int, int] = (900, 300), seed: int = 0) -> Image:
    """Something to look at, with details of all sizes, (width, height)."""
    rng, picture = np.random.default_rng(seed), np.zeros((size[1], size[0], 3))
    for cells in (4, 9, 20, 45, 100):
        few = rng.normal(0, 1, (cells * size[1] // size[0] + 2, cells, 3)).astype(np.float32)
        picture += cv2.resize(few, size, interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 30 * picture, 0, 255).astype(np.uint8)


def seen(picture: Image, x: float, y: float, size: tuple[int, int] = SIZE) -> Image:
    """The part of a picture from (x, y) on, which need not be whole pixels."""
    way = np.array([[1, 0, -x], [0, 1, -y]], np.float64)
    return np.asarray(cv2.warpAffine(picture, way, size, flags=cv2.INTER_LINEAR), np.uint8)


def found(boxes: NDArray[np.float64] | tuple[Box, ...]) -> Detections:
    """Objects, masks of which are there on the left alone."""
    count = len(boxes)
    masks = np.zeros((count, 28, 28), np.float32)
    masks[:, :, :14] = 1
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(corners, np.full(count, 0.9, np.float32), np.zeros(count, np.int64), masks, ("thing",))


def picture_motion(before: Image, after: Image) -> NDArray[np.float32]:
    return PictureMotion()(before, after)


def at(number: int, image: Image) -> Frame:
    return Frame(image, number, Fraction(number, 30), 0.0)


class TestPicture:
    @pytest.mark.parametrize("size", [SIZE, (240, 320), (1280, 720), (1300, 60)])
    def test_it_is_told_how_far_all_of_it_moved(self, size: tuple[int, int]) -> None:
        picture = scene((size[0] * 2, size[1] * 2))
        start = np.array((size[0] * 0.5, size[1] * 0.5))
        for share in ((0.1, 0.0), (0.02, -0.2), (-0.06, 0.07), (0.004, 0.003)):
            step = np.multiply(share, size)
            told = picture_motion(seen(picture, *start, size=size), seen(picture, *(start - step), size=size))
            assert told == pytest.approx(step, abs=0.004 * max(size))

    def test_it_is_told_of_each_image_and_the_one_before_it_whichever_those_are(self) -> None:
        motion, images = PictureMotion(), [seen(scene(), x, 0) for x in (0, 10, 30, 60)]
        for one, other in ((0, 1), (1, 2), (0, 3), (3, 2), (2, 2), (2, 0)):
            told = motion(images[one], images[other])
            assert told == pytest.approx(picture_motion(images[one], images[other]))
            assert told[0] == pytest.approx((0, 10, 30, 60)[one] - (0, 10, 30, 60)[other], abs=2)

    def test_what_moves_in_a_part_of_it_does_not_move_it(self) -> None:
        picture, other = scene(), scene(seed=1)
        before, after = seen(picture, 50, 20), seen(picture, 50, 20)
        before[60:180, 40:160], after[60:180, 60:180] = other[:120, :120], other[:120, :120]
        assert picture_motion(before, after) == pytest.approx([0, 0], abs=0.5)

    def test_a_cut_and_a_lamp_and_black_pictures_move_nothing(self) -> None:
        one, black = seen(scene(), 0, 0), np.zeros((240, 320, 3), np.uint8)
        cut, another_look = (one, seen(scene(seed=1), 0, 0)), (one, seen(scene(), 130, 0))
        for before, after in (cut, another_look, (one, one), (one, one // 2), (black, black), (black, one)):
            assert picture_motion(before, after) == pytest.approx([0, 0], abs=0.5)

    @pytest.mark.parametrize("size", [(1, 1), (1, 300), (500, 1), (3, 2)])
    def test_pictures_of_a_few_pixels_do_no_harm(self, size: tuple[int, int]) -> None:
        picture = scene((size[0] + 4, size[1] + 4))
        assert np.isfinite(picture_motion(seen(picture, 0, 0, size), seen(picture, 1, 1, size))).all()


class TestObjects:
    """Of a film in which the camera pans to the right, faster than its objects are wide."""

    def film(
        self,
        frames: int,
        missing: tuple[int, ...] = (),
        *,
        step: tuple[float, float] = STEP,
        withhold: bool = True,
    ) -> list[Detections]:
        picture, steady = scene(), Steady(withhold=withhold, shown_from=0.5)
        shown = []
        for number in range(frames):
            x, y = number * -step[0], number * -step[1]
            boxes = np.array(OBJECTS, np.float64) - (x, y, x, y)
            is_there = (boxes[:, 2] > 0) & (boxes[:, 3] > 0) & (number not in missing)
            clipped = boxes[is_there].clip(0, (*SIZE, *SIZE))
            shown.append(steady(at(number, seen(picture, x, y + 40)), found(clipped)))
        return shown

    @pytest.mark.parametrize("step", [STEP, (-1.5, 1.0)])
    def test_they_keep_their_numbers_and_places(self, step: tuple[float, float]) -> None:
        shown = self.film(6, step=step)
        assert [one.ids.tolist() for one in shown if one.ids is not None] == [[1, 2, 3]] * 6
        places = np.array(OBJECTS, np.float64) + 5 * np.tile(step, 2)
        assert shown[5].boxes == pytest.approx(places, abs=0.3 + 0.02 * abs(step[0]))

    def test_where_they_are_missed_they_are_shown_where_the_picture_took_them(self) -> None:
        shown = self.film(6, missing=(4,))
        assert [len(one) for one in shown] == [3] * 6
        assert shown[4].boxes == pytest.approx(np.array(OBJECTS, np.float64) + 4 * np.tile(STEP, 2), abs=3)
        assert [one.ids.tolist() for one in shown if one.ids is not None] == [[1, 2, 3]] * 6

    def test_what_leaves_the_picture_is_shown_as_far_as_it_is_in_it(self) -> None:
        shown = self.film(12, missing=(6, 8, 9))
        for one in shown:
            assert (one.boxes >= 0).all()
            assert (one.boxes <= (*SIZE, *SIZE)).all()
        left = shown[6]  # the first object is at its edge, from -6 to 18, and missed
        assert left.boxes[left.boxes[:, 0].argmin()] == pytest.approx([0, 84, 18, 114], abs=3)
        is_there = left.masks[left.boxes[:, 0].argmin(), 14] > 0.5
        assert is_there.sum() == pytest.approx(9, abs=1)  # of 28 cells: its left half without a quarter of the box
        assert len(self.film(15, missing=tuple(range(8, 15)))[-1]) == 0

    def test_a_frame_that_is_unchanged_shows_as_much_of_them(self) -> None:
        picture, steady = scene(), Steady(shown_from=0.5)
        for number in range(7):
            image, box = seen(picture, 26 * number, 0), np.array([(150 - 26 * number, 60, 174 - 26 * number, 90)])
            shown = steady(at(number, image), found(box if number < 6 else box[:0]))
        again = steady(replace(at(7, image), is_unchanged=True), found(box[:0]))
        assert shown.boxes[0, 0] == 0
        assert again.boxes.tolist() == shown.boxes.tolist()
        again.boxes[:] = again.masks[:] = 0  # theirs who have got it
        assert steady(replace(at(8, image), is_unchanged=True), found(box[:0])).boxes.tolist() == shown.boxes.tolist()

    @pytest.mark.parametrize("is_unchanged", [False, True])
    def test_it_does_not_reach_beyond_the_picture_once_that_rests(self, is_unchanged: bool) -> None:
        picture, steady = scene(), Steady()
        for number in range(2):
            steady(at(number, seen(picture, 0, 0)), found(((10, 60, 60, 120),)))
        moved = steady(at(2, seen(picture, 30, 0)), found(()))
        resting = steady(replace(at(3, seen(picture, 30, 0)), is_unchanged=is_unchanged), found(()))
        assert moved.boxes == pytest.approx(np.array([(0, 60, 30, 120)]), abs=1)
        assert resting.boxes.tolist() == moved.boxes.tolist()
        assert (resting.masks == moved.masks).all()

    def test_what_crept_while_nobody_looked_has_moved_since_the_last_look(self) -> None:
        picture, steady = scene(), Steady(shown_from=0.5)
        for number, x in enumerate((0, 0, 0, 2, 4, 6, 8, 10, 12)):
            crept = 0 < x < 12
            there = found(((150 - x, 60, 158 - x, 90),)) if not crept else found(((150, 60, 158, 90),))
            shown = steady(replace(at(number, seen(picture, x, 0)), is_unchanged=crept), there)
            assert shown.ids is not None
            assert shown.ids.tolist() == [1]
        assert shown.boxes == pytest.approx(np.array([(138, 60, 146, 90)]), abs=0.5)

    @pytest.mark.parametrize("step", [(30, 0), (-30, 0), (0, 30), (0, -30)])
    def test_what_has_left_the_picture_is_not_shown_as_nothing_at_its_edge(self, step: tuple[int, int]) -> None:
        picture, steady = np.asarray(64 + scene((900, 600)) // 4, np.uint8), Steady()
        edges = ((4, 60, 20, 120), (300, 60, 316, 120), (60, 4, 120, 20), (60, 220, 120, 236))
        leaving = edges[[(30, 0), (-30, 0), (0, 30), (0, -30)].index(step)]
        for number in range(2):
            assert len(steady(at(number, seen(picture, 200, 200)), found((leaving,)))) == 1
        assert len(steady(at(2, seen(picture, 200 + step[0], 200 + step[1])), found(()))) == 0

    def test_what_comes_back_into_the_picture_is_known(self) -> None:
        picture, steady = scene(), Steady(shown_from=0.5)
        numbers = []
        for number, x in enumerate((0, 30, 60, 90, 120, 90, 60, 30, 0)):
            box = np.array([(60, 60, 100, 100)], np.float64) - (x, 0, x, 0)
            there = box.clip(0, (*SIZE, *SIZE)) if box[0, 2] > 5 else box[:0]
            shown = steady(at(number, seen(picture, x, 0)), found(there))
            numbers.append(shown.ids.tolist() if shown.ids is not None else [])
        assert numbers[-1] == [1]
        assert max(max(some, default=0) for some in numbers) == 1

    def test_a_large_thing_that_moves_takes_nothing_with_it(self) -> None:
        picture, large, steady = scene(), scene((1200, 200), seed=1), Steady(shown_from=0.5)
        resting = ((2.0, 2.0, 16.0, 14.0), (300.0, 225.0, 318.0, 238.0))
        for number in range(8):
            image = seen(picture, 0, 0)
            image[20:220, 20:300] = large[:, 30 * number : 30 * number + 280]
            shown = steady(at(number, image), found(resting))
            assert shown.ids is not None
            assert shown.ids.tolist() == [1, 2]
            assert shown.boxes == pytest.approx(np.array(resting))
        before = seen(picture, 0, 0)
        before[20:220, 20:300] = large[:, 180:460]
        assert picture_motion(before, image)[0] == pytest.approx(-30, abs=2)  # which it did take for the picture's

    @pytest.mark.parametrize("step", [5, 8])
    def test_nor_does_it_when_it_is_slow(self, step: int) -> None:
        picture, large, steady = scene(), scene((1200, 200), seed=1), Steady(shown_from=0.5)
        resting = ((2.0, 2.0, 40.0, 50.0), (290.0, 190.0, 318.0, 238.0))
        images = [seen(picture, 0, 0) for _ in range(8)]
        for number, image in enumerate(images):
            image[20:220, 45:285] = large[:, step * number : step * number + 240]
            assert steady(at(number, image), found(resting)).boxes == pytest.approx(np.array(resting))
        steps = [picture_motion(*pair)[0] for pair in itertools.pairwise(images)]
        assert min(steps) < -2  # of the picture, for which it was taken

    def test_what_is_hidden_stays_hidden_where_it_was(self) -> None:
        before, after = self.film(4, missing=(3,), withhold=False)[2:]
        assert len(after) >= 3
        assert after.boxes == pytest.approx(before.boxes)
