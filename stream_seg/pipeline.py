"""Capture -> segment -> render -> deliver: a thread for each stage, and those that call the segmenter."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from stream_seg.channel import Channel, ChannelClosed, EndOfStream, Overflow
from stream_seg.detections import Detections
from stream_seg.errors import UsageError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.metrics import Metrics, Stage, Summary
from stream_seg.protocols import Outcome, Renderer, Segmenter, Sink, Source
from stream_seg.render import Renderer as DefaultRenderer

logger = logging.getLogger(__name__)

T = TypeVar("T")

JOIN_SECONDS = 1.0
"""How long `run` waits, at its end, for all stages together: a device stuck in a read must not hold the caller."""

POLL_SECONDS = 0.05
"""How often sinks are asked whether they want the end, while no frame comes."""

DEPTH = 4
"""Frames between two stages; enough to ride out one slow frame, few enough to keep memory small."""


class Pipeline:
    """Runs a source through a segmenter and a renderer into sinks.

    Sinks run on the thread that calls `run`, because window toolkits insist on the main thread. Frames keep their
    order. A recorded source loses none; of a live source the newest count, and the oldest waiting ones are dropped. The
    first failure anywhere stops everything and is raised from `run`. Like a thread, a pipeline runs once.

    `batch_size` is the most frames the segmenter gets in one call: by default what it gains from, but 1 for a live
    source, where waiting for company would make the newest frame old.
    The segmenter stays open: whoever made it closes it.
    """

    def __init__(
        self,
        source: Source,
        segmenter: Segmenter,
        *,
        sinks: Sequence[Sink] = (),
        renderer: Renderer | None = None,
        batch_size: int | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {batch_size}")
        self._source = source
        self._segmenter = segmenter
        self._renderer = renderer or DefaultRenderer()
        self._sinks = sinks
        self._batch_size = batch_size or segmenter.max_batch
        self._live_batch_size = batch_size or 1
        self.metrics = metrics or Metrics()
        self._opened: Channel[SourceInfo] = Channel(1)
        self._captured: Channel[Frame] = Channel(max(DEPTH, self._batch_size))
        self._segmented: Channel[tuple[Frame, Detections]] = Channel(max(DEPTH, self._batch_size))
        self._rendered: Channel[tuple[Frame, Detections]] = Channel(DEPTH)
        self._errors: list[BaseException] = []
        self._info: SourceInfo | None = None
        self._started = False
        self._stopped = False

    def stop(self) -> None:
        """Stop capturing; frames already captured are still delivered. Any thread, any time, any number of times."""
        self._stopped = True
        self._captured.close()
        self._opened.close()
        self._source.close()

    @property
    def info(self) -> SourceInfo | None:
        """What is known of the source, None before it is open."""
        return self._info

    @property
    def stopped(self) -> bool:
        """Whether the run was ended before its source did."""
        return self._stopped

    def run(self) -> Summary:
        """Process the source until it ends, `stop` is called, or a stage fails.

        Raises whatever a stage raised first: a `StreamSegError` for what users can mend.
        """
        if self._started:
            raise RuntimeError("a pipeline runs once; make a new one")
        self._started = True
        threads = [
            self._thread("capture", self._capture, self._captured),
            self._thread("segment", self._segment, self._segmented),
            self._thread("render", self._render, self._rendered),
        ]
        for thread in threads:
            thread.start()
        try:
            self._deliver()
        except BaseException as error:
            self._fail(error)
        self._cancel()
        _join(threads)
        self._close_sinks()
        if self._errors:
            raise self._errors[0]
        return self.metrics.summary()

    def _capture(self) -> None:
        stage = self.metrics.stages["capture"]
        with self._source as source:
            if source.info.is_live:
                self._batch_size = self._captured.capacity = self._live_batch_size
                self._captured.overflow = Overflow.DROP_OLDEST
                self.metrics.source_is_live()
            self._opened.put(source.info)
            for frame in _timed(iter(source), stage):
                self._captured.put(frame)
                self.metrics.captured += 1
                self.metrics.dropped = self._captured.dropped

    def _segment(self) -> None:
        (self._info,) = self._opened.take(1)
        warm_up = getattr(self._segmenter, "warm_up", None)
        if warm_up is not None:
            warm_up(self._info.size, self._batch_size)
        # Of a live source one call at a time gets the newest frames; a second would hold frames that grow old.
        calls = 1 if self._info.is_live else getattr(self._segmenter, "concurrency", 1)
        pool = ThreadPoolExecutor(calls, thread_name_prefix="stream-seg-infer")
        self.metrics.start()
        try:
            # One more call than can run waits, so that no thread idles while results are handed on.
            self._keep_in_flight(pool, calls if calls == 1 else calls + 1, share=1 / calls)
        finally:
            pool.shutdown(cancel_futures=True)

    def _keep_in_flight(self, pool: ThreadPoolExecutor, limit: int, share: float) -> None:
        """Start calls as frames come, up to `limit`; hand results on in order when no call can be started."""
        in_flight: deque[tuple[list[Frame], Future[tuple[list[Detections], float]]]] = deque()
        more = True
        while more or in_flight:
            frames: list[Frame] = []
            try:
                frames = self._captured.take(self._batch_size, timeout=0.0 if in_flight else None)
            except EndOfStream:
                more = False
            if frames:
                in_flight.append((frames, pool.submit(self._timed_call, frames)))
            if in_flight and (len(in_flight) >= limit or not frames):
                self._hand_on(*in_flight.popleft(), share)

    def _timed_call(self, frames: list[Frame]) -> tuple[list[Detections], float]:
        began = time.perf_counter()
        found = self._segmenter([frame.image for frame in frames])
        return found, time.perf_counter() - began

    def _hand_on(self, frames: list[Frame], call: Future[tuple[list[Detections], float]], share: float) -> None:
        found, seconds = call.result()
        if len(found) != len(frames):
            raise ValueError(f"the segmenter returned {len(found)} results for {len(frames)} images")
        self.metrics.batch_segmented(len(frames), sum(map(len, found)), seconds * share)
        for pair in zip(frames, found, strict=True):
            self._segmented.put(pair)

    def _render(self) -> None:
        for frame, detections in self._segmented:
            with self.metrics.stages["render"]:
                picture = self._renderer(frame, detections)
            self._rendered.put((picture, detections))

    def _deliver(self) -> None:
        pending = self._next_frame()
        if pending is None:
            return
        assert self._info is not None  # set before the first frame is segmented
        for sink in self._sinks:
            sink.open(self._info)
        while pending is not None:
            frame, detections = pending
            with self.metrics.stages["deliver"]:
                for sink in self._sinks:
                    sink.write(frame, detections)
            self.metrics.frame_delivered(frame.captured_at)
            self._while_held()
            pending = self._next_frame()

    def _next_frame(self) -> tuple[Frame, Detections] | None:
        """Wait for a rendered frame, asking the sinks meanwhile; None at the end."""
        while True:
            self._ask_sinks()
            try:
                items = self._rendered.take(1, timeout=POLL_SECONDS)
            except EndOfStream:
                return None
            if items:
                return items[0]

    def _while_held(self) -> None:
        while not self._stopped and not self._errors and any(sink.holds() for sink in self._sinks):
            self._ask_sinks()

    def _ask_sinks(self) -> None:
        # A list: every sink is asked, for asking is also how a window handles its events.
        if any([sink.wants_stop() for sink in self._sinks]):  # noqa: C419
            self.stop()

    def _close_sinks(self) -> None:
        for sink in self._sinks:
            try:
                sink.close(self._outcome())
            except BaseException as error:  # the others must be closed as well
                self._errors.append(error)

    def _outcome(self) -> Outcome:
        if any(not isinstance(error, KeyboardInterrupt) for error in self._errors):
            return Outcome.FAILED
        return Outcome.STOPPED if self._stopped or self._errors else Outcome.COMPLETE

    def _thread(self, name: str, body: Callable[[], None], out: Channel[T]) -> threading.Thread:
        def target() -> None:
            try:
                body()
            except (ChannelClosed, EndOfStream):
                pass
            except BaseException as error:  # a thread boundary: `run` raises it
                if self._stopped and out is self._captured:
                    logger.info("the source failed after it was told to stop: %s", error)
                else:
                    self._fail(error)
            finally:
                out.close()
                self._opened.close()

        return threading.Thread(target=target, name=f"stream-seg-{name}", daemon=True)

    def _fail(self, error: BaseException) -> None:
        self._errors.append(error)
        self._cancel()

    def _cancel(self) -> None:
        for channel in (self._opened, self._captured, self._segmented, self._rendered):
            channel.cancel()
        self._source.close()


def _timed(frames: Iterator[Frame], stage: Stage) -> Iterator[Frame]:
    """The same frames; the time spent on getting each one is counted."""
    while True:
        with stage:
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


def _join(threads: Sequence[threading.Thread]) -> None:
    deadline = time.monotonic() + JOIN_SECONDS
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.0))
        if thread.is_alive():
            logger.warning("%s is still running; its device may be stuck", thread.name)
