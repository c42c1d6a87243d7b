"""Owns how images become the numbers networks were trained on: scaled, placed, normalised, one plane per colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_seg.frame import Image
from stream_seg.geometry import Placement, resize

Size = tuple[int, int]
Triple = tuple[float, float, float]
Planes = NDArray[np.floating]
"""(3, height, width) float32 or float16, one plane per colour."""

NO_MEAN: Triple = (0.0, 0.0, 0.0)
IMAGENET_MEAN: Triple = (123.675, 116.28, 103.53)
IMAGENET_DEVIATION: Triple = (58.395, 57.12, 57.375)
"""Of red, green and blue, 0 to 255."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """The numbers a network wants: (value - `mean`) / `deviation`, per colour, of values 0 to 255.

    `rgb`: whether red comes first. `padding`: the colour around the image, before normalisation; None is the mean, and
    so zero after it. `averaging`: how images were shrunk, see `geometry.resize`.
    """

    mean: Triple = NO_MEAN
    deviation: Triple = (1.0, 1.0, 1.0)
    rgb: bool = True
    padding: Triple | None = None
    averaging: bool = False

    def write(self, image: Image, placement: Placement, out: Planes) -> None:
        """Write a BGR image, scaled and placed, into all of `out`, (3, canvas height, canvas width)."""
        scaled = resize(image, placement.inner, averaging=self.averaging)
        (left, top), (width, height) = placement.corner, placement.inner
        around = self.mean if self.padding is None else self.padding
        for plane, colour, mean, deviation, grey in zip(
            out, self._order, self.mean, self.deviation, around, strict=True
        ):
            if placement.inner != (out.shape[2], out.shape[1]):
                plane.fill((grey - mean) / deviation)
            centred = np.subtract(scaled[:, :, colour], mean, dtype=np.float32)
            inside = plane[top : top + height, left : left + width]
            np.multiply(centred, np.float32(1.0 / deviation), out=inside, casting="same_kind")

    @property
    def _order(self) -> tuple[int, int, int]:
        return (2, 1, 0) if self.rgb else (0, 1, 2)


def fit(size: Size, canvas: Size) -> Size:
    """The largest size of the same shape that fits into `canvas`."""
    return scaled(size, min(canvas[0] / size[0], canvas[1] / size[1]))


def scaled(size: Size, factor: float) -> Size:
    """`size` times `factor`, rounded half up, at least 1x1."""
    return max(1, int(size[0] * factor + 0.5)), max(1, int(size[1] * factor + 0.5))


def shortest_edge(size: Size, short: int, long: int) -> float:
    """The factor that makes the shorter side `short`, or less where the longer one would exceed `long`."""
    return min(short / min(size), long / max(size))


def round_up(size: Sequence[int], stride: int) -> Size:
    """`size` with both sides rounded up to multiples of `stride`."""
    width, height = (-(-side // stride) * stride for side in size)
    return width, height
