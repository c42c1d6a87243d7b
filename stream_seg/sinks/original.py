"""Original: what of a recording goes into the annotated video untouched: its sound, title and pixel aspect.

The recording is opened a second time, so that copying sound does not depend on how fast frames come, and its packets
are handed over in step with the pictures.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Protocol, TypeGuard

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer, OutputContainer
from av.error import PyAVCallbackError
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from stream_seg.sinks.joints import Joints

logger = logging.getLogger(__name__)

REENCODED = {"webm": "libopus"}
"""The encoder for sound that a container refuses; AAC elsewhere."""

_LOOK_AHEAD_SECONDS = 5
"""How far into the output the first packet of a sound track is looked for, before the track is left out."""

_BROKEN_READS = 50
"""Damaged places in a row after which the rest of the sound is given up."""


class Track(Protocol):
    """A way for one sound track from the input into the output; packets have the output's times already."""

    def put(self, packet: Packet[AudioStream]) -> None: ...

    def finish(self) -> None: ...


class Original:
    """The recording at `path`, from `start` to `end` seconds after its beginning.

    Times given to its methods are seconds in the output, whose beginning is `start`. Sound that cannot be read or
    written is left out with a warning: it must not cost the pictures.
    """

    def __init__(self, path: Path, start: Fraction, end: Fraction | None) -> None:
        """Raises `av.FFmpegError` or `OSError` when the recording cannot be opened."""
        self._path = path
        self._input = av.open(str(path.absolute()), metadata_errors="replace")
        begin = Fraction(self._input.start_time or 0, av.time_base)
        self._shift = begin + start
        self._starts_late = start > 0
        self._limit = None if end is None else end - start
        self._tracks: dict[int, Track] = {}
        self._video = _pictures(self._input)
        self._picture_seen = Fraction(-1)
        self._joints = Joints(self._video)
        self._order: dict[int, int] = {}
        self._ahead: list[tuple[Fraction, Packet[AudioStream]]] = []
        if self._starts_late:
            self._input.seek(int(self._shift * av.time_base))
        self._packets = self._read()

    @property
    def title(self) -> str | None:
        return self._input.metadata.get("title")

    def pixel_aspect(self, size: tuple[int, int]) -> Fraction | None:
        """The width of a pixel over its height in frames of this size, None when square or unknown."""
        if self._video is None or not self._video.sample_aspect_ratio:
            return None
        aspect = self._video.sample_aspect_ratio
        stored = self._video.codec_context.width, self._video.codec_context.height
        if aspect == 1 or size not in (stored, stored[::-1]):
            return None
        return aspect if size == stored else 1 / aspect

    def attach(self, output: OutputContainer, *, copy: bool) -> None:
        """Add a stream to `output` for each sound track that has sound; before its header is written.

        With `copy`, packets go over as they are wherever the container takes their codec.
        """
        self._tracks = {}
        for stream in self._input.streams.audio:
            if stream.index not in self._sounding():
                continue
            try:
                self._tracks[stream.index] = _track(stream, output, copy=copy)
            except (av.FFmpegError, ValueError) as error:
                logger.warning("a sound track of %s is left out: %s", self._path, error)

    def _sounding(self) -> set[int]:
        """The streams that have sound soon: the header of the output would wait for those that have none."""
        sounding = {packet.stream_index for _, packet in self._ahead}
        late = self._ahead and self._ahead[-1][0] > _LOOK_AHEAD_SECONDS
        while not late and len(sounding) < len(self._input.streams.audio):
            item = next(self._packets, None)
            if item is None:
                break
            self._ahead.append(item)
            sounding.add(item[1].stream_index)
            late = item[0] > _LOOK_AHEAD_SECONDS
        return sounding

    def copy_until(self, time: Fraction) -> None:
        """Hand over the sound that begins before `time`."""
        while self._tracks and (item := self._next()) is not None:
            if item[0] >= time:
                self._ahead.insert(0, item)
                return
            self._put(*item)

    def copy_rest(self, time: Fraction, tolerance: Fraction) -> None:
        """Hand over the sound after the last picture, which ends at `time`.

        All of it when the recording has no further pictures, else what begins before `time`: then the run was cut
        short, and its sound ends with it.
        """
        rest = []
        while self._tracks and self._picture_seen <= time + tolerance and (item := self._next()) is not None:
            rest.append(item)
        cut_short = self._picture_seen > time + tolerance
        for at, packet in rest:
            if at < time or not cut_short:
                self._put(at, packet)

    def finish(self) -> None:
        """Write what encoders still hold."""
        for track in self._tracks.values():
            track.finish()

    def close(self) -> None:
        self._input.close()

    def _next(self) -> tuple[Fraction, Packet[AudioStream]] | None:
        return self._ahead.pop(0) if self._ahead else next(self._packets, None)

    def _put(self, time: Fraction, packet: Packet[AudioStream]) -> None:
        index = packet.stream_index  # of the input; a track gives the packet that of its own stream
        track = self._tracks.get(index)
        if track is None or not self._is_in_order(packet):
            return
        try:
            track.put(packet)
        except PyAVCallbackError:  # the file cannot be written, which is not the sound's fault
            raise
        except (av.FFmpegError, ValueError) as error:  # FFmpeg's own refusals, and PyAV's
            why = error.strerror if isinstance(error, av.FFmpegError) else error
            logger.warning("a sound track of %s is left out from %.1f s on: %s", self._path, time, why)
            del self._tracks[index]

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

    def _read(self) -> Iterator[tuple[Fraction, Packet[AudioStream]]]:
        """Packets of sound inside the limits, and the time at which they begin; all times are the output's."""
        for moved, packet in self._joints.joined(self._demux()):
            time = moved - self._shift
            if not _is_sound(packet):
                self._picture_seen = max(self._picture_seen, time)
            elif self._limit is not None and time >= self._limit:
                if time >= self._limit + _LOOK_AHEAD_SECONDS:
                    return
            # What lies before a recording's first picture belongs to its decoder; before a cut, it is another scene's.
            elif time >= 0 or not self._starts_late:
                _move(packet, time)
                yield time, packet
        if (back := self._joints.left_at) is not None:
            logger.warning("the sound of %s jumps back to %.1f s, its pictures do not: left out", self._path, back)

    def _demux(self) -> Iterator[Packet[Stream]]:
        chosen = [*self._input.streams.audio, *([self._video] if self._video else [])]
        broken = 0
        while broken < _BROKEN_READS:
            try:
                for packet in self._input.demux(chosen):
                    broken = 0
                    yield packet
                return
            except av.InvalidDataError:
                broken += 1
            except (av.FFmpegError, OSError) as error:
                logger.warning("the rest of the sound of %s cannot be read: %s", self._path, error.strerror)
                return


class _Copy:
    """A track whose packets go over as they are."""

    def __init__(self, source: AudioStream, output: OutputContainer) -> None:
        self._output = output
        self._stream = output.add_stream_from_template(source)
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
        _describe(source, self._stream)

    def put(self, packet: Packet[AudioStream]) -> None:
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            return  # a damaged packet is silence
        for frame in frames:
            for fitting in self._as_the_encoder_takes_it(frame):
                self._output.mux(self._stream.encode(fitting))

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


def _move(packet: Packet[AudioStream], time: Fraction) -> None:
    """Give a packet, and what is decoded from it, another time in seconds."""
    begins = packet.pts if packet.pts is not None else packet.dts
    assert begins is not None
    later = round(time / packet.time_base - begins)
    packet.pts = None if packet.pts is None else packet.pts + later
    packet.dts = None if packet.dts is None else packet.dts + later


def _track(source: AudioStream, output: OutputContainer, *, copy: bool) -> Track:
    """Raises `av.FFmpegError` or `ValueError` for a track that cannot go over."""
    if source.codec_context is None:
        raise ValueError("this FFmpeg does not know its codec")
    if copy:
        try:
            return _Copy(source, output)
        except ValueError:  # how PyAV says that the format does not support the codec
            pass
    return _Encode(source, output)


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


def _is_sound(packet: Packet[Stream]) -> TypeGuard[Packet[AudioStream]]:
    return isinstance(packet.stream, AudioStream)


def _describe(source: AudioStream, stream: AudioStream) -> None:
    for key in ("language", "title"):
        if key in source.metadata:
            stream.metadata[key] = source.metadata[key]
    stream.disposition = source.disposition


def _pictures(container: InputContainer) -> VideoStream | None:
    """The first stream of moving pictures; cover art is none."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None
