"""Axis-aligned views: how a picture is scaled, mirrored and shifted onto a training canvas, with its boxes and masks.

Without rotation boxes are arithmetic, and a mask can be resampled from its stored rectangle alone.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import cv2
import numpy as np
from architecture import PIXEL_MEAN
from cache import MaskCrop, Pixels
from numpy.typing import NDArray

GREY = tuple(map(round, PIXEL_MEAN))
"""Of an RGB picture, beside it: as in graphs, where it is 0 once it is normalised."""
Box = NDArray[np.float64]


class View(NamedTuple):
    """canvas = scale * picture + shift along each axis, in continuous pixels; a negative sx mirrors."""

    sx: float
    sy: float
    tx: float
    ty: float

    def boxes(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Boxes (n, 4) from picture to canvas."""
        moved = boxes * (self.sx, self.sy, self.sx, self.sy) + (self.tx, self.ty, self.tx, self.ty)
        return np.asarray(moved[:, [2, 1, 0, 3]] if self.sx < 0 else moved)

    def shifted(self, dx: float, dy: float) -> View:
        return View(self.sx, self.sy, self.tx + dx, self.ty + dy)


def random_view(
    size: tuple[int, int], canvas: tuple[int, int], scales: tuple[float, float], rng: random.Random
) -> View:
    """Large-scale jitter (Ghiasi 2021, arXiv 2012.07177): sizes are (height, width), scale 1 just fits the canvas."""
    (height, width), (rows, columns) = size, canvas
    scale = min(rows / height, columns / width)
    if rng.random() < JITTERED:
        scale *= math.exp(rng.uniform(math.log(scales[0]), math.log(scales[1])))
    aspect = math.exp(rng.uniform(-ASPECT, ASPECT))
    sx, sy = scale * aspect, scale / aspect
    tx = rng.uniform(min(0, columns - width * sx), max(0, columns - width * sx))
    ty = rng.uniform(min(0, rows - height * sy), max(0, rows - height * sy))
    return View(-sx, sy, columns - tx, ty) if rng.random() < 0.5 else View(sx, sy, tx, ty)


JITTERED, ASPECT = 0.7, 0.12


def warp_image(image: Pixels, view: View, canvas: tuple[int, int]) -> Pixels:
    """The (height, width) = `canvas` pixels of a view, grey where the picture does not reach."""
    height, width = image.shape[:2]
    if abs(view.sx) < 0.55 and min(height, width) > 2:
        # Bilinear sampling skips pixels below half size, so average first.
        half = width // 2, height // 2
        image = np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_AREA), np.uint8)
        view = View(view.sx * width / half[0], view.sy * height / half[1], view.tx, view.ty)
    # cv2 counts pixel centres at integers, a View counts them at halves.
    matrix = np.array(
        [[view.sx, 0, view.tx + 0.5 * view.sx - 0.5], [0, view.sy, view.ty + 0.5 * view.sy - 0.5]], np.float64
    )
    warped = cv2.warpAffine(image, matrix, canvas[::-1], flags=cv2.INTER_LINEAR, borderValue=GREY)
    return np.asarray(warped, np.uint8)


def warp_mask(mask: MaskCrop, view: View, window: Box, size: tuple[int, int]) -> Pixels:
    """The canvas rectangle `window` (xyxy) of a mask as (height, width) = `size` values of 0..255."""
    height, width = size
    step_x, step_y = (window[2] - window[0]) / width, (window[3] - window[1]) / height
    inverse = np.array(
        [
            [step_x / view.sx, 0, (window[0] + 0.5 * step_x - view.tx) / view.sx - mask.x - 0.5],
            [0, step_y / view.sy, (window[1] + 0.5 * step_y - view.ty) / view.sy - mask.y - 0.5],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(mask.pixels, inverse, (width, height), flags=flags), np.uint8)


def visible_box(mask: MaskCrop, view: View, canvas: tuple[int, int]) -> Box | None:
    """The box (xyxy on the canvas) of the part of a mask that a canvas shows; None if it shows nothing of it."""
    xs = sorted((edge - view.tx) / view.sx - mask.x for edge in (0, canvas[1]))
    ys = [(edge - view.ty) / view.sy - mask.y for edge in (0, canvas[0])]
    x1, x2 = max(0, math.floor(xs[0])), min(mask.pixels.shape[1], math.ceil(xs[1]))
    y1, y2 = max(0, math.floor(ys[0])), min(mask.pixels.shape[0], math.ceil(ys[1]))
    if x2 <= x1 or y2 <= y1:
        return None
    x, y, width, height = cv2.boundingRect(np.ascontiguousarray(mask.pixels[y1:y2, x1:x2]))
    if not width:
        return None
    left, top = mask.x + x1 + x, mask.y + y1 + y
    native = np.array([[left, top, left + width, top + height]], np.float64)
    return np.asarray(view.boxes(native)[0].clip(0, (canvas[1], canvas[0], canvas[1], canvas[0])))
