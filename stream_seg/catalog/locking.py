"""Lets one process at a time do something to a model: an advisory lock on a file, gone when its holder dies."""

from __future__ import annotations

import errno
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from stream_seg.errors import ModelError

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


@contextmanager
def locked(path: Path, wait: float = 3600.0) -> Iterator[None]:
    """Hold the lock file `path` (made if absent, left behind) inside the `with` block.

    Raises `ModelError` when another process holds it for more than `wait` seconds, or the file cannot be made.
    """
    try:
        file = path.open("ab")
    except OSError as error:
        raise ModelError(
            f"cannot write to {path.parent}: {error.strerror}; choose another folder with --model-dir"
        ) from error
    with file:
        _acquire(file, path, time.monotonic() + wait)
        yield


def _acquire(file: BinaryIO, path: Path, deadline: float) -> None:
    told = False
    while not _try_lock(file, path):
        if time.monotonic() > deadline:
            raise ModelError(f"another process has been holding {path} for too long; end it and try again")
        if not told:
            logger.warning("waiting for another process that is fetching the same model")
            told = True
        time.sleep(_LOOK_AGAIN)


def _try_lock(file: BinaryIO, path: Path) -> bool:
    """Whether we may go on. Some network file systems have no locks: there the checksum alone keeps us safe."""
    try:
        _lock(file)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        logger.warning("cannot lock %s (%s): do not fetch the same model twice at once", path, error.strerror)
    return True
