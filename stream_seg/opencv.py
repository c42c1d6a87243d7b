"""How many threads OpenCV works with, and what it says."""

from __future__ import annotations

import cv2


def use_one_thread() -> None:
    """Keep OpenCV from having threads of its own.

    The stages are threads already; a second one within a stage mostly spins, waiting for pictures.
    """
    cv2.setNumThreads(1)


def be_silent() -> None:
    """Keep OpenCV's log off standard error: of a damaged image it tells several lines, and ours says it better."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
