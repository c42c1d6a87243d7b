"""The compact Mask R-CNN on torchvision's parts: parameter names are those of its state_dict, and of the graph builder.

MobileNetV2 (Sandler 2018) without normalisation, a small feature pyramid, torchvision's region proposals and heads.
"""

from __future__ import annotations

import architecture as a
import torch
import vision_ops  # noqa: F401  before torchvision
from torch import Tensor, nn
from torchvision.models import mobilenet_v2
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import AnchorGenerator, RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
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
    return nn.Conv2d(
        old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, old.dilation, old.groups
    )


class Body(nn.Module):
    """Blocks "0" to "18" of MobileNetV2, handing out the maps of TAPS.

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

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features: dict[str, Tensor] = {}
        for number in range(BLOCKS):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number > self.frozen):
                x = self.get_submodule(str(number))(x)
            if number in a.TAPS:
                features[str(len(features))] = x
        return features


class Backbone(nn.Module):
    """Body and pyramid."""

    def __init__(self, frozen: int) -> None:
        super().__init__()
        self.body = Body(frozen)
        self.fpn = FeaturePyramidNetwork(list(a.TAP_CHANNELS), a.PYRAMID_CHANNELS, LastLevelMaxPool())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.fpn(self.body(x))
        return found


class Net(nn.Module):
    """The network for `classes` besides the background; `losses` trains it, `detect` uses it."""

    def __init__(self, classes: tuple[str, ...], frozen: int = -1) -> None:
        super().__init__()
        self.classes = classes
        self.backbone = Backbone(frozen)
        self.rpn = _region_proposals()
        self.roi_heads = _heads(len(classes) + 1)

    @torch.no_grad()
    def detect(self, x: Tensor, sizes: list[tuple[int, int]], threshold: float) -> list[dict[str, Tensor]]:
        """`x` (B, 3, H, W) in -1..1 and the valid (h, w) of each -> boxes, scores, labels, masks (N, 28, 28).

        torchvision's own code, so that what is evaluated is what torchvision computes.
        """
        heads = self.roi_heads
        heads.score_thresh = threshold
        features = self.backbone(x)
        proposals, _ = self.rpn(ImageList(x, sizes), features)
        logits, deltas = heads.box_predictor(heads.box_head(heads.box_roi_pool(features, proposals, sizes)))
        boxes, scores, labels = heads.postprocess_detections(logits.float(), deltas.float(), proposals, sizes)
        masks = [x.new_zeros(0, 2 * a.MASK_CELLS, 2 * a.MASK_CELLS)] * len(boxes)
        if sum(map(len, boxes)):
            raw = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(features, boxes, sizes)))
            masks = raw.float().sigmoid()[:, 0].split([len(one) for one in boxes])
        found = zip(boxes, scores, labels, masks, strict=True)
        return [{"boxes": b, "scores": s, "labels": c, "masks": m} for b, s, c, m in found]


def _region_proposals() -> RegionProposalNetwork:
    anchors = AnchorGenerator(tuple((size,) for size in a.ANCHOR_SIZES), (a.ASPECT_RATIOS,) * len(a.ANCHOR_SIZES))
    counts = {"training": a.PROPOSALS_PER_LEVEL, "testing": a.PROPOSALS_PER_LEVEL}
    best = {"training": a.PROPOSALS, "testing": a.PROPOSALS}
    head = RPNHead(a.PYRAMID_CHANNELS, len(a.ASPECT_RATIOS))
    limits = a.RPN_POSITIVE_IOU, a.RPN_NEGATIVE_IOU, a.RPN_SAMPLES, 0.5
    return RegionProposalNetwork(anchors, head, *limits, counts, best, a.PROPOSAL_NMS_IOU)


def _heads(labels: int) -> RoIHeads:
    """`labels` counts the background."""
    levels = [str(level) for level in range(len(a.TAPS))]
    width, hidden = a.PYRAMID_CHANNELS, a.FULLY_CONNECTED
    heads = RoIHeads(
        MultiScaleRoIAlign(levels, a.BOX_CELLS, a.POOL_SAMPLES, canonical_scale=a.CANONICAL_SIDE),
        TwoMLPHead(width * a.BOX_CELLS**2, hidden),
        FastRCNNPredictor(hidden, labels),
        a.ROI_IOU, a.ROI_IOU, a.ROI_SAMPLES, 0.25, None, 0.05, a.DETECTION_NMS_IOU, a.DETECTIONS,
        MultiScaleRoIAlign(levels, a.MASK_CELLS, a.POOL_SAMPLES, canonical_scale=a.CANONICAL_SIDE),
        MaskRCNNHeads(width, a.MASK_CHANNELS, 1),
        MaskRCNNPredictor(a.MASK_CHANNELS[-1], a.MASK_CHANNELS[-1], 1),
    )  # fmt: skip
    for layer in (heads.box_predictor.cls_score, heads.box_predictor.bbox_pred):
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
    return heads
