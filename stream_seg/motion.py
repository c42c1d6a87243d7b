"""Owns how far the picture as a whole moved from one frame to the next, as it does where a camera pans or shakes.

Small grey pictures are compared by phase correlation (Kuglin and Hines 1975), which tells large shifts as exactly as
small ones, and does not mind what moves by itself in a part of the picture. Trackers use such estimates to know objects
again: camera motion compensation (BoT-SORT: Aharon 2022, arXiv 2206.14651).
"""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.frame import Image

_LONG_SIDE, _LEAST_SIDE = 128, 16
"""Pixels of the small pictures: with twice as many, boxes tremble by a twentieth less, for thrice the time."""
_FARTHEST = 0.3
"""Sides of the picture: what has moved by more is mostly another one."""
_AT_REST = 0.5
"""By so many levels of 255 on average pictures differ where the camera stands, for noise; the rest is spared there."""

_Small = NDArray[np.float32]


class PictureMotion:
    """Compares each image with the one before it; how that looks small is remembered."""

    def __init__(self) -> None:
        self._image: Image | None = None
        self._small: _Small = np.zeros((0, 0), np.float32)

    def __call__(self, before: Image, after: Image) -> NDArray[np.float32]:
        """How far (x, y), in pixels, what both images show is moved in the second; zeros where that explains nothing.

        Both have one size. Turning and zooming are not told.
        """
        one = self._small if self._image is before else _small(before)
        self._image, self._small = after, _small(after)
        height, width = one.shape
        x, y = _step(one, self._small)
        return np.array((x * before.shape[1] / width, y * before.shape[0] / height), np.float32)


def _step(one: _Small, other: _Small) -> tuple[float, float]:
    height, width = one.shape
    if cv2.norm(one, other, cv2.NORM_L1) >= _AT_REST * one.size:
        window = _window(width, height)
        (x, y), _ = cv2.phaseCorrelate(one * window, other * window)  # given the window it would change the pictures
        if abs(x) <= _FARTHEST * width and abs(y) <= _FARTHEST * height and _explains(x, y, one, other):  # and no NaN
            return x, y
    return 0.0, 0.0


def _explains(x: float, y: float, one: _Small, other: _Small) -> bool:
    """Whether two pictures differ less if the first is moved; compared is what is seen in both."""
    height, width = one.shape
    moved = cv2.warpAffine(one, np.array([[1, 0, x], [0, 1, y]]), (width, height), flags=cv2.INTER_LINEAR)
    rows = slice(max(0, math.ceil(y)), height + min(0, math.floor(y)))
    columns = slice(max(0, math.ceil(x)), width + min(0, math.floor(x)))
    now = other[rows, columns]
    return bool(cv2.norm(now, moved[rows, columns], cv2.NORM_L1) < cv2.norm(now, one[rows, columns], cv2.NORM_L1))


def _small(image: Image) -> _Small:
    scale = _LONG_SIDE / max(image.shape[:2])
    size = [max(_LEAST_SIDE, round(side * scale)) for side in image.shape[1::-1]]
    return cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), cv2.COLOR_BGR2GRAY).astype(np.float32)


@lru_cache(maxsize=32)  # one for each size of frames
def _window(width: int, height: int) -> NDArray[np.float32]:
    """Weights that let the edges of a picture, where it begins and ends at once, go out."""
    return np.asarray(cv2.createHanningWindow((width, height), cv2.CV_32F), np.float32)
