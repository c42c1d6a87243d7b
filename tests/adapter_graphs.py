"""Tiny ONNX graphs with the signatures of other projects' exports, made so that wrong preprocessing shows.

Each finds the same thing in every picture: one object per probe, a number read at a fixed place of its input tensor.
The score is that number, squeezed into 0..1 by a known line; the class says which probe it was. Two more objects tell
the width and height of the input. Boxes and masks are constants. What comes out is computed in numpy by the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tests.tiny_models import Shape, save

Probe = tuple[int, int, int]
"""Channel, row and column of the input."""

SIZE_UNIT = 2000.0
"""A side of so many pixels scores 1."""

TYPES = {"float": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}
KINDS = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(bool): TensorProto.BOOL,
}


@dataclass(frozen=True)
class Probing:
    """What to read: score = value * `gain` + `offset`. One box (4,) and mask per probe, and two more for the size."""

    probes: Sequence[Probe]
    gain: float
    offset: float
    boxes: NDArray[np.float32]
    masks: NDArray[np.generic]
    first_class: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(self.probes) + 2

    @property
    def classes(self) -> NDArray[np.int64]:
        return np.arange(self.count, dtype=np.int64) + self.first_class

    def value(self, score: float) -> float:
        """The number in the tensor that a score stands for."""
        return (score - self.offset) / self.gain


class Graph:
    """Collects nodes and constants; `read` gives the scores (B, N) of an input."""

    def __init__(self, probing: Probing) -> None:
        self.probing = probing
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[np.generic]] = {}

    def add(self, operator: str, inputs: Sequence[str | NDArray[np.generic]], **attributes: int | list[int]) -> str:
        """Append a node and return the name of its output; arrays become constants."""
        names = []
        for value in inputs:
            if isinstance(value, str):
                names.append(value)
            else:
                names.append(f"constant{len(self.constants)}")
                self.constants[names[-1]] = value
        name = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [name], **attributes))  # type: ignore[arg-type]
        return name

    def read(self, source: str, *, rank: int = 4, last: bool = False) -> str:
        """Scores (B, N + 2) of an input (B, 3, H, W), (3, H, W) or, with `last`, (B, H, W, 3)."""
        channel, row, column = (np.array(values, np.int64) for values in zip(*self.probing.probes, strict=True))
        shape = self.add("Shape", [source])
        places = {"height": 1, "width": 2} if last else {"height": rank - 2, "width": rank - 1}
        height, width = (self.add("Gather", [shape, np.array(place)]) for place in places.values())
        if last:
            offset = self.add("Mul", [self.add("Add", [self.add("Mul", [row, width]), column]), np.array(3)])
            index = self.add("Add", [offset, channel])
        else:
            line = self.add("Add", [self.add("Mul", [channel, height]), row])
            index = self.add("Add", [self.add("Mul", [line, width]), column])
        floats = self.add("Cast", [source], to=TensorProto.FLOAT)
        rows = np.array([1, -1] if rank == 3 else [0, -1])
        values = self.add("Gather", [self.add("Reshape", [floats, rows]), index], axis=1)
        scores = self.add("Mul", [values, np.array(self.probing.gain, np.float32)])
        scores = self.add("Add", [scores, np.array(self.probing.offset, np.float32)])
        return self.add("Concat", [scores, *(self._side(side, scores) for side in (width, height))], axis=1)

    def _side(self, side: str, scores: str) -> str:
        """A column (B, 1) that tells a side of the input."""
        part = self.add("Div", [self.add("Cast", [side], to=TensorProto.FLOAT), np.array(SIZE_UNIT, np.float32)])
        column = self.add("Slice", [scores, np.array([0]), np.array([1]), np.array([1])])
        return self.add("Add", [self.add("Mul", [column, np.array(0, np.float32)]), part])

    def repeat(self, value: NDArray[np.generic], scores: str) -> str:
        """A constant (N, ...) for each image of the batch: (B, N, ...)."""
        batch = self.add("Slice", [self.add("Shape", [scores]), np.array([0]), np.array([1])])
        shape = self.add("Concat", [batch, np.array(value.shape, np.int64)], axis=0)
        return self.add("Expand", [value[None], shape])

    def flat(self, scores: str) -> str:
        """The scores (N,) of a graph for one image."""
        return self.add("Reshape", [scores, np.array([-1])])

    def give(self, name: str, value: str | NDArray[np.generic]) -> None:
        """Call a value `name`."""
        if isinstance(value, str):
            self.nodes.append(helper.make_node("Identity", [value], [name]))
        else:
            self.nodes.append(helper.make_node("Identity", [self.constant(value)], [name]))

    def constant(self, value: NDArray[np.generic]) -> str:
        name = f"constant{len(self.constants)}"
        self.constants[name] = value
        return name

    def save(
        self, path: Path, inputs: Mapping[str, tuple[str, Shape]], outputs: Mapping[str, tuple[int, Shape]]
    ) -> Path:
        info = helper.make_tensor_value_info
        return save(
            path,
            self.nodes,
            [info(name, TYPES[kind], shape) for name, (kind, shape) in inputs.items()],
            [info(name, kind, shape) for name, (kind, shape) in outputs.items()],
            self.constants,
            self.probing.metadata,
        )


FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
ZOO_NAMES = ("6568", "6570", "6572", "6887")


def zoo_model(path: Path, probing: Probing, *, names: Sequence[str] = ZOO_NAMES, masks: Shape | None = None) -> Path:
    """The zoo's: image float[3,H,W] -> boxes, labels, scores, masks, named by numbers."""
    graph = Graph(probing)
    scores = graph.flat(graph.read("image", rank=3))
    values: list[str | NDArray[np.generic]] = [probing.boxes, probing.classes, scores, probing.masks]
    for name, value in zip(names, values, strict=True):
        graph.give(name, value)
    n = "nbox"
    shapes: tuple[tuple[int, Shape], ...] = (
        (FLOAT, [n, 4]),
        (INT, [n]),
        (FLOAT, [n]),
        (FLOAT, masks or [n, 1, 28, 28]),
    )
    return graph.save(path, {"image": ("float", [3, "height", "width"])}, dict(zip(names, shapes, strict=True)))


def torchvision_model(
    path: Path, probing: Probing, *, inputs: int = 1, size: tuple[int | str, int | str] = ("h", "w"), rank: int = 3
) -> Path:
    """torchvision's: one float[3,H,W] per image -> boxes, labels, scores, masks[N,1,H,W] per image.

    The masks of `probing` are small; they are pasted here as bilinear enlargement over the box says, by `pasted`.
    """
    graph = Graph(probing)
    images: dict[str, tuple[str, Shape]] = {}
    outputs: dict[str, tuple[int, Shape]] = {}
    for i in range(inputs):
        images[f"image.{i + 1}"] = ("float", [*([1] if rank == 4 else []), 3, *size])
        scores = graph.flat(graph.read(f"image.{i + 1}", rank=rank))
        values: dict[str, str | NDArray[np.generic]] = {
            "boxes": probing.boxes,
            "labels": probing.classes,
            "scores": scores,
            "masks": probing.masks,
        }
        for name, value in values.items():
            graph.give(f"{name}.{i}", value)
        n = f"n{i}"
        outputs |= {f"boxes.{i}": (FLOAT, [n, 4]), f"labels.{i}": (INT, [n]), f"scores.{i}": (FLOAT, [n])}
        outputs[f"masks.{i}"] = (FLOAT, [f"m{i}", f"one{i}", f"mh{i}", f"mw{i}"])
    return graph.save(path, images, outputs)


def tf_model(path: Path, probing: Probing, *, batch: int | str = "B", suffix: str = ":0", found: int = 100) -> Path:
    """The TensorFlow Object Detection API's: uint8[B,H,W,3] -> detection_boxes ... for `found` rows, and extras."""
    graph = Graph(probing)
    scores = graph.read("image_tensor" + suffix, last=True)
    blank = np.zeros((found - probing.count, 4), np.float32)
    more = found - probing.count
    classes = np.pad(probing.classes, (0, more), constant_values=1).astype(np.float32)
    filling = graph.repeat(np.full(more, 0.99, np.float32), scores)  # beyond num_detections: must not be looked at
    values = {
        "num_detections": graph.repeat(np.array([probing.count], np.float32), scores),
        "detection_boxes": graph.repeat(np.concatenate([probing.boxes, blank]), scores),
        "detection_classes": graph.repeat(classes, scores),
        "detection_scores": graph.add("Concat", [scores, filling], axis=1),
        "detection_masks": graph.repeat(np.pad(probing.masks, ((0, more), (0, 0), (0, 0))), scores),
        "raw_detection_boxes": graph.repeat(np.zeros((300, 4), np.float32), scores),
    }
    values["num_detections"] = graph.add("Reshape", [values["num_detections"], np.array([-1])])
    for name, value in values.items():
        graph.give(name + suffix, value)
    side = probing.masks.shape[1]
    shapes: dict[str, Shape] = {
        "num_detections": [batch],
        "detection_boxes": [batch, found, 4],
        "detection_classes": [batch, found],
        "detection_scores": [batch, found],
        "detection_masks": [batch, found, side, side],
        "raw_detection_boxes": [batch, 300, 4],
    }
    inputs: dict[str, tuple[str, Shape]] = {"image_tensor" + suffix: ("uint8", [batch, "height", "width", 3])}
    return graph.save(path, inputs, {name + suffix: (FLOAT, shape) for name, shape in shapes.items()})


def detectron2_model(path: Path, probing: Probing, *, size: tuple[int | str, int | str] = ("h", "w")) -> Path:
    """detectron2's: float[3,H,W] -> pred_boxes, pred_classes, pred_masks, scores, image size, named by numbers."""
    graph = Graph(probing)
    scores = graph.flat(graph.read("0", rank=3))
    sides = graph.add("Slice", [graph.add("Shape", ["0"]), np.array([1]), np.array([3])])
    values: list[str | NDArray[np.generic]] = [probing.boxes, probing.classes, probing.masks, scores, sides]
    for name, value in zip("12345", values, strict=True):
        graph.give(name, value)
    masks: tuple[int, Shape] = (FLOAT, ["n", 1, 28, 28])
    if probing.masks.dtype == bool:
        masks = (BOOL, ["n", "mh", "mw"])
    outputs: dict[str, tuple[int, Shape]] = {"1": (FLOAT, ["n", 4]), "2": (INT, ["n"]), "3": masks}
    outputs |= {"4": (FLOAT, ["n"]), "5": (INT, [2])}
    return graph.save(path, {"0": ("float", [3, *size])}, outputs)


def mmdeploy_model(path: Path, probing: Probing, *, shape: Shape | None = None, declared: Shape | None = None) -> Path:
    """MMDeploy's: float[B,3,H,W] -> dets[B,N,5], labels[B,N], masks[B,N,...]."""
    graph = Graph(probing)
    scores = graph.read("input")
    column = graph.add("Unsqueeze", [scores, np.array([2])])
    graph.give("dets", graph.add("Concat", [graph.repeat(probing.boxes, scores), column], axis=2))
    graph.give("labels", graph.repeat(probing.classes, scores))
    graph.give("masks", graph.repeat(probing.masks, scores))
    b = "batch"
    kind = BOOL if probing.masks.dtype == bool else FLOAT
    outputs: dict[str, tuple[int, Shape]] = {"dets": (FLOAT, [b, "n", 5]), "labels": (INT, [b, "n"])}
    outputs["masks"] = (kind, declared or [b, "n", "mh", "mw"])
    return graph.save(path, {"input": ("float", shape or [b, 3, "height", "width"])}, outputs)


def rfdetr_model(path: Path, probing: Probing, *, side: int = 96, classes: int = 91, batch: int | str = "B") -> Path:
    """RF-DETR's: float[B,3,R,R] -> dets[B,Q,4] cxcywh, labels[B,Q,C] log-odds, masks[B,Q,h,w] log-odds."""
    graph = Graph(probing)
    scores = graph.read("input")
    odds = graph.add("Log", [graph.add("Div", [scores, graph.add("Sub", [np.array(1, np.float32), scores])])])
    hot = np.zeros((probing.count, classes), np.float32)
    hot[np.arange(probing.count), probing.classes] = 1
    spread = graph.add("Mul", [graph.add("Unsqueeze", [odds, np.array([2])]), hot])
    graph.give("dets", graph.repeat(probing.boxes, scores))
    graph.give("labels", graph.add("Add", [spread, (hot - 1) * 30]))
    graph.give("masks", graph.repeat(probing.masks, scores))
    q, (height, width) = probing.count, probing.masks.shape[1:]
    outputs: dict[str, tuple[int, Shape]] = {"dets": (FLOAT, [batch, q, 4]), "labels": (FLOAT, [batch, q, classes])}
    outputs["masks"] = (FLOAT, [batch, q, height, width])
    return graph.save(path, {"input": ("float", [batch, 3, side, side])}, outputs)


def yolo_model(
    path: Path,
    probing: Probing,
    *,
    shape: Shape | None = None,
    suppressed: bool = False,
    unrolled: bool = False,
    kind: str = "float",
) -> Path:
    """Ultralytics': images[B,3,H,W] -> output0[B,4+C+M,A] (or [B,K,6+M] when `suppressed`), output1[B,M,h,w].

    `probing.boxes` are centre and size, or corners; `probing.masks` are the prototypes. Object i has prototype i. With
    `unrolled` only the first image of a batch is looked at.
    """
    graph = Graph(probing)
    n = probing.count
    scores = graph.read("images")
    column = graph.add("Unsqueeze", [scores, np.array([2])])
    boxes, weights = graph.repeat(probing.boxes, scores), graph.repeat(np.eye(n, dtype=np.float32), scores)
    if suppressed:
        numbers = graph.repeat(probing.classes[:, None].astype(np.float32), scores)
        rows = graph.add("Concat", [boxes, column, numbers, weights], axis=2)
        if unrolled:
            one, end = np.array([1]), np.array([np.iinfo(np.int64).max])
            first_image = graph.add("Slice", [rows, np.array([0]), one])
            others = graph.add("Mul", [graph.add("Slice", [rows, one, end]), np.array(0, np.float32)])
            rows = graph.add("Concat", [first_image, others], axis=0)
    else:
        chances = graph.add("Mul", [column, np.eye(n, dtype=np.float32)])
        rows = graph.add("Concat", [boxes, chances, weights], axis=2)
        rows = graph.add("Transpose", [rows], perm=[0, 2, 1])
    for name, value in (("output0", rows), ("output1", graph.repeat(probing.masks, scores))):
        graph.give(name, graph.add("Cast", [value], to=TYPES[kind]) if kind == "float16" else value)
    first: Shape = ["batch", n, 6 + n] if suppressed else ["batch", 4 + n + n, "anchors"]
    outputs: dict[str, tuple[int, Shape]] = {"output0": (TYPES[kind], first)}
    outputs["output1"] = (TYPES[kind], ["batch", n, "mask_height", "mask_width"])
    return graph.save(path, {"images": (kind, shape or ["batch", 3, "height", "width"])}, outputs)
