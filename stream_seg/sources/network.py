"""NetworkStream: cameras and recordings that are read from an address."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import time
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import partial

import av
from av.container import InputContainer
from av.video.frame import VideoFrame

from stream_seg.addresses import Transport
from stream_seg.addresses.credentials import (
    SPLIT_PASSWORD,
    has_split_password,
    safe_address,
    split_address,
    with_password,
)
from stream_seg.addresses.failures import reason_of, refuse_port, unknown_host, words_of
from stream_seg.errors import Reason, SourceError
from stream_seg.feed_sound import FeedSound
from stream_seg.frame import Frame, Reopening, SourceInfo
from stream_seg.pace import Pace
from stream_seg.pyav import size_of
from stream_seg.sources.arrival import WINDOW_SECONDS, CaptureTimes
from stream_seg.sources.clock import CLOCK, LiveClock
from stream_seg.sources.container import open_container, video_stream
from stream_seg.sources.decoded import Decoded
from stream_seg.sources.decoding import Decoder, recorded_frames
from stream_seg.sources.files import VIDEO_SUFFIXES
from stream_seg.sources.seen import Seen
from stream_seg.sources.video import part_of

logger = logging.getLogger(__name__)

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "udp", "rtp", "srt", "tcp")

RECORDING_SCHEMES = frozenset({"http", "https"})
"""What can serve a finished file; the others are live by nature, and their time stamps are the sender's clock."""

RTSP_SCHEMES = frozenset({"rtsp", "rtsps"})

RTMP_SCHEMES = frozenset({"rtmp", "rtmps"})

MEDIA = "allowed_media_types"
"""The option that leaves what is not wanted of an RTSP address where it is."""

FLAGS = "fflags"
"""The option that turns FFmpeg's parsers off, for an RTSP address."""

SHORT_LOOK = {"analyzeduration": "100000", "fpsprobesize": "0"}
"""Look at a tenth of a second to find out what comes. FFmpeg looks at five where there may be sound, which may never
come, as in FLV; of plain JPEGs, that tell no time, at 50 to 125 pictures."""

SHORT_LISTEN = SHORT_LOOK | {"analyzeduration": "1000000"}
"""The same where sound is wanted: a second, if none comes."""

LONG_LOOK = (*(suffix for suffix in VIDEO_SUFFIXES if suffix != ".flv"), ".m3u8")
"""How HTTP addresses end that send neither."""

PARTS, ONE_BY_ONE = "mpjpeg", "mjpeg"
"""What FFmpeg calls motion JPEG in parts with headers, and pictures one after the other, whatever is between them. Of
the former it takes only parts that are called image/jpeg: some cameras say image/jpg, or nothing."""

BEGIN_AT_SEGMENT = "-2"
"""Of a live HLS playlist: the last but one. While it plays the next one is there, and while that plays the one after it
is published, so that it may be late by a segment. FFmpeg would begin one earlier, and delay everything by as much."""

LATEST_SEGMENT = 0.5
"""Seconds by which pictures of such a playlist may be late and still be caught up with. Beyond that their segment came
late, and all that follows is as late: so the delay grows only where the server would otherwise be waited for with every
segment."""

LONGEST_STEP = 1.0
"""Seconds between two of them above which there is nothing to wait for: the server has left out some."""

OUT_OF_REACH = (
    "; where its index is at its end, a server without byte ranges leaves that out of reach: fetch the file first, "
    "or make it with ffmpeg -movflags +faststart"
)

OPEN_TIMEOUT = 10.0
STALL_TIMEOUT = 5.0

UDP_OPTIONS = {"max_delay": "50000", "buffer_size": "1048576"}
"""Wait 50 ms for a packet that others overtook: FFmpeg's 100 doubles the delay of a lossy network, and 0 takes every
overtaken packet for lost. Ask the system to hold a megabyte meanwhile, for a key frame is a burst."""


class NetworkStream(Decoded):
    """Frames from an RTSP, HTTP(S), HLS, RTMP, UDP, SRT or TCP address.

    A camera is live: its frames get times from the clock, beginning with 0, and come as soon as they are decoded; those
    of a live HLS playlist, whose server publishes seconds of them at once, at the pace at which they were taken. An
    HTTP(S) address with a known length, of a file also in bytes, is a recording: every frame, exact times, from `start`
    seconds on. `transport` is how RTSP carries its packets. `seen` is what the connections to one playlist share, so
    that none gives what another has given. What is heard from a camera goes to `sound`; without, it is not fetched.

    Reading blocks, for `open_timeout` and `stall_timeout` seconds and sometimes longer: FFmpeg's own timeouts do not
    hold in all its protocols. `Watched` gives up in time. A live stream that its sender ends ends the iteration.
    A password that is not in the address is looked for where `with_password` says. No message repeats a user name,
    password or token. Raises `SourceError`.
    """

    def __init__(
        self,
        url: str,
        *,
        start: Fraction = Fraction(0),
        transport: Transport = "tcp",
        open_timeout: float = OPEN_TIMEOUT,
        stall_timeout: float = STALL_TIMEOUT,
        seen: Seen | None = None,
        sound: FeedSound | None = None,
    ) -> None:
        super().__init__(safe_address(url), start)
        self._scheme = scheme_of(url)
        refuse_port(url, self.name)
        self._url = with_password(f"{self._scheme}:{url.partition(':')[2]}")  # FFmpeg knows no HTTP, only http
        self._sound = sound
        media = "video" if sound is None else "video+audio"
        self._options = options_for(self._scheme, transport, max(open_timeout, stall_timeout), media)
        self._short_look: Mapping[str, str] = {}
        if suits_short_look(self._url):
            self._short_look = SHORT_LOOK if sound is None else SHORT_LISTEN
        self._transport = transport
        self._timeout = open_timeout, stall_timeout
        self._format = ""
        self._seen = Seen() if seen is None else seen

    def __iter__(self) -> Iterator[Frame]:
        if self._decoder is None:
            raise RuntimeError("the source is not open; use it in a with block")
        decoder = self._decoder
        frames = self._live(decoder) if decoder.live else recorded_frames(decoder, self._start, self._stopping.is_set)
        sent = False
        while True:
            frame = failure = None
            try:
                frame = next(frames, None)
            except av.FFmpegError as error:
                failure = self._broke_off(error, may_be_the_end=decoder.live and sent)
            if failure is not None:  # raised here, for FFmpeg's error holds the address and would be its context
                raise failure
            if frame is None:
                return
            yield frame
            sent = True

    def _open(self) -> None:
        failure = None
        try:
            try:
                self._decoder = self._new_decoder()
            except SourceError:
                if self._format != PARTS:
                    raise
                self._decoder = self._new_decoder(ONE_BY_ONE)
            info = self._decoder.info("live" if self._decoder.live else "video")
            if self._decoder.live:
                self._info = dataclasses.replace(live_info(info), sound=self._sound)
            else:
                self._info = part_of(dataclasses.replace(info, reopening=self._reopening()), self._start)
                self._decoder.seek(self._start)
        except av.FFmpegError as error:
            failure = self._broke_off(error, may_be_the_end=False)
            if error.errno == errno.EIO and self._scheme in RECORDING_SCHEMES and "mp4" in self._format:
                failure = SourceError(f"{failure}{OUT_OF_REACH}")
        if failure is not None:
            raise failure

    def _new_decoder(self, format: str | None = None) -> Decoder:
        return Decoder(
            partial(self._connect, format),
            self.name,
            stopping=self._stopping.is_set,
            is_live=self._is_live,
            is_lossless=self._transport == "tcp",
            sound=self._sound,
        )

    def _connect(self, format: str | None) -> InputContainer:
        try:
            # Else FFmpeg looks at 50 pictures to find out a rate, of which nothing is told.
            look = {"analyzeduration": "1"} if format == ONE_BY_ONE else self._short_look
            options = {**self._options, **look}
            opened = open_container(self._url, self.name, options=options, timeout=self._timeout, format=format)
            if self._short_look and not self._saw_all(opened):
                opened.close()
                opened = open_container(
                    self._url, self.name, options=self._options, timeout=self._timeout, format=format
                )
        except SourceError as error:
            failure = error
        else:
            self._format = opened.format.name
            return opened
        if self._scheme in RTSP_SCHEMES and failure.reason is Reason.REFUSED:
            self._refuse_sound_alone()
        if self._scheme in RTSP_SCHEMES and failure.reason is Reason.CODEC:
            # Where the description lacks a codec's parameters, FFmpeg gives up at the first piece of a picture that
            # comes without them, unless its parsers join it.
            container = self._connect_without(FLAGS)
            if container is not None:
                return container
        if failure.reason is not Reason.OTHER:
            raise failure
        if has_split_password(self._url):
            raise SourceError(f"{failure}; {SPLIT_PASSWORD}", failure.reason)
        host = unknown_host(self._url)
        if host is not None:
            raise SourceError(f"cannot read {self.name}: there is no host named {host}", Reason.NOT_FOUND)
        raise failure

    def _saw_all(self, container: InputContainer) -> bool:
        """Whether no longer look is needed: of a recording all tracks and times count, of a camera the pictures."""
        if self._is_live(container):
            return bool(container.streams.video)
        # The index of these tells all, and their server may take an address once.
        return "mp4" in container.format.name and _counted(container)

    def _reopening(self) -> Reopening:
        # Without `self`, which holds the decoder.
        name, url, options, timeout = self.name, self._url, self._options, self._timeout
        return Reopening(name, lambda: open_container(url, name, options=options, timeout=timeout), *timeout)

    def _refuse_sound_alone(self) -> None:
        """Raise `SourceError` where an RTSP server has no video: one that is asked for nothing else refuses to play."""
        container = self._connect_without(MEDIA)
        if container is not None:
            with contextlib.closing(container):
                video_stream(container, self.name)

    def _connect_without(self, option: str) -> InputContainer | None:
        """Try again without one of the options; None where that does not help either."""
        options = {name: value for name, value in self._options.items() if name != option}
        try:
            return open_container(self._url, self.name, options=options, timeout=self._timeout)
        except SourceError:
            return None

    def _is_live(self, container: InputContainer) -> bool:
        if self._scheme not in RECORDING_SCHEMES:
            return True
        if "mp4" in container.format.name and not size_of(container) and not _counted(container):
            return True  # it comes in fragments, and its duration is that of what was looked at
        # FFmpeg finds no duration of an MPEG transport stream in which it cannot seek: its server may know no ranges.
        return not (container.duration or (names_a_file(self._url) and size_of(container)))

    def _live(self, decoder: Decoder) -> Iterator[Frame]:
        clock = LiveClock()
        times = CaptureTimes(max(WINDOW_SECONDS, 2 * self._timeout[1]))
        pace = Pace(latest=LATEST_SEGMENT, longest_step=LONGEST_STEP) if decoder.format == "hls" else None
        for index, (pts, picture) in enumerate(decoder if pace is None else self._seen.unseen(decoder)):
            if pace is not None and self._stopping.wait(pace.wait(pts, time.monotonic())):
                return
            arrived = time.monotonic()
            if decoder.hearing is not None:
                decoder.hearing.see(picture.time, arrived)
            captured_at = times.taken_at(self._stamp(picture), arrived)
            yield Frame(decoder.deferred(picture), index, clock.pts(captured_at), captured_at)

    def _stamp(self, picture: VideoFrame) -> float | None:
        """Return the sender's time of a picture; over HTTP it is made up from a frame rate, or comes in segments."""
        return None if self._scheme in RECORDING_SCHEMES else picture.time

    def _broke_off(self, error: av.FFmpegError, *, may_be_the_end: bool) -> SourceError | None:
        """Say why reading failed; None for what is the end."""
        if error.errno == errno.EIO and may_be_the_end:
            return None  # how FFmpeg calls the end of a motion JPEG stream
        why = reason_of(error)
        if why is Reason.TIMEOUT:
            return stalled(self.name, self._timeout[1])
        return SourceError(f"{self.name} broke off: {words_of(error)}", why)


def _counted(container: InputContainer) -> bool:
    """Whether the header says how many pictures there are."""
    return any(stream.frames for stream in container.streams.video)


def stalled(name: str, seconds: float) -> SourceError:
    """Say that a source is connected but sends nothing."""
    return SourceError(f"{name} sent no new frame for {seconds:g} s; is it still on?", Reason.STALLED)


def live_info(info: SourceInfo) -> SourceInfo:
    """Describe a camera: what its container says of time is not used."""
    return SourceInfo(info.name, info.size, "live", info.frame_rate, time_base=Fraction(1, CLOCK))


def scheme_of(url: str) -> str:
    """Return the protocol of an address; raise `SourceError` for one that cannot be read."""
    scheme = split_address(url).scheme.lower()
    if scheme not in SCHEMES:
        raise SourceError(f"cannot read {scheme}:// addresses; understood are {', '.join(SCHEMES)}, or give a file")
    return scheme


def names_a_file(url: str) -> bool:
    """Whether an address looks like that of a finished recording, which is there or is not."""
    parts = split_address(url)
    return parts.scheme.lower() in RECORDING_SCHEMES and parts.path.lower().endswith(VIDEO_SUFFIXES)


def suits_short_look(url: str) -> bool:
    """Whether an address may send what FFmpeg would look at for seconds, to no end."""
    parts = split_address(url)
    scheme = parts.scheme.lower()
    return scheme in RTMP_SCHEMES or (scheme in RECORDING_SCHEMES and not parts.path.lower().endswith(LONG_LOOK))


def options_for(scheme: str, transport: Transport, silence: float, media: str) -> dict[str, str]:
    """Return FFmpeg's options for an address: low latency for what is live, patience for what is served.

    `silence` is the longest in seconds that nothing at all may come from a camera, `media` what is wanted of RTSP.
    """
    if scheme in RECORDING_SCHEMES:
        return {"reconnect": "1", "reconnect_delay_max": "5", "live_start_index": BEGIN_AT_SEGMENT}
    # Not fflags=nobuffer: it throws away the key frame that opening has looked at, and the next is seconds off.
    quick = {"fpsprobesize": "0"}
    if scheme in RTSP_SCHEMES:
        # Without FFmpeg's parsers, which hold each picture until the next one begins: see `access_units`. FFmpeg then
        # also hands over what is to be discarded, so that the sound of a camera whose pictures stall keeps a read from
        # ever returning: only what is wanted is asked for.
        whole = {FLAGS: "noparse", MEDIA: media}
        carried = {"rtsp_transport": transport, "timeout": str(round(silence * 1e6))}
        return quick | whole | carried | (UDP_OPTIONS if transport == "udp" else {})
    if scheme == "udp":
        return quick | {"overrun_nonfatal": "1", "fifo_size": "50000"}
    return quick
