"""The command line: the only place that prints or exits."""

from __future__ import annotations

from collections.abc import Sequence

from stream_seg.cli.signals import interruptions_end_at_once


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (by default the process's) and return its exit code."""
    with interruptions_end_at_once():
        from stream_seg.cli.command import carry_out

    return carry_out(argv)
