"""Owns the colours: a hue for each class, shades of it for its objects, the same from frame to frame.

Colours are chosen in OKLCh (B. Ottosson, "A perceptual color space for image processing", 2020), where equal steps look
equally far apart. An object keeps its shade while it can be followed and is of one class: by its number, where it has
one, else as the box that it overlaps most in the frame before.
"""

from __future__ import annotations

import functools
import itertools
import math

from stream_seg.detections import Detections
from stream_seg.geometry import continued

Colour = tuple[int, int, int]
"""Blue, green, red, each 0..255."""

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (16, 16, 16)

_FIRST_HUE = 252.0
_GOLDEN_ANGLE = 137.508  # consecutive classes land far apart, however many there are
_LIGHTNESS = (0.70, 0.78, 0.64)  # hues that come to lie close together differ in this
_SHADES = ((0.0, 0.0), (22.0, 0.09), (-22.0, -0.07), (11.0, -0.13), (-11.0, 0.15), (30.0, -0.02))  # hue, lightness
_SAME_OBJECT = 0.2  # intersection over union


@functools.cache
def colour(class_id: int, shade: int) -> Colour:
    """The colour of the objects of a class; shades 0, 1, 2 ... tell them apart and repeat after six."""
    turn, lighter = _SHADES[shade % len(_SHADES)]
    hue = math.radians(_FIRST_HUE + class_id * _GOLDEN_ANGLE + turn)
    lightness = _LIGHTNESS[class_id % len(_LIGHTNESS)] + lighter
    chromas = (0.22 - 0.005 * step for step in itertools.count())
    return next(found for chroma in chromas if (found := _srgb(lightness, chroma, hue)) is not None)


def ink(background: Colour) -> Colour:
    """Black or white, whichever reads better on `background` (relative luminance, WCAG 2.1)."""
    blue, green, red = (_linear(value / 255) for value in background)
    return BLACK if 0.0722 * blue + 0.7152 * green + 0.2126 * red > 0.22 else WHITE


class Shades:
    """Gives each object a shade: the one it had in the frame before, else the first one free in its class."""

    def __init__(self) -> None:
        self._before = Detections.none(())
        self._shades: list[int] = []

    def assign(self, detections: Detections) -> list[int]:
        """The shade of each detection, the first one choosing first. Call once per frame, in order; boxes finite."""
        shades = [-1 if i < 0 else self._shades[i] for i in self._continues(detections)]
        taken = set(zip(detections.class_ids.tolist(), shades, strict=True))
        for i, class_id in enumerate(detections.class_ids.tolist()):
            if shades[i] < 0:
                shades[i] = next(shade for shade in itertools.count() if (class_id, shade) not in taken)
                taken.add((class_id, shades[i]))
        self._before, self._shades = detections, shades
        return shades.copy()

    def _continues(self, detections: Detections) -> list[int]:
        """Which of the detections before each one is, -1 for none."""
        if detections.ids is None or self._before.ids is None:
            return list(continued(detections, self._before, _SAME_OBJECT)[0])
        before = zip(self._before.ids.tolist(), self._before.class_ids.tolist(), strict=True)
        places = {one: place for place, one in enumerate(before)}
        now = zip(detections.ids.tolist(), detections.class_ids.tolist(), strict=True)
        return [places.get(one, -1) for one in now]


def _srgb(lightness: float, chroma: float, hue: float) -> Colour | None:
    """OKLCh to BGR bytes; None where the screen has no such colour."""
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short
    if min(red, green, blue) < 0 or max(red, green, blue) > 1:
        return None
    return _byte(blue), _byte(green), _byte(red)


def _byte(linear: float) -> int:
    return round(255 * (12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055))


def _linear(encoded: float) -> float:
    return float(encoded / 12.92 if encoded <= 0.04045 else ((encoded + 0.055) / 1.055) ** 2.4)
