"""A segmenter made from a function: for tests, and for people who bring their own network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stream_seg.detections import Detections
from stream_seg.frame import Image
from stream_seg.segmenters.base import ModelSegmenter


class FunctionSegmenter(ModelSegmenter):
    """Calls `function` on each image: (H, W, 3) uint8 BGR in, `Detections` in that image's pixels out."""

    def __init__(
        self, function: Callable[[Image], Detections], class_names: Sequence[str], *, max_batch: int = 1
    ) -> None:
        self.class_names = tuple(class_names)
        self.max_batch = max_batch
        self.description = f"{len(self.class_names)} classes, from a function"
        self._function = function

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        return [self._function(image) for image in images]
