"""The dense head: which classes stand at each place of the pyramid, and where the sides of their boxes are (Li 2020).

A box has no anchor: the four distances from the middle of a place to its sides are distributions over whole strides.
Few places hold something. Classes are predicted at all of them, but looked through one by one only where the likeliest
is likely enough; distances are predicted of the candidates alone. So both are products with rows of channels, which
can be taken by themselves, and not the convolutions they were trained as.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stream_seg.graph.boxes import clip
from stream_seg.graph.config import DenseHead, MaskRCNN
from stream_seg.graph.detected import Detected, best_above, first_of_each, remaining
from stream_seg.graph.emit import Value, ints
from stream_seg.graph.layers import Layers
from stream_seg.graph.regions import Canvas, Rois


@dataclass(frozen=True, slots=True)
class _Level:
    """A level of the pyramid: `rows` (N * P, C), the channels of its P places; `width` in places, both (1,) int64."""

    number: int
    rows: Value
    places: Value
    width: Value


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Places (D,), numbered on from level to level, with their image, and what may be there: label and score, (D,)."""

    place: Value
    image: Value
    label: Value
    score: Value

    def take(self, index: Value) -> _Candidates:
        return _Candidates(*(column.gather(index) for column in (self.place, self.image, self.label, self.score)))


def detect_densely(layers: Layers, config: MaskRCNN, maps: list[Value], canvas: Canvas, threshold: Value) -> Detected:
    """Detections: scores above the threshold, at most `per_image` of each image."""
    assert config.dense is not None  # where this is called
    limits = canvas.limits
    with layers.graph.scope("dense"):
        levels = [_level(layers, config, x, number, canvas) for number, x in enumerate(maps)]
        logits = layers.graph.concat([_classes(layers, config, level) for level in levels], axis=1)
        with layers.graph.scope("select"):
            found = _candidates(config.dense, logits, limits, threshold)
        rois = Rois(_boxes(layers, config, levels, found, limits), found.image)
        return remaining(config, Detected(rois, found.label, found.score), limits, threshold)


def _level(layers: Layers, config: MaskRCNN, x: Value, number: int, canvas: Canvas) -> _Level:
    """From a map (N, C, H, W)."""
    stride = config.backbone.strides[number]
    with layers.graph.scope(f"level{number}"):
        seen = layers.conv(x, f"dense.{number}.conv", activation="leaky")
        with layers.graph.scope("rows"):
            rows = seen.transpose(0, 2, 3, 1).reshape(-1, config.pyramid_channels)
        # Not from the shape of the map: only for that, an int8 graph would make floats of it.
        height, width = ((side // stride).unsqueeze(0) for side in (canvas.height, canvas.width))
        return _Level(number, rows, height * width, width)


def _classes(layers: Layers, config: MaskRCNN, level: _Level) -> Value:
    """Logits (N, P, classes - 1)."""
    graph = layers.graph
    with graph.scope(f"level{level.number}"):
        logits = layers.leave(layers.linear(level.rows, f"dense.{level.number}.classes"))
        shape = graph.concat([graph.value(ints(-1)), level.places, graph.value(ints(config.classes - 1))], axis=0)
        return graph.op("Reshape", logits, shape)


def _candidates(config: DenseHead, logits: Value, limits: Value, threshold: Value) -> _Candidates:
    """The likeliest classes and places of each image, of logits (N, P, classes - 1), above the threshold."""
    graph = logits.graph
    # Logits are compared, for a sigmoid of all of them takes longer than what is left to do.
    least = graph.op("Log", threshold / graph.op("Sub", 1.0, threshold))
    best = graph.op("ReduceMax", logits, ints(2), keepdims=0)
    likely = graph.where_true(best > least).transpose(1, 0)
    here = logits.gather_nd(likely)
    above = graph.where_true(here > least)
    row, label = (above.gather(column) for column in range(2))
    image, place = (likely.gather(column, axis=1).gather(row) for column in range(2))
    scores = graph.op("Sigmoid", here.gather_nd(above.transpose(1, 0)))
    found = _Candidates(place, image, label + 1, scores)
    found = found.take(best_above(found.score, found.image, threshold))
    return found.take(first_of_each(found.image, config.candidates, limits.length(0)))


def _boxes(layers: Layers, config: MaskRCNN, levels: list[_Level], found: _Candidates, limits: Value) -> Value:
    """Boxes (D, 4) of the candidates, within their images."""
    assert config.dense is not None  # it is what predicts
    graph, image = layers.graph, found.image
    begins = graph.op("CumSum", graph.concat([level.places for level in levels], axis=0), 0, exclusive=1)
    has_begun = found.place.unsqueeze(1) >= begins.unsqueeze(0)
    number = graph.op("ReduceSum", has_begun.cast(np.int64), ints(1), keepdims=0) - 1
    place = found.place - begins.gather(number)
    of_each = [_distances(layers, level, place, image).unsqueeze(1) for level in levels]
    logits = graph.concat(of_each, axis=1).gather_nd(number.unsqueeze(1), batch_dims=1)
    likely = graph.op("Softmax", logits.reshape(-1, 4, config.dense.distances), axis=-1)
    strides = np.arange(config.dense.distances, dtype=np.float32)[:, None]
    away = graph.op("MatMul", likely, strides).squeeze(2) * np.array([-1, -1, 1, 1], np.float32)
    width = graph.concat([level.width for level in levels], axis=0).gather(number)
    row = place // width
    x, y = (one.cast(np.float32).unsqueeze(1) + 0.5 for one in (place - row * width, row))
    stride = graph.value(np.array(config.backbone.strides, np.float32)).gather(number).unsqueeze(1)
    boxes = (graph.concat([x, y, x, y], axis=1) + away) * stride
    return clip(boxes, limits.squeeze(1).gather(image))


def _distances(layers: Layers, level: _Level, place: Value, image: Value) -> Value:
    """Logits (D, 4 * distances) of what is seen at places (D,) of a level; of those beyond its last, any."""
    with layers.graph.scope(f"level{level.number}"):
        with layers.graph.scope("chosen"):
            row = level.rows.gather(place.minimum(level.places - 1) + image * level.places)
        return layers.leave(layers.linear(row, f"dense.{level.number}.distances"))
