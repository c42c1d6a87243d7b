"""Owns how a heatmap looks: for how long objects were where, in colours on the dimmed scene, and what these stand for.

The colours go by log(1 + seconds): up to a second about evenly, from there on by how many times as long. What stands
for hours leaves room so for the paths of what passes in seconds.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.frame import Image
from stream_seg.render.labels import Labels, text_width
from stream_seg.render.palette import Colour

_BRIGHTNESS = 0.5
"""Of the scene, which has no colours of its own: they would be taken for those of times."""

_FIRST, _LAST = 0.08, 0.92
"""Where the scale of colours begins and ends, as shares of Turbo's: at both ends that is dark, as the scene is."""

_OPACITY = (0.55, 0.8)
"""Of the colours of the shortest and the longest time, so that the scene can be made out."""

_SMOOTH = 1.2
"""Standard deviation, in cells, by which edges are softened: they are those of cells, which are larger than pixels."""

_STRIP: Colour = (32, 28, 24)
"""The ground of the legend."""

_MARKS = (
    *(1, 10, 60, 600, 3600, 36000, 86400, 864000),
    *(2, 5, 20, 30, 120, 300, 1200, 1800, 7200, 18000, 172800, 432000),
    *(0.1, 0.2, 0.5),
)
"""Times that the legend names where there is room, in seconds; round ones first."""


def heat_picture(scene: Image, seconds: NDArray[np.float64], watched: float) -> Image:
    """A picture of the `scene` (H, W, 3) with `seconds` (h, w) over it in colours, and a legend in a strip below it.

    `seconds` has for how long there was something in each cell of a grid that is stretched over the scene, which was
    `watched` for so many. Where that is 0, the scene alone is seen.
    """
    longest = float(seconds.max(initial=0.0))
    picture = _dimmed(scene)
    if longest > 0:
        size = scene.shape[1], scene.shape[0]
        smooth, seen = _softened(_levels(seconds, longest)), _softened(seconds > 0)
        # Softened apart: what is known of an edge is the time inside of it, and not a shorter one.
        level = _enlarged(smooth / np.maximum(seen, 1e-3), size)
        opacity = _enlarged(seen, size) * (_OPACITY[0] + (_OPACITY[1] - _OPACITY[0]) * level)
        mixed = picture + opacity[:, :, None] * (_coloured(level).astype(np.float32) - picture)
        picture = np.rint(mixed).astype(np.uint8)
    return np.concatenate([picture, _legend(scene.shape[1], _letters(scene), longest, watched)])


def _softened(cells: NDArray[np.generic]) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(cells.astype(np.float32), (0, 0), _SMOOTH), np.float32)


def _enlarged(cells: NDArray[np.generic], size: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(cells.astype(np.float32), size, interpolation=cv2.INTER_LINEAR), np.float32)


def _dimmed(scene: Image) -> Image:
    grey = cv2.convertScaleAbs(cv2.cvtColor(scene, cv2.COLOR_BGR2GRAY), alpha=_BRIGHTNESS)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)


def _levels(seconds: NDArray[np.float64], longest: float) -> NDArray[np.float64]:
    """Where times are on the scale of colours, 0..1."""
    return np.log1p(seconds) / math.log1p(longest)


def _coloured(levels: NDArray[np.float32]) -> Image:
    """The colours, (H, W, 3), of `levels` (H, W), 0..1."""
    shares = _FIRST + (_LAST - _FIRST) * np.clip(levels, 0, 1)
    return np.asarray(cv2.applyColorMap(np.rint(255 * shares).astype(np.uint8), cv2.COLORMAP_TURBO), np.uint8)


def _letters(scene: Image) -> int:
    """The height of letters that suits a scene, in pixels."""
    return max(8, round(6 + math.sqrt(scene.shape[0] * scene.shape[1]) / 105))


def _legend(width: int, letters: int, longest: float, watched: float) -> Image:
    """A strip with the scale of colours from 0 to the `longest` time, in seconds, and times below it."""
    margin, bar = min(letters, width // 4), letters
    strip = np.empty((margin + bar + 3 * letters, width, 3), np.uint8)
    strip[:] = _STRIP
    labels = Labels()
    if not longest > 0:
        labels.draw_below(strip, f"nothing in {_told(watched)}", (margin, 2 * letters), (0, width), letters, _STRIP)
        return strip
    left, right = margin, max(margin + 1, width - margin)
    scale = np.linspace(0, 1, right - left, dtype=np.float32)[None]
    strip[margin : margin + bar, left:right] = _coloured(scale)
    for seconds, text, first in _ticks(left, right, letters, longest):
        x = left + round((right - left - 1) * math.log1p(seconds) / math.log1p(longest))
        strip[margin + bar : margin + bar + max(2, letters // 3), x] = 255
        labels.draw_below(strip, text, (first, margin + bar + letters // 2), (0, width), letters, _STRIP)
    return strip


def _ticks(left: int, right: int, letters: int, longest: float) -> list[tuple[float, str, int]]:
    """Times that the legend names, in seconds, how, and where the text begins, such that none touches another.

    Where there is hardly room, the `longest` is named alone, and none where it would be cut off.
    """
    margin = max(2, round(letters * 0.3))  # of a label
    chosen: list[tuple[float, str, int]] = []
    taken: list[tuple[float, float]] = []
    for seconds in (longest, 0.0, *(mark for mark in _MARKS if mark < longest)):
        text = _told(seconds)
        width = text_width(text, letters) + 2 * margin
        x = left + (right - left) * math.log1p(seconds) / math.log1p(longest)
        first = min(max(x - width / 2, left - margin), right + margin - width)
        gap = letters if 0 < seconds < longest else margin
        if first >= left - margin and all(first + width + gap < low or high + gap < first for low, high in taken):
            taken.append((first, first + width))
            chosen.append((seconds, text, round(first)))
    return chosen


def _told(seconds: float) -> str:
    """A time in words: 0.03 s, 12 s, 3.5 min, 26 h."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit or seconds == unit:
            return f"{_figures(seconds / unit)} {name}"
    return f"{_figures(seconds)} s"


def _figures(number: float) -> str:
    if 0 < number < 1:  # as of a lone frame
        return f"{number:.1g}"
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}".removesuffix(".0")
