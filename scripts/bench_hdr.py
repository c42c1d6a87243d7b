"""Measures what it costs to turn pictures of high dynamic range into BGR, beside the same pictures as ordinary ones.

python scripts/bench_hdr.py [--size 1920x1080] [--rounds 25]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc

from stream_seg.cli.arguments import size, whole
from stream_seg.sources.picture import Orientation, PictureConverter

TRANSFERS = {"ordinary": ColorTrc.BT709, "HLG": ColorTrc.ARIB_STD_B67, "PQ": ColorTrc.SMPTE2084}


def noise(width: int, height: int) -> VideoFrame:
    """A 10-bit picture of all colours."""
    rng = np.random.default_rng(0)
    frame = VideoFrame(width, height, "yuv420p10le")
    for plane in frame.planes:
        plane.update(rng.integers(64, 940, plane.buffer_size // 2).astype(np.uint16).tobytes())
    frame.colorspace, frame.color_primaries = Colorspace.BT2020, ColorPrimaries.BT2020
    return frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=size, default=(1920, 1080), metavar="WxH")
    parser.add_argument("--rounds", type=whole, default=25)
    args = parser.parse_args()
    frame = noise(*args.size)
    converters = {name: PictureConverter(args.size, Orientation()) for name in TRANSFERS}
    times: dict[str, list[float]] = {name: [] for name in TRANSFERS}
    for _ in range(args.rounds + 1):  # the first sets up
        for name, transfer in TRANSFERS.items():
            frame.color_trc = transfer
            began = time.perf_counter()
            converters[name](frame)
            times[name].append(1000 * (time.perf_counter() - began))
    for name, (first, *rest) in times.items():
        print(f"{name:9} median {statistics.median(rest):5.1f} ms, fastest {min(rest):5.1f}, first {first:5.1f}")


if __name__ == "__main__":
    main()
