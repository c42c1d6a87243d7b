"""Owns looking at an image more than once.

A network finds best what has the size that it was trained with. In a large image small objects are best seen closely,
and those that fill it from afar.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stream_seg.agreement import agreed, united
from stream_seg.detections import Detections
from stream_seg.errors import UsageError
from stream_seg.frame import Image
from stream_seg.geometry import mirrored, mirrored_back
from stream_seg.segmenters.base import Around, ModelSegmenter
from stream_seg.segmenters.onnx_segmenter import OnnxSegmenter

MOST_PARTS = 8
"""Columns or rows of parts: more than 64 looks at an image are a slip of the finger."""

OVERLAP = 0.2
"""Of a part with the next one, in sides of parts: what is smaller is whole in one of them."""

_CUT = 0.02
"""What ends so near to where a part was cut off, in sides of the part, goes on beyond it."""


class TwoLooks(Around):
    """Looks at each image with two segmenters of one model: `close`, and `afar`, which sees it smaller."""

    def __init__(self, close: ModelSegmenter, afar: OnnxSegmenter) -> None:
        super().__init__(close, f"{close.description}, and once more at {afar.long_side} px")
        self._afar = afar

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        return [united(looks) for looks in zip(self._inner(images), self._afar(images), strict=True)]

    def warm_up(self, size: tuple[int, int], max_batch: int | None = None) -> None:
        super().warm_up(size, max_batch)
        self._afar.warm_up(size, max_batch)

    def close(self) -> None:
        super().close()
        self._afar.close()


class Sliced(Around):
    """Looks at each image as a whole, and at `columns` x `rows` overlapping parts of it, which are seen as large as
    the whole.

    What a part shows of an object that goes on beyond it does not count: another part or the whole has all of it.
    """

    def __init__(self, inner: ModelSegmenter, columns: int, rows: int) -> None:
        """Raise `UsageError` as `check_slices` does."""
        check_slices(columns, rows)
        super().__init__(inner, f"{inner.description}; whole and in {columns}x{rows} parts")
        self.max_batch = max(1, inner.max_batch // (1 + columns * rows))
        self._slices = columns, rows

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        parts = [_parts(image, self._slices) for image in images]
        views = [view for image, some in zip(images, parts, strict=True) for view in (image, *(p.view for p in some))]
        found = iter(self._inner(views))
        return [united([next(found), *(part.placed(next(found)) for part in some)]) for some in parts]

    def warm_up(self, size: tuple[int, int], max_batch: int | None = None) -> None:
        part = _parts(np.empty((size[1], size[0], 3), np.uint8), self._slices)[0].view
        looks = None if max_batch is None else max_batch * (1 + self._slices[0] * self._slices[1])
        for width, height in (size, (part.shape[1], part.shape[0])):
            super().warm_up((width, height), looks)


class BothWays(Around):
    """Looks at each image as it is and mirrored, in which a network makes other mistakes, and finds what has more than
    `threshold` by both looks.

    `inner` is to tell of what has `steady.DOUBTFUL` times as much.
    """

    def __init__(self, inner: ModelSegmenter, threshold: float) -> None:
        super().__init__(inner, f"{inner.description}, and mirrored")
        self.max_batch = max(1, inner.max_batch // 2)
        self._threshold = threshold

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        found = iter(self._inner([view for image in images for view in (image, mirrored(image))]))
        return [agreed(next(found), mirrored_back(next(found), image.shape[1]), self._threshold) for image in images]

    def warm_up(self, size: tuple[int, int], max_batch: int | None = None) -> None:
        super().warm_up(size, None if max_batch is None else 2 * max_batch)


class Alternating(Around):
    """A segmenter that a pipeline gives every other frame of a film mirrored, for `shown_from` says so."""

    def __init__(self, inner: ModelSegmenter, threshold: float) -> None:
        super().__init__(inner, f"{inner.description}, mirrored in every other frame")
        self.shown_from = threshold

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        return self._inner(images)


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of an image, `view`, with its `corner` (x, y) there; `cut` says of x1, y1, x2, y2 where more follows."""

    view: Image
    corner: tuple[int, int]
    cut: NDArray[np.bool_]

    def placed(self, found: Detections) -> Detections:
        """What was found in the part, in pixels of the image, without what goes on beyond the part."""
        height, width = self.view.shape[:2]
        ends = np.array((0, 0, width, height), np.float32)
        near = np.abs(found.boxes - ends) < _CUT * np.array((width, height, width, height), np.float32)
        whole = found[~(near & self.cut).any(axis=1)]
        corner = np.array(2 * self.corner, np.float32)
        return replace(whole, boxes=whole.boxes + corner)


def _parts(image: Image, slices: tuple[int, int]) -> list[_Part]:
    """Columns x rows of them, row by row."""
    height, width = image.shape[:2]
    return [
        _Part(image[rows, columns], (columns.start, rows.start), np.array((left, above, right, below)))
        for rows, above, below in _spans(height, slices[1])
        for columns, left, right in _spans(width, slices[0])
    ]


def _spans(length: int, count: int) -> list[tuple[slice, bool, bool]]:
    """So many equal parts of a length of pixels, and whether each is cut off where it begins and where it ends."""
    side = length / (count - OVERLAP * (count - 1))
    starts = [number * (1 - OVERLAP) * side for number in range(count)]
    spans = [slice(int(start), min(length, math.ceil(start + side))) for start in starts]
    return [(span, span.start > 0, span.stop < length) for span in spans]


def check_slices(columns: int, rows: int) -> None:
    """Raise `UsageError` for less than two parts, and for more than 8 beside or above each other."""
    if not (1 <= columns <= MOST_PARTS and 1 <= rows <= MOST_PARTS and columns * rows > 1):
        raise UsageError(f"slices must be 2x1, 1x2 or more, up to {MOST_PARTS}x{MOST_PARTS}, not {columns}x{rows}")
