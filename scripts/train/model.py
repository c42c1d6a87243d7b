"""The compact network: body, pyramid and detector of NanoDet-g, and the mask head of a Mask R-CNN behind them.

Parameter names are those of the graph builder. The body joins what its stages make with what they began with (CSPNet:
Wang 2019, arXiv 1911.11929); a pyramid adds its maps down, and up again (PAN: Liu 2018, arXiv 1803.01534), without more
convolutions. At each place of the pyramid a head says which classes stand there, and how far away the four sides of
their box are (GFL: Li 2020, arXiv 2006.04388).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import architecture as a
import torch
from boxes import clip, greedy_keep, pairwise_iou
from pooling import RegionPooler
from torch import Tensor, nn
from torch.nn import functional


def _leaky(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, a.SLOPE)


class Halves(nn.Module):
    """Two convolutions of half the channels, one after the other, and what both make."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.first = nn.Conv2d(channels, half, 3, padding=1)
        self.second = nn.Conv2d(half, half, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = _leaky(self.first(x))
        return torch.cat([_leaky(self.second(first)), first], 1)


class Stage(nn.Module):
    """A convolution, `blocks` and another convolution, and beside that what the first made: twice the channels."""

    def __init__(self, before: int, channels: int, blocks: int, stride: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(before, channels, 3, stride, 1)
        self.blocks = nn.Sequential(*(Halves(channels) for _ in range(blocks)))
        self.leave = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        entered = _leaky(self.enter(x))
        return torch.cat([_leaky(self.leave(self.blocks(entered))), entered], 1)


class Body(nn.Module):
    """A stem and four stages. The stem and the first `frozen` stages never change; -1 trains all."""

    def __init__(self, frozen: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, a.STEM_CHANNELS, 3, 2, 1)
        widths = [a.STEM_CHANNELS, *(2 * channels for channels, _ in a.STAGES)]
        strides = [1] + [2] * (len(a.STAGES) - 1)  # the stem has a quarter of the resolution already
        self.stages = nn.ModuleList(
            Stage(width, *sizes, stride) for width, sizes, stride in zip(widths, a.STAGES, strides, strict=False)
        )
        pixels = torch.tensor([a.PIXEL_MEAN, a.PIXEL_DEVIATION])[..., None, None] / 127.5
        self.register_buffer("_pixels", pixels, persistent=False)
        self.frozen = frozen
        for part in (self.stem, *self.stages)[: frozen + 1]:
            part.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of strides 4, 8, 16 and 32 of pixels (B, 3, H, W) in -1..1."""
        mean, deviation = self._pixels
        x, made = (x + 1 - mean) / deviation, []
        for number, part in enumerate((self.stem, *self.stages)):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number > self.frozen):
                x = part(x) if number else functional.max_pool2d(_leaky(part(x)), 3, 2, 1)
            made.append(x)
        return made[1:]


class Maps(NamedTuple):
    """Feature maps (B, C, H / stride, W / stride) of images."""

    levels: list[Tensor]
    """The pyramid's, finest first."""
    fine: Tensor
    """The body's of stride 4."""


class Backbone(nn.Module):
    """Body and pyramid."""

    def __init__(self, frozen: int) -> None:
        super().__init__()
        self.body = Body(frozen)
        self.lateral = nn.ModuleList(nn.Conv2d(2 * channels, a.PYRAMID_CHANNELS, 1) for channels, _ in a.STAGES[1:])

    def forward(self, x: Tensor) -> Maps:
        fine, *stages = self.body(x)
        *finer, coarsest = (layer(one) for layer, one in zip(self.lateral, stages, strict=True))
        down = [coarsest]
        for one in reversed(finer):
            down.insert(0, one + functional.interpolate(down[0], scale_factor=2.0, mode="bilinear"))
        levels = [down[0]]
        for one in down[1:]:  # bilinear, too: where the resolution is halved that is the mean of four
            levels.append(one + functional.avg_pool2d(levels[-1], 2))
        return Maps(levels, fine)


class DenseHead(nn.Module):
    """Of a level of the pyramid: logits of classes (B, classes, H, W) and of distances (B, 4 * DISTANCES, H, W)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(a.PYRAMID_CHANNELS, a.PYRAMID_CHANNELS, 3, padding=1)
        self.classes = nn.Conv2d(a.PYRAMID_CHANNELS, classes, 1)
        self.distances = nn.Conv2d(a.PYRAMID_CHANNELS, 4 * a.DISTANCES, 1)
        assert self.classes.bias is not None
        nn.init.normal_(self.classes.weight, std=0.01)
        nn.init.constant_(self.classes.bias, math.log(a.PRIOR / (1 - a.PRIOR)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = _leaky(self.conv(x))
        return self.classes(x), self.distances(x)


class MaskDetail(nn.Module):
    """One map of stride 4 and few channels: edges from the body, and what they belong to from the finest level."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(a.FINE_CHANNELS, a.DETAIL_CHANNELS, 1)
        self.coarse = nn.Conv2d(a.MASK_LEVEL_CHANNELS, a.DETAIL_CHANNELS, 1)

    def forward(self, fine: Tensor, level: Tensor) -> Tensor:
        return functional.relu(self.fine(fine) + functional.interpolate(self.coarse(level), scale_factor=2.0))


class MaskPredictor(nn.Module):
    """Twice the resolution, joined by the details there, refined: one mask for all classes."""

    def __init__(self) -> None:
        super().__init__()
        width = a.DETAIL_CHANNELS
        self.conv5_mask = nn.ConvTranspose2d(a.MASK_CHANNELS[-1], width, 2, 2)
        self.refine = nn.Conv2d(width, width, 3, padding=1)
        self.mask_fcn_logits = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor, details: Tensor) -> Tensor:
        x = functional.relu(self.conv5_mask(x) + details)
        logits: Tensor = self.mask_fcn_logits(functional.relu(self.refine(x)))
        return logits


class MaskBranch(nn.Module):
    """Outlines of labelled boxes; `labels` counts the background, whose vector is for what has no label.

    The head is one for all levels of the pyramid, each of which is made for a head of its own: hence `mask_levels`.
    """

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.mask_levels = nn.ModuleList(nn.Conv2d(a.PYRAMID_CHANNELS, a.MASK_LEVEL_CHANNELS, 1) for _ in a.STRIDES)
        self.mask_head = _mask_head()
        self.mask_detail = MaskDetail()
        self.mask_predictor = MaskPredictor()
        self.apply(_start)
        nn.init.normal_(self.mask_predictor.mask_fcn_logits.weight, std=0.01)
        self.mask_class = nn.Embedding(labels, a.MASK_LEVEL_CHANNELS)
        nn.init.zeros_(self.mask_class.weight)

    def forward(self, maps: Maps, boxes: Tensor, image: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, 28, 28) of what is in boxes (N, 4) of images (N,) and has labels (N,).

        What is meant is not to be seen in a box alone, where a rider and a horse share it.
        """
        levels = [layer(level) for layer, level in zip(self.mask_levels, maps.levels, strict=True)]
        pooled = RegionPooler(levels, a.STRIDES).aligned(boxes, image, a.MASK_CELLS, a.POOL_SAMPLES)
        merged = RegionPooler([self.mask_detail(maps.fine, levels[0])], [a.FINE_STRIDE])
        details = merged.aligned(boxes, image, 2 * a.MASK_CELLS, 1)
        seen = pooled + self.mask_class(labels)[:, :, None, None]
        logits: Tensor = self.mask_predictor(self.mask_head(seen), details)
        return logits[:, 0]


class Net(nn.Module):
    """The network for `classes`; `losses` trains it, `detect` uses it. `frozen` is the body's."""

    def __init__(self, classes: tuple[str, ...], frozen: int = -1) -> None:
        super().__init__()
        self.classes = classes
        self.backbone = Backbone(frozen)
        self.dense = nn.ModuleList(DenseHead(len(classes)) for _ in a.STRIDES)
        self.roi_heads = MaskBranch(len(classes) + 1)

    def predict(self, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits of classes (B, P, classes) and of distances (B, P, 4, DISTANCES) at all places, finest level first."""
        both = [head(level) for head, level in zip(self.dense, levels, strict=True)]
        classes, distances = ([one.flatten(2).transpose(1, 2) for one in kind] for kind in zip(*both, strict=True))
        return torch.cat(classes, 1).float(), torch.cat(distances, 1).float().unflatten(2, (4, a.DISTANCES))

    @torch.no_grad()
    def detect(self, x: Tensor, sizes: list[tuple[int, int]], threshold: float) -> list[dict[str, Tensor]]:
        """`x` (B, 3, H, W) in -1..1 and the valid (h, w) of each -> boxes, scores, labels, masks (N, 28, 28)."""
        maps = self.backbone(x)
        logits, distances = self.predict(maps.levels)
        placed = Places.of(maps.levels).boxes(distances)
        found = [_best(*one, threshold) for one in zip(placed, logits.sigmoid(), sizes, strict=True)]
        boxes, scores, labels = map(list, zip(*found, strict=True))
        counts = [len(one) for one in boxes]
        image = torch.arange(len(counts), device=x.device).repeat_interleave(torch.tensor(counts, device=x.device))
        masks = self.roi_heads(maps, torch.cat(boxes), image, torch.cat(labels)).sigmoid().split(counts)
        return [_scored(*one, threshold) for one in zip(boxes, scores, labels, masks, strict=True)]


class Places(NamedTuple):
    """Where the head of a pyramid answers, finest level first: P places on a canvas."""

    middle: Tensor
    """(P, 2), x and y in pixels."""
    stride: Tensor
    """(P, 1)."""
    counts: list[int]
    """How many there are of each level."""

    @classmethod
    def of(cls, levels: list[Tensor]) -> Places:
        """Of maps (B, C, H / stride, W / stride)."""
        middles, strides = [], []
        for level, stride in zip(levels, a.STRIDES, strict=True):
            y, x = ((torch.arange(side, device=level.device) + 0.5) * stride for side in level.shape[2:])
            middles.append(torch.cartesian_prod(y, x).flip(1))
            strides.append(torch.full_like(middles[-1][:, :1], stride))
        return cls(torch.cat(middles), torch.cat(strides), [len(one) for one in middles])

    def boxes(self, distances: Tensor) -> Tensor:
        """Boxes (B, P, 4) of logits (B, P, 4, DISTANCES)."""
        strides = torch.arange(a.DISTANCES, dtype=distances.dtype, device=distances.device)
        away = (distances.softmax(-1) @ strides) * self.stride
        return torch.cat([self.middle - away[..., :2], self.middle + away[..., 2:]], -1)


def _best(boxes: Tensor, likely: Tensor, size: tuple[int, int], threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (N, 4), scores and labels of one image, of boxes (P, 4) and probabilities (P, classes)."""
    place, label = (likely > threshold).nonzero(as_tuple=True)
    scores, order = likely[place, label].topk(min(len(place), a.CANDIDATES))
    place, label = place[order], label[order]
    clipped = clip(boxes[place], *size)
    is_box = (clipped[:, 2:] - clipped[:, :2]).amin(1) >= a.LEAST_SIDE
    clipped, scores, label = clipped[is_box], scores[is_box], label[is_box]
    kept = greedy_keep(clipped, label, a.DETECTION_NMS_IOU)
    best = (one[kept][: a.DETECTIONS] for one in (clipped, scores, label + 1))
    return _decayed(*best, threshold)


def _decayed(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Detections of one image, best first, less certain where a better one overlaps: see stream_seg/graph/nms.py."""
    if len(scores):
        squared = (pairwise_iou(boxes, boxes) * (labels[:, None] == labels)).triu(1).square()
        covered = squared.amax(0)
        scores = scores * (-(squared - covered[:, None]).amax(0).clamp(min=0) / a.DETECTION_DECAY).exp()
    order = scores.argsort(descending=True, stable=True)
    best = order[scores[order] > threshold]
    return boxes[best], scores[best], labels[best]


def _scored(boxes: Tensor, scores: Tensor, labels: Tensor, masks: Tensor, threshold: float) -> dict[str, Tensor]:
    """Detections of one image, each only as certain as its mask: see `scored` of stream_seg/graph/mask_head.py."""
    inside = (masks > 0.5).float()
    scores = scores * (masks * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
    order = scores.argsort(descending=True, stable=True)
    best = order[scores[order] > threshold]
    return {"boxes": boxes[best], "scores": scores[best], "labels": labels[best], "masks": masks[best]}


def freeze_all_but_masks(net: Net) -> None:
    """What is left to train are the outlines."""
    net.requires_grad_(False)
    net.roi_heads.requires_grad_(True)


def _mask_head() -> nn.Sequential:
    """The middle ones are dilated, to see all of a box."""
    widths = (a.MASK_LEVEL_CHANNELS, *a.MASK_CHANNELS)
    layers = [
        nn.Sequential(nn.Conv2d(before, after, 3, padding=dilation, dilation=dilation), nn.ReLU(inplace=True))
        for before, after, dilation in zip(widths, widths[1:], a.MASK_DILATIONS, strict=False)
    ]
    return nn.Sequential(*layers)


def _start(layer: nn.Module) -> None:
    """He's initialisation (He 2015, arXiv 1502.01852): gradients keep their size from layer to layer."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        mode = "fan_out" if isinstance(layer, nn.Conv2d) else "fan_in"  # a deconvolution's axes are the other way round
        nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
