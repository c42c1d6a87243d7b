"""The C library's heap, where that is glibc's: it keeps what was freed unless it is told otherwise."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

M_ARENA_MAX = -8
"""mallopt(3): the most heaps that threads get of their own."""

HEAPS = 2


def limit_heaps() -> None:
    """Have all threads share two heaps.

    Each thread else gets one, up to eight for each core, which keeps what the largest pictures ever took in it; with
    several feeds that come and go, the resident memory grew by a fifth in 20 minutes (`scripts/soak.py`).
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is not None:
        mallopt(M_ARENA_MAX, HEAPS)


def trim() -> None:
    """Give memory between what is in use back to the system. Whoever wants memory meanwhile waits, for some 10 ms."""
    malloc_trim = _of_glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """A function of the C library; None on systems, and in libraries such as musl, that lack it."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
