"""Compares what is shown of films with and without `stream_seg.steady`: what is right, found, flickers, shakes.

Run from a checkout: `python scripts/bench_steady.py ANNOTATIONS.json --images DIR [--model NAME|FILE] [--every N]`,
with pictures annotated as for `stream-seg eval`, whose extra it needs. Of films hardly any are annotated, so a camera
looks at each picture, still or moving slowly (by up to 1 % of its width from one frame to the next) or fast (6 %), in a
hand that shakes a little, with a sensor that adds noise and an encoder. All rows judge the same detections.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.detections import Detections
from stream_seg.evaluate import read_annotated
from stream_seg.frame import Frame, Image
from stream_seg.geometry import Boxes, continued
from stream_seg.ground_truth import GroundTruth, read_ground_truth
from stream_seg.segmenters import load_segmenter
from stream_seg.steady import Steady

FRAME_RATE = 30
RIGHT = 0.5
"""Intersection over union with the object, of a detection that is right."""
SAME = 0.3
"""The same with a box in the next frame, which it is then in the place of."""
VISIBLE = 0.5
"""Objects of which less is in the frame may be found or not."""


@dataclass(frozen=True, slots=True)
class Camera:
    """How much of a picture it sees, as a share of its sides, in how many frames, and where it moves."""

    name: str
    least: float
    most: float
    frames: int
    way: Literal["none", "any", "corner to corner"]


CAMERAS = (
    Camera("still", 0.70, 0.95, 24, "none"),
    Camera("slow", 0.70, 0.95, 24, "any"),
    Camera("fast", 0.55, 0.65, 12, "corner to corner"),
)


@dataclass(slots=True)
class Way:
    """One way to choose what is shown, and what came of it, summed over all frames."""

    name: str
    threshold: float
    steady: bool
    shown: int = 0
    right: int = 0
    flickers: int = 0
    shakes: float = 0.0
    pairs: int = 0
    film: list[Detections] = field(default_factory=list)

    def watch(self, frames: Sequence[tuple[Frame, Detections]]) -> None:
        """Choose what is shown of each frame."""
        follow = Steady()
        self.film = []
        for frame, found in frames:
            kept = found[found.scores > self.threshold]
            self.film.append(follow(frame, kept) if self.steady else kept)

    def judge(self, truths: Sequence[tuple[Detections, Detections]], views: Sequence[NDArray[np.float64]]) -> None:
        """Count what of it is right, what was not there one frame before or after, and how far what was has moved."""
        for shown, (objects, either) in zip(self.film, truths, strict=True):
            is_right = continued(shown, objects, RIGHT)[0] >= 0
            self.right += int(is_right.sum())
            self.shown += int((is_right | ~_inside(shown, either)).sum())
        placed = [_in_picture(shown.boxes, view) for shown, view in zip(self.film, views, strict=True)]
        for i, (before, after) in enumerate(pairwise(self.film)):
            which, _ = continued(after, before, SAME)
            kept = which >= 0
            self.flickers += len(before) + len(after) - 2 * int(kept.sum())
            steps = np.abs(placed[i + 1][kept] - placed[i][which[kept]]).mean(1)
            self.shakes += float((steps / np.sqrt(_areas(placed[i + 1][kept]))).sum())
            self.pairs += int(kept.sum())


def main() -> None:
    """Print a table for each camera."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--threshold", type=float, default=0.4)
    parser.add_argument("--every", type=int, default=1, help="take every Nth picture (default: %(default)s)")
    args = parser.parse_args()
    truth = read_ground_truth(args.annotations)
    with load_segmenter(args.model, device="cpu", score_threshold=args.threshold) as segmenter:
        for camera in CAMERAS:
            rng = np.random.default_rng(0)
            thresholds = (args.threshold, args.threshold + 0.05, args.threshold + 0.1)
            ways = [Way(f"each frame, {least:g}", least, steady=False) for least in thresholds]
            ways.append(Way(f"steady, {args.threshold:g}", args.threshold, steady=True))
            frames_seen = objects = 0
            for picture in sorted(truth.boxes.imgs)[:: args.every]:
                entry = truth.boxes.imgs[picture]
                image = read_annotated(args.images / entry["file_name"], (entry["height"], entry["width"]))
                views = list(_moves(camera, image.shape[1::-1], rng))
                images = [_taken(image, view, rng) for view in views]
                frames = [Frame(one, i, Fraction(i, FRAME_RATE), 0.0) for i, one in enumerate(images)]
                found = [segmenter([one])[0] for one in images]
                truths = [_seen(truth, picture, view, image.shape[1::-1], segmenter.class_names) for view in views]
                for way in ways:
                    way.watch(list(zip(frames, found, strict=True)))
                    way.judge(truths, views)
                frames_seen += len(frames)
                objects += sum(len(certain) for certain, _ in truths)
            print(f"{camera.name}: {frames_seen} frames, {objects} objects in them")
            print("| shown | boxes per frame | right | found | boxes that come or go, per frame | edges shake by |")
            print("|---|---|---|---|---|---|")
            for way in ways:
                right, recall = way.right / max(way.shown, 1), way.right / objects
                row = [f"{way.shown / frames_seen:.2f}", f"{right:.1%}", f"{recall:.1%}"]
                row += [f"{way.flickers / frames_seen:.2f}", f"{way.shakes / max(way.pairs, 1):.2%}"]
                print(f"| {way.name} | {' | '.join(row)} |")


def _moves(camera: Camera, size: Sequence[int], rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """The affine map (2, 3) from the picture to each frame, which is as large."""
    zoom = rng.uniform(camera.least, camera.most, 2)
    ends = rng.uniform(0, 1, (2, 2))
    if camera.way == "none":
        zoom[1], ends[1] = zoom[0], ends[0]
    elif camera.way == "corner to corner":
        ends[0] = ends[0].round()
        ends[1] = 1 - ends[0]
    for share in np.linspace(0, 1, camera.frames):
        side = zoom[0] + (zoom[1] - zoom[0]) * share
        corner = (ends[0] + (ends[1] - ends[0]) * share) * (1 - side) * size + rng.normal(0, 0.7, 2)
        yield np.column_stack([np.eye(2), -corner]) / side


def _taken(image: Image, view: NDArray[np.float64], rng: np.random.Generator) -> Image:
    size = image.shape[1], image.shape[0]
    seen = cv2.warpAffine(image, view, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    noisy = np.clip(seen + rng.normal(0, 3, seen.shape), 0, 255).astype(np.uint8)
    _, packed = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 75])
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)


def _seen(
    truth: GroundTruth, picture: int, view: NDArray[np.float64], size: Sequence[int], names: tuple[str, ...]
) -> tuple[Detections, Detections]:
    """The objects in a frame; and those that may be found or not: crowds, and what is mostly outside."""
    categories = {entry["id"]: entry["name"] for entry in truth.boxes.dataset["categories"]}
    entries = [entry for entry in truth.boxes.imgToAnns[picture] if categories[entry["category_id"]] in names]
    corners = np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 2, 2)
    corners[:, 1] += corners[:, 0]
    moved = (corners @ view[:, :2].T + view[:, 2]).reshape(-1, 4)
    boxes = moved.clip(0, [*size, *size])
    visible = (boxes[:, 2:] - boxes[:, :2]).prod(1) / np.maximum((moved[:, 2:] - moved[:, :2]).prod(1), 1e-9)
    ids = np.array([names.index(categories[entry["category_id"]]) for entry in entries], np.int64)
    count = len(entries)
    everything = Detections(
        boxes.astype(np.float32), np.ones(count, np.float32), ids, np.ones((count, 1, 1), np.float32), names
    )
    certain = (visible >= VISIBLE) & np.array([not entry["iscrowd"] for entry in entries], np.bool_)
    return everything[certain], everything[~certain & (visible > 0)]


def _in_picture(boxes: Boxes, view: NDArray[np.float64]) -> NDArray[np.float64]:
    """Boxes of a frame in the pixels of the picture, in which nothing moves."""
    corners = boxes.reshape(-1, 2, 2).astype(np.float64) - view[:, 2]
    return np.asarray(corners @ np.linalg.inv(view[:, :2]).T).reshape(-1, 4)


def _inside(shown: Detections, regions: Detections) -> NDArray[np.bool_]:
    """Which detections lie by half in a region of their class."""
    if not len(regions):
        return np.zeros(len(shown), np.bool_)
    sides = np.minimum(shown.boxes[:, None, 2:], regions.boxes[:, 2:]) - np.maximum(
        shown.boxes[:, None, :2], regions.boxes[:, :2]
    )
    share = sides.clip(0).prod(2) / np.maximum(_areas(shown.boxes)[:, None], 1e-9)
    return np.asarray(((share > 0.5) & (shown.class_ids[:, None] == regions.class_ids)).any(1))


def _areas(boxes: Boxes | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).prod(1), np.float64)


if __name__ == "__main__":
    main()
