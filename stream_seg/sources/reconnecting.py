"""Reconnecting: a live source that is opened again when it fails, ends, stalls or is not there yet."""

from __future__ import annotations

import dataclasses
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

from stream_seg.addresses.backoff import STEADY_SECONDS, delay_before
from stream_seg.availability import Availability
from stream_seg.errors import Reason, SourceError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.protocols import Source
from stream_seg.sources.clock import LiveClock
from stream_seg.sources.network import OPEN_TIMEOUT, STALL_TIMEOUT
from stream_seg.sources.watched import Watched

logger = logging.getLogger(__name__)

FIRST_PATIENCE = 3.0
"""Seconds that a source which was there before is given to answer, the first time."""

SLOWEST_USUAL = 3.0
"""Or so many times what it last took, where that is longer."""

MOST_HUNG = 2
"""How many readers of one source may hang at a time; no further one is started before one of them returns."""

POLL_SECONDS = 0.05


class Reconnecting:
    """The frames of a live source through all its outages, as one stream.

    `make` gives the source anew for each connection; it is told how many seconds the source may take to answer. Times
    come from one clock, so that an outage is a gap in them, and `index` goes on growing. `info` is that of the first
    connection; frames of a later one may have another size. `availability` tells of outages; it may be read by any
    thread. Everything is read through `Watched`.

    It tries again after 0.5 s, then after twice as long each time, up to 30 s, all shortened by up to half at random
    (`draw` gives 0 to 1) so that many cameras do not come back in step; a refused password waits the longest at once,
    for cameras lock out who guesses. `attempts` is how often in a row, None for ever; then the failure is raised. With
    `at_start` it also waits for a source that is not there when it is first opened: `with` then takes as long as that
    takes, or until `close`.

    The first try of all, and the last of `attempts`, may take `open_timeout` to be answered. Others get 3 s, or three
    times what the last connection took, and twice as long after each that was not answered, up to `open_timeout`: a
    camera that is just starting may accept a connection and forget it, and the next one is fine. Such tries count
    by themselves for the wait before the next: there is somebody, which is more than a refusal tells.

    A source whose first connection is not live, a recording, is passed through as it is. With 0 `attempts` the end of a
    live one is the end.
    """

    def __init__(
        self,
        make: Callable[[float], Source],
        *,
        attempts: int | None = None,
        at_start: bool = True,
        open_timeout: float = OPEN_TIMEOUT,
        stall_timeout: float = STALL_TIMEOUT,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._make = make
        self._attempts = attempts
        self._at_start = at_start
        self._open_timeout = open_timeout
        self._stall_timeout = stall_timeout
        self._draw = draw
        self._stopping = threading.Event()
        self._source = self._watched(open_timeout)
        self.name = self._source.name
        self.availability = Availability()
        self._info: SourceInfo | None = None
        self._clock = LiveClock()
        self._hung: list[Watched] = []
        self._tries = 0
        self._unanswered = 0
        self._usual_patience = FIRST_PATIENCE
        self._said: set[Reason] = set()
        self._next_index = 0
        self._past_damaged = 0
        self._past_dropped = 0
        self._past_worked = 0.0

    @property
    def info(self) -> SourceInfo:
        """What is known of the source since its first connection."""
        if self._info is None:
            raise RuntimeError("the source is not open yet; use it in a with block")
        return self._info

    @property
    def damaged(self) -> int:
        """How many damaged packets were left out so far."""
        return self._past_damaged + self._source.damaged

    @property
    def dropped(self) -> int:
        """How many frames nobody took in time."""
        return self._past_dropped + self._source.dropped

    @property
    def worked(self) -> float:
        """Seconds of processor time that reading took so far."""
        return self._past_worked + self._source.worked

    def __enter__(self) -> Self:
        try:
            self._connect_first()
        except BaseException:
            self._source.__exit__()
            raise
        self._info = self._source.info
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._source.__exit__()

    def close(self) -> None:
        """End the iteration at once, also one that waits for the next try."""
        self._stopping.set()
        self._source.close()

    def __iter__(self) -> Iterator[Frame]:
        if not self.info.is_live:
            self._is_back()  # it may have been waited for
            yield from self._source
            return
        while not self._stopping.is_set():
            try:
                yield from self._connection()
                if self._attempts == 0:
                    if not self._stopping.is_set():
                        logger.info("%s ended the stream", self.name)
                    return
                failure = SourceError(f"{self.name} ended the stream", Reason.ENDED)
            except SourceError as error:
                failure = error.with_traceback(None)  # which keeps all that the reader had
            if self._stopping.is_set() or not self._reconnect(failure):
                return

    def _connection(self) -> Iterator[Frame]:
        """The frames of the present connection, numbered and timed to follow those of the last."""
        base = self._next_index
        began: float | None = None
        for frame in self._source:
            if began is None:
                began = frame.captured_at
                self._is_back()
            if frame.captured_at - began >= STEADY_SECONDS:
                self._tries = 0
            self._next_index = base + frame.index + 1
            yield dataclasses.replace(frame, index=base + frame.index, pts=self._clock.pts(frame.captured_at))

    def _connect_first(self) -> None:
        try:
            self._enter()
        except SourceError as error:
            if not self._at_start or self._stopping.is_set():
                raise
            failure = error.with_traceback(None)
        else:
            return
        if not self._reconnect(failure):
            raise SourceError(f"{self.name} was closed before it answered")

    def _reconnect(self, failure: SourceError) -> bool:
        """Try until the source is open again; False when closed meanwhile. Raises the last failure of `attempts`."""
        while True:
            self._give_up_if_tired(failure)
            due = self._note(failure)
            self._retire()
            self._stopping.wait(due - time.monotonic())
            self._wait_for_hung_readers()
            if self._stopping.is_set():
                return False
            try:
                self._open()
            except SourceError as error:
                failure = error.with_traceback(None)
            else:
                return True
            if self._stopping.is_set():
                return False

    def _open(self) -> None:
        self.availability.trying()
        source = self._watched(self._patience())  # which may raise, and then the present one stays
        self._past_damaged, self._past_dropped, self._past_worked = self.damaged, self.dropped, self.worked
        self._source = source
        if self._stopping.is_set():  # `close` may have seen only the one before
            self._source.close()
        self._enter()
        if self._info is not None and not self._source.info.is_live:
            # A live playlist that its sender has closed: what it still names has been seen.
            raise SourceError(f"{self.name} ended the stream", Reason.ENDED)

    def _enter(self) -> None:
        began = time.monotonic()
        self._source.__enter__()
        self._usual_patience = max(FIRST_PATIENCE, SLOWEST_USUAL * (time.monotonic() - began))

    def _watched(self, patience: float) -> Watched:
        return Watched(self._make(patience), open_timeout=patience, stall_timeout=self._stall_timeout)

    def _patience(self) -> float:
        """Return how many seconds the next try may take to be answered."""
        if self._tries == self._attempts:
            return self._open_timeout
        return min(self._open_timeout, self._usual_patience * 2.0 ** min(self._unanswered, 16))

    def _retire(self) -> None:
        """Leave the present connection, which may have been left before."""
        self._source.__exit__()
        if self._source.hangs and self._source not in self._hung:
            self._hung.append(self._source)

    def _wait_for_hung_readers(self) -> None:
        """Wait until the reader left behind has returned; no longer than an answer may take, unless there are many."""
        began = time.monotonic()
        while not self._stopping.is_set():
            self._hung = [source for source in self._hung if source.hangs]
            waited = time.monotonic() - began >= self._open_timeout
            if not self._hung or (waited and len(self._hung) < MOST_HUNG):
                return
            self._stopping.wait(POLL_SECONDS)

    def _give_up_if_tired(self, failure: SourceError) -> None:
        if self._attempts is None or self._tries < self._attempts:
            return
        if not self._attempts:
            raise failure
        times = "once" if self._attempts == 1 else f"{self._attempts} times"
        raise SourceError(f"{failure} (tried again {times})", failure.reason)

    def _note(self, failure: SourceError) -> float:
        """Write down and log that the source is away; return the `time.monotonic()` of the next try."""
        is_unanswered = failure.reason is Reason.TIMEOUT
        delay = delay_before(self._unanswered if is_unanswered else self._tries, failure.reason, self._draw())
        self._tries += 1
        self._unanswered = self._unanswered + 1 if is_unanswered else 0
        due = time.monotonic() + delay
        reason = failure.reason
        away = self.availability.outage
        if away is None:
            self._said = set()
        elif away.reason is Reason.UNPLUGGED and reason is Reason.NOT_FOUND:
            reason = Reason.UNPLUGGED  # which is what a camera is that was there before
        self.availability.lost(reason, due)
        if reason not in self._said:
            self._said.add(reason)
            logger.warning("%s (%s; trying again in %.1f s)", failure, reason.value, delay)
        return due

    def _is_back(self) -> None:
        away = self.availability.outage
        if away is not None:
            self.availability.back()
            logger.info("%s is back after %.1f s", self.name, time.monotonic() - away.began)
