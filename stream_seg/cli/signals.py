"""SIGINT and SIGTERM: the first ends the run in good order, the second ends the process at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """A signal came while there was no run to end in good order."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Ending:
    """What a signal does at the moment: calls `stop` if a run is under way, else raises `Interrupted`.

    `stop` must take no lock: the thread that it interrupts may hold it.
    """

    def __init__(self) -> None:
        self.stop: Callable[[], None] | None = None
        self.received: int | None = None

    @property
    def exit_code(self) -> int:
        """0, or 128 + the signal that ended the run (130 for SIGINT, 143 for SIGTERM)."""
        return 0 if self.received is None else 128 + self.received

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """The signal handler. It runs on the main thread, between two bytecodes."""
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = number
        if self.stop is None:
            raise Interrupted(number)
        self.stop()


@contextmanager
def ending_signals() -> Iterator[Ending]:
    """Handle SIGINT and SIGTERM inside the block; the previous handlers come back after it."""
    ending = Ending()
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, ending.handle) for number in numbers]
    try:
        yield ending
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)
