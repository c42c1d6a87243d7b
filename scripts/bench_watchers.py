"""How old a camera's picture is for those who watch from elsewhere, and what each way costs.

    python scripts/bench_watchers.py [--seconds 12] [--rounds 1]

The camera of bench_latency.py, 1280x720 at 30 fps with the clock burnt in, goes through the built-in model; the true
age of each picture is taken where a watcher, a process on the same machine, has it decoded. Cores are those busy in
our process and its children, without the watcher. The first seconds of each run are left out.

    window       what a window would show: the age before any way elsewhere
    page         --serve: the page's own requests, JPEG decoded by OpenCV
    stream       --serve: /stream.mjpg, read and decoded likewise
    server       -o udp://: H.264 in MPEG-TS, decoded by PyAV
    pipe         -o -: H.264 in Matroska through a pipe, decoded by PyAV
    ffmpeg       how it is usually done: raw pictures through a pipe into ffmpeg (libx264, ultrafast, zerolatency),
                 which sends them as -o udp:// does; decoded as that
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

from bench_latency import SETTLING_SECONDS, Ager, Ages, age_of, server  # which imports OpenCV before PyAV

import av  # isort: skip
import cv2
import numpy as np

from stream_seg.detections import Detections
from stream_seg.frame import Frame, SourceInfo
from stream_seg.pipeline import Pipeline
from stream_seg.protocols import Outcome, Sink
from stream_seg.segmenters import load_segmenter
from stream_seg.sinks import Page, PipedVideo, Publisher
from stream_seg.sources import open_source

AT_ONCE = {"fflags": "nobuffer", "flags": "low_delay", "probesize": "5000", "analyzeduration": "0"}
"""How a player is told not to hold pictures back."""


class Watcher:
    """Notes the age of every picture it is given, once things have settled."""

    def __init__(self) -> None:
        self.ages = Ages()
        self._begins: float | None = None

    @property
    def begun(self) -> bool:
        """Whether there was a picture."""
        return self._begins is not None

    def __call__(self, image: np.ndarray) -> None:
        now = time.monotonic()
        self._begins = now + SETTLING_SECONDS if self._begins is None else self._begins
        if now > self._begins:
            self.ages.append(age_of(image))


def watch_page(url: str, watcher: Watcher) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    number = "0"
    while True:
        connection.request("GET", f"/picture.jpg?after={number}")
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            return
        number = answer.headers["Picture-Number"]
        watcher(decoded(answer.read()))


def watch_stream(url: str, watcher: Watcher) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request("GET", "/stream.mjpg")
    answer = connection.getresponse()
    while line := answer.readline():
        if line.lower().startswith(b"content-length:"):
            answer.readline()
            watcher(decoded(answer.read(int(line.split(b":")[1]))))


def decoded(jpeg: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def watch_video(url: str, watcher: Watcher) -> None:
    with contextlib.suppress(av.FFmpegError), av.open(url, options=AT_ONCE) as container:
        stream = container.streams.video[0]
        stream.thread_type = "SLICE"
        for picture in container.decode(stream):
            watcher(picture.to_ndarray(format="gray")[..., None])


class Fed(Sink):
    """The usual way: a child ffmpeg that is fed raw pictures."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._process: subprocess.Popen[bytes] | None = None

    def open(self, info: SourceInfo) -> None:
        width, height = info.size
        raw = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{width}x{height}", "-r", "30", "-i", "-"]
        coded = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "30", "-pix_fmt", "yuv420p"]
        command = ["ffmpeg", "-loglevel", "error", *raw, *coded, "-f", "mpegts", self._url]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)

    def write(self, frame: Frame, detections: Detections) -> None:  # noqa: ARG002
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(frame.image.tobytes())

    def close(self, outcome: Outcome) -> None:  # noqa: ARG002
        if self._process is not None:
            self._process.communicate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def free_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        return f"udp://127.0.0.1:{taken.getsockname()[1]}"


def watching(kind: str, url: str) -> subprocess.Popen[bytes]:
    """A watcher, which is a process as it would be: one of ours would have to share Python's lock."""
    command = [sys.executable, __file__, "--watch", kind, url]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def measured(name: str, seconds: float) -> tuple[Ages, float]:
    """The ages of the pictures, and how many cores were busy beside the watcher's."""
    ager = Ager(seconds + SETTLING_SECONDS)
    sinks: list[Sink] = [ager]
    with server() as url, load_segmenter("compact", device="cpu") as segmenter:
        watcher: subprocess.Popen[bytes] | None = None
        if name in ("page", "stream"):
            port = free_port()
            sinks.append(Page(port))
            watcher = watching(name, f"http://127.0.0.1:{port}/")
        elif name == "pipe":
            watcher = watching("video", "pipe:0")
            assert watcher.stdin is not None
            sinks.append(PipedVideo(watcher.stdin))
        elif name in ("server", "ffmpeg"):
            address = free_address()
            sinks.append(Publisher(address) if name == "server" else Fed(f"{address}?pkt_size=1316"))
            watcher = watching("video", f"{address}?timeout=3000000&fifo_size=50000")
        before, began = sum(os.times()[:4]), time.monotonic()
        Pipeline(open_source(url), segmenter, sinks=sinks).run()
        cores = (sum(os.times()[:4]) - before) / (time.monotonic() - began)
    if watcher is None:
        return ager.ages, cores
    return json.loads(watcher.communicate()[0]), cores


def watch(kind: str, url: str) -> None:
    """What a watcher does: wait until there is something, watch to its end, print the ages."""
    watcher = Watcher()
    look = {"page": watch_page, "stream": watch_stream, "video": watch_video}[kind]
    until = time.monotonic() + 20
    while not watcher.begun and time.monotonic() < until:
        with contextlib.suppress(OSError, http.client.HTTPException):
            look(url, watcher)
        time.sleep(0.05)
    print(json.dumps(watcher.ages))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ways", nargs="+", default=["window", "page", "stream", "server", "pipe", "ffmpeg"])
    parser.add_argument("--watch", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.watch:
        watch(*args.watch)
        return
    gathered: dict[str, Ages] = {name: [] for name in args.ways}
    cores: dict[str, list[float]] = {name: [] for name in args.ways}
    for _ in range(args.rounds):
        for name in args.ways:
            ages, busy = measured(name, args.seconds)
            gathered[name] += ages
            cores[name].append(busy)
    print("| watched by | p50 ms | p95 ms | p99 ms | frames/s | cores |\n|---|---|---|---|---|---|")
    for name, ages in gathered.items():
        p50, p95, p99 = (float(np.quantile(ages, share)) * 1000 for share in (0.5, 0.95, 0.99))
        rate = len(ages) / ((args.seconds + SETTLING_SECONDS) * args.rounds)  # from when a watcher had settled
        print(f"| {name} | {p50:.0f} | {p95:.0f} | {p99:.0f} | {rate:.1f} | {np.median(cores[name]):.2f} |", flush=True)


if __name__ == "__main__":
    main()
