"""What the chunks of PNG and WebP files tell of a picture: transparency, and how to turn it.

OpenCV gives the alpha channel only of pictures that it leaves as they are stored.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from stream_seg.sources.picture import Orientation

ORIENTATION_TAG = 0x0112


def may_be_transparent(data: bytes) -> bool:
    """Whether a PNG or WebP file announces an alpha channel, or a colour that is transparent.

    Offsets from the PNG specification (colour type in IHDR) and the WebP container specification (VP8X and VP8L).
    """
    if is_png(data):
        return data[25:26] in (b"\x04", b"\x06") or any(kind == b"tRNS" for kind, _ in chunks(data))
    if data[8:16] == b"WEBPVP8X" and len(data) > 20:
        return bool(data[20] & 0x10)
    return data[8:16] == b"WEBPVP8L"


def transparent_grey(data: bytes) -> int | None:
    """The grey that is transparent in a grey PNG file, as a number of 8 bits or of 16 where it has those, else None."""
    if not is_png(data) or data[25:26] != b"\x00":
        return None
    told = next((int.from_bytes(content[:2]) for kind, content in chunks(data) if kind == b"tRNS"), None)
    depth = data[24]
    return told * 255 // ((1 << depth) - 1) if told is not None and depth < 8 else told


def orientation_of(data: bytes) -> Orientation:
    """How the EXIF data of a PNG or WebP file say that its picture is to be turned."""
    exif = next((content for kind, content in chunks(data) if kind in (b"eXIf", b"EXIF")), b"")
    value = exif_orientation(exif.removeprefix(b"Exif\0\0"))
    return Orientation(value in (5, 6, 7, 8), value in (2, 3, 6, 7), value in (3, 4, 7, 8))


def exif_orientation(tiff: bytes) -> int:
    """Return the orientation in the first directory of EXIF data (TIFF 6.0, sections 2 and 8), 1 without any."""
    order = "<" if tiff.startswith(b"II") else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, value = struct.unpack_from(f"{order}H6xH", tiff, place)
            if tag == ORIENTATION_TAG:
                return int(value)
    except struct.error:  # too short
        pass
    return 1


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG or WebP file, as (type, content)."""
    png = is_png(data)
    place = 8 if png else 12
    while place + 8 <= len(data):
        if png:
            length, kind = struct.unpack_from(">I4s", data, place)
        else:
            kind, length = struct.unpack_from("<4sI", data, place)
        yield kind, data[place + 8 : place + 8 + length]
        place += 8 + length + (4 if png else length % 2)  # a checksum; a byte that fills up


def is_webp(data: bytes) -> bool:
    """Whether a file begins as WebP files do."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def is_png(data: bytes) -> bool:
    """Whether a file begins as PNG files do."""
    return data[:4] == b"\x89PNG"
