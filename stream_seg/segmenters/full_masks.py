"""Turns masks that cover a network's whole canvas into small ones stretched over their boxes.

It is the inverse of `geometry.paste`, which surrounds a small mask with zeros: towards the edge of its box it
falls to half. So that objects that reach the edge keep their outline, the outermost cells are set to what makes it run
where it did.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream_seg.geometry import sample_box

Array = NDArray[np.generic]
Floats = NDArray[np.float32]

FEWEST_CELLS, MOST_CELLS = 28, 112

_FAR = np.float32(1e6)
"""Further than any pixel; boxes of a broken model may be infinite."""


def lift(canvases: Array, boxes: Array, *, logits: bool = False) -> Floats:
    """Masks (N, S, S), probabilities on a grid stretched over each box, from `canvases` (N, H, W).

    `boxes` (N, 4) xyxy are in pixels of `canvases`, which hold probabilities, bools or, with `logits`, their log-odds.
    S is twice the pixels of the longest side of a box, within 28 to 112.
    """
    corners = np.clip(np.nan_to_num(boxes.astype(np.float32)), -_FAR, _FAR)
    side = _cells(corners)
    # One cell more on each side of the box: they tell where the outline goes at its edge.
    grids = np.zeros((len(corners), side + 2, side + 2), np.float32)
    for canvas, box, grid in zip(canvases, _grown(corners, 1 / side), grids, strict=True):
        grid[:] = sample_box(canvas.astype(np.float32, copy=False), box, (side + 2, side + 2))
    return _keep_edges(sigmoid(grids) if logits else grids)


def sigmoid(values: Array) -> Floats:
    """Probabilities of log-odds."""
    bounded = np.clip(values.astype(np.float32), -80.0, 80.0)
    return np.asarray(1.0 / (1.0 + np.exp(-bounded)), np.float32)


def _cells(boxes: Floats) -> int:
    longest = float((boxes[:, 2:] - boxes[:, :2]).max()) if len(boxes) else 0.0
    return int(np.clip(np.ceil(2 * longest), FEWEST_CELLS, MOST_CELLS))


def _grown(boxes: Floats, part: float) -> Floats:
    """Boxes with `part` of their width and height more on each side."""
    more = (boxes[:, 2:] - boxes[:, :2]) * np.float32(part)
    return np.concatenate([boxes[:, :2] - more, boxes[:, 2:] + more], axis=1)


def _keep_edges(grids: Floats) -> Floats:
    """The cells (N, S, S) inside a border of cells beyond the box, which decide about the outermost ones inside."""
    cells = grids[:, 1:-1, 1:-1].copy()
    for here, beyond in ((cells[:, 0], grids[:, 0, 1:-1]), (cells[:, -1], grids[:, -1, 1:-1])):
        here[:] = _outermost(here, beyond)
    for here, beyond in ((cells[:, :, 0], grids[:, 1:-1, 0]), (cells[:, :, -1], grids[:, 1:-1, -1])):
        here[:] = _outermost(here, beyond)
    return cells


def _outermost(cell: Floats, beyond: Floats) -> Floats:
    """What a cell has to be for the line from it to zero, one cell on, to cross 0.5 where that to `beyond` does.

    That is t = (cell - 0.5) / (cell - beyond) cells away, or at the edge of the box, t = 0.5; hence 0.5 / (1 - t).
    """
    crossing = (cell - 0.5) / np.maximum(cell - beyond, 1e-6)
    wanted = 0.5 / (1.0 - np.clip(crossing, 0.0, 0.5))
    return np.where(cell > 0.5, wanted, cell).astype(np.float32)
