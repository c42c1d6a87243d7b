"""Pooling of regions: each from the pyramid level that suits its size, by RoIAlign (He 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stream_seg.graph.boxes import area
from stream_seg.graph.config import RoiPooling
from stream_seg.graph.emit import Value
from stream_seg.graph.rpn import Rois


@dataclass(frozen=True, slots=True)
class Pyramid:
    """The float32 feature maps that regions are pooled from, finest first, and their strides."""

    maps: tuple[Value, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pooled:
    """Features (R, C, S, S), grouped by level, and `order` (R,): which region each row is of."""

    features: Value
    order: Value

    def restore(self, values: Value) -> Value:
        """Rows computed from the features, back in the order of the regions."""
        count = self.order.graph.arange(self.order.length(0))
        inverse = self.order.graph.op("ScatterElements", self.order, self.order, count, axis=0)
        return values.gather(inverse)


def pool(pyramid: Pyramid, rois: Rois, config: RoiPooling, size: int) -> Pooled:
    """Features of the regions on a grid of size x size cells, each the mean of samples * samples points."""
    graph = rois.boxes.graph
    levels = _levels(rois.boxes, pyramid, config)
    groups = [graph.where_true(levels.equals(float(_exponent(stride)))).squeeze(0) for stride in pyramid.strides]
    pooled = [
        _align(level, rois.take(group), stride, size, config.samples)
        for level, group, stride in zip(pyramid.maps, groups, pyramid.strides, strict=True)
    ]
    return Pooled(graph.concat(pooled, axis=0), graph.concat(groups, axis=0))


def _levels(boxes: Value, pyramid: Pyramid, config: RoiPooling) -> Value:
    """The level (R,) of each box, float32, as the exponent of its stride: equation 1 of the FPN paper."""
    graph = boxes.graph
    side = graph.op("Sqrt", area(boxes))
    octaves = graph.op("Log", side / config.canonical_side) / math.log(2)
    # torchvision adds the 1e-6, so that a box of exactly the canonical side is on its level whatever the rounding.
    level = graph.op("Floor", octaves + float(config.canonical_level) + 1e-6)
    finest, coarsest = _exponent(pyramid.strides[0]), _exponent(pyramid.strides[-1])
    return graph.op("Clip", level, np.array(finest, np.float32), np.array(coarsest, np.float32))


def _align(level: Value, rois: Rois, stride: int, size: int, samples: int) -> Value:
    """RoIAlign as torchvision's models use it: corners are not moved by half a pixel ("output_half_pixel")."""
    return level.graph.op(
        "RoiAlign",
        level,
        rois.boxes,
        rois.image,
        output_height=size,
        output_width=size,
        sampling_ratio=samples,
        spatial_scale=1 / stride,
        mode="avg",
        coordinate_transformation_mode="output_half_pixel",
    )


def _exponent(stride: int) -> int:
    return stride.bit_length() - 1
