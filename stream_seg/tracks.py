"""Owns which of a container's tracks is its film, for those who show it and those who copy what goes with it."""

from __future__ import annotations

from av.container import InputContainer
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
