"""Which object each place of the pyramid learns: ATSS (Zhang 2019, arXiv 1912.02424), of a whole batch at once.

It looks at where places are, and not at what the network says there: so does the detector whose weights training starts
from, and new classes, of which the network says nothing yet, are learned from the same places from the first step on.
"""

from __future__ import annotations

from typing import NamedTuple

import architecture as a
import torch
from batches import Targets
from boxes import pairwise_iou
from model import Places
from torch import Tensor


class Assigned(NamedTuple):
    """Which object of its image each place learns, (B, P), and whether there is one at all, (B, P)."""

    which: Tensor
    real: Tensor


@torch.no_grad()
def assign(places: Places, targets: Targets) -> Assigned:
    """Each object's places are those near it whose square overlaps it more than most of the near ones' do.

    Of objects that share a place, it learns the one that fills its square best.
    """
    half = a.REACH * places.stride / 2
    squares = torch.cat([places.middle - half, places.middle + half], 1)
    iou = pairwise_iou(targets.boxes, squares[None])  # (B, G, P)
    near = _nearest(places, targets.boxes)
    filled = iou.gather(2, near)
    enough = filled.mean(2, keepdim=True) + filled.std(2, keepdim=True)
    own = torch.zeros_like(iou, dtype=torch.bool).scatter(2, near, filled >= enough)
    own &= _inside(places, targets.boxes) & (targets.labels > 0)[..., None]
    best, which = iou.masked_fill(~own, -1).max(1)
    return Assigned(which, best >= 0)


def _nearest(places: Places, boxes: Tensor) -> Tensor:
    """Of each level, the places nearest to the middle of each box: their index (B, G, K)."""
    middle = (boxes[..., None, :2] + boxes[..., None, 2:]) / 2
    levels = (places.middle - middle).square().sum(-1).split(places.counts, 2)
    starts = [sum(places.counts[:level]) for level in range(len(levels))]
    ranked = [one.topk(min(a.NEAREST, one.shape[2]), 2, largest=False).indices for one in levels]
    return torch.cat([one + start for one, start in zip(ranked, starts, strict=True)], 2)


def _inside(places: Places, boxes: Tensor) -> Tensor:
    """Which places have their middle in which boxes: (B, G, P)."""
    first, last = boxes[..., None, :2], boxes[..., None, 2:]
    return ((places.middle > first) & (places.middle < last)).all(-1)
