"""Owns how regions look that detections are chosen by: a thin outline of light and dark dashes, which reads on any
picture and is not taken for a line that counts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.frame import Image
from stream_seg.geometry import edges_within
from stream_seg.render.palette import BLACK, WHITE

_DASH = 0.8
"""Its length, in heights of letters."""

_SHIFT = 4  # bits after the point: in whole pixels, the dashes of a slanting edge lie beside it


def draw_regions(image: Image, regions: Sequence[NDArray[np.float32]], line: int, letters: int) -> None:
    """Draw the edges of polygons, as in `Detections.regions`, about half as wide as lines of `line` pixels.

    Each edge has dashes of its own, so that one that two regions share looks alike in both.
    """
    width = max(1, line // 2)
    for corners in regions:
        edges = edges_within(corners, (image.shape[1], image.shape[0]))
        for start, end in edges.tolist():
            cv2.line(image, start, end, BLACK, width, cv2.LINE_AA)
            dashes = _dashes(start, end, _DASH * letters)
            cv2.polylines(image, dashes, False, WHITE, width, cv2.LINE_AA, _SHIFT)


def _dashes(start: Sequence[int], end: Sequence[int], length: float) -> list[NDArray[np.int32]]:
    """The dashes, (2, 2) each, of an edge, its first and its last included, about `length` pixels long and apart."""
    gaps = max(1, round((math.dist(start, end) / length - 1) / 2))
    ends = np.linspace(start, end, 2 * gaps + 2) * 2**_SHIFT
    return list(np.rint(ends).astype(np.int32).reshape(-1, 2, 2))
