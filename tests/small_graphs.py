"""Runs a piece of a graph alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime

from stream_seg.graph.emit import Array, Graph, Value


def compute(write: Callable[..., Value], *arrays: Array, rank: int, dtype: type[np.generic] = np.float32) -> Array:
    """Run the small graph that `write` writes from these inputs."""
    graph = Graph()
    names = [f"x{i}" for i in range(len(arrays))]
    values = [graph.input(name, array.dtype, list(array.shape)) for name, array in zip(names, arrays, strict=True)]
    graph.output("result", write(*values), dtype, [f"d{axis}" for axis in range(rank)])
    model = graph.model("part", "test", {}).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, dict(zip(names, arrays, strict=True)))[0])
