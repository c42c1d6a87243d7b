"""Pace: when frames are due, so that they pass no faster than they were taken."""

from __future__ import annotations

import math
from fractions import Fraction

LATEST = 0.1
"""Seconds by which a frame may be late and still be caught up with."""


class Pace:
    """Each frame is due as long after the first, which is due at once, as their `pts` (seconds) differ.

    Times are reckoned from one beginning, so that rounding does not add up. A frame that is more than `latest` seconds
    late, or comes more than `longest_step` of its own time after the one before, is due at once and a new beginning.
    """

    def __init__(self, *, latest: float = LATEST, longest_step: float = math.inf) -> None:
        self._latest = latest
        self._longest_step = longest_step
        self._beginning: float | None = None
        self._last = 0.0

    def wait(self, pts: float | Fraction, now: float) -> float:
        """Return the seconds from `now`, any clock's, until a frame is due; it may be asked about again."""
        time = float(pts)
        step, self._last = time - self._last, time
        if self._beginning is None or now - (self._beginning + time) > self._latest or step > self._longest_step:
            self._beginning = now - time
        return max(0.0, self._beginning + time - now)
