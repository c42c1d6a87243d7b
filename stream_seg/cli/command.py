"""The command: chooses the subcommand and turns every error into one line and an exit code (`stream_seg.errors`)."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from stream_seg.cli.options_file import Word, place_of_mention
from stream_seg.cli.output import forget_output, forget_unwritten_errors
from stream_seg.cli.signals import Interrupted, interruptions_end_at_once
from stream_seg.columns import legible
from stream_seg.errors import StreamSegError

logger = logging.getLogger(__name__)


def carry_out(argv: Sequence[str] | None) -> int:
    """Run the command with `argv`, if None the process's, and return its exit code."""
    _prepare_streams()
    args = None
    try:
        with interruptions_end_at_once():  # which takes a second, and whose failures are to be told like any other
            from stream_seg.cli.arguments import parse
            from stream_seg.cli.console import set_up_logging

        args = parse(sys.argv[1:] if argv is None else argv)
        set_up_logging(quiet=args.quiet, verbose=args.verbose)
        return int(args.command(args))
    except StreamSegError as error:
        _say(_placed(str(error), getattr(args, "words", [])))
        return error.exit_code
    except Interrupted as interrupted:
        return interrupted.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        forget_output()  # whoever read it has gone; there is nobody to tell
        return 1
    except MemoryError:
        _say("there is not enough memory for this; end other programs, or take a smaller model or smaller images")
        return 1
    except Exception as error:  # the outermost boundary: a traceback on a user's screen is a bug
        if (exit_code := _interruption(error)) is not None:
            return exit_code
        logger.debug("the traceback of this error:", exc_info=True)
        _say(f"internal error: {type(error).__name__}: {error} (run again with --verbose and report what it prints)")
        return 1
    finally:
        forget_unwritten_errors()


def _placed(message: str, words: Sequence[Word]) -> str:
    """The message, behind the file of options and the line of the word that it is about, if that is in one."""
    place = place_of_mention(words, message)
    return message if place is None else f"{place}: {message}"


def _interruption(error: BaseException | None) -> int | None:
    """The exit code of a signal that a library has turned into an error of its own, such as one of importing it."""
    while error is not None:
        if isinstance(error, Interrupted):
            return error.exit_code
        if isinstance(error, KeyboardInterrupt):
            return 130
        error = error.__cause__ or error.__context__
    return None


def _prepare_streams() -> None:
    """Let no run fail for what it prints: it vanishes where a stream is closed (`2>&-`), and letters that the encoding
    of standard output lacks, which names of files may have, are written as on standard error, \\xe9.
    """
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  it is for the rest of the process
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _say(message: str) -> None:
    with suppress(OSError):  # nobody can be told, except by the exit code
        print(f"stream-seg: {legible(' '.join(message.split()))}", file=sys.stderr)
