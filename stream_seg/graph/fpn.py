"""The feature pyramid: top-down path and lateral connections (Lin 2016), or both ways by sums alone."""

from __future__ import annotations

import numpy as np

from stream_seg.graph.emit import Value
from stream_seg.graph.layers import Layers


def feature_pyramid(layers: Layers, features: list[Value]) -> list[Value]:
    """Maps of equal width (N, C, H/s, W/s), one per feature map and, last, one of half the size of the coarsest.

    The last serves the largest anchors only. Sizes must halve exactly from map to map.
    """
    with layers.graph.scope("fpn"):
        lateral = [layers.block(x, f"backbone.fpn.inner_blocks.{level}") for level, x in enumerate(features)]
        merged = [lateral[-1]]
        for x in reversed(lateral[:-1]):
            merged.insert(0, x + doubled(merged[0]))
        maps = [layers.block(x, f"backbone.fpn.layer_blocks.{level}") for level, x in enumerate(merged)]
        return [*maps, layers.graph.op("MaxPool", maps[-1], kernel_shape=[1, 1], strides=[2, 2])]


def path_aggregation(layers: Layers, features: list[Value]) -> list[Value]:
    """Maps of equal width (N, C, H/s, W/s), one per feature map: added from coarse to fine, then back (Liu 2018).

    Without the convolutions of the paper, as NanoDet has it. Sizes must halve exactly from map to map.
    """
    graph = layers.graph
    with graph.scope("fpn"):
        lateral = [layers.conv(x, f"backbone.lateral.{level}") for level, x in enumerate(features)]
        down = [lateral[-1]]
        for x in reversed(lateral[:-1]):
            down.insert(0, x + _enlarged(down[0], mode="linear", coordinate_transformation_mode="half_pixel"))
        maps = [down[0]]
        for x in down[1:]:
            maps.append(x + _halved(layers, maps[-1]))
        return maps


def doubled(x: Value) -> Value:
    """Nearest-neighbour upsampling by two."""
    return _enlarged(x, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")


def _halved(layers: Layers, x: Value) -> Value:
    """Bilinear interpolation to half the size, which is the mean of four.

    As a convolution of each channel by itself: of bytes, ONNX Runtime's AveragePool takes ten times as long.
    """
    channels = len(layers.array("backbone.lateral.0.weight"))
    quarter = layers.parameter("fpn.quarter", np.full((channels, 1, 2, 2), 0.25, np.float32))
    return x.graph.op("Conv", x, quarter, kernel_shape=[2, 2], strides=[2, 2], group=channels)


def _enlarged(x: Value, **settings: str) -> Value:
    """Twice as wide and high."""
    region, scales = np.zeros(0, np.float32), np.array([1, 1, 2, 2], np.float32)
    return x.graph.op("Resize", x, region, scales, **settings)
