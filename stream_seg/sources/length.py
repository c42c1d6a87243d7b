"""Lengths: how long a recording says that it is, and whether that is there."""

from __future__ import annotations

import re
from fractions import Fraction

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from stream_seg.sources.timeline import Timeline

CUT_OFF_SECONDS = 2
"""How much of what the header promises may be missing without a word."""

CUT_OFF_FRAMES = 50
"""Of a short recording it is a fifth, which of so many pictures is ten."""

MATROSKA = "matroska,webm"

TAGGED_LENGTH = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")
"""How Matroska's tags write a time: 00:00:07.021000000."""


def duration_of(container: InputContainer, stream: VideoStream, timeline: Timeline) -> Fraction | None:
    """Length in seconds: to the end of the video track where it says so, else of the whole container."""
    return _end_of_track(stream, timeline) or _length_of_all(container)


def promised_end(container: InputContainer, stream: VideoStream, timeline: Timeline) -> Fraction | None:
    """When the last picture ends, where the header says so; the earlier one if that can be read in two ways.

    Matroska's says nothing of tracks: FFmpeg gives one whose pictures come late the length of the whole.
    """
    if container.format.name == MATROSKA:
        return _end_by_tag(container, stream, timeline)
    return _end_of_track(stream, timeline)


def is_cut_off(end: Fraction, promised: Fraction, rate: Fraction | None) -> bool:
    """Whether a recording that ends at `end` lacks much of what was `promised`; its frame `rate` may be unknown."""
    missing = promised - end
    return missing > CUT_OFF_SECONDS or (rate is not None and missing > max(promised, CUT_OFF_FRAMES / rate) / 5)


def _length_of_all(container: InputContainer) -> Fraction | None:
    return Fraction(container.duration, av.time_base) if container.duration else None


def _end_of_track(stream: VideoStream, timeline: Timeline) -> Fraction | None:
    if stream.duration and stream.start_time is not None:
        return timeline.at(stream.start_time + stream.duration)
    return None


def _end_by_tag(container: InputContainer, stream: VideoStream, timeline: Timeline) -> Fraction | None:
    """What Matroska has in place of that: a tag, as FFmpeg and mkvmerge write it, or the length of an only track.

    Some count it from 0 and some from the first picture.
    """
    length = _length_of_all(container)
    match = TAGGED_LENGTH.fullmatch(stream.metadata.get("DURATION", ""))
    if match is not None:
        hours, minutes, rest = match.groups()
        tagged = 3600 * int(hours) + 60 * int(minutes) + Fraction(rest)
        length = tagged if length is None else min(tagged, length)  # some programs copy the tag to a part
    elif len(container.streams) > 1:
        return None  # it may be the sound that is so long
    return None if length is None else length + timeline.at(0)
