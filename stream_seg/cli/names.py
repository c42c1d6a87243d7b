"""What the names of sources and outputs tell, before anything is opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from stream_seg import sinks
from stream_seg.sources.camera import is_webcam
from stream_seg.sources.files import is_image, is_numbered
from stream_seg.sources.network import RTSP_SCHEMES, names_a_file
from stream_seg.sources.screen import is_screen
from stream_seg.sources.synthetic import is_synthetic

Spec = str | int
"""Of a source: what stands on the command line, or a camera's number."""

PIPE = "-"
"""The source that stands for standard input, and the output that stands for a video on standard output."""

PIPED_OBJECTS = "-.jsonl"
"""The output that stands for what was found, as lines of JSON, on standard output."""

PIPED = (PIPE, PIPED_OBJECTS)
"""The outputs that are written to standard output."""

PLACE = "{source}"
"""What stands for a source's name in the name of an output."""


def is_feed(spec: Spec) -> bool:
    """Whether a source is live, or may be away for a while: also an HTTP address, unless it looks like a file's."""
    return is_webcam(spec) or is_screen(spec) or ("://" in str(spec) and not names_a_file(str(spec)))


def may_be_live(spec: Spec) -> bool:
    """Whether a source may turn out to be live, or to be away for a while."""
    is_made_live = is_synthetic(str(spec)) and ",live" in str(spec)
    return is_webcam(spec) or is_screen(spec) or "://" in str(spec) or is_made_live


def is_here(spec: Spec) -> bool:
    """Whether what a source is can be known before it is open: files are here."""
    return spec != PIPE and not may_be_live(spec)


def is_photo(spec: Spec) -> bool:
    """Whether a source is one image in a file, or would be if it were there; a folder and a pattern are several."""
    path = Path(str(spec))
    if not (is_here(spec) and is_image(path)):
        return False
    may_be_pattern = is_numbered(str(spec)) or any(character in str(spec) for character in "*?[")
    with suppress(OSError):  # a name too long, which opening it will say
        return path.is_file() or not (may_be_pattern or path.is_dir())
    return True


def is_recording(spec: Spec) -> bool:
    """Whether a source is in files on this machine, and so has an end and can wait for its turn."""
    return is_here(spec) and not is_synthetic(str(spec))


def files_among(specs: Sequence[Spec]) -> list[Path]:
    """What may be a file among the sources."""
    return [Path(spec) for spec in specs if isinstance(spec, str) and "://" not in spec and not is_screen(spec)]


def is_rtsp(spec: Spec) -> bool:
    """Whether a source is an RTSP address."""
    return str(spec).partition("://")[0].lower() in RTSP_SCHEMES


def is_encoded(output: str) -> bool:
    """Whether an output is a video, in a file or a pipe, or at an address."""
    return output == PIPE or sinks.is_address(output) or _says(sinks.is_video, output)


def takes_codec(output: str) -> bool:
    """Whether an output is a video in which pictures can be encoded in several ways."""
    return is_encoded(output) and not _says(sinks.is_gif, output)


def has_sound(output: str) -> bool:
    """Whether an output is a video that has the sound of its source."""
    return takes_codec(output) and not sinks.is_address(output)


def is_one_file(output: str) -> bool:
    """Whether an output is a single file that has its name once it is whole, rather than many, or none."""
    is_many = output.endswith("/") or is_numbered(output) or not Path(output).suffix
    return not (output in PIPED or sinks.is_address(output) or is_many)


def is_cut(output: str) -> bool:
    """Whether an output can be had in segments."""
    return output not in PIPED and _says(sinks.is_cut, output)


def grows(output: str) -> bool:
    """Whether an output is a file that has a partial name until the run ends."""
    return output not in PIPED and _says(sinks.grows, output)


def _says(is_one: Callable[[str], bool], output: str) -> bool:
    try:
        return is_one(output)
    except OSError:  # a name too long, which the sink will say
        return False
