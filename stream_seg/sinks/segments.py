"""Segmented: one file after another, for ever or while something is seen, of videos (SegmentedVideo) or of what was
found (SegmentedObjects)."""

from __future__ import annotations

import dataclasses
import logging
import math
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
    before the first frame that comes `seconds`, or a multiple of it, after the beginning of the run, or later; without
    `seconds` there is no limit. It has a partial name until it is whole, and after a failure.

    With `events`, only what happens is recorded: a file begins with a frame in which something is shown, and ends so
    many seconds after the last such frame. What lies between two events is in no file.

    With `keep`, segments beyond it are deleted at the beginning and after each segment: those of this run and of
    earlier ones of the same name, oldest first, and nothing that is not marked as a segment. The input, and what else
    the run reads (`spared`), stays.

    Raises from the constructor what its files do, but never replaces one; `UsageError` for an impossible length, and
    where neither `seconds` nor `events` are given.
    """

    def __init__(
        self,
        path: str | Path,
        seconds: float | None = None,
        *,
        events: float | None = None,
        keep: Keep | None = None,
        source_path: str | Path | None = None,
        spared: Iterable[str | Path] = (),
    ) -> None:
        self.path = Path(path)
        if seconds is None and events is None:
            raise UsageError("a recording in segments needs their length, or events")
        for given in (seconds, events):
            if given is not None and not 0 < given < math.inf:
                raise UsageError(f"a segment of {given:g} seconds cannot be; give it some length")
        self._seconds = None if seconds is None else Fraction(seconds)
        self._events = None if events is None else Fraction(events)
        self._target = Target(self.path, True, None if source_path is None else Path(source_path))
        Target(self._name(1), True)  # the file system must take the longer names of segments, too
        self._keep = keep
        self._segments = Segments(self.path)
        inputs = spared if source_path is None else [source_path, *spared]
        self._spared = [Path(path).resolve() for path in inputs]
        self._info: SourceInfo | None = None
        self._file: S | None = None
        self._has_begun = False
        self._event_end: Fraction | None = None  # unless something is seen before
        self._origin: Fraction | None = None
        self._limit: Fraction | float = math.inf
        self._next = Fraction(0)  # when the next file may begin

    def _new(self, path: Path) -> S:
        """Return what writes a segment, marked as one, to `path`."""
        raise NotImplementedError

    @property
    def result(self) -> Path | None:
        """What the names of the segments have in common, with a star, None where there is none."""
        return self.path.with_stem(f"{self.path.stem}_*") if self._has_begun else None

    def open(self, info: SourceInfo) -> None:
        """Delete what is old. Raises `OutputError` when the input is the output."""
        self._target.refuse_input(info.path)
        if info.path is not None:
            self._spared.append(info.path.resolve())
        self._info = info
        self._next = info.start
        self._tidy()

    def write(self, frame: Frame, detections: Detections) -> None:
        """Write the frame, if it is wanted, into the next file if it is time. Raises `OutputError` as the file does."""
        if self._info is None:
            raise RuntimeError("open the sink before writing to it")
        if self._origin is None:
            self._origin = frame.pts if self._info.is_live else self._info.start
        else:
            self._next = frame.pts
        if self._file is not None and (end := self._end_before(frame)) is not None:
            self._file.finish(end)
            self._file = None
            self._tidy()
            # An encoder takes much more than it touches. In what the one before has left, all counts as touched: four
            # of them were 14 MB larger after a few segments than in their first.
            trim()
        if self._events is not None and len(detections):
            self._event_end = frame.pts + self._events
        if self._events is not None and (self._event_end is None or frame.pts >= self._event_end):
            self._pass_over(self._next)
            return
        if self._file is None:
            self._limit = self._limit_after(frame.pts - self._origin)
            self._file = self._new(self._free_name())
            self._file.open(dataclasses.replace(self._info, start=self._next))
            self._has_begun = True
        self._file.write(frame, detections)

    def _pass_over(self, until: Fraction) -> None:
        """Note that no file wants what is before the time `until` of the source."""

    def holds(self) -> bool:
        """As of the file."""
        return self._file is not None and self._file.holds()

    def close(self, outcome: Outcome) -> None:
        """Finish the last segment."""
        if self._file is not None:
            self._file.close(outcome)
            self._tidy()

    def _end_before(self, frame: Frame) -> Fraction | None:
        """When the present file ends, if that is before `frame`."""
        if self._event_end is not None and frame.pts >= self._event_end:
            return self._event_end
        return frame.pts if frame.pts >= self._limit else None

    def _limit_after(self, passed: Fraction) -> Fraction | float:
        """When a file ends at the latest that begins so long after the beginning of the run."""
        if self._seconds is None or self._origin is None:
            return math.inf
        return self._origin + (passed // self._seconds + 1) * self._seconds

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
    frame and no moment is lost between them, unless only `events` are wanted. All have the size of the first frame. The
    sound of a recording goes on from file to file; between two events it is in none.
    """

    def __init__(
        self,
        path: str | Path,
        seconds: float | None = None,
        *,
        events: float | None = None,
        keep: Keep | None = None,
        codec: str | None = None,
        source_path: str | Path | None = None,
        spared: Iterable[str | Path] = (),
    ) -> None:
        self._encoder = Encoder(Path(path), codec)
        super().__init__(path, seconds, events=events, keep=keep, source_path=source_path, spared=spared)
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
        if self._file is not None or self._original is None:
            return super().holds()
        return self._original.waits_from(self._next)

    def _pass_over(self, until: Fraction) -> None:
        if self._original is not None:
            self._original.pass_over(until)

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
