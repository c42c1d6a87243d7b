"""Pooling of regions: each from the pyramid level that suits its size, by RoIAlign (He 2017).

Two forms give the same features. CUDA has a good RoIAlign operator. The one for the CPU works through channels one by
one, and took a sixth of the time of a ResNet-50 network; there, the pixels that a region needs are gathered with all
their channels side by side, and combined by two rounds of products with the interpolation weights, first along y, then
along x: half the time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stream_seg.graph.boxes import area
from stream_seg.graph.config import Device, RoiPooling
from stream_seg.graph.emit import Graph, Value
from stream_seg.graph.rpn import Rois

_GATHERED_BYTES = 4 * 2**20
"""About how much is gathered at a time: so little that it is still in a cache when it is combined."""


class Pooler(ABC):
    """Pools regions from float32 feature maps (N, C, H/s, W/s), finest first, of the given strides s."""

    def __init__(self, maps: Sequence[Value], strides: Sequence[int], channels: int, config: RoiPooling) -> None:
        self.maps = tuple(maps)
        self.strides = tuple(strides)
        self.channels = channels
        self.config = config

    @property
    def graph(self) -> Graph:
        return self.maps[0].graph

    @abstractmethod
    def pool(self, rois: Rois, size: int) -> Value:
        """Features (R', C, size, size): each cell is the mean of samples * samples points, interpolated bilinearly.

        R' >= R: what follows the features of the regions belongs to none, and is to be cut off when it is small.

        As in torchvision's models, coordinates are divided by the stride and not moved by half a pixel.
        """

    def levels(self, boxes: Value) -> Value:
        """The number (R,) of the map of each box, float32: equation 1 of the FPN paper."""
        # No region is so small, but the empty ones that fill up a trip are, and minus infinity spoils a calibration.
        side = self.graph.op("Sqrt", area(boxes).maximum(1e-6))
        octaves = self.graph.op("Log", side / self.config.canonical_side) / math.log(2)
        # torchvision adds the 1e-6, so that a box of exactly the canonical side is on its level whatever the rounding.
        level = self.graph.op("Floor", octaves + float(self.config.canonical_level) + 1e-6)
        first = self.strides[0].bit_length() - 1
        last = np.array(len(self.maps) - 1, np.float32)
        return self.graph.op("Clip", level - float(first), np.array(0, np.float32), last)


def make_pooler(
    maps: Sequence[Value], strides: Sequence[int], channels: int, config: RoiPooling, device: Device
) -> Pooler:
    """The form that suits the device."""
    form = AlignedPooler if device == "cuda" else GatheredPooler
    return form(maps, strides, channels, config)


class AlignedPooler(Pooler):
    """By ONNX's RoiAlign, once for each level."""

    def pool(self, rois: Rois, size: int) -> Value:
        levels = self.levels(rois.boxes)
        groups = [self.graph.where_true(levels.equals(float(i))).squeeze(0) for i in range(len(self.maps))]
        pooled = [
            self._align(level, rois.take(group), stride, size)
            for level, group, stride in zip(self.maps, groups, self.strides, strict=True)
        ]
        order = self.graph.concat(groups, axis=0)
        count = self.graph.arange(order.length(0))
        back = self.graph.op("ScatterElements", order, order, count, axis=0)
        return self.graph.concat(pooled, axis=0).gather(back)

    def _align(self, level: Value, rois: Rois, stride: int, size: int) -> Value:
        return self.graph.op(
            "RoiAlign",
            level,
            rois.boxes,
            rois.image,
            output_height=size,
            output_width=size,
            sampling_ratio=self.config.samples,
            spatial_scale=1 / stride,
            mode="avg",
            coordinate_transformation_mode="output_half_pixel",
        )


@dataclass(frozen=True, slots=True)
class _Taps:
    """Along one axis, for each of the points of a region, its two neighbours: positions and weights (R, 2 * points)."""

    position: Value
    weight: Value

    def take(self, rows: Value) -> _Taps:
        return _Taps(self.position.gather(rows), self.weight.gather(rows))


@dataclass(frozen=True, slots=True)
class Located:
    """Of each region, (R, 1): its edges in the map of its level, the size of that map, and its first row of pixels."""

    x1: Value
    y1: Value
    x2: Value
    y2: Value
    height: Value
    width: Value
    begin: Value


def spread(low: Value, high: Value, points: int) -> Value:
    """(R, points), evenly from low to high, which are taken to be at least 1 apart."""
    middles = ((np.arange(points) + 0.5) / points).astype(np.float32)[None]
    return low + (high - low).maximum(1.0) * middles


class GatheredPooler(Pooler):
    """By gathering pixels and multiplying them with weights, some regions at a time."""

    def __init__(self, maps: Sequence[Value], strides: Sequence[int], channels: int, config: RoiPooling) -> None:
        super().__init__(maps, strides, channels, config)
        rows = [level.transpose(0, 2, 3, 1).reshape(-1, channels) for level in maps]
        self._heights = self._per_level([level.lengths(2) for level in maps])
        self._widths = self._per_level([level.lengths(3) for level in maps])
        self._begins = self.graph.op("CumSum", self._per_level([row.lengths(0) for row in rows]), 0, exclusive=1)
        self._pixels = self.graph.concat(rows, axis=0)

    def pool(self, rois: Rois, size: int) -> Value:
        points = size * self.config.samples
        together = max(1, _GATHERED_BYTES // ((2 * points) ** 2 * self.channels * 4))
        count = rois.image.length(0)
        trips = ((count + (together - 1)) // together).maximum(1)
        x, y = self._taps(rois.filled(trips * together - count), points)

        def some(trip: Value) -> Value:
            rows = self.graph.arange(self.graph.value(together)) + trip * together
            return self._combined(x.take(rows), y.take(rows), size)

        return self.graph.loop(trips, some).reshape(-1, self.channels, size, size)

    def _taps(self, rois: Rois, points: int) -> tuple[_Taps, _Taps]:
        """Along x and y; positions are added to give rows of the pixels of all maps and images."""
        at = self.locate(rois)
        x, y = self._along(at.x1, at.x2, at.width, points), self._along(at.y1, at.y2, at.height, points)
        return x, _Taps(y.position * at.width + at.begin, y.weight)

    def locate(self, rois: Rois) -> Located:
        """Where regions lie in the maps of their levels."""
        level = self.levels(rois.boxes).cast(np.int64)
        scale = self.graph.value(np.array([1 / stride for stride in self.strides], np.float32)).gather(level)
        x1, y1, x2, y2 = (rois.boxes * scale.unsqueeze(1)).split(4, axis=1)
        height, width = (sizes.gather(level).unsqueeze(1) for sizes in (self._heights, self._widths))
        begin = self._begins.gather(level).unsqueeze(1) + rois.image.unsqueeze(1) * height * width
        return Located(x1, y1, x2, y2, height, width, begin)

    def _along(self, low: Value, high: Value, length: Value, points: int) -> _Taps:
        """Points spread evenly from low to high, which are taken to be at least 1 apart.

        A point beyond the middle of the last pixel has its value; one beyond its end, where only regions smaller than a
        pixel reach, has none.
        """
        last = length - 1
        place = spread(low, high, points)
        inside = (place <= length.cast(np.float32)).cast(np.float32).unsqueeze(2)
        place = place.minimum(last.cast(np.float32))
        before = self.graph.op("Floor", place)
        near = before.cast(np.int64)
        pairs = [near, (near + 1).minimum(last)]
        fraction = place - before
        weights = [self.graph.op("Sub", 1.0, fraction), fraction]
        position, weight = (self.graph.concat([one.unsqueeze(2) for one in both], axis=2) for both in (pairs, weights))
        weight = weight * (inside * (1 / self.config.samples))
        return _Taps(position.reshape(-1, 2 * points), weight.reshape(-1, 2 * points))

    def _combined(self, x: _Taps, y: _Taps, size: int) -> Value:
        """Features (K, C, size, size) from the taps of K regions."""
        per_cell, taps = 2 * self.config.samples, 2 * self.config.samples * size
        pixels = self._pixels.gather(y.position.unsqueeze(2) + x.position.unsqueeze(1))
        rows = pixels.reshape(-1, size, per_cell, taps * self.channels)
        columns = self.graph.op("MatMul", y.weight.reshape(-1, size, 1, per_cell), rows)
        columns = columns.reshape(-1, size, size, per_cell, self.channels)
        cells = self.graph.op("MatMul", x.weight.reshape(-1, 1, size, 1, per_cell), columns)
        return cells.squeeze(3).transpose(0, 3, 1, 2)

    def _per_level(self, sizes: list[Value]) -> Value:
        return self.graph.concat(sizes, axis=0)
