"""The region proposal network: anchors scored and shifted on every pyramid level, the best of them as proposals."""

from __future__ import annotations

from stream_seg.graph.anchors import anchor_shapes, anchors
from stream_seg.graph.boxes import clip, decode, shorter_side
from stream_seg.graph.config import Device, Proposals
from stream_seg.graph.emit import Value, ints
from stream_seg.graph.layers import Layers
from stream_seg.graph.nms import DROPPED, suppress_per_level
from stream_seg.graph.regions import Canvas, Rois


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
