"""Joints: where recordings were glued together, and how the packets of all streams go on from there."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import attrgetter

import av
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from stream_seg.pyav import exact

_JUMP = Fraction(1)
"""How far back times must jump, in seconds, to begin another recording: as in `Timeline`, which does it to pictures."""

_MOST_STRAYS = 50
"""Packets of sound in a row that may get a damaged time: a transport stream tells one for several, a second at most."""

_LATEST_ORDER = 20
"""How long before it is shown, in seconds, a picture is decoded at most: 16 others that come between, one a second."""

_USUAL_RATE = Fraction(30)

_MOST_WAITING = 500
"""Packets of sound that may wait for the next picture: 10 s of AAC."""


@dataclass(frozen=True, slots=True)
class _Joint:
    """Lies between the bytes `after` and `before`, where two pictures begin. Its middle in time is `between` theirs."""

    after: int
    before: int
    between: int


class Joints:
    """Moves packets so that glued recordings follow each other, as `Timeline` moves the frames decoded from them.

    Where one recording ends, the times of its pictures jump back. What follows is moved so that the first picture comes
    a frame after the last. Sound belongs to the recording whose bytes it lies among, for one of them may have none; so
    it waits until a picture is read that lies behind it. Between two pictures at a joint its times tell on which side:
    they step back there or, where none came before, are nearer to one of the two.

    With `in_order` packets lie in the order in which they come: in a playlist each byte is counted in its own file.

    Times are whole multiples of `unit`, in seconds, as those of all `streams` are: two hours of a .ts are half a
    million packets, and fractions of each would cost several times what it takes to read them.

    `left_at` is the time in the input to which sound first jumps back within a recording, None where none does: there
    is no place for it.
    """

    def __init__(self, streams: Sequence[Stream], pictures: VideoStream | None, *, in_order: bool = False) -> None:
        bases = {stream.index: exact(stream.time_base) or Fraction(1, av.time_base) for stream in streams}
        self.unit = Fraction(1, math.lcm(*(base.denominator for base in bases.values())))
        self._ticks = {index: int(base / self.unit) for index, base in bases.items()}
        self._jump = int(_JUMP / self.unit)
        self._latest_order = int(_LATEST_ORDER / self.unit)
        self._pictures = None if pictures is None else pictures.index
        rate = None if pictures is None else exact(pictures.average_rate) or exact(pictures.guessed_rate)
        self._step = round(1 / (rate or _USUAL_RATE) / self.unit)
        self._moves = [0]
        self._joints: list[_Joint] = []
        self._in_order = itertools.count() if in_order else None
        self._places: dict[int, int] = {}  # by stream, the byte at which its last packet begins
        self._order: int | None = None  # of the last picture
        self._latest = 0  # of the pictures of their present recording
        self._heard: dict[int, tuple[int, int]] = {}  # by stream, the recording and the latest time of its sound
        self._waiting: deque[tuple[int, int, Packet[Stream]]] = deque()
        self.left_at: float | None = None

    def joined(self, packets: Iterable[Packet[Stream]]) -> Iterator[tuple[int, Packet[Stream]]]:
        """Packets that hold something, with the time at which they begin: no recording begins anew."""
        for packet in self._without_strays(packets):
            stamp = packet.pts if packet.pts is not None else packet.dts
            if not packet.size:
                continue
            if stamp is None:  # in MPEG program streams only some pictures have one
                self._latest += self._step if packet.stream_index == self._pictures else 0
                continue
            ticks = self._ticks[packet.stream_index]
            time = stamp * ticks
            last = self._places.get(packet.stream_index, 0)
            place = self._places[packet.stream_index] = self._place_of(packet, last)
            if packet.stream_index == self._pictures:
                # Those that others need come before them: by `time` they step back, at one a second by more than that.
                # FFmpeg does not know when to decode the first ones of a Matroska file, or behind a seek.
                self._follow(last, place, time, None if packet.dts is None else packet.dts * ticks)
                yield time + self._moves[-1], packet
                yield from self._released(place)
            else:
                self._waiting.append((place, time, packet))
                if len(self._waiting) > _MOST_WAITING:
                    yield from self._placed(*self._waiting.popleft())
        yield from self._released(None)

    def _without_strays(self, packets: Iterable[Packet[Stream]]) -> Iterator[Packet[Stream]]:
        """The packets; those whose time is damaged, as `Timeline.strays` tells of frames, have none any more."""
        held: list[Packet[Stream]] = []  # what leaps in time, and all that came after it
        last: dict[int, int] = {}  # by stream, the time of the packet before
        for packet in packets:
            index, order = packet.stream_index, self._repaired_order(packet)
            before = last.get(index)
            leaps = order is not None and before is not None and abs(order - before) > self._jump
            if not (held or leaps):
                yield packet
                if order is not None:
                    last[index] = order
                continue
            held.append(packet)
            leaping = [one for one in held if one.stream_index == held[0].stream_index]
            if len(leaping) > 1 and leaping[-1] is packet and order is not None and before is not None:
                leapt, goes_on = self._repaired_order(held[0]), 0 < order - before <= self._jump + 2 * self._step
                is_in_order = leapt is not None and before < leapt <= order
                if goes_on and not is_in_order:
                    for stray in leaping[:-1]:
                        stray.pts = stray.dts = None
                elif not goes_on and index != self._pictures and len(leaping) <= _MOST_STRAYS:
                    continue
            elif len(held) <= _MOST_WAITING:
                continue
            last |= {one.stream_index: at for one in held if (at := self._repaired_order(one)) is not None}
            yield from held
            held = []
        yield from held

    def _repaired_order(self, packet: Packet[Stream]) -> int | None:
        """When a packet is decoded, if that is known. It is shown then if it says that it is much later."""
        if not packet.size or packet.dts is None:
            return None
        ticks = self._ticks[packet.stream_index]
        if packet.pts is not None and abs(packet.pts - packet.dts) * ticks > self._latest_order:
            packet.pts = packet.dts
        return packet.dts * ticks

    @property
    def has_waiting(self) -> bool:
        """Whether there is sound that waits for a picture."""
        return bool(self._waiting)

    def _place_of(self, packet: Packet[Stream], last: int) -> int:
        if self._in_order is not None:
            return next(self._in_order)
        return last if packet.pos is None else packet.pos

    def _follow(self, last: int, place: int, time: int, order: int | None) -> None:
        begins = self._order is not None and order is not None and self._order - order > self._jump
        if begins:
            self._joints.append(_Joint(last, place, (self._latest + time) // 2))
            self._moves.append(self._moves[-1] + self._latest + self._step - time)
        self._order = self._order if order is None else order
        self._latest = time if begins else max(self._latest, time)

    def _released(self, place: int | None) -> Iterator[tuple[int, Packet[Stream]]]:
        """What waited for a picture that begins behind it, at the byte `place`; all when none is to come."""
        while self._waiting and (place is None or self._waiting[0][0] < place):
            yield from self._placed(*self._waiting.popleft())

    def _placed(self, place: int, time: int, packet: Packet[Stream]) -> Iterator[tuple[int, Packet[Stream]]]:
        known, latest = self._heard.get(packet.stream_index, (-1, time))
        recording = max(known, bisect_right(self._joints, place, key=attrgetter("before")))
        if recording < len(self._joints):
            joint = self._joints[recording]
            recording += place > joint.after and time < (latest if known == recording else joint.between)
        if known == recording and latest - time > self._jump:
            self.left_at = float(time * self.unit) if self.left_at is None else self.left_at
            return
        self._heard[packet.stream_index] = recording, max(latest, time) if known == recording else time
        yield time + self._moves[recording], packet
