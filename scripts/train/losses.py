"""The losses of Mask R-CNN and of a second look at what it finds, batched: no loop over images or regions.

What is not annotated is not punished: where a class is not exhaustively labelled, "background" means "background or
that class" (marginal softmax) and confident proposals are left alone; ignored regions are never drawn as background,
and objects without a usable mask have no mask loss. An annotation that is not certain counts as its class as far as it
is likely to be right, and as background for the rest.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import architecture as a
import torch
from batches import Targets
from boxes import IgnoreMap, clip, decode, encode, greedy_keep, pairwise_iou, sample, take
from model import Net
from pooling import RegionPooler
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection.image_list import ImageList

Losses = dict[str, Tensor]


def training_losses(net: Net, x: Tensor, targets: Targets, *, amp: bool) -> tuple[Losses, Losses]:
    """Losses of a batch `x` (B, 3, H, W), and counters; all still tensors, since reading them would stall a GPU."""
    heads, ignored = net.roi_heads, IgnoreMap(targets.ignore)
    mixed = torch.autocast(x.device.type, torch.bfloat16, enabled=amp)
    with mixed:
        levels, fine, coarsest = net.backbone(x)
        maps = list(levels.values())
        raw_objectness, raw_deltas = net.rpn.head(maps)
    # One size in the ImageList: all images share the canvas, so one copy of the anchors serves the batch.
    anchors = net.rpn.anchor_generator(ImageList(x, [tuple(x.shape[-2:])]), maps)[0]
    objectness = [_per_anchor(one, 1)[..., 0].float() for one in raw_objectness]
    deltas = [_per_anchor(one, 4).float() for one in raw_deltas]
    losses = _proposal_losses(torch.cat(objectness, 1), torch.cat(deltas, 1), anchors, targets, ignored)
    rois = _sample_rois(*_propose(objectness, deltas, anchors, (x.shape[-2], x.shape[-1])), targets, ignored)
    with mixed:
        pooler = RegionPooler(maps[:-1], a.STRIDES)
        logits, box_deltas = heads.box_predictor(heads.box_head(_pool_for_boxes(pooler, rois.boxes)))
    positives = rois.positives()
    box_losses, counters, predicted = _box_losses(logits.float(), box_deltas.float(), rois, positives, targets)
    size = (x.shape[-2], x.shape[-1])
    found = _found(predicted, positives, targets, size)
    doubtful = _doubtful(logits.float(), box_deltas.float(), rois, targets, ignored, size)
    with mixed:
        seen = _pool_for_boxes(pooler, torch.cat([found.boxes, doubtful.boxes], 1))
        logits, box_deltas = heads.box_predictor(heads.box_head(seen))
    box_losses |= _second_losses(logits.float(), box_deltas.float(), found, doubtful, rois.count(), targets)
    outlines = _outline_losses(net, pooler, maps[0], fine, _choose_mask_rois(positives, found, targets), targets, mixed)
    with mixed:
        shown = net.presence(coarsest, [size] * len(x)).float()
    return losses | box_losses | outlines | {"presence": _presence_loss(shown, targets)}, counters


def mask_losses(net: Net, x: Tensor, targets: Targets, *, amp: bool) -> tuple[Losses, Losses]:
    """As `training_losses`, of the mask branch alone: the rest of the network is used as it is, and not trained."""
    mixed = torch.autocast(x.device.type, torch.bfloat16, enabled=amp)
    with mixed, torch.no_grad():
        levels, fine, _ = net.backbone(x)
    chosen = _imagine_detections(targets)
    maps = list(levels.values())[:-1]
    outlines = _outline_losses(net, RegionPooler(maps, a.STRIDES), maps[0], fine, chosen, targets, mixed)
    return outlines, {"positives": chosen.real.sum()}


def _per_anchor(level: Tensor, values: int) -> Tensor:
    """(B, A * values, H, W) -> (B, H * W * A, values), the order of the anchor generator."""
    b, c, h, w = level.shape
    return level.view(b, c // values, values, h, w).permute(0, 3, 4, 1, 2).reshape(b, -1, values)


def _pool_for_boxes(pooler: RegionPooler, boxes: Tensor) -> Tensor:
    """Features (B * R, C, cells, cells) of boxes (B, R, 4), as float graphs pool them or as int8 ones do."""
    image = torch.arange(len(boxes), device=boxes.device).repeat_interleave(boxes.shape[1])
    flat = boxes.flatten(0, 1)
    if torch.rand(()).item() < a.WHOLE_PIXELS:
        return pooler.whole_pixels(flat, image, a.BOX_CELLS)
    return pooler.aligned(flat, image, a.BOX_CELLS, a.POOL_SAMPLES)


def _label_anchors(anchors: Tensor, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
    """(A, 4) anchors -> positive (B, A), background (B, A), index of the best object (B, A)."""
    real = (targets.labels > 0)[..., None]
    iou = pairwise_iou(targets.boxes, anchors[None]).masked_fill(~real, -1)  # (B, G, A)
    best, which = iou.max(1)
    nearest = iou.amax(2, keepdim=True)  # every object claims its best anchors, however poor
    claimed = ((iou == nearest) & real & (nearest > 0)).any(1)
    positive = (best >= a.RPN_POSITIVE_IOU) | claimed
    return positive, (best < a.RPN_NEGATIVE_IOU) & ~positive, which


def _proposal_losses(
    objectness: Tensor, deltas: Tensor, anchors: Tensor, targets: Targets, ignored: IgnoreMap
) -> Losses:
    positive, background, which = _label_anchors(anchors, targets)
    background &= ~ignored.covers(anchors.expand(len(objectness), -1, -1))
    # Where not all classes are labelled, a confident "false positive" may be an unlabelled object.
    partial = ~targets.exhaustive[:, 1:].all(1, keepdim=True)
    background &= ~(partial & (objectness.detach() > 0))
    fg, fg_real = sample(positive, a.RPN_POSITIVES)
    bg, bg_real = sample(background, a.RPN_SAMPLES)
    bg_real &= torch.arange(bg.shape[1], device=bg.device) < a.RPN_SAMPLES - fg_real.sum(1, keepdim=True)
    weight = torch.cat([fg_real, bg_real], 1).float()
    likely = targets.confidence.gather(1, which.gather(1, fg))
    wanted = torch.cat([likely, torch.zeros_like(likely[:, :1]).expand(bg.shape)], 1)
    logits = objectness.gather(1, torch.cat([fg, bg], 1))
    count = weight.sum().clamp(min=1)
    objects = functional.binary_cross_entropy_with_logits(logits, wanted, weight, reduction="sum") / count
    goal = encode(take(targets.boxes, which.gather(1, fg)), anchors[fg])
    box = functional.smooth_l1_loss(take(deltas, fg), goal, beta=a.BOX_BETA, reduction="none").sum(-1)
    return {"objectness": objects, "proposal": (box * fg_real).sum() / count}


@torch.no_grad()
def _propose(
    objectness: list[Tensor], deltas: list[Tensor], anchors: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The best proposals of each image, (B, P, 4), and which of them are real, (B, P)."""
    boxes, scores = [], []
    per_level = anchors.split([one.shape[1] for one in objectness])
    for level_objectness, level_deltas, level_anchors in zip(objectness, deltas, per_level, strict=True):
        score, index = level_objectness.topk(min(a.TRAINING_PER_LEVEL, level_objectness.shape[1]), 1)
        box = clip(decode(take(level_deltas, index), level_anchors[index]), *size)
        good = greedy_keep(box, a.PROPOSAL_NMS_IOU) & ((box[..., 2:] - box[..., :2]).amin(-1) > 1e-3)
        boxes.append(box)
        scores.append(score.masked_fill(~good, -math.inf))
    every = torch.cat(scores, 1)
    score, index = every.topk(min(a.TRAINING_PROPOSALS, every.shape[1]), 1)
    return take(torch.cat(boxes, 1), index), score.isfinite()


class Rois(NamedTuple):
    """Regions drawn for the box head, positives first in each row.

    `boxes` (B, R, 4), `labels` (B, R) with 0 for background, `which` (B, R) the matched object, `real` (B, R) False
    where a row had too few candidates.
    """

    boxes: Tensor
    labels: Tensor
    which: Tensor
    real: Tensor

    def positives(self) -> Rois:
        """The places of each row that are for objects; label 0 where there were too few."""
        return Rois(*(values[:, : a.ROI_POSITIVES] for values in self))

    def count(self) -> Tensor:
        """How many are real, at least 1."""
        return self.real.sum().clamp(min=1)


@torch.no_grad()
def _sample_rois(proposals: Tensor, usable: Tensor, targets: Targets, ignored: IgnoreMap) -> Rois:
    labelled = targets.labels > 0
    boxes = torch.cat([proposals, targets.boxes], 1)  # the objects themselves: early proposals miss everything
    usable = torch.cat([usable, labelled], 1)
    iou = pairwise_iou(boxes, targets.boxes).masked_fill(~labelled[:, None], -1)
    best, which = iou.max(2)
    positive = usable & (best >= a.ROI_IOU)
    background = usable & (best < a.ROI_IOU) & ~ignored.covers(boxes)
    fg, fg_real = sample(positive, a.ROI_POSITIVES)
    is_fg = torch.zeros_like(positive).scatter(1, fg, fg_real)
    key = torch.rand(best.shape, device=best.device).masked_fill(~background, -1)
    value, index = torch.where(is_fg, key.abs() + 2, key).topk(min(a.ROI_SAMPLES, key.shape[1]), 1)
    labels = take(targets.labels, which.gather(1, index)) * (value >= 2)
    return Rois(take(boxes, index), labels, which.gather(1, index), value >= 0)


def marginal_cross_entropy(logits: Tensor, labels: Tensor, exhaustive: Tensor, confidence: Tensor) -> Tensor:
    """Cross entropy where background means "background or any class that is not exhaustively labelled here".

    `logits` and `exhaustive` (..., C), `labels` and their `confidence` (...), labels with 0 for the background; the
    loss has the shape of `labels`. What counts as background for a label counts as none of its class.
    """
    index = labels[..., None]
    others = exhaustive | torch.zeros_like(exhaustive).scatter(-1, index, labels[..., None] > 0)
    background = logits.masked_fill(others, -1e4).logsumexp(-1)
    chosen = torch.lerp(background, logits.gather(-1, index)[..., 0], confidence)
    return logits.logsumexp(-1) - torch.where(labels == 0, background, chosen)


def _box_losses(
    logits: Tensor, deltas: Tensor, rois: Rois, positives: Rois, targets: Targets
) -> tuple[Losses, Losses, Tensor]:
    """Losses and counters of the first look, and what it says of the positives' boxes: deltas (B, P, 4)."""
    b, r = rois.labels.shape
    logits, count = logits.view(b, r, -1), rois.count()
    exhaustive = targets.exhaustive[:, None].expand(b, r, -1)
    classes = marginal_cross_entropy(logits, rois.labels, exhaustive, take(targets.confidence, rois.which))
    predicted = _of_label(deltas.view(b, r, -1)[:, : a.ROI_POSITIVES], positives)
    right = ((logits[:, : a.ROI_POSITIVES].argmax(-1) == positives.labels) & (positives.labels > 0)).sum()
    objects = (positives.labels > 0).sum()
    losses = {
        "class": (classes * rois.real).sum() / count,
        "box": _delta_loss(predicted, positives, targets) / count,
    }
    return losses, {"right": right / objects.clamp(min=1), "positives": objects}, predicted


def _of_label(deltas: Tensor, rois: Rois) -> Tensor:
    """Of the deltas of all classes, for `rois` (B, P), those of each one's label: (B, P, 4)."""
    labels = rois.labels[..., None, None].expand(-1, -1, 1, 4)
    return deltas.reshape(*rois.labels.shape, -1, 4).gather(2, labels)[:, :, 0]


def _delta_loss(deltas: Tensor, rois: Rois, targets: Targets) -> Tensor:
    """The sum over all objects among `rois` of how far `deltas` (B, P, 4) are off."""
    goal = encode(take(targets.boxes, rois.which), rois.boxes, a.BOX_POSITION, a.BOX_SIZE)
    each = functional.smooth_l1_loss(deltas, goal, beta=a.BOX_BETA, reduction="none").sum(-1)
    return (each * (rois.labels > 0) * take(targets.confidence, rois.which)).sum()


@torch.no_grad()
def _found(deltas: Tensor, rois: Rois, targets: Targets, size: tuple[int, int]) -> Rois:
    """Where the first look puts the objects among `rois`, as far as it is near them."""
    boxes = clip(decode(deltas, rois.boxes, a.BOX_POSITION, a.BOX_SIZE), *size)
    near = pairwise_iou(boxes[:, :, None], take(targets.boxes, rois.which)[:, :, None])[..., 0, 0] >= a.ROI_IOU
    return rois._replace(boxes=boxes, labels=rois.labels * near, real=rois.real & near)


@torch.no_grad()
def _doubtful(
    logits: Tensor, deltas: Tensor, rois: Rois, targets: Targets, ignored: IgnoreMap, size: tuple[int, int]
) -> Rois:
    """The background among `rois` that looks most like an object, where the first look puts that: (B, DOUBTFUL).

    Some of it is one, when it has been placed. To look like a class that is not annotated in the image does not count.
    """
    b, r = rois.labels.shape
    likely = logits.view(b, r, -1).softmax(-1).masked_fill(~targets.exhaustive[:, None], 0)
    score, label = likely.max(-1)
    score, index = score.masked_fill(~(rois.real & (rois.labels == 0)), -1).topk(min(a.DOUBTFUL, r), 1)
    chosen = Rois(*(take(values, index) for values in (rois.boxes, label, rois.which, rois.real)))
    moved = decode(_of_label(take(deltas.view(b, r, -1), index), chosen), chosen.boxes, a.BOX_POSITION, a.BOX_SIZE)
    boxes = clip(moved, *size)
    iou = pairwise_iou(boxes, targets.boxes).masked_fill(~(targets.labels > 0)[:, None], -1)
    best, which = iou.max(2)
    labels = take(targets.labels, which) * (best >= a.ROI_IOU)
    return Rois(boxes, labels, which, (score > 0) & ((labels > 0) | ~ignored.covers(boxes)))


def _second_losses(
    logits: Tensor, deltas: Tensor, found: Rois, doubtful: Rois, count: Tensor, targets: Targets
) -> Losses:
    """Losses of the second look at what is `found` and what is `doubtful`, one after the other; as a share of `count`.

    Objects are placed and named again, and what was taken for one is told from them, as in a cascade (Cai 2018).
    """
    objects = found.labels.shape[1]
    labels = torch.cat([found.labels, doubtful.labels], 1)
    real = torch.cat([found.labels > 0, doubtful.real], 1)
    exhaustive = targets.exhaustive[:, None].expand(*labels.shape, -1)
    confidence = take(targets.confidence, torch.cat([found.which, doubtful.which], 1))
    classes = marginal_cross_entropy(logits.view(*labels.shape, -1), labels, exhaustive, confidence)
    placed = _of_label(deltas.view(*labels.shape, -1)[:, :objects], found)
    return {"named": (classes * real).sum() / count, "refined": _delta_loss(placed, found, targets) / count}


def _presence_loss(logits: Tensor, targets: Targets) -> Tensor:
    """Cross entropy of which classes each image shows, logits (B, classes), where that is known."""
    nothing = torch.zeros(len(logits), logits.shape[1] + 1, device=logits.device)
    shown = nothing.scatter_reduce(1, targets.labels, targets.confidence, "amax")[:, 1:]
    known = (shown > 0) | (targets.exhaustive & ~targets.ignored)[:, 1:]
    each = functional.binary_cross_entropy_with_logits(logits, shown, reduction="none")
    return a.PRESENCE_LOSS * (each * known).sum() / known.sum().clamp(min=1)


class MaskRois(NamedTuple):
    """Regions drawn for the mask head: `boxes` (N, 4), `image` (N,), `crop` (N,) row of Targets.crops, `real` (N,).

    `labels` (N,) are those of their objects.
    """

    boxes: Tensor
    labels: Tensor
    image: Tensor
    crop: Tensor
    real: Tensor


@torch.no_grad()
def _choose_mask_rois(positives: Rois, found: Rois, targets: Targets) -> MaskRois:
    """Positives with a usable mask, drawn from the whole batch so that few places stay empty.

    Half of them as the box head places them (`found`), as in graphs, and half as they were proposed: it knows the
    pictures it is trained on, so that masks would see only boxes that fit, and learn to fill them.
    """
    crop = take(targets.crop_row, positives.which)
    eligible = (positives.labels > 0) & (crop >= 0)
    index, real = sample(eligible.view(1, -1), len(crop) * a.MASK_ROIS)
    index, real = index[0], real[0]
    placed = (found.labels > 0) & (torch.rand(found.labels.shape, device=found.labels.device) < 0.5)
    boxes = torch.where(placed[..., None], found.boxes, positives.boxes).flatten(0, 1)[index]
    labels = positives.labels.flatten()[index]
    return MaskRois(boxes, labels, index // crop.shape[1], crop.reshape(-1)[index].clamp(min=0), real)


@torch.no_grad()
def _mask_targets(chosen: MaskRois, targets: Targets, size: int) -> Tensor:
    """(N, size, size) of 0 and 1: each region's view of its object's mask, four samples per cell."""
    window = targets.crop_boxes[chosen.crop]
    steps = (torch.arange(2 * size, device=window.device) + 0.5) / (2 * size)
    first, extent = chosen.boxes[:, None, :2], (chosen.boxes[:, 2:] - chosen.boxes[:, :2])[:, None]
    place = first + extent * steps[:, None]  # (N, 2 * size, 2)
    inside = (place - window[:, None, :2]) / (window[:, 2:] - window[:, :2]).clamp(min=1e-3)[:, None] * 2 - 1
    x, y = inside[:, None, :, 0].expand(-1, 2 * size, -1), inside[:, :, None, 1].expand(-1, -1, 2 * size)
    crops = targets.crops[chosen.crop][:, None].float() / 255
    sampled = functional.grid_sample(crops, torch.stack([x, y], -1), align_corners=False)  # zeros outside the crop
    return (functional.avg_pool2d(sampled, 2)[:, 0] >= 0.5).float()


@torch.no_grad()
def _imagine_detections(targets: Targets) -> MaskRois:
    """Boxes around objects with a usable mask, as far off as detected ones are, in several variants each."""
    crops = targets.crop_row.repeat(1, a.VIEWS)
    index, real = sample((crops >= 0).view(1, -1), len(crops) * a.ONLY_MASK_ROIS)
    index, real = index[0], real[0]
    true = targets.boxes.repeat(1, a.VIEWS, 1).view(-1, 4)[index]
    middle, side = (true[:, :2] + true[:, 2:]) / 2, true[:, 2:] - true[:, :2]
    middle = middle + torch.randn_like(side) * a.BOX_SHIFT * side
    half = side * (torch.randn_like(side) * a.BOX_STRETCH).exp() / 2
    boxes = torch.cat([middle - half, middle + half], 1)
    alike = pairwise_iou(true[:, None], boxes[:, None])[:, 0, 0] >= a.ROI_IOU
    labels = targets.labels.repeat(1, a.VIEWS).view(-1)[index]
    return MaskRois(boxes, labels, index // crops.shape[1], crops.view(-1)[index].clamp(min=0), real & alike)


def _outline_losses(
    net: Net,
    pooler: RegionPooler,
    finest: Tensor,
    fine: Tensor,
    chosen: MaskRois,
    targets: Targets,
    mixed: torch.autocast,
) -> Losses:
    heads = net.roi_heads
    with mixed:
        pooled = pooler.aligned(chosen.boxes, chosen.image, a.MASK_CELLS, a.POOL_SAMPLES)
        merged = RegionPooler([heads.mask_detail(fine, finest)], [a.FINE_STRIDE])
        details = merged.aligned(chosen.boxes, chosen.image, 2 * a.MASK_CELLS, 1)
        logits = heads.outline(pooled, details, chosen.labels).float()
    wanted = _mask_targets(chosen, targets, logits.shape[-1])
    weight = chosen.real / chosen.real.sum().clamp(min=1)
    each = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean((1, 2))
    found = logits.sigmoid()
    shared, all_of_both = (found * wanted).sum((1, 2)), found.sum((1, 2)) + wanted.sum((1, 2))
    dice = 1 - (2 * shared + 1) / (all_of_both + 1)  # Milletari 2016, arXiv 1606.04797
    return {"mask": (each * weight).sum(), "dice": a.DICE * (dice * weight).sum()}
