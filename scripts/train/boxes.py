"""Arithmetic on batches of boxes (x1, y1, x2, y2), without loops over images and without waiting for a GPU."""

from __future__ import annotations

import math

import torch
from architecture import IGNORE_STRIDE
from torch import Tensor
from torch.nn import functional

MAX_LOG_SCALE = math.log(1000 / 16)
"""torchvision's bound of the exponent in decoding."""
NMS_ROUNDS = 12


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """(..., N, 4), (..., M, 4) -> (..., N, M)."""
    a, b = a.unsqueeze(-2), b.unsqueeze(-3)
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - overlap
    return overlap / union.clamp(min=1e-6)


def _centre_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


def encode(target: Tensor, reference: Tensor, position: float = 1.0, size: float = 1.0) -> Tensor:
    """R-CNN's box deltas (Girshick 2014, appendix C), scaled. Padding of no size stays finite; its weight is 0."""
    (target_centre, target_size), (centre, extent) = _centre_size(target), _centre_size(reference)
    extent, target_size = extent.clamp(min=1e-3), target_size.clamp(min=1e-3)
    return torch.cat([(target_centre - centre) / extent * position, (target_size / extent).log() * size], -1)


def decode(deltas: Tensor, reference: Tensor, position: float = 1.0, size: float = 1.0) -> Tensor:
    """The inverse of `encode`."""
    centre, extent = _centre_size(reference)
    centre = centre + deltas[..., :2] / position * extent
    half = extent * (deltas[..., 2:] / size).clamp(max=MAX_LOG_SCALE).exp() / 2
    return torch.cat([centre - half, centre + half], -1)


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


def greedy_keep(boxes: Tensor, threshold: float) -> Tensor:
    """Non-maximum suppression of (B, K, 4) boxes sorted by score, as a fixed-point iteration: (B, K) bool.

    Round n is exact for every box whose chain of suppressors is at most n long (Cluster-NMS, Zheng 2020, arXiv
    2005.03572). Longer chains than NMS_ROUNDS are rare, and one doubtful training proposal does no harm.
    """
    beats = (pairwise_iou(boxes, boxes) > threshold).triu(1).to(torch.bfloat16 if boxes.is_cuda else torch.float32)
    keep = beats.new_ones(len(boxes), 1, boxes.shape[1])
    for _ in range(NMS_ROUNDS):
        keep = (keep @ beats == 0).to(beats.dtype)
    return keep[:, 0] > 0


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
