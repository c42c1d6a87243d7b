"""Adapter of detectron2's Mask R-CNN, traced with `TracingAdapter` (tools/deploy/export_model.py, ONNX by tracing).

One image (3, H, W), BGR 0 to 255, resized as `ResizeShortestEdge` does by default (shorter side 800, longer at most
1333); normalising and padding happen inside. `detectron2/export/flatten.py` flattens `Instances` in the order of its
field names and appends the image size: pred_boxes, pred_classes (from 0), pred_masks (N, 1, 28, 28), scores, size.
Whoever traced with post-processing gets pred_masks (N, H, W), bools on the whole canvas. A graph with a fixed size gets
images fitted into its corner, with the mean colour around them.
"""

from __future__ import annotations

from collections.abc import Sequence

from stream_seg.coco import COCO_NAMES
from stream_seg.detections import Detections
from stream_seg.frame import Image
from stream_seg.segmenters.classes import classes_from
from stream_seg.segmenters.exports import ExportSegmenter, kinds, only_image
from stream_seg.segmenters.full_masks import lift
from stream_seg.segmenters.onnx_segmenter import Options, given_names
from stream_seg.segmenters.preprocess import IMAGENET_MEAN, Pixels, Size, scaled, shortest_edge
from stream_seg.segmenters.session import Run, Session, Signature

UNDERSTOOD = "detectron2's"

SHORT_SIDE, LONG_SIDE = 800, 1333

_MASKS = [("float", 4), ("float", 3), ("bool", 3)]


def matches(signature: Signature) -> bool:
    """Whether a model is detectron2's, by the order of its outputs: masks come before scores."""
    found = kinds(signature)
    ends = found[3:] in ([("float", 1)], [("float", 1), ("int", 1)])
    starts = found[:2] == [("float", 2), ("int", 1)] and len(found) > 3 and found[2] in _MASKS
    return only_image(signature, 3) is not None and starts and ends


class Detectron2Segmenter(ExportSegmenter):
    """One image at a time."""

    pixels = Pixels(rgb=False, padding=(IMAGENET_MEAN[2], IMAGENET_MEAN[1], IMAGENET_MEAN[0]), averaging=True)

    def __init__(self, session: Session, options: Options) -> None:
        self._long = min(options.long_side or LONG_SIDE, LONG_SIDE)
        classes = classes_from(0, given_names(session, options) or COCO_NAMES)
        super().__init__(session, options, classes, self._long)

    def inner(self, size: Size) -> Size:
        return scaled(size, shortest_edge(size, SHORT_SIDE, self._long))

    def detect(self, run: Run, images: Sequence[Image], canvas: Size) -> list[Detections]:
        planes, placement = self.planes(images[0], canvas)
        outputs = run({self._input.name: planes})
        boxes, classes, masks, scores = list(outputs.values())[:4]
        if not len(boxes) == len(classes) == len(scores) == len(masks):
            raise self.misfit(outputs)
        kept, ids = self.pick(scores, classes)
        if masks.ndim == 4:
            return [self.detections(placement, boxes[kept], scores[kept], ids, masks[kept, 0])]
        visible = placement.visible(boxes[kept])
        return [self.detections(placement, visible, scores[kept], ids, lift(masks[kept], visible))]
