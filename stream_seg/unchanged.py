"""Owns whether a frame shows what an earlier one did, so that the model need not look at it again."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.frame import Frame, Image
from stream_seg.geometry import resize
from stream_seg.steady import OFTEN

AGAIN = 1.0
"""Seconds after which a picture is looked at again that has not changed: for what is slower or paler than the rest."""

_LONG_SIDE = 160
"""Of what is compared, in cells: in a picture of 640 pixels one is 4x4, a tenth of the least object that is found."""

_CHANGED = 12
"""By so much of 255 the mean of a cell and those around it differs where something else is seen. Noise of a camera and
what encoders make of it differ by 3 to 6 (docs/performance.md)."""


class Unchanged:
    """Tells which frames of a source show the same as the one before that did not. Use one per source.

    None of the first `OFTEN` from a change on does: in so many `Steady` wants to have found what is uncertain.
    """

    def __init__(self) -> None:
        self._cells: NDArray[np.int16] = np.zeros((0, 0), np.int16)
        self._shape: tuple[int, ...] = ()
        self._at = 0.0
        self._looks = 0  # from the last change on

    def __call__(self, frame: Frame) -> bool:
        """Whether `frame` does; if not, later ones are compared with it. Images of their own never do."""
        if frame.is_still:
            return False
        cells, shape, at = _cells(frame.image), frame.image.shape, float(frame.pts)
        if shape != self._shape or np.abs(cells - self._cells).max() > _CHANGED:
            self._looks = 0
        elif self._looks >= OFTEN and 0 <= at - self._at < AGAIN:
            return True
        self._looks += 1
        self._cells, self._shape, self._at = cells, shape, at
        return False


def _cells(image: Image) -> NDArray[np.int16]:
    """The brightness of an image in cells, each a mean with those around it: noise is lost in it."""
    share = min(1.0, _LONG_SIDE / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * share)), max(1, round(image.shape[0] * share))
    small = cv2.cvtColor(resize(image, size), cv2.COLOR_BGR2GRAY)
    return np.asarray(cv2.blur(small, (3, 3)), np.int16)
