"""Intake: where captured frames of all feeds wait for the model, and the only place where a pipeline drops frames."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from stream_seg.channel import ChannelClosed, EndOfStream
from stream_seg.frame import Frame

REPLACED = "replaced"
"""Why a live frame was dropped: a newer one came before the model was free."""

LATE = "late"
"""Why a live frame was dropped: it was older than the age allowed."""

PATIENCE_SECONDS = 1.0
"""How long recordings that are to stay level wait for the next frame of one of them."""


@dataclass(slots=True)
class _Feed:
    live: bool = False
    left: int | None = None
    """How many more frames are wanted, where that is limited."""
    waiting: deque[Frame] = field(default_factory=deque)
    ended: bool = False
    told: bool = False
    served: int = 0
    """The turn in which the feed last got a frame through."""
    bare_since: float = 0.0
    """When the feed last had its turn, or began; on the intake's clock."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What `Intake.take` hands out: `frames` as (feed, frame), and the feeds that have `ended` behind them."""

    frames: list[tuple[int, Frame]]
    ended: list[int]


class Intake:
    """Several feeds' frames, for whoever segments them. Feeds are told apart by number, from 0.

    Of a live feed only the newest frame waits; a recorded one waits with `depth` frames at most, then its `put` blocks.
    Whoever has a frame is served, the one that waited longest for its turn first; among recordings alone, the one whose
    frame comes first in its recording. Nobody waits for a feed without a frame, unless recordings alone are to stay
    `level`: then they wait for the slowest of them, though for no more than a second. Recordings that come `in_turns`
    are served one after the other, and at most `depth` frames of all of them wait.

    At most `room` frames are between `take` and `delivered`, with a live feed `live_room`: a frame that waits here is
    replaced by a newer one, one that waits further on grows old. `max_age` is the seconds a live frame may be old when
    it is taken. `dropped(feed, cause)` is called for each frame that is left out, with `REPLACED` or `LATE`.

    A feed of which at most so many frames are wanted ends when these have been taken.

    `end` and `close` let frames inside be taken, then `take` raises `EndOfStream`; `cancel` discards them.
    """

    def __init__(
        self,
        feeds: int,
        *,
        depth: int,
        dropped: Callable[[int, str], None],
        max_age: float | None = None,
        level: bool = False,
        in_turns: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._feeds = [_Feed(bare_since=clock()) for _ in range(feeds)]
        self._depth = depth
        self._dropped = dropped
        self._max_age = max_age
        self._level = level
        self._in_turns = in_turns
        self._clock = clock
        self._turn = 0
        self._over = 0  # so many, from the first on, of which the end was told
        self._begun = 0 if in_turns else feeds  # so many, from the first on, of which frames or an end may come
        self._inside = 0
        self._closed = False
        self._changed = threading.Condition()
        self.room = self.live_room = 2
        self.live_feeds = 0
        """How many of the feeds opened so far are live."""

    def opened(self, feed: int, *, live: bool, most: int | None = None) -> None:
        """Say, before its first `put`, what kind of feed it is, and how many of its frames are wanted at most."""
        with self._changed:
            self._feeds[feed].live = live
            self._feeds[feed].left = most
            self.live_feeds = sum(one.live for one in self._feeds)
            self._begun = max(self._begun, feed + 1)

    def has_enough(self, feed: int) -> bool:
        """Whether all frames that are wanted of it have been taken."""
        return self._feeds[feed].left == 0

    def put(self, number: int, frame: Frame) -> None:
        """Let a frame wait. Raises `ChannelClosed` when nobody will take it."""
        feed = self._feeds[number]
        with self._changed:
            if not feed.live:
                self._changed.wait_for(lambda: self._closed or self._crowd(feed) < self._depth)
            if self._closed or feed.left == 0:
                raise ChannelClosed
            if feed.live and feed.waiting:
                feed.waiting.popleft()
                self._dropped(number, REPLACED)
            feed.waiting.append(frame)
            self._changed.notify_all()

    def end(self, number: int) -> None:
        """No more frames will come from this feed."""
        with self._changed:
            self._feeds[number].ended = True
            self._begun = max(self._begun, number + 1)
            self._changed.notify_all()

    def first(self) -> Frame:
        """Wait for a frame and leave it where it is. Raises `EndOfStream` when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: any(f.waiting for f in self._feeds) or all(f.ended for f in self._feeds))
            for feed in self._feeds:
                if feed.waiting:
                    return feed.waiting[0]
            raise EndOfStream

    def take(self, limit: int) -> Taken:
        """Wait for frames, up to `limit`, or ends of feeds. Raises `EndOfStream` after the last.

        A live feed has one frame at most.
        """
        with self._changed:
            while True:
                self._changed.wait_for(
                    lambda: self._can_take() or any(map(self._is_news, self._playing())) or self._is_over(),
                    timeout=PATIENCE_SECONDS if self._level else None,
                )
                taken = Taken(self._pick(limit), self._ends())
                if taken.frames or taken.ended:
                    self._changed.notify_all()
                    return taken
                if self._is_over():
                    raise EndOfStream

    def delivered(self) -> None:
        """One of the frames taken has left the pipeline."""
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """No more frames will come at all."""
        with self._changed:
            self._closed = True
            for feed in self._feeds:
                feed.ended = True
            self._begun = len(self._feeds)
            self._changed.notify_all()

    def cancel(self) -> None:
        """End now, and discard what waits."""
        with self._changed:
            for feed in self._feeds:
                feed.waiting.clear()
        self.close()

    def _playing(self) -> range:
        """The feeds that are neither over nor, in turns, still to come: a frame costs what it does of one."""
        return range(self._over, self._begun)

    def _crowd(self, feed: _Feed) -> int:
        """How many frames wait that count where one of this recorded feed is to wait, too."""
        if self._in_turns:
            return sum(len(self._feeds[number].waiting) for number in self._playing())
        return len(feed.waiting)

    def _can_take(self) -> bool:
        has_room = self._inside < (self.live_room if self.live_feeds else self.room)
        has_frame = any(self._feeds[number].waiting for number in self._playing())
        return has_room and has_frame and not self._waits_for_the_slowest()

    def _waits_for_the_slowest(self) -> bool:
        if not self._level or self.live_feeds:
            return False
        oldest = self._clock() - PATIENCE_SECONDS
        return any(not feed.waiting and not feed.ended and feed.bare_since > oldest for feed in self._feeds)

    def _is_news(self, number: int) -> bool:
        feed = self._feeds[number]
        return feed.ended and not feed.waiting and not feed.told

    def _is_over(self) -> bool:
        return self._over == len(self._feeds)

    def _pick(self, limit: int) -> list[tuple[int, Frame]]:
        picked: list[tuple[int, Frame]] = []
        while len(picked) < limit and self._can_take():
            number = min((n for n in self._playing() if self._feeds[n].waiting), key=self._rank)
            feed = self._feeds[number]
            frame = feed.waiting.popleft()
            if feed.live and self._max_age is not None and self._clock() - frame.captured_at > self._max_age:
                self._dropped(number, LATE)
                continue
            if feed.left is not None:
                feed.left -= 1
                feed.ended = feed.ended or not feed.left
            self._turn += 1
            feed.served = self._turn
            feed.bare_since = self._clock()
            self._inside += 1
            picked.append((number, frame))
        return picked

    def _rank(self, number: int) -> tuple[object, int]:
        feed = self._feeds[number]
        if self._in_turns:
            return 0, number
        return (feed.served if self.live_feeds else feed.waiting[0].pts), number

    def _ends(self) -> list[int]:
        ended = list(filter(self._is_news, self._playing()))
        for number in ended:
            self._feeds[number].told = True
        while self._over < len(self._feeds) and self._feeds[self._over].told:
            self._over += 1
        return ended
