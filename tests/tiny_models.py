"""Tiny real ONNX graphs, a few kB each, whose answers are computed independently in numpy.

The network they pretend to be sees one object per colour channel: red covers the left half of the picture, green the
lower right quarter, blue all of it. The score is the mean brightness of that channel over the valid part.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

NAMES = ("red", "green", "blue")
LABELS = "background," + ",".join(NAMES)
FRACTIONS = np.array([[0, 0, 0.5, 1], [0.5, 0.5, 1, 1], [0, 0, 1, 1]], np.float32)
MASKS = np.linspace(0, 1, 3 * 28 * 28, dtype=np.float32).reshape(3, 28, 28)
DEFAULT_THRESHOLD = 0.3

Shape = list[int | str]


def batched_model(
    path: Path,
    *,
    metadata: Mapping[str, str] | None = None,
    threshold: str = "optional",
    images: Shape | None = None,
    label: int = 1,
    masks: NDArray[np.float32] = MASKS,
    first_index: int = 0,
    fractions: NDArray[np.float32] = FRACTIONS,
) -> Path:
    """A graph of our own batched family. `threshold` is an input that is "optional", "required" or "absent".

    Boxes are `fractions` of where the image ends.
    `label`, `masks` and `first_index` are for graphs that answer nonsense.
    """
    constants: dict[str, NDArray[np.generic]] = {
        "fractions": fractions,
        "grids": masks,
        "full": np.array(255, np.float32),
        "label": np.array(label, np.int64),
        "first": np.array(first_index, np.int64),
        "axes": np.array([1, 2], np.int64),
        "whwh": np.array([1, 0, 1, 0], np.int64),
        "flat": np.array([-1], np.int64),
    }
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, images or ["N", "H", "W", 3]),
        helper.make_tensor_value_info("sizes", TensorProto.FLOAT, ["N", 2]),
    ]
    if threshold == "absent":
        constants["score_threshold"] = np.array(-1, np.float32)
    else:
        inputs.append(helper.make_tensor_value_info("score_threshold", TensorProto.FLOAT, []))
    if threshold == "optional":
        constants["score_threshold"] = np.array(DEFAULT_THRESHOLD, np.float32)
    return save(path, _nodes(), inputs, _outputs(), constants, {"labels": LABELS} if metadata is None else metadata)


def expected_scores(image: NDArray[np.uint8]) -> dict[str, float]:
    """What `batched_model` finds in a BGR image of one colour, by name."""
    blue, green, red = (float(value) / 255 for value in image[0, 0])
    return {"red": red, "green": green, "blue": blue}


def identity_model(
    path: Path, *, operator: str = "Identity", domain: str = "", opset: int = 17, name: str = "x"
) -> Path:
    """A graph of no family: x, or `name`, in, y out."""
    vector = [helper.make_tensor_value_info(end, TensorProto.FLOAT, [2]) for end in (name, "y")]
    nodes = [helper.make_node(operator, [name], ["y"], domain=domain)]
    return save(path, nodes, vector[:1], vector[1:], {}, {}, opset=opset, domain=domain)


def external_model(path: Path, location: str) -> Path:
    """A graph whose only weight, two floats, lies in another file."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "8")):
        weight.external_data.add(key=key, value=value)
    vector = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "tiny", vector[:1], vector[1:], [weight])
    path.write_bytes(_model(graph, 17, "").SerializeToString())
    return path


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: Mapping[str, NDArray[np.generic]],
    metadata: Mapping[str, str],
    opset: int = 17,
    domain: str = "",
) -> Path:
    """Write a model made of these parts."""
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    model = _model(helper.make_graph(nodes, "tiny", inputs, outputs, tensors), opset, domain)
    helper.set_model_props(model, dict(metadata))
    path.write_bytes(model.SerializeToString())
    return path


def _model(graph: onnx.GraphProto, opset: int, domain: str) -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _nodes() -> list[onnx.NodeProto]:
    node = helper.make_node
    return [
        # The mean of each channel over the valid part: padding adds nothing to the sum.
        node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        node("ReduceSum", ["pixels", "axes"], ["sums"], keepdims=0),
        node("ReduceProd", ["sizes"], ["areas"], axes=[1], keepdims=1),
        node("Div", ["sums", "areas"], ["means"]),
        node("Div", ["means", "full"], ["grades"]),
        node("Greater", ["grades", "score_threshold"], ["kept"]),
        node("NonZero", ["kept"], ["places"]),
        # (2, D): the rows are which image and which channel.
        node("Split", ["places"], ["row_image", "row_channel"], axis=0),
        node("Reshape", ["row_image", "flat"], ["which"]),
        node("Reshape", ["row_channel", "flat"], ["channel"]),
        node("Add", ["which", "first"], ["image_index"]),
        node("Add", ["channel", "label"], ["labels"]),
        node("Transpose", ["places"], ["pairs"], perm=[1, 0]),
        node("GatherND", ["grades", "pairs"], ["scores"]),
        node("Gather", ["sizes", "whwh"], ["scale"], axis=1),
        node("Gather", ["scale", "which"], ["scales"], axis=0),
        node("Gather", ["fractions", "channel"], ["relative"], axis=0),
        node("Mul", ["relative", "scales"], ["boxes"]),
        node("Gather", ["grids", "channel"], ["masks"], axis=0),
    ]


def _outputs() -> list[onnx.ValueInfoProto]:
    info = helper.make_tensor_value_info
    return [
        info("image_index", TensorProto.INT64, ["D"]),
        info("boxes", TensorProto.FLOAT, ["D", 4]),
        info("labels", TensorProto.INT64, ["D"]),
        info("scores", TensorProto.FLOAT, ["D"]),
        info("masks", TensorProto.FLOAT, None),
    ]
