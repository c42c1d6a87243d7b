"""Seen: which pictures of a live playlist came before, with an earlier connection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame

MOST = 2048
"""Pictures to remember: a connection begins two segments before the end, which are mostly up to 10 s long each."""

ROWS = 16
"""Of so many rows one is looked at."""


class Seen:
    """Tells the pictures of a playlist that have come from new ones, by their time stamps and a part of their pixels.

    A server names the last segments of a camera also when that has gone, and whoever connects anew gets them again.
    Time stamps alone do not tell: those of a camera that was started again begin where they did before.

    It may be asked by the readers of several connections.
    """

    def __init__(self) -> None:
        self._marks: dict[int, None] = {}  # in the order in which they came
        self._newest: int | None = None

    def unseen(self, pictures: Iterable[tuple[Fraction, VideoFrame]]) -> Iterator[tuple[Fraction, VideoFrame]]:
        """The pictures of a connection, with their times, without those at its beginning that others have given.

        These end with the newest of all at the latest: of a film that is sent again and again all is known.
        """
        newest = self._newest
        is_again = True
        for pts, picture in pictures:
            mark = _mark(picture)
            is_again = is_again and mark in self._marks
            if is_again:
                is_again = mark != newest
                continue
            self._marks.pop(mark, None)
            self._marks[mark] = None
            self._newest = mark
            if len(self._marks) > MOST:
                self._marks.pop(next(iter(self._marks)), None)
            yield pts, picture


def _mark(picture: VideoFrame) -> int:
    plane = picture.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[::ROWS, : plane.width]
    return hash((picture.pts, rows.tobytes()))
