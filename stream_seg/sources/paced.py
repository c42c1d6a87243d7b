"""Paced: a recording that plays beside cameras, no faster than it was taken."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator

from stream_seg.frame import Frame
from stream_seg.pace import Pace
from stream_seg.protocols import Source
from stream_seg.sources.wrapper import Wrapper


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
        pace = Pace()
        for frame in self._source:
            now = self._clock()
            is_stopping = self._stopping.wait(pace.wait(frame.pts, now))
            due = self._clock()
            self.waited += due - now
            if is_stopping:
                return
            yield dataclasses.replace(frame, captured_at=due)
