"""Recorded: the sound, title and pixel aspect of a recording.

The recording is opened a second time, so that copying sound does not depend on how fast frames come.
"""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TypeGuard

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Stream
from av.video.stream import VideoStream

from stream_seg.frame import Reopening
from stream_seg.pyav import TOLERANT, exact, legible, size_of
from stream_seg.sinks.joints import Joints
from stream_seg.sinks.original import Original, Sound
from stream_seg.tracks import films_of, learn

logger = logging.getLogger(__name__)

_UNINDEXED = frozenset({"mpegts", "mpeg"})
"""The formats that are glued together, in which a time may be there several times: they are not sought in but read from
the beginning, once, as the `Decoder` does for their pictures. Two hours take some seconds."""

_PLAYLIST = "hls"

LOOK_AHEAD_SECONDS = 5
"""How far into the output the first packet of a sound track is looked for, before the track is left out."""

_PRIMING = Fraction(1, 10)
"""How many seconds of sound before the beginning a decoder may need. What lies before that was cut off without encoding
anew, as phones do it; an .mp4 says that it is not to be heard, which an .mkv cannot."""

_SEEK_BACK = (0, 20)
"""Seconds before the wanted time to try in turn, then all is read. HLS begins with the next key frame."""

_CUT_OFF_SECONDS = 2
"""How much of what the header promises may be missing without a word."""

_BROKEN_READS = 50
"""Damaged places in a row after which the rest of the sound is given up."""


class Recorded(Original):
    """The recording at `source`, from `start` to `end` seconds after its beginning, for one film after another.

    Of what comes before `start` nothing is told, and without `sound` of none.
    """

    def __init__(self, source: Path | Reopening, start: Fraction, end: Fraction | None, *, sound: bool = True) -> None:
        """Raises `av.FFmpegError` or `OSError` when the recording cannot be opened."""
        super().__init__(source.name if isinstance(source, Reopening) else str(source))
        self.silent_until: Fraction | float = Fraction(-1)
        """When the latest of those begins between which and the picture before it there is no sound."""
        self._source = source
        self._wants_sound = sound
        self._start = start
        self._end = end
        self._packets = self._begun()

    def _begun(self) -> Iterator[Sound]:
        """Open the recording; return its sound."""
        self._open()
        return self._read()

    def _open(self) -> None:
        self._use(_opened(self._source))
        can_seek = isinstance(self._source, Path) or self._source.can_seek
        indexed = self._start > 0 and can_seek and self._input.format.name not in _UNINDEXED
        if indexed and not any(self._enter(self._start - back) for back in _SEEK_BACK):
            self._input.close()
            self._use(_opened(self._source))

    def _use(self, container: InputContainer) -> None:
        self._input = container
        self._begin = Fraction(container.start_time or 0, av.time_base)
        self._video = next(iter(films_of(container)), None)
        sound = _sound_tracks(container, self._video) if self._wants_sound else []
        self._chosen: list[Stream] = [*sound, *([self._video] if self._video else [])]
        self._tracks = {track.index: track for track in sound}
        self._first: list[Packet[Stream]] = []
        self._joints = Joints(self._chosen, self._video, in_order=container.format.name == _PLAYLIST)

    def _enter(self, start: Fraction) -> bool:
        """Go on from `start`; whether that led to a place before which there is nothing that is wanted.

        What cannot be sought in, as on a server that sends all or nothing, is read on from somewhere.
        """
        try:
            self._input.seek(int((self._begin + max(start, Fraction(0))) * av.time_base))
            first = next(self._input.demux(self._chosen), None)
        except av.FFmpegError:
            return False
        if first is None or not first.size:
            return False
        self._first = [first]
        stamp = first.pts if first.pts is not None else first.dts
        return stamp is None or stamp * first.time_base - self._begin <= self._start

    @property
    def title(self) -> str | None:
        title = self._input.metadata.get("title")
        return None if title is None else legible(title)

    def pixel_aspect(self, size: tuple[int, int]) -> Fraction | None:
        aspect = None if self._video is None else exact(self._video.sample_aspect_ratio)
        if self._video is None or aspect is None:
            return None
        stored = self._video.codec_context.width, self._video.codec_context.height
        if aspect == 1 or size not in (stored, stored[::-1]):
            return None
        return aspect if size == stored else 1 / aspect

    def tracks_from(self, start: Fraction) -> dict[int, tuple[AudioStream, Sound]]:
        # What lies before a recording's beginning belongs to its decoder; before a cut, it is another scene's.
        self._from = start if start > 0 else -_PRIMING
        first: dict[int, Sound] = {}
        seen: list[Sound] = []
        while len(first) < len(self._tracks) and not (seen and seen[-1].time > start + LOOK_AHEAD_SECONDS):
            item = self.next()
            if item is None:
                break
            seen.append(item)
            first.setdefault(item.packet.stream_index, item)
            learn(self._tracks[item.packet.stream_index], item.packet)
        self.put_back(seen)
        return {index: (track, first[index]) for index, track in self._tracks.items() if index in first}

    def close(self) -> None:
        self._input.close()

    def _read_next(self) -> Sound | None:
        return next(self._packets, None)

    def _read(self) -> Iterator[Sound]:
        unit = self._joints.unit
        first = math.ceil((self._start + self._begin) / unit) if self._start > 0 else -math.inf
        for ticks, packet in self._joints.joined(self._demux()):
            if ticks < first:
                continue
            time = ticks * unit - self._begin
            if not _is_sound(packet):
                self.picture_seen = max(self.picture_seen, time)
                if not self._joints.has_waiting:
                    self.silent_until = self.picture_seen
            elif self._end is None or time < self._end:
                yield Sound(time, packet)
            elif time >= self._end + LOOK_AHEAD_SECONDS:
                return
        if (back := self._joints.left_at) is not None:
            logger.warning("the sound of %s jumps back to %.1f s, its pictures do not: left out", self.name, back)

    def _demux(self) -> Iterator[Packet[Stream]]:
        if not self._tracks:
            return
        yield from self._first
        broken = 0
        while broken < _BROKEN_READS:
            try:
                for packet in self._input.demux(self._chosen):
                    broken = 0
                    yield packet
                return
            except av.InvalidDataError:
                broken += 1
            except (av.FFmpegError, OSError) as error:
                if not self._has_hung_up(error):
                    self._broke_off(error)
                return

    def _has_hung_up(self, error: av.FFmpegError | OSError) -> bool:
        """Whether it is the end of what an HTTP server sends without saying how long it is."""
        length = Fraction(self._input.duration or 0, av.time_base)
        is_whole = self.picture_seen > length - _CUT_OFF_SECONDS
        return error.errno == errno.EIO and not size_of(self._input) and is_whole

    def _broke_off(self, error: av.FFmpegError | OSError) -> None:
        logger.warning("the rest of the sound of %s cannot be read: %s", self.name, error.strerror)


def _opened(source: Path | Reopening) -> InputContainer:
    container = av.open(str(source.absolute()), **TOLERANT) if isinstance(source, Path) else source.open()
    assert isinstance(container, InputContainer)
    return container


def _is_sound(packet: Packet[Stream]) -> TypeGuard[Packet[AudioStream]]:
    return isinstance(packet.stream, AudioStream)


def _sound_tracks(container: InputContainer, pictures: VideoStream | None) -> Sequence[AudioStream]:
    """The tracks of sound, of an HLS playlist's qualities that of the one shown; the others are not downloaded."""
    tracks: Sequence[AudioStream] = container.streams.audio
    if container.format.name == _PLAYLIST:
        best = container.streams.best("audio", related=pictures)
        tracks = [track for track in tracks if track is best]
    for stream in container.streams:
        if stream is not pictures and stream not in tracks:
            stream.discard = Discard.all
    return tracks
