"""Owns every change of coordinates: images and boxes to model space and back, small masks to frame pixels.

All coordinates are continuous: pixel j covers j..j+1 and its centre is j + 0.5. Sizes are (width, height).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.detections import Detections
from stream_seg.frame import Image

Bitmask = NDArray[np.uint8]
"""(height, width) uint8: 1 where the object is, 0 elsewhere, as OpenCV's `mask` arguments want it."""

Boxes = NDArray[np.float32]

Point = tuple[float, float]
"""x, y in pixels."""

# Samples per mask cell and axis, at most; from there on enlarging adds no visible error. Odd, so that the centres of
# the cells, where the interpolated surface has its kinks, are among the samples.
_SAMPLES = 3
_BILINEAR = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an image of `size` lies in a canvas: scaled to `inner`, its top-left corner at `corner` (x, y).

    All are whole pixels; width and height are scaled on their own.
    """

    size: tuple[int, int]
    inner: tuple[int, int]
    corner: tuple[int, int] = (0, 0)

    def to_image(self, boxes: Boxes) -> Boxes:
        """Boxes (N, 4) from canvas pixels to image pixels, clipped to the image."""
        moved = (boxes.astype(np.float64) - (*self.corner, *self.corner)) / self._factors
        return np.clip(moved, 0.0, (*self.size, *self.size)).astype(np.float32)

    def to_canvas(self, boxes: Boxes) -> Boxes:
        """Boxes (N, 4) from image pixels to canvas pixels: the inverse of `to_image`."""
        return (boxes.astype(np.float64) * self._factors + (*self.corner, *self.corner)).astype(np.float32)

    def visible(self, boxes: NDArray[np.generic]) -> Boxes:
        """Boxes (N, 4) in canvas pixels, floats of any width, cut off where the image ends."""
        return self.to_canvas(self.to_image(boxes.astype(np.float32)))

    @property
    def _factors(self) -> NDArray[np.float64]:
        """Canvas pixels per image pixel of each box coordinate."""
        x, y = self.inner[0] / self.size[0], self.inner[1] / self.size[1]
        return np.array((x, y, x, y))


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How an image of `size` sits, scaled, in the top-left corner of a `canvas`, or up to `shift` pixels right of and
    below it, as far as there is room.

    Sizes are (width, height) in pixels, at least 1. The scale is the largest at which the whole image fits.
    """

    size: tuple[int, int]
    canvas: tuple[int, int]
    shift: int = 0

    def __post_init__(self) -> None:
        if min(*self.size, *self.canvas) < 1:
            raise ValueError(f"sizes must be at least 1x1, got an image of {self.size} and a canvas of {self.canvas}")

    @property
    def placement(self) -> Placement:
        """Where the image is in the canvas, for boxes."""
        width, height = self.valid
        corner = min(self.shift, self.canvas[0] - width), min(self.shift, self.canvas[1] - height)
        return Placement(self.size, self.valid, corner)

    @property
    def valid(self) -> tuple[int, int]:
        """(width, height) of the scaled image inside the canvas: rounded, at least 1, aspect ratio kept."""
        scale = _scale(self.size, self.canvas)
        return max(1, round(self.size[0] * scale)), max(1, round(self.size[1] * scale))

    def apply(self, image: Image, out: NDArray[np.uint8], around: tuple[int, int, int] = (0, 0, 0)) -> None:
        """Scale a BGR `image` of `size` into its place in `out`, (canvas height, canvas width, 3), as RGB.

        The rest of `out` gets the colour `around`, RGB.
        """
        (left, top), (width, height) = self.placement.corner, self.valid
        if image.shape[1::-1] != self.size or out.shape != (self.canvas[1], self.canvas[0], 3):
            raise ValueError(
                f"expected an image of {self.size} and a canvas of {self.canvas}, got arrays {image.shape}, {out.shape}"
            )
        right, bottom = left + width, top + height
        cv2.cvtColor(resize_quickly(image, (width, height)), cv2.COLOR_BGR2RGB, dst=out[top:bottom, left:right])
        bar = np.full((self.canvas[0], 3), around, np.uint8)  # a row at once: NumPy copies colours one by one
        out[:top] = out[bottom:] = bar
        out[top:bottom, :left], out[top:bottom, right:] = bar[:left], bar[right:]


def choose_canvas(size: tuple[int, int], canvases: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the canvas that shows an image of `size` largest; among equals the one that wastes least."""
    return max(canvases, key=lambda canvas: (_scale(size, canvas), -canvas[0] * canvas[1]))


def mirrored(image: Image) -> Image:
    """A view of `image`, left to right."""
    return image[:, ::-1]


def is_mirrored(image: Image) -> bool:
    """Whether it is a view as of `mirrored`, rather than one that was turned some other way."""
    down, across, colour = image.strides
    return down > 0 and across == -3 * colour < 0


def mirrored_back(found: Detections, width: int) -> Detections:
    """What was found in the mirror image of an image of this `width`, where it is in the image."""
    x1, y1, x2, y2 = found.boxes.T
    boxes = np.stack([width - x2, y1, width - x1, y2], 1)
    return replace(found, boxes=boxes, masks=np.ascontiguousarray(found.masks[:, :, ::-1]))


def resize(image: Image, size: tuple[int, int], *, averaging: bool = True) -> Image:
    """A copy of `image` that is `size` (width, height), interpolated bilinearly.

    With `averaging` shrinking takes all pixels into account, as Pillow does; without it only the four nearest of each
    point, as OpenCV's INTER_LINEAR and PyTorch do.
    """
    if is_mirrored(image):
        return _turned(resize(mirrored(image), size, averaging=averaging))
    if averaging:  # halving first is close to INTER_AREA from the start, at a third of its cost
        image = _halved(image, size)
    shrinks = image.shape[1] > size[0] or image.shape[0] > size[1]
    last = cv2.INTER_AREA if averaging and shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=last), np.uint8)


def resize_quickly(image: Image, size: tuple[int, int]) -> Image:
    """As `resize`, but interpolated from at most twice the size, as in training.

    Averaging areas takes thrice as long, and gains nothing for a network or for the eye.
    """
    if is_mirrored(image):
        return _turned(resize_quickly(mirrored(image), size))
    return np.asarray(cv2.resize(_halved(image, size), size, interpolation=cv2.INTER_LINEAR), np.uint8)


def between_bars(image: Image, size: tuple[int, int]) -> Image:
    """The image in the middle of a black one of `size` (width, height); itself if it has that size."""
    across, down = size[0] - image.shape[1], size[1] - image.shape[0]
    if not (across or down):
        return image
    left, top = across // 2, down // 2
    wider = cv2.copyMakeBorder(image, top, down - top, left, across - left, cv2.BORDER_CONSTANT)
    return np.asarray(wider, np.uint8)


def sample_box(pixels: NDArray[np.float32], box: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Values of `pixels` (H, W), interpolated bilinearly, at the cell centres of a grid of `size` stretched over `box`.

    `box` (4,) is x1, y1, x2, y2 in `pixels`, finite; beyond their edges the outermost pixels go on.
    """
    step_x, step_y = (float(box[2]) - float(box[0])) / size[0], (float(box[3]) - float(box[1])) / size[1]
    first = float(box[0]) + step_x / 2 - 0.5, float(box[1]) + step_y / 2 - 0.5
    affine = np.array([[step_x, 0.0, first[0]], [0.0, step_y, first[1]]])
    sampled = cv2.warpAffine(pixels, affine, size, flags=_BILINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(sampled, np.float32)


def mask_roi(
    box: NDArray[np.float32], mask: NDArray[np.float32], size: tuple[int, int]
) -> tuple[slice, slice, Bitmask]:
    """Enlarge one small mask to the pixels of its box.

    `box` (4,) is x1, y1, x2, y2 in frame pixels, `mask` (S, T) probabilities on a grid stretched over it, `size` that
    of the frame. Returns rows, columns and the bitmask of exactly that region, clipped to the frame; empty for a box
    without area, outside the frame or not finite. A pixel is set where the probability, interpolated bilinearly at its
    centre with zeros around the grid, exceeds 0.5. That is torchvision's `paste_masks_in_image` without its rounding of
    the box to whole pixels, and no pixel whose centre lies outside the box can be set. Raises `ValueError`, as
    `paste` and `outlines` do, for the shape of an image as `size`.
    """
    _refuse_shape(size)
    left, top, right, bottom = box.tolist()
    columns, rows = _span(left, right, size[0]), _span(top, bottom, size[1])
    width, height = columns.stop - columns.start, rows.stop - rows.start
    if not (width and height):
        return slice(0, 0), slice(0, 0), np.zeros((0, 0), np.uint8)
    cells = min(width, _SAMPLES * mask.shape[1]), min(height, _SAMPLES * mask.shape[0])
    step_x, first_x = _sampling(left, right, columns, cells[0], mask.shape[1])
    step_y, first_y = _sampling(top, bottom, rows, cells[1], mask.shape[0])
    affine = np.array([[step_x, 0.0, first_x], [0.0, step_y, first_y]])
    sampled = cv2.warpAffine(mask, affine, cells, flags=_BILINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    if cells != (width, height):
        sampled = cv2.resize(sampled, (width, height), interpolation=cv2.INTER_LINEAR)
    return rows, columns, (sampled > 0.5).view(np.uint8)


def paste(detections: Detections, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The bitmask of every detection on a whole frame of `size`: (N, height, width) bool. 2 MB per object at 1080p."""
    _refuse_shape(size)
    pasted = np.zeros((len(detections), size[1], size[0]), np.bool_)
    for whole, box, mask in zip(pasted, detections.boxes, detections.masks, strict=True):
        rows, columns, bitmask = mask_roi(box, mask, size)
        whole[rows, columns] = bitmask
    return pasted


def outlines(detections: Detections, size: tuple[int, int]) -> list[list[NDArray[np.int32]]]:
    """The edges of each detection on a frame of `size`: polygons (K, 2), x and y of pixels, of its parts and holes.

    Filled together, as `cv2.fillPoly` does, they cover what `paste` does, but for what lies between an edge and the
    straight lines that follow it: within a pixel of it, and within a 128th of the box's shorter side.
    """
    _refuse_shape(size)
    return [
        _polygons(*mask_roi(box, mask, size), float(min(box[2] - box[0], box[3] - box[1])))
        for box, mask in zip(detections.boxes, detections.masks, strict=True)
    ]


def _refuse_shape(size: tuple[int, ...]) -> None:
    """Refuse (height, width, 3), with which height would be taken for width."""
    if len(size) != 2:
        raise ValueError(f"size is (width, height), of an image (image.shape[1], image.shape[0]), got {size}")


def coco_polygons(rows: slice, columns: slice, bitmask: Bitmask, side: float) -> list[NDArray[np.int32]]:
    """The parts of a bitmask as polygons (K, 2), x and y, along the edges of pixels, as COCO and pycocotools have them.

    `bitmask` lies at `rows` and `columns` of a frame, as `mask_roi` returns it, in a box of a shorter `side`. Each part
    is one polygon; its holes are joined to it by cuts of no width, since such polygons know no holes. They cover what
    `outlines` do, and as closely.
    """
    if not bitmask.any():
        return []
    doubled = cv2.resize(bitmask, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    contours, relations = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    corner = np.array([columns.start, rows.start], np.int32)
    # Contours run through the outermost pixels. Of the two that each has become, the first, which is even, is at its
    # left or upper edge, the second at the other: half of it, rounded up, is where that edge was.
    edges = [_straight((np.asarray(contour, np.int32) + 1) // 2, side, least=3) + corner for contour in contours]
    outer = {i: edge for i, edge in enumerate(edges) if relations[0, i, 3] < 0}
    for i, edge in enumerate(edges):
        if i not in outer:
            part = int(relations[0, i, 3])
            outer[part] = _joined(outer[part], edge)
    return list(outer.values())


def feet(detections: Detections, size: tuple[int, int]) -> list[Point]:
    """Where each detection stands in a frame of `size`: x, y of the middle of the lower edge of its box.

    What leaves the frame at its lower edge stands in the lowest row of pixels. Boxes that are not finite have no place.
    """
    lowest = size[1] - 1
    return [((x1 + x2) / 2, min(y2, lowest) if y2 < math.inf else y2) for x1, _, x2, y2 in detections.boxes.tolist()]


def part_within(start: Point, end: Point, size: tuple[int, int]) -> tuple[Point, Point] | None:
    """The ends of the part of a line that lies in a picture of `size` (width, height), None where there is none."""
    first, last = 0.0, 1.0
    for a, b, limit in zip(start, end, size, strict=True):
        if a == b:
            first, last = (first, last) if 0 <= a <= limit else (1.0, 0.0)
        else:
            edges = sorted((-a / (b - a), (limit - a) / (b - a)))
            first, last = max(first, edges[0]), min(last, edges[1])
    if first > last:
        return None
    x, y = end[0] - start[0], end[1] - start[1]
    return (start[0] + first * x, start[1] + first * y), (start[0] + last * x, start[1] + last * y)


def edges_within(corners: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.int32]:
    """The edges of a polygon with `corners` (K, 2), as far as they lie in a picture of `size` (width, height).

    Returns (M, 2, 2), x and y of both ends of each in whole pixels; edges on the right or lower border are in the last
    pixels. None belong to a polygon that begins there. Instead of its corners, it may have edges, (N, 2, 2).
    """
    if (corners.reshape(-1, 2) >= size).all(0).any():
        return np.zeros((0, 2, 2), np.int32)
    ends = corners.tolist()
    edges = ends if corners.ndim == 3 else zip(ends, [*ends[1:], ends[0]], strict=True)
    parts = (part_within(start, end, size) for start, end in edges)
    seen = np.array([part for part in parts if part is not None]).reshape(-1, 2, 2)
    return np.asarray(np.minimum(np.rint(seen), np.subtract(size, 1)), np.int32)


def pairwise_iou(a: Boxes, b: Boxes) -> NDArray[np.float32]:
    """Intersection over union of boxes (N, 4) with boxes (M, 4): (N, M), 0 where either has no area."""
    # Side by side: NumPy takes several times as long for a product over an axis of two.
    width, height = (
        np.maximum(np.minimum(a[:, None, end], b[:, end]) - np.maximum(a[:, None, begin], b[:, begin]), 0)
        for begin, end in ((0, 2), (1, 3))
    )
    shared = width * height
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1] - shared
    return np.where(shared > 0, shared / np.maximum(union, 1e-9), 0).astype(np.float32)


def continued(found: Detections, before: Detections, least: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Which detection of the frame before each one continues, (N,), -1 for none; and their overlaps, (N,), else 0.

    It is the one of the same class with the greatest intersection over union, above `least`. Each is continued by one
    at most: the first one chooses first.
    """
    which, overlaps = np.full(len(found), -1, np.int64), np.zeros(len(found), np.float32)
    if not (len(found) and len(before)):
        return which, overlaps
    overlap = overlaps_of_class(found, before)
    for i in range(len(found)):
        best = int(overlap[i].argmax())
        if overlap[i, best] > least:
            which[i], overlaps[i] = best, overlap[i, best]
            overlap[:, best] = 0
    return which, overlaps


def overlaps_of_class(found: Detections, others: Detections) -> NDArray[np.float32]:
    """Intersection over union (N, M) of the boxes of each two of one class, 0 for those of two."""
    overlaps = pairwise_iou(found.boxes, others.boxes)
    overlaps[found.class_ids[:, None] != others.class_ids] = 0
    return overlaps


def regridded(masks: NDArray[np.float32], cells: tuple[int, ...]) -> NDArray[np.float32]:
    """Masks (N, S, T) on a grid of `cells` (rows, columns), for which the nearest of theirs are taken.

    Models whose masks are cut out of the whole picture have finer ones in frames with larger objects.
    """
    if masks.shape[1:] == cells:
        return masks
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(masks.shape[1:], cells, strict=True)
    )
    return masks[:, rows[:, None], columns]


def _polygons(rows: slice, columns: slice, bitmask: Bitmask, side: float) -> list[NDArray[np.int32]]:
    """The edges of a bitmask that lies at `rows` and `columns`, in a box of a shorter `side`."""
    if not bitmask.size:
        return []
    place = columns.start, rows.start
    edges, _ = cv2.findContours(bitmask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=place)
    return [_straight(np.asarray(edge, np.int32), side) for edge in edges]


def _straight(edge: NDArray[np.int32], side: float, least: int = 1) -> NDArray[np.int32]:
    """An edge of OpenCV as (K, 2), without most of its points, unless fewer than `least` would be left.

    These are the stairs of single pixels, which are all that an edge across the pixels has.
    """
    few = np.asarray(cv2.approxPolyDP(edge, min(1.0, side / 128), closed=True), np.int32)
    return (few if len(few) >= least else edge).reshape(-1, 2)


def _joined(part: NDArray[np.int32], hole: NDArray[np.int32]) -> NDArray[np.int32]:
    """One polygon of two: along the first, over to the second where that is nearest, around it, and back."""
    distances = ((part[:, None] - hole) ** 2).sum(2)
    i, j = divmod(int(distances.argmin()), len(hole))
    return np.concatenate([part[: i + 1], hole[j:], hole[: j + 1], part[i:]])


def _scale(size: tuple[int, int], canvas: tuple[int, int]) -> float:
    return min(canvas[0] / size[0], canvas[1] / size[1])


def _turned(image: Image) -> Image:
    """A small mirror image: of a large one OpenCV would copy all first."""
    return np.asarray(cv2.flip(image, 1), np.uint8)


def _halved(image: Image, size: tuple[int, int]) -> Image:
    """The image, halved for as long as it is at least twice as large as `size` both ways."""
    while image.shape[1] >= 2 * size[0] and image.shape[0] >= 2 * size[1]:
        half = (image.shape[1] + 1) // 2, (image.shape[0] + 1) // 2
        image = np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_LINEAR), np.uint8)
    return image


def _span(low: float, high: float, limit: int) -> slice:
    """The pixels whose centres lie between `low` and `high`, within 0..limit."""
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return slice(0, 0)
    start, stop = math.ceil(low - 0.5), math.ceil(high - 0.5)
    return slice(min(max(start, 0), limit), min(max(stop, 0), limit))


def _sampling(low: float, high: float, pixels: slice, cells: int, grid: int) -> tuple[float, float]:
    """Step and start, in OpenCV's pixel indices of the mask, that sample `cells` cells over `pixels`."""
    per_pixel = grid / (high - low)
    step = (pixels.stop - pixels.start) / cells
    return step * per_pixel, (pixels.start + step / 2 - low) * per_pixel - 0.5
