"""Owns which of a container's tracks is its film, for those who show it and those who copy what goes with it, and how a
track of sound is described to who has not opened its container."""

from __future__ import annotations

import contextlib
import io
from fractions import Fraction
from typing import cast

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream


def films_of(container: InputContainer) -> list[VideoStream]:
    """The tracks of moving pictures, that to show first: the first default one that is there. Cover art is none."""
    films = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    return sorted(films, key=_preference, reverse=True)


def _preference(film: VideoStream) -> tuple[bool, bool, bool]:
    """By whether anything was seen of it: a broadcast names tracks of other channels, which may not be recorded. Then
    by whether it is a default one, and no single picture: an animated AVIF file has its cover beside the film.
    """
    is_there = film.codec_context is None or film.codec_context.width > 0
    return is_there, bool(film.disposition & Disposition.default), film.frames > 1


def learn(track: AudioStream, packet: Packet[AudioStream]) -> Fraction:
    """Find out the rate and the loudspeakers of a track that begins so late that FFmpeg saw none of it when opening.

    Returns how many seconds such a packet lasts, which FFmpeg does not know then either; 0 where nothing was found out.
    """
    context = track.codec_context
    if context is None or context.sample_rate:
        return Fraction(0)
    decoder = av.CodecContext.create(context.name, "r")
    assert isinstance(decoder, AudioCodecContext)
    with contextlib.suppress(av.FFmpegError):
        samples = sum(frame.samples for frame in decoder.decode(packet))
        context.sample_rate, context.layout = decoder.sample_rate, decoder.layout
        return Fraction(samples, decoder.sample_rate or 1)
    return Fraction(0)


def stream_like(track: AudioStream, output: OutputContainer) -> AudioStream:
    """Add a stream to `output` that is as the track is, also as far as that was learned."""
    stream = output.add_stream_from_template(track)
    context = stream.codec_context
    if not context.sample_rate:  # what is known of a track that begins late is not in its template
        context.sample_rate, context.layout = track.codec_context.sample_rate, track.codec_context.layout
    return stream


def description_of(track: AudioStream, packet: Packet[AudioStream]) -> bytes:
    """All there is to know of a track, as a NUT file with this packet of it, which `track_of` reads.

    Raises `av.FFmpegError` or `ValueError` for a codec of which such a file cannot tell.
    """
    file = io.BytesIO()
    sample = cast("Packet[AudioStream]", Packet(bytes(packet)))
    with av.open(file, "w", format="nut") as container:
        sample.stream, sample.time_base = stream_like(track, container), packet.time_base
        sample.pts, sample.dts, sample.is_keyframe = 0, 0, True
        container.mux(sample)
    track_of(file.getvalue())
    return file.getvalue()


def without_priming(track: AudioStream, packet: Packet[AudioStream]) -> AudioStream:
    """A track like this one for a file that begins with `packet`, sound to hear, and no samples of priming before it.

    Opus keeps them: its setup tells of them, too, and its decoder leaves them out wherever it begins. PyAV tells of
    priming since 19, whose FFmpeg is also the first to pass on that of AAC.
    """
    context = track.codec_context
    if context is None or context.name == "opus" or not getattr(context, "initial_padding", 0):
        return track
    with contextlib.suppress(av.FFmpegError, ValueError):  # of a codec that cannot be described
        return track_of(description_of(track, packet))  # which does not tell of priming
    return track


def track_of(description: bytes) -> AudioStream:
    """A track like the one described, in a container of its own. Raises `av.FFmpegError`."""
    container = av.open(io.BytesIO(description), format="nut")
    return container.streams.audio[0]
