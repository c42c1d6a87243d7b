"""Trails: where they lead, how long, and what is remembered for them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_seg.detections import Detections
from stream_seg.errors import UsageError
from stream_seg.frame import Frame, Image
from stream_seg.region import Region
from stream_seg.render import BLACK_VIEWS, VIEWS, Renderer, View
from stream_seg.render.palette import colour
from stream_seg.steady import Steady
from stream_seg.tiles import Tiles

Objects = dict[int, tuple[float, float]]
"""Where objects stand, by their numbers."""

SIZE = (320, 240)
TONE = colour(0, 0)


def frame(at: float | Fraction, size: tuple[int, int] = SIZE) -> Frame:
    return Frame.at(np.full((size[1], size[0], 3), 100, np.uint8), at)


def standing(objects: Objects, size: tuple[float, float] = (20, 40)) -> Detections:
    """Objects of an empty mask that stand there."""
    n = len(objects)
    boxes = [(x - size[0] / 2, y - size[1], x + size[0] / 2, y) for x, y in objects.values()]
    return Detections(
        np.array(boxes, np.float32).reshape(n, 4),
        np.full(n, 0.9, np.float32),
        np.zeros(n, np.int64),
        np.zeros((n, 7, 7), np.float32),
        ("person",),
        np.array(list(objects), np.int64),
    )


def shown(render: Renderer, at: float | Fraction, objects: Objects, size: tuple[int, int] = SIZE) -> NDArray[np.bool_]:
    """Which pixels of the picture are drawn on; objects without masks leave none in the view "tinted"."""
    given = frame(at, size)
    before = given.image.copy()
    drawn = render(given, standing(objects)).image
    assert (given.image == before).all()
    return touched(drawn)


def touched(image: Image) -> NDArray[np.bool_]:
    drawn: NDArray[np.bool_] = (image != 100).any(2)
    return drawn


def reach(drawn: NDArray[np.bool_]) -> tuple[int, int] | None:
    """The first and last column that is drawn on."""
    columns = np.flatnonzero(drawn.any(0))
    return (int(columns[0]), int(columns[-1])) if len(columns) else None


def walked(render: Renderer, times: Sequence[float], speed: float = 60) -> tuple[int, int] | None:
    """Where the trail of one who walks to the right lies in the last picture."""
    return [reach(shown(render, at, {1: (20 + speed * at, 200)})) for at in times][-1]


def test_a_trail_leads_to_where_an_object_stands_from_where_it_stood() -> None:
    render = Renderer("tinted", trails=2.0)
    drawn = [shown(render, i / 10, {1: (20 + 6 * i, 200)}) for i in range(11)]
    assert not drawn[0].any()
    rows, columns = np.nonzero(drawn[-1])
    assert (columns.min(), columns.max()) == (pytest.approx(20, abs=3), pytest.approx(80, abs=3))
    assert set(rows) <= set(range(197, 204))


@pytest.mark.parametrize("rate", [2, 10, 30, 120])
def test_it_is_as_long_as_time_goes_whatever_the_rate(rate: int) -> None:
    first, last = walked(Renderer("tinted", trails=1.0), [i / rate for i in range(4 * rate + 1)]) or (0, 0)
    assert last == pytest.approx(260, abs=3)
    assert first == pytest.approx(200, abs=5)


def test_so_it_is_where_frames_are_far_apart_at_times() -> None:
    times = [0, 0.1, 0.2, 1.3, 1.35, 1.4, 1.9, 2.0, 2.1, 2.9]
    first, last = walked(Renderer("tinted", trails=1.0), times) or (0, 0)
    assert (first, last) == (pytest.approx(20 + 60 * 1.9, abs=4), pytest.approx(20 + 60 * 2.9, abs=3))
    assert walked(Renderer("tinted", trails=1.0), [0, 0.1, 0.2, 5]) is None


def test_it_is_thinner_the_longer_ago_and_of_the_colour_of_its_object() -> None:
    render, size = Renderer("tinted", trails=2.0), (1280, 720)
    for i in range(61):
        drawn = render(frame(i / 30, size), standing({1: (100 + 15 * i, 300)})).image
    widths = [int(touched(drawn)[:, x].sum()) for x in range(110, 990, 20)]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1] - 1
    assert (drawn[300, 950] == TONE).all()


def test_who_stands_still_keeps_the_trail_of_the_way_there() -> None:
    render = Renderer("tinted", trails=10.0)
    for i in range(15):
        drawn = shown(render, i / 4, {1: (20 + 15 * min(i, 4), 200)})
    assert reach(drawn) == (pytest.approx(20, abs=3), pytest.approx(80, abs=3))


def test_what_stands_has_none_though_its_box_trembles_and_loses_the_one_it_had() -> None:
    render = Renderer("tinted", trails=1.0)
    rng = np.random.default_rng(1)
    for i in range(60):
        x, y = rng.uniform(199.6, 200.4, 2).tolist()
        assert not shown(render, i / 30, {1: (x, y)}).any()
    walked(render, [2 + i / 30 for i in range(30)])
    there = {1: (20 + 60 * (2 + 29 / 30), 200.0)}
    seen = [shown(render, 3 + i / 10, there).any() for i in range(15)]
    assert seen[0]
    assert not seen[-1]


def test_one_that_stood_for_long_is_remembered_to_have_been_there_until_it_left() -> None:
    render = Renderer("tinted", trails=1.0)
    for i in range(100):
        shown(render, i / 10, {1: (100, 200)})
    assert reach(shown(render, 10, {1: (160, 200)})) is not None
    first, _ = reach(shown(render, Fraction(108, 10), {1: (220, 200)})) or (0, 0)
    assert first == pytest.approx(100, abs=3)


def test_each_object_has_its_own_by_its_number() -> None:
    render = Renderer("tinted", trails=2.0)
    for i in range(20):
        objects: Objects = {7: (20 + 10 * i, 60), 3: (250 - 10 * i, 200)}
        drawn = shown(render, i / 10, dict(sorted(objects.items(), reverse=i % 2 == 0)))
    assert not drawn[75:190].any()
    assert drawn[60].any()
    assert drawn[200].any()
    assert not shown(render, 2, {8: (210, 60)}).any()


def test_an_object_that_is_missed_has_none_meanwhile_and_goes_on_with_its_own() -> None:
    render = Renderer("tinted", trails=2.0)
    walked(render, [i / 10 for i in range(8)])
    assert not shown(render, 0.8, {}).any()
    assert not touched(render(frame(0.9), replace(standing({1: (80, 200)}), ids=None)).image).any()
    first, last = reach(shown(render, 1.0, {1: (80, 200)})) or (0, 0)
    assert (first, last) == (pytest.approx(20, abs=3), pytest.approx(80, abs=3))


def test_it_does_not_lead_past_where_an_object_was_not_shown_for_longer_than_a_second() -> None:
    render, region = Renderer("tinted", trails=20.0), Region([(0, 0), (100, 240)])
    for i in range(61):  # out of the region to the right, on below, and back
        place = (40 + 5 * i, 60) if i < 20 else (135, 60 + 3.5 * (i - 20)) if i < 40 else (135 - 4 * (i - 40), 130)
        here = frame(i / 10)
        drawn = render(here, replace(region(here, standing({1: place})), regions=(), occupancy=())).image
    rows, columns = np.nonzero(touched(drawn))
    assert (columns.min(), columns.max()) == (pytest.approx(55, abs=3), pytest.approx(99, abs=3))
    assert rows.min() > 125
    render = Renderer("tinted", trails=20.0)  # frames that are as far apart leave nothing out
    assert walked(render, [0, 1.5, 3]) == (pytest.approx(20, abs=3), pytest.approx(200, abs=3))


@pytest.mark.parametrize("after", ["earlier", "size", "photo"])
def test_it_begins_anew_where_nothing_is_as_before(after: str) -> None:
    render, size, at = Renderer("tinted", trails=5.0), SIZE, 1.0
    walked(render, [i / 10 for i in range(10)])
    if after == "earlier":
        at = 0.3
    elif after == "size":
        size = (322, 240)
    else:
        assert not touched(render(Frame.still(frame(0).image), standing({1: (180, 200)})).image).any()
    assert not shown(render, at, {1: (180, 200)}, size).any()
    assert shown(render, at + 0.1, {1: (190, 200)}, size).any()


@pytest.mark.parametrize("view", VIEWS)
def test_views_on_black_have_none(view: View) -> None:
    with_trails, without = Renderer(view, trails=2.0), Renderer(view)
    for i in range(10):
        pair = [render(frame(i / 10), standing({1: (20 + 10 * i, 200)})).image for render in (with_trails, without)]
    assert (pair[0] == pair[1]).all() == (view in BLACK_VIEWS)


def test_names_stand_over_trails() -> None:
    images = []
    for render in Renderer("boxes", trails=2.0), Renderer("boxes"):
        for i in range(20):
            image = render(frame(i / 10), standing({1: (160, 200 - 5 * i), 2: (160, 140)}, (80, 60))).image
        images.append(image[62:78, 122:180])
    assert (images[0] == images[1]).all()


def test_what_is_remembered_is_bounded() -> None:
    """Of many objects, fast and for long, in frames with any times."""
    render: Any = Renderer("tinted", trails=60.0)
    stops = render._trails._stops
    for i in range(900):
        shown(render, i / 1000, {1: (10 + i * 37 % 300, 100)}, (320, 120))
    assert len(stops[1]) < 600
    for i in range(600):
        shown(render, 3, {2: (10 + i * 37 % 300, 100)}, (320, 120))
    assert len(stops[2]) == 1
    render = Renderer("tinted", trails=1.0)
    for i in range(300):
        shown(render, i / 10, {i + 1: (100, 100)}, (320, 120))
    assert len(render._trails._stops) <= 12
    shown(render, 40, {}, (320, 120))
    assert not render._trails._stops
    assert Renderer()._trails is None


@pytest.mark.parametrize("far", [1e9, 3e38, -3e38])
def test_places_miles_away_are_survived(far: float) -> None:
    render = Renderer("tinted", trails=2.0)
    for i in range(6):
        found = standing({1: (100, 100)})
        found.boxes[0, 2 if far > 0 else 0] = far if i % 2 else 150 if far > 0 else 50
        drawn = render(frame(i / 10), found).image
    assert touched(drawn).any()


@pytest.mark.parametrize("wrong", [0, -1, 61, float("nan"), float("inf"), "3s", True])
def test_trails_of_no_length_are_refused(wrong: float) -> None:
    with pytest.raises(UsageError, match=r"trails show the last seconds; give more than 0, 60 at most, got "):
        Renderer(trails=wrong)


def test_they_follow_the_numbers_of_steady_also_in_frames_that_show_what_the_one_before_did() -> None:
    steady, render = Steady(), Renderer("tinted", trails=1.0)
    for i in range(30):
        here = frame(i / 30)
        moving = replace(standing({1: (60 + 3 * min(i, 20), 200)}), ids=None)
        found = steady(replace(here, is_unchanged=i > 20), moving)
        drawn = render(here, found).image
    assert reach(touched(drawn)) == (pytest.approx(60, abs=6), pytest.approx(120, abs=6))
    for i in range(30, 60):
        here = replace(frame(i / 30), is_unchanged=True)
        drawn = render(here, steady(here, moving)).image
    assert not touched(drawn).any()


def test_the_trails_of_tiles_are_of_their_feeds_and_of_their_size() -> None:
    wall = Tiles(["a", "b"], [], view="tinted", trails=2.0)
    for i in range(10):
        tiles = [wall.draw(feed, frame(i / 10), standing({1: (20 + 10 * i * feed, 120)}), None) for feed in range(2)]
    scale = 540 / 240
    left = (960 - 320 * scale) / 2
    still, moved = (tile.image[60:, int(left) : -int(left)] != 100 for tile in tiles)
    assert not still.any()
    columns = np.flatnonzero(moved.any((0, 2)))
    assert (columns[0], columns[-1]) == (pytest.approx(20 * scale, abs=6), pytest.approx(110 * scale, abs=6))


def test_photos_of_several_threads_have_none() -> None:
    render = Renderer("tinted", trails=2.0)
    photos = [(Frame.still(frame(0).image), standing({1: (20.0 + 10 * i, 200)})) for i in range(200)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as threads:
            drawn = list(threads.map(lambda photo: touched(render(*photo).image).any(), photos))
    finally:
        sys.setswitchinterval(before)
    assert not any(drawn)
