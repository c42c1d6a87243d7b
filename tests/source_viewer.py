"""Viewer: whoever watches a source while a test does something to it."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from stream_seg.availability import Availability
from stream_seg.errors import Reason
from stream_seg.frame import Frame
from stream_seg.protocols import Source
from stream_seg.sources import Reconnecting
from tests.source_counts import until


class Viewer:
    """Takes the frames of a source on a thread of its own, at once, and keeps the last and what all were like."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.frame: Frame | None = None
        self.count = 0
        self.arrived = 0.0
        self.longest_gap = 0.0
        self.indices: list[int] = []
        self.times: list[float] = []
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._view, daemon=True)

    @property
    def availability(self) -> Availability:
        assert isinstance(self.source, Reconnecting)
        return self.source.availability

    @property
    def reason(self) -> Reason | None:
        """Why the source is away, None while it is there."""
        outage = self.availability.outage
        return None if outage is None else outage.reason

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = self.error  # before it is closed: a source that was never there says so then
        self.source.close()
        self._thread.join()
        if failed is not None and error is None:
            raise failed

    def sees(self, frames: int = 1, seconds: float = 10.0) -> bool:
        """Wait for so many frames more; whether they came in time."""
        wanted = self.count + frames
        return until(lambda: self.count >= wanted or self.error is not None, seconds) and self.error is None

    def away(self, reason: Reason, seconds: float = 10.0) -> bool:
        """Wait until the source is away for this reason; whether that came to be in time."""
        return until(lambda: self.reason is reason, seconds)

    def back_after(self) -> float:
        """Wait for frames after an outage; return the seconds they took beyond the back-off."""
        due = began = time.monotonic()
        count = self.count

        def came() -> bool:
            nonlocal due
            outage = self.availability.outage
            due = max(due, (outage and outage.retry_at) or began)
            return self.count > count

        assert until(came, 30), self.availability.outage
        return time.monotonic() - due

    def ended(self, seconds: float = 10.0) -> bool:
        """Wait for the end of the frames."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _view(self) -> None:
        try:
            with self.source as source:
                for frame in source:
                    self._note(frame)
        except BaseException as error:
            self.error = error

    def _note(self, frame: Frame) -> None:
        now = time.monotonic()
        if self.count:
            self.longest_gap = max(self.longest_gap, now - self.arrived)
        self.indices.append(frame.index)
        self.times.append(float(frame.pts))
        self.frame, self.arrived = frame, now
        self.count += 1
