"""What the command prints: to standard output, with a sentence where that cannot be written."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tqdm import tqdm

from stream_seg.cli.names import PIPE
from stream_seg.columns import legible
from stream_seg.errors import OutputError


def tell(text: object) -> None:
    """Print one result. Raises `OutputError` when it cannot be written, `BrokenPipeError` when nobody reads it.

    Of text that is for people control characters are made legible; a `Path` is for programs and stays as it is. On a
    terminal that has gone nobody reads it either, but that is told by a signal, and to some runs is all the same.
    """
    _write(lambda: print(text if isinstance(text, Path) else legible(str(text))))


def tell_beside_bars(text: str) -> None:
    """As `tell`, without tearing a progress bar."""
    _write(lambda: tqdm.write(legible(text), file=sys.stdout))


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


@contextmanager
def standard_output_as_pipe(output: str) -> Iterator[IO[bytes]]:
    """Give standard output to `output`, one of `PIPED`; meanwhile all that is printed goes to standard error.

    Raises `OutputError` where it is a terminal, was closed, or is none that can be handed on.
    """
    what, program = ("a video", "ffplay -") if output == PIPE else ("a list of objects", "jq .")
    unavailable = OutputError(f"standard output cannot be had for {what}; name a file")
    if getattr(sys.stdout, "name", None) == os.devnull:  # it was closed; what > /dev/null redirects has another name
        raise unavailable
    try:
        standard, other = sys.stdout.fileno(), sys.stderr.fileno()
        is_terminal = os.isatty(standard)
    except (OSError, ValueError) as error:  # ValueError: closed, or replaced by what has no descriptor
        raise unavailable from error
    if is_terminal:
        raise OutputError(f"{what} would fill the terminal; pipe it into a program, as in -o {output} | {program}")
    sys.stdout.flush()
    with os.fdopen(os.dup(standard), "wb", buffering=0) as pipe:
        os.dup2(other, standard)
        try:
            yield pipe
        finally:
            with suppress(OSError):
                sys.stdout.flush()
            os.dup2(pipe.fileno(), standard)


def forget_output() -> None:
    """Keep the interpreter from trying once more to write what could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def forget_unwritten_errors() -> None:
    """Keep it from trying so with standard error, whose failure would replace the exit code."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
