"""Which image files hold several pictures: films and pages."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from stream_seg.sources.chunks import chunks, is_png, is_webp
from stream_seg.sources.heif import is_sequence

LEAST_SHOWN = 10
"""Milliseconds; browsers show a picture that says it is shown for so long, or less, for `USUALLY_SHOWN`."""
USUALLY_SHOWN = 100

SUBFILE_TAG, REDUCED, MASK = 0x00FE, 1, 4


def moves(data: bytes) -> bool:
    """Whether an image file is a film: an animated PNG, WebP or AVIF, or a HEIF sequence."""
    if is_png(data):
        counts = (content[:4] for kind, content in chunks(data) if kind == b"acTL")
        return int.from_bytes(next(counts, b"")) > 1
    return is_sequence(data) or len(webp_durations(data)) > 1


def has_pages(data: bytes) -> bool:
    """Whether a TIFF file holds several pictures (TIFF 6.0, sections 2 and 8), smaller copies and masks apart."""
    pages = (kind for kind in _tiff_directories(data) if not kind & (REDUCED | MASK))
    return next(pages, None) is not None and next(pages, None) is not None


def webp_durations(data: bytes) -> list[int]:
    """For how many milliseconds each picture of an animated WebP file is shown (WebP container, chunk ANMF)."""
    if not is_webp(data):
        return []
    told = [int.from_bytes(content[12:15], "little") for kind, content in chunks(data) if kind == b"ANMF"]
    return [shown if shown > LEAST_SHOWN else USUALLY_SHOWN for shown in told]


def _tiff_directories(data: bytes) -> Iterator[int]:
    """The subfile type of each directory of a TIFF file, as far as it is whole."""
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return
    order, is_big = "<" if data[:2] == b"II" else ">", b"+" in data[2:4]
    place_of, count_of, entry = (f"{order}Q", f"{order}Q", 20) if is_big else (f"{order}I", f"{order}H", 12)
    seen = {0}
    try:
        (place,) = struct.unpack_from(place_of, data, 8 if is_big else 4)
        while place not in seen:
            seen.add(place)
            (count,) = struct.unpack_from(count_of, data, place)
            first = place + struct.calcsize(count_of)
            end = first + entry * count
            tags = {struct.unpack_from(f"{order}H", data, at)[0]: at for at in range(first, min(end, len(data)), entry)}
            at = tags.get(SUBFILE_TAG)
            yield 0 if at is None else struct.unpack_from(f"{order}I", data, at + (12 if is_big else 8))[0]
            (place,) = struct.unpack_from(place_of, data, end)
    except struct.error:  # too short
        pass
