"""A long run with several feeds that keep failing, watched from outside: memory, threads, descriptors, files.

    python scripts/soak.py [--seconds 1200] [--feeds 4] [--fault-every 20] [--folder DIR]

Starts as many RTSP servers (tests/testbed/rtsp_server.py) and the command itself,
`stream-seg rtsp://... -o out_{source}.mp4 --segment ...`. In turn one feed after the other has a fault: its server is
killed and started again, stopped and continued, told to send nothing for a while, or comes back with another picture
size. At the end it prints what it saw, and exits with 1 unless

* every feed came back after every fault, no other was disturbed, and the command ended with 130 after SIGINT,
* threads, but for OpenCV's own, and descriptors are no more than in the first minute (or most of a shorter run),
* memory is within 5 % of what it was after the first minute (of a run of at least three),
* every file plays from its first frame to its last, and none lost its name.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import cv2  # noqa: F401  before PyAV, see stream_seg/sources/__init__.py

import av  # isort: skip

SERVER = Path(__file__).resolve().parents[1] / "tests" / "testbed" / "rtsp_server.py"
SIZES = ("640x360", "480x270")
STALL_SECONDS = 2.0
AWAY_SECONDS = 3.0
"""How long a fault lasts; longer than it takes to be noticed."""

RECOVERY_SECONDS = 12.0
"""What the last fault is given before the end: the server starts, the longest back-off, a busy machine."""

LONGEST_OUTAGE = 40.0
"""What a feed is given to come back before the next fault: a first try that meets a busy server may be in vain."""

FAULTS = ("kill", "stop", "freeze", "resize")
OPENCV_WORKERS = (os.cpu_count() or 1) - 1
"""Threads that OpenCV starts, once, when it first resizes a picture: for a camera that comes back with another size."""

MEMORY_TOLERANCE = 0.05


@dataclass
class Camera:
    """One server, on a port it keeps."""

    port: int
    size: str = SIZES[0]
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/cam"

    def start(self) -> None:
        command = ["/usr/bin/python3", str(SERVER), "--port", str(self.port), "--size", self.size, "--fps", "15"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        if not self.process.stdout.readline().startswith("ready"):
            raise SystemExit("the RTSP server does not start; it needs GStreamer, see tests/testbed/rtsp_server.py")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()

    def tell(self, word: str) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def fail(self, fault: str) -> None:
        """Be away for `AWAY_SECONDS`, then back."""
        assert self.process is not None
        if fault == "stop":
            self.process.send_signal(signal.SIGSTOP)
            time.sleep(AWAY_SECONDS)
            self.process.send_signal(signal.SIGCONT)
        elif fault == "freeze":
            self.tell("freeze")
            time.sleep(AWAY_SECONDS)
            self.tell("resume")
        else:
            self.kill()
            if fault == "resize":
                self.size = SIZES[self.size == SIZES[0]]
            time.sleep(AWAY_SECONDS)
            self.start()


@dataclass
class Watch:
    """What the process looks like from outside, once a second: (time, kilobytes, threads, descriptors)."""

    pid: int
    began: float = field(default_factory=time.monotonic)
    seen: list[tuple[float, int, int, int]] = field(default_factory=list)

    def look(self) -> None:
        status = Path(f"/proc/{self.pid}/status").read_text()
        resident = int(re.findall(r"VmRSS:\s+(\d+)", status)[0])
        threads = int(re.findall(r"Threads:\s+(\d+)", status)[0])
        descriptors = len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208  names only
        self.seen.append((time.monotonic() - self.began, resident, threads, descriptors))

    def wait(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            with contextlib.suppress(FileNotFoundError, IndexError):  # it has ended; its exit code tells
                self.look()
            time.sleep(min(1.0, max(0.0, ends - time.monotonic())))

    def median(self, column: int, since: float, until: float) -> float:
        values = [row[column] for row in self.seen if since <= row[0] <= until]
        return statistics.median(values) if values else float("nan")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def soak(args: argparse.Namespace, folder: Path) -> list[str]:
    """Run it all; return what was wrong, nothing if all is well."""
    cameras = [Camera(free_port()) for _ in range(args.feeds)]
    figures, log = folder / "run.json", folder / "log.txt"
    command = [sys.executable, "-m", "stream_seg", *(camera.url for camera in cameras), "--device", "cpu"]
    command += ["-o", str(folder / "out_{source}.mp4"), "--segment", f"{args.segment}s", "--metrics", str(figures)]
    command += ["--stall-timeout", str(STALL_SECONDS), "--no-show"]
    try:
        for camera in cameras:
            camera.start()
        with log.open("w") as errors, subprocess.Popen(command, stderr=errors, stdout=subprocess.DEVNULL) as process:
            watch = Watch(process.pid)
            faults = _run(args, cameras, watch, log)
            process.send_signal(signal.SIGINT)
            code = process.wait(30)
    finally:
        for camera in cameras:
            camera.kill()
    (folder / "seen.json").write_text(json.dumps(watch.seen))
    return _judge(args, watch, faults, code, folder, json.loads(figures.read_text()), log.read_text())


def _run(args: argparse.Namespace, cameras: list[Camera], watch: Watch, log: Path) -> list[int]:
    """Faults until the time is over, each when the one before is; how many each feed had."""
    faults = [0] * len(cameras)
    watch.wait(args.fault_every)
    number = 0
    while time.monotonic() - watch.began < args.seconds - max(args.fault_every, RECOVERY_SECONDS):
        feed, fault = number % len(cameras), FAULTS[(number + number // len(cameras)) % len(FAULTS)]
        print(f"{time.monotonic() - watch.began:6.0f} s  {fault} feed {feed}", flush=True)
        cameras[feed].fail(fault)
        faults[feed] += 1
        number += 1
        watch.wait(args.fault_every - AWAY_SECONDS)
        _wait_until_back(watch, log, number)
    watch.wait(args.seconds - (time.monotonic() - watch.began))
    return faults


def _wait_until_back(watch: Watch, log: Path, number: int) -> None:
    """Wait until feeds came back so many times; that they did in the end is judged later."""
    ends = time.monotonic() + LONGEST_OUTAGE
    while log.read_text().count("is back") < number and time.monotonic() < ends:
        watch.wait(0.5)


def _judge(
    args: argparse.Namespace,
    watch: Watch,
    faults: list[int],
    code: int,
    folder: Path,
    figures: dict[str, object],
    log: str,
) -> list[str]:
    wrong = [] if code == 130 else [f"the command ended with {code} rather than 130"]
    sources = figures["sources"]
    assert isinstance(sources, list)
    for source, expected in zip(sources, faults, strict=True):
        outages = sum(source["outages"].values())
        print(
            f"{source['label']}: {source['delivered']} frames, {source['outages']}, away {source['seconds_away']:.0f} s"
        )
        if outages != expected:
            wrong.append(f"{source['label']} had {expected} faults but {outages} outages")
        if source["error"] is not None:
            wrong.append(f"{source['label']} ended: {source['error']}")
    back = log.count("is back")
    if back != sum(faults):
        wrong.append(f"{sum(faults)} faults, but {back} times a feed came back")
    wrong += _growth(args, watch)
    files = sorted(folder.glob("out_*.mp4"))
    frames = [_frames(path) for path in files]
    print(f"{len(files)} files, {sum(frames)} frames, {sum(source['delivered'] for source in sources)} delivered")
    wrong += [f"{path.name} does not play" for path, count in zip(files, frames, strict=True) if not count]
    wrong += [f"{path.name} never got its name" for path in folder.glob("*.part*")]
    if sum(frames) != figures["delivered"]:
        wrong.append(f"{figures['delivered']} frames were delivered but {sum(frames)} are in the files")
    return wrong


def _growth(args: argparse.Namespace, watch: Watch) -> list[str]:
    wrong = []
    settled = min(60.0, args.seconds * 0.75)
    for column, what, allowed in ((2, "threads", OPENCV_WORKERS), (3, "descriptors", 0)):
        first = max(row[column] for row in watch.seen if row[0] < settled)
        last = watch.median(column, args.seconds - 6, args.seconds)
        print(f"{what}: at most {first} in the first {settled:.0f} s, {last:.0f} at the end")
        if last > first + allowed:
            wrong.append(f"{what} grew from {first} to {last:.0f}")
    if args.seconds >= 180:
        first = watch.median(1, 60, 90)
        last = watch.median(1, args.seconds - 60, args.seconds)
        print(f"memory: {first / 1024:.0f} MB after a minute, {last / 1024:.0f} MB at the end")
        if last > first * (1 + MEMORY_TOLERANCE):
            wrong.append(f"memory grew by {last / first - 1:.1%}")
    return wrong


def _frames(path: Path) -> int:
    try:
        with av.open(str(path)) as container:
            return sum(1 for _ in container.decode(video=0))
    except av.FFmpegError:
        return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--feeds", type=int, default=4)
    parser.add_argument("--fault-every", type=float, default=20.0, metavar="SECONDS")
    parser.add_argument("--segment", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--folder", type=Path, help="where files go (default: a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        wrong = soak(args, folder)
    for line in wrong:
        print(f"WRONG: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
