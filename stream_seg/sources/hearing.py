"""Hearing: the sound of one connection to a live source, put where its pictures are in time."""

from __future__ import annotations

import logging
import math
from collections import deque
from fractions import Fraction
from typing import cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Stream
from av.video.stream import VideoStream

from stream_seg.feed_sound import FeedSound, Piece
from stream_seg.sources.arrival import CaptureTimes
from stream_seg.tracks import description_of, learn

logger = logging.getLogger(__name__)

MOST_WAITING = 1024
"""Packets that may come before the first picture is decoded; older ones go: they are not of its time."""

SMOOTH = 0.04
"""Seconds by which the sender's clock may turn out to be another than was thought before its sound is moved: what is
known of delays changes by milliseconds, and each move is heard as a click."""

MOST_APART = 10
"""Seconds between the time of sound by the sender's clock, and when it came, above which its track has a clock of its
own. Of playlists, sound and pictures come as far apart as segments are long."""


class Hearing:
    """Hands the packets of `track` to `sound`, with the times of the pictures that were captured with them.

    The sender's clock tells which those are. Of a track that has another clock than the pictures it is the time of
    arrival. To be used by the thread that reads.
    """

    def __init__(self, sound: FeedSound, track: AudioStream, name: str) -> None:
        self._sound = sound
        self.track = track
        self._name = name
        self._described: bytes | None = None
        self._usual = Fraction(0)  # how long a packet of unknown duration lasts, in seconds
        self._pictures = CaptureTimes()
        self._later: float | None = None  # how much more `time.monotonic()` is than the sender's clock, in seconds
        self._moved = math.inf  # the same as of the sound that was handed over
        self._own = CaptureTimes()
        self._waiting: deque[tuple[Packet[AudioStream], float]] = deque(maxlen=MOST_WAITING)
        self._end: Fraction | None = None
        sound.is_expected = True

    def see(self, stamp: float | None, arrived: float) -> None:
        """Note a picture, captured at `stamp` by the sender's clock, that came at `arrived`; both in seconds."""
        if stamp is None:
            return
        self._later = self._pictures.taken_at(stamp, arrived) - stamp
        while self._waiting:
            self._put(*self._waiting.popleft(), self._later)

    def hear(self, packet: Packet[Stream], arrived: float) -> None:
        """Hand over a packet that came at `arrived`; the empty one at the end is none."""
        if not packet.size or self._described == b"":
            return
        heard = cast("Packet[AudioStream]", packet)
        if self._later is None:
            self._waiting.append((heard, arrived))
        else:
            self._put(heard, arrived, self._later)

    def _put(self, packet: Packet[AudioStream], arrived: float, later: float) -> None:
        if self._described is None:
            self._described = self._description(packet)
        if not self._described:
            return
        duration = packet.duration * packet.time_base if packet.duration else self._usual
        begins = self._captured(packet, arrived, later)
        if self._end is not None and begins + duration / 2 < self._end:
            return  # most of its time is over
        self._end = begins + duration
        self._sound.put(Piece(self._described, begins, duration, bytes(packet)))

    def _captured(self, packet: Packet[AudioStream], arrived: float, later: float) -> Fraction:
        """When the first of a packet was captured, by `time.monotonic()`."""
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None:  # one of several that came as one
            return Fraction(arrived) if self._end is None else self._end
        told = stamp * packet.time_base
        if abs(float(told) + later - arrived) > MOST_APART:
            later = self._own.taken_at(float(told), arrived) - float(told)
        if abs(later - self._moved) > SMOOTH:
            self._moved = later
        return told + Fraction(self._moved)

    def _description(self, packet: Packet[AudioStream]) -> bytes:
        """What tells of the track; empty where nothing can."""
        self._usual = learn(self.track, packet)
        try:
            return description_of(self.track, packet)
        except (av.FFmpegError, ValueError) as error:
            why = error.strerror if isinstance(error, av.FFmpegError) else error
            logger.warning("the sound of %s is left out: %s", self._name, why)
            self._sound.is_expected = False
            return b""


def hearing_of(container: InputContainer, pictures: VideoStream, sound: FeedSound, name: str) -> Hearing | None:
    """Have the sound that belongs to the pictures of a live source read with them; None where there is none."""
    sound.is_expected = False
    # Of a track that begins later FFmpeg knows nothing yet, and calls none of those best.
    track = container.streams.best("audio", related=pictures) or next(iter(container.streams.audio), None)
    if not isinstance(track, AudioStream):
        return None
    if track.codec_context is None:
        logger.warning("the sound of %s is left out: this FFmpeg does not know its codec", name)
        return None
    track.discard = Discard.default
    return Hearing(sound, track, name)
