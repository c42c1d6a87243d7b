"""ImageFiles: photographs, one or many, as frames."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np

from stream_seg.errors import SourceError
from stream_seg.frame import Frame, Image, SourceInfo
from stream_seg.sources.chunks import may_be_transparent, orientation_of, transparent_grey
from stream_seg.sources.heif import is_heif, read_heif
from stream_seg.sources.picture import on_black
from stream_seg.sources.several import has_pages, moves
from stream_seg.sources.stoppable import Stoppable

logger = logging.getLogger(__name__)

SEQUENCE_RATE = Fraction(25)
"""Images per second unless told, for whoever makes a video of them; the rate FFmpeg gives image sequences."""


class ImageFiles(Stoppable):
    """Images in the given order, one frame each, upright as their EXIF orientation says, `rate` frames per second.

    Grey, 16-bit and transparent ones become BGR uint8; transparent pixels are laid on black. `folder` is what
    `Frame.name` is relative to. Those of a `film` are no stills. A file that cannot be read is left out with a warning,
    and counted in `damaged`.

    Raises `SourceError` when not one of them can be read.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        folder: Path,
        name: str | None = None,
        rate: Fraction = SEQUENCE_RATE,
        film: bool = False,
    ) -> None:
        super().__init__(name or str(folder))
        self._paths = tuple(paths)
        self._folder = folder
        self._rate = rate
        self._is_film = film
        self.damaged = 0
        first = next((image for path in self._paths if (image := read_image(path)) is not None), None)
        if first is None:
            raise SourceError(_unreadable(self._paths, folder))
        self._info = SourceInfo(
            name=self.name,
            size=(first.shape[1], first.shape[0]),
            kind="images",
            frame_rate=rate,
            frame_count=len(self._paths),
            duration=len(self._paths) / rate,
            time_base=1 / rate,
            path=self._paths[0] if len(self._paths) == 1 else None,
            files=self._paths,
            is_film=film,
        )

    def __iter__(self) -> Iterator[Frame]:
        index = itertools.count()
        several: list[Path] = []
        for path in self._paths:
            if self._stopping.is_set():
                break
            data, why = b"", ""
            try:
                data = path.read_bytes()
            except OSError as error:
                why = f"it cannot be read: {error.strerror}"
            image = decoded(data)
            if image is None:
                self.damaged += 1
                why = why or f"it cannot be read as an image{_foreign_samples(data)}"
                logger.warning("left out %s: %s", path, why)
                continue
            if moves(data) or has_pages(data):
                several.append(path)
            number = next(index)
            name = os.path.relpath(path, self._folder)
            yield Frame(image, number, number / self._rate, time.monotonic(), name, is_still=not self._is_film)
        if several:
            others = f" and {len(several) - 1} more" if several[1:] else ""
            logger.warning("only the first picture is shown of %s%s: there are several in one file", several[0], others)


def read_image(path: Path) -> Image | None:
    """Return an image as (H, W, 3) uint8 BGR, upright; None when it cannot be read."""
    try:
        return decoded(path.read_bytes())  # not cv2.imread: it cannot open every name on Windows
    except OSError:
        return None


def decoded(data: bytes, *, upright: bool = True) -> Image | None:
    """The content of a file as `read_image` returns it; if not `upright`, as OpenCV has it before it is turned."""
    try:
        if upright and is_heif(data):
            return read_heif(data)
        has_alpha = may_be_transparent(data)
        opaque = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        flags = cv2.IMREAD_UNCHANGED if has_alpha else opaque
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (ValueError, av.FFmpegError, cv2.error):
        return None
    if pixels is None:
        return None
    clear = transparent_grey(data)
    if clear is not None and pixels.ndim == 2:  # OpenCV tells of transparent colours, but not of greys
        pixels[pixels == clear] = 0
    image = to_bgr(pixels)
    return orientation_of(data).apply(image) if has_alpha and upright else image


def to_bgr(pixels: np.ndarray) -> Image:
    """Turn what OpenCV decoded into (H, W, 3) uint8 BGR: 16 bits to 8, grey to colour, transparent to black."""
    if pixels.dtype == np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=1 / 257)
    if pixels.ndim == 2:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
    return on_black(pixels) if pixels.shape[2] == 4 else cast(Image, pixels)


def _unreadable(paths: Sequence[Path], folder: Path) -> str:
    if len(paths) == 1:
        why = "; is it damaged?"
        with suppress(OSError):
            why = _foreign_samples(paths[0].read_bytes()) or why
        return f"{paths[0]} cannot be read as an image{why}"
    return f"none of the {len(paths)} images in {folder} can be read"


def _foreign_samples(data: bytes) -> str:
    """What a file that cannot be read as an image has instead of colours, such as heights in a TIFF file; "" if that is
    not why.
    """
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.dtype in (np.uint8, np.uint16):
        return ""
    return f": its samples are {pixels.dtype}; convert them to 8 or 16 bits"
