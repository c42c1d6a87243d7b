"""The box head: what each proposal is, where exactly its box lies, and which of all these boxes are detections."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stream_seg.graph.boxes import clip, decode, shorter_side
from stream_seg.graph.config import Detection, MaskRCNN
from stream_seg.graph.emit import Value
from stream_seg.graph.layers import Layers
from stream_seg.graph.nms import DROPPED, decayed, suppress_flat
from stream_seg.graph.parameters import fully_connected_names
from stream_seg.graph.pixels import TAPS, PixelPooler
from stream_seg.graph.roi import Pooler
from stream_seg.graph.rpn import Rois


@dataclass(frozen=True, slots=True)
class Images:
    """What the head looks at: features of their regions, and `limits` (N, 1, 4): w, h, w, h of each image.

    `prior` (N, classes), or none, is added to the logits of all regions of an image.
    """

    pooler: Pooler
    limits: Value
    prior: Value | None = None


@dataclass(frozen=True, slots=True)
class Detected:
    """Boxes with their image, grouped by image and best first; labels (D,) int64 from 1 on, scores (D,) float32."""

    rois: Rois
    labels: Value
    scores: Value

    def take(self, index: Value) -> Detected:
        return Detected(self.rois.take(index), self.labels.gather(index), self.scores.gather(index))

    def scored(self, scores: Value, threshold: Value) -> Detected:
        """Those whose new scores (D,) are above the threshold."""
        found = replace(self, scores=scores)
        return found.take(found.above(threshold))

    def above(self, threshold: Value) -> Value:
        """Indices (K,) of those with a score above the threshold, grouped by image and best first."""
        graph = self.scores.graph
        kept = graph.where_true(self.scores > threshold).squeeze(0)
        # Images first, then scores; in double precision their sum is not rounded.
        score, image = (values.gather(kept).cast(np.float64) for values in (self.scores, self.rois.image))
        place = score - image * np.array(2, np.float64)
        return kept.gather(graph.ops(2, "TopK", place, kept.lengths(0))[1])


def detect(layers: Layers, config: MaskRCNN, images: Images, proposals: Rois, threshold: Value) -> Detected:
    """Detections among the proposals: scores above the threshold, at most `per_image` per image."""
    graph, limits = layers.graph, images.limits
    with graph.scope("box"):
        count, regions = proposals.image.length(0), proposals
        if config.even and config.box_head.convolutions:
            regions = proposals.filled(limits.length(0) * config.proposals.count - count)
        x = _looked_at(layers, config, images.pooler, regions)
        logits, deltas = (_predicted(layers, x, name).head(count) for name in ("cls_score", "bbox_pred"))
        with graph.scope("select"):
            probability = _probability(logits, proposals, images)
            found = _candidates(config, probability, deltas, proposals, limits, threshold)
            found = _best(config.detection, found, limits)
        for _ in range(config.box_head.refinements):
            found = _refined(layers, config, images, found, threshold)
        if config.detection.decay:
            with graph.scope("decay"):
                cells = found.rois.image * config.classes + found.labels
                scores = decayed(found.rois.boxes, found.scores, cells, config.detection.decay)
                found = found.scored(scores, threshold)
        return found


def _looked_at(layers: Layers, config: MaskRCNN, pooler: Pooler, rois: Rois) -> Value:
    """What the head makes of each region, (R', units)."""
    with layers.graph.scope("pool"):
        features = _features(config, pooler, rois)
    with layers.graph.scope("head"):
        return _hidden(layers, config, features)


def _features(config: MaskRCNN, pooler: Pooler, rois: Rois) -> Value:
    """What the head is given of each region: (R', C, S, S), or from a PixelPooler (R, S * S * C)."""
    size = config.pooling.box_size
    if isinstance(pooler, PixelPooler):
        return pooler.pool_sums(rois, size)
    return pooler.pool(rois, size)


def _hidden(layers: Layers, config: MaskRCNN, x: Value) -> Value:
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
    return x


def _predicted(layers: Layers, x: Value, name: str) -> Value:
    """Logits (R', classes) or deltas (R', 4 * classes)."""
    with layers.graph.scope("head"):
        return layers.leave(layers.linear(x, f"roi_heads.box_predictor.{name}"))


def _probability(logits: Value, rois: Rois, images: Images) -> Value:
    """Of each class, (R, classes), with what is known of the images beforehand."""
    if images.prior is not None:
        logits = logits + images.prior.gather(rois.image)
    return logits.graph.op("Softmax", logits, axis=-1)


def _refined(layers: Layers, config: MaskRCNN, images: Images, found: Detected, threshold: Value) -> Detected:
    """What is above the threshold when the head looks once more, at each box that it has found, and where it puts that.

    Iterative regression (Gidaris 2015, arXiv 1505.01749). A score becomes the geometric mean of both looks': background
    that resembles an object in the box of a proposal does so less in the one that would fit. Detections are few, so it
    costs little.
    """
    graph, rois, count = layers.graph, found.rois, found.labels.length(0)
    x = _looked_at(layers, config, images.pooler, rois)
    logits, deltas = (_predicted(layers, x, name).head(count) for name in ("cls_score", "bbox_pred"))
    with graph.scope("refine"):
        own = graph.concat([graph.arange(count).unsqueeze(1), found.labels.unsqueeze(1)], axis=1)
        boxes = _moved(config, rois, deltas, own, images.limits)
        is_box = (shorter_side(boxes) >= config.detection.min_side).unsqueeze(1)
        again = _probability(logits, rois, images).gather_nd(own)
        moved = replace(found, rois=replace(rois, boxes=boxes.where(is_box, rois.boxes)))
        return moved.scored(graph.op("Sqrt", found.scores * again), threshold)


def _candidates(
    config: MaskRCNN, probability: Value, deltas: Value, proposals: Rois, limits: Value, threshold: Value
) -> Detected:
    """One box for each proposal and class whose probability is above the threshold; only those are decoded."""
    foreground = probability.slice(1, config.classes, axis=1)
    above = foreground.graph.where_true(foreground > threshold).transpose(1, 0)
    proposal, label = above.gather(0, axis=1), above.gather(1, axis=1) + 1
    rois = proposals.take(proposal)
    boxes = _moved(config, rois, deltas, above + np.array([0, 1], np.int64), limits)
    return Detected(Rois(boxes, rois.image), label, foreground.gather_nd(above))


def _moved(config: MaskRCNN, rois: Rois, deltas: Value, which: Value, limits: Value) -> Value:
    """Boxes (K, 4): those of K regions moved by the deltas at `which` (K, 2), row and label, within their images."""
    boxes = decode(deltas.reshape(-1, config.classes, 4).gather_nd(which), rois.boxes, config.box_head.coder)
    return clip(boxes, limits.squeeze(1).gather(rois.image))


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
