"""Owns how objects are made unrecognisable: what is known of each afterwards are the colours of a few large cells.

Finer ones do not do: people recognise half of the faces they know in pictures of about 7x10 pixels, however blurred
(Sinha et al., "Face Recognition by Humans: Nineteen Results All Computer Vision Researchers Should Know About", 2006).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.frame import Image
from stream_seg.geometry import Bitmask, resize

CELLS = 4
"""How many cells the longer side of an object has, at most."""
LEAST_CELL = 8
"""How many pixels the longer side of a cell has, at least: a small object is of one colour."""

MARGIN = 0.1
"""The share of its width and height by which an object may reach beyond its mask on each side."""
LEAST_MARGIN = 2.0
"""How many pixels that is at least, but no more than the object has itself."""

_FINE = 16  # cells that a mask has at least, for the margin to be of whole ones
_SET = 0.5  # from there on a probability counts, as in `geometry.mask_roi`


def widened(box: NDArray[np.float32], mask: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The box and mask of one object with the margin round it, both as of `Detections`.

    One whose mask is empty, though something was found there, gets all of its box.
    """
    times = -(-_FINE // min(mask.shape))
    if times > 1:
        mask = np.asarray(cv2.resize(mask, None, fx=times, fy=times, interpolation=cv2.INTER_LINEAR))
    sides = np.maximum(box[2:] - box[:2], 1)
    cells = np.array(mask.shape[::-1])
    more = np.ceil(cells * np.maximum(MARGIN, np.minimum(LEAST_MARGIN / sides, 1))).astype(int)
    across, down = more.tolist()
    if not (mask > _SET).any():
        mask = np.ones_like(mask)
    padded = cv2.copyMakeBorder(mask, down, down, across, across, cv2.BORDER_CONSTANT, value=0)
    # A rectangle's two sides are gone along one after the other; rounder ones take up to twenty times as long.
    wide = cv2.dilate(padded, np.ones((2 * down + 1, 2 * across + 1), np.uint8))
    margin = (box[2:] - box[:2]) / cells * more
    return np.concatenate([box[:2] - margin, box[2:] + margin]).astype(np.float32), np.asarray(wide)


def blur(region: Image, bitmask: Bitmask, memory: Image) -> None:
    """Blur the pixels of `region` where `bitmask` is set; neither is empty. `memory` of its shape is overwritten."""
    height, width = region.shape[:2]
    longer = max(width, height)
    side = longer / min(CELLS, max(1, longer // LEAST_CELL))
    cells = resize(region, (max(1, round(width / side)), max(1, round(height / side))))
    cv2.resize(cells, (width, height), dst=memory, interpolation=cv2.INTER_LINEAR)
    cv2.copyTo(memory, bitmask, region)
