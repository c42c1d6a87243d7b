"""Turns masks that cover a network's whole canvas, or more than is visible, into small ones stretched over their boxes.

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

_MOVED = 0.01
"""Pixels by which an edge moves only where it is cut off: the way to the image and back costs less."""


def lift(canvases: Array, boxes: Array, *, logits: bool = False) -> Floats:
    """Masks (N, S, S), probabilities on a grid stretched over each box, from `canvases` (N, H, W).

    `boxes` (N, 4) xyxy are in pixels of `canvases`, which hold probabilities, bools or, with `logits`, their log-odds.
    S is twice the pixels of the longest side of a box, within 28 to 112.
    """
    corners = _finite(boxes)
    side = _cells(corners)
    grids = _sampled(canvases, corners, (side, side))
    return _keep_edges(sigmoid(grids) if logits else grids)


def crop(masks: Floats, boxes: Floats, visible: Floats) -> Floats:
    """Masks (N, S, T), stretched over `boxes`, as others of that shape, stretched over what is `visible` of the boxes.

    Both (N, 4) xyxy in the same pixels. The same array where all boxes are visible as a whole.
    """
    whole, seen = _finite(boxes), _finite(visible)
    sides = whole[:, 2:] - whole[:, :2]
    cut = np.flatnonzero((np.abs(seen - whole) > _MOVED).any(axis=1) & (sides > _MOVED).all(axis=1))
    if not cut.size:
        return masks
    cells = masks.shape[2], masks.shape[1]
    corner, cell = whole[cut, :2], sides[cut] / np.array(cells, np.float32)
    places = np.asarray((seen[cut].reshape(-1, 2, 2) - corner[:, None]) / cell[:, None] + 1, np.float32)
    padded = np.pad(masks[cut], ((0, 0), (1, 1), (1, 1)))  # around the grid are zeros, as `geometry.paste` has it
    cropped = masks.copy()
    cropped[cut] = _keep_edges(_sampled(padded, places.reshape(-1, 4), cells))
    return cropped


def sigmoid(values: Array) -> Floats:
    """Probabilities of log-odds."""
    bounded = np.clip(values.astype(np.float32), -80.0, 80.0)
    return np.asarray(1.0 / (1.0 + np.exp(-bounded)), np.float32)


def _cells(boxes: Floats) -> int:
    longest = float((boxes[:, 2:] - boxes[:, :2]).max()) if len(boxes) else 0.0
    return int(np.clip(np.ceil(2 * longest), FEWEST_CELLS, MOST_CELLS))


def _finite(boxes: Array) -> Floats:
    return np.clip(np.nan_to_num(boxes.astype(np.float32)), -_FAR, _FAR)


def _sampled(canvases: Array, boxes: Floats, cells: tuple[int, int]) -> Floats:
    """Grids of so many `cells` (across, down) stretched over each box of its canvas, and one more on each side.

    Those beyond the box tell where the outline goes at its edge.
    """
    more = (boxes[:, 2:] - boxes[:, :2]) / np.array(cells, np.float32)
    grown = np.concatenate([boxes[:, :2] - more, boxes[:, 2:] + more], axis=1)
    size = cells[0] + 2, cells[1] + 2
    grids = np.zeros((len(boxes), size[1], size[0]), np.float32)
    for canvas, box, grid in zip(canvases, grown, grids, strict=True):
        grid[:] = sample_box(canvas.astype(np.float32, copy=False), box, size)
    return grids


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
