"""The subcommand `export`: weights to an ONNX file. Building needs the extra `export`, imported only here and then."""

from __future__ import annotations

import argparse
import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stream_seg import catalog
from stream_seg.cli.console import Bar, download_bar
from stream_seg.cli.output import tell
from stream_seg.cli.signals import ending_signals
from stream_seg.errors import UsageError
from stream_seg.frame import Image
from stream_seg.opencv import be_silent
from stream_seg.segmenters import read_labels
from stream_seg.sinks.part import PartFile, Target
from stream_seg.sources import open_source

logger = logging.getLogger(__name__)

CALIBRATION_FRAMES = 100
"""How many frames of --calibrate are used, spread over it."""


def build_graph(weights: Path, architecture: str, device: catalog.Device, out: Path) -> None:
    """Build the fp32 graph of downloaded weights: what the catalogue calls for models that come as weights."""
    from stream_seg.graph import export_graph

    logger.info("building the graph of %s; this happens once", architecture)
    export_graph(weights, out, architecture=architecture, device=device)


def export(args: argparse.Namespace) -> int:
    """`stream-seg export NAME_OR_WEIGHTS -o model.onnx`."""
    from stream_seg.graph import check_options, export_graph

    be_silent()
    if args.calibrate is not None and args.precision != "int8":
        raise UsageError(f"--calibrate is for --precision int8, not {args.precision}; leave it out")
    target = Target(args.output, args.overwrite, args.weights)
    for read in (args.calibrate, args.labels):
        target.refuse_input(read)
    frames = None if args.calibrate is None else calibration_frames(args.calibrate)
    check_options(args.architecture, args.precision, args.device, args.proposals, args.size, frames)
    labels = args.labels and read_labels(args.labels)
    with ending_signals():  # all of which leave no partial file, and not Ctrl-C alone
        weights, architecture = _weights(args)
        part = PartFile(target)
        try:
            with _steps(quiet=args.quiet) as progress:
                done = export_graph(
                    weights,
                    part.path,
                    architecture=architecture,
                    precision=args.precision,
                    device=args.device,
                    proposals=args.proposals,
                    size=args.size,
                    labels=labels,
                    calibration=frames,
                    progress=progress,
                )
        except BaseException:
            part.discard()
            raise
        part.publish()
    if args.quiet:
        return 0
    tell(
        f"{args.output}: {done.config.name} {done.precision}, {len(done.labels) - 1} classes, {done.size / 1e6:.1f} MB"
    )
    if done.agreement is not None:
        tell(f"  {done.agreement}")
    return 0


def _weights(args: argparse.Namespace) -> tuple[Path, str | None]:
    """The weights file that was named, or the one of a named model, and its architecture where that is known."""
    path = Path(args.weights)
    if catalog.is_file(path):
        return path, args.architecture
    with download_bar(quiet=args.quiet) as progress:
        found, architecture = catalog.weights(
            args.weights, model_dir=args.model_dir, offline=args.offline, progress=progress
        )
    return found, args.architecture or architecture


def calibration_frames(spec: str) -> Iterator[Image]:
    """Up to CALIBRATION_FRAMES images of a video or folder, evenly spread where its length is known."""
    with open_source(spec) as source:
        stride = max(1, (source.info.frame_count or 0) // CALIBRATION_FRAMES)
        for frame in itertools.islice(source, 0, stride * CALIBRATION_FRAMES, stride):
            yield frame.image


@contextmanager
def _steps(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A function that shows the step at hand and how far it is."""
    with Bar(disable=True if quiet else None, bar_format="{desc}: {n_fmt}/{total_fmt}") as bar:

        def progress(step: str, done: int, total: int) -> None:
            bar.set_description_str(step, refresh=False)
            bar.reach(done, total)

        yield progress
