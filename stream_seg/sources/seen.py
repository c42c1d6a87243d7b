"""Seen: which pictures of a live playlist came before, with an earlier connection."""

from __future__ import annotations

from collections import OrderedDict

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
        self._marks: OrderedDict[int, bool] = OrderedDict()

    def again(self, picture: VideoFrame) -> bool:
        """Whether a picture came before; from now on it did."""
        plane = picture.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[::ROWS, : plane.width]
        mark = hash((picture.pts, rows.tobytes()))
        is_known = self._marks.pop(mark, False)
        self._marks[mark] = True
        if len(self._marks) > MOST:
            self._marks.popitem(last=False)
        return is_known
