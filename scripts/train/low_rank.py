"""Replaces the largest fully connected layer of a graph by two thin ones that do nearly the same with less arithmetic.

The layer's outputs on real regions lie close to a subspace of few dimensions. Projected onto their principal components
Q, W x becomes Q (Q^T W) x and the mean of what is lost: the best approximation of that rank in the mean square
(reduced-rank regression, Izenman 1975). It pays for looking at more regions in the same time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from stream_seg.errors import ModelError

import onnxruntime  # isort: skip  after stream_seg, which keeps it from reporting

LAYER = "box/head/fc6/Gemm"
"""The first use of the layer; its others have the same weights."""
Feed = dict[str, NDArray[np.generic]]


def shorten(model: onnx.ModelProto, feeds: Sequence[Feed], rank: int) -> tuple[onnx.ModelProto, float]:
    """A copy of an fp32 graph with its LAYER of `rank`, and the share of the outputs' variance that it keeps."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    node = next((one for one in copy.graph.node if one.name == LAYER), None)
    if node is None:
        raise ModelError(f"the graph has no layer {LAYER} to shorten")
    tensors = {tensor.name: tensor for tensor in copy.graph.initializer}
    weight, bias = (numpy_helper.to_array(tensors[name]).astype(np.float64) for name in node.input[1:])
    if not 1 <= rank < len(weight):
        raise ModelError(f"the rank must be from 1 to {len(weight) - 1}, not {rank}")
    mean, basis, kept = _subspace(_outputs(model, node.output[0], feeds), rank)
    # The mean is exact, so only what varies is projected; `bias` is part of the outputs already.
    offset = mean - basis @ (basis.T @ (mean - bias))
    arrays = {"first": basis.T @ weight, "second": basis, "bias": offset}
    names = {key: f"{node.input[1]}.{key}" for key in arrays}
    for name in node.input[1:]:
        copy.graph.initializer.remove(tensors[name])
    made = [numpy_helper.from_array(array.astype(np.float32), names[key]) for key, array in arrays.items()]
    copy.graph.initializer.extend(made)
    for used in [one for one in copy.graph.node if one.input[1:] == node.input[1:]]:
        _replace(copy.graph, used, names)
    onnx.checker.check_model(copy)
    return copy, kept


def _outputs(model: onnx.ModelProto, name: str, feeds: Sequence[Feed]) -> NDArray[np.float64]:
    """What the layer gives for the regions of some frames, (regions, units)."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([name], feed)[0] for feed in feeds]).astype(np.float64)


def _subspace(outputs: NDArray[np.float64], rank: int) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """The mean (units,), an orthonormal basis (units, rank) of the directions that vary most, and their share."""
    mean = outputs.mean(0)
    variance, directions = np.linalg.eigh(np.cov(outputs, rowvar=False))
    kept = float(variance[-rank:].sum() / variance.sum())
    return mean, directions[:, -rank:], kept


def _replace(graph: onnx.GraphProto, node: onnx.NodeProto, names: dict[str, str]) -> None:
    """The second is not among those that are quantised: one scale for all components would be too coarse."""
    middle = f"{node.output[0]}.short"
    use = node.name.removeprefix("box/head/fc6/")
    first = helper.make_node("Gemm", [node.input[0], names["first"]], [middle], f"box/head/short/{use}", transB=1)
    inputs = [middle, names["second"], names["bias"]]
    second = helper.make_node("Gemm", inputs, [node.output[0]], f"box/short/{use}", transB=1)
    place = list(graph.node).index(node)
    graph.node.remove(node)
    graph.node.insert(place, second)
    graph.node.insert(place, first)
