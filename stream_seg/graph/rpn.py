"""The region proposal network: anchors scored and shifted on every pyramid level, the best of them as proposals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stream_seg.graph.anchors import anchor_shapes, anchors
from stream_seg.graph.boxes import clip, decode, shorter_side
from stream_seg.graph.config import Device, Proposals
from stream_seg.graph.emit import Value, ints
from stream_seg.graph.layers import Layers
from stream_seg.graph.nms import DROPPED, suppress_per_level


@dataclass(frozen=True, slots=True)
class Canvas:
    """Geometry of a batch: height and width (scalars, int64), and `limits` (N, 1, 4): w, h, w, h of each image."""

    height: Value
    width: Value
    limits: Value

    def inside(self) -> Value:
        """(N, 1, H, W) float32: 1 for the pixels that are inside their image, else 0."""
        row, column = (
            self.limits.graph.arange(side).cast(np.float32) < self.limits.slice(end, end + 1, axis=2)
            for side, end in ((self.height, 1), (self.width, 0))
        )
        # As a product, because Where costs four times as much.
        return row.cast(np.float32).unsqueeze(3) * column.cast(np.float32).unsqueeze(2)


@dataclass(frozen=True, slots=True)
class Rois:
    """Regions of a batch: boxes (R, 4) and the image (R,) int64 each belongs to."""

    boxes: Value
    image: Value

    def take(self, index: Value) -> Rois:
        return Rois(self.boxes.gather(index), self.image.gather(index))

    def filled(self, missing: Value) -> Rois:
        """And so many empty ones of the first image; `missing` is a scalar."""
        graph, count = self.image.graph, missing.unsqueeze(0)
        nothing = graph.op("Expand", np.zeros((1, 4), np.float32), graph.concat([count, graph.value(ints(4))], axis=0))
        boxes = graph.concat([self.boxes, nothing], axis=0)
        return Rois(boxes, graph.concat([self.image, graph.op("Expand", ints(0), count)], axis=0))


def propose(layers: Layers, config: Proposals, levels: list[Value], canvas: Canvas, device: Device) -> Rois:
    """Proposals of each image, grouped by image, best first."""
    graph = layers.graph
    with graph.scope("rpn"):
        candidates = []
        for index, level in enumerate(levels):
            with graph.scope(f"level{index}"):
                candidates.append(_best_of_level(layers, config, level, index, canvas))
        with graph.scope("select"):
            scores, deltas, references, level_of = zip(*candidates, strict=True)
            boxes = decode(graph.concat(deltas, axis=1), graph.concat(references, axis=1))
            of_level = graph.concat(level_of, axis=0)
            return _select(config, clip(boxes, canvas.limits), graph.concat(scores, axis=1), of_level, canvas, device)


def _best_of_level(
    layers: Layers, config: Proposals, level: Value, index: int, canvas: Canvas
) -> tuple[Value, Value, Value, Value]:
    """Of the most likely anchors of one level: logits (N, K), deltas (N, K, 4), anchors (N, K, 4) and level (K,)."""
    logits, deltas = _head(layers, config, level)
    shapes = anchor_shapes(config.anchor_sizes[index], config.aspect_ratios)
    count = logits.lengths(1).minimum(ints(config.per_level))
    best, where = logits.graph.ops(2, "TopK", logits, count, axis=1)
    references = anchors(level, shapes, canvas.height, canvas.width).gather(where)
    level_of = logits.graph.op("Expand", index, count)
    return best, deltas.gather_nd(where.unsqueeze(2), batch_dims=1), references, level_of


def _head(layers: Layers, config: Proposals, level: Value) -> tuple[Value, Value]:
    """Logits (N, H * W * A) and deltas (N, H * W * A, 4); the same layers serve every level."""
    x = level
    for index in range(config.convolutions):
        x = layers.conv(x, f"rpn.head.conv.{index}.0", activation="relu")
    logits = layers.leave(layers.conv(x, "rpn.head.cls_logits")).transpose(0, 2, 3, 1).reshape(0, -1)
    deltas = layers.leave(layers.conv(x, "rpn.head.bbox_pred")).transpose(0, 2, 3, 1)
    per_anchor = x.graph.concat([deltas.lengths(0), x.graph.value(ints(-1, 4))], axis=0)
    return logits, x.graph.op("Reshape", deltas, per_anchor)


def _select(config: Proposals, boxes: Value, logits: Value, level_of: Value, canvas: Canvas, device: Device) -> Rois:
    """The best boxes (N, S, 4) of each image after non-maximum suppression within each level."""
    graph = boxes.graph
    # Only the order counts here, and that all are above 0. A sigmoid would lose both: it is 0 below -88, 1 above 17.
    scores = graph.op("Softsign", logits) * 0.5 + 0.5
    scores = scores.where(shorter_side(boxes) >= config.min_side, DROPPED)
    levels = len(config.anchor_sizes)
    left = suppress_per_level(boxes, scores, level_of, levels, canvas.limits, config.nms_iou, device)
    best, where = graph.ops(2, "TopK", left, left.lengths(1).minimum(ints(config.count)), axis=1)
    boxes = boxes.gather_nd(where.unsqueeze(2), batch_dims=1)
    real = graph.where_true(best > 0.0)
    return Rois(boxes.gather_nd(real.transpose(1, 0)), real.gather(0))
