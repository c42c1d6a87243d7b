"""Compares what is shown of films with and without `stream_seg.steady`: what is right, found, flickers, shakes, how
well masks fit, and how many numbers an object gets.

Run from a checkout: `python scripts/bench_steady.py ANNOTATIONS.json --images DIR [--model NAME|FILE] [--every N]`,
with pictures annotated as for `stream-seg eval`, whose extra it needs. Of films hardly any are annotated, so a camera
looks at each picture, still or moving slowly (by up to 2 % of its width from one frame to the next) or fast (6 %), in a
hand that shakes a little, with a sensor that adds noise and an encoder. All rows judge the same detections, but for the
last one: those of every other frame mirrored, of a model that may be shown them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.agreement import agreed
from stream_seg.detections import Detections
from stream_seg.evaluate import read_annotated
from stream_seg.frame import Frame, Image
from stream_seg.geometry import Boxes, continued, mirrored, mirrored_back, paste
from stream_seg.ground_truth import GroundTruth, read_ground_truth
from stream_seg.segmenters import ModelSegmenter, load_segmenter
from stream_seg.segmenters.filter import ClassFilter
from stream_seg.steady import DOUBTFUL, Steady

if TYPE_CHECKING:
    from pycocotools.coco import _Annotation

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
    moves: Literal["not", "anyhow", "corner to corner"]


CAMERAS = (
    Camera("still", 0.70, 0.95, 24, "not"),
    Camera("slow", 0.70, 0.95, 24, "anyhow"),
    Camera("fast", 0.55, 0.65, 12, "corner to corner"),
)


@dataclass(frozen=True, slots=True)
class Film:
    """Frames with all that was found in each, and mirrored; where each looks; the objects in it, and what may be found
    or not.

    `outlines` are the masks of numbered objects in the picture, uint8, of those that have one.
    """

    frames: Sequence[tuple[Frame, Detections, Detections]]
    views: Sequence[NDArray[np.float64]]
    truths: Sequence[tuple[Detections, Detections]]
    outlines: Mapping[int, NDArray[np.uint8]]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture and of each frame."""
        height, width = self.frames[0][0].image.shape[:2]
        return width, height


@dataclass(slots=True)
class Way:
    """One way to choose what is shown, and what came of it, summed over all frames; `mirrored`: by turns."""

    name: str
    threshold: float
    steady: bool
    mirrored: bool = False
    shown: int = 0
    right: int = 0
    flickers: int = 0
    shakes: float = 0.0
    pairs: int = 0
    fits: float = 0.0
    outlined: int = 0
    wavers: float = 0.0
    met: int = 0
    numbers: int = 0

    def judge(self, film: Film) -> None:
        """Count what is right of what is shown, what comes or goes from frame to frame, how far the rest moves."""
        shows = self._watch(film)
        numbers: set[tuple[int, int]] = set()
        pasted = [paste(shown, film.size) for shown in shows]
        for shown, masks, view, (objects, either) in zip(shows, pasted, film.views, film.truths, strict=True):
            which, _ = continued(shown, objects, RIGHT)
            is_right = which >= 0
            if objects.ids is not None and shown.ids is not None:
                numbers.update(zip(objects.ids[which[is_right]].tolist(), shown.ids[is_right].tolist(), strict=True))
            self._fit(film, view, objects, which, masks)
            self.right += int(is_right.sum())
            self.shown += int((is_right | ~_inside(shown, either)).sum())
        self.met += len({which for which, _ in numbers})
        self.numbers += len(numbers)
        placed = [_in_picture(shown.boxes, view) for shown, view in zip(shows, film.views, strict=True)]
        drawn = [_masks_in_picture(masks, view, film.size) for masks, view in zip(pasted, film.views, strict=True)]
        resting = [replace(shown, boxes=boxes.astype(np.float32)) for shown, boxes in zip(shows, placed, strict=True)]
        for i, (before, after) in enumerate(pairwise(resting)):
            which, _ = continued(after, before, SAME)
            kept = which >= 0
            self.wavers += sum(1 - _shared(drawn[i + 1][j], drawn[i][which[j]]) for j in np.flatnonzero(kept))
            self.flickers += len(before) + len(after) - 2 * int(kept.sum())
            steps = np.abs(placed[i + 1][kept] - placed[i][which[kept]]).mean(1)
            self.shakes += float((steps / np.sqrt(_areas(placed[i + 1][kept]))).sum())
            self.pairs += int(kept.sum())

    def _fit(
        self,
        film: Film,
        view: NDArray[np.float64],
        objects: Detections,
        which: NDArray[np.int64],
        masks: NDArray[np.bool_],
    ) -> None:
        """Compare masks of what is right, of the objects `which`, with the outlines of those that have one."""
        assert objects.ids is not None
        for i in np.flatnonzero(which >= 0):
            outline = film.outlines.get(int(objects.ids[which[i]]))
            if outline is not None:
                self.fits += _shared(masks[i], _warped(outline, view, film.size))
                self.outlined += 1

    def _watch(self, film: Film) -> list[Detections]:
        follow = Steady(shown_from=self.threshold if self.mirrored else None)
        least = DOUBTFUL * self.threshold if self.mirrored else self.threshold
        looks = [
            (frame, other if self.mirrored and i % 2 else one) for i, (frame, one, other) in enumerate(film.frames)
        ]
        if self.mirrored:
            first, one, other = film.frames[0]
            looks[0] = first, agreed(one, other, least)
        kept = [(frame, found[found.scores > least]) for frame, found in looks]
        return [follow(frame, found) if self.steady else found for frame, found in kept]

    def row(self, frames: int, objects: int) -> str:
        """A row of the table, after films of so many frames with so many objects in them."""
        right, found = self.right / max(self.shown, 1), self.right / max(objects, 1)
        per_frame, flickers = self.shown / frames, self.flickers / frames
        shakes = self.shakes / max(self.pairs, 1)
        fits, wavers = self.fits / max(self.outlined, 1), self.wavers / max(self.pairs, 1)
        numbers = f"{self.numbers / self.met:.3f}" if self.met else "-"
        return (
            f"| {self.name} | {per_frame:.2f} | {right:.1%} | {found:.1%} | {flickers:.2f} | {shakes:.2%} "
            f"| {fits:.1%} | {wavers:.1%} | {numbers} |"
        )


def main() -> None:
    """Print a table for each camera."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--every", type=int, default=1, help="take every Nth picture (default: %(default)s)")
    args = parser.parse_args()
    truth = read_ground_truth(args.annotations)
    annotated = {category["name"] for category in truth.boxes.dataset["categories"]}
    with load_segmenter(args.model, device="cpu", score_threshold=args.threshold, images="films") as model:
        # What is not annotated is not wrong where it is found.
        segmenter = ClassFilter(model, [name for name in model.class_names if name in annotated])
        for camera in CAMERAS:
            rng = np.random.default_rng(0)
            thresholds = (args.threshold, args.threshold + 0.05, args.threshold + 0.1)
            ways = [Way(f"each frame, {least:g}", least, steady=False) for least in thresholds]
            ways.append(Way(f"steady, {args.threshold:g}", args.threshold, steady=True))
            if segmenter.shown_from is not None:
                ways.append(Way(f"steady, mirrored by turns, {args.threshold:g}", args.threshold, True, True))
            frames = objects = 0
            for picture in sorted(truth.boxes.imgs)[:: args.every]:
                film = _film(camera, truth, picture, args.images, segmenter, rng)
                for way in ways:
                    way.judge(film)
                frames += len(film.frames)
                objects += sum(len(certain) for certain, _ in film.truths)
            print(f"{camera.name}: {frames} frames, {objects} objects in them")
            print(
                "| displayed | boxes per frame | precision | recall | flicker | jitter | mask IoU | mask jitter "
                "| IDs per object |"
            )
            print("|---|---|---|---|---|---|---|---|---|")
            for way in ways:
                print(way.row(frames, objects))


def _film(
    camera: Camera, truth: GroundTruth, picture: int, folder: Path, segmenter: ModelSegmenter, rng: np.random.Generator
) -> Film:
    entry = truth.boxes.imgs[picture]
    image = read_annotated(folder / entry["file_name"], (entry["height"], entry["width"]))
    size = image.shape[1::-1]
    views = list(_moves(camera, size, rng))
    frames = [Frame(_taken(image, view, rng), i, Fraction(i, FRAME_RATE), 0.0) for i, view in enumerate(views)]
    return Film(
        [(frame, *_looks(segmenter, frame.image)) for frame in frames],
        views,
        [_seen(truth, picture, view, size, segmenter.class_names) for view in views],
        _outlines(truth, picture, segmenter.class_names),
    )


def _looks(segmenter: ModelSegmenter, image: Image) -> tuple[Detections, Detections]:
    """What is found in an image, and what in its mirror image, where that is asked for; else the same."""
    if segmenter.shown_from is None:
        (found,) = segmenter([image])
        return found, found
    one, other = segmenter([image, mirrored(image)])
    return one, mirrored_back(other, image.shape[1])


def _moves(camera: Camera, size: Sequence[int], rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """The affine map (2, 3) from the picture to each frame, which is as large."""
    zoom = rng.uniform(camera.least, camera.most, 2)
    ends = rng.uniform(0, 1, (2, 2))
    if camera.moves == "not":
        zoom[1], ends[1] = zoom[0], ends[0]
    elif camera.moves == "corner to corner":
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
    """The numbered objects in a frame; and those that may be found or not: crowds, and what is mostly outside."""
    categories = _categories(truth)
    entries = _entries(truth, picture, names)
    corners = np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 2, 2)
    corners[:, 1] += corners[:, 0]
    moved = (corners @ view[:, :2].T + view[:, 2]).reshape(-1, 4)
    boxes = moved.clip(0, [*size, *size])
    visible = (boxes[:, 2:] - boxes[:, :2]).prod(1) / np.maximum((moved[:, 2:] - moved[:, :2]).prod(1), 1e-9)
    ids = np.array([names.index(categories[entry["category_id"]]) for entry in entries], np.int64)
    count = len(entries)
    grids = np.ones((count, 1, 1), np.float32)
    everything = Detections(
        boxes.astype(np.float32), np.ones(count, np.float32), ids, grids, names, np.arange(1, count + 1)
    )
    certain = (visible >= VISIBLE) & np.array([not entry["iscrowd"] for entry in entries], np.bool_)
    return everything[certain], everything[~certain & (visible > 0)]


def _outlines(truth: GroundTruth, picture: int, names: tuple[str, ...]) -> dict[int, NDArray[np.uint8]]:
    """By the numbers that `_seen` gives, the masks of objects in a picture that have one."""
    entries = [truth.masks.anns[entry["id"]] for entry in _entries(truth, picture, names)]
    return {i: truth.masks.annToMask(entry) for i, entry in enumerate(entries, 1) if not entry["iscrowd"]}


def _entries(truth: GroundTruth, picture: int, names: tuple[str, ...]) -> list[_Annotation]:
    categories = _categories(truth)
    return [entry for entry in truth.boxes.imgToAnns[picture] if categories[entry["category_id"]] in names]


def _categories(truth: GroundTruth) -> dict[int, str]:
    return {entry["id"]: entry["name"] for entry in truth.boxes.dataset["categories"]}


def _masks_in_picture(
    masks: NDArray[np.bool_], view: NDArray[np.float64], size: tuple[int, int]
) -> list[NDArray[np.bool_]]:
    """The masks (N, H, W) of a frame in the picture, in which nothing moves."""
    back = np.asarray(cv2.invertAffineTransform(view), np.float64)
    return [_warped(mask.view(np.uint8), back, size) for mask in masks]


def _warped(mask: NDArray[np.uint8], view: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    return np.asarray(cv2.warpAffine(mask, view, size, flags=cv2.INTER_NEAREST), np.bool_)


def _shared(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Intersection over union of masks; of two that are empty 1."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0


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
