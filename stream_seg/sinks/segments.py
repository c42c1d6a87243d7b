"""Segmented: one file after another, for ever or while something is seen, of videos (SegmentedVideo) or of what was
found (SegmentedObjects)."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import math
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from numbers import Real
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import av
import numpy as np

from stream_seg.detections import Detections
from stream_seg.errors import OutputError, UsageError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.heap import trim
from stream_seg.protocols import Outcome, Sink
from stream_seg.sinks.colour import fit
from stream_seg.sinks.encoders import Encoder
from stream_seg.sinks.objects import ObjectsFile
from stream_seg.sinks.original import Original
from stream_seg.sinks.originals import original_of
from stream_seg.sinks.part import TakenError, Target, rename_unless_taken
from stream_seg.sinks.preroll import MOST_SECONDS, Ahead, Encoded, PreRoll
from stream_seg.sinks.retention import MARK, Keep, Segments
from stream_seg.sinks.video import VideoFile

logger = logging.getLogger(__name__)

LATEST_SECONDS = 10.0
"""By how much later than usual a frame of a live source may come and still be of the event that it was taken in: a
network that hung delivers them afterwards."""

LATE_SECONDS = 1.0
"""For how long a file that has ended waits for what belongs to it and is late, while the next one is written: FFmpeg
sends the sound of transport streams up to 0.35 s after its pictures. Until then an encoder more is open."""


class Segment(Sink, Protocol):
    """What writes one of the files."""

    def finish(self, until: Fraction) -> None:
        """Finish the file in the middle of a run; the next begins at the time `until` of the source."""


S = TypeVar("S", bound=Segment)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class _Ended(Generic[S]):
    """A file that has ended at the time `until` of the source, and is finished `latest` by the monotonic clock."""

    file: S
    until: Fraction
    began: float
    latest: float


class Segmented(Sink, Generic[S, T]):
    """Writes frames to files of `seconds` each: `door.mp4` becomes `door_20261123-015316.mp4` and so on.

    A name tells the local time at which its segment began; one that is taken gets a number behind it. A segment ends
    before the first frame that comes `seconds`, or a multiple of it, after the beginning of the run, or later; without
    `seconds` there is no limit. It has a partial name until it is whole, and after a failure.

    With `events`, only what happens is recorded: a file begins with a frame in which something is shown, and ends so
    many seconds after the last such frame. What lies between two events is in no file. That of a live source which is
    away by then is finished ten seconds later.

    With `before`, the file of an event begins so many seconds earlier (300 at most), or up to a second more, with a key
    frame. Where the run has begun later, or the event before has ended, which stays one of its own, or a live source
    has come back, it begins there: no frame is in two files. What may be wanted is kept in memory, as a T for each
    frame.

    With `keep`, segments beyond it are deleted at the beginning and after each segment: those of this run and of
    earlier ones of the same name, oldest first, and nothing that is not marked as a segment. The input, and what else
    the run reads (`spared`), stays.

    Raises from the constructor what its files do, but never replaces one; `UsageError` for an impossible length, where
    neither `seconds` nor `events` are given, and for `before` without `events`.
    """

    of_one_feed = True

    def __init__(
        self,
        path: str | Path,
        seconds: float | None = None,
        *,
        events: float | None = None,
        before: float | None = None,
        keep: Keep | None = None,
        source_path: str | Path | None = None,
        spared: Iterable[str | Path] = (),
    ) -> None:
        self.path = Path(path)
        if seconds is None and events is None:
            raise UsageError("a recording in segments needs their length, or events")
        for given in (seconds, events, before):
            if given is not None and not isinstance(given, Real):
                raise UsageError(f"lengths are numbers of seconds, as parse_duration('10m') gives, not {given!r}")
        for given in (seconds, events):
            if given is not None and not 0 < given < math.inf:
                raise UsageError(f"a segment of {given:g} seconds cannot be; give it some length")
        if before is not None and events is None:
            raise UsageError("what is kept from before an event needs events, as in events=10")
        if before is not None and not 0 < before <= MOST_SECONDS:
            raise UsageError(
                f"{before:g} seconds before an event cannot be kept in memory; give more than 0, {MOST_SECONDS} at most"
            )
        if keep is not None and not isinstance(keep, Keep):
            raise UsageError(f"what is kept is given as a Keep, as parse_keep('24h') gives, not {keep!r}")
        self._seconds = None if seconds is None else Fraction(seconds)
        self._events = None if events is None else Fraction(events)
        self._before = None if before is None else Fraction(before)
        self._target = Target(self.path, True, source_path)
        self._began = time.time()  # when the present file did, by the system's clock
        Target(self._name(self._began, 1), True)  # the file system must take the longer names of segments, too
        self._keep = keep
        self._segments = Segments(self.path)
        inputs = spared if source_path is None else [source_path, *spared]
        self._spared = [Path(path).resolve() for path in inputs]
        self._info: SourceInfo | None = None
        self._file: S | None = None
        self._ended: _Ended[S] | None = None  # the file before, while something of it is late
        self._preroll: PreRoll[T] | None = None
        self._has_begun = False
        self._event_end: Fraction | None = None  # unless something is seen before
        self._over = math.inf  # when, by the monotonic clock, no frame of the event will come any more
        self._origin: Fraction | None = None
        self._limit: Fraction | float = math.inf
        self._next = Fraction(0)  # when the next file may begin

    def _new(self, path: Path) -> S:
        """Return what writes a segment, marked as one, to `path`."""
        raise NotImplementedError

    def _set_aside(self, preroll: PreRoll[T], frame: Frame, detections: Detections, *, is_key: bool) -> None:
        """Add to `preroll` what a file would need of a frame that no event wants yet."""
        raise NotImplementedError

    def _begin_with(self, file: S, preroll: PreRoll[T]) -> None:
        """Have a file that is open begin with what was set aside."""
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
        self._file, self._ended, self._origin, self._event_end = None, None, None, None
        self._has_begun, self._over = False, math.inf
        self._next = info.start
        if self._before is not None:
            self._preroll = PreRoll(self._before, is_live=info.is_live)
        self._tidy()

    def write(self, frame: Frame, detections: Detections) -> None:
        """Write the frame, if it is wanted, into the next file if it is time. Raises `OutputError` as the file does."""
        if self._info is None:
            raise RuntimeError("open the sink before writing to it")
        self._finish_ended(at_once=False)
        if self._origin is None:
            self._origin = frame.pts if self._info.is_live else self._info.start
        else:
            self._next = frame.pts
        if self._file is not None and (end := self._end_before(frame)) is not None:
            self._end(self._file, end)
        if self._events is not None and len(detections):
            self._event_end = frame.pts + self._events
        if self._events is not None and (self._event_end is None or frame.pts >= self._event_end):
            if self._preroll is not None:
                is_key = self._preroll.advance(frame.pts, self._next)
                self._set_aside(self._preroll, frame, detections, is_key=is_key)
            self._pass_over(self._start)
            return
        file = self._begin(frame, self._info, self._origin) if self._file is None else self._file
        file.write(frame, detections)
        if self._event_end is not None and self._info.is_live:
            self._over = time.monotonic() + float(self._event_end - frame.pts) + LATEST_SECONDS

    def wants_stop(self) -> bool:
        """Never. A file that has ended, or its event, is finished meanwhile: its live source may be away for long."""
        self._finish_ended(at_once=False)
        if self._file is not None and self._event_end is not None and time.monotonic() >= self._over:
            self._finish(self._file, self._event_end, self._began)
            self._file = self._event_end = None
        return False

    def _end(self, file: S, until: Fraction) -> None:
        """End the present file at the time `until` of the source."""
        self._finish_ended(at_once=True)
        if self._awaits(file, until):
            self._ended = _Ended(file, until, self._began, time.monotonic() + LATE_SECONDS)
        else:
            self._finish(file, until, self._began)
        self._file = None

    def _awaits(self, file: S, until: Fraction) -> bool:  # noqa: ARG002
        """Whether something is late that belongs to a file which ends at the time `until` of the source."""
        return False

    def _finish_ended(self, *, at_once: bool) -> None:
        """Finish the file before, if it is still open, once all that belongs to it has come, or at once."""
        ended = self._ended
        if ended is None:
            return
        if at_once or time.monotonic() >= ended.latest or not self._awaits(ended.file, ended.until):
            self._ended = None
            self._finish(ended.file, ended.until, ended.began)

    def _finish(self, file: S, until: Fraction, began: float) -> None:
        """Finish a file that began at `began`, by the system's clock, and ends at the time `until` of the source."""
        with self._numbered_if_taken(file, began):
            file.finish(until)
        self._tidy()
        # An encoder takes much more than it touches. In what the one before has left, all counts as touched: four of
        # them were 14 MB larger after a few segments than in their first.
        trim()

    def _begin(self, frame: Frame, info: SourceInfo, origin: Fraction) -> S:
        """Begin a file with what is kept from before `frame`, which comes next. The run began at `origin`."""
        if self._seconds is not None:
            self._limit = origin + ((frame.pts - origin) // self._seconds + 1) * self._seconds
        if self._preroll is not None:
            self._preroll.let_go(frame.pts)
        self._began = self._began_at(frame, info)
        file = self._file = self._new_free()
        file.open(dataclasses.replace(info, start=self._start))
        self._has_begun = True
        if self._preroll is not None:
            self._begin_with(file, self._preroll)
        return file

    @property
    def _start(self) -> Fraction:
        """When a file begins that begins now."""
        start = None if self._preroll is None else self._preroll.start
        return self._next if start is None else start

    def _pass_over(self, until: Fraction) -> None:
        """Note that no file wants what is before the time `until` of the source."""

    def holds(self) -> bool:
        """As of the file."""
        return self._file is not None and self._file.holds()

    def close(self, outcome: Outcome) -> None:
        """Finish the last segment."""
        self._preroll = None  # the sinks of many films stay until the last of them is done
        try:
            self._finish_ended(at_once=True)
        finally:
            if self._file is not None:
                with self._numbered_if_taken(self._file, self._began):
                    self._file.close(outcome)
                self._tidy()

    def _end_before(self, frame: Frame) -> Fraction | None:
        """When the present file ends, if that is before `frame`."""
        if self._event_end is not None and frame.pts >= self._event_end:
            return self._event_end
        return frame.pts if frame.pts >= self._limit else None

    def _began_at(self, frame: Frame, info: SourceInfo) -> float:
        """When, by the system's clock, the first picture of a file was there that goes on with `frame`."""
        first = None if self._preroll is None else self._preroll.first
        return time.time() - (float(frame.pts - first) if info.is_live and first is not None else 0)

    def _free_name(self, began: float) -> Path:
        number = 1
        while (path := self._name(began, number)).exists() or Target(path, True).part_path(1).exists():
            number += 1
        return path

    def _new_free(self) -> S:
        while True:
            with contextlib.suppress(TakenError):  # by another run since it was looked: the next number is free
                return self._new(self._free_name(self._began))

    @contextlib.contextmanager
    def _numbered_if_taken(self, file: S, began: float) -> Iterator[None]:
        """Give a file that is finished meanwhile a free name where another run has taken its own since it was begun."""
        try:
            yield
        except TakenError as error:
            if error.kept is None:
                raise
            # Its frames, which know it, hold the encoder: in cycles, since Python 3.12.
            error.with_traceback(None)
            self._rename(error.kept, began)
            if file is self._file:
                self._file = None

    def _rename(self, part: Path, began: float) -> None:
        """Give the partial file of a segment that is whole a name nobody has."""
        while True:
            path = self._free_name(began)
            try:
                rename_unless_taken(part, path)
            except FileExistsError:
                continue
            except OSError as error:
                raise OutputError(
                    f"cannot rename {part} to {path}: {error.strerror}; the result is in the former"
                ) from error
            return

    def _name(self, began: float, number: int) -> Path:
        """What a segment is called that began at `began`; a `number` above 1 is for a name that is taken."""
        when = time.strftime("%Y%m%d-%H%M%S", time.localtime(began))
        counter = "" if number == 1 else f"-{number}"
        return self.path.with_name(f"{self.path.stem}_{when}{counter}{self.path.suffix}")

    def _tidy(self) -> None:
        if self._keep is not None:
            self._segments.remove_beyond(self._keep, spared=self._spared)


class SegmentedVideo(Segmented[VideoFile, Encoded]):
    """Segments that are each like a `VideoFile`.

    Each begins with a key frame, at its time 0, and its last picture lasts until the first of the next, so that no
    frame and no moment is lost between them, unless only `events` are wanted. All have the size of the first frame. The
    `sound` goes on from file to file; between two events it is in none. Where that of a live source is late, a file is
    finished up to a second after the next has begun.

    What may come `before` an event is encoded all the time, which costs what recording it does, and kept in memory so.
    """

    def __init__(
        self,
        path: str | Path,
        seconds: float | None = None,
        *,
        events: float | None = None,
        before: float | None = None,
        keep: Keep | None = None,
        codec: str | None = None,
        source_path: str | Path | None = None,
        spared: Iterable[str | Path] = (),
        sound: bool = True,
    ) -> None:
        self._encoder = Encoder(Path(path), codec)
        if self._encoder.is_gif:  # which has no room for the mark of a segment
            raise UsageError(f"{path} cannot be had in segments; name a video, as in {Path(path).stem}.mp4")
        super().__init__(path, seconds, events=events, before=before, keep=keep, source_path=source_path, spared=spared)
        self._has_sound = sound
        self._ahead: Ahead | None = None
        self._original: Original | None = None
        self._size: tuple[int, int] | None = None

    @property
    def kept(self) -> Path | None:
        """The partial file of the last segment, if that was not finished."""
        return None if self._file is None else self._file.kept

    def open(self, info: SourceInfo) -> None:
        super().open(info)
        self._size = None
        self._original = original_of(info, sound=self._has_sound)

    def write(self, frame: Frame, detections: Detections) -> None:
        self._size = self._size or frame.size
        if self._original is not None:
            self._original.see(frame)
        super().write(frame.with_image(fit(frame.image, self._size)), detections)

    def holds(self) -> bool:
        if self._file is not None or self._original is None:
            return super().holds()
        if self._original.waits_from(self._start):
            return True
        return self._preroll is not None and self._original.waits_for(self._next)  # up to which it is wanted at once

    def _awaits(self, file: VideoFile, until: Fraction) -> bool:
        return file.awaits(until)

    def _pass_over(self, until: Fraction) -> None:
        if self._original is not None:
            self._original.pass_over(until)

    def close(self, outcome: Outcome) -> None:
        try:
            super().close(outcome)
        finally:
            if self._ahead is not None:
                with contextlib.suppress(av.FFmpegError):  # of what nobody wants
                    self._ahead.close()
                self._ahead = None
            if self._original is not None:
                self._original.close()
                self._original = None

    def _new(self, path: Path) -> VideoFile:
        return VideoFile(path, codec=self._encoder, comment=MARK, original=self._original, sound=self._has_sound)

    def _set_aside(self, preroll: PreRoll[Encoded], frame: Frame, detections: Detections, *, is_key: bool) -> None:  # noqa: ARG002
        assert self._info is not None
        try:
            if self._ahead is None:
                self._ahead = Ahead(self._encoder, self._info, frame.size)
            for picture in self._ahead.encode(frame, is_key=is_key):
                preroll.add(picture.time, picture)
        except av.FFmpegError as error:
            raise self._failed(error) from error

    def _begin_with(self, file: VideoFile, preroll: PreRoll[Encoded]) -> None:
        if self._ahead is None:
            return
        try:
            for picture in self._ahead.close():
                preroll.add(picture.time, picture)
        except av.FFmpegError as error:
            raise self._failed(error) from error
        self._ahead = None
        # Some encoders, such as FFV1, make key frames when they like, not when they are asked to.
        file.begin_with(list(itertools.dropwhile(lambda picture: not picture.is_key, preroll.take())))

    def _failed(self, error: av.FFmpegError) -> OutputError:
        return OutputError(f"cannot encode what comes before an event of {self.path}: {error.strerror}")


class SegmentedObjects(Segmented[ObjectsFile, tuple[Frame, Detections]]):
    """Segments that are each like an `ObjectsFile`. Frames are numbered, and times counted, on from file to file."""

    wants_pictures = False

    def _new(self, path: Path) -> ObjectsFile:
        return ObjectsFile(path, comment=MARK)

    def _set_aside(
        self,
        preroll: PreRoll[tuple[Frame, Detections]],
        frame: Frame,
        detections: Detections,
        *,
        is_key: bool,  # noqa: ARG002  each line can be the first
    ) -> None:
        blank = np.broadcast_to(np.uint8(0), frame.image.shape)  # of its size, which is all that is told of a picture
        preroll.add(frame.pts, (frame.with_image(blank), detections))

    def _begin_with(self, file: ObjectsFile, preroll: PreRoll[tuple[Frame, Detections]]) -> None:
        for frame, detections in preroll.take():
            file.write(frame, detections)
