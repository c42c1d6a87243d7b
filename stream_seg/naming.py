"""Owns which of an object's names is shown, where it has several.

A network says of each class by itself whether it is there, so that a van may be a car and a truck. Average precision
rewards both names, in case one is right; who looks at a picture sees one thing that is counted twice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_seg.detections import Detections
from stream_seg.geometry import pairwise_iou

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
    boxes = found.boxes[[i, j]].astype(np.float64)
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    places = low + (np.arange(_CELLS)[:, None] + 0.5) * (high - low) / _CELLS  # (CELLS, 2): x, y
    one, other = (_covered(found.masks[k], box, places) for k, box in zip((i, j), boxes, strict=True))
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 0.0


def _covered(mask: NDArray[np.float32], box: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a mask (S, T), stretched over its box, covers each of the `places` (P, 2) along x and y: (P, P)."""
    cells = np.array(mask.shape[::-1])
    sides = np.maximum(box[2:] - box[:2], 1e-6)
    cell = np.floor((places - box[:2]) / sides * cells).astype(np.int64)
    within = (cell >= 0) & (cell < cells)
    columns, rows = cell.clip(0, cells - 1).T
    return np.asarray((mask[rows[:, None], columns] > 0.5) & within[:, 1, None] & within[:, 0])
