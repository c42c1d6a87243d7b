"""Objects that were found in a batch, and which of them remain: the best of those that overlap, the best few."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stream_seg.graph.boxes import shorter_side
from stream_seg.graph.config import MaskRCNN
from stream_seg.graph.emit import Value
from stream_seg.graph.nms import DROPPED, decayed, suppress_flat
from stream_seg.graph.regions import Rois


@dataclass(frozen=True, slots=True)
class Detected:
    """Boxes with their image, grouped by image and best first; labels (D,) int64 from 1 on, scores (D,) float32."""

    rois: Rois
    labels: Value
    scores: Value

    def take(self, index: Value) -> Detected:
        return Detected(self.rois.take(index), self.labels.gather(index), self.scores.gather(index))


def best_above(scores: Value, image: Value, threshold: Value) -> Value:
    """Indices (K,) of the scores (D,) above the threshold, grouped by their image (D,) and best first."""
    graph = scores.graph
    kept = graph.where_true(scores > threshold).squeeze(0)
    # Images first, then scores; in double precision their sum is not rounded.
    score, group = (values.gather(kept).cast(np.float64) for values in (scores, image))
    place = score - group * np.array(2, np.float64)
    return kept.gather(graph.ops(2, "TopK", place, kept.lengths(0))[1])


def first_of_each(image: Value, count: int, images: Value) -> Value:
    """Indices (K,) of the first so many of each image (D,), of so many images; `images` is a scalar."""
    graph = image.graph
    is_of_image = image.unsqueeze(0).equals(graph.arange(images).unsqueeze(1))
    rank = graph.op("CumSum", is_of_image.cast(np.int32), 1)
    return graph.where_true(is_of_image & (rank <= np.array(count, np.int32))).gather(1)


def remaining(config: MaskRCNN, found: Detected, limits: Value, threshold: Value) -> Detected:
    """What no better one of its class and image suppresses, the best of each image; `limits` (N, 1, 4): w, h, w, h."""
    detection = config.detection
    with limits.graph.scope("select"):
        scores = found.scores.where(shorter_side(found.rois.boxes) >= detection.min_side, DROPPED)
        chosen = suppress_flat(found.rois.boxes, scores, found.rois.image, found.labels, limits, detection.nms_iou)
        best = found.take(chosen)
        best = best.take(first_of_each(best.rois.image, detection.per_image, limits.length(0)))
    return _faded(config, best, threshold) if detection.decay else best


def _faded(config: MaskRCNN, found: Detected, threshold: Value) -> Detected:
    """Those still above the threshold where scores fall with the overlap with a better one."""
    with found.scores.graph.scope("decay"):
        cells = found.rois.image * config.classes + found.labels
        found = replace(found, scores=decayed(found.rois.boxes, found.scores, cells, config.detection.decay))
        return found.take(best_above(found.scores, found.rois.image, threshold))
