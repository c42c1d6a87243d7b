"""Region: keeps of what was found what stands in a part of the picture."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import cv2
import numpy as np

from stream_seg.detections import Detections, check_found
from stream_seg.errors import UsageError
from stream_seg.frame import Frame, check_frame
from stream_seg.protocols import Follower

logger = logging.getLogger(__name__)


class Region:
    """Leaves out what does not stand within `corners`: the middle of the lower edge of its box decides.

    `corners` are x, y in pixels of the frame: three or more of a polygon, or two opposite ones of a rectangle. The edge
    belongs to it. `follower`, such as a `Steady`, comes first, so that numbers stay the same for what leaves the region
    and comes back. Raises `UsageError` for corners that are none.
    """

    def __init__(self, corners: Sequence[tuple[float, float]], follower: Follower | None = None) -> None:
        try:
            places = np.array(corners, np.float32)
        except (TypeError, ValueError):  # not of numbers, or not all of as many
            places = np.empty(0, np.float32)
        if places.shape[1:] != (2,) or len(places) < 2 or not np.isfinite(places).all():
            raise UsageError(f"a region has two corners (x, y), of a rectangle, or more, got {corners}")
        if len(places) == 2:
            (x1, y1), (x2, y2) = places
            places = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], np.float32)
        self._corners = places
        self._follower = follower
        self._is_checked = False

    def __call__(self, frame: Frame, found: Detections) -> Detections:
        check_frame(frame)
        check_found(found)
        if not self._is_checked:
            self._is_checked = True
            self._warn_if_outside(frame.size)
        if self._follower is not None:
            found = self._follower(frame, found)
        lowest = frame.size[1] - 1
        feet = [((x1 + x2) / 2, y2) for x1, _, x2, y2 in found.boxes.tolist()]
        return found[np.array([self._holds(x, y, lowest) for x, y in feet], np.bool_)]

    def _holds(self, x: float, y: float, lowest: int) -> bool:
        """Whether a place is within; what leaves the picture at its lower edge stands in the `lowest` row of pixels."""
        if not math.isfinite(x + y):
            return False
        return cv2.pointPolygonTest(self._corners, (x, min(y, lowest)), measureDist=False) >= 0

    def _warn_if_outside(self, size: tuple[int, int]) -> None:
        low, high = self._corners.min(0), self._corners.max(0)
        if (low >= size).any() or (high < 0).any():
            logger.warning("the region lies outside of the picture, which is %dx%d pixels", *size)
