"""Owns the look of the result: draws detections and a status line on frames.

Three views: "boxes" (boxes, names and scores on the picture), "masks" (coloured masks on black) and "both" (masks
blended in, with boxes and names). The colour of an object is a shade of its class's colour and stays the same
from frame to frame. Only pixels inside boxes and under text are touched.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.detections import Detections
from stream_seg.errors import UsageError, did_you_mean
from stream_seg.frame import Frame, Image
from stream_seg.geometry import Bitmask, mask_roi
from stream_seg.render.labels import Labels, Plate, Rect
from stream_seg.render.palette import Colour, Shades, colour

__all__ = ["VIEWS", "Renderer", "Style", "View"]

View = Literal["both", "boxes", "masks"]
VIEWS: tuple[View, ...] = get_args(View)

_TINT = 0.45  # share of its colour in a mask that is blended in


class Renderer:
    """Draws detections on frames in one of three views. Use one per stream: it remembers colours between frames.

    `hud` is called for each frame and returns the status line for the top-left corner, "" for none. No letters are
    smaller than `least_letters`, in pixels. Raises `UsageError` for a view it does not know.
    """

    def __init__(self, view: View = "both", *, hud: Callable[[], str] | None = None, least_letters: int = 1) -> None:
        if view not in VIEWS:
            raise UsageError(f"unknown view '{view}'; use {', '.join(VIEWS)}{did_you_mean(view, VIEWS)}")
        self._view = view
        self._hud = hud
        self._least_letters = least_letters
        self._shades = Shades()
        self._labels = Labels()
        self._brush = _Brush(1.0 if view == "masks" else _TINT)

    def __call__(self, frame: Frame, detections: Detections) -> Frame:
        """Return a new frame with `detections` drawn; the given one stays as it is."""
        if frame.name is not None:  # an image of its own, which continues nothing
            self._shades = Shades()
        detections = _visible(detections, frame.size)
        colours = [
            colour(c, s) for c, s in zip(detections.class_ids.tolist(), self._shades.assign(detections), strict=True)
        ]
        image = np.zeros_like(frame.image) if self._view == "masks" else frame.image.copy()
        style = Style.of(frame.size, self._least_letters)
        plate = Plate(image, self._hud() if self._hud else "", style.letters)
        if self._view != "boxes":
            self._draw_masks(image, detections, colours)
        if self._view != "masks":
            self._draw_boxes(image, detections, colours, style, plate.area)
        plate.draw()
        return frame.with_image(image)

    def _draw_masks(self, image: Image, detections: Detections, colours: list[Colour]) -> None:
        size = image.shape[1], image.shape[0]
        for box, mask, tone in zip(detections.boxes, detections.masks, colours, strict=True):
            rows, columns, bitmask = mask_roi(box, mask, size)
            if bitmask.size:
                self._brush.tint(image[rows, columns], bitmask, tone)

    def _draw_boxes(
        self, image: Image, detections: Detections, colours: list[Colour], style: Style, reserved: Rect
    ) -> None:
        boxes = [_whole(box, image) for box in detections.boxes.tolist()]
        for box, tone in zip(boxes, colours, strict=True):
            _outline(image, box, tone, style.line)
        self._labels.start(reserved)
        rows = zip(detections.names, detections.scores.tolist(), boxes, colours, strict=True)
        for name, score, box, tone in rows:
            self._labels.draw(image, f"{name} {score:.0%}", box, style.letters, tone)


@dataclasses.dataclass(frozen=True, slots=True)
class Style:
    """Sizes, in pixels, that suit a frame: the width of a box's `line`, the height of `letters`."""

    line: int
    letters: int

    @classmethod
    def of(cls, size: tuple[int, int], least_letters: int = 1) -> Style:
        side = math.sqrt(size[0] * size[1])
        return cls(max(1, round(1 + side / 720)), max(least_letters, round(6 + side / 105)))


class _Brush:
    """Colours the pixels of masks; keeps the memory it works in, which is dear to ask for anew each time."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._scratch = np.empty(0, np.uint8)

    def tint(self, region: Image, bitmask: Bitmask, tone: Colour) -> None:
        """Mix `share` of a colour into the pixels of `region` where `bitmask` is set."""
        if self._scratch.size < region.size:
            self._scratch = np.empty(region.size, np.uint8)
        tinted = self._scratch[: region.size].reshape(region.shape)
        cv2.transform(region, _mix(tone, self._share), dst=tinted)
        cv2.copyTo(tinted, bitmask, region)


@functools.lru_cache(256)
def _mix(tone: Colour, share: float) -> NDArray[np.float32]:
    """The matrix that mixes `share` of a colour into a pixel; float32, for which OpenCV is quickest."""
    kept = 1 - share
    blue, green, red = (share * value for value in tone)
    return np.array([[kept, 0, 0, blue], [0, kept, 0, green], [0, 0, kept, red]], np.float32)


def _visible(detections: Detections, size: tuple[int, int]) -> Detections:
    """The detections that show in a frame of `size`, the largest first, so that it hides no other."""
    boxes = detections.boxes
    boxes = np.where(np.isfinite(boxes).all(1, keepdims=True), boxes, 0)
    sides = np.minimum(boxes[:, 2:], size) - np.maximum(boxes[:, :2], 0)
    order = np.argsort(-sides.prod(1), kind="stable")
    return detections[order[(sides[order] > 0).all(1)]]


def _whole(box: list[float], image: Image) -> Rect:
    """A box in whole pixels, inside the frame, at least one pixel large."""
    height, width = image.shape[:2]
    x1, y1 = min(max(round(box[0]), 0), width - 1), min(max(round(box[1]), 0), height - 1)
    return x1, y1, min(max(round(box[2]), x1 + 1), width), min(max(round(box[3]), y1 + 1), height)


def _outline(image: Image, box: Rect, tone: Colour, line: int) -> None:
    """A frame of four bars inside the box: `cv2.rectangle` with a thickness would reach outside it."""
    x1, y1, x2, y2 = box
    right, bottom = x2 - 1, y2 - 1
    line = min(line, x2 - x1, y2 - y1) - 1
    cv2.rectangle(image, (x1, y1), (right, y1 + line), tone, cv2.FILLED)
    cv2.rectangle(image, (x1, bottom - line), (right, bottom), tone, cv2.FILLED)
    cv2.rectangle(image, (x1, y1), (x1 + line, bottom), tone, cv2.FILLED)
    cv2.rectangle(image, (right - line, y1), (right, bottom), tone, cv2.FILLED)
