"""The main job: builds feeds, wall and segmenter from the options, runs them, reports."""

from __future__ import annotations

import argparse
from contextlib import nullcontext, suppress
from functools import partial

from stream_seg.cli import report
from stream_seg.cli.console import Listing, Progress
from stream_seg.cli.feeds import plan
from stream_seg.cli.memory import Trimmer
from stream_seg.cli.models import load_model
from stream_seg.cli.names import PIPED
from stream_seg.cli.output import standard_output_as_pipe, tell
from stream_seg.cli.signals import ending_signals
from stream_seg.errors import OutputError, SourceError
from stream_seg.heap import limit_heaps
from stream_seg.metrics import Summary
from stream_seg.opencv import be_silent, use_one_thread
from stream_seg.pipeline import Pipeline


def run(args: argparse.Namespace) -> int:
    """Run the pipeline that `args` describe, if anything is left to do.

    Returns 0, 3 if some source failed, 130, 143 or 129 after a signal.
    """
    limit_heaps()
    use_one_thread()
    be_silent()
    piped = next((output for output in args.output if output in PIPED), None)
    piping = nullcontext() if piped is None else standard_output_as_pipe(piped)
    with ending_signals() as ending, piping as pipe:
        job = plan(args, lambda *of: [Trimmer(), *([] if args.quiet else [Listing(), Progress(*of)])], pipe)
        if not job.feeds:
            return 0
        write_figures = partial(report.write_figures, args.metrics, job.outputs)
        with load_model(args, job.images, mirror=job.mirror) as segmenter:
            job.show_from(segmenter.shown_from)
            pipeline = Pipeline(
                job.feeds,
                segmenter,
                wall=job.wall,
                batch_size=args.batch_size,
                max_age=None if args.max_age is None else args.max_age / 1000,
                on_change=args.on_change,
                in_turns=job.in_turns,
                metrics=job.metrics,
            )
            job.feeds.clear()  # of many films the pipeline keeps nothing that is done
            ending.leave_to(pipeline.stop)
            try:
                summary = pipeline.run()
                if not summary.delivered and not pipeline.stopped:
                    raise SourceError(f"{_why_nothing(summary)}; nothing was written")
            except BaseException as error:
                with suppress(OutputError):  # the first failure is the one to tell
                    write_figures(pipeline.infos, segmenter, job.metrics.summary(), outcome="failed", error=error)
                raise
            outcome = "stopped" if pipeline.stopped else "incomplete" if pipeline.failures else "complete"
            write_figures(pipeline.infos, segmenter, summary, outcome=outcome)
        if any(pipeline.infos) and not args.quiet:
            outputs = [*report.written(job.outputs), *map(str, job.screens)]
            tell(report.text(pipeline.infos, segmenter, summary, outputs))
        return ending.exit_code or (SourceError.exit_code if pipeline.failures else 0)


def _why_nothing(summary: Summary) -> str:
    """Why a run that nobody stopped delivered no frame."""
    if summary.captured:
        return f"none of {summary.captured} frames was as new as --max-age wants"
    return "the source had no frames to process"
