"""Pace: when pictures are due that a server hands over in segments, seconds of them at once."""

from __future__ import annotations

LATEST = 0.5
"""Seconds by which a picture may be late and still be caught up with. Beyond that its segment came late."""

LONGEST_STEP = 1.0
"""Seconds between two pictures above which there is nothing to wait for: the server has left out some between them."""


class Pace:
    """Spreads pictures as they were taken: each is due as long after the one before as their times are apart.

    The first is due at once, and so is one that comes after the latest moment or after a leap in time; what follows
    counts from there. So the delay grows only where the server would otherwise be waited for with every segment.
    """

    def __init__(self) -> None:
        self._began: float | None = None
        self._last = 0.0

    def wait(self, time: float, now: float) -> float:
        """Return the seconds from `now`, any clock's, until the picture of this `time` is due."""
        step, self._last = time - self._last, time
        if self._began is None or now - (self._began + time) > LATEST or step > LONGEST_STEP:
            self._began = now - time
        return max(0.0, self._began + time - now)
