"""Soundtrack: the sound of a source in one film made from it, handed over in step with the pictures."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Protocol, cast

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.error import PyAVCallbackError
from av.packet import Packet

from stream_seg.sinks.original import Original, Sound
from stream_seg.tracks import stream_like, without_priming

logger = logging.getLogger(__name__)

REENCODED = {"webm": "libopus"}
"""The encoder for sound that a container refuses; AAC elsewhere."""

_LONGEST_PAUSE = Fraction(1800)
"""Seconds between two packets of sound. MP4 has 31 bits for the samples between them, and where those do not do, FFmpeg
ends the process (an assertion in its muxer), at 192 kHz after three hours. It may take one packet for earlier by a
pause, as the first of a fragment, so that two of them follow each other."""

_WAITING = ("mp4", "mov")
"""The formats whose header waits for the first sound of each track, all pictures with it, in memory. For AC-3 and some
others it cannot be written without."""

_SKIPPING = ("matroska", "webm")
"""The formats that tell how many samples of priming a track begins with, which players leave out."""

_LONGEST_WAIT = 600
"""How many seconds after its beginning a film in one of these may have its first sound."""

_LATEST = 5
"""How many seconds after its time the first sound of a track is still waited for. A live source may fall silent just
when a film begins."""

_LEAST_FILLED = Fraction(1, 10)
"""Seconds that samples without times may be early before silence is put in: not for what is but rounded."""

_LONGEST_FILLED = 3600
"""Seconds of silence that are put in at once; of 48 kHz stereo they take 0.7 GB."""

_SILENCE = {"pcm_u8": b"\x80", "pcm_mulaw": b"\xff", "pcm_alaw": b"\xd5"}
"""A byte of silence in the encodings of samples for which it is not 0 (ITU-T G.711 for the latter two)."""


class Track(Protocol):
    """A way for one sound track from the input into the output; packets have the output's times already."""

    def put(self, packet: Packet[AudioStream]) -> None: ...

    def finish(self) -> None: ...


class Soundtrack:
    """The sound of `original` in a film that begins `start` seconds after its beginning.

    Times given to its methods are seconds in the film. Sound that cannot be written is left out with a warning: it must
    not cost the pictures.
    """

    def __init__(self, original: Original, start: Fraction) -> None:
        self.original = original
        self._start = start
        self._tracks: dict[int, Track] = {}
        self._unheard: dict[int, Sound] = {}
        self._left_out: set[int] = set()
        self._order: dict[int, int] = {}
        self._heard: dict[int, int] = {}  # by track, when its last packet begins, in ticks

    def attach(self, output: OutputContainer, *, copy: bool) -> None:
        """Add a stream to `output` for each sound track that has sound; before its header is written.

        With `copy`, packets go over as they are wherever the container takes their codec.
        """
        self._tracks, self._unheard, self._left_out = {}, {}, set()
        for index, (stream, first) in self.original.tracks_from(self._start).items():
            waits = output.format.name in _WAITING
            try:
                if waits and first.time - self._start > _LONGEST_WAIT:
                    raise ValueError(f"it begins at {float(first.time):.0f} s, too late for this format; .mkv takes it")
                like = stream
                if output.format.name in _SKIPPING and first.time >= self._start:  # priming begins before
                    like = without_priming(stream, first.packet)
                self._tracks[index] = _track(stream, output, like, copy=copy)
            except (av.FFmpegError, ValueError) as error:
                self._leave_out(index, str(error))
                continue
            if waits:
                self._unheard[index] = Sound(first.time, _copy_of(first.packet))

    def waits_for(self, time: Fraction) -> bool:
        """Whether sound that begins before `time` is still on its way. Returns within 50 ms."""
        return bool(self._tracks) and self.original.waits_for(self._start + time)

    def copy_until(self, time: Fraction) -> None:
        """Hand over the sound that begins before `time`, in step with the pictures."""
        self._hand_over(time)
        for sound in [sound for sound in self._unheard.values() if self._start + time - sound.time > _LATEST]:
            self._put(self._start + time, sound.packet)

    def awaits(self, time: Fraction) -> bool:
        """Hand over the sound that begins before `time`; whether some of it may be late."""
        self._hand_over(time)
        return bool(self._tracks) and self.original.is_late()

    def _hand_over(self, time: Fraction | float) -> None:
        if self._tracks:
            self.original.wait_for(self._start + time)
        while self._tracks and (item := self.original.next()) is not None:
            if item.time - self._start >= time:
                self.original.put_back([item])
                return
            self._put(*item)

    def copy_rest(self, time: Fraction, tolerance: Fraction) -> None:
        """Hand over the sound after the last picture, which ends at `time`.

        All of it when the recording has no further pictures, else what begins before `time`: then the run was cut
        short, and its sound ends with it.
        """
        rest: list[Sound] = []
        if self._tracks:
            self.original.wait_for_picture(self._start + time + tolerance)
        while self._tracks and not self._goes_on(time + tolerance) and (item := self.original.next()) is not None:
            rest.append(item)
        self.original.put_back(rest)
        self._hand_over(time if self._goes_on(time + tolerance) else math.inf)

    def _goes_on(self, time: Fraction) -> bool:
        """Whether the recording has pictures after `time`, as far as it was read."""
        return self.original.picture_seen - self._start > time

    def finish(self, time: Fraction) -> None:
        """Write what encoders still hold, and at `time`, the end of the film, what the header may still wait for."""
        for sound in list(self._unheard.values()):
            self._put(self._start + time, sound.packet)
        for track in self._tracks.values():
            track.finish()

    def _put(self, time: Fraction, packet: Packet[AudioStream]) -> None:
        index = packet.stream_index  # of the input; a track gives the packet that of its own stream
        _move(packet, time - self._start)
        track = self._tracks.get(index)
        if track is None:
            self._leave_out(index, f"it begins after {float(time - self._start):.1f} s, and the file could not wait")
            return
        if not self._is_in_order(packet):
            return
        self._unheard.pop(index, None)
        try:
            for heard in [packet] if isinstance(track, _CopyOfSamples) else self._through_the_pause(packet):
                track.put(heard)
        except PyAVCallbackError:  # the file cannot be written, which is not the sound's fault
            raise
        except (av.FFmpegError, ValueError) as error:  # FFmpeg's own refusals, and PyAV's
            why = error.strerror if isinstance(error, av.FFmpegError) else error
            at = time - self._start
            logger.warning("a sound track of %s is left out from %.1f s on: %s", self.original.name, at, why)
            self._left_out.add(index)
            del self._tracks[index]

    def _through_the_pause(self, packet: Packet[AudioStream]) -> Iterator[Packet[AudioStream]]:
        """The packet and, where nothing was heard for hours before it, itself as often as its container needs that."""
        begins = _begin(packet)
        heard = self._heard.get(packet.stream_index, begins)
        self._heard[packet.stream_index] = begins
        longest = int(_LONGEST_PAUSE / packet.time_base)
        for earlier in range(heard + longest, begins, longest):
            yield _copy_at(packet, earlier)
        yield packet

    def _leave_out(self, index: int, why: str) -> None:
        if index not in self._left_out:
            self._left_out.add(index)
            self.original.warn(f"a sound track of {self.original.name} is left out: {why}")

    def _is_in_order(self, packet: Packet[AudioStream]) -> bool:
        """Whether a packet follows the one before it, for no container takes two at one time.

        One with the time of the one before comes half its duration later, so that the next is right; one that lies
        over sound that was there already does not count.
        """
        if packet.dts is None:
            return True
        last = self._order.get(packet.stream_index)
        if last is not None and packet.dts <= last:
            duration = packet.duration or 0
            if packet.dts == last and not duration:
                return True  # shorter than a tick, as TrueHD is in Matroska, which takes such
            if last - packet.dts > duration:
                return False
            late = last - packet.dts + max(1, duration // 2)
            packet.dts += late
            packet.pts = None if packet.pts is None else packet.pts + late
        self._order[packet.stream_index] = packet.dts
        return True


class _Copy:
    """A track whose packets go over as they are."""

    def __init__(self, source: AudioStream, output: OutputContainer, like: AudioStream) -> None:
        self._output = output
        self._stream = stream_like(like, output)
        _describe(source, self._stream)
        # AAC as broadcast repeats its setup in each packet. Muxers can undo that, but not while writing fragments.
        repeats_setup = source.codec_context.name == "aac" and not source.codec_context.extradata
        self._unpack = BitStreamFilterContext("aac_adtstoasc", source) if repeats_setup else None

    def put(self, packet: Packet[AudioStream]) -> None:
        try:
            packets = self._unpack.filter(packet) if self._unpack else [packet]
        except av.InvalidDataError:
            return  # a damaged packet is silence
        for whole in packets:
            whole.stream = self._stream
            self._output.mux(whole)

    def finish(self) -> None:
        pass


class _CopyOfSamples(_Copy):
    """A track of samples of one size, of which an MP4 or MOV keeps no times but the first: silence fills its pauses."""

    def __init__(self, source: AudioStream, output: OutputContainer, like: AudioStream) -> None:
        super().__init__(source, output, like)
        name, context = source.codec_context.name, self._stream.codec_context
        bits = re.search(r"\d+", name)
        self._rate = context.sample_rate
        self._silence = _SILENCE.get(name, b"\0") * (int(bits[0]) // 8 if bits else 1) * context.layout.nb_channels
        self._end: int | None = None  # of the sound until now, in samples

    def put(self, packet: Packet[AudioStream]) -> None:
        begin = round(_begin(packet) * packet.time_base * self._rate)
        end = begin if self._end is None else self._end
        if begin - end > _LONGEST_FILLED * self._rate:
            hours = (begin - end) / self._rate / 3600
            raise ValueError(f"nothing is heard for {hours:.1f} h, which this format has no way to tell; .mkv does")
        if begin - end > _LEAST_FILLED * self._rate:
            for place in range(end, begin, self._rate):
                samples = min(self._rate, begin - place)
                self._put_at(place, cast("Packet[AudioStream]", Packet(self._silence * samples)), samples)
            end = begin
        samples = packet.size // len(self._silence)
        self._put_at(end, packet, samples)
        self._end = end + samples

    def _put_at(self, place: int, packet: Packet[AudioStream], samples: int) -> None:
        """Put a packet behind all before it, where it is heard; its own time may be a little later."""
        packet.time_base, packet.is_keyframe = Fraction(1, self._rate), True
        packet.pts = packet.dts = place
        packet.duration = samples
        super().put(packet)


class _Encode:
    """A track that is encoded anew, because the container refuses its codec."""

    def __init__(self, source: AudioStream, output: OutputContainer) -> None:
        self._output = output
        name = REENCODED.get(output.format.name, "aac")
        rates = av.Codec(name, "w").audio_rates or []
        rate = source.rate if source.rate in rates else 48000
        stream = output.add_stream(name, rate=rate, layout=_layout(name, rate, source))
        assert isinstance(stream, AudioStream)
        stream.codec_context.open()
        self._stream = stream
        self._resampler: av.AudioResampler | None = None
        self._setup: tuple[str, str, int] | None = None
        self._end: Fraction | None = None  # of what was encoded
        _describe(source, self._stream)

    def put(self, packet: Packet[AudioStream]) -> None:
        packet.stream.codec_context.open(strict=False)
        try:
            frames = packet.decode()
        except av.FFmpegError:  # each decoder has its own numbers for what it makes no sense of
            return  # a damaged packet is silence
        for frame in filter(self._follows, frames):
            for fitting in self._as_the_encoder_takes_it(frame):
                self._output.mux(self._stream.encode(fitting))

    def _follows(self, frame: AudioFrame) -> bool:
        """Whether a frame is heard after what was there already, at whose end one that lies over it begins: an encoder
        takes no time twice."""
        if frame.pts is None or not frame.time_base:
            return True
        begin = frame.pts * frame.time_base
        end = begin + Fraction(frame.samples, frame.rate)
        if self._end is not None and begin < self._end:
            if end <= self._end:
                return False
            frame.pts = math.ceil(self._end / frame.time_base)
        self._end = max(begin, self._end or begin) + end - begin
        return True

    def _as_the_encoder_takes_it(self, frame: AudioFrame) -> list[AudioFrame]:
        """Broadcasts go over from stereo to 5.1 and back, which neither an encoder does nor a resampler."""
        setup = frame.format.name, frame.layout.name, frame.rate
        if self._resampler is None or setup != self._setup:
            context = self._stream.codec_context
            self._resampler = av.AudioResampler(context.format, context.layout, context.sample_rate)
            self._setup = setup
        return self._resampler.resample(frame)

    def finish(self) -> None:
        self._output.mux(self._stream.encode(None))


def _begin(packet: Packet[AudioStream]) -> int:
    begin = packet.pts if packet.pts is not None else packet.dts
    assert begin is not None
    return begin


def _move(packet: Packet[AudioStream], time: Fraction) -> None:
    """Give a packet, and what is decoded from it, another time in seconds."""
    later = round(time / packet.time_base - _begin(packet))
    packet.pts = None if packet.pts is None else packet.pts + later
    packet.dts = None if packet.dts is None else packet.dts + later


def _copy_of(packet: Packet[AudioStream]) -> Packet[AudioStream]:
    copy = cast("Packet[AudioStream]", Packet(bytes(packet)))
    copy.stream, copy.time_base, copy.is_keyframe = packet.stream, packet.time_base, packet.is_keyframe
    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
    return copy


def _copy_at(packet: Packet[AudioStream], ticks: int) -> Packet[AudioStream]:
    """The same packet at another time."""
    copy = _copy_of(packet)
    copy.pts = copy.dts = ticks
    return copy


def _track(source: AudioStream, output: OutputContainer, like: AudioStream, *, copy: bool) -> Track:
    """A copy is described as `like` is. Raises `av.FFmpegError` or `ValueError` for a track that cannot go over."""
    if source.codec_context is None:
        raise ValueError("this FFmpeg does not know its codec")
    if copy:
        loses_pauses = output.format.name in _WAITING and source.codec_context.name.startswith("pcm_")
        with contextlib.suppress(ValueError):  # how PyAV says that the format does not support the codec
            _try_header(source, output)
            return (_CopyOfSamples if loses_pauses else _Copy)(source, output, like)
    return _Encode(source, output)


def _try_header(source: AudioStream, like: OutputContainer) -> None:
    """Raise `ValueError` for a track that such a container cannot hold.

    Of some codecs, as TrueHD in .mp4 and Opus in .mov, FFmpeg says so only when the header is written. In the output
    that would cost the other tracks, which then were encoded as well.
    """
    trial = av.open(io.BytesIO(), "w", format=like.format.name, container_options=like.container_options)
    try:
        _Copy(source, trial, source)
        trial.start_encoding()
    except av.FFmpegError as error:
        raise ValueError(error.strerror) from error
    finally:
        with contextlib.suppress(av.FFmpegError):  # without sound some headers cannot be finished
            trial.close()


def _layout(encoder: str, rate: int, source: AudioStream) -> str:
    """The source's loudspeakers as far as the encoder knows them: Opus has 5.1, but not the 5.1(side) of AC-3.

    Tried before the output has a stream for it, which could not be taken back and would cost the other tracks.
    """
    for layout in (source.layout.name, f"{source.layout.nb_channels}c", "stereo"):
        context = av.CodecContext.create(encoder, "w")
        assert isinstance(context, AudioCodecContext)
        context.sample_rate, context.layout = rate, layout
        formats = context.codec.audio_formats
        assert formats  # every encoder of sound takes some
        context.format = formats[0]
        with contextlib.suppress(av.FFmpegError):
            context.open()
            return layout
    raise ValueError(f"{encoder} cannot encode it")


def _describe(source: AudioStream, stream: AudioStream) -> None:
    for key in ("language", "title"):
        if key in source.metadata:
            stream.metadata[key] = source.metadata[key]
    stream.disposition = source.disposition
