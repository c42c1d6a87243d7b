"""Where frames come from: `open_source` chooses by what it is given."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from numbers import Real
from pathlib import Path

import cv2 as _cv2  # noqa: F401  before PyAV: both bring an X11 library, and the other way round windows hang

from stream_seg.addresses import Transport, check_transport
from stream_seg.addresses.credentials import label_of, labels_of
from stream_seg.errors import SourceError, UsageError
from stream_seg.feed_sound import FeedSound
from stream_seg.given import check_count, check_seconds, is_whole, refuse_no_path
from stream_seg.protocols import Source
from stream_seg.sources.camera import Webcam, is_webcam
from stream_seg.sources.chunks import is_webp
from stream_seg.sources.clip import Clip
from stream_seg.sources.files import (
    common_folder,
    fixed_folder,
    images_in,
    images_matching,
    is_image,
    is_numbered,
    numbered_images,
)
from stream_seg.sources.images import SEQUENCE_RATE, ImageFiles
from stream_seg.sources.memory import ListSource
from stream_seg.sources.network import OPEN_TIMEOUT, STALL_TIMEOUT, NetworkStream, names_a_file
from stream_seg.sources.pipe import Pipe
from stream_seg.sources.reconnecting import Reconnecting
from stream_seg.sources.screen import Screen, grab_rate, is_screen, parse_screen
from stream_seg.sources.seen import Seen
from stream_seg.sources.several import moves
from stream_seg.sources.synthetic import Synthetic, is_synthetic, parse_synthetic
from stream_seg.sources.timeline import meant_rate
from stream_seg.sources.video import Recording, refuse_missing, refuse_pipe
from stream_seg.sources.watched import Watched
from stream_seg.sources.webp import AnimatedWebP

__all__ = [
    "Clip",
    "ImageFiles",
    "ListSource",
    "NetworkStream",
    "Pipe",
    "Reconnecting",
    "Recording",
    "Screen",
    "Synthetic",
    "Watched",
    "Webcam",
    "label_of",
    "labels_of",
    "open_source",
]


def open_source(
    spec: str | int | Path | Sequence[str | Path],
    *,
    start: float | Fraction = 0,
    end: float | Fraction | None = None,
    max_frames: int | None = None,
    stride: int = 1,
    max_fps: float | Fraction | None = None,
    camera_size: tuple[int, int] | None = None,
    camera_fps: float | None = None,
    sequence_rate: float | Fraction = SEQUENCE_RATE,
    transport: Transport = "tcp",
    open_timeout: float = OPEN_TIMEOUT,
    stall_timeout: float = STALL_TIMEOUT,
    reconnect: float | None = None,
    sound: bool = False,
    results: Iterable[str | Path] = (),
) -> Source:
    """Return the source that `spec` names: a webcam, the screen, an address, a pipe, images or a video file.

    `spec`: a number or /dev/video* is a webcam, `screen` or `screen:1280x720+100+50` (width, height, x, y) what an X11
    screen ($DISPLAY) shows, `-` standard input, `synthetic:...` a made-up picture, `scheme://...` an address, a folder,
    glob, numbered sequence (`img_%04d.png`) or image file images, anything else a video file.
    A list is image files, one source in this order, whose names are told from the folder that all are in.
    `start` and `end` are seconds, `end` not included; `stride` keeps each n-th frame, `max_frames` so many at most,
    `max_fps` so many a second of a live source; so often a screen is captured, 30 times by default.
    `camera_size` (width, height) and `camera_fps` are wishes to a webcam, `sequence_rate` images per second.

    Webcams, screens and addresses are given `open_timeout` seconds to answer and `stall_timeout` seconds for each
    frame; `transport`, "tcp" or "udp", is how RTSP carries them. `reconnect` is how often in a row one that fails is
    opened again, also at the start: 0 never, `math.inf` for ever. By default for ever, but a webcam or a screen only
    when it once delivered. Recordings, wherever they are, are never opened again. With `sound`, what is heard from a
    live address or on standard input goes into the videos made from it, as that of other recordings always does.

    Of videos, and of folders with more images, that lie beside the images of a folder a warning says that they are left
    out, unless they are `results`: what was, and will be, written there.

    Raises `SourceError` when it is missing or cannot be read, as far as that is known without waiting for a device or
    the network, and `UsageError` for numbers that make no sense or an empty name.
    """
    begin, stop = seconds("start", start), None if end is None else seconds("end", end)
    if stop is not None and stop <= begin:
        raise UsageError(f"the end must come after the start, got start {begin} s and end {stop} s")
    check_count("stride", stride)
    if max_frames is not None:
        check_count("max_frames", max_frames)
    most = None if max_fps is None else meant_rate("max_fps", seconds("max_fps", max_fps))
    rate = meant_rate("sequence_rate", seconds("sequence_rate", sequence_rate))
    pace = None if camera_fps is None else float(meant_rate("camera_fps", seconds("camera_fps", camera_fps)))
    if camera_size is not None:
        _refuse_no_size(camera_size)
    _refuse_senseless(transport, open_timeout, stall_timeout, reconnect)

    def reconnecting(make: Callable[[float], Source], *, at_start: bool) -> Source:
        return Reconnecting(
            make,
            attempts=None if reconnect is None or math.isinf(reconnect) else int(reconnect),
            at_start=at_start,
            open_timeout=open_timeout,
            stall_timeout=stall_timeout,
        )

    paths = None if isinstance(spec, str | int | Path) else _paths(spec)
    name = str(spec)
    if not name:  # which a path takes for the current folder
        raise UsageError("the name of a source is empty; the current folder is written .")
    source: Source
    if paths is not None:
        source = _told(name, lambda: _photos(paths, rate))
    elif is_webcam(name):
        device = int(name) if name.isdecimal() else name
        source = reconnecting(lambda _: Webcam(device, size=camera_size, fps=pace), at_start=reconnect is not None)
    elif is_screen(name):
        part, fps = parse_screen(name), grab_rate(most, stall_timeout)
        source = reconnecting(lambda patience: Screen(part, fps=fps, timeout=patience), at_start=reconnect is not None)
    elif "://" in name:
        seen, heard = Seen(), FeedSound() if sound else None

        def stream(patience: float) -> NetworkStream:
            return NetworkStream(
                name,
                start=begin,
                transport=transport,
                open_timeout=patience,
                stall_timeout=stall_timeout,
                seen=seen,
                sound=heard,
            )

        source = reconnecting(stream, at_start=not names_a_file(name))
    else:
        source = _told(name, lambda: _file(name, begin, rate, list(results), sound=sound))
    if not begin and stop is None and max_frames is None and stride == 1 and most is None:
        return source
    return Clip(source, start=begin, end=stop, stride=stride, max_frames=max_frames, max_fps=most)


def _refuse_senseless(transport: str, open_timeout: float, stall_timeout: float, reconnect: float | None) -> None:
    check_transport(transport)
    for name, value in (("open_timeout", open_timeout), ("stall_timeout", stall_timeout)):
        check_seconds(name, value)
    if reconnect is not None and not (
        isinstance(reconnect, Real) and reconnect >= 0 and (math.isinf(reconnect) or reconnect == int(reconnect))
    ):
        raise UsageError(f"reconnect must be 0 or a whole number of times, got {reconnect!r}")


def _refuse_no_size(given: object) -> None:
    """Raise `UsageError` for what is not (width, height)."""
    sides = list(given) if isinstance(given, Iterable) else []
    if len(sides) != 2 or not all(is_whole(side, range(1, 1 << 31)) for side in sides):
        raise UsageError(f"camera_size must be (width, height) in pixels, as in (1280, 720), got {given!r}")


def _paths(given: object) -> list[Path]:
    """The images of a list. Raise `UsageError` for what is none."""
    if not isinstance(given, Iterable) or isinstance(given, bytes):
        raise UsageError(f"a source is given by its name or number, or as a list of images, not {given!r}")
    paths = list(given)
    for path in paths:
        refuse_no_path("an image", path)
    return [Path(path) for path in paths]


def _told(name: str, make: Callable[[], Source]) -> Source:
    """What `make` returns; what the system says against it as a `SourceError`."""
    try:
        return make()
    except OSError as error:  # a name too long, a folder that may not be looked into
        raise SourceError(f"cannot read {error.filename or name}: {error.strerror}") from error


def _photos(paths: Sequence[Path], rate: Fraction) -> Source:
    if not paths:
        raise UsageError("the list of images is empty")
    for path in paths:
        refuse_missing(path)
        refuse_pipe(path)
    name = str(paths[0]) if len(paths) == 1 else f"{paths[0]} ... {paths[-1]}"
    return ImageFiles(paths, folder=common_folder(paths), name=name, rate=rate)


def _file(spec: str, start: Fraction, rate: Fraction, results: Sequence[str | Path], *, sound: bool) -> Source:
    if spec == "-":
        return Pipe(sound=sound)
    if is_synthetic(spec):
        return parse_synthetic(spec)
    path = Path(spec)
    if path.is_dir():
        return ImageFiles(images_in(path, results), folder=path, rate=rate)
    if path.exists():
        return _image(path, spec, start, rate) if is_image(path) else Recording(path, start=start)
    if is_numbered(spec):
        return ImageFiles(numbered_images(spec), folder=path.parent, name=spec, rate=rate, film=True)
    if any(character in spec for character in "*?["):
        return ImageFiles(images_matching(spec, results), folder=fixed_folder(spec), name=spec, rate=rate)
    return Recording(path, start=start)


def _image(path: Path, name: str, start: Fraction, rate: Fraction) -> Source:
    """An image is one frame, but a film where it moves."""
    refuse_pipe(path)
    data = path.read_bytes()
    if not moves(data):
        return ImageFiles([path], folder=path.parent, name=name, rate=rate)
    return AnimatedWebP(path, data, name) if is_webp(data) else Recording(path, start=start)


def seconds(name: str, value: float | Fraction) -> Fraction:
    """Return an option as an exact number, 1.1 as 11/10; raise `UsageError` for a negative or endless one."""
    try:
        exact = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"{name} must be a number, got {value}") from None
    if exact < 0:
        raise UsageError(f"{name} must not be negative, got {value}")
    return exact
