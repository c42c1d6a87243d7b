"""Makes an ONNX model's RoiAligns look once into each cell of a region instead of several times.

    python scripts/thin_pooling.py IN.onnx OUT.onnx

This made models/compact/int8.onnx from the quantised export: weights and scales are untouched.
"""

from __future__ import annotations

import sys

import onnx


def thin(model: onnx.ModelProto) -> int:
    """Set `sampling_ratio` of every RoiAlign to 1, in place; return how many there were."""
    pools = [node for node in model.graph.node if node.op_type == "RoiAlign"]
    for pool in pools:
        for attribute in pool.attribute:
            if attribute.name == "sampling_ratio":
                attribute.i = 1
    return len(pools)


def main() -> None:
    source, target = sys.argv[1:]
    model = onnx.load(source)
    print(f"{thin(model)} RoiAligns thinned")
    onnx.save(model, target)


if __name__ == "__main__":
    main()
