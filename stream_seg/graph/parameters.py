"""What a state_dict must hold for a configuration, and which configuration a state_dict is of.

Names are torchvision's. Files older than torchvision 0.13 call some layers differently; `modern_names` renames them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from stream_seg.errors import ModelError
from stream_seg.graph.config import COMPACT, R50_FPN, R50_FPN_V2, BoxHead, CspNet, MaskRCNN, ResNet

State: TypeAlias = Mapping[str, NDArray[np.generic]]
"""Parameter names to arrays."""

Shape: TypeAlias = tuple[int, ...]
Entry: TypeAlias = tuple[str, Shape]

NORM_KEYS = ("weight", "bias", "running_mean", "running_var")
CLASS_EMBEDDING = "roi_heads.mask_class.weight"
"""A vector for each class, which tells the mask head what is meant."""
_OLD_COMPACT = "backbone.body.18.0.weight"
_LISTED = 3


def modern_names(state: State) -> dict[str, NDArray[np.generic]]:
    """The same arrays under the names that torchvision has used since 0.13, without the counters of training."""
    renames = (
        (r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2"),
        (r"^(rpn\.head\.conv)\.(weight|bias)$", r"\1.0.0.\2"),
    )
    result = {}
    for key, value in state.items():
        for pattern, new in renames:
            key = re.sub(pattern, new, key)
        key = re.sub(r"mask_fcn(\d)\.(?=weight|bias)", lambda match: f"{int(match[1]) - 1}.0.", key)
        if not key.endswith("num_batches_tracked"):
            result[key] = value
    return result


def recognise(state: State) -> MaskRCNN:
    """The configuration of a state_dict with modern names, sizes of its layers included. Raises ModelError."""
    if _OLD_COMPACT in state:
        raise ModelError(
            "these are weights of the compact network as it was when it had proposals: export them with the version of "
            "stream-seg that trained them, or train anew"
        )
    has_masks = "roi_heads.mask_predictor.mask_fcn_logits.weight" in state
    if not has_masks or not (_is_compact(state) or "rpn.head.cls_logits.weight" in state):
        raise ModelError(
            "these are not the weights of a Mask R-CNN with torchvision's parameter names, "
            f"which this tool builds graphs from; the first names are {_some(state)}"
        )
    try:
        return _compact(state) if _is_compact(state) else _with_sizes(_base(state), state)
    except ValueError as error:  # sizes that no network has, such as no class beside the background
        raise ModelError(f"these weights make no network: {error}") from error


def _is_compact(state: State) -> bool:
    return "backbone.body.stem.weight" in state


def _compact(state: State) -> MaskRCNN:
    """The compact network has one form, for any number of classes."""
    return replace(COMPACT, classes=_size(state, "dense.0.classes.weight") + 1)


def _base(state: State) -> MaskRCNN:
    """The network whose kind this is, with the backbone of these weights."""
    if "backbone.body.layer1.0.conv3.weight" not in state:
        raise ModelError("the backbone of these weights is no ResNet with bottlenecks")
    normed = "backbone.fpn.inner_blocks.0.1.running_mean" in state
    base = R50_FPN_V2 if normed else replace(R50_FPN, norm_eps=R50_FPN_V2.norm_eps)
    blocks = tuple(_count(state, f"backbone.body.layer{stage}.{{}}.conv1.weight") for stage in range(1, 5))
    if not all(blocks):
        raise ModelError(f"these weights lack stage {blocks.index(0) + 1} of the ResNet")
    return replace(base, backbone=ResNet(blocks, _size(state, "backbone.body.conv1.weight")))


def check(state: State, config: MaskRCNN) -> None:
    """Raise ModelError unless the state_dict has exactly the arrays the configuration needs."""
    wanted = dict(expected(config))
    problems = {
        "lack": [key for key in wanted if key not in state],
        "have unknown": [key for key in state if key not in wanted],
        "have differently shaped": [
            f"{key} {state[key].shape} instead of {shape}"
            for key, shape in wanted.items()
            if key in state and state[key].shape != shape
        ],
    }
    for verb, keys in problems.items():
        if keys:
            raise ModelError(
                f"these weights do not fit {config.name}: they {verb} {len(keys)} parameters: {_some(keys)}"
            )
    broken = [key for key in wanted if not np.isfinite(state[key]).all()]
    if broken:
        raise ModelError(f"these weights hold infinities or NaN, the first in {_some(broken)}")


def expected(config: MaskRCNN) -> Iterator[Entry]:
    """Name and shape of every parameter of a network."""
    if isinstance(config.backbone, CspNet):
        yield from _cspnet(config.backbone)
        yield from _dense(config)
    else:
        yield from _resnet(config)
        yield from _pyramid(config)
        yield from _rpn(config)
        yield from _box_head(config)
    yield from _mask_head(config)


def _cspnet(body: CspNet) -> Iterator[Entry]:
    yield from _conv("backbone.body.stem", 3, body.stem_channels, 3)
    before = body.stem_channels
    for number, stage in enumerate(body.stages):
        key, inside = f"backbone.body.stages.{number}", stage.channels
        yield from _conv(f"{key}.enter", before, inside, 3)
        for index in range(stage.blocks):
            yield from _conv(f"{key}.blocks.{index}.first", inside, inside // 2, 3)
            yield from _conv(f"{key}.blocks.{index}.second", inside // 2, inside // 2, 3)
        yield from _conv(f"{key}.leave", inside, inside, 3)
        before = 2 * inside


def _dense(config: MaskRCNN) -> Iterator[Entry]:
    assert config.dense is not None
    width = config.pyramid_channels
    for level, channels in enumerate(config.backbone.channels):
        yield from _conv(f"backbone.lateral.{level}", channels, width, 1)
        yield from _conv(f"dense.{level}.conv", width, width, 3)
        yield from _conv(f"dense.{level}.classes", width, config.classes - 1, 1)
        yield from _conv(f"dense.{level}.distances", width, 4 * config.dense.distances, 1)
        if config.mask_head.level_channels:
            yield from _conv(f"roi_heads.mask_levels.{level}", width, config.mask_head.level_channels, 1)


def _resnet(config: MaskRCNN) -> Iterator[Entry]:
    body = config.backbone
    assert isinstance(body, ResNet)
    yield from _normed("backbone.body.conv1", "backbone.body.bn1", 3, body.width, 7)
    channels = body.width
    for stage, count in enumerate(body.blocks):
        width = body.width * 2**stage
        for index in range(count):
            block = f"backbone.body.layer{stage + 1}.{index}"
            yield from _normed(f"{block}.conv1", f"{block}.bn1", channels, width, 1)
            yield from _normed(f"{block}.conv2", f"{block}.bn2", width, width, 3)
            yield from _normed(f"{block}.conv3", f"{block}.bn3", width, 4 * width, 1)
            if index == 0:
                yield from _normed(f"{block}.downsample.0", f"{block}.downsample.1", channels, 4 * width, 1)
            channels = 4 * width


def _pyramid(config: MaskRCNN) -> Iterator[Entry]:
    width = config.pyramid_channels
    for level, channels in enumerate(config.backbone.channels):
        yield from _block(config, f"backbone.fpn.inner_blocks.{level}", channels, width, 1)
        yield from _block(config, f"backbone.fpn.layer_blocks.{level}", width, width, 3)


def _rpn(config: MaskRCNN) -> Iterator[Entry]:
    assert config.proposals is not None
    width, anchors = config.pyramid_channels, len(config.proposals.aspect_ratios)
    for index in range(config.proposals.convolutions):
        yield from _conv(f"rpn.head.conv.{index}.0", width, width, 3)
    yield from _conv("rpn.head.cls_logits", width, anchors, 1)
    yield from _conv("rpn.head.bbox_pred", width, 4 * anchors, 1)


def _box_head(config: MaskRCNN) -> Iterator[Entry]:
    width = config.pyramid_channels
    for index in range(config.box_head.convolutions):
        yield from _block(config, f"roi_heads.box_head.{index}", width, width, 3)
    size = width * config.pooling.box_size**2
    for name, units in zip(fully_connected_names(config.box_head), config.box_head.fully_connected, strict=True):
        yield from _linear(f"roi_heads.box_head.{name}", size, units)
        size = units
    yield from _linear("roi_heads.box_predictor.cls_score", size, config.classes)
    yield from _linear("roi_heads.box_predictor.bbox_pred", size, 4 * config.classes)


def _mask_head(config: MaskRCNN) -> Iterator[Entry]:
    channels = config.mask_channels
    if config.mask_head.class_embedding:
        yield CLASS_EMBEDDING, (config.classes, channels)
    for index, width in enumerate(config.mask_head.convolutions):
        yield from _block(config, f"roi_heads.mask_head.{index}", channels, width, 3)
        channels = width
    masks = 1 if config.mask_head.class_agnostic else config.classes
    width = config.mask_head.detail or channels
    yield "roi_heads.mask_predictor.conv5_mask.weight", (channels, width, 2, 2)
    yield "roi_heads.mask_predictor.conv5_mask.bias", (width,)
    if config.mask_head.detail:
        assert isinstance(config.backbone, CspNet)
        yield from _conv("roi_heads.mask_detail.fine", config.backbone.fine_channels, width, 1)
        yield from _conv("roi_heads.mask_detail.coarse", config.mask_channels, width, 1)
        yield from _conv("roi_heads.mask_predictor.refine", width, width, 3)
    yield from _conv("roi_heads.mask_predictor.mask_fcn_logits", width, masks, 1)


def fully_connected_names(head: BoxHead) -> tuple[str, ...]:
    """torchvision calls these layers fc6, fc7 (as VGG did); after convolutions it numbers on, counting a flattening
    before the first and a ReLU after each.
    """
    layers = range(len(head.fully_connected))
    if head.convolutions:
        return tuple(str(head.convolutions + 1 + 2 * index) for index in layers)
    return tuple(f"fc{6 + index}" for index in layers)


def _conv(key: str, channels: int, width: int, size: int) -> Iterator[Entry]:
    yield f"{key}.weight", (width, channels, size, size)
    yield f"{key}.bias", (width,)


def _linear(key: str, size: int, units: int) -> Iterator[Entry]:
    yield f"{key}.weight", (units, size)
    yield f"{key}.bias", (units,)


def _normed(key: str, norm: str, channels: int, width: int, size: int) -> Iterator[Entry]:
    yield f"{key}.weight", (width, channels, size, size)
    for name in NORM_KEYS:
        yield f"{norm}.{name}", (width,)


def _block(config: MaskRCNN, key: str, channels: int, width: int, size: int) -> Iterator[Entry]:
    """torchvision's Conv2dNormActivation: a convolution with a bias, or with a batch normalisation behind it."""
    if config.normed_heads:
        return _normed(f"{key}.0", f"{key}.1", channels, width, size)
    return _conv(f"{key}.0", channels, width, size)


def _with_sizes(base: MaskRCNN, state: State) -> MaskRCNN:
    """The configuration with the sizes that can be read off the arrays."""
    convolutions = _count(state, "roi_heads.box_head.{}.0.weight")
    names = fully_connected_names(replace(base.box_head, convolutions=convolutions, fully_connected=(0,) * 8))
    keys = [f"roi_heads.box_head.{name}.weight" for name in names]
    masks = _count(state, "roi_heads.mask_head.{}.0.weight")
    assert base.proposals is not None
    return replace(
        base,
        classes=_size(state, "roi_heads.box_predictor.cls_score.weight"),
        pyramid_channels=_size(state, "rpn.head.cls_logits.weight", axis=1),
        proposals=replace(base.proposals, convolutions=_count(state, "rpn.head.conv.{}.0.weight")),
        box_head=replace(
            base.box_head,
            convolutions=convolutions,
            fully_connected=tuple(_size(state, key) for key in keys if key in state),
        ),
        mask_head=replace(
            base.mask_head,
            convolutions=tuple(_size(state, f"roi_heads.mask_head.{index}.0.weight") for index in range(masks)),
            class_agnostic=_size(state, "roi_heads.mask_predictor.mask_fcn_logits.weight") == 1,
        ),
    )


def _count(state: State, pattern: str) -> int:
    """How many of the keys pattern(0), pattern(1), ... there are in a row."""
    count = 0
    while pattern.format(count) in state:
        count += 1
    return count


def _size(state: State, key: str, axis: int = 0) -> int:
    if key not in state or state[key].ndim <= axis:
        raise ModelError(f"these weights lack {key}, or it has too few dimensions")
    return int(state[key].shape[axis])


def _some(keys: State | list[str]) -> str:
    """The first few names, for a sentence."""
    names = list(keys)
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
