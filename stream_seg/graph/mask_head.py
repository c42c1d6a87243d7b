"""The mask head: a small mask for each detection, of its own class only."""

from __future__ import annotations

import numpy as np

from stream_seg.graph.box_head import Detected
from stream_seg.graph.config import MaskHead, MaskRCNN
from stream_seg.graph.emit import Value
from stream_seg.graph.layers import Floats, Layers
from stream_seg.graph.roi import Pooler

_PREDICTOR = "roi_heads.mask_predictor"


def masks(layers: Layers, config: MaskRCNN, pooler: Pooler, found: Detected) -> Value:
    """Probabilities (D, 2S, 2S) on a grid over each box, in the order of the detections."""
    graph, size = layers.graph, config.pooling.mask_size
    with graph.scope("mask"):
        with graph.scope("pool"):
            features = pooler.pool(found.rois, size).head(found.labels.length(0))
        with graph.scope("head"):
            logits = _head(layers, config.mask_head, features, found.labels, size)
            return graph.op("Sigmoid", layers.leave(logits)).squeeze(1)


def _head(layers: Layers, config: MaskHead, x: Value, labels: Value, size: int) -> Value:
    """Logits (D, 1, 2S, 2S)."""
    x = layers.enter(x)
    for index in range(len(config.convolutions)):
        x = layers.block(x, f"roi_heads.mask_head.{index}", activation="relu")
    x = _quarters(layers, x)
    logits = _shared_logits(layers, x) if config.class_agnostic else _class_logits(layers, x, labels, size)
    return x.graph.op("DepthToSpace", logits, blocksize=2, mode="DCR")


def _quarters(layers: Layers, x: Value) -> Value:
    """The deconvolution (2x2, stride 2) and its ReLU, its four output pixels per cell still side by side as channels.

    A deconvolution whose windows do not overlap is a 1x1 convolution to the four pixels of each cell; what follows
    works on single pixels, so the pixels are put in place at the end, when only one channel is left. Faster, and exact.
    """
    key = f"{_PREDICTOR}.conv5_mask"
    weight = layers.array(f"{key}.weight")
    width = weight.shape[1]
    weight = weight.transpose(2, 3, 1, 0).reshape(4 * width, -1, 1, 1)
    bias = np.tile(layers.array(f"{key}.bias"), 4)
    with x.graph.scope("mask_predictor.conv5_mask"):
        return x.graph.op("Relu", _pointwise(layers, x, f"{key}.quarters", weight, bias))


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
