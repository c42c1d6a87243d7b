"""Owns the trails of objects: what is remembered of where they stood in the last seconds, and how that looks.

It belongs to who draws, as colours and places of names do, and not to who follows: nobody else needs it, `Detections`
stay small, and where a picture is drawn in two sizes, each has its own.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Sequence
from itertools import pairwise
from numbers import Real
from typing import NamedTuple

import cv2
import numpy as np

from stream_seg.detections import Detections
from stream_seg.errors import UsageError
from stream_seg.frame import Frame, Image
from stream_seg.geometry import feet
from stream_seg.render.palette import Colour

MOST_SECONDS = 60.0
"""The longest trail: what has passed in that time covers the picture, and is remembered."""

_STEP = 0.03
"""How far an object must have come to have moved, as a share of its size: what stands trembles by 0.02 at most
(`line.py`), and would else scribble. And at least as far as a trail is wide: OpenCV takes microseconds for each corner.
"""

_UNSEEN = 1.0
"""For how many seconds an object may not be shown and come straight from where it was: while it is outside of a region,
nobody knows which way it takes."""

_MOST_STOPS = 512
"""In how many places an object is remembered to have been, about, however long its trail is and fast the film."""

_WIDEST = 2
"""The width of a trail where the object is, in widths of a box's line; at its end it is a pixel wide."""

_SHIFT = 4  # bits after the point: in whole pixels, slow objects would leave stairs


def check_trails(seconds: float) -> None:
    """Raise `UsageError` for what is no length of a trail, in seconds."""
    if not isinstance(seconds, Real) or isinstance(seconds, bool) or not 0 < seconds <= MOST_SECONDS:
        raise UsageError(f"trails show the last seconds; give more than 0, {MOST_SECONDS:g} at most, got {seconds!r}")


class _Stop(NamedTuple):
    """Where an object was, x and y in pixels, and when it was there last, in seconds."""

    at: float
    x: float
    y: float


class Trails:
    """Draws where each object has stood for the last `seconds`, by its number. Use one per film.

    Objects that are not shown have no trail, but keep it for a second. All is forgotten where the time goes back, the
    pictures have another size, or one comes that is no film. Raises `UsageError` as `check_trails` does.
    """

    def __init__(self, seconds: float) -> None:
        check_trails(seconds)
        self._seconds = float(seconds)
        self._stops: OrderedDict[int, deque[_Stop]] = OrderedDict()  # of each number; those shown last come last
        self._size: tuple[int, int] | None = None  # of the frame before
        self._at = 0.0

    def draw(self, image: Image, frame: Frame, shown: Detections, colours: Sequence[Colour], line: int) -> None:
        """Draw on `image` what leads to the objects `shown` in `frame`, each in its colour; their boxes are finite.

        `line` is the width of a box's line. Call it once per frame, in order.
        """
        now = float(frame.pts)
        if frame.is_still or frame.size != self._size or now < self._at:
            self._stops.clear()
        self._size, self._at = frame.size, now
        if frame.is_still:
            return
        since, widest = now - self._seconds, _WIDEST * line
        if shown.ids is not None:
            objects = zip(shown.ids.tolist(), shown.boxes.tolist(), feet(shown, frame.size), colours, strict=True)
            for number, (x1, y1, x2, y2), (x, y), tone in objects:
                here = _Stop(now, x, y)
                stops = self._followed(number, here, since, max(widest, _STEP * math.sqrt((x2 - x1) * (y2 - y1))))
                if len(stops) > 1:
                    self._draw([*stops, here], image, tone, widest)
        while self._stops and next(iter(self._stops.values()))[-1].at < max(since, now - _UNSEEN):
            self._stops.popitem(last=False)

    def _followed(self, number: int, here: _Stop, since: float, step: float) -> deque[_Stop]:
        """Where an object has been `since` then that is `here` now, and moves if it comes further than a `step`."""
        stops = self._stops.setdefault(number, deque())
        self._stops.move_to_end(number)
        while stops and stops[0].at < since:
            stops.popleft()
        if not stops:
            stops.append(here)
            return stops
        last = stops[-1]
        if math.dist(last[1:], here[1:]) < step:
            stops[-1] = last._replace(at=here.at)
        elif (here.at - last.at) * _MOST_STOPS >= self._seconds:
            stops.append(here)
        return stops

    def _draw(self, stops: Sequence[_Stop], image: Image, tone: Colour, widest: int) -> None:
        """Draw the way along `stops`, the newest of which is last, the thinner the longer ago it was gone along."""
        times, places = np.split(np.array(stops), [1], axis=1)
        shares = 1 - (stops[-1].at - times[:-1, 0]) / self._seconds
        widths = np.maximum(np.ceil(shares * widest), 1).astype(int)
        size = np.array(image.shape[1::-1])
        # What a broken model finds miles away has no place in the whole numbers of OpenCV.
        corners = np.rint(np.clip(places, -size, 2 * size) * 2**_SHIFT).astype(np.int32)
        parts = [0, *(np.flatnonzero(np.diff(widths)) + 1).tolist(), len(widths)]
        for first, last in pairwise(parts):
            way = [corners[first : last + 1]]
            cv2.polylines(image, way, False, tone, int(widths[first]), cv2.LINE_AA, _SHIFT)
