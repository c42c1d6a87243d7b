"""Compares ways of giving a CPU's cores to the network: alone, and with a decoder and an encoder running beside it.

Run from a checkout: `python scripts/bench_threads.py [--model FILE] [--canvas 416x256] [--rounds N]`. All ways take
turns in one run, and medians are printed, because machines are never quiet; the CPU time per image is what counts
once decoder and encoder want the cores as well. `stream_seg/segmenters/session.py` follows
what this prints.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from skimage import data

from stream_seg.channel import Channel
from stream_seg.frame import Image
from stream_seg.geometry import Letterbox

import av  # isort: skip  after cv2, or windows hang

FRAMES = 48
SIZE = (1280, 720)


@dataclass
class Way:
    """One layout: `runs` images at once, `threads` for each, `batch` images per call."""

    name: str
    threads: int
    runs: int = 1
    batch: int = 1
    config: dict[str, str] = field(default_factory=dict)
    alone: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)


def ways(cores: int) -> list[Way]:
    spin, stop = "session.intra_op.allow_spinning", "session.force_spinning_stop"
    return [
        Way("one image, 1 thread", 1),
        Way(f"one image, {cores} threads, spinning", cores),
        Way(f"one image, {cores} threads, spinning within a run", cores, config={stop: "1"}),
        Way(f"one image, {cores} threads, not spinning", cores, config={spin: "0"}),
        Way(f"{cores} images at once, 1 thread each", 1, cores, cores),
        Way(f"{cores} at once of {2 * cores} waiting, 1 thread each", 1, cores, 2 * cores),
    ]


class Network:
    """Letterboxes and runs images as one `Way` says."""

    def __init__(self, model: Path, way: Way, canvas: tuple[int, int]) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = way.threads
        for key, value in way.config.items():
            options.add_session_config_entry(key, value)
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._letterbox = Letterbox(SIZE, canvas)
        self._pool = ThreadPoolExecutor(way.runs) if way.runs > 1 else None

    def __call__(self, images: Sequence[Image]) -> None:
        deque(self._pool.map(self._one, images) if self._pool else map(self._one, images), maxlen=0)

    def _one(self, image: Image) -> None:
        canvas = np.empty((1, self._letterbox.canvas[1], self._letterbox.canvas[0], 3), np.uint8)
        self._letterbox.apply(image, canvas[0])
        sizes = np.array([self._letterbox.valid[::-1]], np.float32)
        self._session.run(None, {"images": canvas, "sizes": sizes})


def main() -> None:
    arguments = parse()
    width, _, height = arguments.canvas.partition("x")
    compared = ways(arguments.cores)
    networks = [Network(arguments.model, way, (int(width), int(height))) for way in compared]
    with tempfile.TemporaryDirectory() as folder:
        clip = make_clip(Path(folder) / "clip.mp4")
        for _ in range(arguments.rounds + 1):
            for way, network in zip(compared, networks, strict=True):
                measure(way, network, clip)
    report(compared)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/compact/int8.onnx"))
    parser.add_argument("--canvas", default="416x256")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, default=2)
    return parser.parse_args()


def measure(way: Way, network: Network, clip: Path) -> None:
    images = list(itertools.islice(decode(clip), 2 * way.batch))
    way.latency.append(seconds(lambda: network(images[:1])))
    used = time.process_time()
    way.alone.append(seconds(lambda: repeat(network, images[: way.batch])))
    way.cpu.append(time.process_time() - used)
    way.beside.append(seconds(lambda: pipeline(way, network, clip)))


def repeat(network: Network, images: Sequence[Image]) -> None:
    for _ in range(FRAMES // len(images)):
        network(images)


def pipeline(way: Way, network: Network, clip: Path) -> None:
    """Decode, network and encode, a thread each, as the real pipeline has them."""
    decoded: Channel[Image] = Channel(way.batch)
    segmented: Channel[Image] = Channel(4)

    def capture() -> None:
        for image in decode(clip):
            decoded.put(image)
        decoded.close()

    encoder = threading.Thread(target=encode, args=(segmented, clip.with_name("out.mp4")))
    threading.Thread(target=capture).start()
    encoder.start()
    for _ in range(FRAMES // way.batch):
        images = [image for _ in range(way.batch) for image in decoded.take(1)]
        network(images)
        for image in images:
            segmented.put(image)
    segmented.close()
    encoder.join()


def decode(clip: Path) -> Iterator[Image]:
    with av.open(str(clip)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="bgr24").astype(np.uint8, copy=False)


def encode(images: Channel[Image], path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for index, image in enumerate(images):
            planes = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), np.uint8)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def photographs() -> tuple[object, object]:
    return data.astronaut(), data.chelsea()  # type: ignore[no-untyped-call]


def make_clip(path: Path) -> Path:
    """Two photographs that drift across the picture."""
    images: Channel[Image] = Channel(FRAMES)
    person, cat = (cv2.cvtColor(np.asarray(photo, np.uint8), cv2.COLOR_RGB2BGR) for photo in photographs())
    for i in range(FRAMES):
        image = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
        image[100 + i : 612 + i, 100 + 2 * i : 612 + 2 * i] = person
        image[200:500, 800 - i : 1251 - i] = cat
        images.put(image)
    images.close()
    encode(images, path)
    return path


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def report(compared: Sequence[Way]) -> None:
    print(f"{'':48}{'alone':>12}{'CPU per image':>16}{'beside decode + encode':>26}{'one image':>12}")
    base = statistics.median(compared[0].beside[1:])
    for way in compared:
        # The first round warms up.
        alone, cpu, beside, latency = (
            statistics.median(times[1:]) for times in (way.alone, way.cpu, way.beside, way.latency)
        )
        print(
            f"{way.name:48}{FRAMES / alone:8.1f} fps{1e3 * cpu / FRAMES:13.1f} ms"
            f"{FRAMES / beside:14.1f} fps, x{base / beside:4.2f}{1e3 * latency:9.1f} ms"
        )


if __name__ == "__main__":
    main()
