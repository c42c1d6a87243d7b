"""What stands in a part of the picture, and how many do: where its feet are decides."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import pickle
import re
import shutil
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from stream_seg.addresses.credentials import label_of
from stream_seg.cli import feeds, main
from stream_seg.cli.arguments import parse
from stream_seg.detections import Crossings, Detections
from stream_seg.errors import UsageError
from stream_seg.frame import Frame, Image
from stream_seg.line import Line
from stream_seg.metrics import Peak
from stream_seg.pipeline import Feed, Pipeline
from stream_seg.protocols import Source
from stream_seg.region import Corners, Region, polygon
from stream_seg.render import Renderer, Style, View
from stream_seg.render.labels import _label
from stream_seg.render.palette import BLACK
from stream_seg.segmenters import FunctionSegmenter
from stream_seg.sinks import Crops, ListSink, open_sink
from stream_seg.sources import ListSource, open_source
from stream_seg.steady import Steady
from stream_seg.tiles import fitted
from tests.source_files import write_video
from tests.test_cli import failure
from tests.test_line import ROOT, counts_in
from tests.tiny_models import batched_model

FRAME = Frame(np.zeros((72, 128, 3), np.uint8), 0, Fraction(0), 0.0)


def found(*boxes: Sequence[float], class_ids: Sequence[int] | None = None) -> Detections:
    n = len(boxes)
    masks = np.ones((n, 28, 28), np.float32)
    places = np.array(boxes, np.float32).reshape(n, 4)
    classes = np.array(class_ids or [0] * n, np.int64)
    return Detections(places, np.ones(n, np.float32), classes, masks, ("person", "dog"))


@pytest.mark.parametrize(
    ("corners", "kept"),
    [
        ([(0, 30), (64, 60)], [1]),
        ([(64, 60), (0, 30)], [1]),
        ([(20, 0), (20, 40), (100, 40), (100, 0)], [1]),  # its edge belongs to it
        ([(0, 71), (128, 72)], [3]),
        ([(0, 0), (128, 0), (0, 72)], [0, 1]),
        ([(60, 60), (70, 70)], []),
    ],
)
def test_the_middle_of_the_lower_edge_decides(corners: list[tuple[float, float]], kept: list[int]) -> None:
    boxes = found((0, 0, 20, 20), (10, 10, 30, 40), (100, 10, 120, 69), (80, 30, 100, 72))
    assert Region(corners)(FRAME, boxes).boxes.tolist() == boxes.boxes[kept].tolist()


def test_nothing_and_what_has_no_place_are_in_no_region() -> None:
    whole = Region([(0, 0), (128, 72)])
    assert len(whole(FRAME, found())) == 0
    assert len(whole(FRAME, found((0, 0, np.nan, 20), (0, 0, 9, np.inf), (0, 0, 20, 20)))) == 1


def test_what_leaves_the_region_and_comes_back_keeps_its_number() -> None:
    region = Region([(0, 0), (64, 72)], Steady())
    ids = []
    for index, left in enumerate([*range(36, 60, 3), *range(60, 33, -3)]):
        frame = Frame(FRAME.image, index, Fraction(index, 25), 0.0)
        shown = region(frame, found((left, 10, left + 30, 60), (90, 10, 120, 60)))
        ids.append(None if shown.ids is None else shown.ids.tolist())
    assert [number for number, _ in itertools.groupby(ids)] == [[1], [], [1]]


def test_what_stands_in_any_of_several_regions_is_kept_once() -> None:
    boxes = found((0, 0, 20, 20), (10, 10, 30, 40), (100, 10, 120, 69), (80, 30, 100, 72))
    several = [[(0, 0), (64, 30)], [(0, 0), (20, 25), (0, 50)], [(100, 60), (128, 72)]]
    assert Region(several)(FRAME, boxes).boxes.tolist() == boxes.boxes[[0, 2]].tolist()
    assert len(Region(np.array([[(0, 0), (64, 30)], [(100, 60), (128, 72)]]))(FRAME, boxes)) == 2  # type: ignore[arg-type]


LEFT_HALF, RIGHT_HALF, LOWER_HALF = [(0, 0), (63, 72)], [(64, 0), (128, 72)], [(0, 36), (128, 72)]
FOUR = found((0, 0, 20, 20), (0, 30, 30, 60), (30, 30, 50, 60), (90, 0, 120, 60), class_ids=[0, 0, 1, 1])


@pytest.mark.parametrize("is_still", [False, True])
def test_what_stands_in_each_region_is_counted_by_class(is_still: bool) -> None:
    frame = dataclasses.replace(FRAME, is_still=is_still)
    region = Region([LEFT_HALF, LOWER_HALF, [(100, 0), (110, 9)]])
    shown = region(frame, FOUR)
    assert shown.occupancy == ({"person": 2, "dog": 1}, {"person": 1, "dog": 2}, {})
    assert region(frame, FOUR[:1]).occupancy == ({"person": 1}, {}, {})  # now, not in all
    assert region(frame, FOUR[:0]).occupancy == ({}, {}, {})
    assert FOUR.occupancy == ()
    for other in (shown[0], shown[:0], shown.finite(), pickle.loads(pickle.dumps(shown))):
        assert other.occupancy == shown.occupancy


def test_of_a_region_within_another_those_are_counted_that_stand_in_both() -> None:
    shown = Region(LOWER_HALF, Region([LEFT_HALF, RIGHT_HALF]))(FRAME, FOUR)
    assert shown.occupancy == ({"person": 1, "dog": 1}, {"dog": 1}, {"person": 1, "dog": 2})
    line = Line((0, 50), (128, 50), Region(LEFT_HALF, Steady()))
    assert line(FRAME, FOUR).occupancy == ({"person": 2, "dog": 1},)


@pytest.mark.parametrize(
    "corners", [[(128, 0), (500, 72)], [(-9, -9), (0, 80)], [(0, 72), (128, 80)], [(-9, -9), (-1, -1)]]
)
def test_a_region_outside_of_the_picture_is_refused(corners: Corners, caplog: pytest.LogCaptureFixture) -> None:
    places = "from {},{} to {},{}".format(*corners[0], *corners[1])
    words = f"the region {places} lies outside of the picture, which is 128x72 pixels"
    with pytest.raises(UsageError, match=words):
        Region([[(0, 0), (5, 5)], corners])(FRAME, found())
    region = Region(corners)
    for _ in range(2):  # others of its folder may be larger
        region(dataclasses.replace(FRAME, is_still=True), found())
    assert [record.message for record in caplog.records] == [words]
    for partly in ([(127, 0), (500, 72)], [(-9, -9), (1, 80)], [(0, 71), (128, 80)]):
        Region(partly)(FRAME, found())


def test_a_camera_that_comes_back_with_another_size_of_picture_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    smaller = dataclasses.replace(FRAME, pixels=np.zeros((36, 64, 3), np.uint8))
    region = Region([[(64, 0), (128, 72)], [(0, 0), (9, 5), (0, 9)]])
    for frame in (FRAME, FRAME, smaller, smaller, FRAME):
        region(frame, found())
    words = "the picture is {} pixels now, no longer {}: the region from {} is in those and no longer where it was"
    places = ["64,0 to 128,72", "0,0 to 9,9"]
    assert caplog.messages == [
        words.format(*sizes, place) for sizes in [("64x36", "128x72"), ("128x72", "64x36")] for place in places
    ]
    caplog.clear()
    for frame in (FRAME, smaller):
        Region([(0, 0), (9, 9)], region)(dataclasses.replace(frame, is_still=True), found())
    assert not caplog.messages  # images of their own may be of any


@pytest.mark.parametrize(
    "corners",
    [None, [], [(1, 2)], [(0, 0), (np.nan, 3)], [0, 36, 64, 72], [(0, 0), (1,)], [(0, 0, 9), (9, 9, 9)], ["ab"] * 2],
)
def test_corners_that_are_none_are_refused(corners: list[Any] | None) -> None:
    with pytest.raises(UsageError, match="a region has two corners"):
        Region(corners)  # type: ignore[arg-type]


def test_what_is_easily_taken_for_a_follower_is_refused() -> None:
    given: Any
    for given, words in ((Steady, r"the class Steady: follower=Steady\(\) makes one of it$"), ([(9, 9)] * 2, "list$")):
        for make in (partial(Region, [(0, 0), (9, 9)]), partial(Line, (0, 0), (9, 9))):
            with pytest.raises(UsageError, match=f"^a follower is called with a frame and its detections, got {words}"):
                make(given)


@pytest.mark.parametrize("corners", [[(0, 0), (1, 1)], [(0.1, 0.2), (0.9, 0.2), (0.5, 1)]])
def test_shares_of_the_picture_are_refused(corners: Corners) -> None:
    with pytest.raises(UsageError, match="is in shares of the picture; give pixels, as in 0,360,640,720"):
        Region([[(0, 0), (64, 72)], corners])
    Region([(0, 0), (1, 1.5)])


@pytest.mark.parametrize("corners", [[(0, 40), (128, 40)], [(7, 7), (7.9, 7.9)], [(0, 0), (50, 50), (99, 99)]])
def test_what_is_smaller_than_a_pixel_is_refused(corners: Corners) -> None:
    with pytest.raises(UsageError, match="is smaller than a pixel"):
        Region(corners)
    Region([(0, 0), (64, 72), (64, 0), (0, 72)])  # whose halves have the same area, in opposite directions


def places(detections: Detections) -> list[list[list[float]]]:
    """The corners of the regions that are passed on."""
    return [corners.tolist() for corners in detections.regions]


def test_the_polygons_are_passed_on_with_what_stands_in_them() -> None:
    inner, outer = [[(0, 0), (9, 0), (9, 9)], [(0, 0), (64, 72)]], [(0, 0), (128, 0), (64, 72)]
    expected = [[*map(list, outer)], [*map(list, inner[0])], [[0, 0], [64, 0], [64, 72], [0, 72]]]
    shown = Region(inner, Region(outer))(FRAME, found((0, 0, 20, 20), (0, 0, 20, 10)))
    assert places(shown) == expected
    assert found().regions == ()
    copies = shown[0], shown[:0], shown[[]], *shown, shown.finite(), dataclasses.replace(shown, ids=None)
    for other in (*copies, pickle.loads(pickle.dumps(shown))):
        assert places(other) == expected
    steady, region = Steady(), Region(outer)
    for index, boxes in enumerate([[], [(0, 0, 20, 20)], [], [(90, 0, 99, 20)]]):  # missed, and only remembered
        frame = Frame(FRAME.image, index, Fraction(index, 25), 0.0)
        shown = region(frame, found(*boxes))
        smooth = steady(frame, shown)
        assert (places(smooth), smooth.occupancy) == (expected[:1], shown.occupancy)


def drawn(*regions: Corners, view: View = "both", value: int = 90, size: tuple[int, int] = (320, 240)) -> Image:
    frame = Frame(np.full((size[1], size[0], 3), value, np.uint8), 0, Fraction(0), 0.0)
    polygons = tuple(polygon(corners) for corners in regions)
    return Renderer(view)(frame, dataclasses.replace(Detections.none(()), regions=polygons)).image


@pytest.mark.parametrize("value", [0, 90, 255])
def test_a_region_is_outlined_in_light_and_dark_dashes(value: int) -> None:
    picture = drawn([(40, 60), (200, 180)], value=value)
    for edge in (picture[60, 40:201], picture[180, 40:201], picture[60:181, 40], picture[60:181, 200]):
        light, dark = (edge > 200).all(1).mean(), (edge < 60).all(1).mean()
        assert 0.3 < light < 0.7
        assert 0.3 < dark < 0.7
    assert all((dash > 200).all() for dash in (picture[60, 42:45], picture[62:65, 200]))  # at its corners
    picture[59:62, 39:202] = picture[179:182, 39:202] = picture[59:182, 39:42] = picture[59:182, 199:202] = value
    assert (picture == value).all()  # but for the pixels beside it, for it is smooth


def test_an_edge_that_two_regions_share_looks_as_that_of_one() -> None:
    left, right = [(40, 60), (100, 60), (120, 180), (40, 180)], [(120, 180), (100, 60), (200, 60), (200, 180)]
    one, other = (drawn(corners)[70:170, 95:125].astype(int) for corners in (left, right))
    assert np.abs(one - other).max() < 9


def test_a_region_is_outlined_as_far_as_it_is_in_the_picture() -> None:
    lower = drawn([(0, 120), (320, 240)])
    assert all((edge != 90).any(1).mean() > 0.9 for edge in (lower[120], lower[239], lower[120:, 0], lower[120:, 319]))
    beyond = drawn([(-1e9, 120), (1e9, 1e9)])
    assert (beyond[120] != 90).any(1).mean() > 0.9
    assert (np.delete(beyond, [119, 120, 121], 0) == 90).all()
    forked = drawn([(100, 100), (120, 300), (200, 300), (220, 100), (240, 400), (80, 400)])  # its arms alone are seen
    assert 4 <= (forked[-1] != 90).any(1).sum() <= 16
    for outside in ([(-9, -9), (400, 300)], [(320, 0), (400, 240)], [(0, 240), (320, 250)], [(400, 0), (500, 99)]):
        assert (drawn(outside) == 90).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (2, 3), (33, 17)])
def test_regions_are_drawn_in_pictures_of_every_size(size: tuple[int, int]) -> None:
    crossed = [(0.0, 0.0), (40.0, 40.0), (40.0, 0.0), (0.0, 40.0)]
    round_ = [(20 + 15 * np.cos(turn), 20 + 15 * np.sin(turn)) for turn in np.linspace(0, 6.2, 90)]
    assert (drawn(crossed, round_, [(-5, -5), (1e6, 2)], size=size) != 90).any()


def test_regions_are_drawn_where_the_picture_is_seen_under_lines_and_names_and_over_masks() -> None:
    corners = [(40, 60), (200, 180)]
    seen: tuple[View, ...] = ("boxes", "tinted", "blurred")
    for view in seen:
        assert (drawn(corners, view=view) == drawn(corners)).all()
    assert not drawn(corners, view="masks").any()
    assert not drawn(corners, view="cutouts").any()
    frame = Frame(np.full((240, 320, 3), 90, np.uint8), 0, Fraction(0), 0.0)
    line = dataclasses.replace(found(), lines=(Crossings((0, 60), (320, 60)),))
    crossed = dataclasses.replace(line, regions=(polygon(corners),))
    assert (Renderer()(frame, crossed).image[58:63] == Renderer()(frame, line).image[58:63]).all()
    masked = found((20, 20, 300, 220))
    picture = Renderer("tinted")(frame, dataclasses.replace(masked, regions=(polygon(corners),))).image
    assert ((picture[180, 40:201] > 200) == (drawn(corners)[180, 40:201] > 200)).all()
    named = found((60, 60, 300, 220))  # its name stands on the edge
    without, picture = (
        Renderer()(frame, dataclasses.replace(named, regions=regions)).image
        for regions in ((), (polygon([(40, 50), (200, 180)]),))
    )
    assert (picture[50, 62:100] == without[50, 62:100]).all()
    assert (picture[50, 42:58] != 90).any(1).mean() > 0.8


def counted(
    *regions: tuple[Corners, dict[str, int]],
    size: tuple[int, int] = (320, 240),
    view: View = "both",
    hud: str = "",
    boxes: Sequence[Sequence[float]] = (),
) -> Image:
    frame = Frame(np.full((size[1], size[0], 3), 90, np.uint8), 0, Fraction(0), 0.0)
    shown = dataclasses.replace(
        found(*boxes),
        regions=tuple(polygon(corners) for corners, _ in regions),
        occupancy=tuple(counts for _, counts in regions),
    )
    return Renderer(view, hud=lambda: hud)(frame, shown).image


def test_how_many_stand_in_a_region_is_written_inside_of_it_where_the_picture_is_seen() -> None:
    region: tuple[Corners, dict[str, int]] = [(40, 60), (200, 180)], {"cat": 2, "dog": 1}
    picture = counted(region)
    assert counts_in(picture, "now 3") == [(41, 61)]
    assert (picture[60] == drawn(region[0])[60]).all()  # its outline stays whole
    seen: tuple[View, ...] = ("boxes", "tinted", "blurred")
    for view in seen:
        assert (counted(region, view=view) == picture).all()
    assert not counted(region, view="masks").any()
    assert not counted(region, view="cutouts").any()
    assert counts_in(counted((region[0], {})), "now 0") == [(41, 61)]


def test_several_regions_have_the_numbers_of_the_summary_also_where_one_is_not_in_the_picture() -> None:
    left, right = ([(10, 60), (110, 180)], {"cat": 2}), ([(150, 60), (300, 180)], {"dog": 9, "cat": 1})
    picture = counted(left, ([(330, 0), (400, 240)], {"cat": 5}), ([(-9, -9), (400, 300)], {"cat": 5}), right)
    assert counts_in(picture, "region 1  now 2") == [(11, 61)]
    assert counts_in(picture, "region 4  now 10") == [(151, 61)]
    assert (picture != counted(left, right)).any()
    assert (picture[200:] == 90).all()


def test_counts_cover_neither_each_other_nor_the_status_line_and_names_make_way() -> None:
    whole: list[tuple[float, float]] = [(0, 0), (320, 240)]
    (status,) = counts_in(counted((whole, {}), hud=""), "now 0")
    assert status == (1, 1)
    picture = counted((whole, {}), (whole, {"cat": 1}), hud="25 fps", boxes=[(2, 60, 100, 200)])
    (first,), (second,) = (counts_in(picture, f"region {number}  now {number - 1}") for number in (1, 2))
    height = _label("1", Style.of((320, 240)).letters, BLACK, 320).shape[0]
    assert (first[1], second[1]) == (height, 2 * height)  # below each other
    alone = counted((whole, {}), boxes=[(2, 20, 100, 200)])  # whose name would stand there
    assert counts_in(alone, "now 0") == [(1, 1)]


def test_a_count_stands_at_the_corner_that_is_highest_within_the_sides_of_its_region() -> None:
    width = _label("now 0", Style.of((320, 240)).letters, BLACK, 320).shape[1]
    assert counts_in(counted(([(160, 40), (280, 140), (160, 220), (60, 140)], {})), "now 0") == [(161, 41)]
    assert counts_in(counted(([(50, 200), (200, 40), (200, 200)], {})), "now 0") == [(199 - width, 41)]
    assert counts_in(counted(([(90, 40), (100, 40), (100, 200), (90, 200)], {})), "now 0") == [(91, 41)]


@pytest.mark.parametrize("size", [(84, 48), (64, 36), (64, 90), (200, 72)])
def test_a_tile_has_the_regions_in_their_places_and_none_beside_its_picture(size: tuple[int, int]) -> None:
    image = np.full((72, 128, 3), 90, np.uint8)
    for corners in ([(0, 0), (128, 72)], [(-50, 20), (500, 50)], [(-9, 9), (140, 30), (64, 99)]):
        shown = Region(corners)(dataclasses.replace(FRAME, pixels=image), found())
        tile, small = fitted(dataclasses.replace(FRAME, pixels=image), shown, size)
        inside = (tile.image > 0).astype(np.uint8)
        picture = Renderer()(tile, small).image
        assert not picture[cv2.dilate(inside, np.ones((3, 3))) == 0].any()  # lines are smooth, so a pixel more
        assert (picture != tile.image)[inside > 0].any()
    _, small = fitted(FRAME, Region([(0, 0), (64, 72)])(FRAME, found()), (84, 48))
    ends = [[[0, 0], [42, 0]], [[42, 0], [42, 46]], [[42, 46], [0, 46]], [[0, 46], [0, 0]]]
    assert (places(small), fitted(FRAME, found(), (84, 48))[1].regions) == ([ends], ())


def test_a_tile_has_the_counts_of_each_region_also_of_one_that_is_cut_off() -> None:
    frame = dataclasses.replace(FRAME, pixels=np.full((72, 128, 3), 90, np.uint8))
    outside: Corners = [(-90, -90), (500, 500)]
    shown = Region([[(-50, 20), (500, 50)], outside, [(64, 40), (500, 500)]])(frame, FOUR)
    tile, small = fitted(frame, shown, (320, 240))
    assert (len(small.regions), small.occupancy) == (3, shown.occupancy)
    picture = Renderer("tinted")(tile, small).image
    assert [len(counts_in(picture, f"region {n}  now {m}")) for n, m in ((1, 1), (2, 4), (3, 1))] == [1, 0, 1]


DATE = re.compile(rb'"date_created": "[^"]+"')
"""When a document of COCO was written, to the second, which may have passed when the next one is."""


def test_what_is_written_of_objects_says_nothing_of_the_outline(tmp_path: Path) -> None:
    segmenter = FunctionSegmenter(lambda _: found((10, 10, 60, 60)), ("person",))
    images = [np.full((72, 128, 3), 90, np.uint8)] * 4
    written = []
    for name, region in (("without", None), ("with", [(0, 0), (128, 72)])):
        (tmp_path / name).mkdir()
        sinks = [open_sink(str(tmp_path / name / file)) for file in ("a.jsonl", "a.json", "a.csv")]
        sinks.append(Crops(str(tmp_path / name / "crops")))
        follower = Steady() if region is None else Region(region, Steady())
        Pipeline(ListSource(images), segmenter, follower=follower, sinks=sinks).run()
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        written.append({path.name: DATE.sub(b"", path.read_bytes()) for path in files})
    lines = [[json.loads(line) for line in files.pop("a.jsonl").splitlines()] for files in written]
    assert [line.pop("regions") for line in lines[1]] == [[{"now": {"person": 1}}]] * 4
    assert lines[0] == lines[1]
    tables = [list(csv.DictReader(files.pop("a.csv").decode().splitlines())) for files in written]
    assert [[row.pop("regions") for row in table] for table in tables] == [[""] * 4, ["1"] * 4]
    assert tables[0] == tables[1]
    assert len(written[0]) == 2
    assert written[0] == written[1]


def test_a_run_lists_how_many_stand_in_each_region_and_tells_the_most_at_one_time(tmp_path: Path) -> None:
    crowds = [[0], [0, 1, 2], [3], [1, 3]]
    segmenter = FunctionSegmenter(lambda image: FOUR[crowds[image[0, 0, 0]]], FOUR.class_names)
    images = [np.full((72, 128, 3), number, np.uint8) for number in range(len(crowds))]
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(tmp_path / "photos" / f"{number}.png"), image)
    sources: dict[str, Source] = {"film": ListSource(images), "photos": open_source(str(tmp_path / "photos"))}
    for name, source in sources.items():
        sink = open_sink(tmp_path / f"{name}.jsonl")
        summary = Pipeline(source, segmenter, follower=Region([LEFT_HALF, RIGHT_HALF]), sinks=[sink]).run()
        rows = [json.loads(row)["regions"] for row in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        assert rows == [
            [{"now": {"person": 1}}, {"now": {}}],
            [{"now": {"person": 2, "dog": 1}}, {"now": {}}],
            [{"now": {}}, {"now": {"dog": 1}}],
            [{"now": {"person": 1}}, {"now": {"dog": 1}}],
        ]
        assert summary.feeds[0].regions == (Peak(3, {"person": 2, "dog": 1}), Peak(1, {"dog": 1}))


def test_the_command_tells_how_many_were_in_each_region(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, figures, listed = ROOT / "samples" / "photo.jpg", tmp_path / "run.json", tmp_path / "{source}.jsonl"
    argv = ["-o", str(listed), "--metrics", str(figures), "--device", "cpu", "--overwrite", "--classes", "person,cat"]
    assert main([str(photo), *argv, "--region", "0,0,640,720", "--region", "640,0,1280,720"]) == 0
    words = "\n  region 1 at most 1 at once (person 1)\n  region 2 at most 1 at once (cat 1)\n  speed "
    assert words in capsys.readouterr().out
    for name in ("door", "yard"):
        shutil.copy(photo, tmp_path / f"{name}.jpg")
    sources = [str(tmp_path / "door.jpg"), str(tmp_path / "yard.jpg")]
    assert main([*sources, *argv, "--region", "yard=0,0,640,720"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^  door +1 of 1 images$", printed, re.MULTILINE)
    assert re.search(r"^  yard +1 of 1 images; region at most 1 at once \(person 1\)$", printed, re.MULTILINE)
    expected: list[list[dict[str, Any]]] = [[], [{"most": 1, "classes": {"person": 1}}]]
    assert [source["regions"] for source in json.loads(figures.read_text())["sources"]] == expected
    assert "regions" not in json.loads((tmp_path / "door.jsonl").read_text())
    assert json.loads((tmp_path / "yard.jsonl").read_text())["regions"] == [{"now": {"person": 1}}]


def test_the_command_refuses_a_region_before_it_makes_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), FRAME.image)
    monkeypatch.chdir(tmp_path)
    tiny = batched_model(tmp_path / "tiny.onnx")
    outside = ["--region", "0,0,9,9", "--region", "128,0,200,72"]
    for source, output in (
        ("synthetic:128x72@30x3", "o.mp4"),
        ("synthetic:128x72@30x3,live", "o.mp4"),
        ("a.png", "o.png"),
    ):
        argv = [source, "-o", output, "--model", str(tiny), "--device", "cpu", *outside]
        assert failure(capsys, *argv) == (
            2,
            "stream-seg: the region from 128,0 to 200,72 lies outside of the picture, which is 128x72 pixels",
        )
    for wrong, words in (("0,0.5,1,1", "is in shares of the picture"), ("9,9,9,50", "is smaller than a pixel")):
        code, line = failure(capsys, "a.png", "--region", wrong)
        assert code == 2
        assert f"argument --region: the region {wrong} {words}" in line
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "tiny.onnx"}


def shown_by(feed: Feed) -> list[list[float]]:
    """The boxes that are left of a left and of a right one."""
    assert feed.follower is not None
    image = np.zeros((48, 64, 3), np.uint8)
    return feed.follower(Frame(image, 0, Fraction(0), 0.0), found(LEFT, RIGHT)).boxes.tolist()


LEFT, RIGHT = [4, 4, 20, 40], [30, 4, 60, 40]


def test_the_command_has_it_for_one_source(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["synthetic:64x48@30x3", "-o", "{source}.mp4", "--region", "0,0,32,48", "--region", "0,0,16,48"]
    (feed,) = feeds.plan(parse(argv), lambda *of: []).feeds
    assert feed.follower is not None
    image = np.zeros((48, 64, 3), np.uint8)
    shown = feed.follower(Frame(image, 0, Fraction(0), 0.0), found(LEFT, RIGHT))
    assert (shown.boxes.tolist(), shown.ids is not None) == ([LEFT], True)
    for wrong in ("0,0,9", "0,0,9,x", "0,0,9,9,9", "0,0,nan,4", "synthetic=", "synthetic=0,0,9", "0,0,9,9=synthetic"):
        code, message = failure(capsys, *argv[:3], "--region", wrong)
        assert (code, f"'{wrong}' is no region; write x,y,x,y in pixels" in message) == (2, True)


def test_corners_and_ends_left_of_the_picture_are_taken_for_no_option() -> None:
    lines = ["--line", "-.5,9,64,9", "--line=-5,9,64,9", "--line", "a=-5,9,64,9"]
    args = parse(["a.mp4", "--region", "-20,360,640,720", *lines, "-o", "b.mp4"])
    assert [(place.source, place.points) for place in args.region] == [(None, [(-20, 360), (640, 720)])]
    ends = (-5, 9), (64, 9)
    assert [(place.source, place.points) for place in args.line] == [
        (None, ((-0.5, 9), (64, 9))),
        (None, ends),
        ("a", ends),
    ]
    with pytest.raises(UsageError, match="argument --line: expected one argument"):
        parse(["a.mp4", "--line", "--region", "-20,360,640,720"])


def test_a_name_may_be_written_as_the_file_system_has_it() -> None:
    (place,) = parse(["a.mp4", "--region", "Tu\u0308r=0,0,9,9"]).region
    assert place.source == label_of("Tu\u0308r.mp4") == "T\u00fcr"


def test_each_of_several_sources_has_the_regions_of_its_name() -> None:
    argv = ["synthetic:64x48@30x3"] * 3 + ["-o", "{source}.mp4", "--region", "synthetic-2=0,0,32,48"]
    argv += ["--region", "synthetic=32,0,64,48", "--region", " synthetic = 0,0,9,48"]
    every = feeds.plan(parse(argv), lambda *of: []).feeds
    assert [shown_by(feed) for feed in every] == [[RIGHT], [LEFT], [LEFT, RIGHT]]
    (only,) = feeds.plan(
        parse(["synthetic:64x48@30x3", "--no-show", "--region", "synthetic=0,0,32,48"]), lambda *of: []
    ).feeds
    assert shown_by(only) == [LEFT]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--region", "0,0,9,9"],
            "--region 0,0,9,9 is in the picture of one source, and there are synthetic and cam-1; write whose it is, "
            "as in --region synthetic=0,0,9,9",
        ),
        (["--region", "synthetic=0,0,9,9", "--line", "0,9,9,9"], "as in --line synthetic=0,9,9,9"),
        (
            ["--region", "sinthetic=0,0,9,9"],
            "--region: no source is called 'sinthetic' (did you mean 'synthetic'?); there are synthetic and cam-1",
        ),
        (
            ["--line", "rtsp://me:secret@cam/1=0,0,9,9"],
            "--line: no source is called 'rtsp://***@cam/1'; there are synthetic and cam-1",
        ),
        (["--region", "=0,0,9,9"], "--region: no source is called ''; there are"),
        (
            ["--region", "synthetic=64,0,99,9"],
            "synthetic: the region from 64,0 to 99,9 lies outside of the picture, which is 64x48 pixels",
        ),
    ],
)
def test_a_region_of_which_it_is_not_known_whose_it_is_is_refused(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = failure(capsys, "synthetic:64x48@30x3", "rtsp://me:secret@cam/1", "--no-show", *options)
    assert code == 2
    assert words in line


def test_films_in_turns_have_the_regions_without_a_name_as_well_if_they_are_of_one_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in "abcdefgh":
        write_video(folder / f"{name}.mp4", count=3, size=(64, 48))
    argv = [str(folder), "-o", str(tmp_path / "out/{source}.mp4"), "--region", "0,0,32,48"]
    every = feeds.plan(parse([*argv, "--region", "b=32,0,64,48"]), lambda *of: []).feeds
    assert [shown_by(feed) for feed in every] == [[LEFT], [LEFT, RIGHT], *[[LEFT]] * 6]
    (tmp_path / "out/a.mp4").touch()
    rest = feeds.plan(parse([*argv, "--region", "a=32,0,64,48", "--skip-existing"]), lambda *of: []).feeds
    assert [shown_by(feed) for feed in rest] == [[LEFT]] * 7  # the name of one that is left out is none that is wrong
    (tmp_path / "out/a.mp4").unlink()
    assert failure(capsys, *argv, "--region", "x=0,0,9,9")[1].endswith("there are a, b, c, d, e, f and 2 more")
    write_video(folder / "d.mp4", count=3, size=(32, 48))
    code, line = failure(capsys, *argv)
    assert code == 2
    assert (
        "--region 0,0,32,48 is for films of one size, and a has 64x48 pixels, d 32x48; give each size a run of its "
        "own, or write whose it is, as in --region a=0,0,32,48" in line
    )
    assert not list((tmp_path / "out").iterdir())
    assert len(feeds.plan(parse([*argv[:3], "--region", "d=0,0,32,48"]), lambda *of: []).feeds) == 8


def test_a_region_outside_of_a_picture_that_came_late_ends_its_source_alone(caplog: pytest.LogCaptureFixture) -> None:
    segmenter = FunctionSegmenter(lambda _: found(), ("person",))
    places = {"door": [(0, 0), (9, 9)], "yard": [(200, 0), (300, 9)]}
    sinks = {name: ListSink() for name in places}
    pipeline = Pipeline(
        [
            Feed(ListSource([FRAME.image] * 9), [sinks[name]], name=name, follower=Region(places[name]))
            for name in places
        ],
        segmenter,
    )
    summary = pipeline.run()
    assert (len(sinks["door"].frames), len(sinks["yard"].frames)) == (9, 0)
    assert (summary.delivered, summary.feeds[1].delivered) == (9, 0)
    words = "the region from 200,0 to 300,9 lies outside of the picture, which is 128x72 pixels"
    assert {name: str(error) for name, error in pipeline.failures.items()} == {"yard": words}
    assert caplog.messages == [f"yard failed, the others go on: {words}"]


def test_whose_region_lies_outside_is_told_where_all_do() -> None:
    segmenter = FunctionSegmenter(lambda _: found(), ("person",))
    cameras = [
        Feed(ListSource([FRAME.image]), name=name, follower=Region([(200, 0), (300, 9)])) for name in ("door", "yard")
    ]
    with pytest.raises(UsageError, match=r"^(door|yard): the region from 200,0 to 300,9 lies outside"):
        Pipeline(cameras, segmenter).run()
