"""Convolutions and fully connected layers whose weights come from a state_dict, batch normalisation folded in.

Layers run in `dtype`: float32, or float16 for the half-precision graph, whose boxes and pooling stay in float32; parts
of the network call `enter` and `leave` where their layers begin and end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stream_seg.errors import ModelError
from stream_seg.graph.emit import Graph, Value
from stream_seg.graph.parameters import State

Activation = Literal["none", "relu", "leaky"]
Floats = NDArray[np.float32]


class Layers:
    """Writes layers into a graph by the keys of their parameters; leaky rectifiers have this `slope` below zero."""

    def __init__(
        self, graph: Graph, state: State, *, norm_eps: float = 0.0, slope: float = 0.0, half: bool = False
    ) -> None:
        self.graph = graph
        self._state = state
        self._norm_eps = norm_eps
        self._slope = slope
        self._half = half

    def enter(self, x: Value) -> Value:
        """A float32 value in the type of the layers."""
        return x.cast(np.float16) if self._half else x

    def leave(self, x: Value) -> Value:
        """A result of layers as float32."""
        return x.cast(np.float32) if self._half else x

    def array(self, key: str) -> Floats:
        """A parameter as float32."""
        return np.asarray(self._state[key], np.float32)

    def parameter(self, name: str, value: Floats) -> Value:
        """A weight in the type of the layers, under a name of its own. Raises ModelError for one beyond its range."""
        if not self._half:
            return self.graph.weight(name, value)
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if not np.isfinite(half).all():
            raise ModelError(f"the weights {name} go beyond half precision: use fp32")
        return self.graph.weight(name, half)

    def conv(
        self,
        x: Value,
        key: str,
        *,
        norm: str | None = None,
        stride: int = 1,
        dilation: int = 1,
        activation: Activation = "none",
        input_scale: Sequence[float] = (1.0,),
    ) -> Value:
        """A convolution that keeps the size (divided by stride), as if its input had been multiplied by input_scale."""
        weight, bias = self._folded(key, norm)
        weight = weight * np.array(input_scale, np.float32)[None, :, None, None]
        size = weight.shape[2]
        with self.graph.scope(_layer_name(key)):
            y = self.graph.op(
                "Conv",
                x,
                self.parameter(f"{key}.weight", weight.astype(np.float32)),
                self.parameter(f"{key}.bias", bias),
                kernel_shape=[size, size],
                pads=[dilation * (size - 1) // 2] * 4,
                strides=[stride, stride],
                dilations=[dilation, dilation],
                group=1,
            )
            return self._activate(y, activation)

    def block(self, x: Value, key: str, activation: Activation = "none", dilation: int = 1) -> Value:
        """torchvision's Conv2dNormActivation: convolution `key.0`, and batch normalisation `key.1` if there is one."""
        norm = f"{key}.1" if f"{key}.1.running_mean" in self._state else None
        return self.conv(x, f"{key}.0", norm=norm, activation=activation, dilation=dilation)

    def linear(self, x: Value, key: str, activation: Activation = "none") -> Value:
        """A fully connected layer, or what a convolution of single pixels does, on rows (R, C)."""
        rows = self.array(f"{key}.weight")
        weight = self.parameter(f"{key}.weight", rows.reshape(len(rows), -1))
        bias = self.parameter(f"{key}.bias", self.array(f"{key}.bias"))
        with self.graph.scope(_layer_name(key)):
            return self._activate(self.graph.op("Gemm", x, weight, bias, transB=1), activation)

    def rectified(self, y: Value) -> Value:
        """By a leaky rectifier."""
        return self.graph.op("LeakyRelu", y, alpha=self._slope)

    def _folded(self, key: str, norm: str | None) -> tuple[Floats, Floats]:
        """Weight and bias of a convolution, the batch normalisation behind it folded in (Jacob 2017, equation 14)."""
        weight = self.array(f"{key}.weight")
        bias = self.array(f"{key}.bias") if f"{key}.bias" in self._state else np.zeros(len(weight), np.float32)
        if norm is None:
            return weight, bias
        gain, shift, mean, variance = (
            self.array(f"{norm}.{name}").astype(np.float64)
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / np.sqrt(variance + self._norm_eps)
        folded = weight * scale[:, None, None, None]
        return folded.astype(np.float32), ((bias - mean) * scale + shift).astype(np.float32)

    def _activate(self, y: Value, activation: Activation) -> Value:
        if activation == "leaky":
            return self.rectified(y)
        return self.graph.op("Relu", y) if activation == "relu" else y


def _layer_name(key: str) -> str:
    """A parameter's key without the part of the network it is in, which the scope already says."""
    return key.split(".", 2)[-1]
