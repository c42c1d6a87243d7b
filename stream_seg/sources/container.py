"""Containers: how one is opened, which of its tracks is shown, and what that says of its times."""

from __future__ import annotations

import time
from fractions import Fraction

import av
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from stream_seg.addresses.failures import reason_of, words_of
from stream_seg.errors import Reason, SourceError, StreamSegError, UsageError
from stream_seg.pyav import TOLERANT, exact
from stream_seg.sources.timeline import Timeline, exact_origin, known_rate
from stream_seg.tracks import films_of

TEXT_FORMATS = frozenset({"tty"})
"""What FFmpeg takes a text file for: it would draw the letters."""


def open_container(
    address: object,
    name: str,
    *,
    options: dict[str, str] | None = None,
    timeout: tuple[float, float] | None = None,
    format: str | None = None,
) -> InputContainer:
    """Open something to demux; raise `SourceError` in words that leave out what FFmpeg says of the address.

    `format` is what FFmpeg calls that in which it comes; None has it find out.
    """
    began = time.monotonic()
    failure: StreamSegError
    try:
        container: InputContainer = av.open(address, "r", format, options=options, timeout=timeout, **TOLERANT)
        return container
    except av.ProtocolNotFoundError:
        failure = UsageError(f"cannot read {name}: this build of FFmpeg does not know such addresses")
    except av.FFmpegError as error:
        may_be_page = isinstance(error, av.InvalidDataError) and name.startswith(("http://", "https://"))
        hint = "; the address must be of the video itself, not of a page that shows it" if may_be_page else ""
        failure = SourceError(f"cannot read {name}: {words_of(error)}{hint}", reason_of(error))
    # Outside of the handler, for FFmpeg's error holds the address and would be the context of ours.
    if timeout is not None and time.monotonic() - began >= timeout[0]:  # FFmpeg often finds other words for it
        raise no_answer(name, timeout[0])
    raise failure


def no_answer(name: str, seconds: float) -> SourceError:
    """Say that a source did not answer in time when it was opened."""
    return SourceError(
        f"{name} did not answer within {seconds:g} s; is it on, and is the address right?", Reason.TIMEOUT
    )


def video_stream(container: InputContainer, name: str) -> VideoStream:
    """Return the track to show, the only one that is read from then on."""
    if container.format.name in TEXT_FORMATS:
        raise SourceError(f"{name} is a text file, not a video", Reason.CODEC)
    films = films_of(container)
    if not films:
        raise SourceError(f"{name} holds no video{_but(container)}", Reason.CODEC)
    chosen = films[0]
    if not chosen.disposition & Disposition.default and any(film.disposition & Disposition.dependent for film in films):
        raise SourceError(
            f"{name} is a photo in tiles (HEIC, as of phones), which is read from a file whose name ends in .heic",
            Reason.CODEC,
        )
    if chosen.codec_context is None:
        raise SourceError(f"{name} is encoded with a codec that this FFmpeg cannot decode", Reason.CODEC)
    for stream in container.streams:
        if stream is not chosen:
            stream.discard = Discard.all  # of an HLS playlist's qualities, only the one shown is downloaded
    return chosen


def _but(container: InputContainer) -> str:
    """Say what a container has instead; nothing is known of what a camera was not asked for."""
    kinds = {"audio": "sound", "video": "a cover picture", "subtitle": "subtitles"}
    found = sorted({kinds.get(stream.type, "data") for stream in container.streams})
    return f", only {' and '.join(found)}" if found else ""


def timeline_of(container: InputContainer, stream: VideoStream, *, live: bool) -> Timeline:
    """Return the clock of a video track, which starts with the container, so that sound stays with it."""
    tick = exact(stream.time_base) or Fraction(1, 90000)
    start = None if container.start_time is None else Fraction(container.start_time, av.time_base)
    of_each = ((other.start_time, exact(other.time_base)) for other in container.streams)
    starts = [begin * unit for begin, unit in of_each if begin is not None and unit]
    return Timeline(tick, exact_origin(start, starts, tick), frame_rate(stream, live=live))


def frame_rate(stream: VideoStream, *, live: bool) -> Fraction | None:
    """Return the declared frame rate of a video track, None where it declares none that can be one.

    Of a camera FFmpeg has measured nothing, and its guess counts fields, two a picture; the codec's counts pictures.
    """
    codec = exact(stream.codec_context.framerate) if live else None
    return known_rate(exact(stream.average_rate)) or known_rate(codec) or known_rate(exact(stream.guessed_rate))
