"""Where rendered frames go: `open_sink` chooses by a file's name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2 as _cv2  # noqa: F401  before PyAV: both bring an X11 library, and the other way round windows hang

from stream_seg.addresses import Transport
from stream_seg.errors import OutputError, UsageError, did_you_mean
from stream_seg.given import refuse_no_path
from stream_seg.protocols import Sink
from stream_seg.sinks import coco_file, csv_file, images, objects
from stream_seg.sinks.coco_file import CocoFile
from stream_seg.sinks.crops import Crops
from stream_seg.sinks.csv_file import CsvFile
from stream_seg.sinks.data_file import DataFile
from stream_seg.sinks.encoders import CONTAINERS, GIF
from stream_seg.sinks.heatmap import Heatmap
from stream_seg.sinks.images import ImageFile, ImageFolder, NumberedImages
from stream_seg.sinks.memory import ListSink
from stream_seg.sinks.mqtt import MqttTopic
from stream_seg.sinks.notifier import Notifier, recipients_of
from stream_seg.sinks.objects import ObjectsFile
from stream_seg.sinks.page import Page, parse_host_and_port
from stream_seg.sinks.pipe import Pipe
from stream_seg.sinks.piped import PipedObjects, PipedVideo
from stream_seg.sinks.publisher import Publisher
from stream_seg.sinks.recipient import Recipient
from stream_seg.sinks.retention import Keep, parse_duration, parse_keep
from stream_seg.sinks.segments import SegmentedObjects, SegmentedVideo
from stream_seg.sinks.video import VideoFile
from stream_seg.sinks.webhook import Webhook
from stream_seg.sinks.window import Window

__all__ = [
    "CocoFile",
    "Crops",
    "CsvFile",
    "Heatmap",
    "ImageFile",
    "ImageFolder",
    "Keep",
    "ListSink",
    "MqttTopic",
    "Notifier",
    "NumberedImages",
    "ObjectsFile",
    "Page",
    "Pipe",
    "PipedObjects",
    "PipedVideo",
    "Publisher",
    "Recipient",
    "SegmentedObjects",
    "SegmentedVideo",
    "VideoFile",
    "Webhook",
    "Window",
    "grows",
    "is_address",
    "is_cut",
    "is_gif",
    "is_video",
    "open_sink",
    "parse_duration",
    "parse_host_and_port",
    "parse_keep",
    "recipients_of",
]


_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
"""How an address begins, also as a `Path`, which has one slash of two; a drive of Windows has but one letter."""

_DATA: Mapping[str, type[DataFile]] = {
    objects.SUFFIX: ObjectsFile,
    coco_file.SUFFIX: CocoFile,
    csv_file.SUFFIX: CsvFile,
}
"""Suffix to the files that say what was found. But for the first they are one for the whole run."""

_CUT = (*(suffix for suffix in CONTAINERS if suffix != GIF), objects.SUFFIX)
"""Suffixes of what can be had in segments."""


def open_sink(
    path: str | Path,
    *,
    codec: str | None = None,
    overwrite: bool = False,
    source_path: str | Path | None = None,
    segment: float | None = None,
    events: float | None = None,
    before: float | None = None,
    keep: Keep | None = None,
    spared: Iterable[str | Path] = (),
    transport: Transport = "tcp",
    attempts: int | None = None,
    transparent: bool = False,
    sound: bool = True,
) -> Sink:
    """Return the sink for a file name: a video (.mp4, .mkv, .gif ...), an image, numbered images (%05d.png), a folder,
    what was found, as lines of JSON (.jsonl), one COCO document (.json) or a table (.csv), or an address that videos
    are sent to (rtsp://, rtmp://, udp:// ...).

    A folder is one that exists, ends in a slash, or has no suffix. With `segment`, videos and lines go into files of
    so many seconds each, with `events` into a file each time that something is seen, which ends so many seconds after
    it, and begins `before` seconds earlier; only those within `keep` stay. Files that are `spared`, such as what the
    run reads, stay in any case, and no image replaces one. With `transparent`, for the view "cutouts", PNG and WebP
    images are transparent where no object is; other outputs stay black. `transport` and `attempts` are those of a
    `Publisher`. Without `sound`, video files are silent.

    Raises `OutputError` for any other suffix, and when what is there already forbids writing; `UsageError` for a codec
    where no video is written, for segments or events where no file is that can be had so, for `keep` or
    `before` without such, and for an empty name.
    """
    is_cutting = segment is not None or events is not None
    if keep is not None and not is_cutting:
        raise UsageError(
            "--keep removes old segments of a recording; add their length, as in --segment 10m, or --events 10s"
        )
    if before is not None and events is None:
        raise UsageError("--before records what comes before an event; add --events, as in --events 10s --before 5s")
    refuse_no_path("an output", path)
    if path == "":  # as an unset variable gives
        raise UsageError("the name of an output is empty; the current folder is written .")
    if (piped := {"-": "PipedVideo", "-.jsonl": "PipedObjects"}.get(str(path))) is not None:
        raise OutputError(
            f"standard output ({path}) is written by {piped}; name a file or a folder (./{path} for one of that name)"
        )
    if is_address(path):
        if not isinstance(path, str):  # a `Path` has one slash of two, and may have lost more
            raise OutputError("an address is to be given as it is written, not as a path")
        _refuse_cutting(segment, events, "an address")
        return Publisher(path, codec=codec, transport=transport, attempts=attempts)
    try:
        name, suffix = Path(path), _suffix(path)
        if suffix not in _CUT:
            _refuse_cutting(segment, events, path)
        if is_cutting and suffix in CONTAINERS:
            return SegmentedVideo(
                name,
                segment,
                events=events,
                before=before,
                keep=keep,
                codec=codec,
                source_path=source_path,
                spared=spared,
                sound=sound,
            )
        if suffix in CONTAINERS:
            return VideoFile(name, codec=codec, overwrite=overwrite, source_path=source_path, sound=sound)
        if codec is not None:
            raise UsageError(f"--codec {codec} is for videos, and {path} is none")
        if is_cutting:
            return SegmentedObjects(
                name, segment, events=events, before=before, keep=keep, source_path=source_path, spared=spared
            )
        if suffix in _DATA:
            return _DATA[suffix](name, overwrite=overwrite, source_path=source_path)
        if suffix and suffix not in images.SUFFIXES:
            known = [*CONTAINERS, *images.SUFFIXES, *_DATA]
            raise OutputError(
                f"cannot write {path}: '{suffix}' is not understood; "
                f"use one of {', '.join(known)}, or a folder{did_you_mean(suffix, known)}"
            )
        kind = ImageFolder if not suffix else NumberedImages if images.is_numbered(name) else ImageFile
        return kind(name, overwrite=overwrite, source_path=source_path, spared=spared, transparent=transparent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def is_video(path: str | Path) -> bool:
    """Whether `open_sink` writes a video file there. Raises `OSError` for a name too long."""
    return _suffix(path) in CONTAINERS


def is_cut(path: str | Path) -> bool:
    """Whether `open_sink` can write segments there. Raises `OSError` for a name too long."""
    return _suffix(path) in _CUT


def is_gif(path: str | Path) -> bool:
    """Whether `open_sink` writes an animated image there. Raises `OSError` for a name too long."""
    return _suffix(path) == GIF


def grows(path: str | Path) -> bool:
    """Whether `open_sink` writes a file there for as long as a run lasts. Raises `OSError` for a name too long."""
    return _suffix(path) in (*CONTAINERS, *_DATA)


def _suffix(path: str | Path) -> str:
    """How the name of a file ends, in small letters; nothing for a folder or an address."""
    is_file = not (str(path).endswith("/") or Path(path).is_dir() or is_address(path))
    return Path(path).suffix.lower() if is_file else ""


def is_address(path: str | Path) -> bool:
    """Whether an output is an address rather than a file. With one slash, as in a `Path`, it may be one in a folder."""
    match = _ADDRESS.match(str(path))
    return match is not None and (str(path)[match.end() :].startswith("/") or not Path(path).parent.is_dir())


def _refuse_cutting(segment: float | None, events: float | None, path: str | Path) -> None:
    for option, given in (("--segment", segment), ("--events", events)):
        if given is not None:
            raise UsageError(f"{option} is for video and {objects.SUFFIX} files, and {path} is neither")
