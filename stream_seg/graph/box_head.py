"""The box head: what each proposal is, and where exactly its box lies."""

from __future__ import annotations

import numpy as np

from stream_seg.graph.boxes import clip, decode
from stream_seg.graph.config import MaskRCNN
from stream_seg.graph.detected import Detected, remaining
from stream_seg.graph.emit import Value
from stream_seg.graph.layers import Layers
from stream_seg.graph.parameters import fully_connected_names
from stream_seg.graph.regions import Rois
from stream_seg.graph.roi import Pooler


def detect(
    layers: Layers, config: MaskRCNN, pooler: Pooler, proposals: Rois, limits: Value, threshold: Value
) -> Detected:
    """Detections among the proposals: scores above the threshold, at most `per_image` per image.

    `limits` (N, 1, 4): w, h, w, h of each image.
    """
    graph = layers.graph
    with graph.scope("box"):
        count, regions = proposals.image.length(0), proposals
        if config.even and config.box_head.convolutions:
            assert config.proposals is not None  # where there is a box head
            regions = proposals.filled(limits.length(0) * config.proposals.count - count)
        with graph.scope("pool"):
            features = pooler.pool(regions, config.pooling.box_size)
        with graph.scope("head"):
            x = _hidden(layers, config, features)
            logits, deltas = (_predicted(layers, x, name).head(count) for name in ("cls_score", "bbox_pred"))
        with graph.scope("select"):
            probability = graph.op("Softmax", logits, axis=-1)
            found = _candidates(config, probability, deltas, proposals, limits, threshold)
        return remaining(config, found, limits, threshold)


def _hidden(layers: Layers, config: MaskRCNN, x: Value) -> Value:
    head = config.box_head
    x = layers.enter(x)
    for index in range(head.convolutions):
        x = layers.block(x, f"roi_heads.box_head.{index}", activation="relu")
    x = layers.graph.op("Flatten", x, axis=1)
    for name in fully_connected_names(head):
        x = layers.linear(x, f"roi_heads.box_head.{name}", activation="relu")
    return x


def _predicted(layers: Layers, x: Value, name: str) -> Value:
    """Logits (R', classes) or deltas (R', 4 * classes)."""
    return layers.leave(layers.linear(x, f"roi_heads.box_predictor.{name}"))


def _candidates(
    config: MaskRCNN, probability: Value, deltas: Value, proposals: Rois, limits: Value, threshold: Value
) -> Detected:
    """One box for each proposal and class whose probability is above the threshold; only those are decoded."""
    foreground = probability.slice(1, config.classes, axis=1)
    above = foreground.graph.where_true(foreground > threshold).transpose(1, 0)
    proposal, label = above.gather(0, axis=1), above.gather(1, axis=1) + 1
    rois = proposals.take(proposal)
    own = deltas.reshape(-1, config.classes, 4).gather_nd(above + np.array([0, 1], np.int64))
    boxes = clip(decode(own, rois.boxes, config.box_head.coder), limits.squeeze(1).gather(rois.image))
    return Detected(Rois(boxes, rois.image), label, foreground.gather_nd(above))
