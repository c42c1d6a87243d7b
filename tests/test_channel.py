"""The channel: order, blocking, dropping, and closing from either end."""

from __future__ import annotations

import threading
import time

import pytest

from stream_seg.channel import Channel, ChannelClosed, EndOfStream, Overflow


def filled(count: int, capacity: int, overflow: Overflow = Overflow.BLOCK) -> Channel[int]:
    channel: Channel[int] = Channel(capacity, overflow)
    for item in range(count):
        channel.put(item)
    return channel


def test_close_delivers_what_is_inside_and_refuses_more() -> None:
    channel = filled(3, 3)
    channel.close()
    assert next(iter(channel)) == 0  # and no more is taken than that
    assert list(channel) == [1, 2]
    with pytest.raises(ChannelClosed):
        channel.put(1)


def test_cancel_discards_what_is_inside() -> None:
    channel = filled(3, 3)
    channel.cancel()
    with pytest.raises(EndOfStream):
        channel.take(1)


@pytest.mark.parametrize("overflow", Overflow)
def test_a_late_put_leaves_what_is_inside_alone(overflow: Overflow) -> None:
    channel = filled(2, 2, overflow)
    channel.close()
    with pytest.raises(ChannelClosed):
        channel.put(2)
    assert list(channel) == [0, 1]
    assert channel.dropped == 0


def test_drop_oldest_keeps_the_newest_and_counts_the_rest() -> None:
    channel = filled(10, 3, Overflow.DROP_OLDEST)
    assert channel.take(5) == [7, 8, 9]
    assert channel.dropped == 7


def test_take_returns_at_most_limit_and_nothing_after_its_timeout() -> None:
    channel = filled(3, 3)
    assert channel.take(2) == [0, 1]
    assert channel.take(2) == [2]
    assert channel.take(2, timeout=0.0) == []


def test_a_blocked_put_is_released_by_cancel() -> None:
    channel = filled(1, 1)
    outcome: list[str] = []

    def put() -> None:
        try:
            channel.put(1)
        except ChannelClosed:
            outcome.append("closed")

    thread = threading.Thread(target=put)
    thread.start()
    channel.cancel()
    thread.join(5)
    assert outcome == ["closed"]


@pytest.mark.parametrize("end", ["close", "cancel"])
def test_a_blocked_take_is_released_by_an_end(end: str) -> None:
    channel = filled(0, 1)
    thread = threading.Thread(target=list, args=(channel,), daemon=True)
    thread.start()
    time.sleep(0.02)  # until it waits
    getattr(channel, end)()
    thread.join(5)
    assert not thread.is_alive()


def test_a_full_channel_passes_every_item_on_in_order() -> None:
    channel: Channel[int] = Channel(2)

    def put() -> None:
        for item in range(500):
            channel.put(item)
        channel.close()

    thread = threading.Thread(target=put)
    thread.start()
    got = list(channel)
    thread.join(5)
    assert got == list(range(500))


def test_a_capacity_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Channel(0)
