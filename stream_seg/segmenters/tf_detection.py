"""Adapter of the TensorFlow Object Detection API's Mask R-CNN models, converted with tf2onnx.

Input (B, H, W, 3) uint8, RGB; the graph resizes it (`keep_aspect_ratio_resizer`, mostly to 800 to 1365 pixels), so
frames go in as they are, smaller with a long side asked for. Outputs (`object_detection/exporter.py`): detection_boxes
(B, K, 4) y1, x1, y2, x2 as parts of the image; detection_classes (B, K), COCO's ids from 1, floats; detection_scores;
num_detections (B); detection_masks (B, K, S, S), probabilities in the box. Names may end in ":0", others may be there.
A batch is images of one size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from stream_seg.detections import Detections
from stream_seg.frame import Image
from stream_seg.geometry import Letterbox, Placement
from stream_seg.segmenters.classes import classes_by_id
from stream_seg.segmenters.exports import ExportSegmenter
from stream_seg.segmenters.onnx_segmenter import Options, given_names
from stream_seg.segmenters.preprocess import Size, scaled
from stream_seg.segmenters.session import Array, Run, Session, Signature, Tensor

UNDERSTOOD = "the TensorFlow Object Detection API's"

LONG_SIDE = 1365
"""What most of these graphs shrink images to; only said to people."""

_OUTPUTS = ("detection_boxes", "detection_classes", "detection_scores", "num_detections", "detection_masks")


def matches(signature: Signature) -> bool:
    """Whether a model is of this family, by the names of its outputs."""
    images = list(signature.inputs.values())
    return len(images) == 1 and _is_picture(images[0]) and set(_OUTPUTS) <= {_plain(name) for name in signature.outputs}


class TfDetectionSegmenter(ExportSegmenter):
    """A true batch, if the graph takes one."""

    def __init__(self, session: Session, options: Options) -> None:
        self._long = options.long_side
        classes = classes_by_id(given_names(session, options))
        super().__init__(session, options, classes, self._long or LONG_SIDE)

    def inner(self, size: Size) -> Size:
        return scaled(size, min(1.0, self._long / max(size))) if self._long else size

    def detect(self, run: Run, images: Sequence[Image], canvas: Size) -> list[Detections]:
        boxes = [Letterbox((image.shape[1], image.shape[0]), canvas) for image in images]
        pixels = self.buffer((self.rows(len(images)), canvas[1], canvas[0], 3))
        for box, image, out in zip(boxes, images, pixels, strict=False):
            box.apply(image, out)
        pixels[len(images) :] = 0
        outputs = {_plain(name): value for name, value in run({self._input.name: pixels}).items()}
        if len({outputs[name].shape[0] for name in _OUTPUTS} | {len(pixels)}) != 1:
            raise self.misfit(outputs)
        return [self._found(outputs, i, box.placement, canvas) for i, box in enumerate(boxes)]

    def _found(self, outputs: Mapping[str, Array], index: int, placement: Placement, canvas: Size) -> Detections:
        count = int(outputs["num_detections"][index])
        boxes, classes, scores, masks = (
            outputs[name][index, :count]
            for name in ("detection_boxes", "detection_classes", "detection_scores", "detection_masks")
        )
        kept, ids = self.pick(scores, classes)
        corners = boxes[kept][:, [1, 0, 3, 2]] * np.array([*canvas] * 2, np.float32)
        return self.detections(placement, corners, scores[kept], ids, masks[kept])


def _plain(name: str) -> str:
    """The name without TensorFlow's output index: detection_boxes:0 is detection_boxes."""
    return re.sub(r":\d+$", "", name)


def _is_picture(tensor: Tensor) -> bool:
    return (
        tensor.type == "uint8"
        and len(tensor.shape) == 4
        and (tensor.shape[3] == 3 or not isinstance(tensor.shape[3], int))
    )
