"""What the adapters of other projects' exports share: fixed or free sizes, tensors of planes, picking detections."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream_seg.detections import Detections
from stream_seg.frame import Image
from stream_seg.geometry import Boxes, Placement
from stream_seg.segmenters.classes import Classes
from stream_seg.segmenters.full_masks import crop
from stream_seg.segmenters.onnx_segmenter import DEFAULT_THRESHOLD, OnnxSegmenter, Options, warn_of_fixed_size
from stream_seg.segmenters.preprocess import Pixels, Planes, Size, fit, round_up
from stream_seg.segmenters.session import Array, Session, Signature, Tensor

FLOATS = {"float": np.float32, "float16": np.float16}
"""ONNX Runtime's names of the types a network may take."""

Kind = tuple[str, int]
"""Type and number of dimensions of a tensor; floats of all widths are "float", integers "int"."""


class ExportSegmenter(OnnxSegmenter):
    """Shows each image to a network as planes of floats and keeps what scores above the threshold.

    A graph with a fixed height and width has images fitted into it; else `inner` says how large each is shown, and
    canvases are rounded up to multiples of `stride`. The graph's inputs are images, one each, or a single one with or
    without a batch axis; where that is free, `most` bounds how many images go in at once. `longest` is the side, in
    pixels, of the largest canvas.
    """

    pixels = Pixels()
    stride = 1

    def __init__(
        self, session: Session, options: Options, classes: Classes, longest: int, most: int | None = None
    ) -> None:
        self._inputs = list(session.signature.inputs.values())
        self._input = self._inputs[0]
        self._fixed = fixed_size(self._input)
        if self._fixed:
            warn_of_fixed_size(session, options, self._fixed)
        self._rows = _rows(self._input, len(self._inputs))
        limit = self._rows or most or session.batches[-1]
        floor = DEFAULT_THRESHOLD if options.score_threshold is None else options.score_threshold
        super().__init__(session, classes, [self._fixed or (longest, longest)], limit, floor)

    @abstractmethod
    def inner(self, size: Size) -> Size:
        """How large an image of `size` is shown where the network takes any size."""

    def canvas_for(self, size: Size) -> Size:
        return self._fixed or round_up(self.inner(size), self.stride)

    def rows(self, images: int) -> int:
        return self._rows or super().rows(images)

    def place(self, size: Size, canvas: Size) -> Placement:
        """Where an image of `size` goes in `canvas`: the top-left corner, unless a family does otherwise."""
        return Placement(size, fit(size, canvas) if self._fixed else self.inner(size))

    def batch(self, images: Sequence[Image], canvas: Size) -> tuple[Planes, list[Placement]]:
        """The planes (B, 3, H, W) of the images and where each is; what a batch has too many of is zero."""
        out = np.empty((self.rows(len(images)), 3, canvas[1], canvas[0]), FLOATS[self._input.type])
        out[len(images) :] = 0
        return out, [self._write(image, canvas, planes) for image, planes in zip(images, out, strict=False)]

    def planes(self, image: Image | None, canvas: Size) -> tuple[Planes, Placement]:
        """The planes (3, H, W) of one image and where it is; zeros for none."""
        out = np.zeros((3, canvas[1], canvas[0]), FLOATS[self._input.type])
        return out, Placement(canvas, canvas) if image is None else self._write(image, canvas, out)

    def _write(self, image: Image, canvas: Size, out: Planes) -> Placement:
        placement = self.place((image.shape[1], image.shape[0]), canvas)
        self.pixels.write(image, placement, out)
        return placement

    def detections(
        self, placement: Placement, boxes: Array, scores: Array, ids: NDArray[np.int64], masks: Array
    ) -> Detections:
        """Detections of one image from boxes (N, 4) in canvas pixels and masks (N, S, T) stretched over them.

        Networks do not know where the image ends in the canvas: boxes are cut off there, and their masks with them.
        """
        whole = boxes.astype(np.float32)
        inside = placement.to_image(whole)
        cropped = crop(masks.astype(np.float32, copy=False), whole, placement.to_canvas(inside))
        return Detections(inside, scores.astype(np.float32), ids, cropped, self.class_names)


def kind(tensor: Tensor) -> Kind:
    """What a tensor is, as far as recognising models goes."""
    if tensor.type.startswith(("float", "double")):
        return "float", len(tensor.shape)
    return "int" if "int" in tensor.type else tensor.type, len(tensor.shape)


def kinds(signature: Signature) -> list[Kind]:
    """The kinds of all outputs, in order."""
    return [kind(tensor) for tensor in signature.outputs.values()]


def only_image(signature: Signature, *ranks: int) -> Tensor | None:
    """The model's only input, if it is planes of floats with one of `ranks` dimensions."""
    images = list(signature.inputs.values())
    return images[0] if len(images) == 1 and is_planes(images[0], *ranks) else None


def is_planes(tensor: Tensor, *ranks: int) -> bool:
    """Whether a tensor is (3, H, W) or (B, 3, H, W) floats, dimensions known or not."""
    rank = len(tensor.shape)
    return tensor.type in FLOATS and rank in ranks and (tensor.shape[-3] == 3 or not isinstance(tensor.shape[-3], int))


def fixed_size(tensor: Tensor) -> Size | None:
    """(width, height) of (..., H, W) or (B, H, W, 3), None where they are free."""
    height, width = tensor.shape[1:3] if tensor.shape[-1] == 3 else tensor.shape[-2:]
    return (width, height) if isinstance(height, int) and isinstance(width, int) else None


def corners(boxes: Array) -> Boxes:
    """Boxes (N, 4) xyxy from centre and size."""
    centre, half = boxes[:, :2].astype(np.float32), boxes[:, 2:].astype(np.float32) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _rows(tensor: Tensor, inputs: int) -> int:
    """How many images a run takes: exactly so many, or 0 for any number."""
    if len(tensor.shape) == 3:
        return inputs
    batch = tensor.shape[0]
    return batch if isinstance(batch, int) else 0
