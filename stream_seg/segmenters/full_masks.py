"""Turns masks that cover a network's whole canvas into small ones stretched over their boxes.

It is the inverse of `geometry.paste`, which surrounds a small mask with zeros one cell away: along the edge of the box
a probability p comes back as p / 2. So that objects which fill their box to the edge keep their outline, the outermost
cells are set to what makes the outline cross where it did.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Floats = NDArray[np.float32]

FEWEST_CELLS, MOST_CELLS = 28, 112


def lift(canvases: Array, boxes: Array, *, logits: bool = False, most: int = MOST_CELLS) -> Floats:
    """Masks (N, S, S), probabilities on a grid stretched over each box, from `canvases` (N, H, W).

    `boxes` (N, 4) xyxy are in pixels of `canvases`, which hold probabilities, bools or, with `logits`, their log-odds.
    S is the pixels of the longest side of a box, from 28 to `most`.
    """
    corners = np.nan_to_num(boxes.astype(np.float64))
    side = _cells(corners, most)
    grids = np.zeros((len(corners), side + 2, side + 2), np.float32)
    for canvas, box, grid in zip(canvases, corners, grids, strict=True):
        grid[:] = _sample(canvas, box, side)
    return _keep_edges(sigmoid(grids) if logits else grids)


def sigmoid(values: Array) -> Floats:
    """Probabilities of log-odds."""
    bounded = np.clip(values.astype(np.float32), -80.0, 80.0)
    return np.asarray(1.0 / (1.0 + np.exp(-bounded)), np.float32)


def _cells(boxes: NDArray[np.float64], most: int) -> int:
    longest = float((boxes[:, 2:] - boxes[:, :2]).max()) if len(boxes) else 0.0
    return int(np.clip(np.ceil(longest), FEWEST_CELLS, most))


def _sample(canvas: Array, box: NDArray[np.float64], side: int) -> Floats:
    """Bilinear samples at the cell centres of a grid over the box, and on the edges of the box around them."""
    top, bottom, down = _axis(box[1], box[3], side, canvas.shape[0])
    left, right, across = _axis(box[0], box[2], side, canvas.shape[1])
    upper = _between(canvas[np.ix_(top, left)], canvas[np.ix_(top, right)], across)
    lower = _between(canvas[np.ix_(bottom, left)], canvas[np.ix_(bottom, right)], across)
    return _between(upper, lower, down[:, None])


def _axis(low: float, high: float, side: int, limit: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """The two pixels next to each sample along one axis, and how far it is on the way to the second."""
    parts = np.concatenate(([0.0], (np.arange(side) + 0.5) / side, [1.0]))
    places = np.clip(low + (high - low) * parts - 0.5, 0, limit - 1)
    near = places.astype(np.int64)
    return near, np.minimum(near + 1, limit - 1), (places - near).astype(np.float32)


def _between(first: Array, second: Array, part: Floats) -> Floats:
    start = first.astype(np.float32)
    return np.asarray(start + (second.astype(np.float32) - start) * part, np.float32)


def _keep_edges(grids: Floats) -> Floats:
    """The cells (N, S, S) without the samples on the edges, which decide about the outermost cells."""
    cells = grids[:, 1:-1, 1:-1].copy()
    for edge, here in ((grids[:, 0, 1:-1], cells[:, 0]), (grids[:, -1, 1:-1], cells[:, -1])):
        here[:] = _outermost(here, edge)
    for edge, here in ((grids[:, 1:-1, 0], cells[:, :, 0]), (grids[:, 1:-1, -1], cells[:, :, -1])):
        here[:] = _outermost(here, edge)
    return cells


def _outermost(cell: Floats, edge: Floats) -> Floats:
    """What a cell has to be for the line from it to a zero one cell away to cross 0.5 where that to `edge` does.

    The edge is half a cell away, so that is at t = (cell - 0.5) / (cell - edge) / 2 cells; the result is 0.5 / (1 - t).
    """
    crossing = 0.5 * (cell - 0.5) / np.maximum(cell - edge, 1e-6)
    wanted = 0.5 / (1.0 - np.clip(crossing, 0.0, 0.5))
    return np.where(cell > 0.5, wanted, cell).astype(np.float32)
