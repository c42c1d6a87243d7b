"""Turn: has threads that read small pictures work one after the other rather than all at once."""

from __future__ import annotations

import threading
import time
from typing import ClassVar

LONGEST_TURN = 0.25
"""Seconds after which who has the turn is taken to hang."""

SLOW_TURN = 0.02
"""Seconds that no turn takes but one that waits for the network, or now and then on a busy machine."""

MOST_SLOW = 5
"""Slow turns in a row after which it is the network, and a thread does without for `TURNS_MISSED` turns."""

TURNS_MISSED = 100


class Turn:
    """What one of the threads has of the turn that they share; it is used by that thread alone.

    Python runs one thread at a time, and PyAV passes that right on some twenty times for a packet read and a picture
    decoded. The threads of 16 cameras whose pictures come together woke each other 8,000 times a second, mostly for
    nothing, which cost as much as decoding (docs/performance.md). Nobody waits for who holds the turn long, as when the
    network stalls within a picture.
    """

    _shared: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self._held: threading.Lock | None = None
        self._since = 0.0
        self._slow = 0
        self._missing = 0

    def take(self) -> None:
        """Wait for the turn, though not long: it is a favour to the others, and nothing depends on it."""
        if self._missing:
            self._missing -= 1
            return
        lock = Turn._shared
        if lock.acquire(timeout=LONGEST_TURN):
            self._held, self._since = lock, time.monotonic()
        elif Turn._shared is lock:
            Turn._shared = threading.Lock()

    def leave(self) -> None:
        """Let the next one work; to be called before anything that may wait. Any number of times."""
        if self._held is None:
            return
        self._held.release()
        self._held = None
        self._slow = self._slow + 1 if time.monotonic() - self._since > SLOW_TURN else 0
        if self._slow == MOST_SLOW:
            self._slow, self._missing = 0, TURNS_MISSED
