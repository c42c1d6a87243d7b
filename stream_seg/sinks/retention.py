"""Keep and Segments: how much of a recording in segments is kept, and which files are its segments.

A file is taken for a segment, and so may be deleted, only if both its name and a mark inside it say so.
"""

from __future__ import annotations

import contextlib
import logging
import re
import stat
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from stream_seg.errors import UsageError
from stream_seg.sinks.part import is_being_written

logger = logging.getLogger(__name__)

MARK = "stream-seg segment"
"""What the metadata of every segment say under "comment"."""

_METADATA_BYTES = 16384

_AHEAD_SECONDS = 3600
"""How far ahead the time of a file may be: the clock of a file server may be wrong by some minutes."""

_UNITS_OF_TIME = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_UNITS_OF_SIZE = {
    **{"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12},
    **{"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40},
}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Keep:
    """What is kept of a recording: what ended less than `seconds` ago, or the newest `size` bytes."""

    seconds: float | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        if (self.seconds is None) == (self.size is None):
            raise UsageError("a recording is kept for a time or up to a size; give one of the two")
        if (self.seconds or self.size or 0) <= 0:
            raise UsageError("what is kept of a recording must be more than nothing")


def parse_duration(text: str) -> float:
    """`90s`, `10m`, `1.5h` or `2d` in seconds. Raises `UsageError` for anything else, also for nothing."""
    seconds = _parse(text, _UNITS_OF_TIME)
    if seconds is None:
        raise UsageError(f"'{text}' is no length of time; write a number and s, m, h or d, as in 10m")
    return seconds


def parse_keep(text: str) -> Keep:
    """What `24h`, `7d`, `500MB` or `20GB` keeps. Raises `UsageError` for anything else, also for nothing."""
    seconds, size = _parse(text, _UNITS_OF_TIME), _parse(text, _UNITS_OF_SIZE)
    if seconds is not None:
        return Keep(seconds=seconds)
    if size is None or size < 1:
        raise UsageError(f"'{text}' is neither a time nor a size to keep; write it as 24h or 20GB")
    return Keep(size=int(size))


def _parse(text: str, units: dict[str, int]) -> float | None:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2].lower() not in units:
        return None
    return float(match[1]) * units[match[2].lower()] or None


@dataclass(frozen=True, slots=True)
class _Segment:
    path: Path
    ended: float
    size: int


class Segments:
    """The segments of a recording in the folder of `path`, those of earlier and of killed runs too.

    A segment is older than those that were not there yet when it was first seen. Only those first seen together are
    told apart by the times of their files: clocks are set back, and what came before would stay for that of what comes.
    A time later than now is of such a clock, and counts as older than all others.
    """

    def __init__(self, path: Path) -> None:
        self._folder = path.parent.resolve()
        stem, suffix = re.escape(path.stem), re.escape(path.suffix)
        self._names = re.compile(rf"{stem}_\d{{8}}-\d{{6}}(-\d+)?(\.part(-\d+)?)?{suffix}")
        self._marked: dict[tuple[Path, int, int], bool] = {}  # in the order of their age
        self._given_up: set[Path] = set()

    def remove_beyond(self, keep: Keep, *, spared: Collection[Path]) -> None:
        """Delete the oldest segments, beyond what is to be kept; never one that is being written or is `spared`.

        A file that cannot be deleted is left, with one warning.
        """
        try:
            segments = self._own()
        except OSError as error:
            logger.warning("cannot look for old segments in %s: %s", self._folder, error.strerror)
            return
        for segment in _beyond(keep, segments):
            if segment.path not in spared:
                self._remove(segment.path)

    def _own(self) -> list[_Segment]:
        """All segments, the oldest first."""
        found: dict[tuple[Path, int, int], _Segment] = {}
        for path in self._folder.iterdir():
            if not self._names.fullmatch(path.name):
                continue
            with contextlib.suppress(FileNotFoundError):  # another run has finished or deleted it since
                about = path.lstat()
                if stat.S_ISREG(about.st_mode):
                    found[path, about.st_ino, about.st_mtime_ns] = _Segment(path, about.st_mtime, about.st_size)
        latest = time.time() + _AHEAD_SECONDS
        marked = {seen: mark for seen, mark in self._marked.items() if seen in found}
        for seen in sorted(found.keys() - marked.keys(), key=lambda seen: _age(found[seen], latest)):
            marked[seen] = _is_marked(found[seen].path)
        self._marked = marked
        return [found[seen] for seen, mark in marked.items() if mark]

    def _remove(self, path: Path) -> None:
        try:
            if not is_being_written(path):
                path.unlink()
                logger.info("removed %s", path)
        except FileNotFoundError:
            pass  # somebody else was quicker
        except OSError as error:
            if path not in self._given_up:
                self._given_up.add(path)
                logger.warning("cannot remove the old segment %s: %s", path, error.strerror)


def _age(segment: _Segment, latest: float) -> tuple[bool, float, Path]:
    """Sort key that puts the oldest first; no file can have ended after `latest`."""
    return segment.ended <= latest, segment.ended, segment.path


def _beyond(keep: Keep, segments: list[_Segment]) -> Iterable[_Segment]:
    """Those of `segments`, oldest first, that are not to be kept; of a size, the newest one always is."""
    if keep.seconds is not None:  # without exception: who names an age may be bound to keep nothing that is older
        oldest = time.time() - keep.seconds
        return [segment for segment in segments if segment.ended < oldest]
    room = (keep.size or 0) - sum(segment.size for segment in segments[-1:])
    beyond = []
    for segment in reversed(segments[:-1]):
        room -= segment.size
        if room < 0:
            beyond.append(segment)
    return reversed(beyond)


def _is_marked(path: Path) -> bool:
    """Whether the mark is where every container has its metadata: near the beginning or the end of the file.

    Opening it would tell the same, but FFmpeg decodes a picture of it at that: 16 ms at 720p, for each of thousands.
    """
    try:
        with path.open("rb") as file:
            if MARK.encode() in file.read(_METADATA_BYTES):
                return True
            file.seek(max(0, path.stat().st_size - _METADATA_BYTES))
            return MARK.encode() in file.read()
    except OSError:  # unreadable, or gone by now
        return False
