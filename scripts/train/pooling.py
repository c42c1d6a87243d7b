"""Pooling of regions from feature maps as one sum of weighted rows, each of which is a pixel with all its channels.

torchvision's operator works through channels one by one, and takes five times as long on a CPU, there and back; all
levels of a pyramid are served by one call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import architecture as a
import torch
from torch import Tensor
from torch.nn import functional


class _Taps(NamedTuple):
    """Along one axis, the pixels (N, cells, K) that give each cell of a region, and their weights."""

    position: Tensor
    weight: Tensor


class _Located(NamedTuple):
    """Of each of N regions, (N, 1): its edges in its map, the size of that map, and its first row of pixels."""

    x1: Tensor
    y1: Tensor
    x2: Tensor
    y2: Tensor
    height: Tensor
    width: Tensor
    begin: Tensor


class RegionPooler:
    """Pools regions from `maps` (B, C, H/s, W/s) of the given strides s, finest first, in float32."""

    def __init__(self, maps: Sequence[Tensor], strides: Sequence[int]) -> None:
        rows = [one.permute(0, 2, 3, 1).flatten(0, 2) for one in maps]
        self._rows = torch.cat(rows).float()
        self._first = round(math.log2(strides[0]))
        sizes, begins = [one.shape[-2:] for one in maps], accumulate(map(len, rows[:-1]), initial=0)
        levels = [(1 / stride, *size, begin) for stride, size, begin in zip(strides, sizes, begins, strict=True)]
        self._levels = _made_there(levels, self._rows)

    def aligned(self, boxes: Tensor, image: Tensor, cells: int, samples: int) -> Tensor:
        """Features (N, C, cells, cells) of boxes (N, 4) in images (N,), as RoIAlign makes them (He 2017).

        Each cell is the mean of samples x samples points, interpolated bilinearly; coordinates are not moved by half a
        pixel, as in torchvision's models and in the graph.
        """
        with torch.no_grad():
            at = self._locate(boxes, image)
            x = _interpolated(at.x1, at.x2, at.width, cells, samples)
            y = _interpolated(at.y1, at.y2, at.height, cells, samples)
            position = y.position[:, :, None, :, None] * at.width[..., None, None, None] + x.position[:, None, :, None]
            weight = y.weight[:, :, None, :, None] * x.weight[:, None, :, None]
        return self._summed(position.flatten(3), weight.flatten(3), at.begin)

    def _locate(self, boxes: Tensor, image: Tensor) -> _Located:
        boxes = boxes.nan_to_num(0.0)  # NaN would become an address; the trainer sees the features' NaN anyway
        side = (boxes[:, 2:] - boxes[:, :2]).prod(1).clamp(min=1e-6).sqrt()
        level = (a.CANONICAL_LEVEL + (side / a.CANONICAL_SIDE).log2() + 1e-6).floor() - self._first
        level = level.clamp(0, len(self._levels) - 1).long()
        scale, height, width, first = self._levels[level].split(1, 1)
        begin = first + image[:, None] * height * width
        return _Located(*(boxes * scale).split(1, 1), height, width, begin)

    def _summed(self, position: Tensor, weight: Tensor, begin: Tensor) -> Tensor:
        """`position` and `weight` (N, cells, cells, K), the former counted from `begin`."""
        index = (position + begin[..., None, None]).long().flatten(0, 2)
        pooled = functional.embedding_bag(index, self._rows, per_sample_weights=weight.flatten(0, 2), mode="sum")
        return pooled.view(*weight.shape[:3], self._rows.shape[1]).permute(0, 3, 1, 2)


def _made_there(table: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """A table of numbers on the device of `like`, number by number: to copy one there would wait for the GPU."""
    return torch.stack([torch.stack([like.new_full((), value) for value in row]) for row in table])


def _spread(low: Tensor, high: Tensor, points: int) -> Tensor:
    """(N, points), evenly from low to high, which are taken to be at least 1 apart."""
    middles = (torch.arange(points, device=low.device) + 0.5) / points
    return low + (high - low).clamp(min=1) * middles


def _interpolated(low: Tensor, high: Tensor, length: Tensor, cells: int, samples: int) -> _Taps:
    """A point beyond the middle of the first or last pixel has its value, one that is a pixel further out has none."""
    place = _spread(low, high, cells * samples)
    inside = ((place >= -1) & (place <= length)) / samples
    place = place.clamp(min=0).minimum(length - 1)
    before = place.floor()
    position = torch.stack([before, (before + 1).minimum(length - 1)], -1)
    weight = torch.stack([1 - (place - before), place - before], -1) * inside[..., None]
    return _Taps(*(one.view(len(low), cells, 2 * samples) for one in (position, weight)))
