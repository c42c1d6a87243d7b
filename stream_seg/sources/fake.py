"""ListSource: frames from images in memory, for tests and for programs that have their own capture."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from fractions import Fraction

from stream_seg.frame import Frame, Image, Kind, SourceInfo
from stream_seg.sources.stoppable import Stoppable


class ListSource(Stoppable):
    """The given images, (H, W, 3) uint8 BGR, as frames `rate` per second. `kind` is what the source claims to be."""

    def __init__(
        self, images: Sequence[Image], *, rate: Fraction = Fraction(25), kind: Kind = "video", name: str = "images"
    ) -> None:
        super().__init__(name)
        self._images = images
        self._rate = rate
        self._info = SourceInfo(
            name=name,
            size=(images[0].shape[1], images[0].shape[0]) if images else (1, 1),
            kind=kind,
            frame_rate=rate,
            frame_count=len(images),
            duration=len(images) / rate,
            time_base=1 / rate,
        )

    def __iter__(self) -> Iterator[Frame]:
        for index, image in enumerate(self._images):
            if self._stopping.is_set():
                return
            yield Frame(image, index, index / self._rate, time.monotonic())
