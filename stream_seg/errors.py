"""Everything stream-seg raises on purpose; each message is one sentence for the user.

    StreamSegError            exit 1   anything below, or a failure of the tool itself
    +-- UsageError            exit 2   options that are wrong or contradict each other
    +-- SourceError           exit 3   an input that cannot be found, opened or read
    +-- ModelError            exit 4   a model that cannot be found, loaded or understood
    +-- DeviceError           exit 5   a device (CUDA) that was asked for and cannot be had
    +-- OutputError           exit 6   an output that cannot be written
        +-- DisplayError      exit 7   no display to open a window on

SIGINT and SIGTERM end the command with 130 and 143.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class StreamSegError(Exception):
    """Base of all errors; `str(error)` is one line that says what was wrong, with what, and what to do."""

    exit_code = 1


class UsageError(StreamSegError, ValueError):
    """Options or arguments that are wrong or contradict each other."""

    exit_code = 2


class SourceError(StreamSegError):
    """An input cannot be found, opened or read."""

    exit_code = 3


class ModelError(StreamSegError):
    """A model cannot be found, loaded or understood."""

    exit_code = 4


class DeviceError(StreamSegError):
    """The device asked for cannot be had."""

    exit_code = 5


class OutputError(StreamSegError):
    """An output cannot be written."""

    exit_code = 6


class DisplayError(OutputError):
    """There is no display to open a window on."""

    exit_code = 7


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `" (did you mean 'dog'?)"` for a close misspelling of a known word, else an empty string."""
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    return f" (did you mean '{names[close[0]]}'?)" if close else ""
