"""Regions: the canvas that a batch lies on, and boxes on it with the image that each belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stream_seg.graph.emit import Value, ints


@dataclass(frozen=True, slots=True)
class Canvas:
    """Geometry of a batch: height and width (scalars, int64), and `limits` (N, 1, 4): w, h, w, h of each image."""

    height: Value
    width: Value
    limits: Value

    def inside(self) -> Value:
        """(N, 1, H, W) float32: 1 for the pixels that are inside their image, else 0."""
        row, column = (
            self.limits.graph.arange(side).cast(np.float32) < self.limits.slice(end, end + 1, axis=2)
            for side, end in ((self.height, 1), (self.width, 0))
        )
        # As a product, because Where costs four times as much.
        return row.cast(np.float32).unsqueeze(3) * column.cast(np.float32).unsqueeze(2)


@dataclass(frozen=True, slots=True)
class Rois:
    """Regions of a batch: boxes (R, 4) and the image (R,) int64 each belongs to."""

    boxes: Value
    image: Value

    def take(self, index: Value) -> Rois:
        return Rois(self.boxes.gather(index), self.image.gather(index))

    def filled(self, missing: Value) -> Rois:
        """And so many empty ones of the first image; `missing` is a scalar."""
        graph, count = self.image.graph, missing.unsqueeze(0)
        nothing = graph.op("Expand", np.zeros((1, 4), np.float32), graph.concat([count, graph.value(ints(4))], axis=0))
        boxes = graph.concat([self.boxes, nothing], axis=0)
        return Rois(boxes, graph.concat([self.image, graph.op("Expand", ints(0), count)], axis=0))
