"""Options that were given and have no effect on what was named: a word about each, since they are easily misread."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from stream_seg.protocols import Source
from stream_seg.sinks.encoders import CONTAINERS
from stream_seg.sources.network import RTSP_SCHEMES, names_a_file
from stream_seg.sources.synthetic import is_synthetic

logger = logging.getLogger(__name__)

Spec = str | int


def is_camera(spec: Spec) -> bool:
    """Whether a source is a webcam."""
    return str(spec).isdecimal() or str(spec).startswith(("/dev/video", "/dev/v4l/"))


def is_feed(spec: Spec) -> bool:
    """Whether a source is live, or may be away for a while: also an HTTP address, unless it looks like a file's."""
    return is_camera(spec) or ("://" in str(spec) and not names_a_file(str(spec)))


def is_video(output: str) -> bool:
    """Whether an output is a video file, by its name."""
    with suppress(OSError):  # a name too long, which the sink will say
        if Path(output).is_dir():
            return False
    return Path(output).suffix.lower() in CONTAINERS and not output.endswith("/")


def may_be_live(spec: Spec) -> bool:
    """Whether a source may turn out to be live, or to be away for a while."""
    return is_camera(spec) or _is_address(spec) or (is_synthetic(str(spec)) and ",live" in str(spec))


def _is_address(spec: Spec) -> bool:
    return "://" in str(spec)


def _is_rtsp(spec: Spec) -> bool:
    return str(spec).partition("://")[0].lower() in RTSP_SCHEMES


_FOR_SOURCES: Sequence[tuple[str, Callable[[Spec], bool], str]] = (
    ("--camera-size", is_camera, "webcams"),
    ("--camera-fps", is_camera, "webcams"),
    ("--transport", _is_rtsp, "rtsp:// addresses"),
    ("--reconnect", may_be_live, "webcams and addresses"),
    ("--max-age", may_be_live, "webcams and addresses"),
    ("--open-timeout", may_be_live, "webcams and addresses"),
    ("--stall-timeout", may_be_live, "webcams and addresses"),
)


def warn_of_unused(args: argparse.Namespace, specs: Sequence[Spec], sources: Sequence[Source]) -> None:
    """Warn of each option that is for sources or outputs of which none was named."""
    for option, concerns, words in _FOR_SOURCES:
        if _given(args, option) and not any(map(concerns, specs)):
            logger.warning("%s is for %s, of which none was named: it has no effect", option, words)
    here = [spec != "-" and not may_be_live(spec) for spec in specs]  # so that it is known what they are
    local = [source for is_here, source in zip(here, sources, strict=True) if is_here]
    if _given(args, "--frame-rate") and not any(source.info.kind == "images" for source in local):
        logger.warning("--frame-rate is for images, of which none were named: a video keeps its times")
    if _given(args, "--codec") and not args.output:
        logger.warning("--codec is for videos, of which none is written: it has no effect")


def _given(args: argparse.Namespace, option: str) -> bool:
    return getattr(args, option.removeprefix("--").replace("-", "_")) is not None
