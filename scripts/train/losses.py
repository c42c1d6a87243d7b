"""The losses of the dense head and of the masks behind it, batched: no loop over images, places or objects.

What is not annotated is not punished: where a class is not exhaustively labelled in a picture, only objects of that
class teach it there, and in ignored regions nothing is background; objects without a usable mask have no mask loss. An
annotation that is not certain counts as far as it is likely to be right.
"""

from __future__ import annotations

from typing import NamedTuple

import architecture as a
import torch
from assignment import Assigned, assign
from batches import Targets
from boxes import IgnoreMap, clip, overlap, sample, take
from model import Maps, Net, Places
from torch import Tensor
from torch.nn import functional

Losses = dict[str, Tensor]


def training_losses(net: Net, x: Tensor, targets: Targets, *, amp: bool) -> tuple[Losses, Losses]:
    """Losses of a batch `x` (B, 3, H, W), and counters; all still tensors, since reading them would stall a GPU."""
    mixed = torch.autocast(x.device.type, torch.bfloat16, enabled=amp)
    with mixed:
        maps = net.backbone(x)
        logits, distances = net.predict(maps.levels)
    places = Places.of(maps.levels)
    found, assigned = Predicted(logits, distances, places.boxes(distances)), assign(places, targets)
    losses, counters = dense_losses(found, places, assigned, targets)
    placed = clip(_of_objects(found, assigned, targets), x.shape[-2], x.shape[-1])
    outlines = _outline_losses(net, maps, _choose_mask_rois(targets, a.MASK_ROIS, placed), targets, mixed)
    return losses | outlines, counters


def mask_losses(net: Net, x: Tensor, targets: Targets, *, amp: bool) -> tuple[Losses, Losses]:
    """As `training_losses`, of the mask branch alone: the rest of the network is used as it is, and not trained."""
    mixed = torch.autocast(x.device.type, torch.bfloat16, enabled=amp)
    with mixed, torch.no_grad():
        maps = net.backbone(x)
    chosen = _choose_mask_rois(targets, a.ONLY_MASK_ROIS)
    return _outline_losses(net, maps, chosen, targets, mixed), {"positives": chosen.real.sum()}


class Predicted(NamedTuple):
    """What the dense head says: `logits` (B, P, classes), `distances` (B, P, 4, DISTANCES), `boxes` (B, P, 4)."""

    logits: Tensor
    distances: Tensor
    boxes: Tensor


def dense_losses(found: Predicted, places: Places, assigned: Assigned, targets: Targets) -> tuple[Losses, Losses]:
    """Generalised focal loss (GFL: Li 2020, arXiv 2006.04388), as a share of the sum of what is to be told of objects.

    A place of an object is to tell how well its box fits, and no more than is certain that the object is one.
    """
    wanted = take(targets.boxes, assigned.which)
    iou, generalised = overlap(found.boxes, wanted)
    certain, fits = take(targets.confidence, assigned.which) * assigned.real, iou.detach()
    quality, weight = fits * certain, fits.clamp(min=a.LEAST_QUALITY) * certain
    count = quality.sum().clamp(min=1)
    label = (take(targets.labels, assigned.which) - 1).clamp(min=0)
    away = torch.cat([places.middle - wanted[..., :2], wanted[..., 2:] - places.middle], -1) / places.stride
    losses = {
        "class": _class_loss(found, label, quality, assigned, _background(found, places, targets)) / count,
        "box": a.BOX_LOSS * ((1 - generalised) * weight).sum() / count,
        "distance": a.DISTANCE_LOSS * (distribution_focal(found.distances, away) * weight).sum() / count,
    }
    right, objects = (found.logits.argmax(-1) == label) & assigned.real, assigned.real.sum()
    return losses, {"right": right.sum() / objects.clamp(min=1), "positives": objects}


def _class_loss(found: Predicted, label: Tensor, quality: Tensor, assigned: Assigned, background: Tensor) -> Tensor:
    """The sum over what is known: the classes of objects, and those that are not there, `background`."""
    own = torch.zeros_like(background).scatter(2, label[..., None], assigned.real[..., None])
    wanted = torch.zeros_like(found.logits).scatter(2, label[..., None], quality[..., None])
    return (quality_focal(found.logits, wanted) * (own | background)).sum()


def _background(found: Predicted, places: Places, targets: Targets) -> Tensor:
    """Which classes are not at places without an object of theirs, (B, P, classes): that is not known of all of them.

    Neither is it of a place in an ignored region, nor of one that sees what is there.
    """
    ignored, half = IgnoreMap(targets.ignore), places.stride / 2
    cells = torch.cat([places.middle - half, places.middle + half], 1).expand_as(found.boxes)
    seen = ignored.covers(cells) | ignored.covers(found.boxes)
    return targets.exhaustive[:, None, 1:] & ~seen[..., None]


def quality_focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """Cross entropy with probabilities that are `wanted`, which counts by the square of how far off they are."""
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return entropy * (wanted - logits.sigmoid()).square()


def distribution_focal(distances: Tensor, wanted: Tensor) -> Tensor:
    """Cross entropy of logits (..., 4, DISTANCES) with the two distances next to those `wanted` (..., 4), by nearness.

    The mean of the four sides, (...).
    """
    wanted = wanted.clamp(0, a.DISTANCES - 1)
    less = wanted.floor().clamp(max=a.DISTANCES - 2)
    index, likely = less.long()[..., None], distances.log_softmax(-1)
    below, above = (likely.gather(-1, one)[..., 0] for one in (index, index + 1))
    return -torch.lerp(below, above, wanted - less).mean(-1)


@torch.no_grad()
def _of_objects(found: Predicted, assigned: Assigned, targets: Targets) -> Tensor:
    """The box (B, G, 4) at each object's surest place; of an object without a place, any."""
    label = (take(targets.labels, assigned.which) - 1).clamp(min=0)
    score = found.logits.gather(2, label[..., None])[..., 0].masked_fill(~assigned.real, -torch.inf)
    objects = torch.arange(targets.labels.shape[1], device=score.device)[:, None]
    others = assigned.which[:, None] != objects
    return take(found.boxes, score[:, None].masked_fill(others, -torch.inf).argmax(2))


class MaskRois(NamedTuple):
    """Regions drawn for the mask head: `boxes` (N, 4), `image` (N,), `crop` (N,) row of Targets.crops, `real` (N,).

    `labels` (N,) are those of their objects, or 0 where the head is not told what it outlines.
    """

    boxes: Tensor
    labels: Tensor
    image: Tensor
    crop: Tensor
    real: Tensor


@torch.no_grad()
def _choose_mask_rois(targets: Targets, per_image: int, predicted: Tensor | None = None) -> MaskRois:
    """Boxes of objects with a usable mask, drawn from the whole batch so that few places stay empty.

    Some are where the network places them, `predicted` (B, G, 4), as in graphs, and the others are as far off as
    detected ones are: it knows the pictures it is trained on, so that masks would see only boxes that fit.
    """
    rows = targets.crop_row.flatten()
    index, drawn = sample((rows >= 0).repeat(a.VIEWS)[None], len(targets.boxes) * per_image)
    index, drawn = index[0] % len(rows), drawn[0]
    true, labels = targets.boxes.flatten(0, 1)[index], targets.labels.flatten()[index]
    boxes = _detected(true)
    if predicted is not None:
        found = predicted.flatten(0, 1)[index]
        placed = _near(found, true) & (torch.rand_like(true[:, 0]) < a.AS_PREDICTED)
        boxes = torch.where(placed[:, None], found, boxes)
    labels = labels * (torch.rand_like(true[:, 0]) >= a.UNNAMED)
    image = index // targets.labels.shape[1]
    return MaskRois(boxes, labels, image, rows[index].clamp(min=0), drawn & _near(boxes, true))


def _near(boxes: Tensor, true: Tensor) -> Tensor:
    return overlap(boxes, true)[0] >= a.ROI_IOU


def _detected(true: Tensor) -> Tensor:
    """Boxes (N, 4) as far from true ones as detected ones are."""
    middle, side = (true[:, :2] + true[:, 2:]) / 2, true[:, 2:] - true[:, :2]
    middle = middle + torch.randn_like(side) * a.BOX_SHIFT * side
    half = side * (torch.randn_like(side) * a.BOX_STRETCH).exp() / 2
    return torch.cat([middle - half, middle + half], 1)


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


def _outline_losses(net: Net, maps: Maps, chosen: MaskRois, targets: Targets, mixed: torch.autocast) -> Losses:
    with mixed:
        logits = net.roi_heads(maps, chosen.boxes, chosen.image, chosen.labels).float()
    wanted = _mask_targets(chosen, targets, logits.shape[-1])
    weight = chosen.real / chosen.real.sum().clamp(min=1)
    each = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean((1, 2))
    found = logits.sigmoid()
    shared, all_of_both = (found * wanted).sum((1, 2)), found.sum((1, 2)) + wanted.sum((1, 2))
    dice = 1 - (2 * shared + 1) / (all_of_both + 1)  # Milletari 2016, arXiv 1606.04797
    return {"mask": (each * weight).sum(), "dice": a.DICE * (dice * weight).sum()}
