"""Publisher: rendered frames to an address: an RTSP or RTMP server, or whoever listens over UDP or TCP."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO

import av
from av.video.frame import PictureType

from stream_seg.addresses import Transport, check_transport
from stream_seg.addresses.backoff import STEADY_SECONDS, delay_before
from stream_seg.addresses.credentials import SPLIT_PASSWORD, has_split_password, safe_address, with_password
from stream_seg.addresses.failures import reason_of, refuse_port, unknown_host, words_of
from stream_seg.channel import Channel, Overflow
from stream_seg.detections import Detections
from stream_seg.errors import OutputError, Reason, SourceError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.given import check_count
from stream_seg.protocols import Outcome, Sink
from stream_seg.sinks import forwarder
from stream_seg.sinks.colour import Yuv420
from stream_seg.sinks.encoders import KEY_FRAME_SECONDS, Encoder

logger = logging.getLogger(__name__)

FORMATS = {"rtsp": "rtsp", "rtsps": "rtsp", "rtmp": "flv", "rtmps": "flv", "udp": "mpegts", "tcp": "mpegts"}
"""Scheme of an address to the name FFmpeg gives what is sent there."""

_TICK = Fraction(1, 1000)
"""The only unit of time in FLV."""

_LONGEST = Fraction(20 * 86400)
"""Seconds after which a stream is begun anew: FLV has 32 bits for its milliseconds."""

_ENDLESS_FLV = {"flvflags": "no_duration_filesize"}
"""Lest FFmpeg goes back to the header at the end, which in a pipe or at an address is no longer there."""

_WAITING = 4
"""Frames that may wait to be sent; of more, the oldest are left out: it is the newest that one wants to see."""

_PATIENCE = 10.0
"""Seconds that a server may take to answer, or to take a frame; then it is left behind and tried again."""

_PATIENCE_ALONE = 30.0
"""Seconds after which a process ends by itself whose server takes nothing, if nobody has ended it before."""

_PARTING_SECONDS = 3.0
"""How long sending the rest may take at the end of a run."""


class Publisher(Sink):
    """Sends frames, encoded as H.264 or HEVC, to an RTSP or RTMP server, or over UDP or TCP as MPEG-TS; without sound.

    Everything is done on a thread and a process of their own, so that no server holds up a run: frames that it does not
    take in time are left out. A server that is not there, or goes, is tried again as a source is, after half a second
    and then twice as long each time, up to 30 s; `attempts` is how often in a row, None for ever, after which `write`
    raises the failure. Times are those of the frames; a recording is to be written no faster than it was taken, as by
    `sources.paced.Paced`.

    `codec` is h264 (the default), hevc, or the name of an FFmpeg encoder of one of them; `transport` how RTSP sends.
    `result` is the address, without its secrets, once something was sent. Names and passwords may stand elsewhere, as
    `addresses.credentials` says.

    Raises `OutputError` from the constructor for an address of another kind, for one whose port is missing or none, and
    for a codec that cannot be sent, `UsageError` for what is no `transport` or number of `attempts`.
    """

    of_one_feed = True

    def __init__(
        self,
        address: str,
        *,
        codec: str | None = None,
        transport: Transport = "tcp",
        attempts: int | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        check_transport(transport)
        if attempts not in (None, math.inf):
            check_count("attempts", attempts, least=0)
        scheme, _, rest = address.partition(":")
        scheme = scheme.lower()
        if scheme in FORMATS and not rest.startswith("//"):
            raise OutputError(f"cannot send to an address of {scheme} that does not begin with {scheme}://")
        if scheme not in FORMATS:
            raise OutputError(
                f"cannot send to an address of {scheme}; use one of {', '.join(FORMATS)}, or name a file or a folder"
            )
        self._name = shown_address(address)
        try:
            refuse_port(address, self._name)
            self._url = with_password(f"{scheme}:{rest}")  # FFmpeg knows no RTMP://
        except SourceError as error:
            raise OutputError(str(error)) from None
        options = {"rtsp": {"rtsp_transport": transport}, "flv": _ENDLESS_FLV, "mpegts": {}}
        self._order = {
            "url": self._url,
            "format": FORMATS[scheme],
            "options": options[FORMATS[scheme]],
            "patience": _PATIENCE_ALONE,
        }
        self._encoder = Encoder(Path(scheme), codec, _Connection.FORMAT)
        self._attempts = attempts
        self._draw = draw
        self._info: SourceInfo | None = None
        self._thread: threading.Thread | None = None
        self._start()

    def _start(self) -> None:
        """Begin with nothing sent: a sink may be given to one run after the other."""
        self.result: str | None = None
        self._frames: Channel[Frame] = Channel(_WAITING, Overflow.DROP_OLDEST)
        self._closing = threading.Event()
        self._error: Exception | None = None
        self._words = ""  # why the last connection failed
        self._tries = 0
        self._away_since: float | None = None
        self._said: set[Reason] = set()
        self._busy_since: float | None = None
        self._connection: _Connection | None = None

    def open(self, info: SourceInfo) -> None:
        """Begin to connect, once there is a frame."""
        if self._thread is not None:
            self._thread.join()  # of a run before, whose server took nothing and was left: it would go on in this one
        self._start()
        self._info = info
        self._thread = threading.Thread(target=self._run, name=f"stream-seg-publisher {self._name}", daemon=True)
        self._thread.start()

    def write(self, frame: Frame, detections: Detections) -> None:  # noqa: ARG002  the pictures show them
        """Have the frame sent. Raises `OutputError` for good: after the last attempt, or if it cannot be encoded."""
        if self._error is not None:
            raise self._error
        if self._takes_nothing():
            self._leave()
        self._frames.put(frame)

    def close(self, outcome: Outcome) -> None:
        """Send what waits, and end the stream; a server that takes nothing is left behind.

        Raises `OutputError` as `write`, unless it is a failure that the run ends with, and where the source is over and
        nothing of it could be sent.
        """
        self._closing.set()
        self._frames.close()
        if self._thread is not None:
            self._thread.join(_PARTING_SECONDS)
            if self._thread.is_alive():
                self._leave()
                self._thread.join(_PARTING_SECONDS)
        if self._error is not None and outcome is not Outcome.FAILED:
            raise self._error
        if self._words and self.result is None and outcome is Outcome.COMPLETE:
            raise OutputError(f"nothing could be sent to {self._name}: {self._words}")

    def _takes_nothing(self) -> bool:
        """Whether a frame has been under way for too long, or all of them since the connection was begun."""
        connection = self._connection
        waits = [self._busy_since]
        if connection is not None and not connection.is_there.is_set():
            waits.append(connection.began)  # what is little may get no further than a pipe
        return any(since is not None and time.monotonic() - since > _PATIENCE for since in waits)

    def _leave(self) -> None:
        if self._connection is not None:
            self._connection.leave()

    def _run(self) -> None:
        try:
            while len(self._frames) or not self._closing.is_set():
                try:
                    self._send_all()
                except _Lost as lost:
                    if self._closing.wait(self._note(lost)):
                        return
        except Exception as error:  # a thread boundary: `write` raises it
            self._error = error

    def _send_all(self) -> None:
        """Send over one connection until it fails, the run ends, or it is time for another one."""
        frame = self._next()
        if frame is None or self._info is None:
            return
        first = frame.pts
        with _Connection(self._order, self._encoder, frame.size, self._info.frame_rate) as connection:
            self._connection = connection
            try:
                while frame is not None and frame.pts - first < _LONGEST:
                    connection.send(frame)
                    self._note_presence(connection)
                    frame = self._next()
                connection.finish()
            finally:
                self._note_presence(connection)

    def _next(self) -> Frame | None:
        """Wait for the next frame to send; None when there will be none."""
        self._busy_since = None
        frame = next(iter(self._frames), None)
        self._busy_since = time.monotonic()
        return frame

    def _note_presence(self, connection: _Connection) -> None:
        """Note that something was sent, if that is so."""
        if not connection.is_there.is_set():
            return
        if self.result is None:
            logger.info("sending to %s", self._name)
            self.result = self._name
        elif self._away_since is not None:
            logger.info("%s is back after %.1f s", self._name, time.monotonic() - self._away_since)
        self._away_since = None
        if time.monotonic() - connection.began >= STEADY_SECONDS:
            self._tries = 0

    def _note(self, lost: _Lost) -> float:
        """Say why a connection failed, return the seconds until the next; raise `OutputError` if that was the last."""
        host = unknown_host(self._url)
        words, reason = (
            (lost.words, lost.reason) if host is None else (f"there is no host named {host}", Reason.NOT_FOUND)
        )
        if host is None and reason is Reason.OTHER and has_split_password(self._url):
            words = f"{words}; {SPLIT_PASSWORD}"
        self._words = words
        failure = f"cannot send to {self._name}: {words}"
        if self._attempts is not None and self._tries >= self._attempts:
            raise OutputError(failure if not self._attempts else f"{failure} (tried again {self._attempts}x)")
        if self._away_since is None:
            self._away_since = time.monotonic()
            self._said = set()
        delay = delay_before(self._tries, reason, self._draw())
        self._tries += 1
        if reason not in self._said:
            self._said.add(reason)
            again = "" if self._closing.is_set() else f"; trying again in {delay:.1f} s"
            logger.warning("%s (%s%s)", failure, reason.value, again)
        return delay


def shown_address(address: str) -> str:
    """Return the address as it can be shown: without names and passwords, and without the key of an RTMP stream."""
    shown = safe_address(address)
    return re.sub(r"(?i)^(rtmps?:/{1,2}[^/]*/(?:[^/]+/)*)[^/]+$", r"\1***", shown)


class _Lost(Exception):
    """A connection has ended that was not to end: `words` say why, and `reason` in a word."""

    def __init__(self, words: str, reason: Reason) -> None:
        super().__init__(words)
        self.words = words
        self.reason = reason


class _Connection:
    """A stream, encoded here and sent by a process of its own; `order` says where, and how (`forwarder`).

    Every method but `leave` may block, until `leave` is called, and raises `_Lost` where the process has ended. Raises
    `OutputError` when the encoder cannot be opened. `began` is when, by the monotonic clock, and `is_there` is set once
    something was sent.
    """

    FORMAT = "flv"
    """How the process gets the stream: with all there is to know of it in front, and no packet held back."""

    def __init__(
        self, order: dict[str, object], encoder: Encoder, size: tuple[int, int], rate: Fraction | None
    ) -> None:
        self._begin: Fraction | None = None
        self._convert = Yuv420(size)
        self._last = -1
        self._key_due = 0
        self._was_left = False
        self.began = time.monotonic()
        try:
            # In a session of its own: Ctrl-C is for the run, which ends the stream in good order.
            self._process = subprocess.Popen(
                [sys.executable, "-P", forwarder.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:  # there are too many, or Python was replaced meanwhile
            raise _Lost(f"no process can be started ({error.strerror})", Reason.OTHER) from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._pipe, self._answers = self._process.stdin, self._process.stdout
        self.is_there = threading.Event()
        self._number = 0
        self._listener = threading.Thread(target=self._listen, name="stream-seg-publisher answers", daemon=True)
        self._listener.start()
        self._container = av.open(_Straight(self._pipe), "w", format=self.FORMAT, options=_ENDLESS_FLV)
        try:
            with self._sending():
                # Not as arguments, which every user of the machine can see.
                _Straight(self._pipe).write(json.dumps(order).encode() + b"\n")
                self._stream = encoder.add_to(self._container, self._convert.size, _TICK, rate)
                self._container.start_encoding()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        """End the stream, in whatever state it is."""
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):  # the last of a pipe that is closed already
            self._container.close()
        with contextlib.suppress(OSError):
            self._pipe.close()
        try:
            self._process.wait(_PARTING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()
        self._answers.close()

    def send(self, frame: Frame) -> None:
        picture = self._convert(frame.image)
        picture.time_base = _TICK
        self._begin = frame.pts if self._begin is None else self._begin
        picture.pts = self._last = max(round((frame.pts - self._begin) / _TICK), self._last + 1)
        if self._last >= self._key_due:
            picture.pict_type = PictureType.I
            self._key_due = self._last + round(KEY_FRAME_SECONDS / _TICK)
        with self._sending():
            self._container.mux(self._stream.encode(picture))

    def finish(self) -> None:
        """Send what the encoder holds back, and wait until all is sent."""
        with self._sending():
            self._container.mux(self._stream.encode(None))
            self._container.close()
        lost = self._failure()
        if self._number or self._was_left:
            raise lost

    def leave(self) -> None:
        """End the process: who waits for it is told that it has gone. Any thread, any number of times."""
        self._was_left = True
        self._process.kill()

    @contextlib.contextmanager
    def _sending(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            # Its frames, which know it, hold the encoder: in cycles, since Python 3.12.
            raise self._failure() from error.with_traceback(None)

    def _listen(self) -> None:
        """Take what the process says, until it has ended."""
        for line in self._answers:
            if line.strip() == forwarder.SENT.encode():
                self.is_there.set()
            else:
                self._number = int(line)

    def _failure(self) -> _Lost:
        """Why the process has ended, or ends now that it gets no more."""
        with contextlib.suppress(OSError):
            self._pipe.close()
        self._listener.join()
        if self._was_left:
            return _Lost("it takes nothing", Reason.STALLED)
        try:
            av.error.err_check(-self._number)
        except av.FFmpegError as error:
            return _Lost(words_of(error), reason_of(error))
        return _Lost("what sends there was ended", Reason.ENDED)


class _Straight:
    """A pipe in which nothing is held back.

    FFmpeg writes to this rather than to the connection, which would hold itself then: its encoder, a megabyte and more,
    would stay after each failure until the garbage collector comes, which in steady work it seldom does.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe

    def write(self, data: bytes) -> int:
        self._pipe.write(data)
        self._pipe.flush()
        return len(data)
