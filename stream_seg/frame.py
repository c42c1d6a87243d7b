"""Frame and SourceInfo: what one captured image and one source are."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stream_seg.feed_sound import FeedSound

Image = NDArray[np.uint8]
"""Pixels: (height, width, 3) uint8, BGR, C-contiguous."""

Kind = Literal["video", "live", "images"]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One captured image with its times.

    `image` (H, W, 3) uint8 BGR. `index` counts captured frames from 0; gaps are dropped frames. `pts` is the exact
    presentation time in seconds since the beginning of the recording, or since capture began for a live source.
    `captured_at` is `time.monotonic()` at capture. `name` is the file an image came from, None for video;
    `is_still` says of an image that it is one of its own, and not one of a sequence that is a film; `is_unchanged` that
    it shows what the frame before did, and was not looked at: what is found in it is what was found there.

    `pixels` is the image, or what makes it when it is first asked for, on any thread: with many live sources most
    frames are dropped, and making pixels is a quarter of what capturing one costs (docs/performance.md).
    """

    pixels: Image | Callable[[], Image]
    index: int
    pts: Fraction
    captured_at: float
    name: str | None = None
    is_still: bool = False
    is_unchanged: bool = False

    def __post_init__(self) -> None:
        if not callable(self.pixels):
            check_image(self.pixels)

    @classmethod
    def at(cls, image: Image, seconds: float | Fraction, index: int = 0) -> Frame:
        """An image of a film or camera of your own, `seconds` after its beginning, or by any clock that goes forward.

        What follows objects needs the times; `index` only counts frames.
        """
        exact = seconds if isinstance(seconds, Fraction) else float(seconds)  # NumPy's numbers, too
        return cls(image, index, Fraction(exact), time.monotonic())

    @classmethod
    def still(cls, image: Image) -> Frame:
        """An image that is one of its own, such as a photo."""
        return cls(image, 0, Fraction(0), time.monotonic(), is_still=True)

    @property
    def image(self) -> Image:
        """The pixels, (H, W, 3) uint8 BGR."""
        if callable(self.pixels):
            image = self.pixels()
            check_image(image)
            object.__setattr__(self, "pixels", image)
            return image
        return self.pixels

    def with_image(self, image: Image) -> Frame:
        """The same frame with another image."""
        return replace(self, pixels=image)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]

    def __reduce__(self) -> tuple[object, ...]:
        """With its pixels: what makes them does not go to another process."""
        return type(self), (self.image, *(getattr(self, one.name) for one in fields(self) if one.name != "pixels"))

    def __repr__(self) -> str:
        width, height = self.size
        return f"Frame({width}x{height}, index={self.index}, pts={float(self.pts):.3f})"


def check_image(image: object) -> None:
    """Raise `ValueError` for what is no image, as the None that `cv2.imread` gives for a file it cannot read."""
    if not isinstance(image, np.ndarray):
        raise ValueError(f"image must be an array (H, W, 3) uint8, got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
    if image.size == 0:
        raise ValueError(f"image is empty: {image.shape}")


def check_frame(frame: object) -> None:
    """Raise `TypeError` for what is no frame, such as an image that is not in one."""
    if not isinstance(frame, Frame):
        advice = ": make one of the image by Frame.at(image, seconds), or of a photo by Frame.still(image)"
        raise TypeError(
            f"a Frame is needed, got {type(frame).__name__}{advice if isinstance(frame, np.ndarray) else ''}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Reopening:
    """How a recording that is no local file is opened once more, for its sound beside its pictures.

    `name` is safe to print. `open` gives it as an `av.container.InputContainer`, after `open_timeout` seconds at the
    most, of which each read may take `stall_timeout`; it raises `SourceError` in words that tell no credentials. In
    what comes through a pipe nobody `can_seek`, and `is_ahead`, asked of what `open` gave, tells that reading on in it
    waits for the pictures.
    """

    name: str
    open: Callable[[], object] = field(repr=False)
    open_timeout: float
    stall_timeout: float
    can_seek: bool = True
    is_ahead: Callable[[object], bool] = field(default=lambda _: False, repr=False)


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is known of a source once it is open.

    `name` is safe to print (no credentials). `size` is (width, height) of its frames, rotation applied; the frames of a
    "video" or "live" source all have it, images may differ. `frame_rate` is the declared rate, None when unknown.
    `frame_count` is exact or an estimate (for progress), after `start`/`end`/stride. `duration` is the length of the
    recording in seconds. `time_base` is a unit every `pts` is a whole multiple of. `path` is the local file, if there
    is one: the place to read sound from; of another recording, `reopening` says how that is had, None where it cannot
    be; of a live source, `sound` is where it is heard, None where it is not. `files` are the images it reads, which no
    output may replace, and `is_film` says that they follow each other.
    `start` is the pts that an output begins with, `end` the pts it stops before.
    """

    name: str
    size: tuple[int, int]
    kind: Kind
    frame_rate: Fraction | None = None
    frame_count: int | None = None
    duration: Fraction | None = None
    time_base: Fraction = field(default=Fraction(1, 90000))
    path: Path | None = None
    files: tuple[Path, ...] = field(default=(), repr=False, kw_only=True)
    is_film: bool = field(default=False, kw_only=True)
    reopening: Reopening | None = field(default=None, repr=False, compare=False, kw_only=True)
    sound: FeedSound | None = field(default=None, repr=False, compare=False, kw_only=True)
    start: Fraction = Fraction(0)
    end: Fraction | None = None

    @property
    def is_live(self) -> bool:
        """Whether frames come at their own pace, so that old ones may be dropped."""
        return self.kind == "live"

    @property
    def has_stills(self) -> bool:
        """Whether it is images of their own, each of which is to be looked at by itself."""
        return self.kind == "images" and not self.is_film

    @property
    def has_pace(self) -> bool:
        """Whether it is a recording, be it one of images, whose times say how fast it is to be shown."""
        return self.kind == "video" or self.is_film
