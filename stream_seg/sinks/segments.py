"""SegmentedVideo: rendered frames into one video file after another, for ever."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

from stream_seg.detections import Detections
from stream_seg.errors import UsageError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.heap import trim
from stream_seg.protocols import Outcome, Sink
from stream_seg.sinks.colour import fit
from stream_seg.sinks.distant import original_of
from stream_seg.sinks.encoders import Encoder
from stream_seg.sinks.original import Original
from stream_seg.sinks.part import Target
from stream_seg.sinks.retention import MARK, Keep, Segments
from stream_seg.sinks.video import VideoFile

logger = logging.getLogger(__name__)


class SegmentedVideo(Sink):
    """Writes frames to video files of `seconds` each: `door.mp4` becomes `door_20261123-015316.mp4` and so on.

    A name tells the local time at which its segment began; one that is taken gets a number behind it. Each file begins
    with a key frame, at its time 0, and its last picture lasts until the first of the next, so that no frame and no
    moment is lost between them. A segment ends before the first frame that comes `seconds`, or a multiple of it, after
    the beginning of the run, or later. All files have the size of the first frame. The sound of a recording goes on
    from file to file. In all else a segment is like a `VideoFile`: a partial name until it is whole, and after a
    failure.

    With `keep`, segments beyond it are deleted at the beginning and after each segment: those of this run and of
    earlier ones of the same name, oldest first, and nothing that is not marked as a segment. The input, and what else
    the run reads (`spared`), stays.

    Raises from the constructor what `VideoFile` does, but never replaces a file; `UsageError` for an impossible length.
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
        self.path = Path(path)
        if not 0 < seconds < float("inf"):
            raise UsageError(f"a segment of {seconds:g} seconds cannot be; give it some length")
        self._seconds = Fraction(seconds)
        self._encoder = Encoder(self.path, codec)
        self._target = Target(self.path, True, None if source_path is None else Path(source_path))
        Target(self._name(1), True)  # the file system must take the longer names of segments, too
        self._keep = keep
        self._segments = Segments(self.path)
        inputs = spared if source_path is None else [source_path, *spared]
        self._spared = [Path(path).resolve() for path in inputs]
        self._info: SourceInfo | None = None
        self._original: Original | None = None
        self._file: VideoFile | None = None
        self._size: tuple[int, int] | None = None
        self._origin = Fraction(0)
        self._limit = Fraction(0)

    @property
    def kept(self) -> Path | None:
        """The partial file of the last segment, if that was not finished."""
        return None if self._file is None else self._file.kept

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
        self._original = original_of(info)

    def write(self, frame: Frame, detections: Detections) -> None:
        """Encode the frame, into the next file if it is time. Raises `OutputError` as `VideoFile` does."""
        if self._info is None:
            raise RuntimeError("open the sink before writing to it")
        if self._size is None:
            self._size = frame.size
            self._origin = frame.pts if self._info.is_live else self._info.start
            self._begin(self._info, frame)
        elif frame.pts >= self._limit and self._file is not None:
            self._file.finish(frame.pts)
            self._tidy()
            # An encoder takes much more than it touches. In what the one before has left, all counts as touched: four
            # of them were 14 MB larger after a few segments than in their first.
            trim()
            self._begin(dataclasses.replace(self._info, start=frame.pts), frame)
        assert self._file is not None
        self._file.write(frame.with_image(fit(frame.image, self._size)), detections)

    def holds(self) -> bool:
        """As of a `VideoFile`."""
        if self._file is not None:
            return self._file.holds()
        return self._original is not None and self._info is not None and self._original.waits_from(self._info.start)

    def close(self, outcome: Outcome) -> None:
        """Finish the last segment."""
        try:
            if self._file is not None:
                self._file.close(outcome)
                self._tidy()
        finally:
            if self._original is not None:
                self._original.close()

    def _begin(self, info: SourceInfo, first: Frame) -> None:
        passed = (first.pts - self._origin) // self._seconds
        self._limit = self._origin + (passed + 1) * self._seconds
        self._file = VideoFile(self._free_name(), codec=self._encoder, comment=MARK, original=self._original)
        self._file.open(info)

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
