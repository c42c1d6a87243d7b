"""The subcommand `eval`: COCO accuracy of a model."""

from __future__ import annotations

import argparse
from pathlib import Path

from stream_seg import evaluate
from stream_seg.cli.console import Bar
from stream_seg.cli.models import load_model
from stream_seg.cli.output import tell
from stream_seg.cli.report import refuse_figures
from stream_seg.errors import UsageError
from stream_seg.opencv import be_silent
from stream_seg.sinks.part import write_text


def run(args: argparse.Namespace) -> int:
    """`stream-seg eval --model M --images DIR --annotations instances.json`."""
    be_silent()
    if args.shown_above < evaluate.SCORE_THRESHOLD:
        raise UsageError(
            f"--score-threshold is {args.shown_above:g}, but objects are scored from {evaluate.SCORE_THRESHOLD} on"
        )
    if args.json is not None:
        inputs = [args.annotations, Path(args.model), *([] if args.labels is None else [args.labels])]
        refuse_figures(args.json, inputs, overwrite=args.overwrite)
    with (
        load_model(args, mirror=args.mirror) as segmenter,
        Bar(unit="image", disable=True if args.quiet else None) as bar,
    ):
        result = evaluate.evaluate(
            segmenter,
            args.images,
            args.annotations,
            shown_above=args.shown_above,
            limit=args.limit,
            progress=bar.reach,
        )
        bar.close()
        if args.json is None or not args.quiet:
            tell(result)
            tell(f"model {segmenter.model_name} on {segmenter.provider}")
    if args.json is not None:
        write_text(args.json, result.to_json() + "\n")
    return 0
