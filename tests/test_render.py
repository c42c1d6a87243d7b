"""Rendering: the views, colours, labels, the status line; judged by what can be seen, not by bytes."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_seg.detections import Detections
from stream_seg.errors import UsageError
from stream_seg.frame import Frame, Image
from stream_seg.geometry import paste
from stream_seg.render import VIEWS, Renderer, View
from stream_seg.render import labels as labels_module
from stream_seg.render.labels import Labels, Rect, writable
from stream_seg.render.notice import announce, caption, dimmed
from stream_seg.render.palette import Shades, colour, ink

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("person", "dog", "Straßenkatze 猫")


def disc(side: int = 28) -> NDArray[np.float32]:
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    return np.asarray(np.clip((1 - np.hypot(x, y)) * 4 + 0.5, 0, 1), np.float32)


def found(boxes: list[tuple[float, float, float, float]], class_ids: list[int] | None = None) -> Detections:
    n = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(n, 4),
        np.linspace(0.98, 0.42, n, dtype=np.float32),
        np.array(class_ids if class_ids is not None else [i % len(NAMES) for i in range(n)], np.int64),
        np.repeat(disc()[None], n, 0),
        NAMES,
    )


def frame(size: tuple[int, int], value: int | None = None, *, still: bool = False) -> Frame:
    """A frame of one grey, or with a gradient in all three channels."""
    x, y = np.arange(size[0]), np.arange(size[1])[:, None]
    image = np.empty((size[1], size[0], 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = x * 255 // size[0], y * 255 // size[1], (x + y) * 255 // sum(size)
    if value is not None:
        image[:] = value
    return Frame(image, 7, Fraction(7, 30), 1.5, "a.jpg" if still else None, still)


def changed(before: Image, after: Image) -> NDArray[np.bool_]:
    different: NDArray[np.bool_] = (before != after).any(2)
    return different


SCENE = found([(20, 40, 150, 220), (120, 90, 230, 200), (240, 60, 310, 130), (60, 120, 140, 230)], [0, 1, 1, 0])


@pytest.mark.parametrize("view", VIEWS)
def test_each_view_looks_as_it_did_when_somebody_last_looked(view: View) -> None:
    """Text differs between OpenCV 4 and 5, hence the wider bounds where labels are; masks and boxes do not."""
    drawn = Renderer(view)(frame((320, 240)), SCENE).image
    golden = cv2.imread(str(GOLDEN / f"{view}.png"))
    assert golden is not None
    difference = np.abs(drawn.astype(int) - golden).max(2)
    labelled = np.zeros(difference.shape, np.bool_)
    for x, y in SCENE.boxes[:, :2].astype(int):
        labelled[y - 20 : y, x : x + 110] = True
    assert (difference[~labelled] > 8).mean() < 0.003
    assert (difference[labelled] > 8).mean() < 0.5


@pytest.mark.parametrize("view", VIEWS)
def test_the_frame_given_is_left_alone_and_its_times_are_kept(view: View) -> None:
    given_frame = frame((320, 240))
    before = given_frame.image.copy()
    drawn = Renderer(view, hud=lambda: "30 fps")(given_frame, SCENE)
    assert (given_frame.image == before).all()
    assert not np.shares_memory(drawn.image, given_frame.image)
    assert (drawn.index, drawn.pts, drawn.captured_at, drawn.name) == (7, Fraction(7, 30), 1.5, None)
    assert drawn.image.shape == before.shape
    assert drawn.image.flags.c_contiguous


def test_masks_view_is_the_bitmasks_in_colour_on_black() -> None:
    drawn = Renderer("masks")(frame((320, 240)), SCENE).image
    assert (drawn.any(2) == paste(SCENE, (320, 240)).any(0)).all()
    apart = found([(10, 10, 100, 100), (150, 50, 300, 200)])
    drawn = Renderer("masks")(frame((320, 240)), apart).image
    for class_id, bitmask in enumerate(paste(apart, (320, 240))):
        assert (drawn[bitmask] == colour(class_id, 0)).all()


def test_cutouts_are_the_picture_where_objects_are_and_black_elsewhere() -> None:
    given_frame = frame((320, 240))
    drawn = Renderer("cutouts")(given_frame, SCENE).image
    seen = paste(SCENE, (320, 240)).any(0)
    assert (drawn[seen] == given_frame.image[seen]).all()
    assert not drawn[~seen].any()


def test_both_tints_the_mask_and_boxes_leaves_the_inside_alone() -> None:
    detections = found([(50, 60, 250, 220)])
    plain = frame((320, 240), 100)
    inside = paste(detections, (320, 240))[0]
    inside[:85] = False  # where the label may be
    tinted = Renderer("both")(plain, detections).image[inside]
    expected = 100 * 0.55 + 0.45 * np.array(colour(0, 0))
    assert np.abs(np.median(tinted, 0) - expected).max() <= 1
    boxed = Renderer("boxes")(plain, detections).image
    assert (boxed[100:200, 60:240] == 100).all()
    assert (boxed[140, 50] == colour(0, 0)).all()


def test_tinted_is_the_picture_with_masks_blended_in_and_nothing_else() -> None:
    given_frame = frame((320, 240), 100)
    drawn = Renderer("tinted", ids=True)(given_frame, SCENE).image
    inside = paste(SCENE, (320, 240)).any(0)
    assert (changed(given_frame.image, drawn) == inside).all()
    assert (drawn[130, 40] == Renderer("both")(given_frame, SCENE).image[130, 40]).all()


def test_the_numbers_of_objects_stand_in_front_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(Labels, "draw", lambda self, image, text, *rest: written.append(text))
    two = found([(20, 40, 150, 220), (160, 40, 250, 120)])
    numbered = replace(two, ids=np.array([12, 3]))
    Renderer(ids=True)(frame((320, 240)), numbered)
    Renderer()(frame((320, 240)), numbered)
    Renderer(ids=True)(frame((320, 240)), two)  # which nobody follows
    plain = ["person 98%", "dog 42%"]
    assert written == ["#12 person 98%", "#3 dog 42%", *plain, *plain]


def noise(size: tuple[int, int], *, black_and_white: bool = False) -> Frame:
    """A frame each of whose pixels is a detail of its own."""
    values = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Frame(values // 128 * 255 if black_and_white else values, 0, Fraction(0), 0.0)


@pytest.mark.parametrize(
    "box",
    [
        (150, 100, 158, 108),
        (150.4, 100.4, 152.6, 102.6),
        (100, 60, 220, 180),
        (30, 40, 300, 52),  # a ski
        (0, 0, 320, 240),
        (-50, -40, 400, 300),
        (-20, 30, 40, 150),
        (0, 0, 8, 8),
        (312, 232, 320, 240),
        (100, 200, 200, 260),
    ],
)
@pytest.mark.parametrize("side", [1, 3, 28, 112])
def test_nothing_of_an_object_is_left_where_it_is_blurred(box: tuple[float, float, float, float], side: int) -> None:
    """No pixel is left that is black or white, nor a detail: neighbours are nearly alike."""
    grid = np.ones((1, 1), np.float32) if side == 1 else disc(side)
    detections = replace(found([box], [0]), masks=grid[None])
    given_frame = noise((320, 240), black_and_white=True)
    drawn = Renderer("blurred")(given_frame, detections).image.astype(int)
    mask = paste(detections, (320, 240))[0]
    assert mask.any()
    assert drawn[mask].min() > 30
    assert drawn[mask].max() < 225
    for axis in (0, 1):
        both = mask & np.roll(mask, 1, axis)
        both[:1], both[:, :1] = False, False
        assert np.abs(drawn - np.roll(drawn, 1, axis))[both].max(initial=0) <= 8


@pytest.mark.parametrize("corner", [(100, 70), (0, 0), (-30, 160), (250, 100)])
def test_what_is_blurred_reaches_a_tenth_beyond_the_mask_and_hardly_further(corner: tuple[int, int]) -> None:
    x, y = corner
    given_frame = noise((320, 240))
    drawn = Renderer("blurred")(given_frame, found([(x, y, x + 100, y + 150)])).image
    touched = changed(given_frame.image, drawn)
    wider = paste(found([(x - 10, y - 15, x + 110, y + 165)]), (320, 240))[0]
    assert (wider <= touched).all()
    touched[max(y - 25, 0) : y + 175, max(x - 17, 0) : x + 117] = False
    assert not touched.any()


def test_a_small_object_is_blurred_to_one_colour_with_two_pixels_around_it() -> None:
    given_frame = noise((64, 48))
    square = replace(found([(20, 20, 28, 28)]), masks=np.ones((1, 28, 28), np.float32))
    drawn = Renderer("blurred")(given_frame, square).image
    assert len(np.unique(drawn[18:30, 18:30].reshape(-1, 3), axis=0)) == 1
    assert changed(given_frame.image, drawn).sum() == 12 * 12


def test_where_something_was_found_that_has_no_outline_its_box_is_blurred() -> None:
    given_frame = noise((320, 240))
    empty = replace(found([(100, 70, 200, 220)]), masks=np.full((1, 28, 28), 0.4, np.float32))
    touched = changed(given_frame.image, Renderer("blurred")(given_frame, empty).image)
    assert touched[70:220, 100:200].all()


def test_objects_that_overlap_are_all_blurred() -> None:
    given_frame = noise((320, 240), black_and_white=True)
    drawn = Renderer("blurred")(given_frame, SCENE).image[paste(SCENE, (320, 240)).any(0)]
    assert drawn.min() > 60
    assert drawn.max() < 195


@pytest.mark.parametrize("dtype", [np.float64, np.uint8])
def test_masks_of_numbers_of_other_kinds_are_blurred_alike(dtype: type) -> None:
    given_frame = noise((320, 240))
    square = replace(found([(100, 70, 200, 220)]), masks=np.ones((1, 28, 28), np.float32))
    other = replace(square, masks=square.masks.astype(dtype))
    drawn = [Renderer("blurred")(given_frame, detections).image for detections in (square, other)]
    assert not changed(*drawn).any()


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_found_and_no_hud_changes_nothing(view: View) -> None:
    given_frame = frame((64, 48))
    drawn = Renderer(view)(given_frame, Detections.none(NAMES)).image
    assert (drawn == (0 if view in ("masks", "cutouts") else given_frame.image)).all()


def test_only_boxes_and_labels_are_touched() -> None:
    detections = found([(100, 100, 200, 180)])
    given_frame = frame((640, 480))
    touched = changed(given_frame.image, Renderer("both")(given_frame, detections).image)
    rows, columns = np.nonzero(touched)
    assert rows.max() < 180
    assert columns.min() >= 100
    assert rows.min() >= 100 - 30


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 9), (320, 240), (3840, 2160)])
@pytest.mark.parametrize("view", VIEWS)
def test_every_size_of_frame_is_drawn_on(view: View, size: tuple[int, int]) -> None:
    width, height = size
    detections = found([(0, 0, width, height), (width * 0.2, height * 0.2, width * 0.7, height * 0.9)])
    drawn = Renderer(view, hud=lambda: "29.9 fps, 31 ms")(frame(size), detections)
    assert drawn.size == size


@pytest.mark.parametrize("view", VIEWS)
@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(*[st.floats(-300, 600, width=32) | st.sampled_from((float("nan"), float("inf")))] * 4), max_size=6
    )
)
def test_boxes_of_any_kind_are_survived(view: View, boxes: list[tuple[float, float, float, float]]) -> None:
    renderer = Renderer(view)
    for _ in range(2):  # twice, because colours are carried over
        renderer(frame((320, 240)), found(boxes))


def test_labels_stay_inside_the_frame_and_do_not_cover_each_other() -> None:
    placed: list[Rect] = []
    labels = Labels()
    labels.start((0, 0, 120, 20))
    image = np.zeros((480, 640, 3), np.uint8)
    for corner in ((0, 0), (5, 4), (600, 0), (630, 470), (300, 200), (310, 205), (305, 210)):
        box = (*corner, min(corner[0] + 200, 640), min(corner[1] + 200, 480))
        before = image.copy()
        labels.draw(image, f"potted plant {corner[0]}%", box, 11, (250, 200, 10 + len(placed)))
        rows, columns = np.nonzero(changed(before, image))
        placed.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in placed]
    assert min(areas) > 0.9 * max(areas) * 0.8  # none was cut off; the texts differ by two digits
    for a, b in combinations([(0, 0, 120, 20), *placed], 2):
        assert a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3], (a, b)


def test_the_end_of_a_long_name_with_its_score_is_seen_in_a_narrow_picture() -> None:
    def label(text: str) -> Image:
        labels, image = Labels(), np.zeros((40, 160, 3), np.uint8)
        labels.start((0, 0, 0, 0))
        labels.draw(image, text, (0, 20, 160, 40), 11, (250, 200, 90))
        return image

    ends = [label(f"a name of a class that is longer than the picture is wide {end}%")[:, 130:] for end in (11, 88)]
    assert (ends[0] != ends[1]).any()
    assert (label("car 40%")[10, 100:] == 0).all()


def test_labels_of_huge_photos_are_not_remembered_beyond_measure() -> None:
    def remembered(labels: Labels) -> int:
        return sum(patch.nbytes for patch in labels._known.values())

    labels, image = Labels(), np.zeros((400, 4000, 3), np.uint8)
    for number in range(1200):
        labels.start((0, 0, 0, 0))
        labels.draw(image, f"person {number}%", (0, 0, 100, 100), 11 if number < 1100 else 200, (90, 90, 250))
        assert remembered(labels) == labels._known_bytes <= 40_000_000
        assert len(labels._known) == min(number + 1, 1024) or number >= 1100
    label, last = labels._known.popitem()
    assert label[0] == "person 1199%"
    assert len(labels._known) + 1 == 40_000_000 // last.nbytes


def test_where_all_places_are_taken_a_label_is_not_looked_for_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a crowd of 300 it took three quarters of the time of drawing."""
    asked: list[Rect] = []
    blocking = Labels._blocking

    def counting(labels: Labels, place: Rect) -> Rect | None:
        asked.append(place)
        return blocking(labels, place)

    monkeypatch.setattr(Labels, "_blocking", counting)
    labels, image = Labels(), np.zeros((60, 80, 3), np.uint8)
    labels.start((0, 0, 0, 0))
    for _ in range(100):
        labels.draw(image, "car 50%", (30, 20, 50, 40), 8, (90, 90, 90))
    assert len(asked) < 100 * 12  # the places around the box, and the few rows that the picture has below it


def test_a_label_does_not_jump_where_boxes_tremble_and_comes_back_when_there_is_room() -> None:
    def stands_above(labels: Labels, left: int) -> bool:
        """Whether the label of a box stands above it, where another's label may be."""
        image = np.zeros((240, 320, 3), np.uint8)
        labels.start((0, 0, 0, 0))
        labels.draw(image, "person 98%", (40, 60, 160, 220), 11, (90, 90, 250), 4)
        labels.draw(image, "person 42%", (left, 62, left + 40, 200), 11, (250, 90, 90), 9)
        return bool((image[:62] == (250, 90, 90)).all(2).any())

    free = next(left for left in range(80, 200) if stands_above(Labels(), left))
    labels = Labels()
    trembling = [free - 1, free, free + 1, free - 2, free + 2]
    assert [stands_above(labels, left) for left in (free + 20, *trembling)] == [True] + [False] * 5
    assert [stands_above(labels, left) for left in (free + 20, free + 2, free)] == [True] * 3


def test_text_reads_on_every_colour() -> None:
    """Contrast as WCAG 2.1 defines it: 4.5 is its bound for small text, 3 for large and bold."""

    def luminance(bgr: tuple[int, int, int]) -> float:
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in bgr)]
        return 0.0722 * linear[0] + 0.7152 * linear[1] + 0.2126 * linear[2]

    for class_id in range(90):
        for shade in range(6):
            field = colour(class_id, shade)
            low, high = sorted((luminance(field), luminance(ink(field))))
            assert (high + 0.05) / (low + 0.05) >= 3.5, (class_id, shade)


def test_classes_and_objects_have_colours_far_apart() -> None:
    def lab(bgr: tuple[int, int, int]) -> NDArray[np.float32]:
        pixel = np.array([[bgr]], np.float32) / 255
        return np.asarray(cv2.cvtColor(pixel, cv2.COLOR_BGR2Lab), np.float32).reshape(3)

    common = [lab(colour(class_id, 0)) for class_id in range(12)]
    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(common, 2)) > 18
    assert min(float(np.linalg.norm(a - b)) for a, b in pairwise(common)) > 60
    for class_id in range(20):
        shades = [lab(colour(class_id, shade)) for shade in range(6)]
        assert min(float(np.linalg.norm(a - b)) for a, b in combinations(shades, 2)) > 8


def test_two_objects_of_a_class_differ_in_colour_and_the_seventh_repeats() -> None:
    shades = Shades().assign(found([(i * 40, 0, i * 40 + 30, 30) for i in range(7)], [0] * 7))
    assert shades == list(range(7))
    assert len({colour(0, shade) for shade in shades}) == 6


def test_what_has_a_number_keeps_its_shade_wherever_it_goes() -> None:
    shades = Shades()
    before = found([(0, 0, 30, 30), (40, 0, 70, 30)], [0, 0])
    assert shades.assign(replace(before, ids=np.array([7, 9]))) == [0, 1]
    assert shades.assign(replace(before, ids=np.array([9, 7]))) == [1, 0]
    assert shades.assign(replace(before, ids=np.array([11, 7]))) == [1, 0]
    assert shades.assign(before) == [1, 0]  # by where they are
    dog = replace(before, class_ids=np.array([1, 0]), ids=np.array([11, 7]))
    assert shades.assign(replace(before, ids=np.array([11, 7]))) == [1, 0]
    assert shades.assign(dog) == [0, 0]  # of another class it has one of those that are free there


def test_an_object_keeps_its_colour_while_it_moves_and_others_come_and_go() -> None:
    shades = Shades()
    assert shades.assign(found([(0, 0, 50, 50), (100, 0, 150, 50)], [0, 0])) == [0, 1]
    # The second is now the surer one, and a third has come.
    assert shades.assign(found([(105, 2, 155, 52), (4, 0, 54, 50), (200, 0, 250, 50)], [0, 0, 0])) == [1, 0, 2]
    assert shades.assign(found([(108, 2, 158, 52)], [0])) == [1]
    # The shade that came free is given to the next; another class has its own.
    assert shades.assign(found([(300, 0, 350, 50), (110, 2, 160, 52), (110, 2, 160, 52)], [0, 0, 1])) == [0, 1, 0]


def test_images_do_not_inherit_colours_from_the_image_before() -> None:
    renderer = Renderer("masks")
    renderer(frame((320, 240), still=True), found([(0, 0, 50, 50), (100, 0, 150, 50)], [0, 0]))
    drawn = renderer(frame((320, 240), still=True), found([(100, 0, 150, 50)], [0])).image
    assert (drawn[25, 125] == colour(0, 0)).all()


def test_the_smaller_object_is_drawn_over_the_larger() -> None:
    detections = found([(100, 100, 140, 140), (0, 0, 240, 240)], [1, 0])
    drawn = Renderer("masks")(frame((240, 240)), detections).image
    assert (drawn[120, 120] == colour(1, 0)).all()


def test_objects_of_about_one_size_do_not_take_turns_in_covering_each_other() -> None:
    renderer = Renderer("masks")
    on_top = []
    for side in (100, 104, 95, 103, 97, 150):
        both = found([(50, 50, 150, 150), (90, 90, 90 + side, 90 + side)], [0, 1])
        drawn = renderer(frame((320, 240)), replace(both, ids=np.array([4, 9]))).image
        on_top.append(tuple(drawn[120, 120].tolist()))
    assert on_top == [colour(1, 0)] * 5 + [colour(0, 0)]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("value", [0, 128, 255])
def test_the_status_line_is_legible_on_any_picture(view: View, value: int) -> None:
    drawn = Renderer(view, hud=lambda: "29.9 fps  31 ms  0 dropped")(frame((640, 480), value), found([(0, 0, 90, 90)]))
    plate = drawn.image[3:14, 6:130].astype(int).sum(2) / 3
    assert plate.max() > 170
    assert plate.min() < 90
    assert np.percentile(plate, 50) < 90


def test_the_status_line_is_asked_for_each_frame_and_may_be_empty() -> None:
    lines = iter(["first", "", "third"])
    renderer = Renderer("boxes", hud=lambda: next(lines))
    plain = frame((320, 240), 200)
    touched = [changed(plain.image, renderer(plain, Detections.none(NAMES)).image).any() for _ in range(3)]
    assert touched == [True, False, True]


def test_names_in_any_script_are_written() -> None:
    plain = frame((640, 480), 0)
    drawn = Renderer("boxes")(plain, found([(100, 100, 300, 300)], [2])).image
    label = drawn[70:99, 100:260]
    assert (label == colour(2, 0)).all(2).sum() > 500
    assert (np.abs(label.astype(int) - ink(colour(2, 0))) < 60).all(2).any()


def test_accents_that_are_characters_of_their_own_stand_over_their_letters() -> None:
    def label(text: str) -> Image:
        labels, image = Labels(), np.zeros((40, 160, 3), np.uint8)
        labels.start((0, 0, 0, 0))
        labels.draw(image, text, (0, 30, 160, 40), 15, (250, 200, 90))
        return image

    assert (label("Cafe\u0301 10%") == label("Caf\u00e9 10%")).all()


@pytest.mark.skipif(cv2.__version__ < "5", reason="OpenCV's font is ASCII")
@pytest.mark.parametrize(
    ("text", "from_left_to_right"),
    [
        ("#3 \u05d0\u05d1\u05d2 87%", "#3 \u05d2\u05d1\u05d0 87%"),
        ("\u0634\u062e\u0635 \u0634 5%", "\u0634 \u0635\u062e\u0634 5%"),
        ("\u05d0\u05d1 12.5 (\u05d2\u05d3) 87%", "(\u05d3\u05d2) 12.5 \u05d1\u05d0 87%"),
        ("\u05d0\u05d1 cat [\u05d2\u05d3]", "\u05d1\u05d0 cat [\u05d3\u05d2]"),
        ("\u05d0\u05b8\u05d1", "\u05d1\u05d0\u05b8"),
        ("person (a) 87%", "person (a) 87%"),
    ],
    ids=["hebrew", "arabic", "numbers and brackets", "beside latin", "vowel points", "latin alone"],
)
def test_letters_that_are_read_from_the_right_stand_there(text: str, from_left_to_right: str) -> None:
    assert writable(text) == from_left_to_right


def test_labels_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are rounded, so that the same labels come again."""
    made: list[str] = []
    make = labels_module._label
    monkeypatch.setattr(labels_module, "_label", lambda text, *rest: made.append(text) or make(text, *rest))
    wanted: list[str] = []
    look_up = Labels._label
    monkeypatch.setattr(Labels, "_label", lambda self, text, *rest: wanted.append(text) or look_up(self, text, *rest))
    renderer = Renderer("boxes")
    for _ in range(5):
        renderer(frame((320, 240)), SCENE)
    assert len(made) == len(SCENE)
    assert len(wanted) == 5 * len(SCENE)


@pytest.mark.parametrize("view", ["both", "blurred"])
def test_photos_of_several_threads_are_drawn_as_each_is_by_itself(view: View) -> None:
    boxes = [(10.0 * i, 5.0 * i, 10.0 * i + 90, 5.0 * i + 80) for i in range(12)]
    photos = [(frame((240 + 40 * i, 200 + 30 * i), still=True), found(boxes[: 4 + 2 * i])) for i in range(5)]
    expected = [Renderer(view)(*photo).image for photo in photos]
    render = Renderer(view)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as threads:
            drawn = list(threads.map(lambda photo: render(*photo).image, 40 * photos))
    finally:
        sys.setswitchinterval(before)
    assert all(np.array_equal(image, expected[i % len(photos)]) for i, image in enumerate(drawn))


def test_an_unknown_view_is_refused_with_a_suggestion() -> None:
    wrong: Any = "mask"
    with pytest.raises(
        UsageError,
        match=r"unknown view 'mask'; use both, boxes, tinted, masks, cutouts, blurred \(did you mean 'masks'\?\)",
    ):
        Renderer(wrong)
    wrong = 5
    with pytest.raises(UsageError, match="unknown view '5'; use both"):
        Renderer(wrong)
    assert get_args(View) == VIEWS


def test_a_dimmed_picture_is_a_grey_and_dark_copy() -> None:
    bright = frame((320, 240)).image
    before = bright.copy()
    dark = dimmed(bright)
    assert (bright == before).all()
    assert (dark.max(2) == dark.min(2)).all()
    assert dark.max() < 100
    assert np.corrcoef(dark[:, :, 0].ravel(), cv2.cvtColor(bright, cv2.COLOR_BGR2GRAY).ravel())[0, 1] > 0.99


@pytest.mark.parametrize("size", [(320, 180), (960, 540), (152, 270), (40, 30), (1, 1)])
@pytest.mark.parametrize("lines", [(), ("ended",), ("no picture: authentication", "for 2 d 3 h, trying again in 30 s")])
def test_an_announcement_stands_in_the_middle_and_inside_the_picture(
    size: tuple[int, int], lines: tuple[str, ...]
) -> None:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    announce(image, lines)
    rows, columns = np.nonzero(image[:, :, 0] > 60)
    assert bool(len(rows)) == bool(lines) or min(size) < 40
    if lines and size[0] >= 320:
        assert (columns.min() + columns.max()) / 2 == pytest.approx(size[0] / 2, abs=size[0] * 0.02)
        assert (rows.min() + rows.max()) / 2 == pytest.approx(size[1] / 2, abs=size[1] * 0.05)
        assert columns.min() > 0
        assert columns.max() < size[0] - 1
        assert rows.max() - rows.min() > size[1] * 0.05 * len(lines)


def test_a_caption_covers_what_stood_along_the_top_and_nothing_else() -> None:
    image = np.full((180, 320, 3), 255, np.uint8)
    caption(image, "front door", 9)
    rows = np.nonzero((image != 255).any((1, 2)))[0]
    assert rows.min() == 0
    assert 9 < rows.max() < 25
    assert image[2, 300:].max() < 40
