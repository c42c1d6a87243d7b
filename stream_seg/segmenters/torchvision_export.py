"""Adapter of torchvision's own ONNX export of its Mask R-CNN models.

`torch.onnx.export(model, images, ...)` writes a graph with one input (3, H, W) per image, RGB 0 to 1; it resizes (short
side 800, long side at most 1333), normalises and pads inside (`torchvision/models/detection/transform.py`). Per image
come boxes in input pixels, labels (COCO's 91 ids, 0 the background), scores, and masks already pasted, (N, 1, H, W).
Images larger than the graph would make them are shrunk here, the same way: pasting at full size costs more than the
network. In a graph with fixed sizes, images are fitted into the corner, with the mean colour around them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest

from stream_seg.detections import Detections
from stream_seg.frame import Image
from stream_seg.geometry import Placement
from stream_seg.segmenters import zoo
from stream_seg.segmenters.classes import classes_by_id
from stream_seg.segmenters.exports import ExportSegmenter, fixed_size, is_planes, kinds
from stream_seg.segmenters.full_masks import lift
from stream_seg.segmenters.onnx_segmenter import Options, given_names
from stream_seg.segmenters.preprocess import IMAGENET_MEAN, Pixels, Size, scaled, shortest_edge
from stream_seg.segmenters.session import Array, Run, Session, Signature

UNDERSTOOD = "torchvision's"

SHORT_SIDE, LONG_SIDE = 800, 1333
FAMILY = "torchvision"

_KINDS = [("float", 2), ("int", 1), ("float", 1), ("float", 4)]


def matches(signature: Signature) -> bool:
    """Whether a model is torchvision's: four outputs per input, and not the zoo's."""
    images = list(signature.inputs.values())
    single = all(len(image.shape) == 3 or image.shape[0] == 1 for image in images)
    family = signature.metadata.get("family", FAMILY)
    planes = all(is_planes(image, 3, 4) for image in images)
    fits = bool(images) and planes and single and kinds(signature) == _KINDS * len(images)
    return fits and family == FAMILY and not zoo.matches(signature)


class TorchvisionSegmenter(ExportSegmenter):
    """As many images at a time as the graph was exported with."""

    pixels = Pixels(deviation=(255.0, 255.0, 255.0), padding=IMAGENET_MEAN)

    def __init__(self, session: Session, options: Options) -> None:
        self._long = min(options.long_side or LONG_SIDE, LONG_SIDE)
        classes = classes_by_id(given_names(session, options))
        super().__init__(session, options, classes, self._long)

    def inner(self, size: Size) -> Size:
        return scaled(size, min(1.0, shortest_edge(size, SHORT_SIDE, self._long)))

    def detect(self, run: Run, images: Sequence[Image], canvas: Size) -> list[Detections]:
        feeds: dict[str, Array] = {}
        placements = []
        for tensor, image in zip_longest(self._inputs, images):
            planes, placement = self.planes(image, fixed_size(tensor) or canvas)
            feeds[tensor.name] = planes if len(tensor.shape) == 3 else planes[None]
            placements.append(placement)
        outputs = run(feeds)
        parts = list(outputs.values())
        return [self._found(parts[4 * i : 4 * i + 4], placements[i], outputs) for i in range(len(images))]

    def _found(self, parts: Sequence[Array], placement: Placement, outputs: Mapping[str, Array]) -> Detections:
        boxes, labels, scores, masks = parts
        if masks.ndim != 4 or not len(boxes) == len(labels) == len(scores) == len(masks):
            raise self.misfit(outputs)
        kept, ids = self.pick(scores, labels)
        visible = placement.visible(boxes[kept])
        return self.detections(placement, visible, scores[kept], ids, lift(masks[kept, 0], visible))
