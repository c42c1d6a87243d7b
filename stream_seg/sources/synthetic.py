"""Synthetic: a moving picture made up on the spot, for tests, benchmarks and trying things out."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import cast

import cv2
import numpy as np

from stream_seg.errors import UsageError
from stream_seg.frame import Frame, Image, SourceInfo
from stream_seg.sources.clock import CLOCK, LiveClock
from stream_seg.sources.stoppable import Stoppable
from stream_seg.sources.timeline import meant_rate

DEFAULT_SIZE = (1280, 720)
DEFAULT_RATE = Fraction(30)
DEFAULT_COUNT = 300

PERIOD = 256
"""Frames after which the background has come round."""

_SPEC = re.compile(r"synthetic(?::(?:(\d+)x(\d+))?(?:@(\d+(?:\.\d+)?))?(?:x(\d+))?)?(,live)?")


class Synthetic(Stoppable):
    """A textured background that drifts, with discs and boxes moving across it; the same for the same arguments.

    `size` is (width, height), `rate` frames per second, `count` how many frames, None for no end. As `live`, frames
    come at that rate with times from the clock, as from a camera; else as fast as they are taken.
    """

    def __init__(
        self,
        size: tuple[int, int] = DEFAULT_SIZE,
        rate: Fraction = DEFAULT_RATE,
        count: int | None = DEFAULT_COUNT,
        *,
        live: bool = False,
    ) -> None:
        if min(size) < 1 or rate <= 0 or (count is not None and count < 1):
            raise UsageError(f"a synthetic source needs a size, rate and count above 0, got {size}, {rate} and {count}")
        super().__init__(f"synthetic {size[0]}x{size[1]} at {float(rate):g} fps")
        self._size = size
        self._rate = rate
        self._count = count
        self._background = background(size)
        self._info = SourceInfo(
            name=self.name,
            size=size,
            kind="live" if live else "video",
            frame_rate=rate,
            frame_count=count,
            duration=None if count is None or live else count / rate,
            time_base=Fraction(1, CLOCK) if live else 1 / rate,
        )

    def __iter__(self) -> Iterator[Frame]:
        return self._live() if self.info.is_live else self._recorded()

    def image(self, index: int) -> Image:
        """Return the picture of one frame, (H, W, 3) uint8 BGR."""
        width, height = self._size
        shift = index % PERIOD
        image = self._background[:, shift : shift + width].copy()
        side = max(2, min(width, height) // 5)
        for number, colour in enumerate(((40, 60, 220), (60, 200, 80), (230, 140, 40))):
            x = (index * (3 + 2 * number) + number * width // 3) % (width + side) - side // 2
            y = (index * (2 + number) + number * height // 3) % (height + side) - side // 2
            if number % 2:
                cv2.rectangle(image, (x - side // 2, y - side // 2), (x + side // 2, y + side // 2), colour, -1)
            else:
                cv2.circle(image, (x, y), side // 2, colour, -1)
        return image

    def _recorded(self) -> Iterator[Frame]:
        for index in self._indices():
            yield Frame(self.image(index), index, index / self._rate, time.monotonic())

    def _live(self) -> Iterator[Frame]:
        clock = LiveClock()
        began = time.monotonic()
        for index in self._indices():
            self._stopping.wait(max(0.0, began + index / self._rate - time.monotonic()))
            captured_at = time.monotonic()
            yield Frame(self.image(index), index, clock.pts(captured_at), captured_at)

    def _indices(self) -> Iterator[int]:
        indices = itertools.count() if self._count is None else range(self._count)
        return itertools.takewhile(lambda _: not self._stopping.is_set(), indices)


def background(size: tuple[int, int]) -> Image:
    """Return a blotchy texture, wider than `size` by what it drifts, (H, W + 256, 3) uint8."""
    width, height = size
    coarse = np.random.default_rng(0).integers(60, 190, (height // 16 + 2, (width + PERIOD) // 16 + 2, 3), np.uint8)
    return cast(Image, cv2.resize(coarse, (width + PERIOD, height), interpolation=cv2.INTER_CUBIC))


def is_synthetic(spec: str) -> bool:
    """Whether a source is asked for by this name."""
    return spec == "synthetic" or spec.startswith(("synthetic:", "synthetic,"))


def parse_synthetic(spec: str) -> Synthetic:
    """Make the source that `synthetic[:WxH][@FPS][xCOUNT][,live]` names, for example `synthetic:640x480@30x90`.

    Without a count, 300 frames; live, no end. Raises `UsageError` for anything else.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise UsageError(
            f"cannot understand {spec!r}; write it as synthetic:1280x720@30x300 or synthetic:1280x720@30,live"
        )
    width, height, rate, count, live = match.groups()
    return Synthetic(
        (int(width), int(height)) if width else DEFAULT_SIZE,
        meant_rate("the rate of a synthetic source", Fraction(rate)) if rate else DEFAULT_RATE,
        int(count) if count else None if live else DEFAULT_COUNT,
        live=bool(live),
    )
