"""The bottom-up network: MobileNetV2 or ResNet, from normalised pixels to one feature map per stride."""

from __future__ import annotations

from dataclasses import dataclass

from stream_seg.graph.config import InvertedResidual, MobileNetV2, Pixels, ResNet
from stream_seg.graph.emit import Value
from stream_seg.graph.layers import Layers

_PREFIX = "backbone.body"


@dataclass(frozen=True, slots=True)
class Features:
    """Maps (N, C, H/s, W/s): those for the pyramid, finest first, and one of stride 4 where the network has one."""

    levels: list[Value]
    fine: Value | None = None


def backbone(layers: Layers, config: ResNet | MobileNetV2, x: Value, pixels: Pixels) -> Features:
    """Feature maps of pixels (N, 3, H, W) with their mean taken off.

    The division by the standard deviation is part of the first convolution's weights.
    """
    scale = tuple(1 / deviation for deviation in pixels.deviation)
    with layers.graph.scope("backbone"):
        x = layers.enter(x)
        if isinstance(config, MobileNetV2):
            return _mobilenet(layers, config, x, scale)
        return Features(_resnet(layers, config, x, scale))


def _mobilenet(layers: Layers, config: MobileNetV2, x: Value, scale: tuple[float, ...]) -> Features:
    x = layers.conv(x, f"{_PREFIX}.0.0", stride=2, activation="relu6", input_scale=scale)
    after, channels = [x], config.stem_channels
    for number, block in enumerate(config.blocks, 1):
        x = _inverted_residual(layers, x, f"{_PREFIX}.{number}", block, channels)
        channels = block.channels
        after.append(x)
    after.append(layers.conv(x, f"{_PREFIX}.{len(after)}.0", activation="relu6"))
    return Features([after[tap] for tap in config.taps], after[config.fine_tap])


def _inverted_residual(layers: Layers, x: Value, key: str, block: InvertedResidual, channels: int) -> Value:
    """Expand (1x1), filter each channel (depthwise 3x3), project (1x1, linear), and add the input if shapes allow."""
    y, wide, layer = x, channels * block.expansion, 0
    if block.expansion != 1:
        y = layers.conv(y, f"{key}.conv.0.0", activation="relu6")
        layer = 1
    y = layers.conv(y, f"{key}.conv.{layer}.0", stride=block.stride, groups=wide, activation="relu6")
    y = layers.conv(y, f"{key}.conv.{layer + 1}")
    if block.stride != 1 or channels != block.channels:
        return y
    with layers.graph.scope(key.removeprefix(f"{_PREFIX}.")):
        return x + y


def _resnet(layers: Layers, config: ResNet, x: Value, scale: tuple[float, ...]) -> list[Value]:
    x = layers.conv(x, f"{_PREFIX}.conv1", norm=f"{_PREFIX}.bn1", stride=2, activation="relu", input_scale=scale)
    x = layers.graph.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    stages = []
    for stage, count in enumerate(config.blocks, 1):
        for index in range(count):
            stride = 2 if index == 0 and stage > 1 else 1
            x = _bottleneck(layers, x, f"{_PREFIX}.layer{stage}.{index}", stride, widens=index == 0)
        stages.append(x)
    return stages


def _bottleneck(layers: Layers, x: Value, key: str, stride: int, *, widens: bool) -> Value:
    """Reduce (1x1), filter (3x3, which carries the stride), restore (1x1), and add the input, projected if need be."""
    y = layers.conv(x, f"{key}.conv1", norm=f"{key}.bn1", activation="relu")
    y = layers.conv(y, f"{key}.conv2", norm=f"{key}.bn2", stride=stride, activation="relu")
    y = layers.conv(y, f"{key}.conv3", norm=f"{key}.bn3")
    if widens:
        x = layers.conv(x, f"{key}.downsample.0", norm=f"{key}.downsample.1", stride=stride)
    with layers.graph.scope(key.removeprefix(f"{_PREFIX}.")):
        return layers.graph.op("Relu", y + x)
