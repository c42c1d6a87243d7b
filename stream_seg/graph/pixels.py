"""Pooling of regions by whole pixels: RoIAlign's points moved a little, so that 8-bit features need no arithmetic.

RoIAlign interpolates between the four pixels round a point with weights of any size, in float32. Here each point is
moved to the nearest quarter of a pixel, and is the plain sum of four pixels round it, some of them several times, whose
centre is that point. (Only the term of bilinear interpolation in x times y is not always exact.) Whole rows of channels
are copied and added; the layer that follows divides by four and takes the features cell by cell as they come.
"""

from __future__ import annotations

import numpy as np

from stream_seg.graph.emit import Value
from stream_seg.graph.roi import GatheredPooler, spread
from stream_seg.graph.rpn import Rois

TAPS = 4
"""Pixels that are added to give a point."""

_ROUNDING_X, _ROUNDING_Y = ((order + 0.5) / TAPS for order in (np.arange(TAPS), np.array([1, 3, 0, 2])))
"""What is added to a coordinate, in each tap, before it is rounded down: a fraction of one half takes the next pixel in
two taps of four. The orders differ, so that two halves give all four neighbours once."""


class PixelPooler(GatheredPooler):
    """Pools regions from feature maps as `Pooler` says, with one point per cell."""

    def pool_sums(self, rois: Rois, size: int) -> Value:
        """TAPS times the features, (R, size * size * C): cells in row-major order, each with all its channels."""
        at = self.locate(rois)
        x, y = _places(at.x1, at.x2, at.width, size), _places(at.y1, at.y2, at.height, size)
        columns = [_rounded(x, at.width, float(rounding)).unsqueeze(1) for rounding in _ROUNDING_X]
        rows = [
            (_rounded(y, at.height, float(rounding)) * at.width + at.begin).unsqueeze(2) for rounding in _ROUNDING_Y
        ]
        indices = [(row + column).reshape(-1) for row, column in zip(rows, columns, strict=True)]
        with self.graph.scope("pixels"):
            a, b, c, d = (self._pixels.gather(index) for index in indices)
            return ((a + b) + (c + d)).reshape(-1, size * size * self.channels)


def _places(low: Value, high: Value, length: Value, size: int) -> Value:
    """(R, size) middles of the cells from low to high, inside the map."""
    return spread(low, high, size).minimum((length - 1).cast(np.float32))


def _rounded(place: Value, length: Value, rounding: float) -> Value:
    return place.graph.op("Floor", place + rounding).cast(np.int64).minimum(length - 1)
