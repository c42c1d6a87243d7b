"""Paced: a recording that plays beside cameras, no faster than it was taken."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator

from stream_seg.frame import Frame
from stream_seg.protocols import Source
from stream_seg.sources.wrapper import Wrapper

LATE_SECONDS = 0.1
"""A frame later than this is no longer caught up with: the clock of the recording is set back."""


class Paced(Wrapper):
    """Hands out each frame of a recording when it is due; what is live, or images of their own, passes as it comes.

    `waited` is for how many seconds frames were there before they were due.
    """

    def __init__(self, source: Source, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(source)
        self.waited = 0.0
        self._clock = clock
        self._stopping = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        return self._when_due() if self.info.has_pace else iter(self._source)

    def close(self) -> None:
        """End the iteration soon, also while a frame waits until it is due."""
        self._stopping.set()
        super().close()

    def _when_due(self) -> Iterator[Frame]:
        beginning: float | None = None
        for frame in self._source:
            now, pts = self._clock(), float(frame.pts)
            if beginning is None or now - (beginning + pts) > LATE_SECONDS:
                beginning = now - pts
            is_stopping = self._stopping.wait(max(0.0, beginning + pts - now))
            due = self._clock()
            self.waited += due - now
            if is_stopping:
                return
            yield dataclasses.replace(frame, captured_at=due)
