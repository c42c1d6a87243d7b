"""Arithmetic of boxes: (..., 4) float32 x1, y1, x2, y2 in canvas pixels."""

from __future__ import annotations

import math

import numpy as np

from stream_seg.graph.emit import Value

MAX_LOG_SCALE = math.log(1000 / 16)
"""The most a box may grow, as torchvision and Detectron bound it before the exponential."""


def decode(deltas: Value, reference: Value, coder: tuple[float, float, float, float] = (1, 1, 1, 1)) -> Value:
    """Boxes from deltas (..., 4) and the boxes they refer to: R-CNN's parametrisation (Girshick 2013, appendix C)."""
    x1, y1, x2, y2 = reference.split(4, axis=-1)
    width, height = x2 - x1, y2 - y1
    if coder != (1, 1, 1, 1):
        deltas = deltas / np.array(coder, np.float32)
    dx, dy, dw, dh = deltas.split(4, axis=-1)
    x, y = dx * width + (x1 + width * 0.5), dy * height + (y1 + height * 0.5)
    half_width = _exp(dw.minimum(MAX_LOG_SCALE)) * width * 0.5
    half_height = _exp(dh.minimum(MAX_LOG_SCALE)) * height * 0.5
    return x.graph.concat([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)


def clip(boxes: Value, limits: Value) -> Value:
    """Boxes cut at 0 and at limits (..., 4): width, height, width, height of the image."""
    return boxes.maximum(0.0).minimum(limits)


def shorter_side(boxes: Value) -> Value:
    """The smaller of width and height, (...)."""
    # Not ReduceMin: over no boxes at all, ONNX Runtime 1.31 gives it a wrong shape.
    x1, y1, x2, y2 = boxes.split(4, axis=-1)
    return (x2 - x1).minimum(y2 - y1).squeeze(-1)


def area(boxes: Value) -> Value:
    """Width times height, (...)."""
    x1, y1, x2, y2 = boxes.split(4, axis=-1)
    return ((x2 - x1) * (y2 - y1)).squeeze(-1)


def pairwise_iou(boxes: Value) -> Value:
    """Intersection over union of each two of S boxes, (S, S)."""
    x1, y1, x2, y2 = boxes.split(4, axis=-1)
    width, height = (_shared(*side) for side in ((x1, x2), (y1, y2)))
    shared, size = width * height, (x2 - x1) * (y2 - y1)
    return shared / (size + size.transpose(1, 0) - shared).maximum(1e-9)


def _shared(first: Value, last: Value) -> Value:
    """What each two of S intervals (S, 1) have in common, (S, S)."""
    return (last.minimum(last.transpose(1, 0)) - first.maximum(first.transpose(1, 0))).maximum(0.0)


def shifted_apart(boxes: Value, columns: Value, rows: Value, limits: Value) -> Value:
    """Boxes moved so that two overlap only where both their column and their row are equal.

    `columns` and `rows` int64, which broadcast to (...), say in which cell of an imagined grid each box lies; the
    cells are larger than any image, whose `limits` are (N, 1, 4). One call of non-maximum suppression then keeps all
    cells apart.
    """
    step = boxes.graph.op("ReduceMax", limits, keepdims=0) + 1.0
    x, y = ((cell.cast(np.float32) * step).unsqueeze(-1) for cell in (columns, rows))
    return boxes + (x * np.array([1, 0, 1, 0], np.float32) + y * np.array([0, 1, 0, 1], np.float32))


def _exp(x: Value) -> Value:
    return x.graph.op("Exp", x)
