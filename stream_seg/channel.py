"""A bounded hand-off of items from one thread to another."""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Overflow(enum.Enum):
    """What `Channel.put` does when the channel is full."""

    BLOCK = "block"
    """Wait for room: every frame matters (files)."""

    DROP_OLDEST = "drop-oldest"
    """Make room: only the newest frame matters (cameras)."""


class ChannelClosed(Exception):
    """Raised by `put` once nobody will receive the item."""


class EndOfStream(Exception):
    """Raised by `take` once the channel is closed and empty."""


class Channel(Generic[T]):
    """Bounded first-in-first-out hand-off, closed from either end.

    `close` ends the stream: items inside are still delivered, then `take` raises `EndOfStream`.
    `cancel` ends it now: items inside are discarded and every waiting thread is released.
    Both may be called any number of times, from any thread. `overflow` may be set until the first `put`. `dropped`
    counts the items that made room for newer ones.
    """

    def __init__(self, capacity: int, overflow: Overflow = Overflow.BLOCK) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self.capacity = capacity
        self.overflow = overflow
        self.dropped = 0
        self._items: deque[T] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        while True:
            try:
                yield from self.take(1)
            except EndOfStream:
                return

    def put(self, item: T) -> None:
        """Append `item`, waiting or dropping the oldest item as `overflow` says."""
        with self._changed:
            if self.overflow is Overflow.BLOCK:
                self._changed.wait_for(lambda: self._closed or len(self._items) < self.capacity)
            if self._closed:
                raise ChannelClosed
            if len(self._items) == self.capacity:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._changed.notify_all()

    def take(self, limit: int, timeout: float | None = None) -> list[T]:
        """Wait for an item, then return up to `limit` that are ready; empty after `timeout` s."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout)
            if self._closed and not self._items:
                raise EndOfStream
            items = [self._items.popleft() for _ in range(min(limit, len(self._items)))]
            self._changed.notify_all()
            return items

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def cancel(self) -> None:
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()
