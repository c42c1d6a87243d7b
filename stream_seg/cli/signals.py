"""SIGINT, SIGTERM and SIGHUP: the first ends the run in good order, a later one ends the process at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_HANG_UP = None if sys.platform == "win32" else signal.SIGHUP
"""The terminal has gone: its window was closed, or the connection to it lost. Windows has no such signal."""

_TOGETHER_SECONDS = 0.3
"""What comes so soon after the first signal is not another wish: `timeout` signals a process, and then its group as
well, and what passes Ctrl-C on to it does so beside the terminal."""


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
        self._received_at = 0.0

    def leave_to(self, stop: Callable[[], None]) -> None:
        """Have signals call `stop` from now on. Raises `Interrupted` for one that came before and was lost.

        An exception in a destructor or a callback of the interpreter is lost, and that of a signal may be there.
        """
        self.stop = stop
        if self.received is not None:
            raise Interrupted(self.received)

    @property
    def exit_code(self) -> int:
        """0, or 128 + the signal that ended the run (130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP)."""
        return 0 if self.received is None else 128 + self.received

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """The signal handler. It runs on the main thread, between two bytecodes."""
        if self.received is not None:
            if number == _HANG_UP:  # it comes twice, from the system and from the shell, and nobody asks for haste
                return
            if time.monotonic() - self._received_at < _TOGETHER_SECONDS:
                return
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = number
        self._received_at = time.monotonic()
        if self.stop is None:
            raise Interrupted(number)
        self.stop()


@contextmanager
def interruptions_end_at_once() -> Iterator[None]:
    """Have Ctrl-C end the process inside the block, which loads libraries, without a word: nothing is begun yet.

    Of an exception meanwhile, libraries make errors of their own, or nothing at all.
    """
    here = threading.current_thread() is threading.main_thread()  # others neither see a signal nor may handle it
    raises = here and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if raises:  # not where it is ignored, as in the background, or somebody else's
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if raises:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def ending_signals() -> Iterator[Ending]:
    """Handle SIGINT, SIGTERM and SIGHUP inside the block; the previous handlers come back after it.

    SIGHUP stays ignored where it is: `nohup` means a run to outlive its terminal.
    """
    ending = Ending()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if _HANG_UP is not None and signal.getsignal(_HANG_UP) is not signal.SIG_IGN:
        numbers.append(_HANG_UP)
    previous = [signal.signal(number, ending.handle) for number in numbers]
    try:
        yield ending
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)
