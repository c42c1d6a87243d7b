"""Region: keeps of what was found what stands in some part of the picture, and counts it."""

from __future__ import annotations

import itertools
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.detections import Detections, check_found
from stream_seg.errors import UsageError
from stream_seg.frame import Frame, check_frame
from stream_seg.geometry import feet
from stream_seg.given import refuse_no_step
from stream_seg.protocols import Follower

logger = logging.getLogger(__name__)

Corners = Sequence[tuple[float, float]]
"""x, y in pixels of the frame: three or more of a polygon, or two opposite ones of a rectangle."""


class Placed:
    """What a `Region` and a `Line` have in common: places in pictures of one size, and a `follower` that comes first.

    `points` are those of each place, (K, 2), x and y in pixels; `_what` is what a place is called.
    """

    _what: str

    def __init__(self, points: Sequence[NDArray[np.float32]], follower: Follower | None) -> None:
        refuse_no_step("follower", follower)
        self._points = points
        self._follower = follower
        self._size: tuple[int, int] | None = None  # of the frame before

    def refuse_outside(self, size: tuple[int, int]) -> None:
        """Raise `UsageError` if one of the places lies outside of pictures of `size` (width, height)."""
        for points in self._points:
            if not self._is_within(points, size):
                where = f"the {self._what} {_extent(points)}"
                raise UsageError(f"{where} lies outside of the picture, which is {size[0]}x{size[1]} pixels")

    def _is_within(self, points: NDArray[np.float32], size: tuple[int, int]) -> bool:
        """Whether the points are not all on one side of a picture of `size` (width, height)."""
        return bool((points.min(0) < size).all() and (points.max(0) > 0).all())

    def _check_size(self, frame: Frame) -> None:
        """Refuse places outside of the first frame, and warn of a frame that has another size than the one before.

        Of images of their own, which may be of other sizes, a warning says the former and nothing the latter.
        """
        before, self._size = self._size, frame.size
        if before is None:
            try:
                self.refuse_outside(frame.size)
            except UsageError as error:
                if not frame.is_still:
                    raise
                logger.warning("%s", error)
        elif before != frame.size and not frame.is_still:
            for points in self._points:
                logger.warning(
                    "the picture is %dx%d pixels now, no longer %dx%d: "
                    "the %s %s is in those and no longer where it was",
                    *(*frame.size, *before, self._what, _extent(points)),
                )


class Region(Placed):
    """Leaves out what does not stand within `corners`: the middle of the lower edge of its box decides.

    A list of such corners is several regions: what stands within any of them is kept. The edge belongs to a region.
    `follower`, such as a `Steady`, comes first, so that numbers stay the same for what leaves the regions and comes
    back. What is kept is passed on with the polygons, in `Detections.regions`, and with how many of each class stand in
    each of them, in `Detections.occupancy`: what stands in several regions is in the count of each. Of a `Region`
    within another, those are counted that stand in both.

    Raises `UsageError` for corners that are none, and so does the first frame if a region lies outside of it; of images
    of their own, which may be of other sizes, a warning says so, as of a camera that comes back with another.
    """

    _what = "region"

    def __init__(self, corners: Corners | Sequence[Corners], follower: Follower | None = None) -> None:
        super().__init__(tuple(polygon(one) for one in _each(corners)), follower)

    def __call__(self, frame: Frame, found: Detections) -> Detections:
        check_frame(frame)
        check_found(found)
        self._check_size(frame)
        if self._follower is not None:
            found = self._follower(frame, found)
        regions = (*found.regions, *self._points)
        within = standing(found, regions, frame.size)
        kept = np.flatnonzero(within[:, len(found.regions) :].any(1))
        found, within = found[kept], within[kept]
        names = found.names
        occupancy = tuple(dict(Counter(itertools.compress(names, column))) for column in within.T.tolist())
        return replace(found, regions=regions, occupancy=occupancy)


def standing(found: Detections, regions: Sequence[NDArray[np.float32]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which of `found` stand in which of the regions, polygons as in `Detections.regions`, in a frame of `size` (width,
    height): (N, regions).
    """
    rows = [[_holds(corners, place) for corners in regions] for place in feet(found, size)]
    return np.array(rows, np.bool_).reshape(len(found), len(regions))


def polygon(corners: Corners) -> NDArray[np.float32]:
    """The corners (K, 2) of a region, four of a rectangle. Raises `UsageError` for those of none."""
    wants = "a region has two corners (x, y), of a rectangle, or more"
    places = pixels(corners, "region", wants, example="0,360,640,720")
    words = _words(places)
    if len(places) == 2:
        (x1, y1), (x2, y2) = places
        places = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], np.float32)
    if cv2.contourArea(cv2.convexHull(places)) < 1:  # the hull: the area of edges that cross each other may be 0
        raise UsageError(f"the region {words} is smaller than a pixel, so that nothing stands in it")
    return places


def pixels(points: Sequence[tuple[float, float]], what: str, wants: str, *, example: str) -> NDArray[np.float32]:
    """The points (K, 2) of `what` as an array. Raises `UsageError` for less than two, saying what it `wants`.

    So it does for shares of the picture, as other programs take them, which are a corner of a pixel here.
    """
    try:
        places = np.array(points, np.float32)
    except (TypeError, ValueError):  # not of numbers, or not all of as many
        places = np.empty(0, np.float32)
    if places.shape[1:] != (2,) or len(places) < 2 or not np.isfinite(places).all():
        raise UsageError(f"{wants}, got {points}")
    if places.min() >= 0 and places.max() <= 1:
        raise UsageError(f"the {what} {_words(places)} is in shares of the picture; give pixels, as in {example}")
    return places


def _holds(corners: NDArray[np.float32], place: tuple[float, float]) -> bool:
    """Whether a polygon with `corners` (K, 2) has a place in it or on its edge; what is not finite is nowhere."""
    return all(map(math.isfinite, place)) and cv2.pointPolygonTest(corners, place, measureDist=False) >= 0


def _extent(places: NDArray[np.float32]) -> str:
    """From where to where points (K, 2) are."""
    low, high = places.min(0), places.max(0)
    return f"from {low[0]:g},{low[1]:g} to {high[0]:g},{high[1]:g}"


def _words(places: NDArray[np.float32]) -> str:
    return ",".join(f"{number:g}" for number in places.ravel())


def _each(corners: Corners | Sequence[Corners]) -> Sequence[Corners]:
    """The corners of each region."""
    try:
        are_several = np.ndim(corners[0]) == 2
    except (TypeError, ValueError, IndexError):  # these are none at all
        are_several = False
    return cast(Sequence[Corners], corners if are_several else [corners])
