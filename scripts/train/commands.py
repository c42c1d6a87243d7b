"""What the commands of this folder share: how they end, and options that are lists."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from stream_seg.errors import StreamSegError


def carry_out(name: str, command: Callable[[], None], stopped: str = "stopped") -> None:
    """Run a command; what goes wrong is one line and an exit code, and so is Ctrl-C, of which `stopped` tells."""
    try:
        command()
    except StreamSegError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print(f"{name}: {stopped}", file=sys.stderr)
        sys.exit(130)


def long_sides(text: str) -> list[int]:
    """Pixels, of an option such as 320,416,640."""
    try:
        sides = [int(part) for part in text.split(",")]
    except ValueError:
        sides = []
    if not sides or min(sides) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} should be pixels, such as 320 or 320,416,640")
    return sides
