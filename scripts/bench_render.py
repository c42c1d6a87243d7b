"""Compare ways to draw on one core, interleaved: ours, full-frame masks, and supervision where it is installed.

    python scripts/bench_render.py [--size 1920x1080] [--objects 30] [--rounds 15]

Medians of the thread's processor time per frame in milliseconds, which waiting for a core does not lengthen, and how
many times as long as our `both` view each takes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from fractions import Fraction

import cv2
import numpy as np

from stream_seg.detections import Detections
from stream_seg.frame import Frame, Image
from stream_seg.geometry import paste
from stream_seg.render import Renderer


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", default="1920x1080", help="WIDTHxHEIGHT of the frame")
    parser.add_argument("--objects", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    cv2.setNumThreads(1)
    frame = Frame(picture((width, height)), 0, Fraction(0), 0.0)
    found = objects(options.objects, (width, height))
    times = measure(ways(frame, found), options.rounds)
    reference = statistics.median(times["stream-seg both"])
    sides = (found.boxes[:, 2:] - found.boxes[:, :2]).mean(0)
    print(
        f"{width}x{height}, {len(found)} objects of {sides[0]:.0f}x{sides[1]:.0f} on average, OpenCV {cv2.__version__}"
    )
    for name, seconds in times.items():
        print(f"{name:24} {statistics.median(seconds) * 1e3:8.2f} ms {statistics.median(seconds) / reference:8.1f} x")


def picture(size: tuple[int, int]) -> Image:
    """Something with detail, the same each time."""
    noise = np.random.default_rng(0).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    return np.asarray(cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def objects(count: int, size: tuple[int, int]) -> Detections:
    """Round objects all over the frame, a tenth to three tenths of its height in size."""
    chance = np.random.default_rng(1)
    sides = chance.uniform(0.1, 0.3, (count, 2)) * size[1]
    corners = chance.uniform(0, 1, (count, 2)) * (np.array(size) - sides)
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    mask = np.clip((1 - np.hypot(x, y)) * 4 + 0.5, 0, 1).astype(np.float32)
    names = ("person", "car", "dog", "potted plant")
    return Detections(
        np.hstack([corners, corners + sides]).astype(np.float32),
        np.sort(chance.uniform(0.4, 1, count).astype(np.float32))[::-1],
        chance.integers(0, len(names), count),
        np.repeat(mask[None], count, 0),
        names,
    )


def ways(frame: Frame, found: Detections) -> dict[str, Callable[[], object]]:
    """What is compared; scores change from call to call as they do in a video, so that labels differ."""
    chance = np.random.default_rng(2)
    both, boxes, masks = Renderer("both"), Renderer("boxes"), Renderer("masks")

    def moved() -> Detections:
        scores = np.clip(found.scores + chance.normal(0, 0.02, len(found)), 0, 1).astype(np.float32)
        return Detections(found.boxes, scores, found.class_ids, found.masks, found.class_names)

    compared: dict[str, Callable[[], object]] = {
        "copying the frame": frame.image.copy,
        "stream-seg both": lambda: both(frame, moved()),
        "stream-seg boxes": lambda: boxes(frame, moved()),
        "stream-seg masks": lambda: masks(frame, moved()),
        "full-frame masks": lambda: full_frame(frame.image, found),
    }
    return compared | supervision_ways(frame.image, found)


def full_frame(image: Image, found: Detections) -> Image:
    """What most demos do: every mask as large as the frame, blended over all of it."""
    drawn = image.copy()
    for mask, box, name in zip(paste(found, image.shape[1::-1]), found.boxes.astype(int), found.names, strict=True):
        layer = drawn.copy()
        layer[mask] = (255, 128, 0)
        drawn = np.asarray(cv2.addWeighted(drawn, 0.55, layer, 0.45, 0), np.uint8)
        cv2.rectangle(drawn, box[:2].tolist(), box[2:].tolist(), (255, 128, 0), 2)
        cv2.putText(drawn, name, box[:2].tolist(), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 1, cv2.LINE_AA)
    return drawn


def supervision_ways(image: Image, found: Detections) -> dict[str, Callable[[], object]]:
    try:
        import supervision  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return {}
    annotators = (supervision.MaskAnnotator(), supervision.BoxAnnotator(), supervision.LabelAnnotator())

    def annotate() -> Image:
        detections = supervision.Detections(
            xyxy=found.boxes, mask=paste(found, image.shape[1::-1]), confidence=found.scores, class_id=found.class_ids
        )
        drawn = image.copy()
        for annotator in annotators:
            drawn = annotator.annotate(drawn, detections)
        return drawn

    return {f"supervision {supervision.__version__}": annotate}


def measure(compared: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each call, one of every way per round, after a round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in compared}
    for _ in range(rounds + 1):
        for name, draw in compared.items():
            start = time.thread_time()
            draw()
            times[name].append(time.thread_time() - start)
    return {name: seconds[1:] for name, seconds in times.items()}


if __name__ == "__main__":
    main()
