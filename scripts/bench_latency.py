"""How old a camera's picture is when it is shown: ours beside the ways it is usually done.

    python scripts/bench_latency.py [--seconds 15] [--rounds 1] [--model]

A real RTSP server (tests/testbed/rtsp_server.py: GStreamer, 1280x720 at 30 fps) burns the clock into every picture, so
ages are true ones: from drawing the picture in the server to the moment it would be shown. All read over TCP, in turn.
Segmenting is a wait of 1, 2 or 10 frame periods: the speed needed, half of it, a tenth of it; `--model` adds the
built-in model itself, as fast as this machine has it. The first seconds of each run are left out.

    naive        read, segment, show in one loop with OpenCV
    grabber      a thread reads with OpenCV and keeps the newest picture, the loop takes it
    stream-seg   this project

The target for stream-seg's p99 is one inference and two frame periods, and the grabber's p99 plus one frame period.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2  # before PyAV, see stream_seg/sources/__init__.py
import numpy as np
from numpy.typing import NDArray

from stream_seg.detections import Detections
from stream_seg.frame import Frame, Image, SourceInfo
from stream_seg.pipeline import Pipeline
from stream_seg.protocols import Outcome, Segmenter, Sink
from stream_seg.segmenters import load_segmenter
from stream_seg.sources import open_source

SERVER = Path(__file__).resolve().parents[1] / "tests" / "testbed" / "rtsp_server.py"
PERIOD = 1 / 30
CLOCK_BITS = 44
SETTLING_SECONDS = 3.0
"""What is not counted: a connection begins with pictures that waited for it, and the other ways take longer to open."""

Ages = list[float]
AnyImage = NDArray[np.integer | np.floating]
"""What OpenCV says it reads."""

Segment = Callable[[AnyImage], object]


def age_of(image: AnyImage) -> float:
    """Seconds since the server drew the picture, by the clock in its top rows."""
    block = image.shape[1] // CLOCK_BITS
    blocks = image[8, block // 2 : CLOCK_BITS * block : block].mean(axis=1)
    return time.time() - sum(1 << bit for bit, value in enumerate(blocks) if value > 127) / 1000


def naive(url: str, segment: Segment, seconds: float) -> Ages:
    capture, ages = _opened(url), Ages()
    begins = time.monotonic() + SETTLING_SECONDS
    while time.monotonic() < begins + seconds:
        done, image = capture.read()
        if not done:
            break
        segment(image)
        if time.monotonic() > begins:
            ages.append(age_of(image))
    capture.release()
    return ages


def grabber(url: str, segment: Segment, seconds: float) -> Ages:
    capture, ages = _opened(url), Ages()
    newest: list[AnyImage] = []
    changed, ended = threading.Condition(), threading.Event()

    def grab() -> None:
        while not ended.is_set():
            done, image = capture.read()
            if not done:
                return
            with changed:
                newest[:] = [image]
                changed.notify()

    thread = threading.Thread(target=grab)
    thread.start()
    begins = time.monotonic() + SETTLING_SECONDS
    while time.monotonic() < begins + seconds:
        with changed:
            changed.wait_for(lambda: newest, timeout=1)
            images = newest[:]
            newest.clear()
        for image in images:
            segment(image)
            if time.monotonic() > begins:
                ages.append(age_of(image))
    ended.set()
    thread.join()
    capture.release()
    return ages


class Ager(Sink):
    """Notes the age of every picture that reaches it once things have settled, and ends the run in time."""

    def __init__(self, seconds: float) -> None:
        self.ages = Ages()
        self._seconds = seconds
        self._begins: float | None = None

    def open(self, info: SourceInfo) -> None:  # noqa: ARG002  what it is does not matter
        """The source has answered."""
        self._begins = time.monotonic() + SETTLING_SECONDS

    def write(self, frame: Frame, detections: Detections) -> None:  # noqa: ARG002  only the clock counts
        if self._begins is not None and time.monotonic() > self._begins:
            self.ages.append(age_of(frame.image))

    def close(self, outcome: Outcome) -> None:
        """Nothing to finish."""

    def wants_stop(self) -> bool:
        return self._begins is not None and time.monotonic() > self._begins + self._seconds


class Waiting:
    """A segmenter that takes its time and finds nothing."""

    class_names = ("thing",)
    max_batch = 1

    def __init__(self, segment: Segment) -> None:
        self._segment = segment

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        for image in images:
            self._segment(image)
        return [Detections.none(self.class_names)] * len(images)


def stream_seg(url: str, segmenter: Segmenter, seconds: float) -> Ages:
    sink = Ager(seconds)
    Pipeline(open_source(url), segmenter, sinks=[sink]).run()
    return sink.ages


def _opened(url: str) -> cv2.VideoCapture:
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "rtsp_transport;tcp"
    return cv2.VideoCapture(url, cv2.CAP_FFMPEG)


@contextlib.contextmanager
def server(*options: str) -> Iterator[str]:
    """A camera of its own for each run, so that no backlog is handed on; yields its address."""
    command = ["/usr/bin/python3", str(SERVER), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"rtsp://127.0.0.1:{process.stdout.readline().split()[1]}/cam"
        finally:
            process.kill()


def row(name: str, inference: float, ages: Ages) -> str:
    p50, p95, p99 = (float(np.quantile(ages, share)) * 1000 for share in (0.5, 0.95, 0.99))
    target = (inference + 2 * PERIOD) * 1000
    return f"| {name} | {p50:.0f} | {p95:.0f} | {p99:.0f} | {target:.0f} | {len(ages)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--model", action="store_true", help="also with the built-in model")
    args = parser.parse_args()
    print("| way, inference | p50 ms | p95 ms | p99 ms | inference + 2 periods | frames |\n|---|---|---|---|---|---|")
    for periods in (1, 2, 10):
        inference = periods * PERIOD

        def segment(image: AnyImage, seconds: float = inference) -> None:  # noqa: ARG001
            time.sleep(seconds)

        _compare(f"{inference * 1000:.0f} ms", inference, segment, Waiting(segment), args)
    if args.model:
        with load_segmenter("compact", device="cpu") as segmenter:
            segmenter.warm_up((1280, 720))
            blank = [np.zeros((720, 1280, 3), np.uint8)]
            times = []
            for _ in range(20):
                began = time.perf_counter()
                segmenter(blank)
                times.append(time.perf_counter() - began)
            inference = statistics.median(times)
            _compare(
                f"the model ({inference * 1000:.0f} ms)",
                inference,
                lambda image: segmenter([image.astype(np.uint8, copy=False)]),
                segmenter,
                args,
            )


def _compare(title: str, inference: float, segment: Segment, segmenter: Segmenter, args: argparse.Namespace) -> None:
    gathered: dict[str, Ages] = {"naive": [], "grabber": [], "stream-seg": []}
    for _ in range(args.rounds):
        for name, ages in gathered.items():
            with server() as url:
                if name == "stream-seg":
                    ages += stream_seg(url, segmenter, args.seconds)
                else:
                    ages += {"naive": naive, "grabber": grabber}[name](url, segment, args.seconds)
    for name, ages in gathered.items():
        print(row(f"{name}, {title}", inference, ages), flush=True)


if __name__ == "__main__":
    main()
