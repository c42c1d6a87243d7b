"""How many threads OpenCV works with."""

from __future__ import annotations

import cv2


def use_one_thread() -> None:
    """Keep OpenCV from having threads of its own.

    The stages are threads already; a second one within a stage mostly spins, waiting for pictures.
    """
    cv2.setNumThreads(1)
