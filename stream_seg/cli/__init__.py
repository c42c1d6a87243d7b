"""The command line: the only place that prints or exits."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

from stream_seg.cli.signals import interruptions_end_at_once


def program() -> None:
    """The program `stream-seg`: ends the process with the exit code of `main`."""
    code = main()
    if any(thread.daemon and thread.name.startswith("stream-seg-") for thread in threading.enumerate()):
        _leave(code)
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (by default the process's) and return its exit code."""
    with interruptions_end_at_once():
        from stream_seg.cli.command import carry_out

    return carry_out(argv)


def _leave(code: int) -> None:
    """End at once, for a thread was left behind with a source that hangs.

    FFmpeg asks it now and then whether to go on, through PyAV, which crashes once Python takes itself apart. All sinks
    are closed by now.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # there is none, its reader went, it was closed
            stream.flush()
    os._exit(code)
