"""What must be back where it was after an outage: our threads, descriptors."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable


def until(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Wait until something holds; whether it did in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def readers() -> list[str]:
    """Names of the threads that read sources."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("stream-seg-reader")]


def descriptors() -> int:
    """How many files, sockets and pipes this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  a Path would open one more


def readers_end(seconds: float = 10.0) -> bool:
    """Wait for the readers that were left behind; whether all ended in time."""
    return until(lambda: not readers(), seconds)
