"""The compact Mask R-CNN on torchvision's parts: parameter names are those of its state_dict, and of the graph builder.

MobileNetV2 (Sandler 2018) without normalisation, a small feature pyramid, torchvision's region proposals and box head,
and masks that are refined at their own resolution.
"""

from __future__ import annotations

from typing import NamedTuple

import architecture as a
import torch
import vision_ops  # noqa: F401  before torchvision
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import mobilenet_v2
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import AnchorGenerator, RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, box_iou, clip_boxes_to_image, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

BLOCKS = 19


def _without_normalisation(module: nn.Module) -> None:
    """Replace convolution and normalisation by a convolution with bias, in place: the weights come folded."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.Identity())
        elif isinstance(child, nn.Conv2d):
            setattr(module, name, _with_bias(child))
        else:
            _without_normalisation(child)


def _with_bias(old: nn.Conv2d) -> nn.Conv2d:
    kind = _Float32Conv2d if old.groups > 1 and old.stride != (1, 1) else nn.Conv2d
    return kind(old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, old.dilation, old.groups)


class _Float32Conv2d(nn.Conv2d):
    """In float32 under autocast, too: of what halves a map depthwise, a CPU takes many times as long in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class Body(nn.Module):
    """Blocks "0" to "18" of MobileNetV2, handing out the maps of TAPS, and that of FINE_TAP.

    Blocks 0 to `frozen` never change; -1 trains all.
    """

    def __init__(self, frozen: int) -> None:
        super().__init__()
        blocks = mobilenet_v2(weights=None).features
        blocks[18][0] = nn.Conv2d(320, a.LAST_CHANNELS, 1)  # 1280 channels would cost more than the whole pyramid
        _without_normalisation(blocks)
        for name, block in blocks.named_children():
            self.add_module(name, block)
        self.frozen = frozen
        for number in range(frozen + 1):
            self.get_submodule(str(number)).requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        features: dict[str, Tensor] = {}
        for number in range(BLOCKS):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number > self.frozen):
                x = self.get_submodule(str(number))(x)
            if number == a.FINE_TAP:
                fine = x
            if number in a.TAPS:
                features[str(len(features))] = x
        return features, fine


class Maps(NamedTuple):
    """Feature maps (B, C, H / stride, W / stride) of images."""

    levels: dict[str, Tensor]
    """The pyramid's, finest first."""
    fine: Tensor
    """The body's of stride 4."""
    coarsest: Tensor
    """The body's of stride 32."""


class Backbone(nn.Module):
    """Body and pyramid."""

    def __init__(self, frozen: int) -> None:
        super().__init__()
        self.body = Body(frozen)
        self.fpn = FeaturePyramidNetwork(list(a.TAP_CHANNELS), a.PYRAMID_CHANNELS, LastLevelMaxPool())

    def forward(self, x: Tensor) -> Maps:
        features, fine = self.body(x)
        return Maps(self.fpn(features), fine, features[str(len(a.TAPS) - 1)])


class Presence(nn.Module):
    """Which classes an image shows at all, judged from the whole of it: the mean and the maximum of its coarsest map.

    A cow is likelier among cows than in a kitchen, which nothing in its box tells.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * a.LAST_CHANNELS, a.PRESENCE_HIDDEN)
        self.classes = nn.Linear(a.PRESENCE_HIDDEN, classes)
        self.dropout = nn.Dropout(a.PRESENCE_DROPOUT)

    def forward(self, coarsest: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
        """Logits (B, classes), without the background, of images whose valid (h, w) is given in pixels."""
        stride, limits = a.STRIDES[-1], torch.tensor(sizes, device=coarsest.device)
        row, column = (torch.arange(side, device=coarsest.device) * stride for side in coarsest.shape[2:])
        inside = (row < limits[:, :1])[:, :, None] & (column < limits[:, 1:])[:, None]
        cells = coarsest * inside[:, None]  # which are not negative, so that outside there is no maximum
        mean = cells.sum((2, 3)) / inside.sum((1, 2))[:, None].clamp(min=1)
        pooled = self.dropout(torch.cat([mean, cells.amax((2, 3))], 1))
        logits: Tensor = self.classes(self.dropout(functional.relu(self.hidden(pooled))))
        return logits

    def prior(self, coarsest: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
        """What to add to the logits of regions of each image, (B, classes + 1): nothing for the background.

        Bayes' rule with another prior, were PRESENCE_WEIGHT 1; but regions have seen some of the image, too.
        """
        certainty = functional.logsigmoid(self(coarsest, sizes).float())
        return functional.pad(a.PRESENCE_WEIGHT * certainty, (1, 0))


class MaskDetail(nn.Module):
    """One map of stride 4 and few channels: edges from the body, and what they belong to from the finest level."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(a.FINE_CHANNELS, a.DETAIL_CHANNELS, 1)
        self.coarse = nn.Conv2d(a.PYRAMID_CHANNELS, a.DETAIL_CHANNELS, 1)

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


class Heads(RoIHeads):
    """torchvision's, with details for the masks, which know the label of what they outline, and a second look at boxes.

    `labels` counts the background, whose vector is for what has no label.
    """

    def __init__(self, labels: int, *arguments: object) -> None:
        super().__init__(*arguments)
        self.mask_detail = MaskDetail()
        self.mask_class = nn.Embedding(labels, a.PYRAMID_CHANNELS)
        nn.init.zeros_(self.mask_class.weight)

    def outline(self, pooled: Tensor, details: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, 28, 28) of regions, from their features (N, C, 14, 14), details (N, D, 28, 28) and labels (N,).

        What is meant is not to be seen in a box alone, where a rider and a horse share it.
        """
        seen = pooled + self.mask_class(labels)[:, :, None, None]
        logits: Tensor = self.mask_predictor(self.mask_head(seen), details)
        return logits[:, 0]

    def outlined(
        self,
        features: dict[str, Tensor],
        fine: Tensor,
        boxes: list[Tensor],
        labels: list[Tensor],
        sizes: list[tuple[int, int]],
    ) -> Tensor:
        """Masks (N, 28, 28), as probabilities, of labelled boxes of all images, one image after the other."""
        counts = torch.tensor([len(one) for one in boxes], device=fine.device)
        if not counts.sum():
            return fine.new_zeros(0, 2 * a.MASK_CELLS, 2 * a.MASK_CELLS)
        image = torch.arange(len(boxes), device=fine.device).repeat_interleave(counts)
        merged = self.mask_detail(fine, features["0"])
        rows = torch.cat([image[:, None].to(fine.dtype), torch.cat(boxes)], 1)
        details = roi_align(merged.float(), rows, 2 * a.MASK_CELLS, 1 / a.FINE_STRIDE, 1)
        return self.outline(self.mask_roi_pool(features, boxes, sizes), details, torch.cat(labels)).float().sigmoid()

    def refined(
        self,
        features: dict[str, Tensor],
        boxes: list[Tensor],
        scores: list[Tensor],
        labels: list[Tensor],
        sizes: list[tuple[int, int]],
        prior: Tensor,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Found boxes of each image, where the head puts them when it looks at them once more, and their new scores.

        `prior` (B, classes + 1) is added to the logits, at the first look as well.
        """
        own, counts = torch.cat(labels), [len(one) for one in boxes]
        if not len(own):
            return boxes, scores
        each = torch.arange(len(own), device=own.device)
        logits, deltas = self.box_predictor(self.box_head(self.box_roi_pool(features, boxes, sizes)))
        logits = logits.float() + _of_each(prior, boxes)
        moved = self.box_coder.decode(deltas.float(), boxes)[each, own].split(counts)
        clipped = [clip_boxes_to_image(one, size) for one, size in zip(moved, sizes, strict=True)]
        is_box = [(one[:, 2:] - one[:, :2]).amin(1, keepdim=True) >= a.LEAST_SIDE for one in clipped]
        both = (torch.cat(scores) * logits.softmax(-1)[each, own]).sqrt().split(counts)
        return [torch.where(*three) for three in zip(is_box, clipped, boxes, strict=True)], list(both)


class Net(nn.Module):
    """The network for `classes` besides the background; `losses` trains it, `detect` uses it."""

    def __init__(self, classes: tuple[str, ...], frozen: int = -1) -> None:
        super().__init__()
        self.classes = classes
        self.backbone = Backbone(frozen)
        self.rpn = _region_proposals()
        self.roi_heads = _heads(len(classes) + 1)
        self.presence = Presence(len(classes))

    @torch.no_grad()
    def detect(self, x: Tensor, sizes: list[tuple[int, int]], threshold: float) -> list[dict[str, Tensor]]:
        """`x` (B, 3, H, W) in -1..1 and the valid (h, w) of each -> boxes, scores, labels, masks (N, 28, 28).

        torchvision's own code, so that what is evaluated is what torchvision computes.
        """
        heads = self.roi_heads
        heads.score_thresh = threshold
        features, fine, coarsest = self.backbone(x)
        proposals, _ = self.rpn(ImageList(x, sizes), features)
        logits, deltas = heads.box_predictor(heads.box_head(heads.box_roi_pool(features, proposals, sizes)))
        prior = self.presence.prior(coarsest, sizes)
        logits = logits.float() + _of_each(prior, proposals)
        boxes, scores, labels = heads.postprocess_detections(logits, deltas.float(), proposals, sizes)
        for _ in range(a.REFINEMENTS):
            boxes, scores = heads.refined(features, boxes, scores, labels, sizes, prior)
        left = [_decayed(*one, threshold) for one in zip(boxes, scores, labels, strict=True)]
        boxes, scores, labels = map(list, zip(*left, strict=True))
        masks = heads.outlined(features, fine, boxes, labels, sizes).split([len(one) for one in boxes])
        found = zip(boxes, scores, labels, masks, strict=True)
        return [_scored(*one, threshold) for one in found]


def _decayed(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Detections of one image, less certain where a better one overlaps: see `decayed` of stream_seg/graph/nms.py."""
    order = scores.argsort(descending=True, stable=True)
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    squared = (box_iou(boxes, boxes) * (labels[:, None] == labels)).triu(1).square()
    if len(scores):
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


def _of_each(prior: Tensor, boxes: list[Tensor]) -> Tensor:
    """Of the rows of `prior`, one for each image, that of each box."""
    return prior.repeat_interleave(torch.tensor([len(one) for one in boxes], device=prior.device), 0)


def freeze_all_but_masks(net: Net) -> None:
    """What is left to train are the parts whose names begin with "mask"."""
    net.requires_grad_(False)
    for name, part in net.roi_heads.named_children():
        part.requires_grad_(name.startswith("mask"))


def _region_proposals() -> RegionProposalNetwork:
    anchors = AnchorGenerator(tuple((size,) for size in a.ANCHOR_SIZES), (a.ASPECT_RATIOS,) * len(a.ANCHOR_SIZES))
    counts = {"training": a.PROPOSALS_PER_LEVEL, "testing": a.PROPOSALS_PER_LEVEL}
    best = {"training": a.PROPOSALS, "testing": a.PROPOSALS}
    head = RPNHead(a.PYRAMID_CHANNELS, len(a.ASPECT_RATIOS))
    limits = a.RPN_POSITIVE_IOU, a.RPN_NEGATIVE_IOU, a.RPN_SAMPLES, 0.5
    return RegionProposalNetwork(anchors, head, *limits, counts, best, a.PROPOSAL_NMS_IOU)


def _mask_head() -> nn.Sequential:
    """Convolutions with torchvision's names; the middle ones are dilated, to see all of a box."""
    widths = (a.PYRAMID_CHANNELS, *a.MASK_CHANNELS)
    layers = [
        nn.Sequential(nn.Conv2d(before, after, 3, padding=dilation, dilation=dilation), nn.ReLU(inplace=True))
        for before, after, dilation in zip(widths, widths[1:], a.MASK_DILATIONS, strict=False)
    ]
    return nn.Sequential(*layers)


def _heads(labels: int) -> Heads:
    """`labels` counts the background."""
    levels = [str(level) for level in range(len(a.TAPS))]
    width, hidden = a.PYRAMID_CHANNELS, a.FULLY_CONNECTED
    heads = Heads(
        labels,
        MultiScaleRoIAlign(levels, a.BOX_CELLS, a.POOL_SAMPLES, canonical_scale=a.CANONICAL_SIDE),
        TwoMLPHead(width * a.BOX_CELLS**2, hidden),
        FastRCNNPredictor(hidden, labels),
        a.ROI_IOU, a.ROI_IOU, a.ROI_SAMPLES, 0.25, None, 0.05, a.DETECTION_NMS_IOU, a.DETECTIONS,
        MultiScaleRoIAlign(levels, a.MASK_CELLS, a.POOL_SAMPLES, canonical_scale=a.CANONICAL_SIDE),
        _mask_head(),
        MaskPredictor(),
    )  # fmt: skip
    for part in (heads.mask_head, heads.mask_detail, heads.mask_predictor):
        part.apply(_start)
    nn.init.normal_(heads.mask_predictor.mask_fcn_logits.weight, std=0.01)
    for layer in (heads.box_predictor.cls_score, heads.box_predictor.bbox_pred):
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
    return heads


def _start(layer: nn.Module) -> None:
    """He's initialisation (He 2015, arXiv 1502.01852): gradients keep their size from layer to layer."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        mode = "fan_out" if isinstance(layer, nn.Conv2d) else "fan_in"  # a deconvolution's axes are the other way round
        nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
