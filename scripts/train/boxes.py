"""Arithmetic on batches of boxes (x1, y1, x2, y2), without loops over images and without waiting for a GPU."""

from __future__ import annotations

import torch
from architecture import IGNORE_STRIDE
from torch import Tensor
from torch.nn import functional


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """(..., N, 4), (..., M, 4) -> (..., N, M)."""
    return overlap(a.unsqueeze(-2), b.unsqueeze(-3))[0]


def overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi 2019, arXiv 1902.09630) of boxes (..., 4) and others: each (...)."""
    common = _area(torch.cat([torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])], -1))
    hull = _area(torch.cat([torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])], -1))
    union = (_area(a) + _area(b) - common).clamp(min=1e-6)
    iou = common / union
    return iou, iou - (hull - union).clamp(min=0) / hull.clamp(min=1e-6)


def _area(boxes: Tensor) -> Tensor:
    """Not by `prod`, whose derivative looks for zeros, and makes a GPU wait."""
    side = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return side[..., 0] * side[..., 1]


def clip(boxes: Tensor, height: int, width: int) -> Tensor:
    """The part of each box inside a canvas."""
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack([x, y], -1).flatten(-2)


def take(values: Tensor, index: Tensor) -> Tensor:
    """`values` (B, N, ...) gathered along N with `index` (B, K)."""
    tail = values.shape[2:]
    return values.gather(1, index.view(*index.shape, *[1] * len(tail)).expand(*index.shape, *tail))


def sample(candidates: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Up to `count` random True positions of each row of (B, N): their index (B, count), and which of them are real."""
    key = torch.rand(candidates.shape, device=candidates.device).masked_fill(~candidates, -1)
    value, index = key.topk(min(count, key.shape[1]), 1)
    return index, value >= 0


def greedy_keep(boxes: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Non-maximum suppression of boxes (K, 4) sorted by score, among those of the same label (K,): (K,) bool.

    Round n is exact for every box whose chain of suppressors is at most n long (Cluster-NMS, Zheng 2020, arXiv
    2005.03572); when nothing changes any more, it is for all.
    """
    beats = ((pairwise_iou(boxes, boxes) > threshold) & (labels[:, None] == labels)).triu(1)
    keep, before = ~beats.any(0), torch.ones_like(labels, dtype=torch.bool)
    while not torch.equal(keep, before):
        keep, before = ~(beats & keep[:, None]).any(0), keep
    return keep


class IgnoreMap:
    """Answers whether a box lies on ignored pixels, by a summed-area table."""

    def __init__(self, ignore: Tensor) -> None:
        self.height, self.width = ignore.shape[1:]
        self.table = functional.pad(ignore.float().cumsum(1).cumsum(2), (1, 0, 1, 0)).flatten(1)

    def covers(self, boxes: Tensor) -> Tensor:
        """(B, N, 4) -> (B, N) bool: more than half of the box is ignored."""
        cell = (boxes.detach() / IGNORE_STRIDE).round().long()
        x1, x2 = (cell[..., i].clamp(0, self.width) for i in (0, 2))
        y1, y2 = (cell[..., i].clamp(0, self.height) for i in (1, 3))
        inside = self._sum(x2, y2) - self._sum(x2, y1) - self._sum(x1, y2) + self._sum(x1, y1)
        return inside / ((x2 - x1) * (y2 - y1)).clamp(min=1) > 0.5

    def _sum(self, x: Tensor, y: Tensor) -> Tensor:
        return self.table.gather(1, y * (self.width + 1) + x)
