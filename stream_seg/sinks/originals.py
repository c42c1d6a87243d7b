"""`original_of` chooses what goes over from a source: of a file, of a recording at an address, or of a live one."""

from __future__ import annotations

import logging

import av

from stream_seg.frame import SourceInfo
from stream_seg.sinks.distant import Distant
from stream_seg.sinks.live_original import LiveOriginal
from stream_seg.sinks.original import Original
from stream_seg.sinks.recorded import Recorded

logger = logging.getLogger(__name__)


def original_of(info: SourceInfo, *, sound: bool = True) -> Original | None:
    """Return what goes over from the input, if it is heard live, or a recording that can be opened a second time.

    Without `sound`, that is the title and the pixel aspect of a recording alone.
    """
    if info.sound is not None:
        return LiveOriginal(info.name, info.sound) if sound else None
    if info.kind != "video":
        return None
    if info.path is None:
        return None if info.reopening is None else Distant(info.reopening, info.start, info.end, sound=sound)
    if not info.path.is_file():
        return None
    try:
        return Recorded(info.path, info.start, info.end, sound=sound)
    except (av.FFmpegError, OSError) as error:
        logger.warning("the sound of %s is left out: %s", info.path, error.strerror)
        return None
