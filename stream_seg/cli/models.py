"""Names to models: `--model` of every command, and the subcommand `models`."""

from __future__ import annotations

import argparse
from pathlib import Path

from stream_seg import catalog
from stream_seg.cli.console import download_bar
from stream_seg.cli.export import build_graph
from stream_seg.cli.output import tell
from stream_seg.errors import UsageError
from stream_seg.segmenters import Images, ModelSegmenter, load_segmenter
from stream_seg.segmenters.device import choose, kind_of
from stream_seg.segmenters.model_file import check_model


def load_model(args: argparse.Namespace, images: Images | None = None, *, mirror: bool | None) -> ModelSegmenter:
    """The segmenter that --model, --device and their like ask for; a named model is downloaded on first use.

    `images` and `mirror` are those of `load_segmenter`.
    """
    device = choose(args.device)
    with download_bar(quiet=args.quiet) as progress:
        path = catalog.locate(
            args.model,
            device=kind_of(device),
            model_dir=args.model_dir,
            offline=args.offline,
            progress=progress,
            build=build_graph,
        )
    segmenter = load_segmenter(
        path,
        device=device,
        score_threshold=args.score_threshold,
        classes=args.classes,
        labels=args.labels,
        long_side=args.size,
        slices=args.slices,
        images=images,
        mirror=mirror,
    )
    segmenter.model_name = args.model
    return segmenter


def list_models(args: argparse.Namespace) -> int:
    """`stream-seg models`: the table of names."""
    tell(catalog.table(catalog.list_models(args.model_dir)))
    return 0


def pull(args: argparse.Namespace) -> int:
    """`stream-seg models pull NAME`: download (and build) a model, print where it is."""
    if args.offline:
        raise UsageError("models pull downloads, which --offline forbids; leave one of them out")
    with download_bar(quiet=args.quiet) as progress:
        device = kind_of(args.device)
        tell(catalog.pull(args.name, device=device, model_dir=args.model_dir, progress=progress, build=build_graph))
    return 0


def path(args: argparse.Namespace) -> int:
    """`stream-seg models path NAME`: where a model is on disk."""
    tell(catalog.path(args.name, device=kind_of(args.device), model_dir=args.model_dir))
    return 0


def remove(args: argparse.Namespace) -> int:
    """`stream-seg models remove NAME`: delete a downloaded model."""
    for file in catalog.remove(args.name, model_dir=args.model_dir):
        if not args.quiet:
            tell(f"removed {file}")
    return 0


def info(args: argparse.Namespace) -> int:
    """`stream-seg models info FILE`: inputs, outputs and metadata of an ONNX file, or of a named model on disk."""
    file = Path(args.name)
    if not catalog.is_file(file):
        file = catalog.path(args.name, device=kind_of(args.device), model_dir=args.model_dir)
    check_model(file)  # which says better than ONNX Runtime what a file is that is no model
    tell(catalog.info(file))
    return 0
