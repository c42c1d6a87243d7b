"""Non-maximum suppression in the two forms that suit ONNX Runtime's kernels, and a gradual one.

The CPU kernel treats the class axis of its scores separately and in parallel, and each class costs little. The CUDA
kernel does the same by a loop on the host with a wait for the GPU in every round, so there everything goes into one
call, kept apart by coordinates (`boxes.shifted_apart`). Both give the same boxes.
"""

from __future__ import annotations

import numpy as np

from stream_seg.graph.boxes import pairwise_iou, shifted_apart
from stream_seg.graph.config import Device
from stream_seg.graph.emit import Value, ints

DROPPED = -1.0
"""A score below every real one: marks boxes that do not take part."""


def suppress_per_level(
    boxes: Value, scores: Value, levels: Value, level_count: int, limits: Value, iou: float, device: Device
) -> Value:
    """Scores (N, S) of boxes (N, S, 4), those of suppressed boxes set to DROPPED.

    `levels` (S,) int64: only boxes of one level (and one image) suppress each other. `limits` is (N, 1, 4).
    """
    per_class = _by_class_axis if device == "cpu" else _by_coordinates
    chosen = per_class(boxes, scores, levels, level_count, limits, iou)
    nothing = scores.graph.op("Expand", np.array(DROPPED, np.float32), scores.shape())
    return scores.graph.op("ScatterND", nothing, chosen, scores.gather_nd(chosen))


def suppress_flat(boxes: Value, scores: Value, columns: Value, rows: Value, limits: Value, iou: float) -> Value:
    """Indices (K,) of the boxes (S, 4) that remain, best score first, over all cells (column, row) at once.

    Boxes with a score of DROPPED never remain. One call for all images and classes suits both devices here, because
    only boxes above the score threshold take part: they are few, and each class has boxes of its own.
    """
    apart = shifted_apart(boxes, columns, rows, limits).unsqueeze(0)
    return _nms(apart, scores.unsqueeze(0, 1), scores.length(0), iou).gather(2, axis=1)


def decayed(boxes: Value, scores: Value, cells: Value, sigma: float) -> Value:
    """Scores (S,) of boxes (S, 4), less the more of a better one each covers: matrix NMS (Wang 2020, arXiv 2003.10152).

    Only boxes of one cell (S,) int64 matter to each other, and those must come best first. A score is multiplied by the
    least exp((c² - o²) / sigma) over all better boxes, o being the overlap with that one and c the one that it has, for
    its part, with one better still: what is hardly there itself takes little from others.
    """
    graph, count = scores.graph, scores.length(0)
    # One more box, apart from all: ONNX Runtime's reductions of nothing at all are not to be trusted.
    boxes = graph.concat([boxes, graph.value(np.array([[-2, -2, -1, -1]], np.float32))], axis=0)
    cells = graph.concat([cells, graph.value(ints(-1))], axis=0)
    alike = cells.unsqueeze(1).equals(cells.unsqueeze(0)).cast(np.float32)
    better = graph.op("Trilu", pairwise_iou(boxes) * alike, ints(1).reshape(()), upper=1)
    squared = better * better
    covered = graph.op("ReduceMax", squared, ints(0), keepdims=0)
    most = graph.op("ReduceMax", squared - covered.unsqueeze(1), ints(0), keepdims=0).maximum(0.0)
    return scores * graph.op("Exp", most.head(count) * (-1 / sigma))


def _by_class_axis(boxes: Value, scores: Value, levels: Value, level_count: int, _limits: Value, iou: float) -> Value:
    """(K, 2) image and box, each level being a class."""
    is_level = levels.unsqueeze(0).equals(np.arange(level_count, dtype=np.int64)[:, None])
    separate = scores.unsqueeze(1).where(is_level, DROPPED)
    return _nms(boxes, separate, levels.length(0), iou).gather(np.array([0, 2], np.int64), axis=1)


def _by_coordinates(boxes: Value, scores: Value, levels: Value, _count: int, limits: Value, iou: float) -> Value:
    """(K, 2) image and box, from one call over all images and levels."""
    images, per_image = scores.length(0), scores.length(1)
    columns = scores.graph.arange(images).unsqueeze(1)
    apart = shifted_apart(boxes, columns, levels.unsqueeze(0), limits).reshape(1, -1, 4)
    flat = _nms(apart, scores.reshape(1, 1, -1), images * per_image, iou).gather(2, axis=1)
    image = flat // per_image
    return flat.graph.concat([image.unsqueeze(1), (flat - image * per_image).unsqueeze(1)], axis=1)


def _nms(boxes: Value, scores: Value, most: Value, iou: float) -> Value:
    """(K, 3) image, class and box index; boxes with a score of 0 or less do not take part."""
    return boxes.graph.op("NonMaxSuppression", boxes, scores, most, iou, 0.0)
