"""Pooling of regions: each from the pyramid level that suits its size, by RoIAlign (He 2017).

All forms give the same features. CUDA has a good RoIAlign operator. The one for the CPU works through channels one by
one, and took a sixth of the time of a ResNet-50 network; there, the pixels that a region needs are gathered with all
their channels side by side. Where a cell is the mean of several points, they are combined by two rounds of products
with the interpolation weights, first along y, then along x: half the time. Where it is one point, its four pixels are
added up.
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
from stream_seg.graph.regions import Canvas, Rois

_GATHERED_BYTES = 4 * 2**20
"""About how much is gathered at a time: so little that it is still in a cache when it is combined."""


class Pooler(ABC):
    """Pools regions from float32 feature maps (N, C, H/s, W/s) of a canvas, finest first, of the given strides s."""

    def __init__(
        self, maps: Sequence[Value], strides: Sequence[int], channels: int, config: RoiPooling, canvas: Canvas
    ) -> None:
        self.maps = tuple(maps)
        self.strides = tuple(strides)
        self.channels = channels
        self.config = config
        self.canvas = canvas

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
    maps: Sequence[Value], strides: Sequence[int], channels: int, config: RoiPooling, canvas: Canvas, device: Device
) -> Pooler:
    """The form that suits the device."""
    on_cpu = SampledPooler if config.samples == 1 else GatheredPooler
    form = AlignedPooler if device == "cuda" else on_cpu
    return form(maps, strides, channels, config, canvas)


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
    """Along one axis, for each of the points of a region, its two neighbours: positions and weights (R, ...)."""

    position: Value
    weight: Value

    def take(self, rows: Value) -> _Taps:
        return _Taps(self.position.gather(rows), self.weight.gather(rows))


class _PixelPooler(Pooler):
    """Has the pixels of all maps and images as rows (P, C)."""

    def __init__(
        self, maps: Sequence[Value], strides: Sequence[int], channels: int, config: RoiPooling, canvas: Canvas
    ) -> None:
        super().__init__(maps, strides, channels, config, canvas)
        graph, columns = self.graph, np.array(self.strides)[:, None]
        # Not from the shapes of the maps: only for those, an int8 graph would make floats of them.
        sides = [side.reshape(1, 1) // columns for side in (canvas.width, canvas.height)]
        areas = sides[0] * sides[1]
        begins = graph.op("CumSum", areas * canvas.limits.length(0), 0, exclusive=1)
        scales = graph.value((1 / columns).astype(np.float32))
        self._of_levels = [graph.concat(sides, axis=1), areas, begins, scales]  # (L, 2), and (L, 1) thrice
        with graph.scope("pixels"):
            rows = [level.transpose(0, 2, 3, 1).reshape(-1, channels) for level in maps]
        self._pixels = graph.concat(rows, axis=0)

    def _taps(self, rois: Rois, points: int) -> tuple[_Taps, _Taps]:
        """Along x and y, (R, points, 2, 1): positions are added to give rows of pixels, weights are multiplied.

        Points are spread evenly from edge to edge, which are taken to be at least 1 apart. One beyond the middle of the
        last pixel has its value; one beyond its end, where only regions smaller than a pixel reach, has none.
        """
        graph = self.graph
        sides, areas, begins, scales = self._of_level(rois)
        low, high = (rois.boxes * scales).reshape(-1, 2, 2).split(2, axis=1)
        middles = ((np.arange(points) + 0.5) / points).astype(np.float32)[None, :, None]
        place = low + (high - low).maximum(1.0) * middles  # (R, points, 2)
        sides = sides.unsqueeze(1)
        last = sides - 1
        inside = (place <= sides.cast(np.float32)).cast(np.float32)
        place = place.minimum(last.cast(np.float32))
        before = graph.op("Floor", place)
        near, fraction = before.cast(np.int64), (place - before) * inside
        x, y = _beside(near, (near + 1).minimum(last)).split(2, axis=3)
        u, v = _beside(inside - fraction, fraction).split(2, axis=3)
        width, begin = sides.slice(0, 1, axis=2), begins + rois.image.unsqueeze(1) * areas
        return _Taps(x, u), _Taps(y * width.unsqueeze(3) + begin.unsqueeze(2, 3), v)

    def _of_level(self, rois: Rois) -> list[Value]:
        """`_of_levels` of each region's (R, ...), or of the only one (1, ...)."""
        if len(self.maps) == 1:
            return self._of_levels
        level = self.levels(rois.boxes).cast(np.int64)
        return [one.gather(level) for one in self._of_levels]


def _beside(near: Value, far: Value) -> Value:
    """(R, points, 2, 2) of two (R, points, 2)."""
    return near.graph.concat([near.unsqueeze(2), far.unsqueeze(2)], axis=2)


class GatheredPooler(_PixelPooler):
    """By gathering pixels and multiplying them with weights, some regions at a time."""

    def pool(self, rois: Rois, size: int) -> Value:
        points = size * self.config.samples
        together = max(1, _GATHERED_BYTES // ((2 * points) ** 2 * self.channels * 4))
        count = rois.image.length(0)
        trips = ((count + (together - 1)) // together).maximum(1)
        taps = self._taps(rois.filled(trips * together - count), points)
        x, y = (
            _Taps(one.position.reshape(-1, 2 * points), one.weight.reshape(-1, 2 * points) * (1 / self.config.samples))
            for one in taps
        )

        def some(trip: Value) -> Value:
            rows = self.graph.arange(self.graph.value(together)) + trip * together
            return self._combined(x.take(rows), y.take(rows), size)

        return self.graph.loop(trips, some).reshape(-1, self.channels, size, size)

    def _combined(self, x: _Taps, y: _Taps, size: int) -> Value:
        """Features (K, C, size, size) from the taps (K, 2 * points) of K regions."""
        per_cell, taps = 2 * self.config.samples, 2 * self.config.samples * size
        pixels = self._pixels.gather(y.position.unsqueeze(2) + x.position.unsqueeze(1))
        rows = pixels.reshape(-1, size, per_cell, taps * self.channels)
        columns = self.graph.op("MatMul", y.weight.reshape(-1, size, 1, per_cell), rows)
        columns = columns.reshape(-1, size, size, per_cell, self.channels)
        cells = self.graph.op("MatMul", x.weight.reshape(-1, 1, size, 1, per_cell), columns)
        return cells.squeeze(3).transpose(0, 3, 1, 2)


class SampledPooler(_PixelPooler):
    """By gathering the four pixels around the middle of each cell, and adding them up by how near they are."""

    def pool(self, rois: Rois, size: int) -> Value:
        graph = self.graph
        x, y = self._taps(rois, size)
        position, weight = _crossed(x.position, y.position), _crossed(x.weight, y.weight)
        with graph.scope("pixels"):
            pixels = self._pixels.gather(graph.op("Add", *position))
        parts = pixels * graph.op("Mul", *weight).unsqueeze(5)
        # A product, for ONNX Runtime's reductions of nothing at all are not to be trusted.
        sums = graph.op("MatMul", np.ones((1, 4), np.float32), parts.reshape(4, -1))
        return sums.reshape(-1, size, size, self.channels).transpose(0, 3, 1, 2)


def _crossed(x: Value, y: Value) -> tuple[Value, Value]:
    """(1, 2, R, 1, size) and (2, 1, R, size, 1) of two (R, size, 2, 1): each neighbour of the ones meets each other."""
    return x.transpose(2, 0, 3, 1).unsqueeze(0), y.transpose(2, 0, 1, 3).unsqueeze(1)
