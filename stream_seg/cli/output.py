"""What the command prints: to standard output, with a sentence where that cannot be written."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from stream_seg.errors import OutputError, UsageError
from stream_seg.sinks.part import Target


def tell(text: object) -> None:
    """Print one result. Raises `OutputError` when it cannot be written, `BrokenPipeError` when nobody reads it."""
    _write(lambda: print(text))


def tell_beside_bars(text: str) -> None:
    """As `tell`, without tearing a progress bar."""
    _write(lambda: tqdm.write(text, file=sys.stdout))


def refuse_figures(path: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Raise an error where figures could not be written to `path`, or would replace an input or an existing file.

    `-` is refused, since the summary is on standard output; what is no file, such as /dev/stdout, may be there.
    """
    if str(path) == "-":
        raise UsageError("figures cannot go to standard output (-), where the summary is; name a file")
    with suppress(OSError):
        if path.is_char_device() or path.is_fifo():
            return
    target = Target(path, overwrite)
    for source in inputs:
        target.refuse_input(source)


def _write(write: Callable[[], None]) -> None:
    try:
        write()
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        forget_output()
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
