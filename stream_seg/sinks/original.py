"""Original: what of a recording goes into annotated videos untouched: its sound, title and pixel aspect.

The recording is opened a second time, so that copying sound does not depend on how fast frames come.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, TypeGuard

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from stream_seg.frame import SourceInfo
from stream_seg.sinks.joints import Joints

logger = logging.getLogger(__name__)

_UNINDEXED = frozenset({"mpegts", "mpeg"})
"""The formats that are glued together, in which a time may be there several times: they are not sought in but read from
the beginning, once, as the `Decoder` does for their pictures. Two hours take some seconds."""

_LOOK_AHEAD_SECONDS = 5
"""How far into the output the first packet of a sound track is looked for, before the track is left out."""

_BROKEN_READS = 50
"""Damaged places in a row after which the rest of the sound is given up."""


class Sound(NamedTuple):
    """A packet, and when it begins."""

    time: Fraction
    packet: Packet[AudioStream]


class Original:
    """The recording at `path`, from `start` to `end` seconds after its beginning, for one film after another.

    All times are seconds after its beginning. Sound that cannot be read is left out with a warning: it must not cost
    the pictures.
    """

    def __init__(self, path: Path, start: Fraction, end: Fraction | None) -> None:
        """Raises `av.FFmpegError` or `OSError` when the recording cannot be opened."""
        self.path = path
        self.picture_seen = Fraction(-1)
        """When the latest picture begins that reading has come to."""
        self._input = av.open(str(path.absolute()), metadata_errors="replace")
        self._begin = Fraction(self._input.start_time or 0, av.time_base)
        self._end = end
        self._from: Fraction | float = -math.inf
        self._video = _pictures(self._input)
        self._joints = Joints(self._video)
        self._ahead: deque[Sound] = deque()
        if start > 0 and self._input.format.name not in _UNINDEXED:
            self._input.seek(int((self._begin + start) * av.time_base))
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

    def tracks_from(self, start: Fraction) -> list[AudioStream]:
        """Let go what begins before `start`; return the tracks that have sound soon after it.

        The header of the output would wait for those that have none.
        """
        # What lies before a recording's first picture belongs to its decoder; before a cut, it is another scene's.
        self._from = start if start > 0 else -math.inf
        tracks = self._input.streams.audio
        sounding: set[int] = set()
        seen: list[Sound] = []
        while len(sounding) < len(tracks) and not (seen and seen[-1].time > start + _LOOK_AHEAD_SECONDS):
            item = self.next()
            if item is None:
                break
            seen.append(item)
            sounding.add(item.packet.stream_index)
        self.put_back(seen)
        return [track for track in tracks if track.index in sounding]

    def next(self) -> Sound | None:
        """Return the next sound, None when there is no more."""
        while (item := self._ahead.popleft() if self._ahead else next(self._packets, None)) is not None:
            if item.time >= self._from:
                break
        return item

    def put_back(self, items: Sequence[Sound]) -> None:
        """Have `next` return these again, in this order."""
        self._ahead.extendleft(reversed(items))

    def close(self) -> None:
        self._input.close()

    def _read(self) -> Iterator[Sound]:
        for moved, packet in self._joints.joined(self._demux()):
            time = moved - self._begin
            if not _is_sound(packet):
                self.picture_seen = max(self.picture_seen, time)
            elif self._end is None or time < self._end:
                yield Sound(time, packet)
            elif time >= self._end + _LOOK_AHEAD_SECONDS:
                return
        if (back := self._joints.left_at) is not None:
            logger.warning("the sound of %s jumps back to %.1f s, its pictures do not: left out", self.path, back)

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
                logger.warning("the rest of the sound of %s cannot be read: %s", self.path, error.strerror)
                return


def original_of(info: SourceInfo) -> Original | None:
    """Return what goes over from the input, if it is a recording that can be opened a second time."""
    if info.kind != "video" or info.path is None or not info.path.is_file():
        return None
    try:
        return Original(info.path, info.start, info.end)
    except (av.FFmpegError, OSError) as error:
        logger.warning("the sound of %s is left out: %s", info.path, error.strerror)
        return None


def _is_sound(packet: Packet[Stream]) -> TypeGuard[Packet[AudioStream]]:
    return isinstance(packet.stream, AudioStream)


def _pictures(container: InputContainer) -> VideoStream | None:
    """The first stream of moving pictures; cover art is none."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None
