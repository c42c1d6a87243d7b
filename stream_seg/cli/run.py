"""The main job: builds source, segmenter and sinks from the options, runs them, reports."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from stream_seg.cli import report
from stream_seg.cli.console import Listing, Progress
from stream_seg.cli.models import load_model
from stream_seg.cli.signals import ending_signals
from stream_seg.errors import DisplayError, OutputError, SourceError, UsageError
from stream_seg.metrics import Metrics
from stream_seg.pipeline import Pipeline
from stream_seg.protocols import Sink, Source
from stream_seg.render import Renderer
from stream_seg.sinks import Window, open_sink
from stream_seg.sinks.part import Target
from stream_seg.sources import open_source

logger = logging.getLogger(__name__)


def run(args: argparse.Namespace) -> int:
    """Run the pipeline that `args` describe. Returns 0, or 130 or 143 when a signal ended it."""
    with ending_signals() as ending:
        source = _source(args)
        _refuse_one_file_twice(args)
        outputs = [_output(args, path) for path in args.output]
        window = _window(args)
        _check_metrics_path(args)
        metrics = Metrics()
        figures = report.Report(args.metrics, args.output)
        with load_model(args) as segmenter:
            pipeline = Pipeline(
                source,
                segmenter,
                sinks=[*outputs, *window, *([] if args.quiet else [Listing(), Progress(metrics)])],
                renderer=Renderer(args.view, hud=None if args.no_hud else _hud(metrics)),
                batch_size=args.batch_size,
                metrics=metrics,
            )
            ending.stop = pipeline.stop
            try:
                summary = pipeline.run()
                if not summary.delivered and not pipeline.stopped:
                    raise SourceError("the source had no frames to process; nothing was written")
            except BaseException as error:
                with suppress(OutputError):  # the first failure is the one to tell
                    figures.write(pipeline.info, segmenter, metrics.summary(), outcome="failed", error=error)
                raise
            figures.write(pipeline.info, segmenter, summary, outcome="stopped" if pipeline.stopped else "complete")
        if pipeline.info is not None and not args.quiet:
            print(report.text(pipeline.info, segmenter, summary, [*args.output, *(["a window"] if window else [])]))
        return ending.exit_code


def _source(args: argparse.Namespace) -> Source:
    if args.webcam is not None and args.source is not None:
        raise UsageError(f"two sources were named, --webcam {args.webcam} and '{args.source}'; name one")
    spec: str | int | None = args.webcam if args.webcam is not None else args.source
    if spec is None:
        raise UsageError("no source was named; name a file, an address or a camera, or see stream-seg --help")
    if args.end is not None and args.end <= args.start:
        raise UsageError(f"--end {args.end:g} is not after --start {args.start:g}")
    return open_source(
        spec,
        start=args.start,
        end=args.end,
        max_frames=args.max_frames,
        stride=args.stride,
        camera_size=args.camera_size,
        camera_fps=args.camera_fps,
        sequence_rate=args.frame_rate,
    )


def _output(args: argparse.Namespace, path: str) -> Sink:
    return open_sink(path, codec=args.codec, overwrite=args.overwrite, source_path=args.source)


def _window(args: argparse.Namespace) -> Sequence[Sink]:
    """The window: asked for by --show, and the default where nothing else is."""
    show = not args.output if args.show is None else args.show
    if not show:
        return []
    try:
        # A window that is alone shows a recording at its own pace; beside a file it must not slow the writing.
        return [Window(paced=not args.output)]
    except DisplayError as error:
        if args.show:
            raise
        raise DisplayError(f"{error}; or name a file to write with -o") from error


def _hud(metrics: Metrics) -> Callable[[], str]:
    """The status line of live pictures; nothing on recordings, whose frames have no rate of their own to tell."""
    return lambda: metrics.status() if metrics.is_live else ""


def _refuse_one_file_twice(args: argparse.Namespace) -> None:
    names = [*args.output, *([] if args.metrics is None else [str(args.metrics)])]
    paths = [os.path.realpath(name) for name in names]
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise UsageError(f"{names[number]} was named for two outputs; give each a name of its own")


def _check_metrics_path(args: argparse.Namespace) -> None:
    """Refuse, before the work of a run, what would fail or replace a file after it."""
    path: Path | None = args.metrics
    if path is None:
        return
    with suppress(OSError):
        if path.is_char_device() or path.is_fifo():  # /dev/stdout
            return
    Target(path, args.overwrite, None if args.source is None else Path(args.source))
