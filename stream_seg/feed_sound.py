"""FeedSound: what is heard from a live source, on its way from the thread that reads it to the sinks that record it."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from fractions import Fraction

MOST_PIECES = 4096
"""How many wait for a sink that takes none, as while a disk hangs: a minute and a half of AAC. Older ones go."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One packet of sound as it was sent.

    `track` is a NUT file with one such packet, which tells all there is to know of its codec. `begins` is the
    `time.monotonic()` of the pictures that were captured with it, `duration` 0 where nobody knows; both in seconds.
    """

    track: bytes
    begins: Fraction
    duration: Fraction
    data: bytes


class FeedSound:
    """Hands pieces of sound, through all outages of their source, to each who listens. Any thread may use it."""

    def __init__(self) -> None:
        self.is_expected = False
        """Whether the source has sound, as far as the connection to it tells, so that some is to be waited for."""
        self._lock = threading.Lock()
        self._listeners: list[deque[Piece]] = []

    def listen(self, like: deque[Piece] | None = None) -> deque[Piece]:
        """Return where all that is heard from now on is put, to be taken from its left.

        It begins with what is in `like`, which was returned before.
        """
        with self._lock:
            pieces: deque[Piece] = deque(like or (), maxlen=MOST_PIECES)
            self._listeners.append(pieces)
        return pieces

    def leave(self, pieces: deque[Piece]) -> None:
        """Put no more into what `listen` returned. Any number of times."""
        with self._lock:
            self._listeners = [other for other in self._listeners if other is not pieces]

    def put(self, piece: Piece) -> None:
        """Hand over what was heard."""
        with self._lock:
            for pieces in self._listeners:
                pieces.append(piece)
