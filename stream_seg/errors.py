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
import re
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
    """Return `" (did you mean 'dog'?)"` where a known word is `closest`, else an empty string."""
    meant = closest(word, known)
    return "" if meant is None else f" (did you mean '{meant}'?)"


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that another one stands for: a slip of the finger, an abbreviation, or a word of several.

    None where nothing is close: a far-off guess leads astray. Capitals, and hyphens in front of options, do not count.
    """
    names = {_bare(name): name for name in known}
    near = [name for name in names if _is_close(_bare(word), name)]
    found = difflib.get_close_matches(_bare(word), near, n=1, cutoff=0)
    found = found or difflib.get_close_matches(_bare(word), names, n=1, cutoff=_ALIKE)
    return names[found[0]] if found else None


_ALIKE = 0.85
"""Ratio of `difflib` from which on two words are one with slips: two in eight letters or so."""


def _bare(word: str) -> str:
    return word.lower().lstrip("-")


def _is_close(word: str, name: str) -> bool:
    """Whether one begins the other, and is half of it at least, `word` is a word of `name`, or a slip makes it that."""
    short, long = sorted((word, name), key=len)
    begins = len(short) > 2 and long.startswith(short) and 2 * len(short) >= len(long)
    return begins or (len(word) > 2 and word in re.split("[-_ ]", name)) or _is_slip(word, name)


def _is_slip(word: str, name: str) -> bool:
    """Whether a letter is missing, too many, or in the place of its neighbour, or, of four or more, another one."""
    places = range(min(len(word), len(name)))
    at = next((place for place in places if word[place] != name[place]), len(places))
    one, other = word[at:], name[at:]
    wrong = one[1:] == other[1:] and len(word) > 3
    return one[1:] == other or one == other[1:] or wrong or one[1::-1] + one[2:] == other
