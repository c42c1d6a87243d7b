"""Film: encodes and muxes frames and sound into a growing file, each frame at its exact time."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Protocol, cast

import av
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import PictureType
from av.video.stream import VideoStream

from stream_seg.frame import Frame, SourceInfo
from stream_seg.sinks.colour import Yuv420
from stream_seg.sinks.encoders import KEY_FRAME_SECONDS, Encoder
from stream_seg.sinks.gif import GifPackets
from stream_seg.sinks.original import Original
from stream_seg.sinks.paletted import Paletted
from stream_seg.sinks.preroll import Encoded
from stream_seg.sinks.soundtrack import Soundtrack

logger = logging.getLogger(__name__)

_DEFAULT_GAP = Fraction(1, 30)
"""How long a lone picture lasts, in seconds, when nothing says so."""

_LONGEST_LIVE_GAP = Fraction(1)
"""The longest that the last picture of a live source lasts, in seconds."""

_FINEST_BEGUN = 10**6
"""Ticks per second up to which those of a recording are made finer for where its part begins: a picture may then last
18 minutes before it is written again."""

_MUXER_OPTIONS = {
    # Fragments while it grows, so that it plays when cut off anywhere; an ordinary file once it is whole. The first
    # header waits for the first fragment, so that it can state where the tracks begin.
    "mp4": {"movflags": "hybrid_fragmented+delay_moov", "frag_duration": "250000"},
    "mov": {"movflags": "hybrid_fragmented+delay_moov", "frag_duration": "250000"},
    "matroska": {"cluster_time_limit": "250"},
    "webm": {"cluster_time_limit": "250"},
    "gif": {"loop": "0"},  # for ever
}
"""What a killed process may lose: a quarter of a second. In microseconds and milliseconds."""

_COMMON_OPTIONS = {
    "flush_packets": "1",
    "max_interleave_delta": "100000",  # microseconds pictures may wait in memory for sound that does not come
}


class Output(Protocol):
    """What a film is written to: a `PartFile`, or what does as it does. PyAV also calls `seek` where there is one."""

    error: OSError | None
    """Why writing failed. It is raised once; from then on `write` does nothing."""

    def write(self, data: bytes) -> int: ...

    def begin(self) -> None:
        """Note that what was written until now is only the header."""

    def empty(self) -> None:
        """Begin again, before `begin` was called."""

    def checkpoint(self) -> None:
        """Note that what was written until now can be read."""


class Film:
    """A video with the sound of `original`, if there is one that can be opened, written to `part`.

    A frame is held until the next one says how long it lasts. `finish` writes what is held and completes the file. Of a
    GIF, frames within 20 ms of another are left out, with a warning.
    `lead` are pictures before `first` that such an encoder has encoded already, from a key frame on. `comment` goes
    into the file's metadata. `pause` is how many milliseconds of film the muxer of Matroska may collect before it
    writes them, where that is not what a killed process may lose.

    Raises `av.FFmpegError`, `OSError` from writing, and `OutputError` when the encoder cannot be opened.
    """

    def __init__(
        self,
        part: Output,
        encoder: Encoder,
        info: SourceInfo,
        first: Frame,
        original: Original | None,
        comment: str | None = None,
        *,
        lead: Sequence[Encoded] = (),
        pause: int | None = None,
    ) -> None:
        self._part = part
        self._comment = comment
        self._pause = pause
        self._encoder = encoder
        self._info = info
        self._convert = Paletted(first.size) if encoder.is_gif else Yuv420(first.size)
        # A recording keeps the place of its first frame, for the sound's sake; a live one begins with it.
        self._begin = (lead[0].time if lead else first.pts) if info.is_live else info.start
        self._tick = encoder.tick(_unit(info.time_base, self._begin))
        self._held: av.VideoFrame | None = None
        self._least = 0  # the next picture cannot begin before
        self._leaves_out = False
        self._gap = Fraction(0) if info.frame_rate is None else 1 / info.frame_rate
        self._longest = encoder.longest_ticks(self._tick)
        self._key_due = 0
        self._durations: dict[int, int] = {}
        self._sound: Soundtrack | None = None
        self._aspect: Fraction | None = None
        if original is not None:
            original.see(first)
        if original is not None and original.is_there():
            self._aspect = self._aspect_of(original, first.size)
            if not encoder.is_gif:
                self._sound = Soundtrack(original, self._begin)
        self._lead = lead
        self._container, self._stream = self._open()
        self._packets = GifPackets(self._stream) if encoder.is_gif else self._stream

    def write(self, frame: Frame) -> None:
        if self._lead:
            self._mux_lead(frame.pts)
        if self._encoder.is_gif and self._held is not None and self._nearest(frame.pts) < self._least:
            self._leave_out()
            return
        picture = self._convert(frame.image)
        picture.time_base = self._tick
        picture.pts = self._place(frame.pts)
        if self._held is not None:
            self._encode_until(self._held, picture.pts)
        self._held = picture
        self._least = picture.pts + self._encoder.least_ticks

    def waits(self) -> bool:
        """Whether `write` would wait for sound that comes from an address. Returns within 50 ms."""
        if self._sound is None or self._held is None:
            return False
        return self._sound.waits_for(_ticks(self._held) * self._tick)

    def awaits(self, until: Fraction) -> bool:
        """Whether sound is late that begins before the time `until` of the source, at which the film ends."""
        if self._sound is None or self._held is None:
            return False
        awaits = self._sound.awaits(until - self._begin)
        self._part.checkpoint()
        return awaits

    def leave(self, original: Original) -> None:
        """Leave the original to the next film, and take the rest of the sound from this fork of it."""
        if self._sound is not None:
            self._sound.original = original

    def finish(self, *, complete: bool, until: Fraction | None = None) -> None:
        """Write the rest. `complete` tells that the recording was read to its end, so all sound belongs to it.

        The last picture lasts until the time `until` of the source, where that is known.
        """
        try:
            if self._held is not None:
                begin = _ticks(self._held)
                duration = self._last_duration(begin, until)
                self._encode_until(self._held, begin + duration)
                self._held = None
                self._mux(self._packets.encode(None))
                # Not to the tick where `until` is known: sound that begins between the two would be in no segment.
                end = (begin + duration) * self._tick if until is None else until - self._begin
                self._finish_sound(end, duration * self._tick, complete=complete)
        finally:
            self._container.close()
            self._part.checkpoint()

    def _open(self) -> tuple[OutputContainer, VideoStream]:
        """Open with the sound copied; if the container will not have that, encoded anew; or else without."""
        for copy in (True, False):
            try:
                return self._start(copy=copy)
            except (av.FFmpegError, ValueError) as error:
                if self._sound is None or self._part.error is not None:
                    raise
                logger.debug("opening with the sound (copy: %s) failed: %s", copy, error)
                self._part.empty()
        logger.warning("the sound of %s is left out: %s cannot hold it", self._info.name, self._encoder.path)
        self._sound = None
        return self._start(copy=False)

    def _start(self, *, copy: bool) -> tuple[OutputContainer, VideoStream]:
        """Open the container and write what stands before the first frame."""
        options = {**_COMMON_OPTIONS, **_MUXER_OPTIONS[self._encoder.container]}
        if self._pause is not None:
            options["cluster_time_limit"] = str(self._pause)
        if "movflags" in options:
            options["movie_timescale"] = str(_clock(self._tick))
        container = av.open(self._part, "w", format=self._encoder.container, container_options=options)
        stream = self._encoder.add_to(container, self._convert.size, self._tick, self._info.frame_rate, self._aspect)
        if self._comment is not None:
            container.metadata["comment"] = self._comment
        if self._sound is not None:
            if self._sound.original.title:
                container.metadata["title"] = self._sound.original.title
            self._sound.attach(container, copy=copy)
        container.start_encoding()
        self._part.begin()
        return container, stream

    def _aspect_of(self, original: Original, size: tuple[int, int]) -> Fraction | None:
        """The shape of the recording's pixels, where it is not square, with a warning if the file cannot tell it."""
        aspect = original.pixel_aspect(size)
        if aspect is not None and not self._encoder.tells_aspect:
            kind = "a GIF" if self._encoder.is_gif else f"{self._encoder.name} in {self._encoder.container}"
            original.warn(
                f"the pixels of {self._info.name} are not square ({aspect.numerator}:{aspect.denominator}), which "
                f"{kind} cannot tell; .mp4 can, or .mkv with h264"
            )
        return aspect

    def _place(self, time: Fraction) -> int:
        """When a picture begins in the film, in ticks, that begins at `time` of the source."""
        return max(self._nearest(time), self._least)

    def _nearest(self, time: Fraction) -> int:
        """The tick of the film that is nearest to `time` of the source."""
        return round((time - self._begin) / self._tick)

    def _leave_out(self) -> None:
        """Warn, once, of frames that come too soon after others."""
        if not self._leaves_out:
            self._leaves_out = True
            most = 1 / (self._encoder.least_ticks * self._tick)
            logger.warning("a GIF shows %d frames a second at most: some of %s are left out", most, self._info.name)

    def _mux_lead(self, until: Fraction) -> None:
        """Mux the pictures that are encoded already, the last of which lasts until the time `until` of the source."""
        lead, self._lead = self._lead, ()
        for number, picture in enumerate(lead, start=1):
            ticks = self._place(picture.time)
            self._least = ticks + 1
            duration = self._place(lead[number].time if number < len(lead) else until) - ticks
            self._copy_sound_until(ticks)
            packet = cast("Packet[VideoStream]", Packet(picture.data))
            packet.stream, packet.time_base, packet.is_keyframe = self._stream, self._tick, picture.is_key
            packet.pts = packet.dts = ticks  # they come in the order in which they are shown, as encoders are set here
            self._durations[ticks] = duration
            self._gap = duration * self._tick
            self._mux([packet])

    def _copy_sound_until(self, ticks: int) -> None:
        if self._sound is not None:
            self._sound.copy_until(ticks * self._tick)
            self._part.checkpoint()

    def _encode_until(self, picture: av.VideoFrame, end: int) -> None:
        """Encode a picture that lasts until `end`; again and again if it is one to which nothing came for hours."""
        while end - _ticks(picture) > self._longest:
            self._encode(picture, self._longest)
            picture.pts = _ticks(picture) + self._longest
        self._encode(picture, end - _ticks(picture))

    def _encode(self, picture: av.VideoFrame, duration: int) -> None:
        """Encode a picture that lasts `duration` ticks, after the sound that comes before it."""
        ticks = _ticks(picture)
        self._copy_sound_until(ticks)
        if ticks >= self._key_due:
            picture.pict_type = PictureType.I
            # Half a frame early, lest rounding puts it off by one.
            self._key_due = ticks + round(KEY_FRAME_SECONDS / self._tick) - duration // 2
        picture.duration = self._durations[ticks] = duration
        self._gap = duration * self._tick
        self._mux(self._packets.encode(picture))

    def _mux(self, packets: Iterable[Packet[VideoStream]]) -> None:
        for packet in packets:
            if packet.pts is not None:
                packet.duration = self._durations.pop(packet.pts, packet.duration)
            self._container.mux(packet)
            self._part.checkpoint()

    def _finish_sound(self, end: Fraction, tolerance: Fraction, *, complete: bool) -> None:
        if self._sound is None:
            return
        if complete:
            self._sound.copy_rest(end, tolerance)
        else:
            self._sound.copy_until(end)
        self._sound.finish(end)

    def _last_duration(self, ticks: int, until: Fraction | None) -> int:
        """How long the last frame lasts: to the end of the recording if that is about one frame away, else one gap."""
        if until is not None:
            return max(1, round((until - self._begin) / self._tick) - ticks)
        info = self._info
        end = info.end if info.end is not None else info.duration
        rest = Fraction(0) if end is None else end - self._begin - ticks * self._tick
        if rest > 0 and (not self._gap or rest < 2 * self._gap):
            return max(1, round(rest / self._tick))
        gap = self._gap or _DEFAULT_GAP
        # The gap before a live source's last picture may be the hours it was away.
        return max(1, round((min(gap, _LONGEST_LIVE_GAP) if info.is_live else gap) / self._tick))


def _unit(time_base: Fraction, begin: Fraction) -> Fraction:
    """What times that are multiples of `time_base` are counted in from `begin`, which may lie between two of them."""
    both = Fraction(math.gcd(time_base.numerator, begin.numerator), math.lcm(time_base.denominator, begin.denominator))
    return both if both.denominator <= max(_FINEST_BEGUN, time_base.denominator) else time_base


def _clock(time_base: Fraction) -> int:
    """Ticks per second, a multiple of the time base's and fine enough for sound: the unit of MP4's edit lists."""
    return time_base.denominator * max(1, -(-10000 // time_base.denominator))


def _ticks(picture: av.VideoFrame) -> int:
    assert picture.pts is not None
    return picture.pts
