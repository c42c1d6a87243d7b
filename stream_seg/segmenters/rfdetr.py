"""Adapter of RF-DETR's segmentation models (`RFDETRSeg*.export()`).

Input (B, 3, R, R): RGB scaled to 0 to 1 and normalised with ImageNet's statistics, stretched to a square, bilinear
without antialiasing (`src/rfdetr/export/_runtime/preprocess.py`). Outputs dets (B, Q, 4): centre and size as parts of
the image; labels (B, Q, C): log-odds of each class, on its own; masks (B, Q, h, w): log-odds over the whole image. The
best Q pairs of query and class are taken (`src/rfdetr/models/postprocess.py`), so that a query can appear twice.

Class numbers: those of the `rfdetr_inference` metadata, which newer exports carry; else COCO's ids for 91 slots (slot k
is id k, as in the published weights); else given names in order, the last slot being "no object".
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from stream_seg.detections import Detections
from stream_seg.frame import Image
from stream_seg.geometry import Placement
from stream_seg.segmenters.classes import Classes, by_number, classes_at, classes_by_id, classes_from
from stream_seg.segmenters.exports import ExportSegmenter, corners, fixed_size, kind, only_image
from stream_seg.segmenters.full_masks import lift, sigmoid
from stream_seg.segmenters.onnx_segmenter import Options, class_names, given_names
from stream_seg.segmenters.preprocess import IMAGENET_DEVIATION, IMAGENET_MEAN, Pixels, Size
from stream_seg.segmenters.session import Array, Run, Session, Signature

UNDERSTOOD = "RF-DETR segmentation"

SPARSE = 91
"""Slots of a network that numbers its classes by COCO's ids."""

_OUTPUTS = ("dets", "labels", "masks")
_KINDS = [("float", 3), ("float", 3), ("float", 4)]


def matches(signature: Signature) -> bool:
    """Whether a model is RF-DETR's, by the names of its outputs; labels are log-odds."""
    image = only_image(signature, 4)
    if image is None or fixed_size(image) is None or not set(_OUTPUTS) <= set(signature.outputs):
        return False
    return [kind(signature.outputs[name]) for name in _OUTPUTS] == _KINDS


class RfdetrSegmenter(ExportSegmenter):
    """A true batch, if it was exported with a free one."""

    pixels = Pixels(IMAGENET_MEAN, IMAGENET_DEVIATION)

    def __init__(self, session: Session, options: Options) -> None:
        super().__init__(session, options, _classes(session, options), longest=0)

    def inner(self, size: Size) -> Size:
        return size

    def place(self, size: Size, canvas: Size) -> Placement:
        return Placement(size, canvas)

    def detect(self, run: Run, images: Sequence[Image], canvas: Size) -> list[Detections]:
        planes, placements = self.batch(images, canvas)
        outputs = run({self._input.name: planes})
        dets, labels, masks = (outputs[name] for name in _OUTPUTS)
        if not dets.shape[:2] == labels.shape[:2] == masks.shape[:2] or dets.shape[2] != 4:
            raise self.misfit(outputs)
        return [self._found(dets[i], labels[i], masks[i], placement) for i, placement in enumerate(placements)]

    def _found(self, dets: Array, logits: Array, masks: Array, placement: Placement) -> Detections:
        scores = sigmoid(logits[:, : len(self._classes.slots)])
        best = np.argsort(-scores, axis=None, kind="stable")[: len(dets)]
        kept, ids = self.pick(scores.flat[best], best % scores.shape[1])
        queries = best[kept] // scores.shape[1]
        parts = np.clip(corners(dets[queries]), 0.0, 1.0)
        small = lift(masks[queries], parts * np.array([*masks.shape[:0:-1]] * 2, np.float32), logits=True)
        boxes = parts * np.array([*placement.inner] * 2, np.float32)
        return self.detections(placement, boxes, scores.flat[best[kept]], ids, small)


def _classes(session: Session, options: Options) -> Classes:
    known = _names(session.signature.metadata.get("rfdetr_inference", ""))
    names = given_names(session, options)
    if known and len(names) in (0, len(known)):
        return classes_at(list(known), names or list(known.values()))
    if session.signature.outputs["labels"].shape[2] == SPARSE:
        return classes_by_id(names)
    return classes_from(0, class_names(session, options))


def _names(metadata: str) -> dict[int, str]:
    try:
        return by_number(json.loads(metadata)["class_id_to_name"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
