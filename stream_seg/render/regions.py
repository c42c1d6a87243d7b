"""Owns how regions look that detections are chosen by: a thin outline of light and dark dashes, which reads on any
picture and is not taken for a line that counts what crosses it, and how many stand within, numbered as in the summary
of a run where there are several regions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.frame import Image
from stream_seg.geometry import edges_within
from stream_seg.render.labels import Labels
from stream_seg.render.palette import BLACK, WHITE

_DASH = 0.8
"""Its length, in heights of letters."""

_SHIFT = 4  # bits after the point: in whole pixels, the dashes of a slanting edge lie beside it


def draw_regions(
    image: Image, regions: Sequence[NDArray[np.float32]], line: int, letters: int
) -> list[NDArray[np.int32]]:
    """Draw the edges of polygons, as in `Detections.regions`, about half as wide as lines of `line` pixels.

    Each edge has dashes of its own, so that one that two regions share looks alike in both. Returns what is seen of the
    edges of each, (M, 2, 2), for `draw_occupancy`.
    """
    width = _width(line)
    outlines = [edges_within(corners, (image.shape[1], image.shape[0])) for corners in regions]
    for edges in outlines:
        for start, end in edges.tolist():
            cv2.line(image, start, end, BLACK, width, cv2.LINE_AA)
            dashes = _dashes(start, end, _DASH * letters)
            cv2.polylines(image, dashes, False, WHITE, width, cv2.LINE_AA, _SHIFT)
    return outlines


def draw_occupancy(
    image: Image,
    outlines: Sequence[NDArray[np.int32]],
    occupancy: Sequence[Mapping[str, int]],
    labels: Labels,
    line: int,
    letters: int,
) -> None:
    """Write how many stand in each region, as in `Detections.occupancy`, inside of the top of its outline.

    Of several regions they have the number, from 1 on, which counts those outside of the picture, too. Regions without
    counts, of another follower, have none.
    """
    width = _width(line)
    for number, (edges, counts) in enumerate(zip(outlines, occupancy, strict=False), 1):
        if not len(edges):
            continue
        ends = edges.reshape(-1, 2)
        (left, top), (right, _) = ends.min(0).tolist(), ends.max(0).tolist()
        start = int(ends[ends[:, 1] <= top + letters, 0].min())
        name = f"region {number}  " if len(outlines) > 1 else ""
        text = f"{name}now {sum(counts.values())}"
        sides = left + width, right - width
        labels.draw_below(image, text, (start + width, top + width), sides, letters, BLACK)


def _width(line: int) -> int:
    return max(1, line // 2)


def _dashes(start: Sequence[int], end: Sequence[int], length: float) -> list[NDArray[np.int32]]:
    """The dashes, (2, 2) each, of an edge, its first and its last included, about `length` pixels long and apart."""
    gaps = max(1, round((math.dist(start, end) / length - 1) / 2))
    ends = np.linspace(start, end, 2 * gaps + 2) * 2**_SHIFT
    return list(np.rint(ends).astype(np.int32).reshape(-1, 2, 2))
