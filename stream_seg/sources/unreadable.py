"""Unreadable: stands for a recording that cannot be read, where others are to be had all the same."""

from __future__ import annotations

from collections.abc import Iterator

from stream_seg.errors import SourceError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.sources.stoppable import Stoppable


class Unreadable(Stoppable):
    """Raises `error`, which says why it cannot be read, when it is opened; until then it is an empty film."""

    def __init__(self, name: str, error: SourceError) -> None:
        super().__init__(name)
        self._error = error
        self._info = SourceInfo(name, (0, 0), "video", frame_count=0)

    def __iter__(self) -> Iterator[Frame]:
        return iter(())

    def _open(self) -> None:
        raise self._error
