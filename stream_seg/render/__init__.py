"""Owns the look of the result: draws detections and a status line on frames.

Six views: "boxes" (boxes, names and scores on the picture), "tinted" (masks blended in), "both" (all that), "masks"
(coloured masks on black), "cutouts" (the objects as they are, on black) and "blurred" (the picture, with its objects
made unrecognisable). The colour of an object is a shade of its class's colour and stays the same from frame to frame.
Regions that detections are chosen by, and lines that count what crosses them, are drawn with their counts, and so are
the trails of objects, where the picture is seen. Only pixels inside boxes, which are a little larger where they are
blurred, and under lines, trails and text are touched.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import threading
from collections.abc import Callable
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.detections import Detections, check_found
from stream_seg.errors import UsageError, did_you_mean
from stream_seg.frame import Frame, Image, check_frame
from stream_seg.geometry import Bitmask, Boxes, mask_roi
from stream_seg.render.blur import blur, widened
from stream_seg.render.labels import Labels, Plate, Rect
from stream_seg.render.lines import draw_lines
from stream_seg.render.palette import Colour, Shades, colour
from stream_seg.render.regions import draw_occupancy, draw_regions
from stream_seg.render.trails import Trails

__all__ = ["BLACK_VIEWS", "NAMING_VIEWS", "VIEWS", "Renderer", "Style", "View"]

View = Literal["both", "boxes", "tinted", "masks", "cutouts", "blurred"]
VIEWS: tuple[View, ...] = get_args(View)
NAMING_VIEWS: tuple[View, ...] = ("both", "boxes")
"""Those with boxes and names."""
BLACK_VIEWS: tuple[View, ...] = ("masks", "cutouts")
"""Those that show objects on black, and nothing of where they are or have been."""

_TINT = 0.45  # share of its colour in a mask that is blended in

_SIZE_CHANGES = 1.3  # by so many times an object grows or shrinks before it is larger or smaller than before


class Renderer:
    """Draws detections on frames in one of the `VIEWS`. Use one per stream: it remembers colours between frames.

    Of photos, which continue nothing, one draws any number, on any thread: those of several threads wait for each
    other.
    `hud` is called for each frame and returns the status line for the top-left corner, "" for none. No letters are
    smaller than `least_letters`, in pixels. With `ids`, the number of an object stands in front of its name, where it
    has one. With `trails`, the path that it has taken in so many seconds, 60 at most, leads to where it stands, the
    middle of the lower edge of its box; not in views on black. Raises `UsageError` for a view it does not know, and for
    trails of no such length.

    "blurred" hides what it is given: in films, what `Steady(withhold=False)` makes of all that is found.
    """

    def __init__(
        self,
        view: View = "both",
        *,
        hud: Callable[[], str] | None = None,
        least_letters: int = 1,
        ids: bool = False,
        trails: float | None = None,
    ) -> None:
        if view not in VIEWS:
            raise UsageError(f"unknown view '{view}'; use {', '.join(VIEWS)}{did_you_mean(str(view), VIEWS)}")
        self._view = view
        self._hud = hud
        self._least_letters = least_letters
        self._ids = ids
        self._trails = None if trails is None else Trails(trails)
        self._shades = Shades()
        self._areas: dict[int, float] = {}
        self._labels = Labels()
        self._brush = _Brush()
        self._drawing = threading.Lock()

    def __call__(self, frame: Frame, detections: Detections) -> Frame:
        """Return a new frame with `detections` drawn; the given one stays as it is."""
        check_frame(frame)
        check_found(detections)
        with self._drawing:  # colours, places of names and the memory that is worked in are of one picture at a time
            return self._drawn(frame, detections)

    def _drawn(self, frame: Frame, detections: Detections) -> Frame:
        if frame.is_still:  # it continues nothing
            self._shades = Shades()
        detections = self._visible(detections, frame.size)
        colours = [
            colour(c, s) for c, s in zip(detections.class_ids.tolist(), self._shades.assign(detections), strict=True)
        ]
        is_seen = self._view not in BLACK_VIEWS
        image = frame.image.copy() if is_seen else np.zeros(frame.image.shape, np.uint8)
        style = Style.of(frame.size, self._least_letters)
        plate = Plate(image, self._hud() if self._hud else "", style.letters)
        if self._view != "boxes":
            self._draw_masks(image, detections, colours, frame.image)
        outlines = draw_regions(image, detections.regions, style.line, style.letters) if is_seen else []
        if is_seen and self._trails is not None:
            self._trails.draw(image, frame, detections, colours, style.line)
        self._labels.start(plate.area)
        boxes = _whole(detections.boxes, image) if self._view in NAMING_VIEWS else []
        for box, tone in zip(boxes, colours, strict=False):  # of no boxes in other views
            _outline(image, box, tone, style.line)
        if is_seen:  # before the names, which move and so make way for the counts
            draw_lines(image, detections.lines, self._labels, style.line, style.letters)
            draw_occupancy(image, outlines, detections.occupancy, self._labels, style.line, style.letters)
        if self._view in NAMING_VIEWS:
            self._draw_names(image, detections, boxes, colours, style.letters)
        plate.draw()
        return frame.with_image(image)

    def _visible(self, detections: Detections, size: tuple[int, int]) -> Detections:
        """The detections that show in a frame of `size`, the largest first, so that it hides no other.

        What has a number keeps its area until it has changed clearly: two of about one size would else take turns in
        covering each other and in making way for each other's names.
        """
        boxes = detections.boxes
        boxes = np.where(np.isfinite(boxes).all(1, keepdims=True), boxes, 0)
        sides = np.minimum(boxes[:, 2:], size) - np.maximum(boxes[:, :2], 0)
        areas = sides.prod(1)
        if detections.ids is not None:
            numbers, now = detections.ids.tolist(), areas.tolist()
            pairs = [(self._areas.get(number, area), area) for number, area in zip(numbers, now, strict=True)]
            kept = [old if old < area * _SIZE_CHANGES and area < old * _SIZE_CHANGES else area for old, area in pairs]
            self._areas = dict(zip(numbers, kept, strict=True))
            areas = np.array(kept, areas.dtype)
        order = np.argsort(-areas, kind="stable")
        return detections[order[(sides[order] > 0).all(1)]]

    def _draw_masks(self, image: Image, detections: Detections, colours: list[Colour], original: Image) -> None:
        size = image.shape[1], image.shape[0]
        for box, mask, tone in zip(detections.boxes, detections.masks, colours, strict=True):
            place, grid = widened(box, mask) if self._view == "blurred" else (box, mask)
            rows, columns, bitmask = mask_roi(place, grid, size)
            if not bitmask.size:
                continue
            if self._view == "masks":
                self._brush.fill(image[rows, columns], bitmask, _row(tone, image.shape[1])[:, columns])
            elif self._view == "cutouts":
                cv2.copyTo(original[rows, columns], bitmask, image[rows, columns])
            elif self._view == "blurred":
                self._brush.blur(image[rows, columns], bitmask)
            else:
                self._brush.tint(image[rows, columns], bitmask, tone)

    def _draw_names(
        self, image: Image, detections: Detections, boxes: list[Rect], colours: list[Colour], letters: int
    ) -> None:
        numbers = [None] * len(detections) if detections.ids is None else detections.ids.tolist()
        rows = zip(detections.names, detections.scores.tolist(), boxes, colours, numbers, strict=True)
        for name, score, box, tone, number in rows:
            prefix = f"#{number} " if self._ids and number is not None else ""
            self._labels.draw(image, f"{prefix}{name} {score:.0%}", box, letters, tone, number)


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

    def __init__(self) -> None:
        self._scratch = np.empty(0, np.uint8)

    def fill(self, region: Image, bitmask: Bitmask, row: Image) -> None:
        """Give the pixels of `region` the colour of `row`, which is as long as one of its, where `bitmask` is set."""
        filled = self._like(region)
        np.copyto(filled, row)
        cv2.copyTo(filled, bitmask, region)

    def tint(self, region: Image, bitmask: Bitmask, tone: Colour) -> None:
        """Mix a share of a colour into the pixels of `region` where `bitmask` is set."""
        tinted = self._like(region)
        np.copyto(tinted, region)  # OpenCV is quicker, by more than this takes, where rows follow each other
        cv2.transform(tinted, _mix(tone), dst=tinted)
        cv2.copyTo(tinted, bitmask, region)

    def blur(self, region: Image, bitmask: Bitmask) -> None:
        """Make the pixels of `region` unrecognisable where `bitmask` is set."""
        blur(region, bitmask, self._like(region))

    def _like(self, region: Image) -> Image:
        """Memory of the shape of `region`, holding anything, until the next call."""
        if self._scratch.size < region.size:
            self._scratch = np.empty(region.size, np.uint8)
        return self._scratch[: region.size].reshape(region.shape)


@functools.lru_cache(256)
def _mix(tone: Colour) -> NDArray[np.float32]:
    """The matrix that mixes a share of a colour into a pixel; float32, for which OpenCV is quickest."""
    kept = 1 - _TINT
    blue, green, red = (_TINT * value for value in tone)
    return np.array([[kept, 0, 0, blue], [0, kept, 0, green], [0, 0, kept, red]], np.float32)


@functools.lru_cache(256)
def _row(tone: Colour, width: int) -> Image:
    """A row of pixels of one colour, (1, width, 3): rows are copied at once, numbers one by one."""
    return np.full((1, width, 3), tone, np.uint8)


def _whole(boxes: Boxes, image: Image) -> list[Rect]:
    """Boxes in whole pixels, inside the frame, at least one pixel large."""
    limit = np.array(image.shape[1::-1])
    low = np.clip(np.rint(boxes[:, :2]), 0, limit - 1)
    high = np.clip(np.rint(boxes[:, 2:]), low + 1, limit)
    return [tuple(box) for box in np.hstack([low, high]).astype(int).tolist()]


def _outline(image: Image, box: Rect, tone: Colour, line: int) -> None:
    """A frame of four bars inside the box: `cv2.rectangle` with a thickness would reach outside it."""
    x1, y1, x2, y2 = box
    line = min(line, x2 - x1, y2 - y1)
    row = _row(tone, image.shape[1])
    image[y1 : y1 + line, x1:x2] = image[y2 - line : y2, x1:x2] = row[:, x1:x2]
    image[y1:y2, x1 : x1 + line] = image[y1:y2, x2 - line : x2] = row[:, :line]
