"""Clip: a part of any source."""

from __future__ import annotations

import dataclasses
import itertools
import math
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from types import TracebackType

from stream_seg.frame import Frame, SourceInfo
from stream_seg.protocols import Source
from stream_seg.sources.decoding import over_before
from stream_seg.sources.video import starting_at
from stream_seg.sources.wrapper import Wrapper

WAIT_SECONDS = 1.0
"""How long after its `end` a live part waits for frames from before it."""


class Clip(Wrapper):
    """The frames of another source from `start` until before `end` (seconds of its pts), each `stride`-th, at most
    `max_frames`. Of a live source at most `max_fps` a second are used, each as soon as it is there.

    Times stay those of the source; frames are numbered anew from 0. Of a live source a pipeline may drop some of them;
    `Feed.max_frames` are those that it delivers. A live part ends in time even if the source is
    away then. Raises `SourceError` when a recording is over before `start`.
    """

    def __init__(
        self,
        source: Source,
        *,
        start: Fraction = Fraction(0),
        end: Fraction | None = None,
        stride: int = 1,
        max_frames: int | None = None,
        max_fps: Fraction | None = None,
    ) -> None:
        super().__init__(source)
        self._start = start
        self._end = end
        self._stride = stride
        self._max_frames = max_frames
        self._max_fps = max_fps
        self._alarm: threading.Timer | None = None
        self._closed = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm.join()
        super().__exit__(kind, error, trace)

    def close(self) -> None:
        """End the iteration soon, as the source does it."""
        self._closed = True
        super().close()

    @property
    def info(self) -> SourceInfo:
        """What is known of the part."""
        info = starting_at(self._source.info, self._start)
        return thinned(ending_at(info, self._end), self._stride, self._max_frames, self._max_fps)

    def __iter__(self) -> Iterator[Frame]:
        kept: Iterator[Frame] = itertools.islice(self._window(), 0, None, self._stride)
        if self._max_fps is not None and self._source.info.is_live:
            kept = spaced(kept, float(1 / self._max_fps))
        for index, frame in enumerate(itertools.islice(kept, self._max_frames)):
            yield dataclasses.replace(frame, index=index)

    def _window(self) -> Iterator[Frame]:
        frame = None
        for frame in self._source:
            if self._end is not None and frame.pts >= self._end:
                return
            if self._end is not None and self._alarm is None and self._source.info.is_live:
                self._set_alarm(frame.captured_at + float(self._end - frame.pts))
            if frame.pts >= self._start:
                yield frame
        if frame is not None and frame.pts < self._start and not self._closed and not self.info.is_live:
            raise over_before(self._start, self.name, frame.pts)

    def _set_alarm(self, end: float) -> None:
        """End the iteration soon after `end`, a `time.monotonic()`, whatever comes."""
        self._alarm = threading.Timer(end + WAIT_SECONDS - time.monotonic(), self.close)
        self._alarm.name = "stream-seg-end"
        self._alarm.daemon = True
        self._alarm.start()


def ending_at(info: SourceInfo, end: Fraction | None) -> SourceInfo:
    """Describe the part of a source before `end` seconds."""
    if end is None or (info.duration is not None and end >= info.duration):
        return dataclasses.replace(info, end=end) if end is not None else info
    count = info.frame_count
    if count is not None and info.duration:
        count = math.ceil(count * (end - info.start) / (info.duration - info.start))
    elif info.frame_rate:
        count = math.ceil((end - info.start) * info.frame_rate)
    return dataclasses.replace(info, end=end, frame_count=count)


def spaced(frames: Iterator[Frame], seconds: float) -> Iterator[Frame]:
    """Leave out frames so that those that are left were captured so many seconds apart on the average, or more.

    One may come up to `seconds` early: where a camera sends just as many as are wanted, none is to be lost to jitter.
    """
    due = -math.inf
    for frame in frames:
        if frame.captured_at >= due:
            due = max(due, frame.captured_at - seconds) + seconds
            yield frame


def thinned(info: SourceInfo, stride: int, max_frames: int | None, max_fps: Fraction | None = None) -> SourceInfo:
    """Describe a source of which only each `stride`-th frame is kept, at most `max_frames`; live `max_fps` a second."""
    count = info.frame_count
    if count is not None:
        count = math.ceil(count / stride)
    if max_frames is not None:
        count = max_frames if count is None else min(count, max_frames)
    rate = info.frame_rate / stride if info.frame_rate else None
    if rate is not None and max_fps is not None and info.is_live:
        rate = min(rate, max_fps)
    return dataclasses.replace(info, frame_rate=rate, frame_count=count)
