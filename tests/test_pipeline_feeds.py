"""Several sources in one pipeline: shared batches, failures and ends that stay with their source, a wall."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from stream_seg.detections import Detections
from stream_seg.errors import SourceError, UsageError
from stream_seg.frame import Frame, Image
from stream_seg.metrics import Metrics, told_apart
from stream_seg.pipeline import Feed, Pipeline
from stream_seg.protocols import Outcome, Segmenter, Sink, Wall
from stream_seg.region import Region
from stream_seg.render import Renderer
from stream_seg.segmenters import FunctionSegmenter
from stream_seg.sinks import ListSink, open_sink
from stream_seg.steady import Steady
from stream_seg.tiles import Tiles
from tests.test_pipeline import NAMES, Boom, Counting, Kept, Numbers, Stuck, run_in_time, same


def feed(name: str, source: Numbers, *sinks: Kept) -> Feed:
    return Feed(source, sinks, same, name)


class Gate:
    """Lets a source go on to a frame only once something else has happened."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.open = threading.Event()

    def __call__(self, index: int) -> None:
        if index == self.at:
            self.open.wait(5)


class Opening(Kept):
    """A sink that opens a gate once it is closed."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate

    def close(self, outcome: Outcome) -> None:
        super().close(outcome)
        self.gate.open.set()


class Shown(Wall):
    """A wall that notes what it is told."""

    def __init__(self, fail_in: str = "", stop_after: int | None = None) -> None:
        self.fail_in, self.stop_after = fail_in, stop_after
        self.tiles: list[tuple[int, int]] = []
        self.ends: list[tuple[int, str | None]] = []
        self.calls: list[str] = []
        self.outcome: Outcome | None = None

    def _note(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fail_in:
            raise Boom(name)

    def open(self) -> None:
        self._note("open")

    def draw(self, feed: int, frame: Frame, detections: Detections, picture: Frame | None) -> Frame:
        self._note("draw")
        return frame if picture is None else picture

    def show(self, feed: int, tile: Frame) -> None:
        self._note("show")
        self.tiles.append((feed, tile.index))

    def ended(self, feed: int, error: BaseException | None) -> None:
        self.ends.append((feed, None if error is None else str(error)))

    def tick(self) -> float:
        return 0.01

    def wants_stop(self) -> bool:
        return self.stop_after is not None and len(self.tiles) >= self.stop_after

    def holds(self) -> bool:
        return False

    def close(self, outcome: Outcome) -> None:
        self.outcome = outcome


def test_every_recording_is_delivered_whole_to_its_own_sinks() -> None:
    sinks = [Kept() for _ in range(3)]
    feeds = [feed(f"f{n}", Numbers(20 + n), sink) for n, sink in enumerate(sinks)]
    pipeline = Pipeline(feeds, Counting(), batch_size=4)
    run_in_time(pipeline)
    assert [sink.indices for sink in sinks] == [list(range(20 + n)) for n in range(3)]
    assert [sink.outcomes for sink in sinks] == [[Outcome.COMPLETE]] * 3
    summary = pipeline.metrics.summary()
    assert [own.delivered for own in summary.feeds] == [20, 21, 22]
    assert summary.delivered == 63


class Late(Counting):
    """Is ready only when `ready` is set."""

    def __init__(self, ready: threading.Event) -> None:
        super().__init__()
        self.ready = ready

    def warm_up(self, size: tuple[int, int], max_batch: int) -> None:
        assert self.ready.wait(5)


def test_what_is_shown_of_a_source_is_up_to_its_own_follower_and_is_what_counts() -> None:
    class Every:
        """Shows what is found in every second of its frames."""

        def __init__(self) -> None:
            self.indices: list[int] = []

        def __call__(self, frame: Frame, found: Detections) -> Detections:
            self.indices.append(frame.index)
            return found if frame.index % 2 else found[:0]

    thing = Detections(
        np.array([[0, 0, 2, 2]], np.float32),
        np.ones(1, np.float32),
        np.zeros(1, np.int64),
        np.ones((1, 1, 1), np.float32),
        NAMES,
    )
    follower, sinks = Every(), [ListSink(), ListSink()]
    feeds = [Feed(Numbers(20), [sinks[0]], same, "a", follower=follower), Feed(Numbers(7), [sinks[1]], same, "b")]
    pipeline = Pipeline(feeds, FunctionSegmenter(lambda image: thing, NAMES, max_batch=4))
    run_in_time(pipeline)
    assert follower.indices == list(range(20))
    assert [len(shown) for shown in sinks[0].detections] == [0, 1] * 10
    assert [len(shown) for shown in sinks[1].detections] == [1] * 7
    assert pipeline.metrics.summary().objects == 17


@pytest.mark.parametrize("others", [0, 1])
def test_frames_of_a_camera_that_were_dropped_do_not_count_as_wanted(others: int) -> None:
    ready = threading.Event()
    camera = Numbers(None, live=True, ready=lambda index: ready.set() if index > 20 else None)
    film, sinks = Numbers(50), [Kept(), Kept()]
    feeds = [Feed(camera, [sinks[0]], same, "camera", 5), Feed(film, [sinks[1]], same, "film", 30)][: 1 + others]
    pipeline = Pipeline(feeds, Late(ready))
    run_in_time(pipeline)
    assert len(sinks[0].indices) == 5
    assert sinks[0].outcomes == [Outcome.COMPLETE]
    assert sinks[1].indices == list(range(30 * others))
    assert camera.asked_to_end
    assert not pipeline.stopped
    own = pipeline.metrics.summary().feeds[0]
    assert own.captured == own.delivered + sum(own.dropped.values()) > 20
    assert [info.frame_count for info in pipeline.infos if info is not None] == [5, 30][: 1 + others]


def test_a_camera_that_fails_when_there_is_enough_of_it_is_no_failure() -> None:
    def fail_once_closed(index: int) -> None:
        if index == 1:
            deadline = time.monotonic() + 5
            while not camera.asked_to_end and time.monotonic() < deadline:
                time.sleep(0.001)
            raise Boom("closed")

    camera = Numbers(None, live=True, ready=fail_once_closed)
    recording = Numbers(3, ready=lambda _: _until(lambda: camera.asked_to_end))  # soon, while others go on
    pipeline = Pipeline([Feed(camera, [], same, "camera", 1), feed("film", recording, film := Kept())], Counting())
    run_in_time(pipeline)
    assert pipeline.failures == {}
    assert film.indices == [0, 1, 2]


def test_less_than_a_frame_cannot_be_wanted() -> None:
    with pytest.raises(UsageError, match="at least 1, got 0"):
        Feed(Numbers(3), max_frames=0)
    with pytest.raises(UsageError, match=r"whole number of at least 1, got 2\.5"):
        Feed(Numbers(3), max_frames=2.5)  # type: ignore[arg-type]


def test_a_number_is_no_name_of_a_feed() -> None:
    with pytest.raises(UsageError, match="the name of a Feed is a str, not 0"):
        Feed(Numbers(3), name=0)  # type: ignore[arg-type]


class Looked(Kept):
    """Holds for three looks after each frame, as a window does that shows an image; notes what is `closed` then."""

    def __init__(self, closed: Callable[[], int]) -> None:
        super().__init__()
        self.closed = closed
        self.looks: list[int] = []

    def holds(self) -> bool:
        if self.indices:
            self.looks.append(self.closed())
        return 0 < len(self.looks) <= 3


def test_the_last_picture_of_recordings_side_by_side_can_be_looked_at_while_their_files_are_finished() -> None:
    files = [Kept(), Kept()]
    window = Looked(lambda: sum(len(file.outcomes) for file in files))
    feeds = [feed(f"photo {n}", Numbers(1), file) for n, file in enumerate(files)]
    run_in_time(Pipeline(feeds, Counting(), wall=Tiles(["a", "b"], [window], kind="video")))
    assert window.indices == [0]
    assert window.looks == [2] * 4
    assert window.outcomes == [Outcome.COMPLETE]


def test_a_wall_has_its_turn_while_a_file_holds() -> None:
    class Ticking(Shown):
        ticks = 0

        def tick(self) -> float:
            self.ticks += 1
            return super().tick()

    class Waiting(Kept):
        looks = 0

        def holds(self) -> bool:
            self.looks += 1
            return self.looks <= 100

    wall, file = Ticking(), Waiting()
    run_in_time(Pipeline([feed("a", Numbers(1), file)], Counting(), wall=wall))
    assert file.indices == [0]
    assert wall.ticks > 100


def test_frames_of_different_cameras_share_a_batch() -> None:
    cameras = [Numbers(None, live=True, ready=lambda index: time.sleep(0.002)) for _ in range(4)]
    segmenter = Counting(before=lambda call: time.sleep(0.01))
    segmenter.max_batch = 8
    sinks = [Kept() for _ in cameras]
    sinks[0].stop_at = 10
    pipeline = Pipeline([feed(f"c{n}", c, s) for n, (c, s) in enumerate(zip(cameras, sinks, strict=True))], segmenter)
    run_in_time(pipeline)
    assert max(segmenter.batches) == 4
    assert all(sink.indices == sorted(set(sink.indices)) for sink in sinks)


def test_a_camera_that_comes_after_a_recording_has_begun_meets_no_large_batches() -> None:
    begun = threading.Event()

    class Late(Numbers):
        def __enter__(self) -> Self:
            begun.wait(5)
            return self

    segmenter = Counting(before=lambda call: (begun.set() if call > 3 else None, time.sleep(0.005)))
    segmenter.max_batch = 8
    camera = Kept(stop_at=20)
    late = Late(None, live=True, ready=lambda index: time.sleep(0.001))
    run_in_time(Pipeline([feed("film", Numbers(None), Kept()), feed("late", late, camera)], segmenter))
    assert max(segmenter.batches) > 2
    assert max(segmenter.batches[-10:]) <= 2


def test_many_recordings_keep_hardly_more_frames_waiting_than_one_does() -> None:
    sinks = [Kept(stop_at=3), *(Kept() for _ in range(11))]
    pipeline = Pipeline(
        [feed(f"f{number}", Numbers(None), sink) for number, sink in enumerate(sinks)],
        Counting(before=lambda call: time.sleep(0.01)),
    )
    ahead = []
    stop = pipeline.stop
    pipeline.stop = lambda: (ahead.append(pipeline.metrics.captured - pipeline.metrics.delivered), stop())  # type: ignore[method-assign]
    run_in_time(pipeline)
    assert ahead[0] <= 12 + 12  # one waits of each; the others are between two stages, or in one


def test_no_camera_waits_for_a_dead_one_and_all_get_their_share() -> None:
    dead = Numbers(None, live=True)
    dead.ready = lambda index: _until(lambda: dead.asked_to_end)
    cameras = [Numbers(None, live=True, ready=lambda index: time.sleep(0.001)) for _ in range(3)]
    sinks = [Kept() for _ in range(4)]
    sinks[3].stop_at = 30
    feeds = [feed(f"c{n}", c, s) for n, (c, s) in enumerate(zip([dead, *cameras], sinks, strict=True))]
    run_in_time(Pipeline(feeds, Counting(before=lambda call: time.sleep(0.002))))
    assert sinks[0].indices == []
    assert min(len(sink.indices) for sink in sinks[1:]) >= 15
    assert [sink.outcomes for sink in sinks] == [[Outcome.STOPPED]] * 4


def fail_alone(bad: Numbers, at: int, message: str, *, live: bool, batch_size: int = 1) -> None:
    """Run a source that fails at a frame, and says so, beside one that goes on."""
    gate = Gate(10)
    failing, going = Opening(gate), Kept()
    feeds = [feed("bad", bad, failing), feed("good", Numbers(20, ready=gate), going)]
    pipeline = Pipeline(feeds, Counting(), batch_size=batch_size)
    run_in_time(pipeline)
    assert going.indices == list(range(20))
    assert going.outcomes == [Outcome.COMPLETE]
    assert failing.outcomes == [Outcome.STOPPED if live else Outcome.FAILED]  # closed while the other waited
    assert {name: str(error) for name, error in pipeline.failures.items()} == {"bad": message}
    if not live:
        assert failing.indices == list(range(at))


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("at", [0, 5])
def test_a_source_that_fails_does_not_stop_the_others(live: bool, at: int) -> None:
    fail_alone(Numbers(None, live=live, fail_at=at), at, "source", live=live)


@pytest.mark.parametrize("first", [True, False])
def test_a_result_that_cannot_be_finished_takes_nothing_from_other_sources_when_all_are_stopped(first: bool) -> None:
    bad, good = Kept(fail_in="close"), Kept(stop_at=10)
    feeds = [feed("bad", Numbers(None), bad), feed("good", Numbers(None), good)]
    with pytest.raises(Boom, match="close"):
        run_in_time(Pipeline(feeds if first else feeds[::-1], Counting()))
    assert good.outcomes == [Outcome.STOPPED]


def test_feeds_without_a_name_are_told_apart() -> None:
    feeds = [Feed(Numbers(20, fail_at=at), [Kept()]) for at in (2, 3, 20)]
    pipeline = Pipeline(feeds, Counting())
    run_in_time(pipeline)
    assert sorted(pipeline.failures) == ["source", "source-2"]
    assert [feed.name for feed in pipeline.metrics.feeds] == ["source", "source-2", "source-3"]
    assert told_apart(["a", "A", "a-2", "a"]) == ["a", "A-2", "a-2-2", "a-3"]


def test_a_source_that_ends_because_the_run_has_failed_is_not_said_to_have_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Refusing(Numbers):
        def __enter__(self) -> Self:
            _until(lambda: self.asked_to_end)
            raise Boom("was closed before it answered")

    feeds = [feed("good", Numbers(None), Kept(fail_in="write", fail_at=3)), feed("slow", Refusing(None), Kept())]
    pipeline = Pipeline(feeds, Counting())
    with pytest.raises(Boom, match="write"):
        run_in_time(pipeline)
    assert not pipeline.failures
    assert not caplog.records


def test_a_result_that_cannot_be_finished_ends_the_run_and_other_sources_are_stopped() -> None:
    bad, good = Kept(fail_in="close"), Kept()
    feeds = [feed("bad", Numbers(3), bad), feed("good", Numbers(None), good)]
    with pytest.raises(Boom, match="close"):
        run_in_time(Pipeline(feeds, Counting()))
    assert good.outcomes == [Outcome.STOPPED]


class Unconvertible(Numbers):
    """A source the pixels of whose frames cannot be made from `bad_from` on; it goes on until it is closed."""

    bad_from = 5

    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            if self.asked_to_end:
                return
            yield dataclasses.replace(frame, pixels=partial(self._pixels, frame))

    def _pixels(self, frame: Frame) -> Image:
        if frame.index >= self.bad_from:
            raise Boom("pixels")
        return frame.image


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("at", [0, 5])
def test_a_frame_whose_pixels_cannot_be_made_ends_its_source_alone(
    at: int, live: bool, batch_size: int, caplog: pytest.LogCaptureFixture
) -> None:
    bad = Unconvertible(None, live=live)
    bad.bad_from = at
    fail_alone(bad, at, "pixels", live=live, batch_size=batch_size)
    assert caplog.text.count("bad failed, the others go on: pixels") == 1
    assert bad.closed == 1


def test_the_pixels_of_an_only_source_that_cannot_be_made_end_the_run() -> None:
    sink = Kept()
    with pytest.raises(Boom, match="pixels"):
        run_in_time(Pipeline(Unconvertible(None), Counting(), sinks=[sink], renderer=same))
    assert sink.outcomes == [Outcome.FAILED]


def test_a_source_that_ends_has_its_file_finished_while_the_others_go_on() -> None:
    gate = Gate(10)
    short, long = Opening(gate), Kept()
    run_in_time(Pipeline([feed("a", Numbers(3), short), feed("b", Numbers(20, ready=gate), long)], Counting()))
    assert gate.open.is_set()
    assert short.indices == [0, 1, 2]
    assert short.outcomes == long.outcomes == [Outcome.COMPLETE]
    assert long.indices == list(range(20))


def test_a_source_that_cannot_be_closed_does_not_end_the_others() -> None:
    gate = Gate(10)
    short, long = Opening(gate), Kept()
    with pytest.raises(Boom, match="close"):
        run_in_time(Pipeline([feed("a", Stuck(3), short), feed("b", Numbers(20, ready=gate), long)], Counting()))
    assert short.outcomes == long.outcomes == [Outcome.COMPLETE]
    assert long.indices == list(range(20))


def test_when_all_sources_fail_the_first_ones_error_is_raised() -> None:
    feeds = [feed(f"f{n}", Numbers(None, fail_at=n), Kept()) for n in range(3)]
    with pytest.raises(Boom, match="source"):
        run_in_time(Pipeline(feeds, Counting()))


def test_a_failing_sink_of_one_source_stops_all() -> None:
    good = Kept()
    feeds = [feed("a", Numbers(500), Kept(fail_in="write", fail_at=3)), feed("b", Numbers(500), good)]
    with pytest.raises(Boom, match="write"):
        run_in_time(Pipeline(feeds, Counting()))
    assert good.outcomes == [Outcome.FAILED]


def test_a_wall_gets_the_frames_of_all_and_hears_of_their_ends() -> None:
    wall = Shown()
    feeds = [feed("a", Numbers(5)), feed("b", Numbers(8, fail_at=6, ready=lambda index: time.sleep(0.002)))]
    run_in_time(Pipeline(feeds, Counting(), wall=wall))
    assert wall.calls[0] == "open"
    assert wall.tiles == [*((number, n) for n in range(5) for number in (0, 1)), (1, 5)]  # side by side
    assert sorted(wall.ends) == [(0, None), (1, "source")]
    assert wall.outcome is Outcome.COMPLETE


def test_a_wall_is_kept_where_the_last_source_is_refused_by_its_follower() -> None:
    def refuse(frame: Frame, found: Detections) -> Detections:
        raise UsageError("too small")

    wall = Shown()
    first = feed("a", Numbers(8, fail_at=6))
    late = Numbers(None, live=True, ready=lambda _: _until(lambda: bool(wall.ends)))
    pipeline = Pipeline([first, Feed(late, name="b", follower=refuse)], Counting(), wall=wall)
    with pytest.raises(UsageError, match=r"^b: too small$"):
        run_in_time(pipeline)
    assert sorted(wall.tiles) == [(0, n) for n in range(6)]
    assert wall.outcome is Outcome.STOPPED


def test_a_source_that_its_follower_refuses_is_told_to_end_and_takes_no_room_from_others() -> None:
    segmenter, kept, nothing = Counting(), Kept(), Kept()
    asked: list[bool] = []

    def ready(index: int) -> None:
        _until(lambda: len(segmenter.batches) >= index and (index < 2 or refused.asked_to_end))
        asked.append(refused.asked_to_end)

    refused = Numbers(3, live=True, ready=ready)
    region = Region([(50, 0), (90, 9)])  # which says so of the first frame alone
    other = Numbers(3, live=True, ready=lambda _: _until(lambda: refused.closed > 0))
    pipeline = Pipeline([Feed(refused, [nothing], same, "a", follower=region), feed("b", other, kept)], segmenter)
    run_in_time(pipeline)
    assert list(pipeline.failures) == ["a"]
    assert (asked[-1], nothing.indices, kept.indices[-1]) == (True, [], 2)


def test_a_wall_is_open_before_any_source_is_and_can_end_the_run() -> None:
    camera = Numbers(None, live=True)
    wall = Shown()
    camera.ready = lambda index: _until(lambda: camera.asked_to_end)
    wall.wants_stop = lambda: bool(wall.calls)  # type: ignore[method-assign]
    pipeline = Pipeline(
        [feed("a", camera), feed("b", Numbers(None, live=True, ready=camera.ready))], Counting(), wall=wall
    )
    run_in_time(pipeline)
    assert wall.calls[0] == "open"
    assert wall.outcome is Outcome.STOPPED


@pytest.mark.parametrize("where", ["open", "draw", "show"])
def test_a_failing_wall_stops_the_run(where: str) -> None:
    with pytest.raises(Boom, match=where):
        run_in_time(Pipeline([feed("a", Numbers(50)), feed("b", Numbers(50))], Counting(), wall=Shown(where)))


def test_a_feed_without_sinks_is_not_drawn_for_any() -> None:
    drawn = itertools.count()

    def render(frame: Frame, detections: Detections) -> Frame:
        next(drawn)
        return frame

    feeds = [Feed(Numbers(4), [], render, "tile only"), Feed(Numbers(4), [Kept()], render, "both")]
    run_in_time(Pipeline(feeds, Counting(), wall=Shown()))
    assert next(drawn) == 4


def test_a_live_frame_is_delivered_before_a_third_is_taken() -> None:
    """With a slow sink frames are replaced in front of the model, not piled up behind it."""
    taken: list[int] = []
    ahead: list[int] = []

    class Slow(Kept):
        def write(self, frame: Frame, detections: Detections) -> None:
            time.sleep(0.01)
            ahead.append(len(taken) - len(self.indices))
            super().write(frame, detections)

    sink = Slow(stop_at=15)
    segmenter = Counting(before=taken.append)
    run_in_time(
        Pipeline(Numbers(None, live=True, ready=lambda i: time.sleep(0.001)), segmenter, sinks=[sink], renderer=same)
    )
    assert max(ahead) <= 2


def test_frames_older_than_allowed_are_dropped_and_counted() -> None:
    class Old(Numbers):
        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                age = 10.0 if frame.index < 20 else 0.0
                yield Frame(frame.image, frame.index, frame.pts, frame.captured_at - age)

    sink = Kept()
    pipeline = Pipeline(Old(40, live=True), Counting(), sinks=[sink], renderer=same, max_age=5.0)
    run_in_time(pipeline)
    assert min(sink.indices) >= 20
    dropped = pipeline.metrics.feeds[0].dropped
    assert pipeline.metrics.captured == 40 == pipeline.metrics.delivered + sum(dropped.values())


def test_sinks_for_no_feed_in_particular_are_refused() -> None:
    with pytest.raises(UsageError, match="each Feed its own"):
        Pipeline([feed("a", Numbers(1))], Counting(), sinks=[Kept()])
    with pytest.raises(UsageError, match="each Feed its own"):
        Pipeline([feed("a", Numbers(1))], Counting(), follower=Steady())


def test_a_pipeline_without_sources_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one source"):
        Pipeline([], Counting())


def test_several_sources_without_feeds_are_refused() -> None:
    with pytest.raises(UsageError, match="given as Feeds"):
        Pipeline([Numbers(1), Numbers(1)], Counting())  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros((4, 6, 3), np.uint8), r"not images: stream_seg\.sources\.ListSource\(\[image, \.\.\.\]\) is one"),
        ("clip.mp4", r"not their names: open_source\('clip\.mp4'\) opens one"),
        (Path("clip.mp4"), r"open_source\('clip\.mp4'\) opens one"),
        (0, r"open_source\(0\)"),
        (None, r"takes a source, as open_source opens it, or a list of Feeds, got NoneType"),
        ((Feed(Numbers(1)) for _ in range(2)), r"or a list of Feeds, got generator"),
    ],
)
def test_what_is_easily_taken_for_a_source_is_refused(given: object, words: str) -> None:
    for source in (given, [given, given], (given,)):
        for sinks in ([], [Kept()]):
            with pytest.raises(UsageError, match=words):
                Pipeline(source, Counting(), sinks=sinks)
    with pytest.raises(UsageError, match=words):
        Feed(given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("compact", r"not its name: load_segmenter\('compact'\) opens one"),
        (Path("model.onnx"), r"load_segmenter\('model\.onnx'\)"),
        (lambda images: [Detections.none(NAMES) for _ in images], r"FunctionSegmenter\(function, class_names\) makes"),
        (Numbers(1), r"as load_segmenter opens it, got Numbers"),
        (None, r"got NoneType"),
    ],
)
def test_what_is_easily_taken_for_a_segmenter_is_refused(given: Segmenter, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Pipeline(Numbers(1), given)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"follower": Steady}, r"a follower is called .*, got the class Steady: follower=Steady\(\) makes one of it$"),
        ({"renderer": Renderer}, r"a renderer is .*, got the class Renderer: renderer=Renderer\(\) makes one of it$"),
        ({"renderer": "masks"}, r"a renderer is called .*, got str: renderer=Renderer\('masks'\) draws a view$"),
        ({"follower": True}, r"a follower is called with a frame and its detections, got bool$"),
    ],
)
def test_what_is_easily_taken_for_a_follower_or_renderer_is_refused(parts: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Pipeline(Numbers(1), Counting(), **parts)
    with pytest.raises(UsageError, match=words):
        Feed(Numbers(1), **parts)


class Writing:
    """What has the one method that is thought of first."""

    def write(self, frame: Frame, found: Detections) -> None: ...


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Kept(), r"as a list, also an only one: sinks=\[sink\]"),
        ("out.mp4", r"not their names: open_sink\('out\.mp4'\) opens one"),
        ([Kept(), Path("out.mp4")], r"open_sink\('out\.mp4'\) opens one"),
        (None, r"as a list"),
        (
            [print],
            r"got builtin_function_or_method without open, write, ended, close, wants_stop, holds: one of your own",
        ),
        ([Kept], r"got the class Kept: one of your own is an object of a subclass of stream_seg\.protocols\.Sink"),
        ([Writing()], r"got Writing without open, ended, close, wants_stop, holds"),
    ],
)
def test_what_is_easily_taken_for_sinks_is_refused(given: Sequence[Sink], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Pipeline(Numbers(1), Counting(), sinks=given)


@pytest.mark.parametrize("wants_pictures", [False, True])
def test_a_function_that_forgets_to_return_what_it_shows_is_told_so(*, wants_pictures: bool) -> None:
    kept = Kept()
    kept.wants_pictures = wants_pictures
    words = "the Detections of one frame are needed, got NoneType"

    def forgetful(*_: object) -> Detections:
        return None  # type: ignore[return-value]

    turning = FunctionSegmenter(forgetful, NAMES)
    turning.shown_from = 0.5
    for segmenter, follower in ((Counting(), forgetful), (FunctionSegmenter(forgetful, NAMES), None), (turning, None)):
        pipeline = Pipeline(Numbers(1), segmenter, sinks=[kept], renderer=same, follower=follower)
        with pytest.raises(TypeError, match=words):
            run_in_time(pipeline)


def test_an_only_feed_is_in_a_list_and_no_source_is_of_two() -> None:
    with pytest.raises(UsageError, match=r"also an only one: Pipeline\(\[feed\], segmenter\)"):
        Pipeline(Feed(Numbers(1)), Counting())
    source = Numbers(1)
    with pytest.raises(UsageError, match="one was given to several: open it for each"):
        Pipeline([Feed(source), Feed(Numbers(1)), Feed(source)], Counting())


@pytest.mark.parametrize("name", ["a.mp4", "a.jsonl", "a.json", "a.csv", "a_%d.png", "a.png", "folder"])
@pytest.mark.parametrize("in_turns", [True, False])
def test_a_file_is_of_one_feed_alone(tmp_path: Path, name: str, in_turns: bool) -> None:
    sink = open_sink(tmp_path / name, overwrite=True)
    with pytest.raises(UsageError, match=f"that of .*{name} was given twice: open one for each"):
        Pipeline([Feed(Numbers(1), [sink]), Feed(Numbers(1), [sink])], Counting(), in_turns=in_turns)
    with pytest.raises(UsageError, match="was given twice"):
        Pipeline(Numbers(1), Counting(), sinks=[sink, sink])


def test_an_address_is_of_one_feed_alone() -> None:
    sink = open_sink("udp://127.0.0.1:5000")
    with pytest.raises(UsageError, match=r"^Publisher is opened once, by one Feed, and one was given twice"):
        Pipeline([Feed(Numbers(1), [sink]), Feed(Numbers(1), [sink])], Counting())


class Diary(ListSink):
    """A sink of the user's, which adds to a file that may be there."""

    path = Path("diary.txt")


@pytest.mark.parametrize("sink", [ListSink(), Diary()])
def test_a_sink_that_only_looks_may_hear_several_feeds(sink: ListSink) -> None:
    pipeline = Pipeline([Feed(Numbers(1), [sink]), Feed(Numbers(2), [sink])], Counting())
    run_in_time(pipeline)
    assert pipeline.metrics.delivered == 3


@pytest.mark.parametrize("given", [None, Detections.none(NAMES), np.zeros((1, 4))], ids=["none", "found", "array"])
def test_a_segmenter_that_returns_no_list_is_told_so(given: object) -> None:
    class Careless(Counting):
        def __call__(self, _images: Sequence[Image]) -> list[Detections]:
            return given  # type: ignore[return-value]

    with pytest.raises(TypeError, match=f"a list of Detections, one for each image, got {type(given).__name__}"):
        run_in_time(Pipeline(Numbers(5), Careless()))


@pytest.mark.parametrize("given", [None, np.zeros((2, 2, 3), np.uint8)], ids=["none", "image"])
def test_what_a_source_or_renderer_gives_instead_of_a_frame_ends_the_run(given: object) -> None:
    class Careless(Numbers):
        def __iter__(self) -> Iterator[Frame]:
            yield from itertools.islice(super().__iter__(), 2)
            yield given  # type: ignore[misc]

    def careless(_frame: Frame, _found: Detections) -> Frame:
        return given  # type: ignore[return-value]

    with pytest.raises(TypeError, match=f"a Frame is needed, got {type(given).__name__}"):
        run_in_time(Pipeline(Careless(5), Counting(), sinks=[Kept()]))
    with pytest.raises(TypeError, match=rf"returns a Frame, frame\.with_image\(image\), got {type(given).__name__}"):
        run_in_time(Pipeline(Numbers(5), Counting(), sinks=[Kept()], renderer=careless))


def test_where_no_source_can_be_opened_the_last_to_fail_is_raised_and_the_others_are_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Missing(Numbers):
        def __init__(self, name: str) -> None:
            super().__init__(1)
            self.name = name

        def __enter__(self) -> Self:
            raise SourceError(f"no camera {self.name}")

    feeds: Sequence[Feed] = [feed(name, Missing(name)) for name in "abc"]
    with pytest.raises(SourceError, match="no camera c"):
        run_in_time(Pipeline(feeds, Counting(), in_turns=True))  # so that c is the last
    assert [message.rpartition(": ")[2] for message in caplog.messages] == ["no camera a", "no camera b"]
    with pytest.raises(SourceError, match=r"no camera [abc]"):
        run_in_time(Pipeline(feeds, Counting()))


def _until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.001)


class Begun(Numbers):
    """A recording that counts those of its kind that are open."""

    def __init__(self, count: int, open_: list[int], fail_at: int | None = None) -> None:
        super().__init__(count, fail_at=fail_at)
        self.open = open_

    def __enter__(self) -> Self:
        self.open.append(self.open[-1] + 1)
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.open.append(self.open[-1] - 1)


def test_recordings_in_turns_are_read_one_after_the_other_and_all_of_them() -> None:
    begun, sinks = [0], [Kept() for _ in range(9)]
    feeds = [feed(f"f{n}", Begun(5 + n, begun, fail_at=2 if n == 4 else None), sink) for n, sink in enumerate(sinks)]
    pipeline = Pipeline(feeds, Counting(), in_turns=True)
    run_in_time(pipeline)
    assert begun == [0, *[1, 0] * 9]
    assert [len(sink.indices) for sink in sinks] == [5, 6, 7, 8, 2, 10, 11, 12, 13]
    assert [sink.outcomes for sink in sinks] == [[Outcome.FAILED if n == 4 else Outcome.COMPLETE] for n in range(9)]
    assert list(pipeline.failures) == ["f4"]


def test_what_is_stopped_in_turns_is_no_whole_result_and_the_rest_is_not_begun() -> None:
    begun, sinks = [0], [Kept(), Kept(stop_at=3), Kept()]
    endless = Begun(10**6, begun)
    feeds = [feed(f"f{n}", one, sinks[n]) for n, one in enumerate([Begun(4, begun), endless, Begun(4, begun)])]
    pipeline = Pipeline(feeds, Counting(), in_turns=True)
    run_in_time(pipeline)
    assert [sink.outcomes for sink in sinks] == [[Outcome.COMPLETE], [Outcome.FAILED], [Outcome.FAILED]]
    assert [info is not None for info in pipeline.infos] == [True, True, False]
    assert begun == [0, 1, 0, 1, 0]
    assert pipeline.stopped
    assert not pipeline.failures


def test_what_is_interrupted_in_turns_with_its_last_frames_on_the_way_is_no_whole_result() -> None:
    class Interrupted(Kept):
        def write(self, frame: Frame, detections: Detections) -> None:
            super().write(frame, detections)
            if frame.index == 1:
                assert captured.wait(5)
                raise KeyboardInterrupt

    captured, sink = threading.Event(), Interrupted()
    next_one = Numbers(9, ready=lambda index: captured.set())  # the one before is captured by then
    with pytest.raises(KeyboardInterrupt):
        Pipeline([feed("a", Numbers(4), sink), feed("b", next_one)], Counting(), in_turns=True).run()
    assert sink.indices == [0, 1]
    assert sink.outcomes == [Outcome.FAILED]


def test_frames_of_many_short_recordings_in_turns_do_not_pile_up() -> None:
    begun = [0]
    order: list[str] = []

    class Noting(Kept):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def write(self, frame: Frame, detections: Detections) -> None:
            order.append(self.name)

    started = threading.Event()
    most: list[int] = []

    def wait(call: int) -> None:
        if call == 0:
            started.wait(0.2)  # meanwhile the capturing thread comes as far as it may
            most.append(len(begun) // 2)

    feeds = [feed(f"f{n:02}", Begun(2, begun), Noting(f"f{n:02}")) for n in range(40)]
    run_in_time(Pipeline(feeds, Counting(wait), in_turns=True))
    assert most[0] < 10
    assert order == sorted(order)
    assert len(order) == 80


def test_of_a_recording_that_is_done_the_pipeline_keeps_no_picture() -> None:
    kept = weakref.WeakSet[Steady]()
    most: list[int] = []

    def noting(call: int) -> None:
        if call % 40 == 39:  # those before it are through by then
            gc.collect()
            most.append(len(kept))

    def one(name: str) -> Feed:
        follower = Steady()
        kept.add(follower)
        return Feed(Numbers(40), name=name, follower=follower)

    pipeline = Pipeline([one(f"f{n}") for n in range(3)], Counting(noting), in_turns=True)
    run_in_time(pipeline)
    assert most == [3, 2, 1]


def test_metrics_have_a_name_for_each_source() -> None:
    with pytest.raises(UsageError, match="metrics need a name for each of 2 sources, got 1"):
        Pipeline([feed("a", Numbers(1)), feed("b", Numbers(1))], Counting(), metrics=Metrics())


def test_what_a_wall_shows_side_by_side_cannot_come_in_turns() -> None:
    with pytest.raises(UsageError, match="in_turns is for sources without one"):
        Pipeline([feed("a", Numbers(1))], Counting(), wall=Shown(), in_turns=True)
