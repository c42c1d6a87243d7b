"""The box head: what each proposal is, where exactly its box lies, and which of all these boxes are detections."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stream_seg.graph.boxes import clip, decode, shorter_side
from stream_seg.graph.config import Detection, MaskRCNN
from stream_seg.graph.emit import Value
from stream_seg.graph.layers import Layers
from stream_seg.graph.nms import DROPPED, suppress_flat
from stream_seg.graph.parameters import fully_connected_names
from stream_seg.graph.pixels import TAPS, PixelPooler
from stream_seg.graph.roi import Pooler
from stream_seg.graph.rpn import Rois


@dataclass(frozen=True, slots=True)
class Detected:
    """Boxes with their image, grouped by image and best first; labels (D,) int64 from 1 on, scores (D,) float32."""

    rois: Rois
    labels: Value
    scores: Value

    def take(self, index: Value) -> Detected:
        return Detected(self.rois.take(index), self.labels.gather(index), self.scores.gather(index))


def detect(
    layers: Layers, config: MaskRCNN, pooler: Pooler, proposals: Rois, limits: Value, threshold: Value
) -> Detected:
    """Detections among the proposals: scores above the threshold, at most `per_image` per image."""
    graph = layers.graph
    with graph.scope("box"):
        with graph.scope("pool"):
            features = _features(config, pooler, proposals)
        with graph.scope("head"):
            count = proposals.image.length(0)
            logits, deltas = (values.head(count) for values in _head(layers, config, features))
        with graph.scope("select"):
            probability = graph.op("Softmax", logits, axis=-1)
            found = _candidates(config, probability, deltas, proposals, limits, threshold)
            return _best(config.detection, found, limits)


def _features(config: MaskRCNN, pooler: Pooler, proposals: Rois) -> Value:
    """What the head is given of each proposal: (R', C, S, S), or from a PixelPooler (R, S * S * C)."""
    size = config.pooling.box_size
    if isinstance(pooler, PixelPooler):
        return pooler.pool_sums(proposals, size)
    return pooler.pool(proposals, size)


def _head(layers: Layers, config: MaskRCNN, x: Value) -> tuple[Value, Value]:
    """Logits (R, classes) and deltas (R, 4 * classes)."""
    head = config.box_head
    x = layers.enter(x)
    for index in range(head.convolutions):
        x = layers.block(x, f"roi_heads.box_head.{index}", activation="relu")
    first, *others = (f"roi_heads.box_head.{name}" for name in fully_connected_names(head))
    if config.pooling.whole_pixels:
        x = layers.linear(x, first, activation="relu", channels=config.pyramid_channels, scale=1 / TAPS)
    else:
        x = layers.linear(layers.graph.op("Flatten", x, axis=1), first, activation="relu")
    for name in others:
        x = layers.linear(x, name, activation="relu")
    logits = layers.linear(x, "roi_heads.box_predictor.cls_score")
    deltas = layers.linear(x, "roi_heads.box_predictor.bbox_pred")
    return layers.leave(logits), layers.leave(deltas)


def _candidates(
    config: MaskRCNN, probability: Value, deltas: Value, proposals: Rois, limits: Value, threshold: Value
) -> Detected:
    """One box for each proposal and class whose probability is above the threshold; only those are decoded."""
    foreground = probability.slice(1, config.classes, axis=1)
    above = foreground.graph.where_true(foreground > threshold).transpose(1, 0)
    proposal, label = above.gather(0, axis=1), above.gather(1, axis=1) + 1
    chosen = deltas.reshape(-1, config.classes, 4).gather_nd(above + np.array([0, 1], np.int64))
    rois = proposals.take(proposal)
    boxes = decode(chosen, rois.boxes, config.box_head.coder)
    boxes = clip(boxes, limits.squeeze(1).gather(rois.image))
    return Detected(Rois(boxes, rois.image), label, foreground.gather_nd(above))


def _best(config: Detection, found: Detected, limits: Value) -> Detected:
    """Suppression within each class of each image, then the best of each image."""
    graph, rois = limits.graph, found.rois
    scores = found.scores.where(shorter_side(rois.boxes) >= config.min_side, DROPPED)
    kept = found.take(suppress_flat(rois.boxes, scores, rois.image, found.labels, limits, config.nms_iou))
    images = graph.arange(limits.length(0)).unsqueeze(1)
    is_of_image = kept.rois.image.unsqueeze(0).equals(images)
    rank = graph.op("CumSum", is_of_image.cast(np.int32), 1)
    wanted = graph.where_true(is_of_image & (rank <= np.array(config.per_image, np.int32)))
    return kept.take(wanted.gather(1))
