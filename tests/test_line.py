"""What crosses a line: once, whichever way, and not what stands on it or goes past its ends."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from stream_seg import Line, Pipeline, Region, Renderer, Steady, VideoFile, open_sink
from stream_seg.cli import main
from stream_seg.detections import Crossings, Detections
from stream_seg.errors import UsageError
from stream_seg.frame import Frame, Image
from stream_seg.metrics import KNOWN
from stream_seg.render import Style, View
from stream_seg.render.labels import _label
from stream_seg.render.palette import BLACK
from stream_seg.segmenters import FunctionSegmenter
from stream_seg.sources import ListSource
from stream_seg.tiles import fitted
from tests.sink_films import read
from tests.test_cli import failure
from tests.tiny_models import batched_model

ROOT = Path(__file__).parents[1]
SIZE = (128, 96)
FRAME = Frame(np.zeros((SIZE[1], SIZE[0], 3), np.uint8), 0, Fraction(0), 0.0)
Point = tuple[float, float]
Ends = tuple[Point, Point]

SIDE = 20.0
"""Of all boxes: what crosses must come 2 pixels behind a line."""


def standing(*places: Point, ids: Sequence[int] = (), class_ids: Sequence[int] = ()) -> Detections:
    """Objects whose feet are at these places."""
    boxes = [(x - SIDE / 2, y - SIDE, x + SIDE / 2, y) for x, y in places]
    n = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(n, 4),
        np.ones(n, np.float32),
        np.array(class_ids or [0] * n, np.int64),
        np.ones((n, 7, 7), np.float32),
        ("person", "dog"),
        np.array(ids or range(1, n + 1), np.int64),
    )


def walked(line: Line, places: Iterable[Point], number: int = 1) -> tuple[int, int]:
    """How many went in and out once an object was at one of these places after the other."""
    for place in places:
        shown = line(FRAME, standing(place, ids=[number]))
    counts = shown.lines[-1].counts
    return sum(counts["in"].values()), sum(counts["out"].values())


LEFT, RIGHT, ABOVE, BELOW = (40.0, 50.0), (80.0, 50.0), (60.0, 30.0), (60.0, 70.0)


@pytest.mark.parametrize(
    ("ends", "before", "behind"),
    [
        (((60, 96), (60, 0)), LEFT, RIGHT),
        (((60, 0), (60, 96)), RIGHT, LEFT),
        (((0, 50), (128, 50)), ABOVE, BELOW),
        (((128, 50), (0, 50)), BELOW, ABOVE),
        (((100, 90), (20, 10)), LEFT, RIGHT),
        (((-900, 50), (1e9, 50)), ABOVE, BELOW),
    ],
)
def test_in_is_to_the_right_of_one_who_looks_along_the_line(ends: Ends, before: Point, behind: Point) -> None:
    assert walked(Line(*ends), [before, behind]) == (1, 0)
    assert walked(Line(*ends), [behind, before]) == (0, 1)
    assert walked(Line(*ends), [before, behind, behind, before, before, behind]) == (2, 1)


def test_what_goes_past_an_end_of_the_line_does_not_cross_it() -> None:
    ends = (40.0, 60.0), (80.0, 60.0)
    assert walked(Line(*ends), [(30, 40), (30, 80)]) == (0, 0)
    assert walked(Line(*ends), [(90, 40), (90, 80), (90, 40)]) == (0, 0)
    assert walked(Line(*ends), [(60, 40), (95, 50), (95, 80), (60, 80)]) == (0, 0)  # round it
    assert walked(Line(*ends), [(30, 50), (90, 70)]) == (1, 0)  # from beside it, and over it
    assert walked(Line(*ends), [(30, 40), (30, 80), (60, 80), (60, 40)]) == (0, 1)


def test_a_thing_whose_name_changes_on_the_way_crosses_once() -> None:
    line = Line((200, 0), (200, 100), Steady())
    for index, (one, other) in enumerate([(0.9, 0.6)] * 3 + [(0.5, 0.99)] * 8 + [(0.99, 0.4)] * 8 + [(0.5, 0.99)] * 11):
        both = standing(*[(130 + 6 * index, 70)] * 2, class_ids=[0, 1])
        image = np.zeros((100, 400, 3), np.uint8)
        found = dataclasses.replace(both, scores=np.array([one, other], np.float32))
        shown = line(Frame(image, index, Fraction(index, 25), 0.0), found)
        assert len(shown) == 1
    assert shown.lines[0].counts == {"in": {}, "out": {"dog": 1}}


def test_what_trembles_on_the_line_crosses_it_once_at_most() -> None:
    ends = (0.0, 50.0), (128.0, 50.0)
    trembling = [(60, 50 + step) for step in (1.5, -1.5, 0.0, 1.9, -1.9) * 20]
    assert walked(Line(*ends), trembling) == (0, 0)
    assert walked(Line(*ends), [ABOVE, *trembling, ABOVE]) == (0, 0)
    assert walked(Line(*ends), [ABOVE, *trembling, BELOW]) == (1, 0)
    assert walked(Line(*ends), [ABOVE, BELOW, *trembling, ABOVE]) == (1, 1)
    assert walked(Line(*ends), [ABOVE, (60, 52)]) == (1, 0)  # a tenth of its size behind it
    assert [walked(Line(*ends), [(60, 50), there]) for there in (ABOVE, BELOW)] == [(0, 1), (0, 0)]  # it came on it


def test_where_it_came_over_counts_and_not_where_it_was_far_enough() -> None:
    ends = (40.0, 50.0), (80.0, 50.0)
    along = [(x, 51.0) for x in range(60, 100, 4)]
    assert walked(Line(*ends), [(60, 40), *along, (100, 60)]) == (1, 0)
    assert walked(Line(*ends), [(100, 40), *reversed(along), (60, 60)]) == (0, 0)


def test_objects_are_told_apart_by_their_numbers_and_counted_by_class() -> None:
    line = Line((60, 96), (60, 0))
    places = [(40, 30), (80, 60), (40, 90), (40, 50)]
    line(FRAME, standing(*places, ids=[7, 3, 5, 9], class_ids=[0, 0, 1, 0]))
    crossing = [(80, 30), (40, 60), (80, 90)]
    shown = line(FRAME, standing(*crossing, ids=[7, 3, 5], class_ids=[0, 0, 1]))
    (crossings,) = shown.lines
    assert crossings.now == ((7, "person", "in"), (3, "person", "out"), (5, "dog", "in"))
    assert crossings.counts == {"in": {"person": 1, "dog": 1}, "out": {"person": 1}}
    assert shown[np.zeros(3, np.bool_)].lines == shown.lines
    later = line(FRAME, standing((80, 50), ids=[9])).lines[0]  # it was missed meanwhile
    assert (later.counts["in"], later.now) == ({"person": 2, "dog": 1}, ((9, "person", "in"),))
    assert crossings.counts["in"] == {"person": 1, "dog": 1}  # which sinks may be about to write
    assert line(FRAME, standing()).lines[0].now == ()


def test_what_has_no_place_is_passed_on_and_what_leaves_the_picture_below_stands_in_its_lowest_row() -> None:
    line = Line((0, 94), (128, 94))
    for place in ((60.0, 80.0), (np.nan, 90.0), (60.0, np.inf)):
        assert len(line(FRAME, standing(place))) == 1
    assert walked(Line((0, 50), (128, 50)), [ABOVE, (np.nan, 90), BELOW]) == (1, 0)
    inside_out = dataclasses.replace(standing(ABOVE), boxes=np.array([[70, 10, 50, 30]], np.float32))
    assert len(line(FRAME, inside_out)) == 1
    assert walked(line, [(60, 80), (60, 300)]) == (0, 0)  # 1 pixel behind
    assert walked(Line((0, 90), (128, 90)), [(60, 80), (60, 300)]) == (1, 0)


def test_numbers_are_remembered_from_when_they_were_seen_last_and_not_for_ever() -> None:
    line = Line((0, 50), (128, 50))
    for first in range(2, 2 * KNOWN, 1000):
        ids = [1, *range(first, first + 1000)]
        line(FRAME, standing(*[ABOVE] * len(ids), ids=ids))
    assert len(line._places) == KNOWN
    assert walked(line, [BELOW]) == (1, 0)
    assert walked(line, [BELOW], number=2) == (1, 0)  # which is new again


def test_images_of_their_own_are_passed_on_and_objects_without_numbers_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    line = Line((0, 50), (128, 50))
    found = dataclasses.replace(standing(ABOVE), ids=None)
    for one in (line, Line((300, 0), (300, 96))):  # of which it does not matter where it is
        assert one(dataclasses.replace(FRAME, is_still=True), found) is found
    assert not caplog.messages
    with pytest.raises(UsageError, match=r"a line counts objects by their numbers, .*; give it a Steady"):
        line(FRAME, found)
    nothing = line(FRAME, Detections.none(found.class_names))  # as a function may return it that has shown something
    assert (len(nothing), nothing.lines) == (0, (Crossings((0, 50), (128, 50)),))


def test_what_is_no_frame_or_not_what_was_found_in_one_is_refused_in_words() -> None:
    line = Line((0, 50), (128, 50))
    wrong: Any
    for wrong in ((FRAME.image, standing()), (FRAME, [standing()])):
        with pytest.raises(TypeError, match=r"^a Frame is needed|^the Detections of one frame are needed"):
            line(*wrong)


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (((0, 0.5), (1, 0.5)), "the line 0,0.5,1,0.5 is in shares of the picture; give pixels, as in 0,360,1280,360"),
        (((9, 9), (9, 9.9)), "the line from 9,9 to 9,9.9 is shorter than a pixel"),
        (((9, 9), (np.nan, 9)), "a line has two ends"),
        (((9, 9), 9), "a line has two ends"),
        (((9, 9), (9, 9, 9)), "a line has two ends"),
    ],
)
def test_ends_that_are_none_are_refused(ends: Ends, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Line(*ends)


@pytest.mark.parametrize(
    "ends",
    [
        ((128, 0), (128, 96)),
        ((-9, 5), (-1, 90)),
        ((0, 96), (128, 96)),
        ((0, 0), (128, 0)),
        ((120, -9), (140, 7)),  # past a corner
    ],
)
def test_a_line_outside_of_the_picture_is_refused(ends: Ends) -> None:
    with pytest.raises(UsageError, match=r"the line from .* lies outside of the picture, which is 128x96 pixels"):
        Line(*ends)(FRAME, standing())


def test_a_camera_that_comes_back_with_another_size_of_picture_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    line = Line((0, 80), (128, 80))
    for frame in [FRAME] * 2 + [dataclasses.replace(FRAME, pixels=np.zeros((48, 64, 3), np.uint8))] * 2:
        line(frame, standing())
    assert caplog.messages == [
        "the picture is 64x48 pixels now, no longer 128x96: the line from 0,80 to 128,80 is in those and no longer "
        "where it was"
    ]


def bright(image: Image) -> Detections:
    """Each white spot of the picture as an object."""
    spots = cv2.connectedComponentsWithStats(cv2.inRange(image, (250,) * 3, (255,) * 3))[2][1:, :4].astype(np.float32)
    return dataclasses.replace(standing(*[(x + w / 2, y + h) for x, y, w, h in spots.tolist()]), ids=None)


def walk(*ways: Sequence[tuple[int, int]]) -> list[Image]:
    """Pictures of spots on these ways."""
    images = []
    for places in zip(*ways, strict=True):
        image = FRAME.image.copy()
        for x, y in places:
            image[y - int(SIDE) : y, x - int(SIDE) // 2 : x + int(SIDE) // 2] = 255
        images.append(image)
    return images


SPOTS = walk(
    [(x, 30) for x in range(20, 100, 4)],
    [(x, 60) for x in [*range(100, 50, -5), *range(50, 100, 5)]],
    [(x, 90) for x in [59, 61] * 10],
)
"""One goes to the right, one comes from there and turns round, one trembles in the middle."""


def test_a_run_draws_lists_and_counts_what_crosses(tmp_path: Path) -> None:
    lines = Line((48, 0), (48, 96), Line((60, 96), (60, 0), Steady()))
    sinks = [open_sink(tmp_path / "a.jsonl"), VideoFile(tmp_path / "a.mp4")]
    segmenter = FunctionSegmenter(bright, ("person", "dog"))
    summary = Pipeline(ListSource(SPOTS), segmenter, follower=lines, sinks=sinks).run()
    expected = {"in": {"person": 2}, "out": {"person": 1}}, {"in": {}, "out": {"person": 1}}
    assert summary.feeds[0].lines == expected
    rows = [json.loads(row)["lines"] for row in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert len(rows) == len(SPOTS)
    assert [{way: line[way] for way in ("in", "out")} for line in rows[-1]] == list(expected)
    crossed = [
        [(one["id"], one["class"], one["direction"]) for row in rows for one in row[n]["crossed"]] for n in (0, 1)
    ]
    assert [[way for _, _, way in line] for line in crossed] == [["out", "in", "in"], ["out"]]
    around = crossed[0][0]
    assert [one for one in crossed[0] if one[0] == around[0]] == [around, (around[0], "person", "in")]
    assert crossed[1] == [(one, "person", "out") for one, _, _ in crossed[0] if one != around[0]]
    picture = read(tmp_path / "a.mp4").picture
    assert picture[5:15, 60].mean() > 150  # black, but for the line


def test_what_is_not_in_the_region_does_not_cross() -> None:
    upper = Line((60, 96), (60, 0), Region([(0, 0), (128, 40)], Steady()))
    summary = Pipeline(ListSource(SPOTS), FunctionSegmenter(bright, ("person", "dog")), follower=upper).run()
    assert summary.feeds[0].lines == ({"in": {"person": 1}, "out": {}},)


def drawn(*lines: Crossings, view: View = "both", size: tuple[int, int] = (320, 240)) -> Image:
    frame = Frame(np.full((size[1], size[0], 3), 90, np.uint8), 0, Fraction(0), 0.0)
    return Renderer(view)(frame, dataclasses.replace(Detections.none(()), lines=lines)).image


def test_a_line_is_drawn_with_an_arrow_to_the_side_that_is_in_and_its_counts() -> None:
    picture = drawn(Crossings((160, 240), (160, 0)))
    changed = (picture != 90).any(2)
    assert (picture[10::20, 160] > 200).all()
    assert changed[200:, :150].sum() == changed[200:, 170:].sum() == 0
    assert changed[116:124, 165:170].any()  # the arrow
    assert not changed[116:124, 150:155].any()
    more = drawn(Crossings((160, 240), (160, 0), {"in": {"cat": 3, "dog": 9}, "out": {}}))
    assert (more != picture).any()
    assert (more[:, 160] == picture[:, 160]).all()


def test_no_other_line_crosses_out_an_arrow() -> None:
    upright, level = Crossings((160, 240), (160, 0)), Crossings((0, 120), (320, 120))
    head = slice(114, 127), slice(168, 172)
    assert (drawn(upright, level)[head] == drawn(level, upright)[head]).all()
    assert (drawn(upright, level)[114:118, 168:172] > 150).any()  # one of its barbs, above the level line


def test_lines_are_drawn_as_far_as_they_are_in_the_picture_and_where_the_picture_is_seen() -> None:
    far = Crossings((-1e9, 120.0), (1e9, 120.0))
    assert (drawn(far)[120, 10::20] > 200).all()
    seen: tuple[View, ...] = ("boxes", "tinted", "blurred")
    for view in seen:
        assert (drawn(far, view=view) == drawn(far)).all()
    outside = Crossings((330.0, 0.0), (330.0, 240.0)), Crossings((312.0, -9.0), (340.0, 10.0))
    assert (drawn(*outside) == 90).all()
    assert not drawn(far, view="masks").any()
    assert not drawn(far, view="cutouts").any()


def test_counts_keep_their_places_from_picture_to_picture() -> None:
    frame = Frame(np.full((240, 320, 3), 90, np.uint8), 0, Fraction(0), 0.0)
    found = dataclasses.replace(Detections.none(()), lines=(Crossings((160, 240), (160, 0)),))
    for view in ("both", "blurred"):
        renderer = Renderer(view)
        first, second = (renderer(frame, found).image for _ in range(2))
        assert (first == second).all()


def counts_in(picture: Image, text: str = "in 0  out 0") -> list[Point]:
    """Where `text` is to be read, whole: x, y of each place, from the left."""
    label = _label(text, Style.of((320, 240)).letters, BLACK, 320)
    found = cv2.matchTemplate(picture, label, cv2.TM_SQDIFF)  # rounded, but a pixel that differs is 195,075
    return sorted((x, y) for y, x in np.argwhere(found < 1000).tolist())


def test_neither_names_nor_other_lines_cover_the_counts_and_they_stay_in_place() -> None:
    frame = Frame(np.full((240, 320, 3), 90, np.uint8), 0, Fraction(0), 0.0)
    line = Crossings((160, 240), (160, 0))
    (place,) = counts_in(drawn(line))
    for x, y in ((170.0, 140.0), (164.0, 125.0), (200.0, 118.0), (166.0, 134.0)):
        found = dataclasses.replace(standing((x, y)), lines=(line,))
        assert counts_in(Renderer()(frame, found).image) == [place]
    slanting = Crossings((100, 160), (260, 60))
    for lines in ((line, slanting), (slanting, line)):
        for number in (1, 2):
            assert len(counts_in(drawn(*lines), f"line {number}  in 0  out 0")) == 1


def test_several_lines_have_the_numbers_of_the_summary_also_where_one_is_not_in_the_picture() -> None:
    left = Crossings((60, 240), (60, 0), {"in": {"cat": 2}, "out": {}})
    outside = Crossings((330, 0), (330, 240))
    right = Crossings((200, 240), (200, 0))
    picture = drawn(left, outside, right)
    (first,) = counts_in(picture, "line 1  in 2  out 0")
    (third,) = counts_in(picture, "line 3  in 0  out 0")
    assert 60 < first[0] < 200 < third[0]
    assert counts_in(picture, "line 2  in 0  out 0") == []
    assert len(counts_in(drawn(left), "in 2  out 0")) == 1
    assert counts_in(drawn(left), "line 1  in 2  out 0") == []


def test_a_tile_has_the_lines_in_their_places() -> None:
    found = dataclasses.replace(standing((64, 48)), lines=(Crossings((0.0, 96.0), (128.0, 0.0)),))
    _, small = fitted(FRAME, found, (84, 48))
    (line,) = small.lines
    assert (line.start, line.end) == ((10.0, 48.0), (74.0, 0.0))


@pytest.mark.parametrize("size", [(200, 96), (128, 200)])
def test_a_line_that_reaches_beyond_the_picture_is_not_drawn_over_the_bars_of_its_tile(size: tuple[int, int]) -> None:
    frame = dataclasses.replace(FRAME, pixels=np.full((96, 128, 3), 90, np.uint8))
    within: list[bool] = []
    for line in (Crossings((-400, 48), (500, 48)), Crossings((64, -400), (64, 500)), Crossings((-30, 110), (150, 110))):
        tile, small = fitted(frame, dataclasses.replace(standing(), lines=(line,)), size)
        bars = cv2.erode((tile.image == 0).all(2).astype(np.uint8), np.ones((9, 9))) > 0
        picture = Renderer()(tile, small).image
        assert not picture[bars].any()
        within.append(bool((picture != tile.image).any()))
    assert within == [True, True, False]


@pytest.fixture
def crossing(tmp_path: Path) -> Path:
    """A film in which the cat of the sample photo goes from left to right."""
    photo = cv2.imread(str(ROOT / "samples" / "photo.jpg"))
    assert photo is not None
    cat = cv2.resize(photo[225:580, 640:1165], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    height, width = cat.shape[:2]
    images = []
    for x in range(20, 360, 12):
        image = np.full((360, 640, 3), 110, np.uint8)
        image[150 : 150 + height, x : x + width] = cat
        images.append(image)
    Pipeline(
        ListSource(images),
        FunctionSegmenter(lambda _: Detections.none(()), ()),
        sinks=[VideoFile(tmp_path / "cat.mp4")],
    ).run()
    return tmp_path / "cat.mp4"


def test_the_command_counts_what_crosses_in_a_film(
    crossing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures, found = tmp_path / "run.json", tmp_path / "found.jsonl"
    argv = [str(crossing), "-o", str(found), "--metrics", str(figures), "--device", "cpu"]
    assert main([*argv, "--line", "320,360,320,0", "--line", "0,100,640,100"]) == 0
    assert "\n  line 1   in 1 (cat 1), out 0\n  line 2   in 0, out 0\n" in capsys.readouterr().out
    (source,) = json.loads(figures.read_text())["sources"]
    nobody: dict[str, dict[str, int]] = {"in": {}, "out": {}}
    assert source["lines"] == [{"in": {"cat": 1}, "out": {}}, nobody]
    rows = [json.loads(row) for row in found.read_text().splitlines()]
    (row,) = (row for row in rows if row["lines"][0]["crossed"])
    assert row["lines"] == [
        {"in": {"cat": 1}, "out": {}, "crossed": [{"id": 1, "class": "cat", "direction": "in"}]},
        {**nobody, "crossed": []},
    ]
    (cat,) = row["objects"]
    assert 320 < (cat["box"][0] + cat["box"][2]) / 2 < 370


def test_the_command_counts_what_crosses_the_lines_of_each_source(
    crossing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("door", "yard"):
        shutil.copy(crossing, tmp_path / f"{name}.mp4")
    photo, figures = tmp_path / "photo.png", tmp_path / "run.json"
    cv2.imwrite(str(photo), FRAME.image)
    out, wall = tmp_path / "found_{source}.csv", tmp_path / "wall.mp4"
    argv = [str(tmp_path / "door.mp4"), str(tmp_path / "yard.mp4"), str(photo), "-o", str(out), "-o", str(wall)]
    lines = ["--line", "door=320,360,320,0", "--line", "yard=0,100,640,100", "--line", "yard=320,0,320,360"]
    argv += ["--metrics", str(figures), "--device", "cpu", *lines, "--line", "photo=0,50,128,50"]
    assert main(argv) == 0
    printed = capsys.readouterr()
    assert printed.err == "stream-seg: --line is for films, and photo is none: it has no effect there\n"
    assert re.search(r"^  door .* frames; .* ms; line in 1 \(cat 1\), out 0$", printed.out, re.MULTILINE)
    assert re.search(r"^  yard .*; line 1 in 0, out 0; line 2 in 0, out 1 \(cat 1\)$", printed.out, re.MULTILINE)
    assert re.search(r"^  photo [^(]* ms$", printed.out, re.MULTILINE)
    assert "\n  line" not in printed.out
    nobody: dict[str, dict[str, int]] = {"in": {}, "out": {}}
    expected = [{**nobody, "in": {"cat": 1}}], [nobody, {**nobody, "out": {"cat": 1}}], []
    assert [source["lines"] for source in json.loads(figures.read_text())["sources"]] == list(expected)
    for name, crossed in (("door", "in"), ("yard", "2 out")):
        with (tmp_path / f"found_{name}.csv").open(newline="") as table:
            assert {row["crossed"] for row in csv.DictReader(table)} == {"", crossed}


def test_the_command_refuses_lines_that_cannot_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("a.png", FRAME.image)
    argv = ["synthetic:128x96@30x3", "-o", "{source}.mp4", "--line", "0,50,128,50"]
    for more, words in (
        (
            ["synthetic:128x96@30x3"],
            "--line 0,50,128,50 is in the picture of one source, and there are synthetic and s",
        ),
        (["--no-steady"], "--line counts objects by their numbers, which they have none of with --no-steady"),
        (
            ["--line", "128,0,300,96"],
            "the line from 128,0 to 300,96 lies outside of the picture, which is 128x96 pixels",
        ),
        (["--line", "0,0.5,1,0.5"], "argument --line: the line 0,0.5,1,0.5 is in shares of the picture"),
        (["--line", "0,50,128"], "argument --line: '0,50,128' is no line; write x,y,x,y in pixels, its two ends"),
        (["--line", "0,50,128,x"], "'0,50,128,x' is no line"),
        (["--line", "5,5,5,5"], "the line from 5,5 to 5,5 is shorter than a pixel"),
    ):
        code, line = failure(capsys, *argv, *more)
        assert (code, words in line) == (2, True), line
    photo = ["a.png", "-o", "b.png", "--model", str(batched_model(tmp_path / "tiny.onnx")), "--device", "cpu"]
    assert main([*photo, "--line", "0,50,128,50"]) == 0
    captured = capsys.readouterr()
    assert "--line is for films, of which none was named: it has no effect" in captured.err
    assert "\n  line" not in captured.out
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png", "tiny.onnx"}
