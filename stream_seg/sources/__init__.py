"""Where frames come from: `open_source` chooses by what it is given."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2 as _cv2  # noqa: F401  before PyAV: both bring an X11 library, and the other way round windows hang

from stream_seg.errors import SourceError, UsageError
from stream_seg.protocols import Source
from stream_seg.sources.camera import Webcam
from stream_seg.sources.clip import Clip
from stream_seg.sources.fake import ListSource
from stream_seg.sources.images import (
    SEQUENCE_RATE,
    ImageFiles,
    fixed_folder,
    images_in,
    images_matching,
    is_image,
    is_numbered,
    numbered_images,
)
from stream_seg.sources.network import NetworkStream
from stream_seg.sources.pipe import Pipe
from stream_seg.sources.synthetic import Synthetic, is_synthetic, parse_synthetic
from stream_seg.sources.video import Recording

__all__ = [
    "Clip",
    "ImageFiles",
    "ListSource",
    "NetworkStream",
    "Pipe",
    "Recording",
    "Synthetic",
    "Webcam",
    "open_source",
]


def open_source(
    spec: str | int | Path,
    *,
    start: float | Fraction = 0,
    end: float | Fraction | None = None,
    max_frames: int | None = None,
    stride: int = 1,
    camera_size: tuple[int, int] | None = None,
    camera_fps: float | None = None,
    sequence_rate: float | Fraction = SEQUENCE_RATE,
) -> Source:
    """Return the source that `spec` names: a webcam, an address, a pipe, images or a video file.

    `spec`: a number or /dev/video* is a webcam, `-` standard input, `synthetic:...` a made-up picture, `scheme://...`
    an address, a folder, glob, numbered sequence (`img_%04d.png`) or image file images, anything else a video file.
    `start` and `end` are seconds, `end` not included; `stride` keeps each n-th frame, `max_frames` so many at most.
    `camera_size` (width, height) and `camera_fps` are wishes to a webcam, `sequence_rate` images per second.

    Raises `SourceError` when it is missing or cannot be read, as far as that is known without waiting for a device or
    the network, and `UsageError` for numbers that make no sense.
    """
    begin, stop = seconds("start", start), None if end is None else seconds("end", end)
    if stop is not None and stop <= begin:
        raise UsageError(f"the end must come after the start, got start {begin} s and end {stop} s")
    if stride < 1:
        raise UsageError(f"stride must be at least 1, got {stride}")
    if max_frames is not None and max_frames < 1:
        raise UsageError(f"max_frames must be at least 1, got {max_frames}")
    rate = seconds("sequence_rate", sequence_rate)
    if rate == 0:
        raise UsageError("sequence_rate must be more than 0")
    try:
        source = _choose(str(spec), begin, camera_size, camera_fps, rate)
    except OSError as error:  # a name too long, a folder that may not be looked into
        raise SourceError(f"cannot read {spec}: {error.strerror}") from error
    if not begin and stop is None and max_frames is None and stride == 1:
        return source
    return Clip(source, start=begin, end=stop, stride=stride, max_frames=max_frames)


def _choose(
    spec: str, start: Fraction, camera_size: tuple[int, int] | None, camera_fps: float | None, rate: Fraction
) -> Source:
    if spec.isdecimal():
        return Webcam(int(spec), size=camera_size, fps=camera_fps)
    if spec.startswith(("/dev/video", "/dev/v4l/")):
        return Webcam(spec, size=camera_size, fps=camera_fps)
    if spec == "-":
        return Pipe()
    if is_synthetic(spec):
        return parse_synthetic(spec)
    if "://" in spec:
        return NetworkStream(spec, start=start)
    path = Path(spec)
    if path.is_dir():
        return ImageFiles(images_in(path), folder=path, rate=rate)
    if path.exists():
        return (
            ImageFiles([path], folder=path.parent, name=spec, rate=rate)
            if is_image(path)
            else Recording(path, start=start)
        )
    if is_numbered(spec):
        return ImageFiles(numbered_images(spec), folder=path.parent, name=spec, rate=rate)
    if any(character in spec for character in "*?["):
        return ImageFiles(images_matching(spec), folder=fixed_folder(spec), name=spec, rate=rate)
    return Recording(path, start=start)


def seconds(name: str, value: float | Fraction) -> Fraction:
    """Return an option as an exact number, 1.1 as 11/10; raise `UsageError` for a negative or endless one."""
    try:
        exact = Fraction(str(value))
    except ValueError:
        raise UsageError(f"{name} must be a number, got {value}") from None
    if exact < 0:
        raise UsageError(f"{name} must not be negative, got {value}")
    return exact
