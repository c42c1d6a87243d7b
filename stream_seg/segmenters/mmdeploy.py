"""Adapters of MMDeploy's instance segmentation: Mask R-CNN and its kin, and RTMDet-Ins; both are `end2end.onnx`.

Input (B, 3, H, W), normalised outside; outputs dets (B, N, 5) with the score last, labels (B, N) from 0, masks
(`mmdeploy/codebase/mmdet/deploy/object_detection_model.py`; rows with score 0 are filling). Images are scaled as
MMDetection's test pipelines do it and put into the top-left corner:

* Mask R-CNN (`configs/_base_/datasets/coco_instance.py`, `models/mask-rcnn_r50_fpn.py`): within 1333x800, RGB with
  ImageNet's mean and deviation, zeros to multiples of 32. Masks (B, N, 28, 28) in the box or, pasted, bools
  (B, N, H, W).
* RTMDet-Ins (`configs/rtmdet/rtmdet-ins_s_8xb32-300e_coco.py`): within 640x640, BGR, grey 114 around. Masks are
  probabilities on the whole canvas, (B, N, H, W).

The two look alike from outside but for that last difference. Metadata decides where it misleads: `family` ("mmdet" or
"rtmdet-ins"), `mean`, `deviation` (three numbers each, 0 to 255, in the order of the channels), `channels` ("rgb" or
"bgr": Caffe-style backbones).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from stream_seg.coco import COCO_NAMES
from stream_seg.detections import Detections
from stream_seg.errors import ModelError
from stream_seg.frame import Image
from stream_seg.geometry import Placement
from stream_seg.segmenters.classes import classes_from
from stream_seg.segmenters.exports import ExportSegmenter, kind, only_image
from stream_seg.segmenters.full_masks import lift
from stream_seg.segmenters.onnx_segmenter import Options, given_names
from stream_seg.segmenters.preprocess import (
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    Pixels,
    Size,
    Triple,
    scaled,
    shortest_edge,
)
from stream_seg.segmenters.session import Array, Run, Session, Signature

UNDERSTOOD = "MMDeploy's (also RTMDet-Ins)"

MMDET, RTMDET = "mmdet", "rtmdet-ins"

_OUTPUTS = ("dets", "labels", "masks")

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def matches(signature: Signature) -> bool:
    """Whether a model is MMDeploy's, by the names of its outputs; labels are integers."""
    if only_image(signature, 4) is None or not set(_OUTPUTS) <= set(signature.outputs):
        return False
    dets, labels, masks = (kind(signature.outputs[name]) for name in _OUTPUTS)
    return dets == ("float", 3) and labels == ("int", 2) and masks[1] in (4, 5)


def family(signature: Signature) -> str:
    """MMDET or RTMDET: what the metadata says, or else by the masks; probabilities on the whole canvas are RTMDet's.

    Raise `ModelError` for metadata that say another one.
    """
    masks = signature.outputs["masks"]
    small = masks.shape[-1] in (14, 28, 56)
    likely = RTMDET if masks.type != "bool" and not small else MMDET
    return _one_of(signature.metadata, "family", (MMDET, RTMDET), likely)


class MmdeploySegmenter(ExportSegmenter):
    """A true batch, if it was exported with a free one."""

    stride = 32

    def __init__(self, session: Session, options: Options) -> None:
        signature = session.signature
        rtmdet = family(signature) == RTMDET
        self.pixels = _pixels(signature, rtmdet)
        self._short, long = (640, 640) if rtmdet else (800, 1333)
        self._long = min(options.long_side or long, long)
        classes = classes_from(0, given_names(session, options) or COCO_NAMES)
        super().__init__(session, options, classes, self._long)

    def inner(self, size: Size) -> Size:
        return scaled(size, shortest_edge(size, self._short, self._long))

    def detect(self, run: Run, images: Sequence[Image], canvas: Size) -> list[Detections]:
        planes, placements = self.batch(images, canvas)
        outputs = run({self._input.name: planes})
        dets, labels, masks = (outputs[name] for name in _OUTPUTS)
        if not dets.shape[:2] == labels.shape[:2] == masks.shape[:2] or dets.shape[2] != 5:
            raise self.misfit(outputs)
        return [self._found(dets[i], labels[i], masks[i], placement, canvas) for i, placement in enumerate(placements)]

    def _found(self, dets: Array, labels: Array, masks: Array, placement: Placement, canvas: Size) -> Detections:
        scores, boxes = dets[:, 4], dets[:, :4]
        kept, ids = self.pick(scores, labels)
        boxes = boxes[kept]
        mine = masks[kept].reshape(len(kept), *masks.shape[-2:])
        if mine.shape[1:] == (canvas[1], canvas[0]):
            boxes = placement.visible(boxes)
            mine = lift(mine, boxes)
        return self.detections(placement, boxes, scores[kept], ids, mine)


def _pixels(signature: Signature, rtmdet: bool) -> Pixels:
    metadata = signature.metadata
    rgb = _one_of(metadata, "channels", ("rgb", "bgr"), "bgr" if rtmdet else "rgb") == "rgb"
    mean = _triple(metadata, "mean", IMAGENET_MEAN if rgb else _reversed(IMAGENET_MEAN))
    deviation = _triple(metadata, "deviation", IMAGENET_DEVIATION if rgb else _reversed(IMAGENET_DEVIATION))
    if min(deviation) <= 0:
        raise ModelError(f"the model's metadata deviation must be above 0, not {metadata['deviation']!r}")
    return Pixels(mean, deviation, rgb, padding=(114.0, 114.0, 114.0) if rtmdet else None)


def _reversed(values: Triple) -> Triple:
    return values[2], values[1], values[0]


def _one_of(metadata: Mapping[str, str], key: str, words: Sequence[str], default: str) -> str:
    word = metadata.get(key, "").strip().lower() or default
    if word not in words:
        raise ModelError(f"the model's metadata {key} must be {' or '.join(words)}, not {metadata[key]!r}")
    return word


def _triple(metadata: Mapping[str, str], key: str, default: Triple) -> Triple:
    if key not in metadata:
        return default
    numbers = [float(number) for number in re.findall(_NUMBER, metadata[key])]
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise ModelError(f"the model's metadata {key} must be three numbers, not {metadata[key]!r}")
    return numbers[0], numbers[1], numbers[2]
