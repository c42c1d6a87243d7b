"""Ends training between two steps when it is told to, so that what is saved is whole."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from stream_seg.cli.signals import Interrupted

_HANG_UP = getattr(signal, "SIGHUP", None)
"""The terminal has gone. Windows has no such signal."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, *([] if _HANG_UP is None else [_HANG_UP]))


class StopSignals:
    """While entered, the first of SIGNALS sets `asked`; the next one ends the process as Ctrl-C does.

    What is ignored stays so: shells start background jobs that way, `nohup` means a run to outlive its terminal, and
    other processes leave all to the first.
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

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.asked and number != _HANG_UP:  # it comes twice, from the system and from the shell
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def interrupted_by_all() -> Iterator[None]:
    """Have SIGTERM and SIGHUP raise `Interrupted` inside the block, so that they leave as little behind as Ctrl-C."""
    before = {one: signal.getsignal(one) for one in SIGNALS}
    unhandled = [one for one, handler in before.items() if handler == signal.SIG_DFL]
    for one in unhandled:
        signal.signal(one, _interrupt)
    try:
        yield
    finally:
        for one in unhandled:
            signal.signal(one, signal.SIG_DFL)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise Interrupted(number)


@contextmanager
def ignored() -> Iterator[None]:
    """Ignore SIGNALS in processes that are started inside the block, from their first moment on.

    A terminal or service manager signals all that train together, but one of them saves for all.
    """
    before = {one: signal.signal(one, signal.SIG_IGN) for one in SIGNALS}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def end_without_failing(_worker: int) -> None:
    """For processes that make batches: PyTorch would raise in the first one, as it saves, if a signal killed them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if _HANG_UP is not None and signal.getsignal(_HANG_UP) != signal.SIG_IGN:
        signal.signal(_HANG_UP, lambda *_: os._exit(0))
