"""ListSource: frames from images in memory, for tests and for programs that have their own capture."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from fractions import Fraction

from stream_seg.errors import UsageError
from stream_seg.frame import Frame, Image, Kind, SourceInfo, check_image
from stream_seg.sources.stoppable import Stoppable
from stream_seg.sources.timeline import meant_rate


class ListSource(Stoppable):
    """The given images, (H, W, 3) uint8 BGR, as frames `rate` per second. `kind` is what the source claims to be.

    Raises `ValueError` for what are no images, and `UsageError` where they are in no list or for a rate of 0.
    """

    def __init__(
        self,
        images: Sequence[Image],
        *,
        rate: float | Fraction = Fraction(25),
        kind: Kind = "video",
        name: str = "images",
    ) -> None:
        super().__init__(name)
        if not hasattr(images, "__len__"):
            raise UsageError(
                f"images are given as a list, got {type(images).__name__}; what makes them one by one is a source of "
                "your own: stream_seg.protocols.Source"
            )
        for image in images:
            check_image(image)
        self._images = images
        self._rate = rate = meant_rate("rate", Fraction(rate))
        self._info = SourceInfo(
            name=name,
            size=(images[0].shape[1], images[0].shape[0]) if len(images) else (1, 1),
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
