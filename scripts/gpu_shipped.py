"""What ships, on a GPU: the built-in model beside the CPU, calls of all sizes, a recording. For gpu_check.py.

It goes through `load_segmenter` and the command, as users do; nothing is set that they would not get.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stream_seg import load_segmenter
from stream_seg.detections import Detections
from stream_seg.frame import Image
from stream_seg.segmenters import ModelSegmenter
from stream_seg.sources import open_source

ROOT = Path(__file__).parents[1]
CLIP = ROOT / "samples" / "clip.mp4"
MODELS = ROOT / "models" / "compact"

SCORE, EDGE = 0.02, 3.0
"""How far scores, and edges in pixels of the frame, of a detection may differ between devices: TF32 keeps ten bits."""


def frames(count: int) -> list[Image]:
    """The first so many frames of the sample, from the start again where it is shorter."""
    with open_source(str(CLIP)) as source:
        some = [frame.image for _, frame in zip(range(count), source, strict=False)]
    return [some[i % len(some)] for i in range(count)]


def agreement(device: str, images: Sequence[Image], long_side: int | None) -> dict[str, float]:
    """How many detections of fp32 on the CPU the same file finds on the device, and how many more."""
    file = MODELS / "fp32.onnx"
    with load_segmenter(file, device="cpu", long_side=long_side) as cpu:
        expected = [found for image in images for found in cpu([image])]
    with load_segmenter(file, device=device, long_side=long_side) as segmenter:
        size = segmenter.max_batch
        got = [found for i in range(0, len(images), size) for found in segmenter(images[i : i + size])]
    found = sum(_matched(one, other) for one, other in zip(expected, got, strict=True))
    return {"expected": sum(map(len, expected)), "found": found, "more": sum(map(len, got)) - found}


def _matched(expected: Detections, got: Detections) -> int:
    free, matched = set(range(len(got))), 0
    for box, label, certain in zip(expected.boxes, expected.class_ids, expected.scores, strict=True):
        for other in sorted(free):
            near = np.abs(got.boxes[other] - box).max() <= EDGE and abs(got.scores[other] - certain) <= SCORE
            if near and got.class_ids[other] == label:
                free.remove(other)
                matched += 1
                break
    return matched


def calls(device: str, images: Sequence[Image], seconds: float, long_side: int | None) -> dict[str, float]:
    """Milliseconds of calls with 1, 4 and 8 images, and of an image in calls of all sizes in turn.

    Where the last is far above what those sizes take by themselves, something is planned anew in each call.
    """
    with load_segmenter("compact", device=device, long_side=long_side) as segmenter:
        height, width = images[0].shape[:2]
        start = time.perf_counter()
        segmenter.warm_up((width, height), 8)
        told = {"warm-up": 1000 * (time.perf_counter() - start)}
        for size in (1, 4, 8):
            times = _timed(segmenter, images, seconds, (size,))
            told[f"{size} images, median"] = 1000 * float(np.median(times))
            told[f"{size} images, p99"] = 1000 * float(np.percentile(times, 99))
        mixed = (1, 3, 8, 2, 7, 1, 5, 4)
        times = _timed(segmenter, images, seconds, mixed)
        whole = len(times) // len(mixed) * len(mixed)
        told["an image in calls of 1 to 8"] = 1000 * sum(times[:whole]) / (whole / len(mixed) * sum(mixed))
    return told


def _timed(segmenter: ModelSegmenter, images: Sequence[Image], seconds: float, sizes: Sequence[int]) -> list[float]:
    """Seconds of each call, whose sizes come in turn, at least two rounds of them; a first one is left out."""
    times: list[float] = []
    at = 0
    while len(times) < 2 * max(len(sizes), 8) + 1 or sum(times) < seconds:
        count = sizes[(len(times) - 1) % len(sizes)]
        taken = [images[(at + i) % len(images)] for i in range(count)]
        at += count
        start = time.perf_counter()
        segmenter(taken)
        times.append(time.perf_counter() - start)
    return times[1:]


def recording(device: str, sources: int) -> dict[str, Any]:
    """Figures of the command on the sample, or on so many copies of it side by side, into one video."""
    with tempfile.TemporaryDirectory() as folder:
        named = [str(CLIP)] * sources
        target = str(Path(folder) / "out.mp4")
        told = Path(folder) / "told.json"
        command = [sys.executable, "-m", "stream_seg", *named, "-o", target, "--metrics", str(told), "--quiet"]
        done = subprocess.run(
            [*command, "--device", device, "--no-show"], cwd=ROOT, capture_output=True, text=True, timeout=180
        )
        if done.returncode != 0:
            *_, last = done.stderr.strip().splitlines() or ["nothing said"]
            raise RuntimeError(f"{last[-300:]} (exit {done.returncode} of {' '.join(command)})")
        figures = json.loads(told.read_text("utf-8"))
    wanted = ("captured", "delivered", "fps", "latency_p50", "latency_p99", "busy", "limited_by", "mean_batch")
    return {key: figures[key] for key in wanted} | {"provider": figures["model"]["provider"]}


def used_memory() -> float:
    """MiB of the GPU that are in use, by all programs, as nvidia-smi says."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.split()[0])


def memory(device: str, images: Sequence[Image], seconds: float) -> list[float]:
    """MiB in use ten times during calls of all sizes: it must not keep growing."""
    told = []
    with load_segmenter("compact", device=device, score_threshold=0.05) as segmenter:
        for _ in range(10):
            _timed(segmenter, images, seconds, range(1, 9))
            told.append(used_memory())
    return told
