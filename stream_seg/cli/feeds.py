"""What the options ask for: the sources, the sinks of each, and the picture they share."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import quote

from stream_seg.availability import Availability
from stream_seg.cli.names import (
    PIPE,
    PIPED,
    PIPED_OBJECTS,
    PLACE,
    Spec,
    files_among,
    has_sound,
    is_cut,
    is_encoded,
    is_feed,
    is_here,
    is_photo,
    is_recording,
    may_be_live,
    takes_codec,
)
from stream_seg.cli.places import of_source, refuse_misnamed
from stream_seg.cli.refusals import (
    are_images,
    refuse_clashes,
    refuse_crops_without_numbers,
    refuse_images,
    refuse_outside,
    refuse_results_among,
    refuse_senseless,
)
from stream_seg.cli.unused import warn_of_unused
from stream_seg.errors import DisplayError, OutputError, SourceError, UsageError
from stream_seg.frame import SourceInfo
from stream_seg.line import Line
from stream_seg.metrics import Metrics
from stream_seg.pipeline import Feed, shortened
from stream_seg.protocols import Follower, Sink, Source
from stream_seg.region import Region
from stream_seg.render import Renderer
from stream_seg.segmenters import Images
from stream_seg.sinks import (
    Crops,
    Heatmap,
    Notifier,
    Page,
    Pipe,
    PipedObjects,
    PipedVideo,
    Window,
    is_address,
    open_sink,
    recipients_of,
)
from stream_seg.sinks.notifier import EVENT_SECONDS
from stream_seg.sources import labels_of, open_source
from stream_seg.sources.files import films_in
from stream_seg.sources.paced import Paced
from stream_seg.sources.unreadable import Unreadable
from stream_seg.steady import Steady
from stream_seg.tiles import Tiles, WallIfLive

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a run needs but the model: `feeds` with sinks of their own, or a `wall`; no feeds if nothing is left.

    `outputs` are what writes, `screens` what shows it: a window, a page. `in_turns` is that of the pipeline, `images`,
    None where each frame is for itself, and `mirror` those of the segmenter. `steady` are those of the feeds until they
    know from which score on to show what it finds.
    """

    feeds: list[Feed]
    wall: Tiles | None
    metrics: Metrics
    outputs: Sequence[Sink]
    screens: Sequence[Sink]
    in_turns: bool = False
    images: Images | None = None
    mirror: bool | None = None
    steady: list[Steady] = field(default_factory=list)

    def show_from(self, score: float | None) -> None:
        """Have the feeds show what the segmenter finds as it says, by its `shown_from`."""
        for steady in self.steady:
            steady.shown_from = score
        self.steady.clear()  # of many films nothing is kept that is done


def plan(
    args: argparse.Namespace,
    listeners: Callable[[Metrics, Sequence[SourceInfo]], Sequence[Sink]],
    standard: IO[bytes] | None = None,
) -> Plan:
    """Open what can be opened without waiting. `listeners` are sinks that need no pictures, one set for all feeds, made
    of the metrics and of what is known of the films that are done in turns. `standard` is what the output - or -.jsonl
    is written to.

    Raises `UsageError` for options that contradict each other, and what sources and sinks raise.
    """
    named = [*_named(args), *args.webcam, *args.screen]
    together = len(named) > 1 and all(map(is_photo, named)) and not any(PLACE in path for path in _results(args))
    specs = named[:1] if together else named  # the first of photos that are one source stands for all
    in_turns = _go_in_turns(args, specs)
    refuse_senseless(args, specs, in_turns=in_turns)
    labels = labels_of(specs)
    refuse_misnamed(args, labels, in_turns=in_turns)
    own, shared = _outputs(args, specs, labels)
    maps = [[] if args.heatmap is None else [args.heatmap.replace(PLACE, label)] for label in labels]
    folders = [] if args.crops is None else [args.crops.replace(PLACE, label) for label in labels]
    outputs = [*[path for paths in [*own, shared, *maps] for path in paths], *dict.fromkeys(folders)]
    refuse_clashes(outputs, args, named)
    if args.skip_existing:
        specs, labels, own, maps = _left(specs, labels, own, maps)
        if not specs:
            return Plan([], None, Metrics([]), [], [])
    if in_turns:
        sources = [_source_in_turn(args, spec, outputs) for spec in specs]
    else:
        sources = [_source(args, spec, outputs) for spec in ([named] if together else specs)]
    stills = are_images(specs, sources)
    warn_of_unused(args, specs, sources, labels, stills=stills)
    refuse_outside(args, specs, sources, labels)
    if stills:
        refuse_images(args)
    else:
        refuse_crops_without_numbers(args)
    images, mirror = _looked_at_as(args, stills=stills), _mirrored(args)
    notified = [[address.replace(PLACE, quote(label)) for address in args.notify] for label in labels]
    recipients = recipients_of(address for addresses in notified for address in addresses)
    screens = _screens(args)
    on_wall = len(specs) > 1 or is_feed(specs[0])
    live = any(map(may_be_live, specs))
    spared = _read(named, specs, sources)
    pipe = None if standard is None else Pipe(standard.fileno())
    _make_folders(args, labels)
    for_wall = [_sink(args, path, None, pipe, spared) for path in shared]
    wall_sinks = [*for_wall, *(screens if on_wall else [])]
    # Who watches from elsewhere wants to see a recording at its pace; a page beside a file must not slow the writing.
    is_watched = any(map(is_address, args.output)) or (args.serve is not None and not _results(args))
    if is_watched or (wall_sinks and live):
        sources = [Paced(source) for source in sources]
    metrics = Metrics(labels)
    heard = list(listeners(metrics, [shortened(one.info, args.max_frames) for one in sources] if in_turns else []))
    files = [
        [
            _sink(args, path, spec, pipe, spared, label if len(specs) > 1 or in_turns else None)
            for path in paths
            if not is_address(path)
        ]
        for spec, paths, label in zip(specs, own, labels, strict=True)
    ]
    for spec, source, written, paths in zip(specs, sources, files, maps, strict=True):
        if not (is_here(spec) and source.info.has_stills):
            written += [_heatmap(args, path, spec, spared) for path in paths]
    for number, folder in enumerate(folders):
        shares = len(specs) > 1 and PLACE not in args.crops
        files[number].append(_crops(args, folder, specs[number], spared, labels[number] if shares else None))
    gone_after = EVENT_SECONDS if args.events is None else args.events
    for written, label, addresses in zip(files, labels, notified, strict=True):
        tells = [recipients[address] for address in dict.fromkeys(addresses)]
        written += [Notifier(recipient, events=gone_after, source=label) for recipient in tells]
    sent = [[_sink(args, path, None, pipe, spared) for path in paths if is_address(path)] for paths in own]
    steady = [_steady(args) for _ in sources]
    feeds = [
        Feed(
            source,
            [
                *written,
                *[WallIfLive(sink, label, _availability(source)) for sink in [*seen, *([] if on_wall else screens)]],
                *[page.objects(label if len(specs) > 1 else None) for page in screens if isinstance(page, Page)],
                *heard,
            ],
            Renderer(args.view, hud=None if args.no_hud else _hud(metrics, number), ids=args.ids, trails=args.trails),
            label,
            args.max_frames,
            _follower(args, label, steady[number]),
        )
        for number, (source, written, seen, label) in enumerate(zip(sources, files, sent, labels, strict=True))
    ]
    wall = _wall(args, feeds, wall_sinks, metrics, live=live) if wall_sinks else None
    written = [sink for sinks in [*files, *sent, for_wall] for sink in sinks]
    kept = [one for one in steady if one is not None]
    return Plan(feeds, wall, metrics, written, screens, in_turns, images, mirror, kept)


def _looked_at_as(args: argparse.Namespace, *, stills: bool) -> Images | None:
    """What the segmenter is told that it looks at."""
    if stills:
        return "stills"
    return "films" if args.steady else None


def _mirrored(args: argparse.Namespace) -> bool | None:
    """What the segmenter is told of mirror images: unless they are asked for, what one look sees is blurred at once."""
    return False if args.mirror is None and args.view == "blurred" else args.mirror


def _results(args: argparse.Namespace) -> list[str]:
    """The names of all that is written or sent."""
    return [*args.output, *(output for output in (args.crops, args.heatmap) if output is not None)]


def _named(args: argparse.Namespace) -> list[Spec]:
    """The sources that were named, of which a folder of films, or a pattern that finds such, stands for these."""
    named: list[Spec] = []
    for spec in args.source:
        films: list[Path] = []
        if spec and is_recording(spec):
            with suppress(OSError):  # a folder that may not be looked into, which opening it will say
                films = films_in(spec)
        if films:
            refuse_results_among(films, spec, args)
        named += map(str, films) if films else [spec]
    return named


def _go_in_turns(args: argparse.Namespace, specs: Sequence[Spec]) -> bool:
    """Whether the sources are recordings with results of their own each, which nobody watches side by side."""
    is_alone = bool(_results(args) or args.notify) and not args.show and args.serve is None
    own = all(path == PIPED_OBJECTS or (PLACE in path and not is_address(path)) for path in args.output)
    named = [*args.source, *args.webcam, *args.screen]
    # Of a folder of films there may be more the next time, and of what is skipped then there may be more to do.
    may_be_several = len(specs) > 1 or specs != named or args.skip_existing
    return is_alone and own and may_be_several and all(map(is_recording, specs)) and not all(map(is_photo, specs))


def _source(args: argparse.Namespace, spec: Spec | Sequence[str], outputs: Sequence[str]) -> Source:
    given = {
        "camera_size": args.camera_size,
        "camera_fps": args.camera_fps,
        "sequence_rate": args.frame_rate,
        "transport": args.transport,
        "open_timeout": args.open_timeout,
        "stall_timeout": args.stall_timeout,
        "reconnect": args.reconnect,
        "max_fps": args.max_fps,
        "sound": _hears(args, spec),
    }
    wishes = {name: value for name, value in given.items() if value is not None}
    return open_source(spec, start=args.start, end=args.end, stride=args.stride, results=outputs, **wishes)


def _hears(args: argparse.Namespace, spec: Spec | Sequence[str]) -> bool | None:
    """What a source is told of its sound, which is kept in memory for a while of what comes on standard input."""
    return any(map(has_sound, args.output)) if spec == PIPE and args.sound is None else args.sound


def _source_in_turn(args: argparse.Namespace, spec: Spec, outputs: Sequence[str]) -> Source:
    """As `_source`; a file that is there and cannot be read fails in its turn, and the others are done all the same."""
    try:
        return _source(args, spec, outputs)
    except SourceError as error:
        if not os.path.isfile(spec):  # noqa: PTH113  a name too long is none
            raise
        return Unreadable(str(spec), error)


def _outputs(
    args: argparse.Namespace, specs: Sequence[Spec], labels: Sequence[str]
) -> tuple[list[list[str]], list[str]]:
    """The outputs of each source, and those that several share."""
    if args.keep is not None and args.segment is None and args.events is None:
        raise UsageError(
            "--keep removes old segments, so it needs --segment or --events, as in --segment 10m --keep 24h"
        )
    if args.before is not None and args.events is None:
        raise UsageError("--before records what comes before an event, so it needs --events, as in --events 10s")
    for option, given in (("--segment", args.segment), ("--events", None if args.notify else args.events)):
        if given is not None and not set(args.output) - set(PIPED):
            raise UsageError(f"{option} cuts a recording, so it needs an output, as in -o door.mp4")
    for option, given in (("--before", args.before), ("--keep", args.keep)):
        if given is not None and args.notify and not any(map(is_cut, args.output)):
            raise UsageError(f"{option} is for recordings, so it needs an output, as in -o door.mp4")
    several = len(specs) > 1  # whose lines in a pipe tell which each is of
    shared = [path for path in args.output if PLACE not in path and several and path != PIPED_OBJECTS]
    if several and args.heatmap is not None and PLACE not in args.heatmap:
        raise UsageError(
            f"--heatmap {args.heatmap} is one image, and there are {len(specs)} sources; write one each with {PLACE} "
            f"in the name, as in --heatmap heat_{PLACE}.png"
        )
    for path in shared:
        if not is_encoded(path):
            raise UsageError(
                f"{path} cannot hold {len(specs)} sources; write one result each with {PLACE} in the name "
                f"(out_{PLACE}.mp4), or all side by side into a video (wall.mp4)"
            )
        if args.events is not None and is_cut(path):
            raise UsageError(
                f"--events is for the video of one source; write one each with {PLACE} in the name of {path}"
            )
    own = [[path.replace(PLACE, label) for path in args.output if path not in shared] for label in labels]
    return own, shared


def _left(
    specs: Sequence[Spec], labels: Sequence[str], own: Sequence[Sequence[str]], maps: Sequence[Sequence[str]]
) -> tuple[list[Spec], list[str], list[list[str]], list[list[str]]]:
    """The sources that lack a result, their labels, and the outputs and heatmaps that each lacks."""
    lacking, unmapped = (
        [[path for path in paths if not os.path.isfile(path)] for paths in each]  # noqa: PTH113  as above
        for each in (own, maps)
    )
    left = [number for number in range(len(specs)) if lacking[number] or unmapped[number]]
    if len(left) < len(specs):
        rest = "" if left else ": nothing is left to do"
        logger.info("%d of %d have their results already%s", len(specs) - len(left), len(specs), rest)
    return (
        [specs[number] for number in left],
        [labels[number] for number in left],
        [lacking[number] for number in left],
        [unmapped[number] for number in left],
    )


def _make_folders(args: argparse.Namespace, labels: Sequence[str]) -> None:
    """Make the folder of results with {source} in their names, be it one for each source, in a folder that is there.

    A folder that is missing further up is likely to be misspelt, which the sinks will say.
    """
    for output in _results(args):
        if PLACE not in output or is_address(output):
            continue
        parts = Path(output).parts
        place = next(number for number, part in enumerate(parts) if PLACE in part)
        folder = Path(*parts[:place])
        try:
            if folder.parent.is_dir():
                for label in labels:
                    folder = Path(output.replace(PLACE, label)).parent
                    folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"the folder {folder} cannot be made: {error.strerror}") from error


def _sink(
    args: argparse.Namespace,
    path: str,
    spec: Spec | None,
    pipe: Pipe | None,
    spared: Sequence[Path],
    label: str | None = None,
) -> Sink:
    codec = _meant(args.codec, takes_codec, path, args)
    if path == PIPE and pipe is not None:
        return PipedVideo(pipe, codec=codec, sound=args.sound is not False)
    if path == PIPED_OBJECTS and pipe is not None:
        if codec is not None:
            raise UsageError(f"--codec {codec} is for videos, and {path} is none")
        return PipedObjects(pipe, source=label)
    source_path = spec if isinstance(spec, str) else None
    return open_sink(
        path,
        codec=codec,
        overwrite=args.overwrite,
        source_path=source_path,
        segment=_meant(args.segment, is_cut, path, args),
        events=None if args.notify and not is_cut(path) else _meant(args.events, is_cut, path, args),
        before=_meant(args.before, is_cut, path, args),
        keep=_meant(args.keep, is_cut, path, args),
        spared=spared,
        transport=args.transport or "tcp",
        attempts=args.reconnect,
        transparent=args.view == "cutouts",
        sound=args.sound is not False,
    )


def _crops(args: argparse.Namespace, folder: str, spec: Spec, spared: Sequence[Path], label: str | None) -> Sink:
    source_path = spec if isinstance(spec, str) else None
    return Crops(folder, overwrite=args.overwrite, source_path=source_path, spared=spared, source=label)


def _heatmap(args: argparse.Namespace, path: str, spec: Spec, spared: Sequence[Path]) -> Sink:
    source_path = spec if isinstance(spec, str) else None
    return Heatmap(path, overwrite=args.overwrite, source_path=source_path, spared=spared)


def _meant(value: T | None, concerns: Callable[[str], bool], path: str, args: argparse.Namespace) -> T | None:
    """What an option says of this output: nothing if it is for others among them."""
    return None if not concerns(path) and any(map(concerns, args.output)) else value


def _screens(args: argparse.Namespace) -> list[Sink]:
    """A window, asked for by --show and the default where nothing else is, and the page of --serve."""
    page: list[Sink] = []
    if args.serve is not None:
        host, port = args.serve
        page = [Page(port, host)]
    show = not (_results(args) or args.notify or page) if args.show is None else args.show
    if not show:
        return page
    try:
        # A window that is alone shows a recording at its own pace; beside a file it must not slow the writing.
        return [Window(paced=not _results(args)), *page]
    except DisplayError as error:
        if args.show:
            raise
        raise DisplayError(f"{error}; or name a file to write with -o, or serve a page with --serve 8080") from error


def _wall(
    args: argparse.Namespace, feeds: Sequence[Feed], sinks: Sequence[Sink], metrics: Metrics, *, live: bool
) -> Tiles:
    return Tiles(
        [feed.name for feed in feeds],
        sinks,
        kind="live" if live else "video",
        start=Fraction(str(args.start)),
        view=args.view,
        ids=args.ids,
        trails=args.trails,
        hud=None if args.no_hud else lambda feed: _hud(metrics, feed)(),
        availabilities=[_availability(feed.source) for feed in feeds],
    )


def _steady(args: argparse.Namespace) -> Steady | None:
    """What makes films steady; to blur, it withholds nothing."""
    return Steady(withhold=args.view != "blurred") if args.steady else None


def _follower(args: argparse.Namespace, label: str, steady: Follower | None) -> Follower | None:
    """What makes of the findings in the source of this name what is shown."""
    regions = of_source(args.region, label)
    follower = Region(regions, steady) if regions else steady
    for start, end in of_source(args.line, label):
        follower = Line(start, end, follower)
    return follower


def _availability(source: Source) -> Availability | None:
    return getattr(source, "availability", None)


def _hud(metrics: Metrics, number: int) -> Callable[[], str]:
    """The status line of live pictures; nothing on recordings, whose frames have no rate of their own to tell."""
    feed = metrics.feeds[number]
    return lambda: feed.status() if feed.is_live else ""


def _read(named: Sequence[Spec], specs: Sequence[Spec], sources: Sequence[Source]) -> list[Path]:
    """The files that the run reads, of which no source may lose one to the results of another."""
    images = [file for spec, source in zip(specs, sources, strict=True) if is_here(spec) for file in source.info.files]
    return [*files_among(named), *images]
