"""Owns looking at an image more than once, and what of several looks' finds is one object.

A network finds best what has the size that it was trained with. In a large image small objects are best seen closely,
and those that fill it from afar.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stream_seg.detections import Detections
from stream_seg.errors import UsageError
from stream_seg.frame import Image
from stream_seg.geometry import continued, mirrored, mirrored_back, pairwise_iou, regridded
from stream_seg.segmenters.base import Around, ModelSegmenter
from stream_seg.segmenters.onnx_segmenter import OnnxSegmenter

SAME_IOU = 0.5
"""Finds of different looks that overlap more than that are one object, if they are of one class."""

MOST_PARTS = 8
"""Columns or rows of parts: more than 64 looks at an image are a slip of the finger."""

OVERLAP = 0.2
"""Of a part with the next one, in sides of parts: what is smaller is whole in one of them."""

_AGREEING = 0.15
"""By so much, as log odds, what two looks find is likelier than both say on average."""

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
    """A segmenter that a pipeline gives every other frame of a film mirrored; see `shown_from`."""

    def __init__(self, inner: ModelSegmenter, threshold: float) -> None:
        super().__init__(inner, f"{inner.description}, mirrored in every other frame")
        self.alternates = True
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


def united(looks: Sequence[Detections]) -> Detections:
    """What several looks at one image found, each object once: of finds that are one, the likeliest remains.

    Boxes must be in the same pixels, and the names of the classes the same. What overlaps within one look is left to
    the model.
    """
    counts = [len(found) for found in looks]
    if sum(map(bool, counts)) < 2:
        return looks[int(np.argmax(counts))]
    boxes, scores, classes = (
        np.concatenate([getattr(found, name) for found in looks]) for name in ("boxes", "scores", "class_ids")
    )
    look = np.repeat(np.arange(len(looks)), counts)
    order = np.argsort(-scores, kind="stable")
    remains = np.ones(len(boxes), bool)
    for number in np.unique(classes):
        mine = order[classes[order] == number]
        rivals = (pairwise_iou(boxes[mine], boxes[mine]) > SAME_IOU) & (look[mine, None] != look[mine])
        for i, of_this in zip(mine, rivals, strict=True):
            if remains[i]:
                remains[mine[of_this]] = False
    best = order[remains[order]]
    return Detections(boxes[best], scores[best], classes[best], _masks(looks)[best], looks[0].class_names)


def agreed(one: Detections, other: Detections, threshold: float) -> Detections:
    """What two looks at an image find, each object once, with a score of both looks, where one that misses it counts 0;
    those above `threshold`.

    Boxes must be in the same pixels. An object's box and mask are between those of both looks, nearer to the surer one.
    """
    which, _ = continued(one, other, SAME_IOU)
    first = np.flatnonzero(which >= 0)
    second, alone = which[first], np.setdiff1d(np.arange(len(other)), which)
    boxes, scores = one.boxes.copy(), one.scores / 2
    masks = _masks([one, other]) if len(one) or len(other) else one.masks
    share = (other.scores[second] / np.maximum(one.scores[first] + other.scores[second], 1e-6))[:, None]
    boxes[first] += share * (other.boxes[second] - boxes[first])
    mean = scores[first] + other.scores[second] / 2
    scores[first] = mean + _AGREEING * mean * (1 - mean)
    masks[first] += share[..., None] * (masks[len(one) + second] - masks[first])
    found = Detections(
        np.concatenate([boxes, other.boxes[alone]]),
        np.concatenate([scores, other.scores[alone] / 2]),
        np.concatenate([one.class_ids, other.class_ids[alone]]),
        np.delete(masks, len(one) + second, axis=0),
        one.class_names,
    )
    order = np.argsort(-found.scores, kind="stable")
    return found[order[found.scores[order] > threshold]]


def _masks(looks: Sequence[Detections]) -> NDArray[np.float32]:
    """Those of all looks, on the finest grid that one of them has."""
    found = [look.masks for look in looks if len(look)]
    finest = tuple(max(masks.shape[axis] for masks in found) for axis in (1, 2))
    return np.concatenate([regridded(masks, finest) for masks in found])
