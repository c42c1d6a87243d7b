"""ServedObjects: what is in the newest picture of each source, for programs that ask a page (docs/outputs.md)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from stream_seg.channel import Channel, Overflow
from stream_seg.detections import Detections
from stream_seg.frame import Frame, SourceInfo
from stream_seg.protocols import Outcome, Sink
from stream_seg.sinks.objects import Record

BACKLOG = 64
"""Records that wait for one who follows them; the oldest are left out then."""

_BEST_FIRST = ("ok", "away", "ended")
"""How a source may be."""


class ServedObjects(Sink):
    """Tells a page what is shown of one source: `Page.objects` makes it. `source` is its name among several."""

    wants_pictures = False

    def __init__(self, findings: Findings, source: str | None) -> None:
        self._findings = findings
        self._source = source
        self._is_live = False
        findings.expect(source)

    def open(self, info: SourceInfo) -> None:
        self._is_live = info.is_live
        self._findings.begun(self._source)

    def write(self, frame: Frame, detections: Detections) -> None:
        record = Record.of(frame, detections, is_live=self._is_live, source=self._source)
        self._findings.put(self._source, Found(record))

    def close(self, outcome: Outcome) -> None:  # noqa: ARG002  no more comes either way
        self._findings.ended(self._source)


class Found:
    """The record of one frame, whose line is made once, on the first thread that asks."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._making = threading.Lock()
        self._line: bytes | None = None

    @property
    def line(self) -> bytes:
        """As in a file of them, without its end."""
        with self._making:
            if self._line is None:
                self._line = self._record.line().rstrip()
            return self._line


@dataclass(slots=True)
class _Latest:
    """Of one source, what was found last and when; `came` is None before the first frame."""

    found: Found | None = None
    came: float | None = None
    has_ended: bool = False
    followers: set[Channel[Found]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Health:
    """Whether pictures of a source come, and how many seconds ago the newest did."""

    status: str
    seconds: float | None


class Findings:
    """What was found in the newest picture of each source, and in each new one for those who follow; any thread.

    A source is called by its name among several, an only one None. `clock` is in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changing = threading.Lock()
        self._latest: dict[str | None, _Latest] = {}
        self._is_over = False

    def expect(self, source: str | None) -> None:
        """There will be a source of this name."""
        self._latest[source] = _Latest()

    @property
    def sources(self) -> list[str | None]:
        """All there are, in order, also those that have ended."""
        return [*self._latest]

    def put(self, source: str | None, found: Found) -> None:
        """Take the newest of a source. Waits for nobody: those who are late lose what came first."""
        latest = self._latest[source]
        with self._changing:
            latest.found, latest.came = found, self._clock()
            if not self._is_over:
                for follower in latest.followers:
                    follower.put(found)

    def begin(self) -> None:
        """Let there be followers, of another run, too."""
        self._is_over = False

    def begun(self, source: str | None) -> None:
        """What is told of a source from now on is of another run. Those who follow it already go on."""
        latest = self._latest[source]
        with self._changing:
            latest.found, latest.came, latest.has_ended = None, None, False

    def ended(self, source: str | None) -> None:
        """No more will come of a source."""
        self._latest[source].has_ended = True

    def end(self) -> None:
        """Let those who follow have what waits for them, and end."""
        with self._changing:
            self._is_over = True
            followers = {follower for latest in self._latest.values() for follower in latest.followers}
        for follower in followers:
            follower.close()

    def newest(self, source: str | None) -> Found | None:
        """What is in its newest picture, be it the last one; None before there is one."""
        return self._latest[source].found

    @contextmanager
    def following(self, sources: Sequence[str | None]) -> Iterator[Channel[Found]]:
        """What is found in each picture of these sources from now on, in a channel that ends with the page."""
        channel: Channel[Found] = Channel(BACKLOG, Overflow.DROP_OLDEST)
        with self._changing:
            for source in sources:
                self._latest[source].followers.add(channel)
            if self._is_over:
                channel.close()
        try:
            yield channel
        finally:
            with self._changing:
                for source in sources:
                    self._latest[source].followers.discard(channel)

    def health(self, sources: Sequence[str | None], within: float) -> dict[str, object]:
        """Whether pictures of these sources come: of each, whether its newest came within so many seconds.

        Several are well as long as one of them is: a camera that is away is no fault of the others.
        """
        now = self._clock()
        each = [self._health(self._latest[source], now, within) for source in sources]
        if len(each) == 1:
            return asdict(each[0])
        best = min(each, key=lambda one: (_BEST_FIRST.index(one.status), one.seconds is None, one.seconds))
        return {**asdict(best), "sources": {source: asdict(one) for source, one in zip(sources, each, strict=True)}}

    def _health(self, latest: _Latest, now: float, within: float) -> _Health:
        seconds = None if latest.came is None else round(max(0.0, now - latest.came), 3)
        if latest.has_ended:
            return _Health("ended", seconds)
        return _Health("ok" if seconds is not None and seconds <= within else "away", seconds)
