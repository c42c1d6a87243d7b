"""AnimatedWebP: the one kind of animated image that FFmpeg does not decode, as a film."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.errors import SourceError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.sources.images import to_bgr
from stream_seg.sources.several import webp_durations
from stream_seg.sources.stoppable import Stoppable

MOST_AT_ONCE = 1 << 28
"""Bytes of pictures to decode at once: most films whole. Each call begins at the first picture again."""


class AnimatedWebP(Stoppable):
    """Every picture of an animated WebP file, with its time; transparent pixels are laid on black.

    `data` is what is in the file at `path`. Raises `SourceError` where it cannot be read.
    """

    def __init__(self, path: Path, data: bytes, name: str) -> None:
        super().__init__(name)
        self._data = np.frombuffer(data, np.uint8)[np.newaxis]  # in one row, as OpenCV before 5 wants it
        *self._times, duration = (
            Fraction(shown, 1000) for shown in itertools.accumulate(webp_durations(data), initial=0)
        )
        (first,) = self._pictures(0, 1)
        self._at_once = max(1, MOST_AT_ONCE // first.nbytes)
        self._info = SourceInfo(
            name=name,
            size=(first.shape[1], first.shape[0]),
            kind="video",
            frame_rate=len(self._times) / duration,
            frame_count=len(self._times),
            duration=duration,
            time_base=Fraction(1, 1000),
            path=path,
        )

    def __iter__(self) -> Iterator[Frame]:
        for begin in range(0, len(self._times), self._at_once):
            times = self._times[begin : begin + self._at_once]
            for index, (pixels, pts) in enumerate(zip(self._pictures(begin, len(times)), times, strict=True), begin):
                if self._stopping.is_set():
                    return
                yield Frame(to_bgr(pixels), index, pts, time.monotonic())

    def _pictures(self, begin: int, count: int) -> list[NDArray[np.uint8]]:
        try:
            is_whole, animation = cv2.imdecodeanimation(self._data, begin, count)
        except cv2.error:
            is_whole = False
        if not is_whole or len(animation.frames) < count:
            raise SourceError(f"{self.name} cannot be read as an animated WebP file; is it damaged?")
        return [np.asarray(picture, np.uint8) for picture in animation.frames]
