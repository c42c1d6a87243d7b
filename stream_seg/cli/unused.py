"""Options that were given and have no effect on what was named: a word about each, since they are easily misread."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence

from stream_seg.cli.names import PIPE, PLACE, Spec, has_sound, is_here, is_rtsp, may_be_live
from stream_seg.cli.places import of_source
from stream_seg.protocols import Source
from stream_seg.render import BLACK_VIEWS, NAMING_VIEWS
from stream_seg.sinks import is_address
from stream_seg.sources.camera import is_webcam

logger = logging.getLogger(__name__)

_FOR_SOURCES: Sequence[tuple[str, Callable[[Spec], bool], str]] = (
    ("--camera-size", is_webcam, "webcams"),
    ("--camera-fps", is_webcam, "webcams"),
    ("--transport", is_rtsp, "rtsp:// addresses"),
    ("--reconnect", may_be_live, "webcams, screens and addresses"),
    ("--max-age", may_be_live, "webcams, screens and addresses"),
    ("--max-fps", may_be_live, "webcams, screens and addresses"),
    ("--open-timeout", may_be_live, "webcams, screens and addresses"),
    ("--stall-timeout", may_be_live, "webcams, screens and addresses"),
)

_ALSO_FOR_OUTPUTS = ("--transport", "--reconnect")


def warn_of_unused(
    args: argparse.Namespace, specs: Sequence[Spec], sources: Sequence[Source], labels: Sequence[str], *, stills: bool
) -> None:
    """Warn of each option that has no effect on the sources and outputs; `stills` tells that all sources are images."""
    sent = [output for output in args.output if is_address(output)]
    for option, concerns, words in _FOR_SOURCES:
        named = [*specs, *sent] if option in _ALSO_FOR_OUTPUTS else specs
        if _given(args, option) and not any(map(concerns, named)):
            logger.warning("%s is for %s, of which none was named: it has no effect", option, words)
    images = {
        label: source
        for label, spec, source in zip(labels, specs, sources, strict=True)
        if is_here(spec) and source.info.kind == "images"
    }
    if _given(args, "--frame-rate") and not images:
        logger.warning("--frame-rate is for images, of which none were named: a video keeps its times")
    lacks = {
        "--ids": "" if args.view in NAMING_VIEWS else "shows no names",
        "--trails": "shows objects alone, on black" if args.view in BLACK_VIEWS else "",
    }
    for option in ("--ids", "--trails", "--on-change", "--line"):
        if not _value(args, option):
            continue
        if stills:
            logger.warning("%s is for films, of which none was named: it has no effect", option)
        elif option in lacks and not args.steady:
            logger.warning("with --no-steady objects have no numbers: %s has no effect", option)
        elif lacks.get(option):
            logger.warning("--view %s %s: %s has no effect", args.view, lacks[option], option)
    for label, source in () if stills else images.items():
        for_films = ("--line", of_source(args.line, label)), ("--notify", args.notify), ("--heatmap", args.heatmap)
        for option, given in for_films:
            if source.info.has_stills and given:
                logger.warning("%s is for films, and %s is none: it has no effect there", option, label)
    if _given(args, "--sound") and (why := _why_silent(args, specs)) is not None:
        logger.warning("--%s: %s, so it has no effect", "sound" if args.sound else "no-sound", why)
    if _given(args, "--codec") and not args.output:
        logger.warning("--codec is for videos, of which none is written: it has no effect")


def _why_silent(args: argparse.Namespace, specs: Sequence[Spec]) -> str | None:
    """Why no video that is written could have sound; None where one could."""
    videos = [output for output in args.output if has_sound(output)]
    if not videos:
        return "no video file is written"
    if len(specs) > 1 and not any(PLACE in output for output in videos):
        return "a video of several sources has no sound"
    if args.sound and not any(spec == PIPE or "://" in str(spec) for spec in specs):
        return "no address of a feed was named"
    return None


def _given(args: argparse.Namespace, option: str) -> bool:
    return _value(args, option) is not None


def _value(args: argparse.Namespace, option: str) -> object:
    return getattr(args, option.removeprefix("--").replace("-", "_"))
