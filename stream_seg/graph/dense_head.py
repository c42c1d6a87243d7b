"""The dense head: which classes stand at each place of the pyramid, and where the sides of their boxes are (Li 2020).

A box has no anchor: the four distances from the middle of a place to its sides are distributions over whole strides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stream_seg.graph.boxes import clip
from stream_seg.graph.config import DenseHead, MaskRCNN
from stream_seg.graph.detected import Detected, remaining
from stream_seg.graph.emit import Value, ints
from stream_seg.graph.layers import Layers
from stream_seg.graph.rpn import Rois


@dataclass(frozen=True, slots=True)
class _Places:
    """Of all P places of the pyramid, finest level first.

    `logits` (N, classes - 1, P); `distances` (N, P, 4 * D), logits, too; `middles` (P, 4): x, y, x, y in pixels;
    `strides` (P, 1).
    """

    logits: Value
    distances: Value
    middles: Value
    strides: Value


def detect_densely(layers: Layers, config: MaskRCNN, levels: list[Value], limits: Value, threshold: Value) -> Detected:
    """Detections: scores above the threshold, at most `per_image` per image; `limits` (N, 1, 4): w, h, w, h of each."""
    assert config.dense is not None  # where this is called
    with layers.graph.scope("dense"):
        places = _places(layers, config, levels)
        with layers.graph.scope("select"):
            found = _candidates(config.dense, places, limits, threshold)
        return remaining(config, found, limits, threshold)


def _places(layers: Layers, config: MaskRCNN, levels: list[Value]) -> _Places:
    graph = layers.graph
    places = [_of_level(layers, config, level, number) for number, level in enumerate(levels)]
    return _Places(
        graph.concat([one.logits for one in places], axis=2),
        graph.concat([one.distances for one in places], axis=1),
        graph.concat([one.middles for one in places], axis=0),
        graph.concat([one.strides for one in places], axis=0),
    )


def _of_level(layers: Layers, config: MaskRCNN, level: Value, number: int) -> _Places:
    graph, stride = layers.graph, config.backbone.strides[number]
    with graph.scope(f"level{number}"):
        logits, distances = _predicted(layers, config, level, f"dense.{number}")
        middles = _middles(level, stride)
        column = graph.concat([middles.lengths(0), graph.value(ints(1))], axis=0)
        return _Places(logits, distances, middles, graph.op("Expand", float(stride), column))


def _predicted(layers: Layers, config: MaskRCNN, level: Value, key: str) -> tuple[Value, Value]:
    """Logits of classes (N, classes - 1, H * W) and of distances (N, H * W, 4 * D) of a level (N, C, H, W)."""
    assert config.dense is not None  # it is what predicts
    x = layers.conv(level, f"{key}.conv", activation="leaky")
    classes, distances = (layers.leave(layers.conv(x, f"{key}.{name}")) for name in ("classes", "distances"))
    per_place = distances.transpose(0, 2, 3, 1).reshape(0, -1, 4 * config.dense.distances)
    return classes.reshape(0, config.classes - 1, -1), per_place


def _middles(level: Value, stride: int) -> Value:
    """(H * W, 4) x, y, x, y of the middle of each place of a level (N, C, H, W)."""
    x = _along(level.length(3), stride).unsqueeze(0, 2) * np.array([1, 0, 1, 0], np.float32)
    y = _along(level.length(2), stride).unsqueeze(1, 2) * np.array([0, 1, 0, 1], np.float32)
    return (x + y).reshape(-1, 4)


def _along(places: Value, stride: int) -> Value:
    """Middles of so many places in a row, in pixels."""
    return (places.graph.arange(places).cast(np.float32) + 0.5) * float(stride)


def _candidates(config: DenseHead, places: _Places, limits: Value, threshold: Value) -> Detected:
    """The likeliest classes and places of each image, above the threshold; scores and boxes of others do not exist."""
    graph = limits.graph
    # Logits are compared, for a sigmoid of all of them takes longer than what is left to do.
    least = graph.op("Log", threshold / graph.op("Sub", 1.0, threshold))
    above = graph.where_true(places.logits > least).transpose(1, 0)
    image, label, place = (above.gather(column, axis=1) for column in range(3))
    scores = graph.op("Sigmoid", places.logits.gather_nd(above))
    found = Detected(Rois(_boxes(config, places, image, place, limits), image), label + 1, scores)
    return found.take(found.above(threshold)).first(config.candidates, limits.length(0))


def _boxes(config: DenseHead, places: _Places, image: Value, place: Value, limits: Value) -> Value:
    """(K, 4) of so many places of images, within those."""
    graph = limits.graph
    logits = places.distances.gather_nd(graph.concat([image.unsqueeze(1), place.unsqueeze(1)], axis=1))
    likely = graph.op("Softmax", logits.reshape(-1, 4, config.distances), axis=-1)
    steps = np.arange(config.distances, dtype=np.float32)[:, None]
    away = graph.op("MatMul", likely, steps).squeeze(2) * places.strides.gather(place)
    outwards = np.array([-1, -1, 1, 1], np.float32)
    return clip(places.middles.gather(place) + away * outwards, limits.squeeze(1).gather(image))
