"""Everything stream-seg raises on purpose; each message is one sentence for the user.

    StreamSegError            exit 1   anything below, or a failure of the tool itself
    +-- UsageError            exit 2   options that are wrong or contradict each other
    +-- SourceError           exit 3   an input that cannot be found, opened or read
    +-- ModelError            exit 4   a model that cannot be found, loaded or understood
    +-- DeviceError           exit 5   a device (CUDA) that was asked for and cannot be had
    +-- OutputError           exit 6   an output that cannot be written
        +-- DisplayError      exit 7   no display to open a window on

SIGINT, SIGTERM and SIGHUP end the command with 130, 143 and 129.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable


class Reason(enum.StrEnum):
    """Why a source is not there; the value is how people and metrics read it."""

    REFUSED = "refused"
    """Nobody listens at the address, or the host turned the connection away."""
    NOT_FOUND = "not found"
    """The host, the path on it or the device does not exist."""
    AUTHENTICATION = "authentication"
    """Name or password is missing or wrong."""
    TIMEOUT = "timeout"
    """It did not answer in time when it was opened."""
    STALLED = "stalled"
    """It is connected but has sent no new frame for too long."""
    ENDED = "ended"
    """Its sender ended the stream."""
    UNPLUGGED = "unplugged"
    """The device has gone."""
    CODEC = "codec"
    """What it sends cannot be decoded."""
    OTHER = "failed"
    """Anything else; the message tells."""


class StreamSegError(Exception):
    """Base of all errors; `str(error)` is one line that says what was wrong, with what, and what to do."""

    exit_code = 1


class UsageError(StreamSegError, ValueError):
    """Options or arguments that are wrong or contradict each other."""

    exit_code = 2


class SourceError(StreamSegError):
    """An input cannot be found, opened or read; `reason` says why in a word that programs can tell apart."""

    exit_code = 3

    def __init__(self, message: str, reason: Reason = Reason.OTHER) -> None:
        super().__init__(message)
        self.reason = reason


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
