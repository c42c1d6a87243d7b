"""Owns how a picture looks that is not current: greyed and dimmed, with large words that say why."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from stream_seg.frame import Image
from stream_seg.render.labels import FACE, Plate, pen, text_width, writable
from stream_seg.render.palette import WHITE

_BRIGHTNESS = 0.35
_BAR = 24
"""The grey of the bar that a caption stands on, 0..255."""

_LETTERS = (1 / 11, 1 / 16)
"""Height of the letters of the first line and of the others, as a share of the picture's."""

_SMALLEST = 8
_WIDEST = 0.92
"""The widest line, as a share of the picture's width: a longer one is written smaller."""


def dimmed(image: Image) -> Image:
    """A copy of `image` without its colours and with a third of its brightness."""
    grey = cv2.convertScaleAbs(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), alpha=_BRIGHTNESS)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)


def announce(image: Image, lines: Sequence[str]) -> None:
    """Write `lines` into the middle of `image`, the first one larger; meant for a dark image."""
    heights = [_letters(line, image, _LETTERS[min(i, 1)]) for i, line in enumerate(lines)]
    spacing = max(heights, default=0) * 6 // 10
    top = (image.shape[0] - sum(heights) - spacing * (len(lines) - 1)) // 2
    for line, height in zip(lines, heights, strict=True):
        top += height
        _write(image, line, height, top)
        top += spacing


def caption(image: Image, text: str, height: int) -> None:
    """Write `text`, in letters `height` pixels high, on a bar along the top of `image`, whatever stood there."""
    plate = Plate(image, text, height)
    image[: plate.area[3]] = _BAR
    plate.draw()


def _letters(line: str, image: Image, share: float) -> int:
    """The height of letters in which `line` fits the picture."""
    wanted: int = max(_SMALLEST, round(image.shape[0] * share))
    fitting = wanted * image.shape[1] * _WIDEST / max(text_width(line, wanted), 1)
    return max(_SMALLEST, min(wanted, int(fitting)))


def _write(image: Image, line: str, height: int, bottom: int) -> None:
    thickness, scale = pen(height)
    left = max(0, (image.shape[1] - text_width(line, height)) // 2)
    cv2.putText(image, writable(line), (left, bottom), FACE, scale, WHITE, thickness, cv2.LINE_AA)
