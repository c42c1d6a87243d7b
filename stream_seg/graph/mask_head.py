"""The mask head: a small mask for each detection, of its own class only."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stream_seg.graph.config import Device, MaskHead, MaskRCNN
from stream_seg.graph.detected import Detected, best_above
from stream_seg.graph.emit import Value, ints
from stream_seg.graph.layers import Floats, Layers
from stream_seg.graph.parameters import CLASS_EMBEDDING
from stream_seg.graph.regions import Canvas, Rois
from stream_seg.graph.roi import Pooler, make_pooler

_PREDICTOR = "roi_heads.mask_predictor"
_FINE_STRIDE = 4

_TOGETHER = 8
"""Detections at a time where the network wants equally many each time (`even`): fewer than most pictures have."""


@dataclass(frozen=True, slots=True)
class Outlines:
    """Where the mask head looks: the pooler of the pyramid and, for details, a map of stride 4 and the finest level."""

    pooler: Pooler
    fine: Value | None
    coarse: Value
    device: Device


def mask_levels(layers: Layers, levels: list[Value]) -> list[Value]:
    """What the head is given of each level of a pyramid that was made for a dense head.

    That has layers of its own for each level, so that their channels mean different things; the mask head has not.
    """
    with layers.graph.scope("mask/levels"):
        return [layers.conv(level, f"roi_heads.mask_levels.{number}") for number, level in enumerate(levels)]


def masks(layers: Layers, config: MaskRCNN, outlines: Outlines, found: Detected) -> Value:
    """Probabilities (D, 2S, 2S) on a grid over each box, in the order of the detections."""
    graph, size = layers.graph, config.pooling.mask_size
    with graph.scope("mask"):
        rois, labels, count = found.rois, found.labels, found.labels.length(0)
        if config.even:
            trips = ((count + (_TOGETHER - 1)) // _TOGETHER).maximum(1)
            missing = trips * _TOGETHER - count
            rois = rois.filled(missing)
            labels = graph.concat([labels, graph.op("Expand", ints(0), missing.unsqueeze(0))], axis=0)
        with graph.scope("pool"):
            features = outlines.pooler.pool(rois, size).head(labels.length(0))
        if config.mask_head.class_embedding:
            features = features + _embedded(layers, labels)
        details = _details(layers, config, outlines, rois) if config.mask_head.detail else None
        with graph.scope("head"):
            if not config.even:
                return _probabilities(layers, config, features, details, labels)

            def some(trip: Value) -> Value:
                rows = graph.arange(graph.value(_TOGETHER)) + trip * _TOGETHER
                fine = None if details is None else details.gather(rows)
                return _probabilities(layers, config, features.gather(rows), fine, labels.gather(rows))

            return graph.loop(trips, some).reshape(-1, 2 * size, 2 * size).head(count)


def _embedded(layers: Layers, labels: Value) -> Value:
    """The vector of each label (D,), for all cells of its region: (D, C, 1, 1), in float32."""
    vectors = layers.array(CLASS_EMBEDDING)
    with layers.graph.scope("class"):
        return layers.leave(layers.parameter(CLASS_EMBEDDING, vectors[:, :, None, None]).gather(labels))


def _probabilities(layers: Layers, config: MaskRCNN, features: Value, details: Value | None, labels: Value) -> Value:
    """Masks (D, 2S, 2S) of features (D, C, S, S), details (D, C', 2S, 2S) and labels (D,)."""
    head, size = config.mask_head, config.pooling.mask_size
    x = layers.enter(features)
    for index in range(len(head.convolutions)):
        dilation = head.dilations[index] if head.dilations else 1
        x = layers.block(x, f"roi_heads.mask_head.{index}", activation="relu", dilation=dilation)
    if details is not None:
        logits = _detailed_logits(layers, config, x, layers.enter(details))
    else:
        logits = _logits(layers, head, x, labels, size)
    return layers.graph.op("Sigmoid", layers.leave(logits)).squeeze(1)


def scored(found: Detected, masks: Value, size: int, threshold: Value) -> tuple[Detected, Value]:
    """Detections, each only as certain as its mask (D, size, size), and the masks: those still above the threshold.

    A score of the box head says what is there, and nothing about its outline. Multiplied by the mean probability inside
    the mask (Wang 2019, arXiv 1912.04488), it ranks first what is certain in both; ghosts have vague outlines.
    """
    graph = masks.graph
    with graph.scope("score"):
        inside = (masks > 0.5).cast(np.float32)
        certainty = _sums(masks * inside, size) / _sums(inside, size).maximum(1.0)
        found = replace(found, scores=found.scores * certainty)
        best = best_above(found.scores, found.rois.image, threshold)
        return found.take(best), masks.gather(best)


def _sums(masks: Value, size: int) -> Value:
    """(D, size, size) -> (D,). By a product, for ONNX Runtime's reductions of nothing at all are not to be trusted."""
    ones = np.ones((size * size, 1), np.float32)
    return masks.graph.op("MatMul", masks.reshape(-1, size * size), ones).squeeze(1)


def _details(layers: Layers, config: MaskRCNN, outlines: Outlines, rois: Rois) -> Value:
    """Features (D, C, 2S, 2S) of stride 4: edges from the backbone, and what they belong to from the pyramid.

    Both are brought to few channels before they are pooled, since pooling costs more than that does.
    """
    assert outlines.fine is not None  # a network whose heads have details has a map for them
    graph, size, width = layers.graph, 2 * config.pooling.mask_size, config.mask_head.detail
    with graph.scope("detail"):
        fine = layers.conv(outlines.fine, "roi_heads.mask_detail.fine")
        coarse = layers.conv(outlines.coarse, "roi_heads.mask_detail.coarse")
        merged = graph.op("Relu", fine + _doubled(coarse, outlines.pooler.canvas))
    with graph.scope("pool"):
        once = replace(config.pooling, samples=1)  # cells are about as small as those of the map
        canvas, maps = outlines.pooler.canvas, [layers.leave(merged)]
        pooler = make_pooler(maps, [_FINE_STRIDE], width, once, canvas, outlines.device)
        return pooler.pool(rois, size).head(rois.image.length(0))


def _doubled(x: Value, canvas: Canvas) -> Value:
    """Nearest-neighbour upsampling by two, to the stride of the details.

    By moving pixels with all their channels, which lie side by side in int8 graphs on a CPU: there Resize takes three
    times as long, and DepthToSpace, in place of which `_spread` is, five times.
    """
    row, column = (x.graph.arange(side // _FINE_STRIDE) // 2 for side in (canvas.height, canvas.width))
    return x.transpose(0, 2, 3, 1).gather(row, axis=1).gather(column, axis=2).transpose(0, 3, 1, 2)


def _spread(x: Value, size: int, channels: int) -> Value:
    """(D, C, 2S, 2S) of the four pixels of each cell, which are side by side (D, 4C, S, S)."""
    with x.graph.scope("spread"):
        x = x.transpose(0, 2, 3, 1).reshape(-1, size, size, 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(-1, 2 * size, 2 * size, channels).transpose(0, 3, 1, 2)


def _detailed_logits(layers: Layers, config: MaskRCNN, x: Value, details: Value) -> Value:
    """Logits (D, 1, 2S, 2S) of features (D, C, S, S) and details at twice their resolution."""
    up = _spread(_quarters(layers, x), config.pooling.mask_size, config.mask_head.detail)
    with x.graph.scope("mask_predictor"):
        joined = x.graph.op("Relu", up + details)
    refined = layers.conv(joined, f"{_PREDICTOR}.refine", activation="relu")
    return layers.conv(refined, f"{_PREDICTOR}.mask_fcn_logits")


def _logits(layers: Layers, config: MaskHead, x: Value, labels: Value, size: int) -> Value:
    """Logits (D, 1, 2S, 2S) of features (D, C, S, S) alone.

    What follows the deconvolution works on single pixels, so its four pixels per cell stay side by side until only one
    channel is left.
    """
    with x.graph.scope("mask_predictor.conv5_mask"):
        x = x.graph.op("Relu", _quarters(layers, x))
    logits = _shared_logits(layers, x) if config.class_agnostic else _class_logits(layers, x, labels, size)
    return x.graph.op("DepthToSpace", logits, blocksize=2, mode="DCR")


def _quarters(layers: Layers, x: Value) -> Value:
    """The deconvolution (2x2, stride 2), its four output pixels per cell still side by side as channels.

    Where windows do not overlap, that is a 1x1 convolution to the four pixels of each cell: faster, and exact.
    """
    key = f"{_PREDICTOR}.conv5_mask"
    weight = layers.array(f"{key}.weight")
    weight = weight.transpose(2, 3, 1, 0).reshape(4 * weight.shape[1], -1, 1, 1)
    bias = np.tile(layers.array(f"{key}.bias"), 4)
    with x.graph.scope("mask_predictor.conv5_mask"):
        return _pointwise(layers, x, f"{key}.quarters", weight, bias)


def _shared_logits(layers: Layers, x: Value) -> Value:
    """(D, 4, S, S) from (D, 4C, S, S): one mask for all classes."""
    key = f"{_PREDICTOR}.mask_fcn_logits"
    row = layers.array(f"{key}.weight")[:, :, 0, 0]
    weight = np.kron(np.eye(4, dtype=np.float32), row)[:, :, None, None]
    bias = np.tile(layers.array(f"{key}.bias"), 4)
    with x.graph.scope("mask_predictor.mask_fcn_logits"):
        return _pointwise(layers, x, f"{key}.quarters", weight, bias)


def _class_logits(layers: Layers, x: Value, labels: Value, size: int) -> Value:
    """(D, 4, S, S) from (D, 4C, S, S): the mask of each detection's own class, so the others are never computed."""
    key = f"{_PREDICTOR}.mask_fcn_logits"
    rows = layers.array(f"{key}.weight")[:, :, 0, 0]
    bias = layers.array(f"{key}.bias")
    with x.graph.scope("mask_predictor.mask_fcn_logits"):
        row = layers.parameter(f"{key}.rows", rows[:, None, None, :]).gather(labels)
        quarters = x.reshape(-1, 4, rows.shape[1], size * size)
        logits = x.graph.op("MatMul", row, quarters).reshape(-1, 4, size, size)
        return logits + layers.parameter(f"{key}.bias", bias[:, None, None, None]).gather(labels)


def _pointwise(layers: Layers, x: Value, key: str, weight: Floats, bias: Floats) -> Value:
    """A 1x1 convolution."""
    parameters = (layers.parameter(f"{key}.weight", weight), layers.parameter(f"{key}.bias", bias))
    return x.graph.op("Conv", x, *parameters, kernel_shape=[1, 1])
