"""NetworkStream: cameras and recordings that are read from an address."""

from __future__ import annotations

import errno
import itertools
import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from urllib.parse import urlsplit

import av
from av.container import InputContainer

from stream_seg.channel import Channel, ChannelClosed, EndOfStream
from stream_seg.errors import SourceError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.sources.clock import CLOCK, LiveClock
from stream_seg.sources.decoding import Decoder, open_container, reason, recorded_frames
from stream_seg.sources.stoppable import Stoppable
from stream_seg.sources.video import starting_at

logger = logging.getLogger(__name__)

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "udp", "rtp", "srt", "tcp")

RECORDING_SCHEMES = frozenset({"http", "https"})
"""What can serve a finished file; the others are live by nature."""

GRACE_SECONDS = 2.0
"""How much longer than FFmpeg itself we wait for an answer, so that its own reason is the one reported."""

JOIN_SECONDS = 0.5
"""How long leaving the `with` block waits for the reader; FFmpeg sits in a read until data or its timeout comes."""

_SECRET = re.compile(r"(?i)((?:pass|pwd|token|key|secret|auth|sig|user|login|cred)\w*=)[^&;#\s]*")
_USER = re.compile(r"^([a-z][a-z0-9+.-]*://)(.+)@", re.IGNORECASE | re.DOTALL)


def safe_address(url: str) -> str:
    """Return an address that can be shown: `rtsp://***@host/path?token=***` without names, passwords and tokens."""
    return _SECRET.sub(r"\1***", _USER.sub(r"\1***@", url))


class NetworkStream(Stoppable):
    """Frames from an RTSP, HTTP(S), HLS, RTMP, UDP, SRT or TCP address.

    A camera is live: its frames get times from the clock, beginning with 0, and come as soon as they are decoded. An
    HTTP(S) address with a known length is a recording: every frame, exact times, from `start` seconds on.

    A daemon thread of its own reads, because FFmpeg can block for ever. No answer within `open_timeout` seconds, or no
    new frame within `stall_timeout`, raises `SourceError`, whatever FFmpeg does. A live stream that its sender ends
    ends the iteration. No message repeats a user name, password or token of the address.
    """

    def __init__(
        self, url: str, *, start: Fraction = Fraction(0), open_timeout: float = 10.0, stall_timeout: float = 10.0
    ) -> None:
        super().__init__()
        self._url = url
        self._name = safe_address(url)
        self._scheme = scheme_of(url)
        self._start = start
        self._open_timeout = open_timeout
        self._stall_timeout = stall_timeout
        self._opened: Channel[SourceInfo] = Channel(1)
        self._frames: Channel[Frame] = Channel(2)  # full: FFmpeg waits; frames are dropped further on, and counted
        self._error: Exception | None = None
        self._sent = False
        self._reader = threading.Thread(target=self._read, name=f"stream-seg-{self._scheme}", daemon=True)
        self.damaged = 0

    def __iter__(self) -> Iterator[Frame]:
        while True:
            try:
                frames = self._frames.take(1, timeout=self._stall_timeout)
            except EndOfStream:
                break
            if not frames:
                raise SourceError(f"{self._name} sent no new frame for {self._stall_timeout:g} s; is it still on?")
            yield from frames
        if self._error is not None and not self._stopping.is_set():
            raise self._error
        if self._info is not None and self._info.is_live and not self._stopping.is_set():
            logger.info("%s ended the stream", self._name)

    def close(self) -> None:
        """End the iteration at once, even one that waits for the network."""
        super().close()
        self._opened.cancel()
        self._frames.cancel()

    def _open(self) -> None:
        self._reader.start()
        try:
            answer = self._opened.take(1, timeout=self._open_timeout + GRACE_SECONDS)
        except EndOfStream:
            raise self._error or SourceError(f"{self._name} was closed before it answered") from None
        if not answer:
            raise SourceError(f"{self._name} did not answer within {self._open_timeout:g} s; is the address right?")
        self._info = answer[0]

    def _release(self) -> None:
        self.close()
        if self._reader.is_alive():
            self._reader.join(JOIN_SECONDS)

    def _read(self) -> None:
        """Body of the reading thread: opens, decodes and closes, and keeps what went wrong for the others."""
        try:
            with closing(
                Decoder(self._connect, self._name, stopping=self._stopping.is_set, is_live=self._is_live)
            ) as decoder:
                self._deliver(decoder)
        except ChannelClosed:
            pass
        except av.FFmpegError as error:
            if error.errno == errno.EIO and self._sent:
                return  # how FFmpeg calls the end of a motion JPEG stream
            self._error = SourceError(f"{self._name} broke off: {reason(error)}")
        except Exception as error:  # the boundary of a thread: raised again by whoever iterates
            self._error = error
        finally:
            self._opened.close()
            self._frames.close()

    def _connect(self) -> InputContainer:
        options = options_for(self._scheme)
        return open_container(self._url, self._name, options=options, timeout=(self._open_timeout, self._stall_timeout))

    def _is_live(self, container: InputContainer) -> bool:
        return self._scheme not in RECORDING_SCHEMES or not container.duration

    def _deliver(self, decoder: Decoder) -> None:
        frames = self._live(decoder) if decoder.live else self._recorded(decoder)
        for frame in frames:
            self.damaged = decoder.damaged
            self._frames.put(frame)
            self._sent = True

    def _recorded(self, decoder: Decoder) -> Iterator[Frame]:
        self._opened.put(starting_at(decoder.info("video"), self._start))
        if self._start:
            decoder.seek(self._start)
        return recorded_frames(decoder, self._start, self._stopping.is_set)

    def _live(self, decoder: Decoder) -> Iterator[Frame]:
        self._opened.put(live_info(decoder.info("live")))
        clock = LiveClock()
        for index, (_, picture) in zip(itertools.count(), decoder, strict=False):
            captured_at = time.monotonic()
            yield Frame(decoder.image(picture), index, clock.pts(captured_at), captured_at)


def live_info(info: SourceInfo) -> SourceInfo:
    """Describe a camera: what its container says of time is not used."""
    return SourceInfo(info.name, info.size, "live", info.frame_rate, time_base=Fraction(1, CLOCK))


def scheme_of(url: str) -> str:
    """Return the protocol of an address; raise `SourceError` for one that cannot be read."""
    scheme = urlsplit(url).scheme.lower()
    if scheme not in SCHEMES:
        raise SourceError(f"cannot read {scheme}:// addresses; understood are {', '.join(SCHEMES)}, or give a file")
    return scheme


def options_for(scheme: str) -> dict[str, str]:
    """Return FFmpeg's options for an address: low latency for what is live, patience for what is served."""
    if scheme in RECORDING_SCHEMES:
        return {"reconnect": "1", "reconnect_delay_max": "5"}
    low_latency = {"fflags": "nobuffer"}
    if scheme in ("rtsp", "rtsps"):
        return low_latency | {"rtsp_transport": "tcp"}
    if scheme == "udp":
        return low_latency | {"overrun_nonfatal": "1", "fifo_size": "50000"}
    return low_latency
