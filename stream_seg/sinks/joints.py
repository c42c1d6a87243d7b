"""Joints: where recordings were glued together, and how the packets of all streams go on from there."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction

from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

_JUMP = Fraction(1)
"""How far back times must jump, in seconds, to begin another recording: as in `Timeline`, which does it to pictures."""

_USUAL_RATE = Fraction(30)

_MOST_WAITING = 2000
"""Packets of sound that may wait for the pictures to jump as well: 40 s of AAC."""


class Joints:
    """Moves packets so that glued recordings follow each other, as `Timeline` moves the frames decoded from them.

    Where one recording ends, the times of all its streams jump back, not all at one place. `pictures` tell by how much
    what follows is moved: their first packet comes a frame after their last. Sound that has jumped before they have
    waits for them. `left_at` is the time in the input at which sound still waits, None where none does.
    """

    def __init__(self, pictures: VideoStream | None) -> None:
        self._pictures = None if pictures is None else pictures.index
        rate = None if pictures is None else pictures.average_rate or pictures.guessed_rate
        self._step = 1 / (rate or _USUAL_RATE)
        self._moves = [Fraction(0)]
        self._recordings: dict[int, int] = {}  # by stream, as is the next
        self._order: dict[int, Fraction] = {}
        self._latest = Fraction(0)  # of the pictures of their present recording
        self._waiting: deque[tuple[int, Fraction, Packet[Stream]]] = deque(maxlen=_MOST_WAITING)

    @property
    def left_at(self) -> float | None:
        return float(self._waiting[0][1]) if self._waiting else None

    def joined(self, packets: Iterable[Packet[Stream]]) -> Iterator[tuple[Fraction, Packet[Stream]]]:
        """Packets that hold something, with the time in seconds at which they begin: no recording begins anew."""
        for packet in packets:
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is None or not packet.size:
                continue
            time = stamp * packet.time_base
            # Pictures that others need come before them: by `time` they step back, at one a second by more than that.
            order = time if packet.dts is None else packet.dts * packet.time_base
            recording = self._recording(packet.stream_index, time, order)
            if recording < len(self._moves):
                yield time + self._moves[recording], packet
                yield from self._released()
            else:
                self._waiting.append((recording, time, packet))

    def _recording(self, stream: int, time: Fraction, order: Fraction) -> int:
        """Which of the recordings a packet with this time belongs to."""
        begins = self._order.get(stream, order) - order > _JUMP
        self._order[stream] = order
        number = self._recordings[stream] = self._recordings.get(stream, 0) + begins
        if stream == self._pictures:
            if begins:
                self._moves.append(self._moves[-1] + self._latest + self._step - time)
            self._latest = time if begins else max(self._latest, time)
        return number

    def _released(self) -> Iterator[tuple[Fraction, Packet[Stream]]]:
        while self._waiting and self._waiting[0][0] < len(self._moves):
            recording, time, packet = self._waiting.popleft()
            yield time + self._moves[recording], packet
