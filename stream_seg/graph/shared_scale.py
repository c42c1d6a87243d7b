"""One 8-bit scale for the pixels that regions are gathered from (`pixels`), whatever level they are of.

quantize_static leaves the joining of the levels in float32, and gives each gathering a scale of its own. With one scale
for all of it, bytes are copied as they are.
"""

from __future__ import annotations

import re

import numpy as np
import onnx
from onnx import helper, numpy_helper

PIXEL_NODES = re.compile(r"(box/pool/)?pixels/")
"""Names of the nodes that handle features as pixels."""

_SCALE, _ZERO_POINT = "pixels/scale", "pixels/zero_point"


def share_scale(graph: onnx.GraphProto) -> None:
    """Quantise what is joined, and let what is gathered from it keep that scale, in place."""
    gathers = [node for node in graph.node if node.op_type == "Gather" and PIXEL_NODES.match(node.name)]
    if not gathers:
        return
    maker = {output: node for node in graph.node for output in node.output}
    user = {name: node for node in graph.node for name in node.input}
    joined = maker[gathers[0].input[0]]
    scale, zero_point = _widest(graph, [maker[name] for name in joined.input])
    graph.initializer.append(numpy_helper.from_array(np.array(scale), _SCALE))
    graph.initializer.append(numpy_helper.from_array(np.array(zero_point), _ZERO_POINT))
    place = list(graph.node).index(joined) + 1
    whole = joined.output[0]
    for operator in ("DequantizeLinear", "QuantizeLinear"):
        source = whole if operator == "QuantizeLinear" else f"{whole}/QuantizeLinear"
        name = f"{whole}/{operator}"
        graph.node.insert(place, helper.make_node(operator, [source, _SCALE, _ZERO_POINT], [name], name))
    for gather in gathers:
        gather.input[0] = f"{whole}/DequantizeLinear"
        quantised = user[gather.output[0]]
        for node in (quantised, user[quantised.output[0]]):
            node.input[1:] = [_SCALE, _ZERO_POINT]


def _widest(graph: onnx.GraphProto, parts: list[onnx.NodeProto]) -> tuple[np.float32, np.uint8]:
    """Scale and zero point of a range that holds those of all parts, which are DequantizeLinear nodes."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    ends = [
        (end - float(constants[zero_point])) * float(constants[scale])
        for _, scale, zero_point in (part.input for part in parts)
        for end in (0, 255)
    ]
    step = np.float32((max(ends) - min(ends)) / 255)
    return step, np.uint8(np.clip(round(-min(ends) / float(step)), 0, 255))
