"""Keeps the memory of runs that last for days flat."""

from __future__ import annotations

import ctypes
import sys

M_ARENA_MAX = -8
"""mallopt(3): the most heaps that threads get of their own."""

ARENAS = 2


def limit_heaps() -> None:
    """Have all threads share two heaps, where the C library is glibc.

    Each thread else gets one, up to eight for each core, which keeps what the largest pictures ever took in it; with
    several feeds that come and go, the resident memory grew by a fifth in 20 minutes. Pictures are few and large, so
    that sharing costs nothing that could be measured.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(M_ARENA_MAX, ARENAS)
