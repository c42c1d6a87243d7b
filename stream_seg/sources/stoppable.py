"""Stoppable: what every source shares, a close that any thread may ask for at any time."""

from __future__ import annotations

import threading
from typing import Self

from stream_seg.frame import SourceInfo


class Stoppable:
    """Base of the sources: keeps `name` and `info`, and turns `close` into the end of the iteration.

    `name` is safe to print, and there from the beginning. `close` only asks; whoever iterates looks at `_stopping`
    before each frame. What is open is released by `_release`, on the thread that leaves the `with` block, because a
    device or a decoder may not be closed under a reader.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._stopping = threading.Event()
        self._info: SourceInfo | None = None
        self._is_over = False

    @property
    def info(self) -> SourceInfo:
        """What is known of the source; an error before it is open, for those that wait for a device or a network."""
        if self._info is None:
            raise RuntimeError("the source is not open yet; use it in a with block")
        return self._info

    def __enter__(self) -> Self:
        if self._is_over:
            raise RuntimeError(f"{self.name} was read already; a source is used once, make a new one")
        try:
            self._open()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._is_over = True
        self._release()

    def close(self) -> None:
        """End the iteration soon. Any thread, any state, any number of times."""
        self._stopping.set()

    def _open(self) -> None:
        """Take what has to be taken; may wait."""

    def _release(self) -> None:
        """Let go of it. Called once or more, also after a failed `_open`."""
