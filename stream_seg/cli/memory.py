"""Keeps the memory of runs that last for days flat, where the C library is glibc."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable

from stream_seg.detections import Detections
from stream_seg.frame import Frame, SourceInfo
from stream_seg.protocols import Outcome, Sink

M_ARENA_MAX = -8
"""mallopt(3): the most heaps that threads get of their own."""

HEAPS = 2

TRIM_SECONDS = 10.0
"""Room that pictures leave is soon taken by smaller things, and the next pictures make the heap larger: by some
megabytes in so long. Trimming holds up whoever wants memory for some 10 ms, so it is not done all the time."""


def limit_heaps() -> None:
    """Have all threads share two heaps.

    Each thread else gets one, up to eight for each core, which keeps what the largest pictures ever took in it; with
    several feeds that come and go, the resident memory grew by a fifth in 20 minutes (`scripts/soak.py`).
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is not None:
        mallopt(M_ARENA_MAX, HEAPS)


class Trimmer(Sink):
    """Gives free memory between what is in use back to the system every ten seconds; takes no interest in frames."""

    wants_pictures = False

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = clock() + TRIM_SECONDS
        self._trim = _of_glibc("malloc_trim")

    def open(self, info: SourceInfo) -> None:
        """Nothing to prepare."""

    def write(self, frame: Frame, detections: Detections) -> None:
        """Nothing to do with it."""

    def wants_stop(self) -> bool:
        """Never; it is asked often, though, which is when it does its work."""
        if self._trim is not None and self._clock() >= self._due:
            self._trim(0)
            self._due = self._clock() + TRIM_SECONDS
        return False

    def close(self, outcome: Outcome) -> None:
        """Nothing to finish."""


def _of_glibc(name: str) -> Callable[..., int] | None:
    """A function of the C library; None on systems, and in libraries such as musl, that lack it."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
