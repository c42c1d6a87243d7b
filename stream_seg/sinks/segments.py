"""Segmented: one file after another, for ever, of videos (SegmentedVideo) or of what was found (SegmentedObjects)."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from stream_seg.detections import Detections
from stream_seg.errors import UsageError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.heap import trim
from stream_seg.protocols import Outcome, Sink
from stream_seg.sinks.colour import fit
from stream_seg.sinks.distant import original_of
from stream_seg.sinks.encoders import Encoder
from stream_seg.sinks.objects import ObjectsFile
from stream_seg.sinks.original import Original
from stream_seg.sinks.part import Target
from stream_seg.sinks.retention import MARK, Keep, Segments
from stream_seg.sinks.video import VideoFile

logger = logging.getLogger(__name__)


class Segment(Protocol):
    """What writes one of the files."""

    def open(self, info: SourceInfo) -> None: ...

    def write(self, frame: Frame, detections: Detections) -> None: ...

    def holds(self) -> bool: ...

    def close(self, outcome: Outcome) -> None: ...

    def finish(self, until: Fraction) -> None:
        """Finish the file in the middle of a run; the next begins at the time `until` of the source."""


S = TypeVar("S", bound=Segment)


class Segmented(Sink, Generic[S]):
    """Writes frames to files of `seconds` each: `door.mp4` becomes `door_20261123-015316.mp4` and so on.

    A name tells the local time at which its segment began; one that is taken gets a number behind it. A segment ends
    before the first frame that comes `seconds`, or a multiple of it, after the beginning of the run, or later. It has a
    partial name until it is whole, and after a failure.

    With `keep`, segments beyond it are deleted at the beginning and after each segment: those of this run and of
    earlier ones of the same name, oldest first, and nothing that is not marked as a segment. The input, and what else
    the run reads (`spared`), stays.

    Raises from the constructor what its files do, but never replaces one; `UsageError` for an impossible length.
    """

    def __init__(
        self,
        path: str | Path,
        seconds: float,
        *,
        keep: Keep | None = None,
        source_path: str | Path | None = None,
        spared: Iterable[str | Path] = (),
    ) -> None:
        self.path = Path(path)
        if not 0 < seconds < float("inf"):
            raise UsageError(f"a segment of {seconds:g} seconds cannot be; give it some length")
        self._seconds = Fraction(seconds)
        self._target = Target(self.path, True, None if source_path is None else Path(source_path))
        Target(self._name(1), True)  # the file system must take the longer names of segments, too
        self._keep = keep
        self._segments = Segments(self.path)
        inputs = spared if source_path is None else [source_path, *spared]
        self._spared = [Path(path).resolve() for path in inputs]
        self._info: SourceInfo | None = None
        self._file: S | None = None
        self._origin = Fraction(0)
        self._limit = Fraction(0)

    def _new(self, path: Path) -> S:
        """Return what writes a segment, marked as one, to `path`."""
        raise NotImplementedError

    @property
    def result(self) -> Path | None:
        """What the names of the segments have in common, with a star, None where there is none."""
        return None if self._file is None else self.path.with_stem(f"{self.path.stem}_*")

    def open(self, info: SourceInfo) -> None:
        """Delete what is old. Raises `OutputError` when the input is the output."""
        self._target.refuse_input(info.path)
        if info.path is not None:
            self._spared.append(info.path.resolve())
        self._info = info
        self._tidy()

    def write(self, frame: Frame, detections: Detections) -> None:
        """Write the frame, into the next file if it is time. Raises `OutputError` as the file does."""
        if self._info is None:
            raise RuntimeError("open the sink before writing to it")
        if self._file is None:
            self._origin = frame.pts if self._info.is_live else self._info.start
            self._file = self._begun(self._info, frame)
        elif frame.pts >= self._limit:
            self._file.finish(frame.pts)
            self._tidy()
            # An encoder takes much more than it touches. In what the one before has left, all counts as touched: four
            # of them were 14 MB larger after a few segments than in their first.
            trim()
            self._file = self._begun(dataclasses.replace(self._info, start=frame.pts), frame)
        self._file.write(frame, detections)

    def holds(self) -> bool:
        """As of the file."""
        return self._file is not None and self._file.holds()

    def close(self, outcome: Outcome) -> None:
        """Finish the last segment."""
        if self._file is not None:
            self._file.close(outcome)
            self._tidy()

    def _begun(self, info: SourceInfo, first: Frame) -> S:
        passed = (first.pts - self._origin) // self._seconds
        self._limit = self._origin + (passed + 1) * self._seconds
        file = self._new(self._free_name())
        file.open(info)
        return file

    def _free_name(self) -> Path:
        number = 1
        while (path := self._name(number)).exists() or Target(path).part_path(1).exists():
            number += 1
        return path

    def _name(self, number: int) -> Path:
        """What the `number`th segment that begins now is called."""
        began = time.strftime("%Y%m%d-%H%M%S", time.localtime())
        counter = "" if number == 1 else f"-{number}"
        return self.path.with_name(f"{self.path.stem}_{began}{counter}{self.path.suffix}")

    def _tidy(self) -> None:
        if self._keep is not None:
            self._segments.remove_beyond(self._keep, spared=self._spared)


class SegmentedVideo(Segmented[VideoFile]):
    """Segments that are each like a `VideoFile`.

    Each begins with a key frame, at its time 0, and its last picture lasts until the first of the next, so that no
    frame and no moment is lost between them. All have the size of the first frame. The sound of a recording goes on
    from file to file.
    """

    def __init__(
        self,
        path: str | Path,
        seconds: float,
        *,
        keep: Keep | None = None,
        codec: str | None = None,
        source_path: str | Path | None = None,
        spared: Iterable[str | Path] = (),
    ) -> None:
        self._encoder = Encoder(Path(path), codec)
        super().__init__(path, seconds, keep=keep, source_path=source_path, spared=spared)
        self._original: Original | None = None
        self._size: tuple[int, int] | None = None

    @property
    def kept(self) -> Path | None:
        """The partial file of the last segment, if that was not finished."""
        return None if self._file is None else self._file.kept

    def open(self, info: SourceInfo) -> None:
        super().open(info)
        self._original = original_of(info)

    def write(self, frame: Frame, detections: Detections) -> None:
        self._size = self._size or frame.size
        super().write(frame.with_image(fit(frame.image, self._size)), detections)

    def holds(self) -> bool:
        if self._file is not None or self._original is None or self._info is None:
            return super().holds()
        return self._original.waits_from(self._info.start)

    def close(self, outcome: Outcome) -> None:
        try:
            super().close(outcome)
        finally:
            if self._original is not None:
                self._original.close()

    def _new(self, path: Path) -> VideoFile:
        return VideoFile(path, codec=self._encoder, comment=MARK, original=self._original)


class SegmentedObjects(Segmented[ObjectsFile]):
    """Segments that are each like an `ObjectsFile`. Frames are numbered, and times counted, on from file to file."""

    wants_pictures = False

    def _new(self, path: Path) -> ObjectsFile:
        return ObjectsFile(path, comment=MARK)
