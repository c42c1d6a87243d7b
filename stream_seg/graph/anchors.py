"""Anchors: the boxes proposals start from, three shapes of one size on every cell of a pyramid level (Ren 2015)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_seg.graph.emit import Value


def anchor_shapes(size: int, aspect_ratios: tuple[float, ...]) -> NDArray[np.float32]:
    """(A, 4) boxes of area size * size round the origin, rounded to whole pixels as torchvision rounds them."""
    height = np.sqrt(np.array(aspect_ratios, np.float32))
    width = 1 / height
    half = np.stack([-width, -height, width, height], axis=1) * np.float32(size) / 2
    return np.round(half).astype(np.float32)


def anchors(level: Value, shapes: NDArray[np.float32], canvas_height: Value, canvas_width: Value) -> Value:
    """(H * W * A, 4) anchors of a level (N, C, H, W).

    Their spacing is canvas // grid as in torchvision, which on the coarsest level is not always a power of two: 13 rows
    on a canvas of 800 are 61 pixels apart.
    """
    x = _positions(level.length(3), canvas_width).unsqueeze(0, 2, 3)
    y = _positions(level.length(2), canvas_height).unsqueeze(1, 2, 3)
    corner = x * np.array([1, 0, 1, 0], np.float32) + y * np.array([0, 1, 0, 1], np.float32)
    return (corner + shapes).reshape(-1, 4)


def _positions(cells: Value, length: Value) -> Value:
    """Where the cells of one axis begin, float32."""
    return (cells.graph.arange(cells) * (length // cells)).cast(np.float32)
