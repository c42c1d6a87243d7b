"""What the command prints: to standard output, with a sentence where that cannot be written."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable

from tqdm import tqdm

from stream_seg.errors import OutputError


def tell(text: object) -> None:
    """Print one result. Raises `OutputError` when it cannot be written, `BrokenPipeError` when nobody reads it.

    On a terminal that has gone nobody reads it either, but that is told by a signal, and to some runs is all the same.
    """
    _write(lambda: print(text))


def tell_beside_bars(text: str) -> None:
    """As `tell`, without tearing a progress bar."""
    _write(lambda: tqdm.write(text, file=sys.stdout))


def _write(write: Callable[[], None]) -> None:
    try:
        write()
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        is_terminal = stat.S_ISCHR(os.fstat(sys.stdout.fileno()).st_mode)  # isatty denies it of one that has gone
        forget_output()
        if is_terminal and error.errno == errno.EIO:
            return
        raise OutputError(f"cannot write to standard output: {error.strerror}") from error


def forget_output() -> None:
    """Keep the interpreter from trying once more to write what could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def forget_unwritten_errors() -> None:
    """Keep it from trying so with standard error, whose failure would replace the exit code."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
