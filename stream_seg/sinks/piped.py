"""PipedVideo: rendered frames as a video into a pipe, for a player or a server that goes on with it."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import av

from stream_seg.detections import Detections
from stream_seg.errors import OutputError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.protocols import Outcome, Sink
from stream_seg.sinks.distant import original_of
from stream_seg.sinks.encoders import Encoder
from stream_seg.sinks.film import Film
from stream_seg.sinks.original import Original
from stream_seg.sinks.part import write_all


class PipedVideo(Sink):
    """Writes frames as Matroska to `file`, which has a descriptor and stays open: a pipe, `process.stdin`, a socket.

    All is as in a `VideoFile` of that kind: times, the sound of a recording, `codec`. A frame is in the pipe once the
    third after it has come. While the reader takes nothing, writing waits, and of live sources frames are dropped; a
    reader that goes away ends the run, as closing a window does.

    Raises `OutputError` from the constructor for a codec that is unknown or that Matroska cannot hold, and from `write`
    where the encoder cannot be opened or writing fails otherwise.
    """

    def __init__(self, file: IO[bytes], *, codec: str | None = None) -> None:
        self._encoder = Encoder(Path("-.mkv"), codec)
        self._pipe = _Pipe(file.fileno())
        self._info: SourceInfo | None = None
        self._original: Original | None = None
        self._film: Film | None = None
        self._has_begun = False

    @property
    def result(self) -> str | None:
        """What the summary calls it; None where nothing was written."""
        return "a pipe" if self._has_begun else None

    def open(self, info: SourceInfo) -> None:
        self._info = info
        self._original = original_of(info)

    def write(self, frame: Frame, detections: Detections) -> None:  # noqa: ARG002  the pictures show them
        if self._info is None:
            raise RuntimeError("open the sink before writing to it")
        if self._pipe.error is not None:
            return
        try:
            if self._film is None:
                original = self._original if self._original is not None and self._original.is_there() else None
                self._film = Film(self._pipe, self._encoder, self._info, frame, original, pause=0)
                self._has_begun = True
            self._film.write(frame)
        except (av.FFmpegError, OSError) as error:
            self._raise_unless_unread(error)

    def wants_stop(self) -> bool:
        """Whether the reader has gone."""
        return self._pipe.error is not None

    def holds(self) -> bool:
        """As of a `VideoFile`."""
        if self._film is not None:
            return self._film.waits()
        return self._original is not None and self._info is not None and self._original.waits_from(self._info.start)

    def close(self, outcome: Outcome) -> None:
        if outcome is not Outcome.COMPLETE and self._original is not None:
            self._original.hurry()
        film, self._film = self._film, None
        try:
            if film is not None:
                film.finish(complete=outcome is Outcome.COMPLETE)
        except (av.FFmpegError, OSError) as error:
            self._raise_unless_unread(error)
        finally:
            if self._original is not None:
                self._original.close()

    def _raise_unless_unread(self, error: Exception) -> None:
        cause = self._pipe.error or error
        if not isinstance(cause, BrokenPipeError):
            raise OutputError(f"cannot write to the pipe: {getattr(cause, 'strerror', None) or cause}") from error


class _Pipe:
    """The writable end of a pipe, as a `Film` wants it. What stands before the first picture is kept until it is
    certain, for a header with sound that will not do is made anew without."""

    def __init__(self, descriptor: int) -> None:
        self.error: OSError | None = None
        self._descriptor = descriptor
        self._header: bytearray | None = bytearray()

    def write(self, data: bytes) -> int:
        if self._header is not None:
            self._header += data
        elif self.error is None:
            try:
                write_all(self._descriptor, data)
            except OSError as error:
                self.error = error
                raise
        return len(data)

    def begin(self) -> None:
        header, self._header = self._header, None
        self.write(bytes(header or b""))

    def empty(self) -> None:
        self._header = bytearray()

    def checkpoint(self) -> None:
        """What was written cannot be had back."""
