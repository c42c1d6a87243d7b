"""The bottom-up network: ResNet or CspNet, from normalised pixels to one feature map per stride."""

from __future__ import annotations

from dataclasses import dataclass

from stream_seg.graph.config import CspNet, Pixels, ResNet, Stage
from stream_seg.graph.emit import Value
from stream_seg.graph.layers import Layers

_PREFIX = "backbone.body"


@dataclass(frozen=True, slots=True)
class Features:
    """Maps (N, C, H/s, W/s): those for the pyramid, finest first, and one of stride 4 where the network has one."""

    levels: list[Value]
    fine: Value | None = None


def backbone(layers: Layers, config: ResNet | CspNet, x: Value, pixels: Pixels) -> Features:
    """Feature maps of pixels (N, 3, H, W) with their mean taken off.

    The division by the standard deviation is part of the first convolution's weights.
    """
    scale = tuple(1 / deviation for deviation in pixels.deviation)
    with layers.graph.scope("backbone"):
        x = layers.enter(x)
        if isinstance(config, CspNet):
            return _cspnet(layers, config, x, scale)
        return Features(_resnet(layers, config, x, scale))


def _cspnet(layers: Layers, config: CspNet, x: Value, scale: tuple[float, ...]) -> Features:
    x = layers.conv(x, f"{_PREFIX}.stem", stride=2, input_scale=scale)
    # Rectified after it is pooled, which is the same on a quarter of the places; and where rectifying is what gives
    # bytes, ONNX Runtime pools them, which takes ten times as long as pooling floats.
    x = layers.rectified(layers.graph.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]))
    fine, *levels = _stages(layers, config.stages, x)
    return Features(levels, fine)


def _stages(layers: Layers, stages: tuple[Stage, ...], x: Value) -> list[Value]:
    """What each stage makes of what the one before made: its last convolution beside its first (Wang 2019)."""
    made = []
    for number, stage in enumerate(stages):
        key = f"{_PREFIX}.stages.{number}"
        entered = y = layers.conv(x, f"{key}.enter", stride=2 if number else 1, activation="leaky")
        for index in range(stage.blocks):
            y = _halves(layers, y, f"{key}.blocks.{index}")
        x = _beside(layers.conv(y, f"{key}.leave", activation="leaky"), entered, key)
        made.append(x)
    return made


def _halves(layers: Layers, x: Value, key: str) -> Value:
    """Two convolutions of half the channels, one after the other, the second beside the first."""
    first = layers.conv(x, f"{key}.first", activation="leaky")
    return _beside(layers.conv(first, f"{key}.second", activation="leaky"), first, key)


def _beside(a: Value, b: Value, key: str) -> Value:
    with a.graph.scope(key.removeprefix(f"{_PREFIX}.")):
        return a.graph.concat([a, b], axis=1)


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
