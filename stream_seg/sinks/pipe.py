"""Pipe: the writable end of a pipe, of which is known whether its reader takes what is written, and is still there."""

from __future__ import annotations

import math
import os
import sys
import time

if sys.platform == "win32":
    _AT_ONCE = 65536

    def _takes_some(descriptor: int, seconds: float) -> bool:  # noqa: ARG001  as elsewhere
        """Whether `_AT_ONCE` bytes can be written without waiting; there that cannot be known."""
        return True
else:
    import select

    _AT_ONCE = select.PIPE_BUF

    def _takes_some(descriptor: int, seconds: float) -> bool:
        """Whether `_AT_ONCE` bytes can be written without waiting, or writing fails; waits so long for that."""
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        return bool(poll.poll(None if math.isinf(seconds) else seconds * 1000))


class Pipe:
    """A descriptor to write to, which stays open. What is written waits for `pass_on`.

    `users` are the sinks that still write to it, where several share it.
    """

    def __init__(self, descriptor: int) -> None:
        self.error: OSError | None = None
        self.users: set[object] = set()
        self._descriptor = descriptor
        self._waiting = bytearray()

    def write(self, data: bytes) -> int:
        if self.error is None:
            self._waiting += data
        return len(data)

    def pass_on(self, seconds: float) -> bool:
        """Write what waits, for so many seconds at most; whether nothing waits any more. Raises `OSError` once."""
        until = time.monotonic() + seconds
        while self._waiting and _takes_some(self._descriptor, max(0.0, until - time.monotonic())):
            try:
                written = os.write(self._descriptor, self._waiting[:_AT_ONCE])
            except OSError as error:
                self.error = error
                self._waiting.clear()
                raise
            del self._waiting[:written]
        return not self._waiting

    def begin(self) -> None:
        """The header waits as well, and is passed on with the first picture."""

    def empty(self) -> None:
        self._waiting.clear()

    def checkpoint(self) -> None:
        """What was written cannot be had back."""
