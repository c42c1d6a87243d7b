"""Several feeds in one picture: where the tiles are, what is in them, and when pictures come."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from stream_seg import tiles as tiles_module
from stream_seg.availability import Availability
from stream_seg.detections import Detections
from stream_seg.errors import OutputError, Reason, SourceError
from stream_seg.frame import Frame, Image, SourceInfo
from stream_seg.protocols import Outcome
from stream_seg.render.labels import shortened, text_width
from stream_seg.sinks import ListSink, VideoFile
from stream_seg.tiles import LARGEST, Grid, Tiles, WallIfLive, fitted
from tests.sink_films import NOTHING, read

TICK = Fraction(1, 90000)
WIDE = (320, 180)


class Clock:
    """Seconds, under the test's control."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Glance(ListSink):
    """Keeps the times of all pictures, and only the last picture: each takes 6 MB."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[Fraction] = []

    def write(self, frame: Frame, detections: Detections) -> None:
        self.times.append(frame.pts)
        self.frames = [frame]


def plain(value: int, pts: Fraction = Fraction(0), size: tuple[int, int] = WIDE, name: str | None = None) -> Frame:
    """A frame of one colour that no other value has."""
    image = np.full((size[1], size[0], 3), (value, 255 - value, 40), np.uint8)
    return Frame(image, 0, pts, 5.0, name, is_still=name is not None)


def box(*corners: float) -> Detections:
    return Detections(
        np.array([corners], np.float32),
        np.array([0.9], np.float32),
        np.array([0]),
        np.ones((1, 28, 28), np.float32),
        ("dog",),
    )


def put(wall: Tiles, feed: int, frame: Frame) -> Frame:
    tile = wall.draw(feed, frame, NOTHING, None)
    wall.show(feed, tile)
    return tile


def centre(picture: Image, wall: Grid, feed: int) -> list[int]:
    """The colour in the middle of a tile."""
    rows, columns = wall.area(feed)
    pixel: list[int] = picture[(rows.start + rows.stop) // 2, (columns.start + columns.stop) // 2].tolist()
    return pixel


def colour(value: int) -> list[int]:
    return [value, 255 - value, 40]


def live(
    count: int, clock: Clock, sink: ListSink | None = None, availabilities: Sequence[Availability | None] | None = None
) -> tuple[Tiles, ListSink]:
    sink = sink or ListSink()
    wall = Tiles([f"camera {i}" for i in range(count)], [sink], availabilities=availabilities, clock=clock)
    wall.open()
    return wall, sink


def recorded(count: int, sink: ListSink | None = None) -> tuple[Tiles, ListSink]:
    sink = sink or ListSink()
    wall = Tiles([f"clip {i}" for i in range(count)], [sink], kind="video")
    wall.open()
    return wall, sink


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The lines written into tiles, in order."""
    lines: list[tuple[str, ...]] = []
    monkeypatch.setattr(tiles_module, "announce", lambda image, words: lines.append(words))
    return lines


@pytest.mark.parametrize("count", range(2, 33))
def test_tiles_are_even_equal_apart_and_inside_the_picture(count: int) -> None:
    grid = Grid.of(count)
    assert grid.size[0] <= LARGEST[0]
    assert grid.size[1] <= LARGEST[1]
    assert not any(side % 2 for side in grid.tile)
    assert grid.tile[0] / grid.tile[1] == pytest.approx(16 / 9, rel=0.02)
    taken = np.zeros((grid.size[1], grid.size[0]), int)
    for feed in range(count):
        taken[grid.area(feed)] += 1
    assert taken.max() == 1
    assert taken.sum() == count * grid.tile[0] * grid.tile[1]


@pytest.mark.parametrize(
    ("count", "columns", "rows", "tile"),
    [
        (2, 2, 1, (960, 540)),
        (3, 2, 2, (960, 540)),
        (4, 2, 2, (960, 540)),
        (6, 3, 2, (640, 360)),
        (9, 3, 3, (640, 360)),
        (16, 4, 4, (480, 270)),
        (32, 6, 6, (320, 180)),
    ],
)
def test_tiles_are_as_large_as_they_can_be(count: int, columns: int, rows: int, tile: tuple[int, int]) -> None:
    assert Grid.of(count) == Grid(columns, rows, tile)


@pytest.mark.parametrize("size", [(1920, 1080), (640, 480), (240, 720), (97, 61), (4000, 30)])
def test_boxes_stay_on_their_objects_when_frames_are_fitted_into_tiles(size: tuple[int, int]) -> None:
    x1, y1, x2, y2 = size[0] // 4, size[1] // 3, size[0] * 3 // 4, size[1] * 5 // 6
    image = np.zeros((size[1], size[0], 3), np.uint8)
    image[y1:y2, x1:x2] = 255
    frame, found = fitted(Frame(image, 3, Fraction(1), 2.0), box(x1, y1, x2, y2), (960, 540))
    assert (frame.size, frame.index, frame.pts, frame.captured_at) == ((960, 540), 3, 1, 2.0)
    rows, columns = np.nonzero(frame.image[:, :, 0] > 127)
    seen = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert found.boxes[0] == pytest.approx(seen, abs=1.0)


def test_a_frame_of_other_proportions_has_black_bars() -> None:
    frame, _ = fitted(plain(200, size=(640, 480)), NOTHING, (960, 540))
    assert frame.image[:, :120].max() == 0
    assert frame.image[:, 840:].max() == 0
    assert (frame.image[:, 121:839] == colour(200)).all()


def test_each_tile_shows_its_feed_under_its_name_with_its_status() -> None:
    clock, sink, asked = Clock(), ListSink(), []
    wall = Tiles(["a", "b"], [sink], hud=lambda feed: asked.append(feed) or "30 fps", clock=clock)  # type: ignore[func-returns-value]
    wall.open()
    for feed in range(2):
        put(wall, feed, plain(50 + 100 * feed))
    clock.now += 1
    wall.tick()
    picture = sink.frames[-1].image
    assert asked == [0, 1]
    for feed in range(2):
        assert centre(picture, Grid.of(2), feed) == colour(50 + 100 * feed)
        assert (picture[Grid.of(2).area(feed)][:10, :60] != colour(50 + 100 * feed)).any()


def test_colours_are_remembered_for_each_feed_by_itself() -> None:
    wall, _ = live(2, Clock())
    first, second = box(10, 10, 100, 100), box(200, 60, 310, 170)
    before = wall.draw(0, plain(100), first, None).image
    for _ in range(3):
        wall.draw(1, plain(100), second, None)
    assert (wall.draw(0, plain(100), first, None).image == before).all()


@pytest.mark.parametrize("name", ["rtsp://***@192.168.1.20:554/Streaming/Channels/101", "x" * 300, "a"])
def test_a_long_name_leaves_room_for_the_status(name: str) -> None:
    short = shortened(name, 9, 200)
    assert text_width(short, 9) <= 200
    assert short == name if len(name) == 1 else "..." in short
    assert (short[0], short[-1]) == (name[0], name[-1])


def test_the_sinks_are_told_of_a_live_wall() -> None:
    wall, sink = live(4, Clock())
    assert sink.info is not None
    assert (sink.info.name, sink.info.kind, sink.info.size) == ("wall", "live", (1920, 1080))
    wall.close(Outcome.STOPPED)
    assert sink.outcome is Outcome.STOPPED


def test_before_the_first_frames_there_is_a_picture_that_says_so(said: list[tuple[str, ...]]) -> None:
    _, sink = live(3, Clock())
    assert len(sink.frames) == 1
    assert sink.frames[0].size == (1920, 1080)
    assert said == [("connecting",)] * 3


def test_live_pictures_keep_the_clock_and_come_at_most_thirty_times_a_second() -> None:
    clock, sink = Clock(), Glance()
    wall, _ = live(4, clock, sink)
    for step in range(600):  # three seconds; each feed has 40 frames a second, out of step with the others
        clock.now = 1000 + step / 200
        if step % 5 < 4:
            put(wall, step % 5, plain(step % 200))
        assert 0 <= wall.tick() <= 1
        assert abs(sink.frames[-1].pts - Fraction(step, 200)) <= Fraction(1, 30) + Fraction(1, 200) + TICK
    wall.close(Outcome.STOPPED)
    times = sink.times
    assert 89 <= len(times) <= 91
    assert all(a < b for a, b in pairwise(times))
    assert all(time / TICK == time // TICK for time in times)
    assert [centre(sink.frames[-1].image, Grid.of(4), feed) for feed in range(4)] == [
        colour(step % 200) for step in (595, 596, 597, 598)
    ]


def test_times_of_live_pictures_grow_though_the_clock_does_not() -> None:
    wall, sink = live(2, Clock())
    put(wall, 0, plain(50))
    wall.close(Outcome.STOPPED)
    assert [picture.pts for picture in sink.frames] == [0, TICK]


def test_a_wall_on_which_nothing_moves_keeps_the_clock() -> None:
    clock = Clock()
    wall, sink = live(2, clock)
    for _ in range(10):
        clock.now += wall.tick()
        wall.tick()
    assert [frame.pts for frame in sink.frames] == list(range(11))


def test_tick_says_when_the_next_picture_is_due() -> None:
    clock = Clock()
    wall, sink = live(2, clock)
    clock.now += 0.01
    put(wall, 0, plain(9))
    assert len(sink.frames) == 1
    assert wall.tick() == pytest.approx(1 / 30 - 0.01, abs=1e-4)
    clock.now += wall.tick() + 1e-4
    wall.tick()
    assert len(sink.frames) == 2


def test_after_a_pause_pictures_do_not_come_faster_to_make_up_for_it() -> None:
    clock = Clock()
    wall, sink = live(2, clock)
    clock.now += 0.9
    put(wall, 0, plain(9))
    before = len(sink.frames)
    for step in range(10):
        clock.now += 0.003
        put(wall, 0, plain(step))
    assert len(sink.frames) == before


def test_a_sink_may_keep_its_pictures() -> None:
    clock = Clock()
    wall, sink = live(2, clock)
    for value in (10, 20, 30):
        clock.now += 0.05
        put(wall, 1, plain(value))
    assert [centre(frame.image, Grid.of(2), 1) for frame in sink.frames[1:]] == [colour(v) for v in (10, 20, 30)]


def test_an_outage_is_told_in_the_tile_to_the_second_and_ends_with_the_next_frame(said: list[tuple[str, ...]]) -> None:
    clock = Clock()
    away = Availability(clock)
    wall, sink = live(2, clock, availabilities=[None, away])
    put(wall, 0, plain(10))
    put(wall, 1, plain(200))
    clock.now += 1
    said.clear()
    away.lost(Reason.STALLED, clock.now + 4.5)
    for _ in range(25):
        wall.tick()
        clock.now += 0.1
    assert said == [
        ("no picture: stalled", "for 0 s, trying again in 5 s"),
        ("no picture: stalled", "for 0 s, trying again in 4 s"),
        ("no picture: stalled", "for 1 s, trying again in 4 s"),
        ("no picture: stalled", "for 1 s, trying again in 3 s"),
        ("no picture: stalled", "for 2 s, trying again in 3 s"),
    ]
    grey = centre(sink.frames[-1].image, Grid.of(2), 1)
    assert len(set(grey)) == 1
    assert 0 < grey[0] < 60
    assert centre(sink.frames[-1].image, Grid.of(2), 0) == colour(10)
    away.trying()
    wall.tick()
    assert said[-1] == ("no picture: stalled", "for 2 s, trying again now")
    away.back()
    clock.now += 0.1
    wall.tick()
    assert centre(sink.frames[-1].image, Grid.of(2), 1) == grey  # nothing newer to show yet
    put(wall, 1, plain(220))
    assert centre(sink.frames[-1].image, Grid.of(2), 1) == colour(220)


def test_a_second_outage_like_the_first_is_told_as_well(said: list[tuple[str, ...]]) -> None:
    clock = Clock()
    away = Availability(clock)
    wall, sink = live(2, clock, availabilities=[away, None])
    for _ in range(2):
        put(wall, 0, plain(200))
        away.lost(Reason.STALLED)
        clock.now += 0.9
        wall.tick()
        assert centre(sink.frames[-1].image, Grid.of(2), 0) != colour(200)
        away.back()
    assert said[-2:] == [("no picture: stalled", "for 0 s, trying again now")] * 2


def test_a_feed_that_is_away_from_the_beginning_says_why(said: list[tuple[str, ...]]) -> None:
    clock = Clock()
    away = Availability(clock)
    away.lost(Reason.REFUSED, clock.now + 30)
    live(2, clock, availabilities=[away, None])
    assert said[-1] == ("no picture: refused", "for 0 s, trying again in 30 s")


def test_a_try_that_is_due_is_made_now(said: list[tuple[str, ...]]) -> None:
    clock = Clock()
    away = Availability(clock)
    away.lost(Reason.STALLED, clock.now + 1)
    wall, _ = live(2, clock, availabilities=[away, None])
    clock.now += 8  # while a reader that hangs is waited for
    wall.tick()
    assert said[-1] == ("no picture: stalled", "for 8 s, trying again now")


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(59, "59 s"), (60, "1 min"), (200, "3 min 20 s"), (7300, "2 h 1 min"), (86400 * 2 + 3600 * 7, "2 d 7 h")],
)
def test_long_outages_are_told_in_larger_units(seconds: int, told: str, said: list[tuple[str, ...]]) -> None:
    clock = Clock()
    away = Availability(clock)
    wall, _ = live(2, clock, availabilities=[away, None])
    away.lost(Reason.TIMEOUT)
    clock.now += seconds
    wall.tick()
    assert said[-1] == ("no picture: timeout", f"for {told}, trying again now")


def outage(ticks: int) -> list[Image]:
    """The pictures of a wall that is looked at so often in the five seconds in which one of its feeds is away."""
    clock = Clock()
    away = Availability(clock)
    wall, sink = live(2, clock, availabilities=[away, None])
    put(wall, 0, plain(200))
    away.lost(Reason.STALLED)
    for _ in range(ticks):
        clock.now += 5 / ticks
        wall.tick()
    return [frame.image for frame in sink.frames[1:]]


def test_a_picture_is_dimmed_once_for_a_whole_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    dimmings, dim = [], tiles_module.dimmed
    monkeypatch.setattr(tiles_module, "dimmed", lambda image: dimmings.append(1) or dim(image))
    pictures = outage(5)
    assert len(dimmings) == 1
    assert len(pictures) == 5
    assert all((a != b).any() for a, b in pairwise(pictures))
    assert (pictures[-1] == outage(1)[-1]).all()  # nothing is left of what was written before


def test_letters_in_the_smallest_tiles_can_be_read_in_a_window_that_is_smaller_than_the_picture() -> None:
    wall, _ = live(32, Clock())
    tile = wall.draw(0, plain(200), NOTHING, None).image
    plate = (tile[:, :20] != colour(200)).any((1, 2))
    assert 16 <= plate.sum() <= 24


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (None, ("ended",)),
        (SourceError("rtsp://me:secret@cam says no", Reason.AUTHENTICATION), ("failed", "authentication")),
        (SourceError("rtsp://me:secret@cam is odd"), ("failed",)),
        (RuntimeError("secret"), ("failed",)),
    ],
)
def test_a_feed_that_has_ended_says_so_and_no_message_gets_on_the_screen(
    error: BaseException | None, told: tuple[str, ...], said: list[tuple[str, ...]]
) -> None:
    clock = Clock()
    away = Availability(clock)
    wall, sink = live(2, clock, availabilities=[away, None])
    away.lost(Reason.REFUSED)
    put(wall, 0, plain(200))
    wall.ended(0, error)
    clock.now += 1
    wall.tick()
    assert said[-1] == told
    assert centre(sink.frames[-1].image, Grid.of(2), 0) != colour(200)


def test_an_image_stays_to_be_looked_at() -> None:
    clock = Clock()
    wall, sink = live(2, clock)
    put(wall, 0, plain(200, name="photo.jpg"))
    wall.ended(0, None)
    clock.now += 2
    wall.tick()
    assert centre(sink.frames[-1].image, Grid.of(2), 0) == colour(200)


def test_a_run_that_is_stopped_ends_with_its_last_pictures() -> None:
    clock = Clock()
    wall, sink = live(2, clock)
    for feed in range(2):
        put(wall, feed, plain(100 + feed))
    for feed in range(2):
        wall.ended(feed, None)
        clock.now += 0.1
        wall.tick()
    wall.close(Outcome.STOPPED)
    assert [centre(sink.frames[-1].image, Grid.of(2), feed) for feed in range(2)] == [colour(100), colour(101)]


def test_an_only_live_feed_is_shown_at_its_size_at_once_and_without_a_copy() -> None:
    clock = Clock()
    wall, sink = live(1, clock)
    assert sink.frames[0].size == (1280, 720)
    for step in range(5):
        clock.now += 0.002
        picture = plain(step)
        assert wall.draw(0, picture, NOTHING, picture) is picture
        wall.show(0, picture)
        assert sink.frames[-1].image is picture.image
        assert sink.frames[-1].captured_at == picture.captured_at
        assert sink.frames[-1].pts == pytest.approx(0.002 * (step + 1), abs=1e-4)
    assert len(sink.frames) == 6


def test_an_only_feed_without_sinks_of_its_own_is_drawn_here() -> None:
    wall, _ = live(1, Clock())
    drawn = wall.draw(0, plain(100), box(20, 20, 90, 90), None)
    assert drawn.size == WIDE
    assert (drawn.image[21, 21:89] != colour(100)).any()
    assert (drawn.image[120:, 120:] == colour(100)).all()


def test_an_outage_of_an_only_feed_is_told_over_its_last_picture(said: list[tuple[str, ...]]) -> None:
    clock = Clock()
    away = Availability(clock)
    wall, sink = live(1, clock, availabilities=[away])
    picture = put(wall, 0, plain(200))
    away.lost(Reason.UNPLUGGED)
    clock.now += 3
    wall.tick()
    assert said[-1] == ("no picture: unplugged", "for 3 s, trying again now")
    assert sink.frames[-1].size == WIDE
    assert sink.frames[-1].image.max() < 90
    assert picture.image.max() > 90


def test_recordings_give_a_picture_for_each_time_with_all_frames_of_that_time() -> None:
    wall, sink = recorded(2)
    assert sink.frames == []
    for index in range(4):
        for feed in range(2):
            put(wall, feed, plain(10 * index + feed, Fraction(index, 25)))
    assert len(sink.frames) == 3
    wall.close(Outcome.COMPLETE)
    assert [frame.pts for frame in sink.frames] == [Fraction(i, 25) for i in range(4)]
    for index, frame in enumerate(sink.frames):
        assert [centre(frame.image, Grid.of(2), feed) for feed in range(2)] == [
            colour(10 * index + feed) for feed in range(2)
        ]


def test_recordings_of_different_rates_keep_every_time_exactly_also_in_a_file(tmp_path: Path) -> None:
    wall = Tiles(["a", "b"], [VideoFile(tmp_path / "wall.mp4")], kind="video")
    wall.open()
    frames = [(0, Fraction(i * 1001, 30000)) for i in range(30)] + [(1, Fraction(i, 25)) for i in range(25)]
    for feed, pts in sorted(frames, key=lambda item: item[1]):
        put(wall, feed, plain(50, pts))
    wall.close(Outcome.COMPLETE)
    assert read(tmp_path / "wall.mp4").times == sorted({pts for _, pts in frames})


def test_many_recordings_out_of_step_give_sixty_pictures_a_second_and_the_last() -> None:
    sink = Glance()
    wall, _ = recorded(4, sink)
    times = [Fraction(i, 30) + Fraction(feed, 130) for i in range(90) for feed in range(4)]
    for number, pts in enumerate(times):
        put(wall, number % 4, plain(number % 250, pts))
    wall.close(Outcome.COMPLETE)
    shown = sink.times
    assert 3 * 58 <= len(shown) <= 3 * 60 + 4
    assert set(shown) <= set(times)
    assert shown[-1] == times[-1]
    assert all(a < b for a, b in pairwise(shown))


def test_a_frame_that_comes_late_changes_no_time() -> None:
    wall, sink = recorded(2)
    put(wall, 0, plain(1, Fraction(1)))
    put(wall, 1, plain(2, Fraction(1, 2)))
    wall.close(Outcome.COMPLETE)
    assert [frame.pts for frame in sink.frames] == [Fraction(1)]
    assert centre(sink.frames[0].image, Grid.of(2), 1) == colour(2)


def test_the_last_frame_of_a_recording_is_seen_before_it_is_said_to_have_ended(said: list[tuple[str, ...]]) -> None:
    wall, sink = recorded(2)
    put(wall, 0, plain(77, Fraction(0)))
    wall.ended(0, None)
    said.clear()
    for index in range(20):
        put(wall, 1, plain(index, Fraction(index, 10)))
    wall.close(Outcome.COMPLETE)
    assert said == [("ended",)]
    told = [centre(frame.image, Grid.of(2), 0) != colour(77) for frame in sink.frames]
    assert told == [False] * 5 + [True] * 15


def test_stills_side_by_side_are_a_still_that_is_there_before_the_run_ends() -> None:
    wall, sink = recorded(2)
    for feed, name in enumerate(("a.jpg", "b.jpg")):
        put(wall, feed, plain(100 + feed, name=name))
        wall.ended(feed, None)
    assert [frame.is_still for frame in sink.frames] == [True]
    assert [centre(sink.frames[0].image, Grid.of(2), feed) for feed in range(2)] == [colour(100), colour(101)]
    wall.close(Outcome.COMPLETE)
    assert len(sink.frames) == 1


def test_a_still_beside_a_film_makes_no_still() -> None:
    wall, sink = recorded(2)
    put(wall, 0, plain(100, name="a.jpg"))
    wall.ended(0, None)
    for index in range(3):
        put(wall, 1, plain(index, Fraction(index, 25)))
    assert len(sink.frames) == 2
    wall.ended(1, None)
    assert [frame.is_still for frame in sink.frames] == [False] * 3


@pytest.mark.parametrize("kind", ["video", "images"])
def test_an_only_recording_is_passed_on_frame_by_frame(kind: str) -> None:
    sink = ListSink()
    wall = Tiles(["a"], [sink], kind="images" if kind == "images" else "video", start=Fraction(2))
    wall.open()
    shown = [plain(i, Fraction(i, 100), name="a.png" if kind == "images" else None) for i in range(5)]
    for frame in shown:
        wall.show(0, frame)
    wall.ended(0, None)
    wall.tick()
    wall.close(Outcome.COMPLETE)
    assert sink.info is not None
    assert (sink.info.kind, sink.info.start) == (kind, 2)
    assert [(f.pts, f.name) for f in sink.frames] == [(f.pts, f.name) for f in shown]
    assert all(a.image is b.image for a, b in zip(sink.frames, shown, strict=True))


@pytest.mark.parametrize("kind", ["video", "images"])
def test_what_turns_out_not_to_be_live_is_passed_on_as_it_is(kind: str) -> None:
    inner = Moody()
    about = SourceInfo("a.mp4", WIDE, "images" if kind == "images" else "video", frame_rate=Fraction(25))
    sink = WallIfLive(inner, "a", None)
    sink.open(about)
    shown = [plain(i, Fraction(i, 25)) for i in range(3)]
    for frame in shown:
        sink.write(frame, NOTHING)
    assert inner.info is about
    assert all(a is b for a, b in zip(inner.frames, shown, strict=True))
    inner.is_holding = inner.stops = True
    assert sink.holds()
    assert sink.wants_stop()
    sink.close(Outcome.STOPPED)
    assert len(inner.frames) == 3
    assert inner.outcome is Outcome.STOPPED


def test_what_turns_out_to_be_live_tells_of_outages_and_is_held_up_by_nothing(said: list[tuple[str, ...]]) -> None:
    inner, away = Moody(), Availability()
    sink = WallIfLive(inner, "a", away)
    sink.open(SourceInfo("http://cam/live.flv", WIDE, "live"))
    picture = plain(200)
    sink.write(picture, NOTHING)
    assert inner.frames[-1].image is picture.image
    assert inner.info is not None
    assert {inner.info.size, *(frame.size for frame in inner.frames)} == {WIDE}
    inner.is_holding = True
    assert not sink.holds()
    away.lost(Reason.ENDED)
    assert not sink.wants_stop()
    assert said[-1][0] == "no picture: ended"
    assert inner.frames[-1].image.max() < 90
    inner.stops = True
    assert sink.wants_stop()
    sink.close(Outcome.STOPPED)
    assert inner.outcome is Outcome.STOPPED


class Moody(ListSink):
    """A sink that fails, stops and holds as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = self.stops = self.is_holding = self.fails_to_close = False
        self.asked = 0

    def write(self, frame: Frame, detections: Detections) -> None:
        if self.fails:
            raise OutputError("the disk is full")
        super().write(frame, detections)

    def wants_stop(self) -> bool:
        self.asked += 1
        return self.stops

    def holds(self) -> bool:
        return self.is_holding

    def close(self, outcome: Outcome) -> None:
        super().close(outcome)
        if self.fails_to_close:
            raise OutputError("cannot close")


def test_every_sink_is_asked_and_any_may_stop_the_run() -> None:
    first, second = Moody(), Moody()
    wall = Tiles(["a", "b"], [first, second], clock=Clock())
    wall.open()
    assert not wall.wants_stop()
    first.stops = True
    assert wall.wants_stop()
    assert (first.asked, second.asked) == (2, 2)


def test_sinks_are_told_of_the_end_once_all_recordings_have_ended_and_the_last_picture_was_written() -> None:
    class Told(Moody):
        written: int | None = None

        def ended(self) -> None:
            self.written = len(self.frames)

    sink = Told()
    wall, _ = recorded(2, sink)
    for feed in (0, 1):
        put(wall, feed, plain(100))
    wall.ended(0, None)
    assert sink.written is None
    wall.ended(1, None)
    assert sink.written == 1


@pytest.mark.parametrize(("kind", "held"), [("video", True), ("live", False)])
def test_recordings_wait_for_a_window_and_live_feeds_do_not(kind: str, held: bool) -> None:
    sink = Moody()
    wall = Tiles(["a", "b"], [sink], kind="live" if kind == "live" else "video", clock=Clock())
    assert not wall.holds()
    sink.is_holding = True
    assert wall.holds() is held


def test_a_failing_sink_is_heard_of_at_once_and_the_others_are_closed() -> None:
    clock, first, second = Clock(), Moody(), Moody()
    wall = Tiles(["a", "b"], [first, second], clock=clock)
    wall.open()
    first.fails = True
    clock.now += 1
    with pytest.raises(OutputError, match="disk is full"):
        put(wall, 0, plain(1))
    first.fails_to_close = True
    clock.now += 1
    wall._tiles[0].put(plain(2))
    with pytest.raises(OutputError, match="cannot close"):
        wall.close(Outcome.FAILED)
    assert (first.outcome, second.outcome) == (Outcome.FAILED, Outcome.FAILED)


def test_a_sink_that_cannot_be_finished_takes_nothing_from_the_others() -> None:
    first, second = Moody(), Moody()
    wall = Tiles(["a", "b"], [first, second], clock=Clock())
    wall.open()
    first.fails_to_close = True
    with pytest.raises(OutputError, match="cannot close"):
        wall.close(Outcome.COMPLETE)
    assert (first.outcome, second.outcome) == (Outcome.COMPLETE, Outcome.COMPLETE)


def test_a_last_picture_that_cannot_be_written_makes_the_run_a_failure() -> None:
    clock, first, second = Clock(), Moody(), Moody()
    wall = Tiles(["a", "b"], [first, second], clock=clock)
    wall.open()
    put(wall, 0, plain(1))
    first.fails = True
    with pytest.raises(OutputError, match="disk is full"):
        wall.close(Outcome.STOPPED)
    assert (first.outcome, second.outcome) == (Outcome.FAILED, Outcome.FAILED)


def test_a_wall_that_was_never_opened_closes_its_sinks() -> None:
    sink = ListSink()
    Tiles(["a", "b"], [sink]).close(Outcome.FAILED)
    assert sink.outcome is Outcome.FAILED
    assert sink.frames == []
