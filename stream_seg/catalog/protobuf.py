"""Just enough of the protobuf encoding to find what is wanted in an ONNX file without reading all of it.

Source of the format: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def fields(data: bytes | mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int | slice]]:
    """The fields of the message between `start` and `end`: the number of each, and where its bytes are.

    Of whole numbers it is the value, and what has another form is left out. Raises `ValueError`, in a few words, for
    what is no such message.
    """
    while start < end:
        tag, start = _varint(data, start, end)
        kind, size = tag & 7, 0
        if kind == _VARINT:
            value, start = _varint(data, start, end)
            yield tag >> 3, value
        elif kind == _BYTES:
            size, start = _varint(data, start, end)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError("its structure is not ONNX's")
        if start + size > end:
            raise ValueError("it ends too early")
        if kind == _BYTES:
            yield tag >> 3, slice(start, start + size)
        start += size


def _varint(data: bytes | mmap.mmap, start: int, end: int) -> tuple[int, int]:
    """The number that begins at `start`, seven bits a byte, low ones first; and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if start >= end:
            raise ValueError("it ends too early")
        byte = data[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
    raise ValueError("its structure is not ONNX's")
