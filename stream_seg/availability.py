"""Availability: whether a source is there, and how often, how long and why it was not."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from stream_seg.errors import Reason


@dataclass(frozen=True, slots=True)
class Outage:
    """A time without frames. `began` and `retry_at` are `time.monotonic()`; `retry_at` is None while it is being tried.

    `attempts` counts the tries to have the source back that failed.
    """

    reason: Reason
    began: float
    attempts: int = 0
    retry_at: float | None = None


class Availability:
    """Written by the thread that reads the source; any thread may read.

    `outage` is the present one, None while frames come. `counts` says how many began, by the first reason of each.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._past_seconds = 0.0
        self.outage: Outage | None = None
        self.counts: Counter[Reason] = Counter()

    @property
    def seconds_away(self) -> float:
        """How long the source was away in all, the present outage included."""
        outage = self.outage
        return self._past_seconds + (0.0 if outage is None else self._clock() - outage.began)

    def lost(self, reason: Reason, retry_at: float | None = None) -> None:
        """The source has gone, or a try to have it back failed; the next try is due at `retry_at`."""
        if self.outage is None:
            self.counts[reason] += 1
            self.outage = Outage(reason, self._clock(), 0, retry_at)
        else:
            self.outage = replace(self.outage, reason=reason, attempts=self.outage.attempts + 1, retry_at=retry_at)

    def trying(self) -> None:
        """The source is being opened again."""
        if self.outage is not None:
            self.outage = replace(self.outage, retry_at=None)

    def back(self) -> None:
        """Frames come again."""
        if self.outage is not None:
            self._past_seconds += self._clock() - self.outage.began
            self.outage = None
