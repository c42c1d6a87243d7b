"""What the command prints: to standard output, with a sentence where that cannot be written."""

from __future__ import annotations

import os
import sys

from stream_seg.errors import OutputError


def tell(text: object) -> None:
    """Print one result. Raises `OutputError` when it cannot be written, `BrokenPipeError` when nobody reads it."""
    try:
        print(text, flush=True)
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
