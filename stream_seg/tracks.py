"""Owns which of a container's tracks is its film, for those who show it and those who copy what goes with it, and how a
track of sound is described to who has not opened its container."""

from __future__ import annotations

import io
from typing import cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
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


def description_of(track: AudioStream, packet: Packet[AudioStream]) -> bytes:
    """All there is to know of a track, as a NUT file with this packet of it, which `track_of` reads.

    Raises `av.FFmpegError` or `ValueError` for a codec of which such a file cannot tell.
    """
    file = io.BytesIO()
    sample = cast("Packet[AudioStream]", Packet(bytes(packet)))
    with av.open(file, "w", format="nut") as container:
        sample.stream, sample.time_base = container.add_stream_from_template(track), packet.time_base
        sample.pts, sample.dts, sample.is_keyframe = 0, 0, True
        container.mux(sample)
    track_of(file.getvalue())
    return file.getvalue()


def track_of(description: bytes) -> AudioStream:
    """A track like the one described, in a container of its own. Raises `av.FFmpegError`."""
    container = av.open(io.BytesIO(description), format="nut")
    return container.streams.audio[0]
