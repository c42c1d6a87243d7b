"""Line: counts what crosses a line in the picture, by class and direction."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stream_seg.detections import Crossing, Crossings, Detections, Direction, check_found
from stream_seg.errors import UsageError
from stream_seg.frame import Frame, check_frame
from stream_seg.geometry import feet, part_within
from stream_seg.metrics import KNOWN
from stream_seg.protocols import Follower
from stream_seg.region import Placed, pixels

_SETTLED = 0.1
"""How far behind the line an object must have come to have crossed it, as a share of its size: what stands on it
trembles by 0.02 at most in samples/clip.mp4, as `Steady` shows it."""

_LEAST = 1.0
"""The same in pixels, however small it is."""


class Line(Placed):
    """Counts what crosses the line from `start` to `end`, x and y in pixels of the frame. Use one per film.

    The middle of the lower edge of its box decides, as in a `Region`. For one who looks from `start` to `end`, what
    comes over to the right goes in, to the left out: over a line from left to right, in is down. It counts once it is a
    tenth of its size behind the line, and again once it is as far back.

    `follower` comes first: a `Steady`, by whose numbers objects are told apart, alone or within a `Region` or another
    `Line`. What it shows is passed on with `Detections.lines`, one more for each line. Images of their own, which are
    no film, are passed on as they are.

    Raises `UsageError` for ends that are none, or not a pixel apart, for a line outside of the first frame, and for
    objects without numbers. A warning tells of later frames that have another size.
    """

    _what = "line"

    def __init__(self, start: tuple[float, float], end: tuple[float, float], follower: Follower | None = None) -> None:
        ends = pixels([start, end], "line", "a line has two ends (x, y)", example="0,360,1280,360")
        self._start, step = ends[0].tolist(), (ends[1] - ends[0]).tolist()
        self._length = math.hypot(*step)
        if self._length < 1:
            raise UsageError(
                f"the line from {start[0]:g},{start[1]:g} to {end[0]:g},{end[1]:g} is shorter than a pixel"
            )
        self._along = step[0] / self._length, step[1] / self._length
        super().__init__([ends], follower)
        self._places: OrderedDict[int, _Place] = OrderedDict()
        self._crossings = Crossings(start, end)

    def __call__(self, frame: Frame, found: Detections) -> Detections:
        check_frame(frame)
        if self._follower is not None:
            found = self._follower(frame, found)
        check_found(found)
        if frame.is_still:
            return found
        self._check_size(frame)
        if found.ids is None and len(found):
            raise UsageError("a line counts objects by their numbers, which they have none of; give it a Steady")
        now = []
        ids = [] if found.ids is None else found.ids.tolist()
        objects = zip(ids, found.names, found.boxes.tolist(), feet(found, frame.size), strict=True)
        for number, name, (x1, y1, x2, y2), (x, y) in objects:
            settled = max(_LEAST, _SETTLED * math.sqrt(max(0, (x2 - x1) * (y2 - y1))))
            direction = self._crossed(number, x, y, settled) if math.isfinite(x + y) else None
            if direction is not None:
                now.append(Crossing(number, name, direction))
        if now or self._crossings.now:
            self._crossings = _with(self._crossings, now)
        return replace(found, lines=(*found.lines, self._crossings))

    def _is_within(self, points: NDArray[np.float32], size: tuple[int, int]) -> bool:
        """So it is nowhere, too, where its ends are on several sides, and it goes past a corner."""
        is_seen = part_within(self._crossings.start, self._crossings.end, size) is not None
        return is_seen and super()._is_within(points, size)

    def _crossed(self, number: int, x: float, y: float, settled: float) -> Direction | None:
        """Which way an object has crossed that stands at x, y now; None for one that has not, or not for sure yet."""
        x, y = x - self._start[0], y - self._start[1]
        along = x * self._along[0] + y * self._along[1]
        right = y * self._along[0] - x * self._along[1]
        place = self._places.get(number)
        if place is None:
            self._places[number] = _Place(along, right, is_right=right >= 0)
            if len(self._places) > KNOWN:
                self._places.popitem(last=False)
            return None
        self._places.move_to_end(number)
        if (right >= 0) != (place.right >= 0):
            share = place.right / (place.right - right)
            place.is_through = 0 <= place.along + share * (along - place.along) <= self._length
        place.along, place.right = along, right
        if abs(right) < settled or (right >= 0) == place.is_right:
            return None
        place.is_right = not place.is_right
        if not place.is_through:
            return None
        return "in" if place.is_right else "out"


@dataclass(slots=True)
class _Place:
    """Where an object stood last, in pixels along the line and to the right of it.

    `is_right` tells on which side it counts as being, `is_through` whether it came over the line, rather than past one
    of its ends, when it last changed sides.
    """

    along: float
    right: float
    is_right: bool
    is_through: bool = False


def _with(crossings: Crossings, now: Sequence[Crossing]) -> Crossings:
    """The same line with those that cross it in another frame."""
    counts = {direction: Counter(names) for direction, names in crossings.counts.items()}
    for crossing in now:
        counts[crossing.direction][crossing.name] += 1
    return replace(crossings, counts={way: dict(names) for way, names in counts.items()}, now=tuple(now))
