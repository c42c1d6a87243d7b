"""Adapter of the ONNX Model Zoo's Mask R-CNN (MaskRCNN-12 and -10, fp32 and int8), exported from maskrcnn-benchmark.

Preprocessing as in the zoo's README and maskrcnn-benchmark's `transforms.py`: shorter side 800, BGR 0 to 255 minus the
mean, sides padded with zeros to multiples of 32. The graph was traced with a picture of 1280x960 and clips boxes to it,
so the image has to fit. Its boxes count pixels inclusively (`TO_REMOVE = 1` in `bounding_box.py`): one that covers the
first ten columns is 0..9, where ours is 0..10.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stream_seg.coco import COCO_NAMES
from stream_seg.detections import Detections
from stream_seg.frame import Image
from stream_seg.segmenters.classes import classes_from
from stream_seg.segmenters.exports import ExportSegmenter, kinds, only_image
from stream_seg.segmenters.onnx_segmenter import Options, given_names
from stream_seg.segmenters.preprocess import Pixels, Size, fit, scaled, shortest_edge
from stream_seg.segmenters.session import Run, Session, Signature

UNDERSTOOD = "the ONNX Model Zoo's Mask R-CNN"

SHORT_SIDE = 800
TRACED = (1280, 960)
FAMILY = "maskrcnn-benchmark"

_NAMES = ["6568", "6570", "6572", "6887"]
_KINDS = [("float", 2), ("int", 1), ("float", 1), ("float", 4)]


def matches(signature: Signature) -> bool:
    """Whether a model is the zoo's: by its outputs, named as in the published files or with 28x28 masks."""
    if only_image(signature, 3) is None or kinds(signature) != _KINDS:
        return False
    family = signature.metadata.get("family")
    small = list(signature.outputs.values())[3].shape[1:] == (1, 28, 28)
    return family == FAMILY if family else small or list(signature.outputs) == _NAMES


class ZooSegmenter(ExportSegmenter):
    """One image at a time, 80 classes, small masks."""

    pixels = Pixels((102.9801, 115.9465, 122.7717), rgb=False, averaging=True)
    stride = 32

    def __init__(self, session: Session, options: Options) -> None:
        names = given_names(session, options) or COCO_NAMES
        self._long = options.long_side or max(TRACED)
        super().__init__(session, options, classes_from(1, names), min(self._long, max(TRACED)))

    def inner(self, size: Size) -> Size:
        width, height = scaled(size, shortest_edge(size, SHORT_SIDE, self._long))
        return (width, height) if width <= TRACED[0] and height <= TRACED[1] else fit(size, TRACED)

    def detect(self, run: Run, images: Sequence[Image], canvas: Size) -> list[Detections]:
        planes, placement = self.planes(images[0], canvas)
        outputs = run({self._input.name: planes})
        boxes, labels, scores, masks = outputs.values()
        if masks.ndim != 4 or not len(boxes) == len(labels) == len(scores) == len(masks):
            raise self.misfit(outputs)
        kept, ids = self.pick(scores, labels)
        inclusive = boxes[kept].astype(np.float32) + np.array((0, 0, 1, 1), np.float32)
        return [self.detections(placement, inclusive, scores[kept], ids, masks[kept, 0])]
