"""How packets of a camera are read: with a watch on the time where one waits, and by threads in turn."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import cast

import av
import pytest
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from stream_seg.sources import turns
from stream_seg.sources.packets import Packets
from stream_seg.sources.turns import MOST_SLOW, TURNS_MISSED, Turn


class Container:
    """Hands out packets as PyAV does: the watch on the time begins with a generator and ends with any."""

    def __init__(self, *sizes: int) -> None:
        self._sizes = iter(sizes)
        self._watches = False
        self.watched: list[bool] = []
        """For each read, whether there was a watch on its time."""

    def demux(self, _stream: object) -> Iterator[Packet[VideoStream]]:
        self._watches = True
        try:
            for size in self._sizes:
                self.watched.append(self._watches)
                if size < 0:
                    raise av.InvalidDataError(1, "damaged")
                packet = Packet(size)
                packet.dts = len(self.watched)
                yield cast("Packet[VideoStream]", packet)
            self.watched.append(self._watches)
            yield cast("Packet[VideoStream]", Packet())
        finally:
            self._watches = False


def packets_of(container: Container) -> Packets:
    return Packets(cast(InputContainer, container), cast(VideoStream, None))


def test_only_reads_that_may_wait_have_a_watch_on_their_time() -> None:
    container = Container(*range(1, 8))
    packets = packets_of(container)
    waits = [True, True, False, False, True, False, True]
    read = [packets.next_waiting() if wait else packets.next() for wait in waits]
    assert [packet.size for packet in read if packet is not None] == [1, 2, 3, 4, 5, 6, 7]
    assert container.watched == waits


def test_what_is_read_in_one_way_alone_is_watched_throughout() -> None:
    container = Container(1, 2, 3)
    packets = packets_of(container)
    assert [packet.size for packet in iter(packets.next, None) if packet is not None] == [1, 2, 3, 0]
    assert container.watched == [True] * 4


@pytest.mark.parametrize("waiting", [True, False])
def test_the_end_is_an_empty_packet_and_then_nothing(waiting: bool) -> None:
    packets = packets_of(Container(1, 2))
    read = packets.next_waiting if waiting else packets.next
    assert [packet.size for packet in iter(read, None) if packet is not None] == [1, 2, 0]
    assert packets.next() is None
    assert packets.next_waiting() is None


@pytest.mark.parametrize("waiting", [True, False])
def test_an_empty_packet_with_a_time_is_not_the_end(waiting: bool) -> None:
    packets = packets_of(Container(1, 0, 2))
    read = packets.next_waiting if waiting else packets.next
    assert [packet.size for packet in iter(read, None) if packet is not None] == [1, 0, 2, 0]


@pytest.mark.parametrize("waiting", [True, False])
def test_after_damage_reading_goes_on(waiting: bool) -> None:
    packets = packets_of(Container(1, -1, 3, 4))
    read = packets.next_waiting if waiting else packets.next
    assert read() is not None
    with pytest.raises(av.InvalidDataError):
        read()
    assert [packet.size for packet in iter(read, None) if packet is not None] == [3, 4, 0]


# Turn


def test_one_works_at_a_time() -> None:
    first, second = Turn(), Turn()
    first.take()
    order: list[str] = []

    def wait() -> None:
        second.take()
        order.append("second")
        second.leave()

    thread = threading.Thread(target=wait)
    thread.start()
    order.append("first")
    first.leave()
    thread.join()
    assert order == ["first", "second"]


def test_who_does_not_come_back_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LONGEST_TURN", 0.01)
    hung, other, third = Turn(), Turn(), Turn()
    hung.take()
    other.take()  # gives up, and puts a new lock in the place of the one that is held
    lock = Turn._shared
    third.take()
    assert Turn._shared is lock
    assert lock.locked()
    third.leave()
    hung.leave()
    assert not lock.locked()


def test_who_is_slow_time_after_time_does_without_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SLOW_TURN", -1.0)
    slow = Turn()

    def takes_it() -> bool:
        slow.take()
        took = Turn._shared.locked()
        slow.leave()
        return took

    assert all(takes_it() for _ in range(MOST_SLOW))
    assert not any(takes_it() for _ in range(TURNS_MISSED))
    assert takes_it()
    monkeypatch.setattr(turns, "SLOW_TURN", 60.0)
    assert all(takes_it() for _ in range(2 * MOST_SLOW))


def test_leaving_without_having_the_turn_does_nothing() -> None:
    turn = Turn()
    turn.leave()
    turn.take()
    turn.leave()
    turn.leave()
    assert not Turn._shared.locked()
