"""Adapter of Ultralytics' segmentation models (YOLOv8, YOLO11, YOLO26 and others; `yolo export format=onnx`).

Input (B, 3, H, W): RGB 0 to 1, the image in the middle of grey 114 (`LetterBox` in `ultralytics/data/augment.py`), in
graphs of free size on the smallest canvas of whole 32s, or 64s where that is the model's stride (P6). Outputs, see
`ultralytics/models/yolo/segment/predict.py`:

* output0 (B, 4 + C + M, A): centre and size in canvas pixels, a probability per class, M mask coefficients; left to us
  are the best class of each, and suppression per class at IoU 0.7 (`utils/nms.py`). Or, with suppression inside the
  graph (`nms=True`, end2end), (B, K, 6 + M): corners, score, class, coefficients.
* output1 (B, M, h, w): prototypes. A mask is where their sum, weighted by the coefficients, is above zero.

Names, image size, stride and task are read from the metadata.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stream_seg.detections import Detections
from stream_seg.frame import Image
from stream_seg.geometry import Boxes, Letterbox, Placement, pairwise_iou
from stream_seg.segmenters.classes import Classes, by_number, classes_at, classes_from
from stream_seg.segmenters.exports import ExportSegmenter, corners, kind, only_image
from stream_seg.segmenters.full_masks import lift
from stream_seg.segmenters.onnx_segmenter import PIXELS, Options, class_names, given_names
from stream_seg.segmenters.preprocess import Pixels, Size, round_up
from stream_seg.segmenters.session import Array, Run, Session, Signature

UNDERSTOOD = "Ultralytics YOLO segmentation"

LONG_SIDE = 640
IOU = 0.7
MOST = 300
"""Detections per image: Ultralytics' `max_det`."""

CANDIDATES = 30_000
"""Boxes that go into suppression: Ultralytics' `max_nms`."""

_WITHOUT_OUTLINES = ("detect", "pose", "classify", "obb")
"""Ultralytics' other tasks."""


def matches(signature: Signature) -> bool:
    """Whether a model is Ultralytics', by the shapes of its two outputs; YOLOv5's, which say no task, are not."""
    metadata = signature.metadata
    outputs = [kind(tensor) for tensor in signature.outputs.values()]
    task = metadata.get("task", "" if "stride" in metadata else "segment")
    return only_image(signature, 4) is not None and outputs == [("float", 3), ("float", 4)] and task == "segment"


def other_task(signature: Signature) -> str | None:
    """What Ultralytics' model is for that finds no outlines; None for one that does, and for all others."""
    task = signature.metadata.get("task", "")
    return task if task in _WITHOUT_OUTLINES else None


class YoloSegmenter(ExportSegmenter):
    """A true batch, if it was exported with a free one and the suppression is left to us, or there is none."""

    pixels = Pixels(deviation=(255.0, 255.0, 255.0), padding=(114.0, 114.0, 114.0))
    stride = 32

    def __init__(self, session: Session, options: Options) -> None:
        metadata = session.signature.metadata
        said = re.fullmatch(r"[0-9]{1,3}", metadata.get("stride", ""))
        self.stride = max(self.stride, int(said[0]) if said else 0)
        sides = [int(side) for side in re.findall(rf"(?<![0-9.]){PIXELS}(?![0-9])", metadata.get("imgsz", ""))]
        self._long = round_up((options.long_side or max(sides, default=LONG_SIDE), 0), self.stride)[0]
        most = 1 if _is_unrolled(session.signature) else None
        super().__init__(session, options, _classes(session, options), self._long, most)

    def inner(self, size: Size) -> Size:
        return Letterbox(size, (self._long, self._long)).valid

    def place(self, size: Size, canvas: Size) -> Placement:
        inner = Letterbox(size, canvas).valid
        left, top = (round((whole - part) / 2 - 0.1) for whole, part in zip(canvas, inner, strict=True))
        return Placement(size, inner, (left, top))

    def detect(self, run: Run, images: Sequence[Image], canvas: Size) -> list[Detections]:
        planes, placements = self.batch(images, canvas)
        outputs = run({self._input.name: planes})
        rows, prototypes = outputs.values()
        found = [self._rows_of(rows[i], prototypes.shape[1], outputs) for i in range(len(images))]
        return [self._unpack(*found[i], prototypes[i], placement, canvas) for i, placement in enumerate(placements)]

    def _rows_of(self, rows: Array, masks: int, outputs: Mapping[str, Array]) -> tuple[Array, Array, Array, Array]:
        """Boxes xyxy, scores, class numbers and mask coefficients of one image, suppressed."""
        if rows.shape[1] == 6 + masks:
            return rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64), rows[:, 6:]
        classes = rows.shape[0] - 4 - masks
        if classes < 1:
            raise self.misfit(outputs)
        probabilities = rows[4 : 4 + classes]
        likely = np.flatnonzero(probabilities.max(axis=0) > self._floor)
        numbers, scores = probabilities[:, likely].argmax(axis=0), probabilities[:, likely].max(axis=0)
        boxes = corners(rows[:4, likely].T)
        kept = suppress(boxes, scores, numbers)
        return boxes[kept], scores[kept], numbers[kept], rows[4 + classes :, likely[kept]].T

    def _unpack(
        self,
        boxes: Array,
        scores: Array,
        numbers: Array,
        weights: Array,
        prototypes: Array,
        placement: Placement,
        canvas: Size,
    ) -> Detections:
        kept, ids = self.pick(scores, numbers)
        count, height, width = prototypes.shape
        logits = weights[kept].astype(np.float32) @ prototypes.reshape(count, -1).astype(np.float32)
        visible = placement.visible(boxes[kept])
        scale = np.array([width / canvas[0], height / canvas[1]] * 2, np.float32)
        small = lift(logits.reshape(-1, height, width), visible * scale, logits=True)
        return self.detections(placement, visible, scores[kept], ids, small)


def suppress(boxes: Boxes, scores: Array, numbers: Array) -> NDArray[np.int64]:
    """Indices, best first, of at most `MOST` boxes that no better one of their class covers by more than `IOU`."""
    order = np.argsort(-scores.astype(np.float32), kind="stable")[:CANDIDATES]
    kept: list[int] = []
    while order.size and len(kept) < MOST:
        best, order = order[0], order[1:]
        kept.append(int(best))
        same = numbers[order] == numbers[best]
        order = order[~(same & (pairwise_iou(boxes[[best]], boxes[order])[0] > IOU))]
    return np.array(kept, np.int64)


def _is_unrolled(signature: Signature) -> bool:
    """Whether a graph was made with `nms=True`: it finds nothing but in the first images of a batch, if that is free.

    Suppression is a loop over the images, unrolled for those at the export (`NMSModel` in `engine/exporter.py`). Graphs
    that need none (end2end) look alike, but for the metadata.
    """
    rows, prototypes = signature.outputs.values()
    masks = prototypes.shape[1]
    suppressed = isinstance(masks, int) and rows.shape[2] == 6 + masks
    said = "'nms': True" in signature.metadata.get("args", "")
    return said or (suppressed and signature.metadata.get("end2end") != "True")


def _classes(session: Session, options: Options) -> Classes:
    names = given_names(session, options)
    known = _names(session.signature.metadata.get("names", ""))
    if not names and known:
        return classes_at(list(known), list(known.values()))
    return classes_from(0, class_names(session, options))


def _names(metadata: str) -> dict[int, str]:
    """The names Ultralytics writes as a Python literal, {0: 'person', ...}."""
    try:
        return by_number(ast.literal_eval(metadata))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return {}
