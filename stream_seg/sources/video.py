"""Recording: a recording on this machine."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

from av.container import InputContainer

from stream_seg.addresses.credentials import refuse_lacking_scheme
from stream_seg.addresses.failures import reading
from stream_seg.errors import SourceError, did_you_mean
from stream_seg.frame import Frame, SourceInfo
from stream_seg.sources.container import open_container
from stream_seg.sources.decoded import Decoded
from stream_seg.sources.decoding import Decoder, recorded_frames

DURATION_TOLERANCE = 1
"""Seconds by which some containers (AVI, MPEG) state a length that is too short."""


PICTURES = ("gif", "ico", "image2")
"""What FFmpeg calls formats of pictures; others end in _pipe."""


class Recording(Decoded):
    """Every frame of a video file from `start` seconds on, exactly once, in order, with exact times.

    Any container and codec FFmpeg reads. The file is looked at by the constructor, so `info` is known at once; it is
    held open only inside `with`. `damaged` counts packets left out so far. A file of one picture in a format of
    pictures, as GIF or TGA, is an image: its `kind` is "images", and its frame a still that has a name.

    Raises `SourceError` for a file that is missing, not a video, only sound, or damaged beyond use, and when `start`
    lies behind its end.
    """

    def __init__(self, path: str | Path, *, start: Fraction = Fraction(0)) -> None:
        super().__init__(str(path), start)
        self._path = Path(path)
        refuse_missing(self._path)
        refuse_pipe(self._path)
        with reading(self.name), closing(Decoder(self._container, self.name)) as decoder:
            info = decoder.info("video", self._path)
            if info.duration is not None and start >= info.duration:  # which may be wrong
                decoder.seek(start)
                next(recorded_frames(decoder, start, lambda: False), None)
            self._is_image = _is_one_picture(decoder)
            if self._is_image:
                info = dataclasses.replace(info, kind="images", frame_count=1, files=(self._path,))
            self._info = part_of(info, start)

    def __iter__(self) -> Iterator[Frame]:
        frames = super().__iter__()
        if not self._is_image:
            return frames
        return (dataclasses.replace(frame, name=self._path.name, is_still=True) for frame in frames)

    def _open(self) -> None:
        with reading(self.name):
            self._decoder = Decoder(self._container, self.name, stopping=self._stopping.is_set)
            if self._start:
                self._decoder.seek(self._start)

    def _container(self) -> InputContainer:
        return open_container(str(self._path.absolute()), self.name)  # FFmpeg takes a relative 12:30.mp4 for an address


def _is_one_picture(decoder: Decoder) -> bool:
    """Whether a container just opened is of a format of pictures and holds one. Some formats hold several in a row."""
    is_of_pictures = decoder.format in PICTURES or decoder.format.endswith("_pipe")
    return is_of_pictures and len(list(itertools.islice(decoder, 2))) == 1


def refuse_missing(path: Path) -> None:
    """Raise `SourceError` for a path that is not there, with a close name from its folder."""
    if path.exists():
        return
    refuse_lacking_scheme(str(path))
    if path.is_symlink():
        raise SourceError(f"no such file: {path} is a symbolic link that leads nowhere")
    if not path.parent.is_dir():
        raise SourceError(f"no such file: {path} (there is no folder {path.parent})")
    raise SourceError(f"no such file: {path}{did_you_mean(path.name, (item.name for item in path.parent.iterdir()))}")


def refuse_pipe(path: Path) -> None:
    """Raise `SourceError` for a named pipe: it can be opened but once, and nobody can look into it first."""
    if path.is_fifo():
        raise SourceError(f"{path} is a named pipe; read it as standard input: stream-seg - < {path}")


def starting_at(info: SourceInfo, start: Fraction) -> SourceInfo:
    """As `part_of`; raise `SourceError` when nothing is left."""
    if start > info.start and info.duration is not None and start >= info.duration + DURATION_TOLERANCE:
        raise SourceError(f"{info.name} is {float(info.duration):.3f} s long; it cannot start at {float(start):g} s")
    return part_of(info, start)


def part_of(info: SourceInfo, start: Fraction) -> SourceInfo:
    """Describe the part of a recording from `start` seconds on. A length that ends before that is none."""
    if start <= info.start:
        return info
    if info.duration is not None and start >= info.duration:
        return dataclasses.replace(info, start=start, frame_count=None, duration=None)
    count = info.frame_count
    if count is not None and info.duration:
        count = max(1, math.ceil(count * (info.duration - start) / (info.duration - info.start)))
    return dataclasses.replace(info, start=start, frame_count=count)
