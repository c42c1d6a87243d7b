"""Owns which of an object's names is shown, where it has several.

A network says of each class by itself whether it is there, so that a van may be a car and a truck. Average precision
rewards both names, in case one is right; who looks at a picture sees one thing that is counted twice.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stream_seg.detections import Detections
from stream_seg.geometry import pairwise_iou, paste

SAME_OUTLINE = 0.7
"""Masks of two classes that overlap by more are of one thing. A rider's and a horse's do not, in whatever boxes."""

_SAME_BOX = 0.5
_CELLS = 28


def best_named(found: Detections, preference: NDArray[np.float32]) -> NDArray[np.int64]:
    """Which of them each (N,) is, by its best name: of one outline, the one with the highest `preference` (N,)."""
    best = each = np.arange(len(found))
    if (found.class_ids == found.class_ids[:1]).all():
        return best
    rivals = (pairwise_iou(found.boxes, found.boxes) > _SAME_BOX) & (found.class_ids[:, None] != found.class_ids)
    if not rivals.any():
        return best
    best = each.copy()
    order = np.argsort(-preference, kind="stable")
    for i in order[rivals.any(1)[order]]:
        if best[i] == i:
            for j in np.flatnonzero(rivals[i] & (best == each)):
                if _overlap(found, int(i), int(j)) > SAME_OUTLINE:
                    best[j] = i
            rivals[:, i] = False  # what is better, or was looked at, stays
    return best


def _overlap(found: Detections, i: int, j: int) -> float:
    """Intersection over union of the masks of two objects, to a cell of the box around both."""
    pair = found[[i, j]]
    low, high = pair.boxes[:, :2].min(0), pair.boxes[:, 2:].max(0)
    boxes = (pair.boxes - np.tile(low, 2)) * np.tile(_CELLS / np.maximum(high - low, 1e-6), 2)
    one, other = paste(replace(pair, boxes=boxes), (_CELLS, _CELLS))
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 0.0
