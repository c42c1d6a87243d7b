"""Owns which of the finds of several looks at one image are one object, and what the looks say of it together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream_seg.detections import Detections
from stream_seg.geometry import continued, pairwise_iou, regridded

SAME_IOU = 0.5
"""Finds of different looks that overlap more than that are one object, if they are of one class."""

_AGREEING = 0.15
"""By so much, as log odds, what two looks find is likelier than both say on average."""


def united(looks: Sequence[Detections]) -> Detections:
    """What several looks at one image found, each object once: of finds that are one, the likeliest remains.

    Boxes must be in the same pixels, and the names of the classes the same. What overlaps within one look is left to
    the model.
    """
    counts = [len(found) for found in looks]
    if sum(map(bool, counts)) < 2:
        return looks[int(np.argmax(counts))]
    boxes, scores, classes = (
        np.concatenate([getattr(found, name) for found in looks]) for name in ("boxes", "scores", "class_ids")
    )
    look = np.repeat(np.arange(len(looks)), counts)
    order = np.argsort(-scores, kind="stable")
    remains = np.ones(len(boxes), bool)
    for number in np.unique(classes):
        mine = order[classes[order] == number]
        rivals = (pairwise_iou(boxes[mine], boxes[mine]) > SAME_IOU) & (look[mine, None] != look[mine])
        for i, of_this in zip(mine, rivals, strict=True):
            if remains[i]:
                remains[mine[of_this]] = False
    best = order[remains[order]]
    return Detections(boxes[best], scores[best], classes[best], _masks(looks)[best], looks[0].class_names)


def agreed(one: Detections, other: Detections, threshold: float) -> Detections:
    """What two looks at an image find, each object once, with a score of both looks, where one that misses it counts 0;
    those above `threshold`.

    Boxes must be in the same pixels. An object's box and mask are between those of both looks, nearer to the surer one.
    """
    which, _ = continued(one, other, SAME_IOU)
    first = np.flatnonzero(which >= 0)
    second, alone = which[first], np.setdiff1d(np.arange(len(other)), which)
    boxes, scores = one.boxes.astype(np.float32), one.scores.astype(np.float32) / 2
    masks = _masks([one, other]) if len(one) or len(other) else one.masks
    share = (other.scores[second] / np.maximum(one.scores[first] + other.scores[second], 1e-6))[:, None]
    boxes[first] += share * (other.boxes[second] - boxes[first])
    mean = scores[first] + other.scores[second] / 2
    scores[first] = mean + _AGREEING * mean * (1 - mean)
    masks[first] += share[..., None] * (masks[len(one) + second] - masks[first])
    found = Detections(
        np.concatenate([boxes, other.boxes[alone]]),
        np.concatenate([scores, other.scores[alone] / 2]),
        np.concatenate([one.class_ids, other.class_ids[alone]]),
        np.delete(masks, len(one) + second, axis=0),
        one.class_names if len(one) else other.class_names,
    )
    order = np.argsort(-found.scores, kind="stable")
    return found[order[found.scores[order] > threshold]]


def _masks(looks: Sequence[Detections]) -> NDArray[np.float32]:
    """Those of all looks, on the finest grid that one of them has."""
    found = [look.masks for look in looks if len(look)]
    finest = tuple(max(masks.shape[axis] for masks in found) for axis in (1, 2))
    return np.concatenate([regridded(masks, finest).astype(np.float32, copy=False) for masks in found])
