"""Photos in HEIF files (HEIC as of phones, AVIF): put together from the tiles they are stored in, cropped and upright.

FFmpeg decodes the items of such a file as streams of a picture each, whose ids are those of the items. Which of them
make the photo, where they go and what is done to it then is read here (ISO/IEC 14496-12 and 23008-12).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Self

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import Colorspace

from stream_seg.frame import Image
from stream_seg.pyav import TOLERANT
from stream_seg.sources.picture import Orientation, PictureConverter

MOST_PIXELS = 1 << 30
"""OpenCV's limit for the size of an image."""

_SEQUENCES = (b"avis", b"msf1", b"hevc", b"hevx")


def is_heif(data: bytes) -> bool:
    """Whether a file is one of those that hold photos as HEIC and AVIF files do."""
    if data[4:8] != b"ftyp":
        return False
    try:
        return any(kind == b"meta" for kind, _ in _boxes(memoryview(data)))
    except (struct.error, LookupError):
        return False


def is_sequence(data: bytes) -> bool:
    """Whether such a file is a film in the first place, as animated AVIF files are."""
    return data[4:8] == b"ftyp" and data[8:12] in _SEQUENCES


def read_heif(data: bytes) -> Image:
    """Return the photo of a HEIF file, (H, W, 3) uint8 BGR, upright; what is said of transparency is left out.

    Raises `ValueError` or `av.FFmpegError` where there is none, or one that cannot be decoded.
    """
    try:
        photo = _Photo.of(memoryview(data))
        with closing(av.open(io.BytesIO(data), mode="r", **TOLERANT)) as container:
            image = _composed(photo, container)
        for kind, content in photo.edits:
            image = _edited(image, kind, content)
    except (struct.error, ZeroDivisionError, LookupError) as error:
        raise ValueError(f"not a whole HEIF file: {error}") from error
    return np.ascontiguousarray(image)


@dataclass(frozen=True, slots=True)
class _Photo:
    """What makes a photo: the items that are its `tiles`, in rows of so many `columns`, and `edits` of it, in order.

    `size` is (width, height) before those, None for that of the only tile.
    """

    tiles: tuple[int, ...]
    columns: int
    size: tuple[int, int] | None
    edits: tuple[tuple[bytes, memoryview], ...]

    @classmethod
    def of(cls, data: memoryview) -> Self:
        """Read the primary item. Raises `LookupError` or `struct.error` where it is not whole."""
        meta = _box(data, b"meta")[4:]
        primary = _Numbers(_box(meta, b"pitm"))
        item = primary.next(4 if primary.version else 2)
        kind = _kind(_box(meta, b"iinf"), item)
        edits = tuple(_properties(_box(meta, b"iprp"), item))
        if kind not in (b"grid", b"iden"):
            return cls((item,), 1, None, edits)
        tiles = tuple(_derived_from(_box(meta, b"iref"), item))
        if kind == b"iden":
            return cls(tiles[:1], 1, None, edits)
        grid = _content(data, meta, item)
        rows, columns, width, height = struct.unpack_from(">2x2B2I" if grid[1] & 1 else ">2x2B2H", grid)
        return cls(tiles[: (rows + 1) * (columns + 1)], columns + 1, (width, height), edits)


class _Numbers:
    """The numbers in a full box, one after the other."""

    def __init__(self, box: memoryview) -> None:
        self._rest = box[4:]
        self.version, self.flags = box[0], int.from_bytes(box[1:4])

    def next(self, size: int) -> int:
        """The number in the next `size` bytes. Raises `LookupError` at the end."""
        if len(self._rest) < size:
            raise LookupError("a box ends too early")
        number = int.from_bytes(self._rest[:size])
        self._rest = self._rest[size:]
        return number


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The boxes that follow each other, as (type, content)."""
    while len(data) >= 8:
        size, kind = struct.unpack_from(">I4s", data)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", data, 8), 16
        size = size or len(data)
        if size < head:
            raise LookupError("a box is smaller than its head")
        yield kind, data[head:size]
        data = data[size:]


def _box(data: memoryview, kind: bytes) -> memoryview:
    """The content of the first box of a kind."""
    for found, content in _boxes(data):
        if found == kind:
            return content
    raise LookupError(f"there is no box {kind!r}")


def _kind(infos: memoryview, item: int) -> bytes:
    """The type of an item, of those that an `iinf` box lists."""
    for _, info in _boxes(infos[6 if infos[0] == 0 else 8 :]):
        if info[0] >= 2 and int.from_bytes(info[4 : 6 if info[0] == 2 else 8]) == item:
            return bytes(info[8:12] if info[0] == 2 else info[10:14])
    raise LookupError(f"nothing is said of item {item}")


def _derived_from(references: memoryview, item: int) -> Iterator[int]:
    """The items that an item is made of, in order, as an `iref` box tells."""
    width = 4 if references[0] else 2
    for kind, content in _boxes(references[4:]):
        numbers = _Numbers(memoryview(bytes(4) + content))
        if kind == b"dimg" and numbers.next(width) == item:
            for _ in range(numbers.next(2)):
                yield numbers.next(width)


def _properties(described: memoryview, item: int) -> Iterator[tuple[bytes, memoryview]]:
    """The properties of an item, as (type, content), in order, as an `iprp` box tells."""
    known = list(_boxes(_box(described, b"ipco")))
    for kind, content in _boxes(described):
        if kind != b"ipma":
            continue
        numbers = _Numbers(content)
        for _ in range(numbers.next(4)):
            is_it = numbers.next(4 if numbers.version else 2) == item
            for _ in range(numbers.next(1)):
                place = numbers.next(2) & 0x7FFF if numbers.flags & 1 else numbers.next(1) & 0x7F
                if is_it and place:  # 0 is none
                    yield known[place - 1]


def _content(data: memoryview, meta: memoryview, item: int) -> bytes:
    """The data of an item, from where an `iloc` box says: the file, or the box `idat`."""
    numbers = _Numbers(_box(meta, b"iloc"))
    width = 4 if numbers.version == 2 else 2
    sizes = numbers.next(2)
    of_offset, of_length, of_base, of_index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(numbers.next(width)):
        number = numbers.next(width)
        within = _box(meta, b"idat") if numbers.version and numbers.next(2) & 15 else data
        numbers.next(2)
        base = numbers.next(of_base)
        parts = []
        for _ in range(numbers.next(2)):
            if numbers.version:
                numbers.next(of_index)
            start, length = base + numbers.next(of_offset), numbers.next(of_length)
            parts.append(bytes(within[start : start + length]))
        if number == item:
            return b"".join(parts)
    raise LookupError(f"nothing tells where item {item} is")


def _composed(photo: _Photo, container: InputContainer) -> Image:
    """Decode the tiles and put each where it belongs; what is beyond the size of the photo is left out."""
    # The tracks of a film, which may have the ids of items, come behind them.
    streams = {stream.id: stream for stream in reversed(container.streams.video) if stream.id in photo.tiles}
    if len(streams) < len(set(photo.tiles)) or not all(stream.codec_context for stream in streams.values()):
        raise ValueError("a part of it is of a kind that FFmpeg cannot decode")
    for stream in streams.values():
        stream.codec_context.thread_count = 1 if photo.tiles[1:] else 0  # which are for many pictures, or a large one
    converters: dict[tuple[int, int], PictureConverter] = {}
    image: Image | None = None
    for packet in container.demux(list(streams.values())):
        for frame in streams[packet.stream.id].decode(packet):
            size = frame.width, frame.height
            if size not in converters:
                converters[size] = PictureConverter(size, Orientation(), untagged=Colorspace.ITU601)
            tile = converters[size](frame)
            if image is None:
                image = _canvas(photo, tile)
            for place in (place for place, item in enumerate(photo.tiles) if item == packet.stream.id):
                top, left = place // photo.columns * tile.shape[0], place % photo.columns * tile.shape[1]
                part = image[top : top + tile.shape[0], left : left + tile.shape[1]]
                part[:] = tile[: part.shape[0], : part.shape[1]]
    if image is None:
        raise ValueError("not one part of it can be decoded")
    return image


def _canvas(photo: _Photo, tile: Image) -> Image:
    """A black image of the size of a photo, which tiles such as this one fill."""
    height, width = tile.shape[:2]
    across, down = photo.size or (width, height)
    rows = -(-len(photo.tiles) // photo.columns)
    if not (0 < across <= photo.columns * width and 0 < down <= rows * height and across * down <= MOST_PIXELS):
        raise ValueError(f"its tiles are not for an image of {across}x{down}")
    return np.zeros((down, across, 3), np.uint8)


def _edited(image: Image, kind: bytes, content: memoryview) -> Image:
    """Crop, turn or mirror an image as a property of a photo says; others leave it as it is."""
    if kind == b"irot":
        return np.rot90(image, content[0] & 3)
    if kind == b"imir":
        return image[:, ::-1] if content[0] & 1 else image[::-1]
    if kind == b"clap":
        return _cropped(image, content)
    return image


def _cropped(image: Image, content: memoryview) -> Image:
    """The part of an image that a clean aperture leaves: its size, and where its centre is, in fractions of pixels."""
    numbers = struct.unpack_from(">IIIIiIiI", content)
    width, height, right, down = (numbers[i] / numbers[i + 1] for i in (0, 2, 4, 6))
    left = round((image.shape[1] - width) / 2 + right)
    top = round((image.shape[0] - height) / 2 + down)
    part = image[max(0, top) : max(0, top + round(height)), max(0, left) : max(0, left + round(width))]
    if not part.size:
        raise ValueError("nothing of it is to be seen")
    return part
