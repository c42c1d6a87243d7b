"""LiveClock: presentation times of frames that have none but the moment they were captured."""

from __future__ import annotations

from fractions import Fraction

CLOCK = 90000
"""Ticks per second of live times, as in MPEG."""


class LiveClock:
    """Turns capture times into presentation times that begin with 0 and always grow."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._last = -1

    def pts(self, captured_at: float) -> Fraction:
        """Return the time since the first frame, in seconds, a multiple of 1/90000."""
        if self._began is None:
            self._began = captured_at
        self._last = max(self._last + 1, round((captured_at - self._began) * CLOCK))
        return Fraction(self._last, CLOCK)
