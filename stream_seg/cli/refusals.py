"""What a run is refused for before anything is written: options, names and sources that do not go together."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from stream_seg.addresses.credentials import safe_address
from stream_seg.cli.names import (
    PIPED,
    PIPED_OBJECTS,
    PLACE,
    Spec,
    files_among,
    grows,
    is_cut,
    is_encoded,
    is_here,
    is_one_file,
    is_photo,
    is_recording,
)
from stream_seg.cli.places import of_source, refuse_of_several_sizes
from stream_seg.cli.report import refuse_figures
from stream_seg.errors import OutputError, SourceError, UsageError
from stream_seg.line import Line
from stream_seg.protocols import Source
from stream_seg.region import Placed, Region
from stream_seg.sinks import is_address
from stream_seg.sinks.part import file_identity, identities, whole_name
from stream_seg.sinks.publisher import shown_address
from stream_seg.sources.files import is_image, would_find
from stream_seg.sources.unreadable import Unreadable

MOST_SOURCES = 32
"""That are had side by side; of recordings that are done in turns there may be any number."""


def refuse_senseless(args: argparse.Namespace, specs: Sequence[Spec], *, in_turns: bool) -> None:
    """Refuse options that contradict each other, and sources or outputs that cannot be had together."""
    if not specs:
        raise UsageError("no source was named; name a file, an address or a camera, or see stream-seg --help")
    if len(specs) > MOST_SOURCES and not in_turns:
        hint = ""
        if all(map(is_photo, specs)):
            hint = f"; images are one source where no output has {PLACE} in its name"
        elif all(map(is_recording, specs)):
            hint = f"; recordings go in turns where each has results of its own alone, as in -o results/{PLACE}.mp4"
        raise UsageError(f"{len(specs)} sources were named; at most {MOST_SOURCES} can be had at once{hint}")
    if specs.count("-") > 1:
        raise UsageError("standard input (-) was named twice; it can be read once")
    cameras = [str(spec) for spec in specs if isinstance(spec, int) or spec.isdecimal()]
    if len(set(cameras)) < len(cameras):
        raise UsageError("one camera was named twice; a camera can be opened once")
    piped = [path for path in args.output if path in PIPED]
    if len(piped) > 1:
        raise UsageError(f"standard output can be had once, and {' and '.join(piped)} were named; name a file for one")
    if args.line and not args.steady:
        raise UsageError("--line counts objects by their numbers, which they have none of with --no-steady")
    if args.on_change and args.view == "blurred":
        raise UsageError("--on-change may see too late who has come, and --view blurred is to hide them at once")
    if args.crops is not None:
        _refuse_senseless_crops(args)
    if args.heatmap is not None:
        _refuse_senseless_heatmap(args)
    if args.end is not None and args.end <= args.start:
        raise UsageError(f"--end {args.end:g} is not after --start {args.start:g}")
    if args.skip_existing:
        _refuse_senseless_skipping(args, specs)


def _refuse_senseless_crops(args: argparse.Namespace) -> None:
    if _is_no_path(args.crops):
        raise UsageError(f"--crops wants the name of a folder, as in --crops crops/, and got '{args.crops}'")
    if args.view == "blurred":
        raise UsageError(
            "--crops shows objects as they were taken, and --view blurred is to hide them; give one of them"
        )
    if args.skip_existing:
        raise UsageError("--skip-existing cannot tell whether the images of --crops are all there")


def _refuse_senseless_heatmap(args: argparse.Namespace) -> None:
    if _is_no_path(args.heatmap):
        raise UsageError(f"--heatmap wants the name of an image, as in --heatmap heat.png, and got '{args.heatmap}'")
    if args.view == "blurred":
        raise UsageError(
            "--heatmap shows the scene as it was taken, and --view blurred is to hide who is in it; give one of them"
        )


def _is_no_path(output: str) -> bool:
    return not output or output in PIPED or is_address(output)


def _refuse_senseless_skipping(args: argparse.Namespace, specs: Sequence[Spec]) -> None:
    """Refuse to go by results that are not there for each source, or whose being there does not tell they are whole."""
    if args.overwrite:
        raise UsageError(
            "--skip-existing keeps the results that are there, --overwrite replaces them; give one of them"
        )
    for option, given in (("--segment", args.segment), ("--events", args.events)):
        if given is not None:
            raise UsageError(f"--skip-existing cannot tell whether the files that {option} cuts are all there")
    for option, given in (("--show", args.show), ("--serve", args.serve)):
        if given:
            raise UsageError(f"--skip-existing is for results in files alone, and {option} is for seeing all of it")
    outputs = _files(args)
    wrong = next((output for output in outputs if not (PLACE in output and is_one_file(output))), None)
    if wrong is not None or not outputs:
        one = "none was named" if wrong is None else f"{shown_address(wrong)} is none"
        raise UsageError(f"--skip-existing goes by a file for each source, as in -o results/{PLACE}.mp4, and {one}")
    other = next((spec for spec in specs if not is_recording(spec)), None)
    if other is not None:
        raise UsageError(f"--skip-existing is for files, and {safe_address(str(other))} is none")
    if args.metrics is not None and args.metrics.is_file():
        raise OutputError(f"{args.metrics} exists already and would be kept; name another file for the figures")


def refuse_results_among(films: Sequence[Path], spec: str, args: argparse.Namespace) -> None:
    """Refuse results in the folder of the films, where another run would take them for such, or for what it reads."""
    outputs = _files(args)
    has_own = any(PLACE in output or output == PIPED_OBJECTS for output in outputs)
    if not has_own and (outputs or not (args.crops is not None or args.notify)):
        raise SourceError(
            f"{spec} has {len(films)} videos and no images; give each a result of its own, as in "
            f"-o results/{PLACE}.mp4, or name the one that is meant"
        )
    folders = {os.path.realpath(film.parent) for film in films}
    if args.crops is not None and os.path.realpath(args.crops) in folders:
        raise UsageError(
            f"{args.crops} is the folder of the films, where the next run would find images; write to another folder, "
            "as in --crops crops/"
        )
    for output in outputs:
        if not (is_encoded(output) or is_image(Path(output))):
            continue
        if os.path.realpath(Path(output).parent) in folders:
            option = "--heatmap" if output == args.heatmap else "-o"
            raise UsageError(
                f"{output} is in the folder of the films, where the next run would take it for one; write to another "
                f"folder, as in {option} results/{Path(output).name}"
            )
        if any(would_find(spec, Path(output.replace(PLACE, film.stem))) for film in films):
            raise UsageError(
                f"{output} is where {spec} finds films, and the next run would take it for one; write to a folder in "
                "which that finds none"
            )


def _files(args: argparse.Namespace) -> list[str]:
    """What is written to names of files, or sent."""
    return [*args.output, *([] if args.heatmap is None else [args.heatmap])]


def refuse_clashes(outputs: Sequence[str], args: argparse.Namespace, specs: Sequence[Spec]) -> None:
    """Refuse a file named for two results or for an input, and figures that could not be written at the end."""
    named = [name for name in outputs if name not in PIPED]
    names = [*named, *([] if args.metrics is None else [str(args.metrics)])]
    seen: set[str] = set()
    for name in names:
        path = os.path.realpath(name)
        if path in seen:
            raise UsageError(f"{shown_address(name)} was named for two outputs; give each a name of its own")
        seen.add(path)
    is_cutting = args.segment is not None or args.events is not None  # what is cut has longer names
    _refuse_partial_names(names, [name for name in named if grows(name) and not (is_cutting and is_cut(name))])
    inputs = files_among(specs)
    read = identities(source for source in inputs if os.path.isfile(source))  # noqa: PTH113  a name too long is none
    for name in named:
        if file_identity(Path(name)) in read:
            raise OutputError(f"{name} is an input; write to another file")
        if is_address(name) and name in specs:
            raise OutputError(f"{shown_address(name)} is an input; send to another address")
    if args.metrics is not None:
        refuse_figures(args.metrics, inputs, overwrite=args.overwrite)


def _refuse_partial_names(names: Sequence[str], growing: Sequence[str]) -> None:
    """Refuse a file with the name that another has while it grows: one would end in the place of the other."""
    places = {Path(os.path.realpath(other)): other for other in growing}
    for name in names:
        other = places.get(whole_name(Path(os.path.realpath(name))) or Path())
        if other is not None:
            raise UsageError(f"{name} is what {other} is called until it is whole; give one of them another name")


def refuse_images(args: argparse.Namespace) -> None:
    """Refuse to show images where nobody can press a key for the next one, and to tell when what is in them is gone."""
    if args.heatmap is not None:
        raise UsageError("--heatmap is for films and cameras; what is in images is listed by -o found.jsonl")
    if args.notify:
        raise UsageError("--notify is for films and cameras; what is in images is listed by -o found.jsonl")
    if args.serve is not None or any(map(is_address, args.output)):
        option = "an address" if args.serve is None else "--serve"
        raise UsageError(f"{option} is for films and cameras; write images to a folder, as in -o annotated/")


def refuse_crops_without_numbers(args: argparse.Namespace) -> None:
    """Refuse a picture of each object of films where nobody tells these apart."""
    if args.crops is not None and not args.steady:
        raise UsageError("--crops tells objects apart by their numbers, which they have none of with --no-steady")


def are_images(specs: Sequence[Spec], sources: Sequence[Source]) -> bool:
    """Whether all sources are images of their own, as far as is known by now."""
    return all(is_here(spec) and source.info.has_stills for spec, source in zip(specs, sources, strict=True))


def refuse_outside(
    args: argparse.Namespace, specs: Sequence[Spec], sources: Sequence[Source], labels: Sequence[str]
) -> None:
    """Refuse regions and lines outside of pictures whose size is known by now; images may be of several sizes."""
    sizes = [
        (label, source.info.size)
        for spec, source, label in zip(specs, sources, labels, strict=True)
        if is_here(spec) and not isinstance(source, Unreadable)
        if source.info.kind != "images" or source.info.frame_count == 1
    ]
    refuse_of_several_sizes(args, sizes)
    for label, size in sizes:
        places: list[Placed] = [Line(*ends) for ends in of_source(args.line, label)]
        places += [Region(corners) for corners in of_source(args.region, label)]
        for place in places:
            try:
                place.refuse_outside(size)
            except UsageError as error:
                if len(specs) == 1:
                    raise
                raise UsageError(f"{label}: {error}") from None
