"""Writes ONNX nodes: values with operators, scopes that name them, constants and weights as initializers.

A graph is written from inputs to outputs, so the order of writing is the order of the file. Every node is called
`scope/scope/Operator`, and its output has the name of the node: profiles, quantisers and error messages then speak of
`rpn/level0/conv.0.0/Conv`. Operators and attributes are ONNX's own, version `OPSET` of the default domain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray
from onnx import helper, numpy_helper

OPSET = 18
"""Old enough for onnxruntime-gpu 1.23, which has no CUDA kernels for 21: those CUDA 12 systems have ends with 1.26."""
IR_VERSION = 8
"""The oldest IR that knows this opset: the file also loads in older runtimes than the one it was made with."""

_FLOAT, _INT64, _BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL

Array: TypeAlias = NDArray[np.generic]
Attribute: TypeAlias = int | float | str | Sequence[int]


class Value:
    """A tensor of the graph. Python's operators write nodes; a bare `float` is float32 and a bare `int` is int64."""

    __slots__ = ("graph", "name")

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph = graph
        self.name = name

    def __repr__(self) -> str:
        return f"Value({self.name})"

    def __add__(self, other: Operand) -> Value:
        return self.graph.op("Add", self, other)

    def __sub__(self, other: Operand) -> Value:
        return self.graph.op("Sub", self, other)

    def __mul__(self, other: Operand) -> Value:
        return self.graph.op("Mul", self, other)

    def __truediv__(self, other: Operand) -> Value:
        return self.graph.op("Div", self, other)

    def __floordiv__(self, other: Operand) -> Value:
        """Whole-number division: both sides must be integers, and not negative (ONNX truncates)."""
        return self.graph.op("Div", self, other)

    def __lt__(self, other: Operand) -> Value:
        return self.graph.op("Less", self, other)

    def __le__(self, other: Operand) -> Value:
        return self.graph.op("LessOrEqual", self, other)

    def __gt__(self, other: Operand) -> Value:
        return self.graph.op("Greater", self, other)

    def __ge__(self, other: Operand) -> Value:
        return self.graph.op("GreaterOrEqual", self, other)

    def __and__(self, other: Operand) -> Value:
        return self.graph.op("And", self, other)

    def equals(self, other: Operand) -> Value:
        return self.graph.op("Equal", self, other)

    def maximum(self, other: Operand) -> Value:
        return self.graph.op("Max", self, other)

    def minimum(self, other: Operand) -> Value:
        return self.graph.op("Min", self, other)

    def cast(self, dtype: DTypeLike) -> Value:
        return self.graph.op("Cast", self, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def shape(self) -> Value:
        return self.graph.op("Shape", self)

    def length(self, axis: int) -> Value:
        """The size along an axis, as a scalar."""
        return self.shape().gather(axis)

    def lengths(self, axis: int) -> Value:
        """The size along an axis, as a tensor of one element."""
        return self.graph.op("Shape", self, start=axis, end=axis + 1)

    def reshape(self, *sizes: int) -> Value:
        return self.graph.op("Reshape", self, ints(*sizes))

    def transpose(self, *axes: int) -> Value:
        return self.graph.op("Transpose", self, perm=axes)

    def squeeze(self, *axes: int) -> Value:
        return self.graph.op("Squeeze", self, ints(*axes))

    def unsqueeze(self, *axes: int) -> Value:
        return self.graph.op("Unsqueeze", self, ints(*axes))

    def slice(self, start: int, stop: int, axis: int) -> Value:
        return self.graph.op("Slice", self, ints(start), ints(stop), ints(axis))

    def head(self, count: Value) -> Value:
        """The first so many rows; count is a scalar."""
        return self.graph.op("Slice", self, ints(0), count.unsqueeze(0), ints(0))

    def split(self, parts: int, axis: int) -> tuple[Value, ...]:
        """Equal parts along an axis, which they keep."""
        return self.graph.ops(parts, "Split", self, num_outputs=parts, axis=axis)

    def gather(self, index: Operand, axis: int = 0) -> Value:
        return self.graph.op("Gather", self, index, axis=axis)

    def gather_nd(self, index: Value, batch_dims: int = 0) -> Value:
        return self.graph.op("GatherND", self, index, batch_dims=batch_dims)

    def where(self, condition: Value, otherwise: Operand) -> Value:
        """This value where the condition holds, else the other."""
        return self.graph.op("Where", condition, self, otherwise)


Operand: TypeAlias = Value | float | int | Array


def ints(*values: int) -> NDArray[np.int64]:
    """A one-dimensional int64 array, as ONNX wants its axes and sizes."""
    return np.array(values, np.int64)


class Graph:
    """An ONNX graph being written."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._scopes: list[str] = []
        self._used: Counter[str] = Counter()

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of the nodes written inside."""
        self._scopes.append(name)
        try:
            yield
        finally:
            self._scopes.pop()

    def op(self, operator: str, *operands: Operand, **attributes: Attribute) -> Value:
        """Write a node with one output."""
        return self.ops(1, operator, *operands, **attributes)[0]

    def ops(self, outputs: int, operator: str, *operands: Operand, **attributes: Attribute) -> tuple[Value, ...]:
        """Write a node with several outputs."""
        name = self._unique("/".join([*self._scopes, operator]))
        names = [name, *(f"{name}:{i}" for i in range(1, outputs))]
        inputs = [self.value(operand).name for operand in operands]
        self._nodes.append(_node(operator, inputs, names, name, attributes))
        return tuple(Value(self, n) for n in names)

    def value(self, operand: Operand) -> Value:
        """A value as it is; a number or an array as a constant."""
        if isinstance(operand, Value):
            return operand
        if isinstance(operand, np.ndarray):
            return self._constant(operand)
        return self._constant(np.array(operand, np.float32 if isinstance(operand, float) else np.int64))

    def weight(self, name: str, value: Array) -> Value:
        """A trained tensor, which keeps its name; written once however often it is used."""
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return Value(self, name)

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        return self.op("Concat", *values, axis=axis) if len(values) > 1 else values[0]

    def arange(self, stop: Value) -> Value:
        """0, 1, ... stop - 1 as int64; stop is a scalar."""
        return self.op("Range", 0, stop, 1)

    def loop(self, trips: Value, body: Callable[[Value], Value]) -> Value:
        """Float32 results of `body` for the trips 0, 1, ... trips - 1, stacked; all must have the same shape.

        `body` gets the number of the trip, and may use values from outside.
        """
        name = self._unique("/".join([*self._scopes, "Loop"]))
        outside, self._nodes = self._nodes, []
        number, go, gone = f"{name}/number", f"{name}/go", f"{name}/gone"
        result = body(Value(self, number))
        inside = [*self._nodes, helper.make_node("Identity", [go], [gone], gone)]
        self._nodes = outside
        inputs = [helper.make_tensor_value_info(*one, []) for one in ((number, _INT64), (go, _BOOL))]
        outputs = [
            helper.make_tensor_value_info(gone, _BOOL, []),
            helper.make_tensor_value_info(result.name, _FLOAT, None),
        ]
        graph = helper.make_graph(inside, name, inputs, outputs)
        self._nodes.append(helper.make_node("Loop", [trips.name, ""], [name], name, body=graph))
        return Value(self, name)

    def where_true(self, condition: Value) -> Value:
        """Indices of the true elements, (rank, count) int64, in row-major order."""
        return self.op("NonZero", condition)

    def input(self, name: str, dtype: DTypeLike, shape: Sequence[int | str], default: Array | None = None) -> Value:
        """Declare an input, optional if it has a default."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        if default is not None:
            self._initializers[name] = numpy_helper.from_array(default, name)
        return Value(self, name)

    def output(self, name: str, value: Value, dtype: DTypeLike, shape: Sequence[int | str]) -> None:
        """Declare an output."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))
        self._nodes.append(helper.make_node("Identity", [value.name], [name], f"outputs/{name}"))

    def model(self, name: str, producer: str, metadata: dict[str, str]) -> onnx.ModelProto:
        """The finished model, checked by ONNX including its shapes."""
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, list(self._initializers.values()))
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name=producer)
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _unique(self, name: str) -> str:
        count = self._used[name]
        self._used[name] += 1
        return f"{name}_{count}" if count else name

    def _constant(self, value: Array) -> Value:
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            shape = "x".join(map(str, value.shape)) or "scalar"
            name = f"const/{len(self._constants)}_{value.dtype}_{shape}"
            self._initializers[name] = numpy_helper.from_array(value, name)
            self._constants[key] = name
        return Value(self, self._constants[key])


def _node(
    operator: str, inputs: list[str], outputs: list[str], name: str, attributes: dict[str, Attribute]
) -> onnx.NodeProto:
    node = helper.make_node(operator, inputs, outputs, name)
    node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    return node
