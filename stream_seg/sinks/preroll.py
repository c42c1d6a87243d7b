"""PreRoll: what came shortly before an event, kept in memory for as long as it may turn out to belong to one.

Pictures are kept encoded, as `Ahead` makes them: five seconds of 1080p are some megabytes then, not a gigabyte, and go
into the file as they are, at once and without a second loss.
"""

from __future__ import annotations

import io
from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Generic, TypeVar

import av
from av.packet import Packet
from av.video.frame import PictureType
from av.video.stream import VideoStream

from stream_seg.frame import Frame, SourceInfo
from stream_seg.sinks.colour import Yuv420
from stream_seg.sinks.encoders import KEY_FRAME_SECONDS, Encoder

MOST_SECONDS = 300
"""The longest that may be kept: it is in memory, of busy 1080p more than a megabyte for each second."""

_OUTAGE = Fraction(2)
"""Seconds between two frames of a live source from which on it was away, if it is not that slow all the time."""

_SLOW = 3
"""How many times the gap before it a gap of a slow source may take."""

T = TypeVar("T")


@dataclass(slots=True)
class _Group(Generic[T]):
    """What comes from one key frame to the next: when that, and the latest of it, begins."""

    first: Fraction
    start: Fraction
    last: Fraction
    items: list[T] = field(default_factory=list)


class PreRoll(Generic[T]):
    """What belongs to the frames of the last `seconds`, an item each, and to those since the key frame before them.

    Key frames come every second, so that is up to a second more. What lies before an outage of a live source goes when
    that is over.
    """

    def __init__(self, seconds: Fraction, *, is_live: bool) -> None:
        self._seconds = seconds
        self._is_live = is_live
        self._groups: deque[_Group[T]] = deque()
        self._latest: Fraction | None = None  # when the frame before begins
        self._gap = Fraction(0)  # between that and the one before it

    @property
    def first(self) -> Fraction | None:
        """When the first frame begins of those that are kept; None where there is none."""
        return self._groups[0].first if self._groups else None

    @property
    def start(self) -> Fraction | None:
        """When a file begins that begins with what is kept."""
        return self._groups[0].start if self._groups else None

    def let_go(self, time: Fraction) -> None:
        """Drop what does not belong to an event that begins at `time`, or later."""
        gap = Fraction(0) if self._latest is None else time - self._latest
        if self._is_live and gap > max(_OUTAGE, _SLOW * self._gap):
            self._groups.clear()
        while self._groups and self._groups[0].last < time - self._seconds:
            self._groups.popleft()

    def advance(self, time: Fraction, start: Fraction) -> bool:
        """Go on to a frame that no event wants yet; whether it is to be a key frame.

        `start` is when a file begins of which it is the first.
        """
        self.let_go(time)
        self._gap = Fraction(0) if self._latest is None else time - self._latest
        self._latest = time
        # Half a frame early, lest an uneven one puts it off by one.
        is_key = not self._groups or time - self._groups[-1].first + self._gap / 2 >= KEY_FRAME_SECONDS
        if is_key:
            self._groups.append(_Group(time, start, time))
        self._groups[-1].last = time
        return is_key

    def add(self, time: Fraction, item: T) -> None:
        """Keep what belongs to the frame at `time`, to which `advance` has gone on, unless that is let go by now."""
        group = next((group for group in reversed(self._groups) if group.first <= time), None)
        if group is not None:
            group.items.append(item)

    def take(self) -> list[T]:
        """Return all that is kept, and begin again."""
        items = [item for group in self._groups for item in group.items]
        self._groups.clear()
        self._latest = None
        return items


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A picture encoded before there is a film for it: when it begins, by its source, and what its packet holds.

    It is a copy, for a packet keeps its encoder, of which devices have but a few.
    """

    time: Fraction
    data: bytes
    is_key: bool


class Ahead:
    """Encodes frames of one size, as `encoder` does for its container, before there is one.

    A film's own encoder takes over with a key frame: set alike, it writes a header that is true of these pictures, too.
    Raises `OutputError` when the encoder cannot be opened, and `av.FFmpegError` when it fails.
    """

    def __init__(self, encoder: Encoder, info: SourceInfo, size: tuple[int, int]) -> None:
        self._convert = Yuv420(size)
        self._tick = encoder.tick(info.time_base)  # as the film's, which the headers of some encoders tell
        self._unwritten = av.open(io.BytesIO(), "w", format=encoder.container)
        self._stream = encoder.add_to(self._unwritten, self._convert.size, self._tick, info.frame_rate)
        self._begin: Fraction | None = None
        self._ticks = -1
        self._times: dict[int, Fraction] = {}  # of what the encoder holds, by its ticks

    def encode(self, frame: Frame, *, is_key: bool) -> list[Encoded]:
        """Return what the encoder has done by now."""
        if self._begin is None:
            self._begin = frame.pts
        picture = self._convert(frame.image)
        picture.time_base = self._tick
        picture.pts = self._ticks = max(round((frame.pts - self._begin) / self._tick), self._ticks + 1)
        if is_key:
            picture.pict_type = PictureType.I
        self._times[self._ticks] = frame.pts
        return self._done(self._stream.encode(picture))

    def close(self) -> list[Encoded]:
        """End the encoder; return what it still held."""
        try:
            return self._done(self._stream.encode(None))
        finally:
            self._unwritten.close()

    def _done(self, packets: list[Packet[VideoStream]]) -> list[Encoded]:
        return [
            Encoded(self._times.pop(packet.pts), bytes(packet), packet.is_keyframe)
            for packet in packets
            if packet.pts in self._times
        ]
