"""Keeps the memory of runs that last for days flat."""

from __future__ import annotations

import time
from collections.abc import Callable

from stream_seg.heap import trim
from stream_seg.protocols import Sink

TRIM_SECONDS = 10.0
"""Room that pictures leave is soon taken by smaller things, and the next pictures make the heap larger: by some
megabytes in so long. It holds up others, so it is not done all the time."""


class Trimmer(Sink):
    """Gives free memory between what is in use back to the system every ten seconds; takes no interest in frames."""

    wants_pictures = False

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = clock() + TRIM_SECONDS

    def wants_stop(self) -> bool:
        """Never; it is asked often, though, which is when it does its work."""
        if self._clock() >= self._due:
            trim()
            self._due = self._clock() + TRIM_SECONDS
        return False
