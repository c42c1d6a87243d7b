"""What runs inside the process that the fake camera is preloaded into: `python -m tests.source_camera_program`.

Prints one JSON object, the result of each case by its name, for the tests to look at.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import math
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from stream_seg.addresses import backoff
from stream_seg.errors import Reason, SourceError
from stream_seg.sources import Webcam, open_source
from tests.source_contract import check_contract
from tests.source_counts import descriptors, readers, readers_end, until
from tests.source_viewer import Viewer

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
        return refusal(0)


def missing() -> Result:
    return refusal(7)


def refusal(index: int) -> Result:
    try:
        with open_source(index, reconnect=0):
            return {"error": ""}
    except SourceError as error:
        return {"error": str(error), "reason": error.reason}


@contextlib.contextmanager
def told(variable: str) -> Iterator[None]:
    """The camera is unplugged, or hangs, meanwhile."""
    path = Path(os.environ[variable])
    path.touch()
    try:
        yield
    finally:
        path.unlink()


def unplugged() -> Result:
    with Webcam(0) as camera:
        frames = iter(camera)
        next(frames)
        try:
            with told("FAKEV4L2_UNPLUG"):
                for _ in range(100):
                    next(frames)
        except SourceError as error:
            return {"error": str(error), "reason": error.reason, "threads": threading.active_count()}
    return {"error": ""}


def replugged() -> Result:
    """Taken away and given back, without being told to reconnect: that is a webcam's way."""
    before = descriptors(), threading.active_count()
    with Viewer(open_source(0, camera_size=(1280, 720))) as viewer:
        assert viewer.sees(2)
        with told("FAKEV4L2_UNPLUG"):
            assert viewer.away(Reason.UNPLUGGED)
            assert until(lambda: tries(viewer) > 0)  # it was missed, then looked for
            assert viewer.reason is Reason.UNPLUGGED
        seconds = viewer.back_after()
        assert viewer.sees(3)
        assert viewer.frame is not None
        counts = {reason.value: count for reason, count in viewer.availability.counts.items()}
        grew = viewer.indices == sorted(set(viewer.indices)) and viewer.times == sorted(set(viewer.times))
        size = viewer.frame.size
    left = readers_end() and (descriptors(), threading.active_count()) == before
    return {"counts": counts, "soon": seconds < 2, "grew": grew, "size": size, "nothing left": left}


def tries(viewer: Viewer) -> int:
    outage = viewer.availability.outage
    return 0 if outage is None else outage.attempts


def absent_at_first() -> Result:
    with told("FAKEV4L2_UNPLUG"):
        refused = refusal_at_start()
        viewer = Viewer(open_source(0, reconnect=math.inf))
        viewer.__enter__()
        found_missing = viewer.away(Reason.NOT_FOUND)
    with_it = viewer.back_after() < 2
    viewer.__exit__(None, None, None)
    return {"refused": refused, "found missing": found_missing, "then there": with_it}


def refusal_at_start() -> str:
    try:
        with open_source(0):
            return ""
    except SourceError as error:
        return error.reason


def hung() -> Result:
    """A camera that stops sending; OpenCV waits for it, a second here, and holds the device meanwhile."""
    before = descriptors(), threading.active_count()
    with Viewer(open_source(0, stall_timeout=0.5)) as viewer:
        assert viewer.sees(2)
        with told("FAKEV4L2_HANG"):
            assert viewer.away(Reason.STALLED)
            stuck = len(readers())
        back = viewer.back_after()
        counts = {reason.value: count for reason, count in viewer.availability.counts.items()}
    left = readers_end() and (descriptors(), threading.active_count()) == before
    return {"counts": counts, "stuck": stuck, "soon": back < 2, "nothing left": left}


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
    "unplugged": unplugged,
    "replugged": replugged,
    "absent at first": absent_at_first,
    "hung": hung,
}


def outcome(case: Callable[[], Result]) -> Result:
    """Run one case; what it raises becomes its result, so that the others still run."""
    try:
        return case()
    except Exception:
        return {"failed": traceback.format_exc()}


if __name__ == "__main__":
    logging.getLogger("stream_seg").addHandler(logging.NullHandler())  # what is on stderr is not ours then
    backoff.FIRST_DELAY = 0.05  # what comes back is looked for soon
    print(json.dumps({name: outcome(case) for name, case in CASES.items()}))
