"""PipedVideo: rendered frames as a video into a pipe, for a player or a server that goes on with it."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
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

logger = logging.getLogger(__name__)

if sys.platform == "win32":
    _AT_ONCE = 65536

    def _takes_some(descriptor: int, seconds: float) -> bool:  # noqa: ARG001  as elsewhere
        """Whether `_AT_ONCE` bytes can be written without waiting; there that cannot be known."""
        return True
else:
    import select

    _AT_ONCE = select.PIPE_BUF

    def _takes_some(descriptor: int, seconds: float) -> bool:
        """Whether `_AT_ONCE` bytes can be written without waiting, or writing fails; waits so long for that."""
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        return bool(poll.poll(None if math.isinf(seconds) else seconds * 1000))


_POLL_SECONDS = 0.04
"""How long a reader is waited for at a time, for who asks wants an answer within 50 ms."""

_PARTING_SECONDS = 3.0
"""How long a reader may take for the rest of a run that was stopped."""


class PipedVideo(Sink):
    """Writes frames as Matroska to `file`, which has a descriptor and stays open: a pipe, `process.stdin`, a socket.

    All is as in a `VideoFile` of that kind: times, the sound of a recording, `codec`. A frame is in the pipe once the
    third after it has come. While the reader takes nothing, frames of live sources are left out, and recordings wait,
    as `holds` tells: whoever does not ask waits in `write`. A reader that goes away ends the run, as closing a window
    does.

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
        self._is_asked = False  # whether it holds

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
        try:
            if not self._has_room(is_live=self._info.is_live):
                return
            if self._film is None:
                original = self._original if self._original is not None and self._original.is_there() else None
                self._film = Film(self._pipe, self._encoder, self._info, frame, original, pause=0)
                self._has_begun = True
            self._film.write(frame)
            self._pipe.pass_on(_POLL_SECONDS)
        except (av.FFmpegError, OSError) as error:
            self._raise_unless_unread(error)

    def _has_room(self, *, is_live: bool) -> bool:
        """Whether a frame is wanted: once all before it was taken, or if who asks has waited long enough for that."""
        if self._pipe.error is not None:
            return False
        if is_live:
            return self._pipe.pass_on(0)
        return self._is_asked or self._pipe.pass_on(math.inf)

    def wants_stop(self) -> bool:
        """Whether the reader has gone."""
        return self._pipe.error is not None

    def holds(self) -> bool:
        """As of a `VideoFile`, and while the reader of a recording, or of the rest of any source, takes nothing."""
        if self._info is None:
            return False
        if not self._has_begun:
            return self._original is not None and self._original.waits_from(self._info.start)
        if self._info.is_live and self._film is not None:
            return False
        self._is_asked = True
        try:
            return not self._pipe.pass_on(_POLL_SECONDS) or (self._film is not None and self._film.waits())
        except OSError as error:
            self._raise_unless_unread(error)
            return False

    def ended(self) -> None:
        """Have the rest wait for the reader, for which a run can still be stopped: `holds` tells."""
        try:
            self._finish(complete=True)
        except (av.FFmpegError, OSError) as error:
            self._raise_unless_unread(error)

    def close(self, outcome: Outcome) -> None:
        """Write the rest; of a run that was stopped, what the reader takes of it within three seconds."""
        is_complete = outcome is Outcome.COMPLETE
        if not is_complete and self._original is not None:
            self._original.hurry()
        try:
            self._finish(complete=is_complete)
            if self._has_begun and not self._pipe.pass_on(math.inf if is_complete else _PARTING_SECONDS):
                logger.warning("the reader of the pipe took nothing: the end of the video is not in it")
        except (av.FFmpegError, OSError) as error:
            self._raise_unless_unread(error)
        finally:
            if self._original is not None:
                self._original.close()

    def _finish(self, *, complete: bool) -> None:
        film, self._film = self._film, None
        if film is not None:
            film.finish(complete=complete)

    def _raise_unless_unread(self, error: Exception) -> None:
        cause = self._pipe.error or error
        if not isinstance(cause, BrokenPipeError):
            raise OutputError(f"cannot write to the pipe: {getattr(cause, 'strerror', None) or cause}") from error


class _Pipe:
    """The writable end of a pipe, as a `Film` wants it. What is written waits for `pass_on`."""

    def __init__(self, descriptor: int) -> None:
        self.error: OSError | None = None
        self._descriptor = descriptor
        self._waiting = bytearray()

    def write(self, data: bytes) -> int:
        if self.error is None:
            self._waiting += data
        return len(data)

    def pass_on(self, seconds: float) -> bool:
        """Write what waits, for so many seconds at most; whether nothing waits any more. Raises `OSError` once."""
        until = time.monotonic() + seconds
        while self._waiting and _takes_some(self._descriptor, max(0.0, until - time.monotonic())):
            try:
                written = os.write(self._descriptor, self._waiting[:_AT_ONCE])
            except OSError as error:
                self.error = error
                self._waiting.clear()
                raise
            del self._waiting[:written]
        return not self._waiting

    def begin(self) -> None:
        """The header waits as well, and is passed on with the first picture."""

    def empty(self) -> None:
        self._waiting.clear()

    def checkpoint(self) -> None:
        """What was written cannot be had back."""
