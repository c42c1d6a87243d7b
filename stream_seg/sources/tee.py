"""Tee: one stream of bytes for several who read it, each at its own pace."""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from collections.abc import Callable

MOST_BYTES = 64 << 20
"""By how much one may be ahead of another: seconds of whatever goes through a pipe."""

POLL_SECONDS = 0.05


class Tee:
    """The bytes that `read` gives, until it gives nothing: for `pictures`, and for each `sound`, from their beginning.

    Both are file objects to read from. Who is behind gets what another has read. Sound waits where it is too far ahead;
    where it is too far behind, or begins too late, its rest is lost, and reading it raises `OSError`. Pictures wait for
    nobody. All waiting ends when `is_over`.
    """

    def __init__(self, read: Callable[[int], bytes], is_over: Callable[[], bool]) -> None:
        self._read = read
        self._is_over = is_over
        self._reading = threading.Lock()
        self._lock = threading.Lock()  # of what follows; never held for long
        self.pictures = Branch(self._fetch)
        self._beginning = Branch(self._fetch)
        self._sounds = [self._beginning]

    def sound(self) -> Branch:
        """Return all from the beginning, once more."""
        with self._lock:
            branch = Branch(self._fetch, self._beginning)
            self._sounds.append(branch)
            return branch

    def is_ahead(self, sound: Branch) -> bool:
        """Whether who reads this has read all that is there, and waits for the pictures."""
        return sound.waits and self._must_wait()

    def _must_wait(self) -> bool:
        return self.pictures.size > MOST_BYTES and not self._is_over()

    def _fetch(self, branch: Branch, size: int) -> None:
        """Have a branch get more, unless that is the end."""
        while branch is not self.pictures and self._must_wait():
            branch.waits = True
            time.sleep(POLL_SECONDS)
        branch.waits = False
        with self._reading:
            if branch.size or branch.has_ended:  # another has read meanwhile
                return
            data = self._read(size)
            with self._lock:
                self.pictures.put(data)
                for sound in self._sounds:
                    sound.put(data)
                    if sound.size > MOST_BYTES:
                        sound.lose()


class Branch:
    """What one of them has not read yet; at first that which `other` has not."""

    def __init__(self, fetch: Callable[[Branch, int], None], other: Branch | None = None) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._chunks: deque[bytes] = deque()
        self.size = 0
        self.waits = False
        self.has_ended = self._is_lost = False
        if other is not None:
            self._chunks.extend(other._chunks)
            self.size, self.has_ended, self._is_lost = other.size, other.has_ended, other._is_lost

    def read(self, size: int) -> bytes:
        """Return some bytes, at most `size`; none at the end."""
        while not self.size and not self.has_ended:
            self._fetch(self, size)
        with self._lock:
            if self._is_lost:
                raise OSError(errno.ENOBUFS, "it was not read in time")
            if not self._chunks:
                return b""
            chunk = self._chunks.popleft()
            if len(chunk) > size:
                self._chunks.appendleft(chunk[size:])
            self.size -= min(size, len(chunk))
            return chunk[:size]

    def put(self, data: bytes) -> None:
        """Add what was read; nothing is the end."""
        with self._lock:
            if not data:
                self.has_ended = True
            elif not self._is_lost:
                self._chunks.append(data)
                self.size += len(data)

    def lose(self) -> None:
        """Let go of all, also of what comes."""
        with self._lock:
            self._chunks.clear()
            self.size, self._is_lost, self.has_ended = 0, True, True
