"""Adapter of stream-seg's own graphs: frames in as bytes, a real batch, flat detections out with small masks."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from stream_seg.detections import Detections
from stream_seg.errors import ModelError, UsageError
from stream_seg.frame import Image
from stream_seg.geometry import Boxes, Letterbox, Placement, is_mirrored
from stream_seg.segmenters.base import ModelSegmenter
from stream_seg.segmenters.classes import Classes, classes_at, classes_from, is_name
from stream_seg.segmenters.exports import fixed_size
from stream_seg.segmenters.full_masks import crop
from stream_seg.segmenters.looks import TwoLooks
from stream_seg.segmenters.onnx_segmenter import (
    DEFAULT_THRESHOLD,
    PIXELS,
    OnnxSegmenter,
    Options,
    class_names,
    given_names,
    shapes_of,
    warn_of_fixed_size,
)
from stream_seg.segmenters.preprocess import Size
from stream_seg.segmenters.session import Array, Run, Session, Signature

logger = logging.getLogger(__name__)

UNDERSTOOD = "stream-seg's own graphs"

LONG_SIDE = 416
STRIDE = 32

_SHIFT = 24
"""Pixels, less than a `STRIDE`, after which the grid of the network lies on an image as before. Further down in its
canvas a network finds less."""

_BLACK, _MEAN = (0, 0, 0), (124, 116, 104)
"""Around images: a graph takes what lies beyond their sizes for nothing, as it does ImageNet's mean colour."""

_OUTPUTS = ("image_index", "boxes", "labels", "scores", "masks")


LARGE = 1.5
"""From so many times an `overview` on, an image is looked at in that size, too: below, a second look finds no more."""


def matches(signature: Signature) -> bool:
    """Whether a model is one of ours, by its inputs and outputs."""
    images, sizes = signature.inputs.get("images"), signature.inputs.get("sizes")
    return (
        images is not None
        and sizes is not None
        and images.type == "uint8"
        and len(images.shape) == 4
        and images.shape[3] == 3
        and len(sizes.shape) == 2
        and set(signature.inputs) <= {"images", "sizes", "score_threshold"}
        and set(_OUTPUTS) <= set(signature.outputs)
    )


def open_batched(session: Session, options: Options) -> ModelSegmenter:
    """The segmenter of a model that `matches`.

    Metadata may name an `overview`: the long side, in pixels, of a second look that images get which the model is to
    see much larger; and `still_size`, that of images of their own.
    """
    is_fixed = fixed_size(session.signature.inputs["images"]) is not None
    if options.stills and options.long_side is None and not is_fixed:
        options = replace(options, long_side=_number(session.signature, "still_size", 0) or None)
    if session.device != "cpu" and session.signature.metadata.get("device") == "cpu":
        logger.warning("%s is made for a CPU, and slow on CUDA: export it with --device cuda", session.path.name)
    close = BatchedSegmenter(session, options)
    overview = _number(session.signature, "overview", 0)
    if not overview or close.long_side < LARGE * overview or is_fixed:
        return close
    return TwoLooks(close, BatchedSegmenter(session, replace(options, long_side=overview)))


class BatchedSegmenter(OnnxSegmenter):
    """Letterboxes images into canvases of a few fixed shapes and gives the graph their valid sizes.

    What is mirrored, for another look, is shifted in its canvas, as far as there is room: the grid of the network then
    lies otherwise on it from top to bottom, too, which costs nothing where canvas and image have not quite one shape.

    Metadata it reads: `labels`; `canvases` ("416x256,256x416", width x height) or else `long_side` and `stride`.
    """

    def __init__(self, session: Session, options: Options) -> None:
        batch = session.signature.inputs["images"].shape[0]
        if isinstance(batch, int) and batch != 1:
            raise ModelError(
                f"the model {session.path} takes exactly {batch} images at once: export it with a free batch"
            )
        limit = 1 if batch == 1 else session.batches[-1]
        self._feeds, floor = _threshold(session.signature, options)
        super().__init__(session, _classes(session, options), _canvases(session, options), limit, floor)

    def detect(self, run: Run, images: Sequence[Image], canvas: Size) -> list[Detections]:
        boxes = [
            Letterbox((image.shape[1], image.shape[0]), canvas, _SHIFT if is_mirrored(image) else 0) for image in images
        ]
        rows = self.rows(len(images))
        pixels, sizes = self.buffer((rows, canvas[1], canvas[0], 3)), np.zeros((rows, 2), np.float32)
        for box, image, out, size in zip(boxes, images, pixels, sizes, strict=False):
            box.apply(image, out, _MEAN if box.shift else _BLACK)
            size[:] = np.add(box.valid, box.placement.corner)[::-1]
        flat = run({"images": pixels, "sizes": sizes, **self._feeds})
        self._check(flat, len(images))
        return [self._unpack(flat, i, box.placement) for i, box in enumerate(boxes)]

    def _unpack(self, flat: Mapping[str, Array], index: int, placement: Placement) -> Detections:
        mine = np.flatnonzero(flat["image_index"] == index)
        kept, ids = self.pick(flat["scores"][mine], flat["labels"][mine])
        mine = mine[kept]
        boxes, masks = (flat[name][mine].astype(np.float32, copy=False) for name in ("boxes", "masks"))
        scores = flat["scores"][mine].astype(np.float32, copy=False)
        found = Detections(placement.to_image(boxes), scores, ids, masks, self.class_names)
        return found if placement.corner == (0, 0) else _cut_off(found, boxes, placement)

    def _check(self, flat: Mapping[str, Array], images: int) -> None:
        """Raise `ModelError` where the outputs do not fit together or point at nothing."""
        masks = flat["masks"].shape
        count = masks[0] if len(masks) == 3 else -1
        shapes = {"image_index": (count,), "boxes": (count, 4), "labels": (count,), "scores": (count,)}
        if any(flat[name].shape != shape for name, shape in shapes.items()):
            raise self.misfit(flat)
        if not _within(flat["image_index"], 0, images - 1):
            raise ModelError(f"{self.model_name} returned detections for more images than the {images} it was given")
        if not _within(flat["labels"], 1, len(self._classes.slots) - 1):
            raise ModelError(
                f"{self.model_name} returned a class beyond the {len(self.class_names)} it has names for: "
                "give all of them with --labels FILE"
            )


def _classes(session: Session, options: Options) -> Classes:
    """The user may name every number of the network, or those alone that the model has a name for (80 of COCO's 90).

    Raise `UsageError` where that are more or fewer: all would have wrong names.
    """
    names, own = class_names(session, options), given_names(session, replace(options, labels=None))
    if not own or len(names) == len(own):
        return classes_from(1, names)
    named = [number for number, name in enumerate(own, 1) if is_name(name)]
    if len(names) != len(named):
        raise UsageError(
            f"{len(names)} labels were given, but {session.path} has {len(named)} classes: name all of them"
        )
    return classes_at(named, names)


def _cut_off(found: Detections, boxes: Boxes, placement: Placement) -> Detections:
    """What is `found`, whose `boxes` in the canvas may begin before the image does, where its network knows no end."""
    cut = replace(found, masks=crop(found.masks, boxes, placement.to_canvas(found.boxes)))
    return cut[np.flatnonzero((found.boxes[:, 2:] > found.boxes[:, :2]).all(axis=1))]


def _within(values: Array, low: int, high: int) -> bool:
    return not values.size or bool(low <= values.min() and values.max() <= high)


def _canvases(session: Session, options: Options) -> Sequence[Size]:
    signature = session.signature
    fixed = fixed_size(signature.inputs["images"])
    if fixed:
        warn_of_fixed_size(session, options, fixed)
        return [fixed]
    given = re.findall(rf"(?<![0-9]){PIXELS}x{PIXELS}(?![0-9])", signature.metadata.get("canvases", ""))
    if given and options.long_side is None:
        return [(int(w), int(h)) for w, h in given]
    long_side = options.long_side or _number(signature, "long_side", LONG_SIDE)
    return shapes_of(long_side, _number(signature, "stride", STRIDE))


def _number(signature: Signature, key: str, default: int) -> int:
    text = signature.metadata.get(key, "")
    return int(text) if re.fullmatch(PIXELS, text) else default


def _threshold(signature: Signature, options: Options) -> tuple[dict[str, Array], float]:
    """The input that carries the score threshold, and the score above which detections are kept afterwards.

    A graph that has the input computes masks for what is kept alone; its own default holds unless the user says.
    """
    wanted = options.score_threshold
    if "score_threshold" in signature.inputs or (wanted is not None and "score_threshold" in signature.optional):
        return {"score_threshold": np.array(DEFAULT_THRESHOLD if wanted is None else wanted, np.float32)}, -np.inf
    return {}, -np.inf if wanted is None else wanted
