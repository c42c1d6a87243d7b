"""What runs inside the process that the fake camera is preloaded into: `python -m tests.source_camera_program`.

Prints one JSON object, the result of each case by its name, for the tests to look at.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

from stream_seg.errors import SourceError
from stream_seg.sources import Webcam, open_source
from tests.source_contract import check_contract

Result = dict[str, object]


def contract() -> Result:
    check_contract(Webcam)
    return {"kept": True}


def granted(width: int, height: int, fps: int) -> Result:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("stream_seg")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    with Webcam(0, size=(width, height), fps=fps) as camera:
        logger.removeHandler(handler)
        frames = list(itertools.islice(camera, 3))
        info = camera.info
        return {
            "size": info.size,
            "sizes": [frame.size for frame in frames],
            "rate": float(info.frame_rate or 0),
            "mode": camera.mode,
            "said": said,
            "kind": info.kind,
        }


def by_path() -> Result:
    with open_source("/dev/video0", max_frames=3) as source:
        return {"name": source.info.name, "frames": len(list(source))}


def busy() -> Result:
    with Webcam(0):
        return {"error": refusal(0)}


def missing() -> Result:
    return {"error": refusal(7)}


def refusal(index: int) -> str:
    try:
        with Webcam(index):
            return ""
    except SourceError as error:
        return str(error)


def unplugged() -> Result:
    with Webcam(0) as camera:
        frames = iter(camera)
        next(frames)
        Path(os.environ["FAKEV4L2_UNPLUG"]).touch()
        try:
            for _ in range(100):
                next(frames)
        except SourceError as error:
            return {"error": str(error), "threads": threading.active_count()}
    return {"error": ""}


def again() -> Result:
    """Open, close and open once more: the device was given back."""
    for _ in range(2):
        with Webcam(0) as camera:
            next(iter(camera))
    return {"opened": 2}


CASES: dict[str, Callable[[], Result]] = {
    "contract": contract,
    "granted": lambda: granted(1280, 720, 30),
    "granted instead": lambda: granted(1000, 700, 120),
    "by path": by_path,
    "busy": busy,
    "missing": missing,
    "again": again,
    "unplugged": unplugged,  # the last: it does not come back
}


def outcome(case: Callable[[], Result]) -> Result:
    """Run one case; what it raises becomes its result, so that the others still run."""
    try:
        return case()
    except Exception:
        return {"failed": traceback.format_exc()}


if __name__ == "__main__":
    print(json.dumps({name: outcome(case) for name, case in CASES.items()}))
