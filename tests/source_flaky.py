"""Flaky: a source that does at each connection what a test wrote down, and `film`, its frames."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

from stream_seg.errors import Reason, SourceError
from stream_seg.frame import Frame, Kind, SourceInfo
from stream_seg.protocols import Source
from stream_seg.sources.stoppable import Stoppable
from tests.source_files import SIZE, numbered

Act = Callable[["Connection"], Iterator[Frame]]


class Connection(Stoppable):
    """One connection: opens or refuses, then acts."""

    def __init__(self, act: Act, refusal: SourceError | None, kind: Kind = "live") -> None:
        super().__init__("door")
        self._act = act
        self._refusal = refusal
        self._kind = kind
        self.released = 0
        self.damaged = 0

    @property
    def closed(self) -> bool:
        return self._stopping.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait, unless it is closed; whether it was."""
        return self._stopping.wait(seconds)

    def __iter__(self) -> Iterator[Frame]:
        return self._act(self)

    def _open(self) -> None:
        if self._refusal is not None:
            raise self._refusal
        self._info = SourceInfo("door", SIZE, self._kind, Fraction(25), time_base=Fraction(1, 90000))

    def _release(self) -> None:
        self.released += 1


class Flaky:
    """Makes connections: `acts` in turn, each a reason to refuse or what to do; the last of them for ever."""

    def __init__(self, *acts: Reason | Act, kind: Kind = "live") -> None:
        self._acts = acts
        self._kind: Kind = kind
        self.made: list[Connection] = []
        self.patience: list[float] = []
        """The seconds that each connection was given to answer."""

    def __call__(self, patience: float = 0.0) -> Source:
        self.patience.append(patience)
        act = self._acts[min(len(self.made), len(self._acts) - 1)]
        refusal = SourceError(f"door is {act}; sorry", act) if isinstance(act, Reason) else None
        self.made.append(Connection(nothing if isinstance(act, Reason) else act, refusal, self._kind))
        return self.made[-1]


def nothing(_: Connection) -> Iterator[Frame]:
    return iter(())


def frame(number: int, size: tuple[int, int] = SIZE) -> Frame:
    return Frame(numbered(number % 256, size), number, Fraction(number, 25), time.monotonic())


def frames(count: int, size: tuple[int, int] = SIZE, every: float = 0.003, then: Reason | None = None) -> Act:
    """Give so many frames, one each `every` seconds, then end, or fail for a reason."""

    def act(connection: Connection) -> Iterator[Frame]:
        for number in range(count):
            if connection.wait(every):
                return
            yield frame(number, size)
        if then is not None:
            raise SourceError(f"door is {then}", then)

    return act


def hanging(release: threading.Event, after: int = 1) -> Act:
    """Give so many frames, then hang in a read that nothing but `release` ends."""

    def act(connection: Connection) -> Iterator[Frame]:
        yield from frames(after)(connection)
        release.wait()

    return act
