"""torchvision's Mask R-CNN as the oracle: random weights that find objects, and eager detections on given canvases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torchvision_cpu  # noqa: F401  before torchvision
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection import maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNN
from torchvision.models.resnet import Bottleneck
from torchvision.ops.misc import FrozenBatchNorm2d

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

SPREAD = {
    "rpn.head.cls_logits": 2.0,
    "rpn.head.bbox_pred": 0.4,
    "roi_heads.box_predictor.cls_score": 2.2,
    "roi_heads.box_predictor.bbox_pred": 1.5,
    "roi_heads.mask_predictor.mask_fcn_logits": 2.0,
}
"""Standard deviation of the outputs of these layers, chosen so that there are objects; it is 1 for all others."""


@dataclass(frozen=True)
class Found:
    """Detections of one image."""

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    masks: NDArray[np.float32]


def scenes(count: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Pictures (N, H, W, 3) with structure of all sizes: noise at octaves, coarse ones stronger, as photos have it."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(count, 3, height, width)
    for octave in range(2, 8):
        shape = (count, 3, -(-height // 2**octave) + 1, -(-width // 2**octave) + 1)
        noise = torch.rand(shape, generator=generator) - 0.5
        total += nn.functional.interpolate(noise, (height, width), mode="bicubic") * 2**octave
    low, high = total.amin((2, 3), keepdim=True), total.amax((2, 3), keepdim=True)
    pixels = (total - low) / (high - low) * 255
    return pixels.permute(0, 2, 3, 1).to(torch.uint8).contiguous().numpy()


def make_model(name: str, seed: int = 0) -> MaskRCNN:
    """`r50-fpn` or `r50-fpn-v2` with random weights, calibrated on scenes."""
    torch.manual_seed(seed)
    build = {"r50-fpn": maskrcnn_resnet50_fpn, "r50-fpn-v2": maskrcnn_resnet50_fpn_v2}[name]
    model = build(weights=None, weights_backbone=None).eval()
    if name == "r50-fpn":
        # As torchvision does for the published weights of this one.
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
                module.eps = 0.0
    for module in model.modules():
        if isinstance(module, Bottleneck):
            # As in trained networks. At full strength a random one amplifies rounding from block to block: torchvision
            # with oneDNN and without then differ from each other by 0.11 px and 0.027 in masks (v2, 256x192).
            nn.init.constant_(module.bn3.weight, 0.25)
    _calibrate(model)
    return model


@torch.no_grad()
def _calibrate(model: MaskRCNN) -> None:
    """In one pass, layer by layer: statistics of normalisations, and the spread of layers without one behind them."""
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            hooks.append(module.register_forward_pre_hook(_measure))
        elif isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d) and module.bias is not None:
            hooks.append(module.register_forward_hook(_rescale(SPREAD.get(name, 1.0))))
    model.roi_heads.score_thresh = 0.0
    detect(model, scenes(2, 256, 320, seed=99), np.array([[256, 320], [256, 320]], np.float32))
    for hook in hooks:
        hook.remove()


def _measure(module: nn.Module, inputs: tuple[Tensor]) -> None:
    """Shared layers are measured where they are first used."""
    if not hasattr(module, "measured"):
        module.measured = True
        module.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        module.running_var.copy_(inputs[0].var((0, 2, 3)))


def _rescale(spread: float):  # noqa: ANN202  a hook of torch
    def hook(module: nn.Module, _inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
        if hasattr(module, "measured") or output.numel() == 0:
            return None
        module.measured = True
        factor = spread / output.std()
        module.weight.mul_(factor)
        module.bias.zero_()
        centre = output.mean(tuple(i for i in range(output.ndim) if i != 1))
        shape = [1, -1, *[1] * (output.ndim - 2)]
        module.bias.sub_(centre * factor * (0.0 if spread == 1.0 else 1.0))
        return output * factor + module.bias.view(shape)

    return hook


@torch.inference_mode()
def detect(model: MaskRCNN, images: NDArray[np.uint8], sizes: NDArray[np.float32]) -> list[Found]:
    """Eager detections on canvases (N, H, W, 3) whose images have `sizes` (N, 2) height, width.

    The model's own transform, which resizes, is left out; what it does to pixels is done here.
    """
    device = next(model.parameters()).device
    x = prepare(torch.from_numpy(images).to(device), sizes)
    shapes = [(int(h), int(w)) for h, w in sizes]
    features = model.backbone(x)
    proposals, _ = model.rpn(ImageList(x, shapes), features)
    found, _ = model.roi_heads(features, proposals, shapes)
    return [_found(one) for one in found]


def prepare(images: Tensor, sizes: NDArray[np.float32]) -> Tensor:
    """Normalised pixels (N, 3, H, W), zero outside each image."""
    mean, deviation = (torch.tensor(v, device=images.device)[:, None, None] for v in (MEAN, DEVIATION))
    x = (images.permute(0, 3, 1, 2).float() / 255 - mean) / deviation
    for one, (height, width) in zip(x, sizes.astype(int), strict=True):
        one[:, height:] = 0
        one[:, :, width:] = 0
    return x


def _found(one: dict[str, Tensor]) -> Found:
    boxes, labels, scores, masks = (one[key].cpu().numpy() for key in ("boxes", "labels", "scores", "masks"))
    return Found(boxes, labels, scores, masks.reshape(len(boxes), *masks.shape[-2:]))
