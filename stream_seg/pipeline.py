"""Capture -> segment -> render -> deliver: a thread for each source and stage, and those that call the segmenter."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import NamedTuple, TypeVar

import numpy as np

from stream_seg.agreement import agreed
from stream_seg.channel import Channel, ChannelClosed, EndOfStream
from stream_seg.detections import Detections, check_found
from stream_seg.errors import UsageError
from stream_seg.frame import Frame, Image, SourceInfo, check_frame
from stream_seg.geometry import mirrored, mirrored_back
from stream_seg.given import (
    check_count,
    check_seconds,
    each_sink,
    picture_of,
    refuse_no_segmenter,
    refuse_no_source,
    refuse_no_step,
    refuse_shared,
    refuse_shared_sinks,
)
from stream_seg.intake import Intake
from stream_seg.metrics import FeedMetrics, Metrics, Stage, Summary, told_apart
from stream_seg.protocols import Follower, Outcome, Renderer, Segmenter, Sink, Source, Wall
from stream_seg.render import Renderer as DefaultRenderer
from stream_seg.steady import APART, DOUBTFUL
from stream_seg.unchanged import Unchanged

logger = logging.getLogger(__name__)

T = TypeVar("T")

JOIN_SECONDS = 1.0
"""How long `run` waits, at its end, for all stages together: a device stuck in a read must not hold the caller."""

POLL_SECONDS = 0.05
"""How often sinks are asked whether they want the end, while no frame comes."""

AS_IT_IS, MIRRORED, BOTH_WAYS = (False,), (True,), (False, True)
"""Looks at a frame: whether each is at its mirror image."""

DEPTH = 4
"""Frames between two stages; enough to ride out one slow frame, few enough to keep memory small."""


@dataclass(frozen=True, slots=True)
class Feed:
    """One of several sources, with what is its own: sinks that get only its frames, a renderer, a name to tell it by.

    `follower` makes what the segmenter finds into what is shown; without one, all of it is. `name` is safe to print.
    Frames are drawn in full only for sinks of its own. `max_frames` is the most frames of it that are delivered: those
    of a live source that are dropped do not count.
    """

    source: Source
    sinks: Sequence[Sink] = ()
    renderer: Renderer | None = None
    name: str = "source"
    max_frames: int | None = None
    follower: Follower | None = None

    def __post_init__(self) -> None:
        refuse_no_source(self.source)
        refuse_no_step("renderer", self.renderer)
        refuse_no_step("follower", self.follower)
        if not isinstance(self.name, str):
            raise UsageError(f"the name of a Feed is a str, not {self.name!r}")
        if self.max_frames is not None:
            check_count("max_frames", self.max_frames)


class _Lane:
    """A feed in a running pipeline. `info`, `has_begun` and `is_whole`, which says that all of its source was captured,
    are set by its capture thread, `found`, which is what was found in the newest frame that was looked at, and
    `was_mirrored` and `at`, which say how and when it was, by those that call the segmenter, `is_refused`, which says
    that its follower will have none of its frames, by the one that renders, the rest by the caller's.
    """

    def __init__(self, number: int, feed: Feed, metrics: FeedMetrics) -> None:
        self.number = number
        self.source = feed.source
        self.max_frames = feed.max_frames
        self.sinks = each_sink(feed.sinks)
        self.wants_pictures = any(getattr(sink, "wants_pictures", True) for sink in self.sinks)
        self.want_captured = [getattr(sink, "wants_captured", False) for sink in self.sinks]
        self.renderer = feed.renderer or DefaultRenderer()
        self.follower = feed.follower
        self.unchanged = Unchanged()
        self.found = Detections.none(())
        self.was_mirrored = False
        self.at = -math.inf
        self.metrics = metrics
        self.info: SourceInfo | None = None
        self.has_begun = False
        self.is_whole = False
        self.is_refused = False
        self.is_open = False
        self.is_over = False
        self.is_closed = False
        metrics.availability = getattr(feed.source, "availability", None)
        metrics.source = feed.source

    def looks(self, frame: Frame) -> tuple[bool, ...]:
        """How this frame, the next one, is to be looked at, of a film every other one of which is mirrored (True).

        The first one is looked at both ways, for no other tells its ghosts apart. One that is `APART` from the one
        before is not mirrored: what is found in it would be shown by itself, and flicker.
        """
        since, self.at = float(frame.pts) - self.at, float(frame.pts)
        if frame.is_still or frame.is_unchanged:
            return AS_IT_IS
        if math.isinf(since):
            return BOTH_WAYS
        self.was_mirrored = not self.was_mirrored and 0 < since <= APART
        return MIRRORED if self.was_mirrored else AS_IT_IS

    def let_go(self) -> None:
        """Forget what is its own, once its last frame is through: a follower keeps a picture, and it may be the first
        of many films.
        """
        self.sinks = ()
        self.renderer = DefaultRenderer()
        self.follower = None
        self.unchanged = Unchanged()
        self.found = Detections.none(())


@dataclass(frozen=True, slots=True)
class _Segmented:
    lane: _Lane
    frame: Frame
    detections: Detections


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A frame, drawn if the lane's own sinks want pictures, and as `tile` for the wall, where there is one.

    As it was captured it is let go, unless one of the sinks wants it: at 8K each of those that wait takes 100 MB.
    """

    lane: _Lane
    frame: Frame
    detections: Detections
    tile: Frame | None
    captured: Frame


@dataclass(frozen=True, slots=True)
class _Ended:
    """Stands behind the last frame of a lane."""

    lane: _Lane


class _Taken(NamedTuple):
    """A frame on its way to the segmenter, whose `looks` at it are of the image as it is, or mirrored (True)."""

    lane: _Lane
    frame: Frame
    looks: tuple[bool, ...] = AS_IT_IS

    def images(self) -> list[Image]:
        """What the segmenter gets."""
        return [mirrored(self.frame.image) if turned else self.frame.image for turned in self.looks]

    def placed(self, found: Iterator[Detections], least: float) -> Detections:
        """What it found there, where it is in the frame; by both looks what has more than the score `least`."""
        width = self.frame.image.shape[1]
        one, *others = [mirrored_back(next(found), width) if turned else next(found) for turned in self.looks]
        return agreed(one, others[0], least) if others else one


@dataclass(slots=True)
class _Call:
    """A call of the segmenter under way; `found` is there, and the `seconds` it counts for, once it is done.

    It is of those of the `frames` that are not unchanged.
    """

    frames: list[_Taken]
    found: list[Detections] | None = None
    seconds: float = 0.0


class Pipeline:
    """Runs one source, or several `Feed`s, through one segmenter and renderers into sinks and a wall.

    Sinks run on the thread that calls `run`, because window toolkits insist on the main thread. Frames of a source keep
    their order. A recorded source loses none; of a live source the newest counts, older ones that wait are dropped.
    Several sources share the segmenter fairly, and its batches; one that fails or ends does not stop the others: its
    sinks are closed, and `failures` says why. Any other failure, or that of an only source, or of all, stops everything
    and is raised from `run`. Like a thread, a pipeline runs once.

    `sinks`, `renderer` and `follower` are those of an only source. `batch_size` is the most frames the segmenter gets
    in one call: by default what it gains from. `max_age` is how many seconds old a live frame may be when the segmenter
    gets it. With `on_change` it gets no frame that shows what the last four did that it got, up to a second before:
    what was found there counts for it, too (`Frame.is_unchanged`). The segmenter stays open: whoever made it closes it.

    Recordings that go `in_turns` are read one after the other, in this order: any number of them takes no more than one
    does, unless somebody else keeps the feeds. After `stop` no other is begun, and the one it cut short counts as
    failed to its sinks, so that no result of a part passes for one that is done.
    """

    def __init__(
        self,
        source: Source | Sequence[Feed],
        segmenter: Segmenter,
        *,
        sinks: Sequence[Sink] = (),
        renderer: Renderer | None = None,
        follower: Follower | None = None,
        wall: Wall | None = None,
        batch_size: int | None = None,
        max_age: float | None = None,
        on_change: bool = False,
        in_turns: bool = False,
        metrics: Metrics | None = None,
    ) -> None:
        if batch_size is not None:
            check_count("batch_size", batch_size)
        if max_age is not None:
            check_seconds("max_age", max_age)
        if in_turns and wall is not None:
            raise UsageError("what a wall shows side by side is read so, too: in_turns is for sources without one")
        if isinstance(source, Feed):
            raise UsageError("Feeds are given as a list, also an only one: Pipeline([feed], segmenter)")
        for one in source if isinstance(source, list | tuple) else [source]:
            if not isinstance(one, Feed):
                refuse_no_source(one)
        if isinstance(source, Sequence) and (sinks or renderer is not None or follower is not None):
            raise UsageError("sinks, renderer and follower are those of an only source; give each Feed its own")
        feeds = source if isinstance(source, Sequence) else [Feed(source, sinks, renderer, follower=follower)]
        if not feeds:
            raise UsageError("a pipeline needs at least one source")
        if not all(isinstance(feed, Feed) for feed in feeds):
            raise UsageError("several sources are given as Feeds: Pipeline([Feed(source), Feed(another)], segmenter)")
        refuse_shared([feed.source for feed in feeds])
        refuse_no_segmenter(segmenter)
        if segmenter.max_batch < 1:
            raise UsageError(f"max_batch of a segmenter must be at least 1, got {segmenter.max_batch}")
        self.metrics = metrics or Metrics(told_apart([feed.name for feed in feeds]))
        if len(self.metrics.feeds) != len(feeds):
            raise UsageError(f"metrics need a name for each of {len(feeds)} sources, got {len(self.metrics.feeds)}")
        self._lanes = [
            _Lane(number, feed, own) for number, (feed, own) in enumerate(zip(feeds, self.metrics.feeds, strict=True))
        ]
        refuse_shared_sinks([sink for lane in self._lanes for sink in lane.sinks])
        self._segmenter = segmenter
        self._wall = wall
        self._batch_size = batch_size or segmenter.max_batch
        self._on_change = on_change
        self._shown_from = getattr(segmenter, "shown_from", None)
        self._in_turns = self.metrics.in_turns = in_turns
        depth = max(DEPTH, self._batch_size)
        self._intake = Intake(
            len(feeds),
            depth=depth if in_turns else math.ceil(depth / len(feeds)),  # in all: what waits is delivered after `stop`
            dropped=partial(_count_drop, self._lanes),  # not by the pipeline itself, which would keep itself alive
            max_age=max_age,
            level=wall is not None,
            in_turns=in_turns,
        )
        self._segmented: Channel[_Segmented | _Ended] = Channel(depth)
        self._rendered: Channel[_Rendered | _Ended] = Channel(DEPTH)
        self._calls: deque[_Call | _Ended] = deque()
        self._taking = threading.Lock()
        self._handing_on = threading.Lock()
        self._errors: list[BaseException] = []
        self._unfinished: list[BaseException] = []  # why results could not be finished, which is no fault of others
        self._unclosed: list[BaseException] = []  # why sources could not be closed, which costs no result anything
        self._started = False
        self._stopped = False
        self._ending = False

    def stop(self) -> None:
        """Stop capturing soon; frames already captured are still delivered. Any thread, any time, any number of times.

        A signal handler may call it too: it runs in the midst of anything, also while its thread holds the very lock
        that closing a source takes. So this takes none, and `run` does the rest.
        """
        self._stopped = True

    @property
    def infos(self) -> tuple[SourceInfo | None, ...]:
        """What is known of each source, None before it is open."""
        return tuple(lane.info for lane in self._lanes)

    @property
    def failures(self) -> dict[str, BaseException]:
        """What ended sources for good, by their names."""
        return {feed.name: feed.error for feed in self.metrics.feeds if feed.error is not None}

    @property
    def stopped(self) -> bool:
        """Whether the run was ended before its sources did."""
        return self._stopped

    def run(self) -> Summary:
        """Process the sources until they end, `stop` is called, or a stage fails.

        Raises whatever a stage raised first: a `StreamSegError` for what users can mend. On the main thread, Ctrl-C is
        a call of `stop`, unless the program handles it itself: `KeyboardInterrupt` is raised once all is finished, or
        by the second Ctrl-C.
        """
        if self._started:
            raise RuntimeError("a pipeline runs once; make a new one")
        self._started = True
        with _interruptions(self.stop) as interruptions:
            self._run()
        errors = [*self._errors, *self._unfinished, *self._unclosed]
        if interruptions:
            raise KeyboardInterrupt from next(iter(errors), None)
        for first in errors:
            raise first
        return self.metrics.summary()

    def _run(self) -> None:
        threads = [
            *(self._capture_thread(lanes) for lanes in ([self._lanes] if self._in_turns else zip(self._lanes))),
            self._thread("segment", self._segment, self._segmented),
            self._thread("render", self._render, self._rendered),
        ]
        try:
            if self._wall is not None:
                self._wall.open()
            self._end_if_stopped()
            for thread in threads:
                thread.start()
            self._deliver()
        except BaseException as error:
            self._fail(error)
        self._cancel()
        _join(threads)
        self._close_everything()

    def _capture(self, lane: _Lane) -> None:
        with lane.source as source:
            lane.info = shortened(source.info, lane.max_frames)
            if source.info.is_live:
                lane.metrics.source_is_live()
            # Of a live source, more may have to be captured than are wanted: some are dropped.
            taken, captured = (lane.max_frames, None) if source.info.is_live else (None, lane.max_frames)
            self._intake.opened(lane.number, live=source.info.is_live, most=taken)
            for frame in _timed(itertools.islice(source, captured), lane.metrics.capture):
                check_frame(frame)  # a source of the user's may have yielded an image, or None
                if frame.is_unchanged:  # for a pipeline that it came from, with other results
                    frame = dataclasses.replace(frame, is_unchanged=False)
                self._intake.put(lane.number, frame)
                lane.metrics.captured += 1
                lane.metrics.source_dropped(getattr(source, "dropped", 0))
        lane.is_whole = not self._stopped

    def _segment(self) -> None:
        self._intake.first()
        sizes = dict.fromkeys(lane.info.size for lane in self._lanes if lane.info is not None)  # pixels may not be had
        # An only live source gets one call at a time: a second would hold frames that grow old.
        alone = len(self._lanes) == 1 and self._intake.live_feeds == 1
        calls = 1 if alone else getattr(self._segmenter, "concurrency", 1)
        some = min(self._batch_size, len(self._lanes))
        self._intake.live_room = (calls + 1) * some  # some segmented, others delivered
        self._intake.room = (calls + 1) * self._batch_size + self._segmented.capacity + self._rendered.capacity
        warm_up = getattr(self._segmenter, "warm_up", None)
        if warm_up is not None:
            for size in sizes:
                warm_up(size, self._most_at_once())
        self.metrics.start()
        work = partial(self._infer, 1 / calls)
        others = [
            threading.Thread(target=self._guard, args=(work,), name=f"stream-seg-infer-{number}", daemon=True)
            for number in range(1, calls)
        ]
        for thread in others:
            thread.start()
        self._guard(work)
        for thread in others:
            thread.join()

    def _most_at_once(self) -> int:
        """Frames in a call: of live sources one each, as far as is known which are."""
        return min(self._batch_size, len(self._lanes)) if self._intake.live_feeds else self._batch_size

    def _infer(self, share: float) -> None:
        """Body of each thread that calls the segmenter; a second in one of them counts as `share` of one.

        Each takes its next frames by itself. One thread that gives them out would have to be woken between two calls,
        and the cores, which many cameras keep busy with small things, would wait for it.
        """
        while True:
            with self._taking:
                most = self._most_at_once()
                taken = self._intake.take(most)
                call = _Call([_Taken(self._lanes[number], frame) for number, frame in taken.frames])
                if self._on_change:  # here, where frames are in order
                    call.frames = [self._compared(one) for one in call.frames if self._has_pixels(one)]
                if self._shown_from is not None:
                    call.frames = [one._replace(looks=one.lane.looks(one.frame)) for one in call.frames]
                self._calls.append(call)
                self._calls.extend(_Ended(self._lanes[number]) for number in taken.ended)
            began = time.perf_counter()
            call.frames = [one for one in call.frames if self._has_pixels(one)]
            looked_at = [one for one in call.frames if not one.frame.is_unchanged]
            images = [image for one in looked_at for image in one.images()]
            # First frames are two images each: a call has no more of them, either, than was asked for and warmed up.
            parts = [self._found(images[start : start + most]) for start in range(0, len(images), most)]
            call.seconds = (time.perf_counter() - began) * share
            results, least = itertools.chain.from_iterable(parts), DOUBTFUL * (self._shown_from or 0)
            call.found = [one.placed(results, least) for one in looked_at]
            self._hand_on_what_is_done()

    def _found(self, images: Sequence[Image]) -> Sequence[Detections]:
        """What the segmenter, which may be of the user's, finds in some images."""
        found = self._segmenter(images)
        if not isinstance(found, Sequence):  # Detections have a length, too
            raise TypeError(f"a segmenter returns a list of Detections, one for each image, got {type(found).__name__}")
        if len(found) != len(images):
            raise ValueError(f"the segmenter returned {len(found)} results for {len(images)} images")
        for one in found:
            check_found(one)
        return found

    def _compared(self, taken: _Taken) -> _Taken:
        """The frame, marked where it shows what the last one did that was not."""
        if not taken.lane.unchanged(taken.frame):
            return taken
        taken.lane.metrics.unchanged += 1
        return taken._replace(frame=dataclasses.replace(taken.frame, is_unchanged=True))

    def _has_pixels(self, taken: _Taken) -> bool:
        """Whether the pixels, which may be made only here, can be; if not, their source has failed."""
        try:
            _ = taken.frame.image
        except Exception as error:  # as in a capture thread
            if taken.lane.metrics.error is None:
                self._source_failed(taken.lane, error)
                self._close_source(taken.lane)
            self._intake.delivered()
            return False
        return True

    def _hand_on_what_is_done(self) -> None:
        """Pass results on in the order in which frames were taken: a later call may be done earlier."""
        with self._handing_on:
            while self._calls:
                call = self._calls[0]
                if isinstance(call, _Ended):
                    self._segmented.put(call)
                elif call.found is None:
                    return
                else:
                    self._pass_on(call, call.found)
                self._calls.popleft()

    def _pass_on(self, call: _Call, found: list[Detections]) -> None:
        if found:
            self.metrics.batch_segmented(len(found), call.seconds)
        new = iter(found)
        for lane, frame, _ in call.frames:
            detections = lane.found if frame.is_unchanged else next(new)
            if self._on_change:
                lane.found = detections[np.arange(len(detections))]  # a copy: whoever gets them may change them
            self._segmented.put(_Segmented(lane, frame, detections))

    def _render(self) -> None:
        for item in self._segmented:
            if isinstance(item, _Ended):
                self._rendered.put(item)
                continue
            with self.metrics.stages["render"]:
                rendered = self._drawn(item.lane, item.frame, item.detections)
            if rendered is None:
                self._intake.delivered()
            else:
                self._rendered.put(rendered)

    def _drawn(self, lane: _Lane, frame: Frame, found: Detections) -> _Rendered | None:
        """The frame as it is shown; None where that is for no source any more."""
        if lane.is_refused:
            return None
        try:
            detections = found if lane.follower is None else lane.follower(frame, found)
        except UsageError as error:  # a region outside of its pictures: whose?
            if len(self._lanes) == 1:
                raise
            lane.is_refused = True
            self._source_failed(lane, error, UsageError(f"{lane.metrics.name}: {error}"))
            self._close_source(lane)
            return None
        check_found(detections)  # a function of the user's may have returned nothing
        picture = picture_of(lane.renderer(frame, detections)) if lane.wants_pictures else None
        tile = None if self._wall is None else self._wall.draw(lane.number, frame, detections, picture)
        shown = frame if picture is None else picture
        captured = frame if any(lane.want_captured) else shown
        return _Rendered(lane, shown, detections, tile, captured)

    def _deliver(self) -> None:
        for item in self._items():
            if isinstance(item, _Ended):
                self._end(item.lane)
            else:
                self._write(item)
                self._while_held()

    def _items(self) -> Iterator[_Rendered | _Ended]:
        """What comes out of the render stage; sinks and wall get their turn meanwhile."""
        while True:
            self._ask_sinks()
            wait = POLL_SECONDS if self._wall is None else min(POLL_SECONDS, self._wall.tick())
            try:
                items = self._rendered.take(1, timeout=wait)
            except EndOfStream:
                return
            yield from items

    def _write(self, item: _Rendered) -> None:
        lane = item.lane
        if not lane.is_open:
            assert lane.info is not None  # set before its first frame is captured
            lane.is_open = True
            for sink in lane.sinks:
                sink.open(lane.info)
            self._while_held()
        with self.metrics.stages["deliver"]:
            for sink, wants_captured in zip(lane.sinks, lane.want_captured, strict=True):
                sink.write(item.captured if wants_captured else item.frame, item.detections)
            if self._wall is not None and item.tile is not None:
                self._wall.show(lane.number, item.tile)
        self._intake.delivered()
        found = item.detections
        ids = None if found.ids is None else found.ids.tolist()
        self.metrics.frame_delivered(lane.number, item.frame.captured_at, found.names, ids)
        if found.lines:
            lane.metrics.lines = found.lines
        if found.occupancy:
            lane.metrics.regions_delivered(found.occupancy)

    def _end(self, lane: _Lane) -> None:
        """A source has ended: finish what is its own now, for the others may run for days."""
        lane.is_over = True
        if lane.is_open and self._outcome(lane) is Outcome.COMPLETE:
            for sink in lane.sinks:
                sink.ended()
            self._while_held()
        if self._wall is not None:
            self._wall.ended(lane.number, lane.metrics.error)
        if len(self._lanes) > 1:
            self._close_source(lane)  # which may have more frames than are wanted
            self._close(lane)
            lane.let_go()
            if self._unfinished and not self._stopped:  # else the others end as well, and well
                raise self._unfinished[0]
        if self._wall is not None:
            self._while_held()  # the last end of all brings the last picture

    def _while_held(self) -> None:
        while not self._stopped and not self._errors and self._is_held():
            self._ask_sinks()
            if self._wall is not None:
                self._wall.tick()

    def _is_held(self) -> bool:
        held = any(sink.holds() for sink in self._open_sinks())
        return held or (self._wall is not None and self._wall.holds())

    def _ask_sinks(self) -> None:
        # A list: every sink is asked, for asking is also how a window handles its events.
        wishes = [sink.wants_stop() for sink in self._open_sinks()]
        if self._wall is not None:
            wishes.append(self._wall.wants_stop())
        if any(wishes):
            self.stop()
        self._end_if_stopped()

    def _end_if_stopped(self) -> None:
        if self._stopped and not self._ending:
            self._ending = True
            self._intake.close()
            for lane in self._lanes:
                self._close_source(lane)

    def _open_sinks(self) -> list[Sink]:
        return [sink for lane in self._lanes if lane.has_begun for sink in lane.sinks]

    def _close_everything(self) -> None:
        for lane in self._lanes:
            self._close(lane)
        if self._wall is not None:
            self._closing(self._wall, None)

    def _close(self, lane: _Lane) -> None:
        if not lane.is_closed:
            lane.is_closed = True
            for sink in lane.sinks:
                self._closing(sink, lane)

    def _close_source(self, lane: _Lane) -> None:
        try:
            lane.source.close()
        except BaseException as error:  # sinks must be closed as well
            self._unclosed.append(error)

    def _closing(self, sink: Sink | Wall, lane: _Lane | None) -> None:
        try:
            sink.close(self._outcome(lane))
        except BaseException as error:  # the others must be closed as well
            self._unfinished.append(error)

    def _outcome(self, lane: _Lane | None) -> Outcome:
        """How the run, and the source of `lane`, ended."""
        failed = None if lane is None else lane.metrics.error
        if lane is not None and failed is not None and not lane.metrics.is_live:
            return Outcome.FAILED
        # A camera has no end of its own: what came before it failed is all there was.
        no_failures = [*(other.metrics.error for other in self._lanes), *self._unfinished]  # of what is still open
        if any(error not in no_failures and not isinstance(error, KeyboardInterrupt) for error in self._errors):
            return Outcome.FAILED
        if self._in_turns and lane is not None:
            is_done = lane.is_whole and lane.is_over  # what was captured may have been discarded since
            return Outcome.COMPLETE if is_done else Outcome.FAILED
        return Outcome.STOPPED if self._stopped or self._errors or failed else Outcome.COMPLETE

    def _capture_thread(self, lanes: Sequence[_Lane]) -> threading.Thread:
        """A thread that reads these sources, one after the other."""

        def target() -> None:
            for lane in lanes:
                if self._in_turns and (self._stopped or self._errors):
                    return
                lane.has_begun = True
                lane.metrics.begin()
                self._capture_all(lane)

        name = "capture" if len(lanes) == len(self._lanes) else f"capture-{lanes[0].number}"
        return threading.Thread(target=target, name=f"stream-seg-{name}", daemon=True)

    def _capture_all(self, lane: _Lane) -> None:
        try:
            self._capture(lane)
        except (ChannelClosed, EndOfStream):
            pass
        except BaseException as error:  # a thread boundary: `run` raises it, or reports it at its end
            if not self._intake.has_enough(lane.number):
                self._source_failed(lane, error)
        finally:
            self._intake.end(lane.number)

    def _source_failed(self, lane: _Lane, error: BaseException, raised: BaseException | None = None) -> None:
        """Note that the source of `lane` failed; the run goes on, unless all have. `raised`, if given, ends it then."""
        if self._stopped or self._errors:  # it may be that which ended it
            logger.debug("the source failed after it was told to stop: %s", error)
            return
        lane.metrics.error = error
        if all(other.metrics.error is not None for other in self._lanes):
            lane.metrics.error = raised or error  # what ends the run is known to be its own
            self._fail(lane.metrics.error)
        else:
            logger.warning("%s failed, the others go on: %s", lane.metrics.name, error)

    def _thread(self, name: str, body: Callable[[], None], out: Channel[T]) -> threading.Thread:
        def target() -> None:
            self._guard(body)
            out.close()

        return threading.Thread(target=target, name=f"stream-seg-{name}", daemon=True)

    def _guard(self, body: Callable[[], None]) -> None:
        try:
            body()
        except (ChannelClosed, EndOfStream):
            pass
        except BaseException as error:  # a thread boundary: `run` raises it
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._errors.append(error)
        self._cancel()

    def _cancel(self) -> None:
        self._intake.cancel()
        for channel in (self._segmented, self._rendered):
            channel.cancel()
        for lane in self._lanes:
            self._close_source(lane)


@contextmanager
def _interruptions(stop: Callable[[], None]) -> Iterator[Sequence[int]]:
    """Have the first Ctrl-C call `stop`, as `asyncio.run` does; yields what will have come.

    An exception in the midst of writing would cost frames and, mostly, the result its name. Where others handle the
    signal, and off the main thread, which never sees it, nothing changes.
    """
    came: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.default_int_handler)
        came.append(number)
        stop()

    here = threading.current_thread() is threading.main_thread()
    if here and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, handle)
    try:
        yield came
    finally:
        if here and signal.getsignal(signal.SIGINT) is handle:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _count_drop(lanes: Sequence[_Lane], number: int, cause: str) -> None:
    lanes[number].metrics.dropped[cause] += 1


def shortened(info: SourceInfo, max_frames: int | None) -> SourceInfo:
    """Describe a source of which at most `max_frames` are wanted."""
    if max_frames is None or (info.frame_count is not None and info.frame_count <= max_frames):
        return info
    return dataclasses.replace(info, frame_count=max_frames)


def _timed(frames: Iterator[Frame], stage: Stage) -> Iterator[Frame]:
    """The same frames; the time spent on getting each one is counted."""
    while True:
        with stage:
            try:
                frame = next(frames)
            except StopIteration:
                return
        yield frame


def _join(threads: Sequence[threading.Thread]) -> None:
    deadline = time.monotonic() + JOIN_SECONDS
    for thread in threads:
        if thread.ident is None:  # never started
            continue
        thread.join(max(deadline - time.monotonic(), 0.0))
        if thread.is_alive():
            logger.warning("%s is still running; its device may be stuck", thread.name)
