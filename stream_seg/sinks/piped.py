"""PipedVideo and PipedObjects: rendered frames as a video, or what was found as lines of JSON, into a pipe, for a
program that goes on with it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import av

from stream_seg.detections import Detections
from stream_seg.errors import OutputError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.protocols import Outcome, Sink
from stream_seg.sinks.encoders import Encoder
from stream_seg.sinks.film import Film
from stream_seg.sinks.objects import Record
from stream_seg.sinks.original import Original
from stream_seg.sinks.originals import original_of
from stream_seg.sinks.pipe import Pipe

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.04
"""How long a reader is waited for at a time, for who asks wants an answer within 50 ms."""

_PARTING_SECONDS = 3.0
"""How long a reader may take for the rest of a run that was stopped."""


class _Piped(Sink):
    """What both have in common: live sources go on without a reader that takes nothing, recordings wait for it."""

    _rest = ""
    """What of it is lost where the reader does not take the end."""

    def __init__(self, file: IO[bytes] | Pipe) -> None:
        self._pipe = file if isinstance(file, Pipe) else Pipe(file.fileno())
        self._pipe.users.add(self)
        self._info: SourceInfo | None = None
        self._has_begun = False
        self._is_asked = False  # whether it holds

    @property
    def result(self) -> str | None:
        """What the summary calls it; None where nothing was written."""
        return "a pipe" if self._has_begun else None

    def open(self, info: SourceInfo) -> None:
        self._info = info

    def wants_stop(self) -> bool:
        """Whether the reader has gone."""
        return self._pipe.error is not None

    def _has_room(self, *, is_live: bool) -> bool:
        """Whether a frame is wanted: once all before it was taken, or if who asks has waited long enough for that."""
        if self._pipe.error is not None:
            return False
        if is_live:
            return self._pipe.pass_on(0)
        return self._is_asked or self._pipe.pass_on(math.inf)

    def _is_taken(self) -> bool:
        """Whether the reader has taken all, which is waited for a little. Whoever asks is to wait by asking again."""
        self._is_asked = True
        return self._pipe.pass_on(_POLL_SECONDS)

    def _part(self, outcome: Outcome) -> None:
        """Have the reader take the rest; of a run that was stopped, what it takes of it within three seconds."""
        self._pipe.users.discard(self)
        if self._pipe.users:  # the last one to go sees to what waits, be it of others
            return
        if not self._pipe.pass_on(math.inf if outcome is Outcome.COMPLETE else _PARTING_SECONDS):
            logger.warning("the reader of the pipe took nothing: %s not in it", self._rest)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Say what goes wrong with the pipe, but for a reader that has gone: `wants_stop` tells of that."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            cause = self._pipe.error or error
            if not isinstance(cause, BrokenPipeError):
                raise OutputError(f"cannot write to the pipe: {getattr(cause, 'strerror', None) or cause}") from error


class PipedVideo(_Piped):
    """Writes frames as Matroska to `file`, which has a descriptor and stays open: a pipe, `process.stdin`, a socket.

    All is as in a `VideoFile` of that kind: times, `sound`, `codec`. A frame is in the pipe once the
    third after it has come. While the reader takes nothing, frames of live sources are left out, and recordings wait,
    as `holds` tells: whoever does not ask waits in `write`. A reader that goes away ends the run, as closing a window
    does.

    Raises `OutputError` from the constructor for a codec that is unknown or that Matroska cannot hold, and from `write`
    where the encoder cannot be opened or writing fails otherwise.
    """

    _rest = "the end of the video is"

    def __init__(self, file: IO[bytes] | Pipe, *, codec: str | None = None, sound: bool = True) -> None:
        self._encoder = Encoder(Path("-.mkv"), codec)
        super().__init__(file)
        self._has_sound = sound
        self._original: Original | None = None
        self._film: Film | None = None

    def open(self, info: SourceInfo) -> None:
        super().open(info)
        self._original = original_of(info, sound=self._has_sound)

    def write(self, frame: Frame, detections: Detections) -> None:  # noqa: ARG002  the pictures show them
        if self._info is None:
            raise RuntimeError("open the sink before writing to it")
        with self._writing():
            if not self._has_room(is_live=self._info.is_live):
                return
            if self._film is None:
                self._film = Film(self._pipe, self._encoder, self._info, frame, self._original, pause=0)
                self._has_begun = True
            self._film.write(frame)
            self._pipe.pass_on(_POLL_SECONDS)

    def holds(self) -> bool:
        """As of a `VideoFile`, and while the reader of a recording, or of the rest of any source, takes nothing."""
        if self._info is None:
            return False
        if not self._has_begun:
            return self._original is not None and self._original.waits_from(self._info.start)
        if self._info.is_live and self._film is not None:
            return False
        with self._writing():
            return not self._is_taken() or (self._film is not None and self._film.waits())
        return False

    def ended(self) -> None:
        """Have the rest wait for the reader, for which a run can still be stopped: `holds` tells."""
        with self._writing():
            self._finish(complete=True)

    def close(self, outcome: Outcome) -> None:
        """Write the rest; of a run that was stopped, what the reader takes of it within three seconds."""
        is_complete = outcome is Outcome.COMPLETE
        if not is_complete and self._original is not None:
            self._original.hurry()
        try:
            with self._writing():
                self._finish(complete=is_complete)
                self._part(outcome)
        finally:
            if self._original is not None:
                self._original.close()

    def _finish(self, *, complete: bool) -> None:
        film, self._film = self._film, None
        if film is not None:
            film.finish(complete=complete)


class PipedObjects(_Piped):
    """Writes the lines of an `ObjectsFile` to `file`, which has a descriptor and stays open: a pipe, `process.stdin`.

    Each is in the pipe as soon as its frame is written. While the reader takes nothing, lines of live sources are left
    out, whole ones, and recordings wait, as for a `PipedVideo`; a reader that goes away ends the run.

    Several sources share a pipe where each has a `PipedObjects` with the same `Pipe`, and a `source`, a name that goes
    into its lines.

    Raises `OutputError` where writing fails otherwise.
    """

    wants_pictures = False

    _rest = "the last lines are"

    def __init__(self, file: IO[bytes] | Pipe, *, source: str | None = None) -> None:
        super().__init__(file)
        self._source = source
        self._has_ended = False

    def write(self, frame: Frame, detections: Detections) -> None:
        if self._info is None:
            raise RuntimeError("open the sink before writing to it")
        is_live = self._info.is_live
        with self._writing():
            if self._has_room(is_live=is_live):
                self._pipe.write(Record.of(frame, detections, is_live=is_live, source=self._source).line())
                self._has_begun = True
                self._pipe.pass_on(0)

    def wants_stop(self) -> bool:
        """Whether the reader has gone. What it had no room for before is passed on meanwhile."""
        with self._writing():
            self._pipe.pass_on(0)
        return super().wants_stop()

    def holds(self) -> bool:
        """While the reader of a recording, or of the rest of the last source, takes nothing."""
        is_last = self._has_ended and len(self._pipe.users) == 1
        if self._info is None or (self._info.is_live and not is_last):
            return False
        with self._writing():
            return not self._is_taken()
        return False

    def ended(self) -> None:
        self._has_ended = True

    def close(self, outcome: Outcome) -> None:
        """Pass the rest on; of a run that was stopped, what the reader takes of it within three seconds."""
        with self._writing():
            self._part(outcome)
