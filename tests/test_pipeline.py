"""The pipeline: order, drops, batches, and the failure matrix (every stage, early and late, file and live)."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import math
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Self

import numpy as np
import pytest

from stream_seg import pipeline as pipeline_module
from stream_seg.cli.signals import ending_signals
from stream_seg.detections import Detections
from stream_seg.errors import UsageError
from stream_seg.frame import Frame, Image, SourceInfo
from stream_seg.pipeline import Feed, Pipeline
from stream_seg.protocols import Outcome, Sink

NAMES = ("thing",)
LIMIT = 2.0
"""Seconds within which a failure must reach the caller."""


class Boom(Exception):
    pass


class Numbers:
    """A source of 2x2 frames with a known index; endless where `count` is None."""

    def __init__(
        self,
        count: int | None,
        *,
        live: bool = False,
        fail_at: int | None = None,
        ready: Callable[[int], object] = lambda index: None,
    ) -> None:
        self.count, self.fail_at, self.ready = count, fail_at, ready
        self.closed = 0
        self.asked_to_end = False
        self.info = SourceInfo("numbers", (2, 2), "live" if live else "video")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed += 1

    def close(self) -> None:
        self.asked_to_end = True

    def __iter__(self) -> Iterator[Frame]:
        for index in itertools.count() if self.count is None else range(self.count):
            if index == self.fail_at:
                raise Boom("source")
            self.ready(index)
            image = np.full((2, 2, 3), index % 256, np.uint8)
            yield Frame(image, index, Fraction(index, 30), time.monotonic())


class Stuck(Numbers):
    """A source that cannot be closed."""

    def close(self) -> None:
        raise Boom("close")


class Counting:
    """A segmenter that finds nothing and remembers the size of each batch."""

    class_names = NAMES
    max_batch = 1

    def __init__(self, before: Callable[[int], object] = lambda call: None, lose: int = 0) -> None:
        self.before, self.lose = before, lose
        self.batches: list[int] = []

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        self.before(len(self.batches))
        self.batches.append(len(images))
        return [Detections.none(NAMES)] * (len(images) - self.lose)


class Kept(Sink):
    """A sink that keeps indices and fails where it is told to."""

    def __init__(self, fail_in: str = "", fail_at: int = 0, stop_at: int | None = None) -> None:
        self.fail_in, self.fail_at, self.stop_at = fail_in, fail_at, stop_at
        self.indices: list[int] = []
        self.outcomes: list[Outcome] = []

    def open(self, info: SourceInfo) -> None:
        if self.fail_in == "open":
            raise Boom("open")

    def write(self, frame: Frame, detections: Detections) -> None:
        if self.fail_in == "write" and len(self.indices) >= self.fail_at:
            raise Boom("write")
        self.indices.append(frame.index)

    def close(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        if self.fail_in == "close":
            raise Boom("close")

    def wants_stop(self) -> bool:
        return self.stop_at is not None and len(self.indices) >= self.stop_at


def same(frame: Frame, detections: Detections) -> Frame:
    return dataclasses.replace(frame)


def fail_from(at: int, message: str) -> Callable[[int], None]:
    def check(value: int) -> None:
        if value >= at:
            raise Boom(message)

    return check


@pytest.fixture(autouse=True)
def threads_switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def run_in_time(pipeline: Pipeline) -> None:
    began = time.perf_counter()
    try:
        pipeline.run()
    finally:
        assert time.perf_counter() - began < LIMIT


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_a_recording_delivers_every_frame_in_order(batch_size: int) -> None:
    source, sink, segmenter = Numbers(200), Kept(), Counting()
    pipeline = Pipeline(source, segmenter, sinks=[sink], renderer=same, batch_size=batch_size)
    run_in_time(pipeline)
    assert sink.indices == list(range(200))
    assert sink.outcomes == [Outcome.COMPLETE]
    assert source.closed == 1
    assert sum(segmenter.batches) == 200
    assert max(segmenter.batches) <= batch_size
    assert (pipeline.metrics.captured, pipeline.metrics.delivered, pipeline.metrics.dropped) == (200, 200, 0)


def test_batches_grow_with_the_backlog() -> None:
    far_ahead = threading.Event()
    source = Numbers(20, ready=lambda index: far_ahead.set() if index == 5 else None)
    segmenter = Counting(before=lambda call: far_ahead.wait(5))
    run_in_time(Pipeline(source, segmenter, renderer=same, batch_size=4))
    assert 4 in segmenter.batches


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("live", [False, True], ids=["recorded", "live"])
@pytest.mark.parametrize("stage", ["source", "segment", "count", "render", "open", "write", "close"])
@pytest.mark.parametrize("at", [0, 5, 60])
def test_the_first_failure_stops_everything_and_is_raised(stage: str, live: bool, batch_size: int, at: int) -> None:
    source = Numbers(None if stage == "source" else 500, live=live, fail_at=at if stage == "source" else None)
    if live:  # a camera that is faster than the rest, yet leaves the others time
        source.ready = lambda index: time.sleep(0.0005)
    segmenter = Counting(
        before=fail_from(at // batch_size, "segment") if stage == "segment" else lambda call: None,
        lose=1 if stage == "count" else 0,
    )
    drawn = itertools.count()

    def render(frame: Frame, detections: Detections) -> Frame:
        if stage == "render" and next(drawn) >= at:
            raise Boom("render")
        return frame

    sink = Kept(fail_in=stage, fail_at=at)
    pipeline = Pipeline(source, segmenter, sinks=[sink], renderer=render, batch_size=batch_size)
    expected = (ValueError, "segmenter returned") if stage == "count" else (Boom, stage)
    with pytest.raises(expected[0], match=expected[1]):
        run_in_time(pipeline)
    assert source.closed == 1
    whole = Outcome.STOPPED if stage == "source" and live else Outcome.FAILED  # all that a camera sent is whole
    assert sink.outcomes == [Outcome.COMPLETE if stage == "close" else whole]


def test_what_was_drawn_lets_go_of_what_was_captured() -> None:
    """Some frames wait for their delivery, and one of 8K takes 100 MB."""
    captured: list[weakref.ref[Image]] = []
    kept: list[bool] = []
    ahead = threading.Event()

    def draw(frame: Frame, detections: Detections) -> Frame:
        captured.append(weakref.ref(frame.image))
        if len(captured) == 4:
            kept.extend(image() is not None for image in captured[:2])
            ahead.set()
        return frame.with_image(frame.image.copy())

    class Slow(Kept):
        def write(self, frame: Frame, detections: Detections) -> None:
            ahead.wait(LIMIT)

    run_in_time(Pipeline(Numbers(6), Counting(), sinks=[Slow()], renderer=draw))
    assert kept == [False, False]


def test_a_run_that_is_over_keeps_no_model_alive() -> None:
    """It must not wait for the collector of garbage, which does not know how large a model is."""
    gc.collect()
    gc.disable()
    try:
        segmenter = Counting()
        run_in_time(Pipeline(Numbers(3), segmenter, sinks=[Kept()], renderer=same))
        alive = weakref.ref(segmenter)
        del segmenter
        assert alive() is None
    finally:
        gc.enable()


def test_sinks_may_come_from_a_generator() -> None:
    kept = [Kept(), Kept()]
    Pipeline(Numbers(3), Counting(), sinks=(sink for sink in kept)).run()  # type: ignore[arg-type]
    assert [sink.indices for sink in kept] == [[0, 1, 2]] * 2


def test_a_segmenter_that_takes_no_images_is_refused() -> None:
    segmenter = Counting()
    segmenter.max_batch = 0
    with pytest.raises(UsageError, match="max_batch"):
        Pipeline(Numbers(3), segmenter)


@pytest.mark.parametrize("first", [True, False])
def test_a_result_that_cannot_be_finished_takes_nothing_from_the_others(first: bool) -> None:
    bad, good = Kept(fail_in="close"), Kept()
    with pytest.raises(Boom, match="close"):
        run_in_time(Pipeline(Numbers(3), Counting(), sinks=[bad, good] if first else [good, bad], renderer=same))
    assert good.indices == [0, 1, 2]
    assert good.outcomes == [Outcome.COMPLETE]
    with pytest.raises(Boom, match="write"):  # which came first
        run_in_time(Pipeline(Numbers(3), Counting(), sinks=[bad, Kept(fail_in="write")], renderer=same))


def test_a_live_source_drops_the_oldest_and_accounts_for_all() -> None:
    delivered = threading.Semaphore(0)

    class Slow(Kept):
        def write(self, frame: Frame, detections: Detections) -> None:
            super().write(frame, detections)
            delivered.release()

    # Thirty frames pass for each that is delivered, without any sleeping.
    source = Numbers(300, live=True, ready=lambda index: index % 30 or index == 0 or delivered.acquire(timeout=5))
    sink = Slow()
    pipeline = Pipeline(source, Counting(), sinks=[sink], renderer=same)
    pipeline.run()
    metrics = pipeline.metrics
    assert sink.indices == sorted(set(sink.indices))
    assert metrics.captured == 300 == metrics.delivered + metrics.dropped
    assert metrics.dropped > 0
    assert sink.indices[-1] == 299


def test_a_sink_that_wants_the_end_gets_what_was_captured() -> None:
    class Asked(Kept):
        asks = 0

        def wants_stop(self) -> bool:
            self.asks += 1
            return super().wants_stop()

    source, sink, other = Numbers(None), Asked(stop_at=10), Asked()
    run_in_time(Pipeline(source, Counting(), sinks=[sink, other], renderer=same, batch_size=2))
    assert sink.indices == list(range(len(sink.indices)))
    assert len(sink.indices) >= 10
    assert sink.outcomes == [Outcome.STOPPED]
    assert source.closed == 1
    assert sink.asks == other.asks  # who is asked can handle events, also while the rest is delivered


def test_a_failure_ends_a_run_that_a_sink_holds() -> None:
    class Holding(Kept):
        def holds(self) -> bool:
            return bool(self.indices)

    def fail(call: int) -> None:
        while call and not sink.indices:
            time.sleep(0.001)
        fail_from(1, "model")(call)

    sink = Holding()
    with pytest.raises(Boom, match="model"):
        run_in_time(Pipeline(Numbers(None), Counting(fail), sinks=[sink], renderer=same))


def test_stop_before_run_ends_at_once() -> None:
    sink = Kept()
    pipeline = Pipeline(Numbers(None), Counting(), sinks=[sink], renderer=same)
    pipeline.stop()
    run_in_time(pipeline)
    assert sink.indices == []
    assert sink.outcomes == [Outcome.STOPPED]


def test_a_signal_may_come_while_its_thread_holds_the_lock_that_ending_takes() -> None:
    class Locked(Numbers):
        """Ends as `threading.Event.set` does it; a signal comes at the worst moment."""

        lock = threading.Lock()
        signalled = False

        def close(self) -> None:
            assert self.lock.acquire(timeout=1), "a deadlock"
            try:
                if threading.current_thread() is threading.main_thread() and not self.signalled:
                    self.signalled = True
                    signal.raise_signal(signal.SIGINT)
                super().close()
            finally:
                self.lock.release()

    source, sink = Locked(3), Kept()
    pipeline = Pipeline(source, Counting(), sinks=[sink], renderer=same)
    with ending_signals() as ending:
        ending.leave_to(pipeline.stop)
        run_in_time(pipeline)
        assert source.signalled
        assert ending.exit_code == 130
    assert sink.indices == [0, 1, 2]
    assert sink.outcomes == [Outcome.STOPPED]


@pytest.mark.parametrize("stopped", [False, True])
def test_a_source_that_cannot_be_closed_costs_no_result(stopped: bool) -> None:
    sinks = [Kept(stop_at=2 if stopped else None), Kept()]
    pipeline = Pipeline(Stuck(20), Counting(), sinks=sinks, renderer=same)
    with pytest.raises(Boom, match="close"):
        run_in_time(pipeline)
    outcome = Outcome.STOPPED if stopped else Outcome.COMPLETE
    assert [sink.outcomes for sink in sinks] == [[outcome]] * 2
    assert sinks[0].indices == list(range(pipeline.metrics.captured))


def test_a_stop_between_two_frames_ends_a_source_that_waits() -> None:
    source = Numbers(None, live=True)

    def wait(index: int) -> None:
        if index == 1:
            pipeline.stop()
        deadline = time.monotonic() + 5
        while index and not source.asked_to_end and time.monotonic() < deadline:
            time.sleep(0.001)

    source.ready = wait
    pipeline = Pipeline(source, Counting(), sinks=[sink := Kept()], renderer=same)
    run_in_time(pipeline)
    assert source.asked_to_end
    assert pipeline.stopped
    assert sink.outcomes == [Outcome.STOPPED]


def test_a_source_that_waits_is_told_to_end() -> None:
    source = Numbers(None, live=True)

    def until_told(index: int) -> None:
        deadline = time.monotonic() + 5
        while index and not source.asked_to_end and time.monotonic() < deadline:
            time.sleep(0.001)

    source.ready = until_told
    run_in_time(Pipeline(source, Counting(), sinks=[Kept(stop_at=1)], renderer=same))
    assert source.asked_to_end


def test_a_keyboard_interrupt_is_raised_and_what_was_written_counts() -> None:
    class Interrupted(Kept):
        def write(self, frame: Frame, detections: Detections) -> None:
            if frame.index == 7:
                raise KeyboardInterrupt
            super().write(frame, detections)

    source, sink = Numbers(None), Interrupted()
    with pytest.raises(KeyboardInterrupt):
        run_in_time(Pipeline(source, Counting(), sinks=[sink], renderer=same))
    assert sink.outcomes == [Outcome.STOPPED]
    assert source.closed == 1


class Signalled(Kept):
    """Ctrl-C comes `times` times in the midst of writing frame 7."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def write(self, frame: Frame, detections: Detections) -> None:
        if frame.index == 7:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
        super().write(frame, detections)


def test_ctrl_c_is_raised_after_the_run_was_ended_in_good_order() -> None:
    source, sink = Numbers(None), Signalled(1)
    pipeline = Pipeline(source, Counting(), sinks=[sink], renderer=same)
    with pytest.raises(KeyboardInterrupt):
        run_in_time(pipeline)
    assert sink.indices == list(range(pipeline.metrics.captured))
    assert len(sink.indices) > 7
    assert sink.outcomes == [Outcome.STOPPED]
    assert source.closed == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_is_raised_at_once() -> None:
    source, sink = Numbers(None), Signalled(2)
    with pytest.raises(KeyboardInterrupt):
        run_in_time(Pipeline(source, Counting(), sinks=[sink], renderer=same))
    assert sink.indices == list(range(7))
    assert sink.outcomes == [Outcome.STOPPED]
    assert source.closed == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_outlives_a_failure_of_the_run_that_it_ends() -> None:
    class Full(Signalled):
        def close(self, outcome: Outcome) -> None:
            raise Boom("close")

    with pytest.raises(KeyboardInterrupt) as raised:
        run_in_time(Pipeline(Numbers(None), Counting(), sinks=[Full(1)], renderer=same))
    assert isinstance(raised.value.__cause__, Boom)


def test_a_sink_gets_frames_as_captured_also_beside_one_that_wants_pictures() -> None:
    class Levels(Sink):
        def __init__(self, *, pictures: bool, captured: bool) -> None:
            self.wants_pictures, self.wants_captured = pictures, captured
            self.levels: list[int] = []

        def write(self, frame: Frame, detections: Detections) -> None:
            self.levels.append(int(frame.image[0, 0, 0]))

    def draw(frame: Frame, detections: Detections) -> Frame:
        return frame.with_image(frame.image + 100)

    sinks = [Levels(pictures=pictures, captured=captured) for pictures in (True, False) for captured in (True, False)]
    Pipeline(Numbers(3), Counting(), sinks=sinks, renderer=draw).run()
    assert [sink.levels for sink in sinks] == [[0, 1, 2], [100, 101, 102]] * 2
    alone = Levels(pictures=False, captured=True)
    Pipeline(Numbers(3), Counting(), sinks=[alone], renderer=draw).run()
    assert alone.levels == [0, 1, 2]


def test_a_sink_that_holds_gets_no_frame_until_it_lets_go() -> None:
    class Holding(Kept):
        asked = 0

        def holds(self) -> bool:
            self.asked += 1
            return self.asked % 3 != 0

        def write(self, frame: Frame, detections: Detections) -> None:
            super().write(frame, detections)
            written_after.append(self.asked)

    written_after: list[int] = []
    sink = Holding()
    run_in_time(Pipeline(Numbers(5), Counting(), sinks=[sink], renderer=same))
    assert sink.indices == list(range(5))
    assert written_after == [3, 6, 9, 12, 15]
    assert sink.asked == 21  # after it was opened, after each of five frames, and after the end


@pytest.mark.parametrize(("feeds", "stop_at", "ends"), [(1, None, 1), (2, None, 1), (1, 3, 0)])
def test_a_sink_that_holds_after_the_end_can_still_be_stopped(feeds: int, stop_at: int | None, ends: int) -> None:
    class Ending(Kept):
        ends = 0

        def ended(self) -> None:
            self.ends += 1

        def holds(self) -> bool:
            return self.ends > 0

        def wants_stop(self) -> bool:
            return self.ends > 0 or super().wants_stop()

    sinks = [Ending(stop_at=stop_at) for _ in range(feeds)]
    run_in_time(Pipeline([Feed(Numbers(5), [sink], same) for sink in sinks], Counting()))
    assert [sink.outcomes for sink in sinks] == [[Outcome.STOPPED]] * feeds
    assert max(sink.ends for sink in sinks) == ends


@pytest.mark.parametrize(("live", "most"), [(False, 3), (True, 1)])
def test_the_segmenter_is_warmed_up_with_the_size_of_the_frames_before_it_is_used(live: bool, most: int) -> None:
    class Warm(Counting):
        warmed: tuple[tuple[int, int], int, int] | None = None

        def warm_up(self, size: tuple[int, int], max_batch: int) -> None:
            self.warmed = (size, max_batch, len(self.batches))

    segmenter = Warm()
    run_in_time(Pipeline(Numbers(2, live=live), segmenter, renderer=same, batch_size=3))
    assert segmenter.warmed == ((2, 2), most, 0)


class Several(Counting):
    """Called by three threads; the call for the first image waits until `others` calls are done."""

    concurrency = 3

    def __init__(self, others: int, fails: bool = False) -> None:
        super().__init__()
        self.others, self.fails = others, fails
        self.enough = threading.Event()
        self.done: list[int] = []

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        index = int(images[0][0, 0, 0])
        if index == 0:
            assert self.enough.wait(5)
            if self.fails:
                raise Boom("model")
        time.sleep(0.005)
        self.done.append(index)
        if len(self.done) == self.others:
            self.enough.set()
        return [Detections.none(NAMES)] * len(images)


def test_frames_keep_their_order_when_a_later_call_is_done_earlier() -> None:
    segmenter, sink = Several(others=4), Kept()
    pipeline = Pipeline(Numbers(12), segmenter, sinks=[sink], renderer=same)
    run_in_time(pipeline)
    assert segmenter.done.index(0) >= 4
    assert sink.indices == list(range(12))
    assert pipeline.metrics.summary().busy["segment"] <= 1  # though three calls run at once


def test_the_failure_of_one_of_several_calls_is_raised() -> None:
    with pytest.raises(Boom, match="model"):
        run_in_time(Pipeline(Numbers(None), Several(others=2, fails=True), sinks=[Kept()], renderer=same))


def test_a_call_that_takes_long_does_not_let_the_others_run_far_ahead() -> None:
    segmenter = Several(others=1000)
    pipeline = Pipeline(Numbers(None), segmenter, sinks=[Kept()], renderer=same)
    running = threading.Thread(target=pipeline.run)
    running.start()
    before = -1
    while len(segmenter.done) > before:
        before = len(segmenter.done)
        time.sleep(0.2)
    pipeline.stop()
    segmenter.enough.set()
    running.join(LIMIT)
    assert not running.is_alive()
    assert 2 <= before < 20


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, "2"])
def test_a_batch_of_nothing_is_refused(batch_size: object) -> None:
    with pytest.raises(UsageError, match=f"batch_size must be a whole number of at least 1, got {batch_size!r}"):
        Pipeline(Numbers(3), Counting(), batch_size=batch_size)  # type: ignore[arg-type]


@pytest.mark.parametrize("max_age", [0, -1.0, math.nan, "1"])
def test_an_age_that_no_frame_can_have_is_refused(max_age: object) -> None:
    with pytest.raises(UsageError, match=f"max_age must be more than 0 seconds, got {max_age!r}"):
        Pipeline(Numbers(3), Counting(), max_age=max_age)  # type: ignore[arg-type]


def test_a_pipeline_runs_once() -> None:
    pipeline = Pipeline(Numbers(3), Counting(), sinks=[Kept()], renderer=same)
    pipeline.run()
    with pytest.raises(RuntimeError, match="runs once"):
        pipeline.run()


@pytest.mark.parametrize("how", ["stop", "error"])
def test_a_stuck_device_does_not_hold_the_caller(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    monkeypatch.setattr(pipeline_module, "JOIN_SECONDS", 0.1)
    unplugged = threading.Event()
    source = Numbers(None, live=True, ready=lambda index: index and unplugged.wait())
    sink = Kept(stop_at=1) if how == "stop" else Kept(fail_in="write")
    pipeline = Pipeline(source, Counting(), sinks=[sink], renderer=same)
    if how == "stop":
        run_in_time(pipeline)
    else:
        with pytest.raises(Boom):
            run_in_time(pipeline)
    assert "capture is still running" in caplog.text
    unplugged.set()
    for thread in threading.enumerate():
        if thread.name.startswith("stream-seg"):
            thread.join(2)
