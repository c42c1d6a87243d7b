"""Webcam: a camera on this machine, through OpenCV."""

from __future__ import annotations

import errno
import itertools
import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import cv2
import numpy as np

from stream_seg.errors import Reason, SourceError
from stream_seg.frame import Frame, Image, SourceInfo
from stream_seg.sources.clock import CLOCK, LiveClock
from stream_seg.sources.stoppable import Stoppable
from stream_seg.sources.timeline import LARGEST_RATE

logger = logging.getLogger(__name__)

MOTION_JPEG = cv2.VideoWriter.fourcc(*"MJPG")


def is_webcam(spec: str | int) -> bool:
    """Whether a source that is named like this is a webcam: by its number, or its path on Linux."""
    return str(spec).isdecimal() or str(spec).startswith(("/dev/video", "/dev/v4l/"))


class Webcam(Stoppable):
    """Frames of a camera, with times from the clock, beginning with 0.

    `device` is an index (0 is the first camera) or a path such as /dev/video2. `size` (width, height) and `fps` are
    wishes; None leaves them to the camera. What it grants is logged, and stands in `mode` and `info`.

    Raises `SourceError` inside `with`: for a camera that is missing, busy or sends nothing, and when it is unplugged.
    """

    def __init__(self, device: int | str = 0, *, size: tuple[int, int] | None = None, fps: float | None = None) -> None:
        super().__init__(f"webcam {device}")
        self._device = device
        self._wanted_size = size
        self._wanted_fps = fps
        self._capture: cv2.VideoCapture | None = None
        self._log_level: int | None = None
        self.mode = ""

    def __iter__(self) -> Iterator[Frame]:
        if self._capture is None:
            raise RuntimeError("the source is not open; use it in a with block")
        clock = LiveClock()
        for index in itertools.count():
            if self._stopping.is_set():
                return
            image = self._image(self._capture)
            captured_at = time.monotonic()
            yield Frame(image, index, clock.pts(captured_at), captured_at)

    def _image(self, capture: cv2.VideoCapture) -> Image:
        done, image = capture.read()
        if not done:
            raise SourceError(f"{self.name} sends no more pictures; was it unplugged?", Reason.UNPLUGGED)
        if (image.shape[1], image.shape[0]) != self.info.size:
            image = cv2.resize(image, self.info.size)
        return cast(Image, image)

    def _open(self) -> None:
        before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # our errors say it better
        if before != cv2.utils.logging.LOG_LEVEL_SILENT:  # else another camera set it, and will set it back
            self._log_level = before
        backend = cv2.CAP_V4L2 if sys.platform.startswith("linux") else cv2.CAP_ANY
        self._capture = cv2.VideoCapture(self._device, backend)
        if not self._capture.isOpened():
            raise refusal(self._device, self.name)
        request(self._capture, self._wanted_size, self._wanted_fps)
        done, image = self._capture.read()
        if not done:
            raise SourceError(f"{self.name} opens but sends no picture; is another program using it?", Reason.TIMEOUT)
        self._describe(self._capture, image)

    def _describe(self, capture: cv2.VideoCapture, image: np.ndarray) -> None:
        size = image.shape[1], image.shape[0]
        fps = capture.get(cv2.CAP_PROP_FPS)
        rate = Fraction(fps).limit_denominator(1001) if math.isfinite(fps) and 0 < fps <= LARGEST_RATE else None
        self.mode = describe_mode(size, pixel_format(capture), rate)
        asked = describe_wish(self._wanted_size, self._wanted_fps)
        logger.info("%s gives %s%s", self.name, self.mode, f" (asked for {asked})" if asked else "")
        self._info = SourceInfo(self.name, size, "live", rate, time_base=Fraction(1, CLOCK))

    def _release(self) -> None:
        if self._capture is not None:
            self._capture.release()
        if self._log_level is not None:
            cv2.utils.logging.setLogLevel(self._log_level)
            self._log_level = None


def request(capture: cv2.VideoCapture, size: tuple[int, int] | None, fps: float | None) -> None:
    """Ask for compressed pictures, a size, a rate and no backlog, in the order drivers insist on."""
    capture.set(cv2.CAP_PROP_FOURCC, MOTION_JPEG)  # first: uncompressed, USB carries few frames of a large picture
    if size is not None:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
    if fps is not None:
        capture.set(cv2.CAP_PROP_FPS, fps)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)


def refusal(device: int | str, name: str) -> SourceError:
    """Find out why OpenCV, which does not say, cannot open a camera."""
    reason, why = Reason.NOT_FOUND, "it is missing, or in use by another program"
    if sys.platform.startswith("linux"):
        reason, why = _why_not(f"/dev/video{device}" if isinstance(device, int) else device)
    return SourceError(f"cannot open {name}: {why}; {cameras()}", reason)


def _why_not(path: str) -> tuple[Reason, str]:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return Reason.REFUSED, "it is in use by another program"
        if error.errno in (errno.EACCES, errno.EPERM):
            return Reason.REFUSED, f"your user may not read {path} (on most systems: join the group video)"
        return Reason.NOT_FOUND, "it is missing"
    return Reason.REFUSED, "it is in use by another program, or is no camera that takes pictures"


def pixel_format(capture: cv2.VideoCapture) -> str:
    """Return the four letters of the format the camera sends, empty when it does not say."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC))
    letters = code.to_bytes(4, "little", signed=code < 0).decode("latin-1")
    return letters.strip() if letters.isprintable() else ""


def describe_mode(size: tuple[int, int], letters: str, rate: Fraction | None) -> str:
    """Return for example "1280x720 MJPG at 30 fps"."""
    pace = f"at {float(rate):g} fps" if rate else "at an unknown rate"
    return " ".join(part for part in (f"{size[0]}x{size[1]}", letters, pace) if part)


def describe_wish(size: tuple[int, int] | None, fps: float | None) -> str:
    """Return what was asked for, empty when nothing was."""
    return " at ".join(part for part in (f"{size[0]}x{size[1]}" if size else "", f"{fps:g} fps" if fps else "") if part)


def cameras() -> str:
    """Say which camera devices this machine shows."""
    found = sorted(str(path) for path in Path("/dev").glob("video*"))
    return f"this machine has {', '.join(found)}" if found else "this machine shows no camera"
