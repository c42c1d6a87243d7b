"""Takes channels out of the pyramid of trained weights that hardly matter to what looks at it.

The maps of all levels are projected onto the subspace that loses least of the outputs of the layers behind them, in the
mean square (the weighted form of reduced-rank regression, Izenman 1975). Nothing bends between the pyramid's last
convolutions and those layers, so the projection becomes part of their weights: the same network with fewer channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from stream_seg.errors import ModelError
from stream_seg.graph import MaskRCNN
from stream_seg.graph.parameters import State

Feed = dict[str, NDArray[np.generic]]
Matrix = NDArray[np.float64]

_MAKERS = "backbone.fpn.layer_blocks.{}.0"
_USERS = ("rpn.head.conv.0.0", "roi_heads.box_head.fc6", "roi_heads.mask_head.0.0")


def narrow(
    config: MaskRCNN, state: State, model: onnx.ModelProto, feeds: Sequence[Feed], channels: int
) -> tuple[MaskRCNN, State, float]:
    """A network with so many pyramid channels, and the share that it keeps of the variance of its users' outputs.

    `model` is the float32 graph of the network, which sees the feeds. Raises ModelError for an impossible number.
    """
    if not 1 <= channels < config.pyramid_channels:
        raise ModelError(f"the pyramid can have 1 to {config.pyramid_channels - 1} channels, not {channels}")
    levels = range(len(config.backbone.channels))
    values = _values(model, [f"fpn/layer_blocks.{level}.0/Conv" for level in levels], feeds)
    mean, covariance = values.mean(0), np.cov(values, rowvar=False)
    weights = {key: _by_channel(state, key, config.pyramid_channels) for key in _USERS}
    importance = sum(_importance(weight, covariance) for weight in weights.values()) / len(weights)
    inwards, outwards, kept = _projection(importance, covariance, channels)
    changed = dict(state)
    for level in levels:
        key = _MAKERS.format(level)
        _put(changed, f"{key}.weight", np.einsum("ro,oikl->rikl", inwards, state[f"{key}.weight"]))
        _put(changed, f"{key}.bias", inwards @ state[f"{key}.bias"])
    lost = mean - outwards @ (inwards @ mean)
    for key, weight in weights.items():
        shape = state[f"{key}.weight"].shape
        narrowed = np.einsum("oip,ir->orp", weight, outwards)
        _put(changed, f"{key}.weight", narrowed.reshape(shape[0], -1, *shape[2:]))
        _put(changed, f"{key}.bias", state[f"{key}.bias"] + np.einsum("oip,i->o", weight, lost))
    return replace(config, pyramid_channels=channels), changed, kept


def _values(model: onnx.ModelProto, names: list[str], feeds: Sequence[Feed]) -> Matrix:
    """What the maps of the pyramid hold on some frames, (cells, channels)."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    for name in names:
        probe.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    maps = [one for feed in feeds for one in session.run(names, feed)]
    return np.concatenate([np.moveaxis(one, 1, -1).reshape(-1, one.shape[1]) for one in maps]).astype(np.float64)


def _by_channel(state: State, key: str, channels: int) -> Matrix:
    """A layer's weights as (outputs, channels, places)."""
    weight = state[f"{key}.weight"].astype(np.float64)
    return weight.reshape(len(weight), channels, -1)


def _importance(weight: Matrix, covariance: Matrix) -> Matrix:
    """(channels, channels): what an error in the channels does to a layer's outputs, as a share of their variance."""
    gram: Matrix = np.einsum("oip,ojp->ij", weight, weight)
    return gram / np.trace(gram @ covariance)


def _projection(importance: Matrix, covariance: Matrix, channels: int) -> tuple[Matrix, Matrix, float]:
    """Into the subspace (channels, all), out of it (all, channels), and the share that is kept."""
    scale, axes = np.linalg.eigh(importance)
    root = np.sqrt(np.maximum(scale, 1e-12))
    there, back = (axes * root) @ axes.T, (axes / root) @ axes.T
    variance, directions = np.linalg.eigh(there @ covariance @ there)
    best = directions[:, -channels:]
    # Turned at random, so that all channels vary alike: principal components would not suit one 8-bit scale.
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(channels, channels)))
    return turn @ best.T @ there, back @ best @ turn.T, float(variance[-channels:].sum() / variance.sum())


def _put(state: dict[str, NDArray[np.generic]], key: str, value: NDArray[np.generic]) -> None:
    state[key] = np.ascontiguousarray(value, np.float32)
