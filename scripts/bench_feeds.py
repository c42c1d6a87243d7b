"""Many feeds on one model: frames per second in all, and how old pictures are, for 1, 2, 4, 8 and 16 feeds.

    python scripts/bench_feeds.py [--feeds 1,2,4,8,16] [--seconds 12] [--rounds 2] [--size 640x360] [--fps 15]
                                  [--wait MS | --bare]

All feeds come from one RTSP server (tests/testbed/rtsp_server.py), which encodes once however many watch, so that its
work hardly grows with their number; each is received, decoded and segmented by itself with the built-in model. Ages are
true ones, by the clock in the pictures. Numbers of feeds take turns, round after round; medians are printed. With
`--wait` a wait takes the place of the model, so that the processor time is that of receiving and decoding; "CPU ms" is
this process's for each picture received. `--bare` tells what that is for a loop over one feed with PyAV alone, without
and with decoding: no feed can cost less.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from dataclasses import dataclass

from bench_latency import Ager, Waiting, server  # which imports OpenCV before PyAV

# isort: split
import av
import numpy as np

from stream_seg.pipeline import Feed, Pipeline
from stream_seg.protocols import Segmenter
from stream_seg.segmenters import load_segmenter
from stream_seg.sources import open_source


@dataclass(frozen=True)
class Result:
    """Frames per second in all, the fewest and most of one feed, ages in ms, and processor seconds per second.

    `each` is ms of processor time for each picture received.
    `server` is what the camera that all feeds share takes of the same cores, its start included.
    """

    fps: float
    least: float
    most: float
    p50: float
    p99: float
    cores: float
    server: float
    each: float


def measure(feeds: int, segmenter: Segmenter, args: argparse.Namespace) -> Result:
    began_server = os.times()
    with server("--size", args.size, "--fps", str(args.fps)) as url:
        sinks = [Ager(args.seconds) for _ in range(feeds)]
        for sink in sinks:
            sink.wants_pictures = False  # a box found in the texture would be drawn over the clock
        pipeline = Pipeline(
            [Feed(open_source(url), [sink], name=f"feed {number}") for number, sink in enumerate(sinks)], segmenter
        )
        began, before = time.monotonic(), os.times()
        summary = pipeline.run()
        after, took = os.times(), time.monotonic() - began
    ended_server = os.times()  # children count when they have ended
    ages = [age for sink in sinks for age in sink.ages]
    rates = [feed.fps for feed in summary.feeds]
    busy = after.user + after.system - before.user - before.system
    p50, p99 = (float(np.quantile(ages, share)) * 1000 for share in (0.5, 0.99))
    served = ended_server.children_user + ended_server.children_system
    served -= began_server.children_user + began_server.children_system
    return Result(
        summary.fps, min(rates), max(rates), p50, p99, busy / took, served / took, busy * 1000 / summary.captured
    )


def bare(decodes: bool, args: argparse.Namespace) -> float:
    """Processor ms for each picture of one feed, read by a loop of PyAV without threads and timeouts."""
    with (
        server("--size", args.size, "--fps", str(args.fps)) as url,
        av.open(url, options={"rtsp_transport": "tcp"}) as container,
    ):
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        pictures, began, before = 0, time.monotonic(), time.process_time()
        for packet in container.demux(stream):
            pictures += 1
            if decodes:
                stream.decode(packet)
            if time.monotonic() - began > args.seconds:
                break
        return (time.process_time() - before) * 1000 / pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--feeds", default="1,2,4,8,16")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--fps", type=int, default=15)
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--wait", type=float, metavar="MS", help="wait so long for each picture instead of segmenting it"
    )
    instead.add_argument("--bare", action="store_true", help="PyAV alone")
    args = parser.parse_args()
    if args.bare:
        for _ in range(args.rounds):
            print(f"PyAV: reading {bare(False, args):.2f} ms a picture, and decoding {bare(True, args):.2f}")
        return
    numbers = [int(word) for word in args.feeds.split(",")]
    results: dict[int, list[Result]] = {number: [] for number in numbers}
    with contextlib.ExitStack() as stack:
        segmenter: Segmenter = (
            stack.enter_context(load_segmenter("compact", device="cpu"))
            if args.wait is None
            else Waiting(lambda _: time.sleep(args.wait / 1000))
        )
        for _ in range(args.rounds):
            for number in numbers:
                results[number].append(measure(number, segmenter, args))
    print("| feeds | total fps | fps of one feed | p50 ms | p99 ms | cores busy | server | CPU ms |")
    print("|---|---|---|---|---|---|---|---|")
    for number, rounds in results.items():
        fps, least, most, p50, p99, cores, served, each = (
            statistics.median(getattr(result, name) for result in rounds)
            for name in ("fps", "least", "most", "p50", "p99", "cores", "server", "each")
        )
        shares = f"{cores:.2f} | {served:.2f} | {each:.2f}"
        print(f"| {number} | {fps:.1f} | {least:.1f}-{most:.1f} | {p50:.0f} | {p99:.0f} | {shares} |")


if __name__ == "__main__":
    main()
