"""Ends training between two steps when it is told to, so that what is saved is whole."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While entered, the first Ctrl-C or SIGTERM sets `asked`; the next one ends the process as Ctrl-C does.

    What is ignored stays so: shells start background jobs that way, and other processes leave both to the first.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self._before = {one: signal.getsignal(one) for one in SIGNALS}
        for one, handler in self._before.items():
            if handler != signal.SIG_IGN:
                signal.signal(one, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def leave_stopping_to_the_first() -> None:
    """For processes that train with another: a terminal or a service manager signals all, but one saves for all."""
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)


def end_without_failing(_worker: int) -> None:
    """For processes that make batches: PyTorch would raise in the first one, as it saves, if a signal killed them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
