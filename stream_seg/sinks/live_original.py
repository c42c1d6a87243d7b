"""LiveOriginal: the sound of a camera or feed, as it comes."""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from fractions import Fraction
from typing import cast

from av.audio.stream import AudioStream
from av.packet import Packet

from stream_seg.feed_sound import FeedSound, Piece
from stream_seg.frame import Frame
from stream_seg.pyav import exact
from stream_seg.sinks.original import Original, Sound
from stream_seg.tracks import track_of

_LONGEST_WAIT = 1.0
"""Seconds that the first film waits for the first sound of a source that has some: if that comes later, it has none."""

_SILENT_SECONDS = 2
"""Seconds without sound after which a track is left out of a film that begins then, as one whose microphone was
unplugged: the header of the film would wait for it."""


class LiveOriginal(Original):
    """The sound of the live source `name`, from when this is made on.

    `see` tells it which of its times is which by the clock of the frames. What comes is there at once or never: only
    the first film waits for the first of it. Where a source comes back with sound of another kind, it is in the films
    that begin afterwards.
    """

    def __init__(self, name: str, sound: FeedSound) -> None:
        super().__init__(name)
        self.picture_seen = math.inf  # it goes on beyond any film
        self._sound = sound
        self._pieces = sound.listen()
        self._origin: Fraction | None = None  # the `time.monotonic()` of the source's beginning
        self._described: tuple[bytes, AudioStream] | None = None  # the latest description, and the track meant by it
        self._kinds: list[AudioStream] = []
        self._track: AudioStream | None = None  # of the present film
        self._latest: Piece | None = None
        self._asked: float | None = None  # when it was first asked for what has not come

    def see(self, frame: Frame) -> None:
        if self._origin is None:
            self._origin = Fraction(frame.captured_at) - frame.pts

    def tracks_from(self, start: Fraction) -> dict[int, tuple[AudioStream, Sound]]:
        self._track, self._from = None, start
        self.pass_over(start)
        if self._latest is None or self._origin is None:
            return {}
        heard = self._as_sound(self._latest, self._origin)
        if heard.time < start - _SILENT_SECONDS:
            return {}
        self._track = heard.packet.stream
        return {self._track.index: (self._track, heard)}

    def next(self) -> Sound | None:
        while (item := super().next()) is not None:
            if self._track is None or item.packet.stream is self._track:
                break
            self.warn(f"{self.name} came back with sound of another kind, left out until the next file")
        return item

    def pass_over(self, until: Fraction) -> None:
        self._track = None  # what another kind is depends on the next film
        super().pass_over(until)

    def waits_from(self, start: Fraction) -> bool:  # noqa: ARG002
        if self._pieces or self._latest is not None or not self._sound.is_expected:
            return False
        now = time.monotonic()
        self._asked = self._asked or now
        return now < self._asked + _LONGEST_WAIT

    def is_late(self) -> bool:
        return not self._ahead  # sound comes in order: what was put back there is later

    def fork(self) -> LiveOriginal:
        other = copy.copy(self)  # with the same tracks, so that a decoder goes on from film to film, and one warning
        other._ahead, other._pieces = deque(self._ahead), self._sound.listen(self._pieces)
        return other

    def close(self) -> None:
        self._sound.leave(self._pieces)

    def _read_next(self) -> Sound | None:
        if self._origin is None or not self._pieces:
            return None
        piece = self._latest = self._pieces.popleft()
        return self._as_sound(piece, self._origin)

    def _as_sound(self, piece: Piece, origin: Fraction) -> Sound:
        track = self._track_of(piece.track)
        packet = cast("Packet[AudioStream]", Packet(piece.data))
        tick = exact(track.time_base) or Fraction(1, 90000)
        packet.stream, packet.time_base, packet.is_keyframe = track, tick, True
        begins = piece.begins - origin
        packet.pts = packet.dts = round(begins / tick)
        packet.duration = round(piece.duration / tick)
        return Sound(begins, packet)

    def _track_of(self, description: bytes) -> AudioStream:
        """The track described, the same one for all of a kind: each connection describes its own."""
        if self._described is None or self._described[0] != description:
            new = track_of(description)
            track = next((known for known in self._kinds if _kind(known) == _kind(new)), new)
            if track is new:
                self._kinds.append(new)
            self._described = description, track
        return self._described[1]


def _kind(track: AudioStream) -> tuple[str, int, str, bytes | None]:
    """What is the same of tracks whose packets can follow each other."""
    context = track.codec_context
    return context.name, context.sample_rate, context.layout.name, context.extradata
