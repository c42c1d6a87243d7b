"""Lets one process at a time do something to a folder: an advisory lock on a file in it, gone when its holder dies."""

from __future__ import annotations

import errno
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from stream_seg.errors import StreamSegError

if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


logger = logging.getLogger(__name__)

_BUSY = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_LOOK_AGAIN = 0.1


@dataclass(frozen=True, slots=True)
class Purpose:
    """What one process at a time does, as messages say it."""

    doing: str
    """As in "another process that is ..."."""
    option: str
    """Of the command, for another folder."""
    failure: type[StreamSegError]
    """Raised when the lock cannot be had."""


@contextmanager
def locked(path: Path, purpose: Purpose, wait: float = 3600.0) -> Iterator[None]:
    """Hold the lock file `path` (made if absent, left behind) inside the `with` block.

    Raises the purpose's failure when another process holds it for more than `wait` seconds, or the file cannot be made.
    """
    try:
        file = path.open("ab")
    except OSError as error:
        raise purpose.failure(
            f"cannot write to {path.parent}: {error.strerror}; choose another folder with {purpose.option}"
        ) from error
    with file:
        _acquire(file, path, purpose, time.monotonic() + wait)
        yield


def _acquire(file: BinaryIO, path: Path, purpose: Purpose, deadline: float) -> None:
    told = False
    while not _try_lock(file, path, purpose):
        if time.monotonic() > deadline:
            raise purpose.failure(f"another process has been holding {path} for too long; end it and try again")
        if not told:
            logger.warning("waiting for another process that is %s", purpose.doing)
            told = True
        time.sleep(_LOOK_AGAIN)


def _try_lock(file: BinaryIO, path: Path, purpose: Purpose) -> bool:
    """Whether we may go on. Some network file systems have no locks: there only the user can tell."""
    try:
        _lock(file)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        logger.warning("cannot lock %s (%s): see that no other process is %s", path, error.strerror, purpose.doing)
    return True
