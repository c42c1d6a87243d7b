"""A network in training as a segmenter, so that `stream_seg.evaluate` scores it as it scores any model file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from architecture import CANVAS_STRIDE, PIXEL_MEAN
from batches import to_input
from model import Net
from numpy.typing import NDArray

from stream_seg.detections import Detections
from stream_seg.evaluate import SCORE_THRESHOLD
from stream_seg.frame import Image
from stream_seg.geometry import Boxes, Letterbox


class NetSegmenter:
    """Runs `net` on BGR images whose long side it scales to `long_side` pixels. A segmenter of `protocols`."""

    max_batch = 1

    def __init__(self, net: Net, long_side: int, threshold: float = SCORE_THRESHOLD) -> None:
        self._net, self._long_side, self._threshold = net.eval(), long_side, threshold
        self.class_names = net.classes

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        return [self._detect(image) for image in images]

    @torch.no_grad()
    def outlines(self, image: Image, boxes: Boxes, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Masks (N, 28, 28), as probabilities, of what is in the given boxes (N, 4) of an image: see `mask_roi`.

        `labels` (N,) say what is meant, counted from 1; 0 is for another class. The mean of those of the image and of
        its mirror image.
        """
        width, mirror = image.shape[1], np.ascontiguousarray(image[:, ::-1])
        mirrored = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
        return (self._outline(image, boxes, labels) + self._outline(mirror, mirrored, labels)[:, :, ::-1]) / 2

    def _outline(self, image: Image, boxes: Boxes, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        x, letterbox = self._prepared(image)
        maps = self._net.backbone(x)
        placed, meant = (torch.from_numpy(one).to(x.device) for one in (letterbox.placement.to_canvas(boxes), labels))
        masks = self._net.roi_heads(maps, placed, torch.zeros_like(meant), meant).sigmoid()
        return np.asarray(masks.cpu().numpy(), np.float32)

    def _detect(self, image: Image) -> Detections:
        x, letterbox = self._prepared(image)
        (found,) = self._net.detect(x, [letterbox.valid[::-1]], self._threshold)
        boxes, scores, labels, masks = (found[key].cpu().numpy() for key in ("boxes", "scores", "labels", "masks"))
        return Detections(letterbox.placement.to_image(boxes), scores, labels - 1, masks, self.class_names)

    def _prepared(self, image: Image) -> tuple[torch.Tensor, Letterbox]:
        """The network's input (1, 3, H, W), and how the image sits in it."""
        height, width = image.shape[:2]
        scale = self._long_side / max(height, width)
        columns, rows = (max(1, -(-round(side * scale) // CANVAS_STRIDE)) * CANVAS_STRIDE for side in (width, height))
        letterbox = Letterbox((width, height), (columns, rows))
        pixels = np.empty((1, rows, columns, 3), np.uint8)
        letterbox.apply(image, pixels[0])
        valid = letterbox.valid
        x = to_input(torch.from_numpy(pixels).to(next(self._net.parameters()).device))
        grey = x.new_tensor(PIXEL_MEAN)[:, None, None] / 127.5 - 1  # as in the graph: 0 once it is normalised
        x[:, :, valid[1] :] = grey
        x[:, :, :, valid[0] :] = grey
        return x, letterbox
