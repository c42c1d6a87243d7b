"""Draws augmented training samples with their labels into one picture: look at it before training for hours.

    python scripts/train/preview.py DATA --out preview.png

Masks are tinted by class, boxes without a mask are red, ignored regions dark.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from annotations import read_annotations
from augment import Augmentation, Instance, Sample, Sampler
from batches import canvas_size
from cache import MaskCrop, Pixels, TrainingSet, build_cache
from commands import carry_out, data_parser
from views import View, warp_mask

from stream_seg.errors import OutputError

ROWS, COLUMNS = 3, 4


def main() -> None:
    parser = data_parser(__doc__)
    parser.add_argument("--cache", type=Path, help="decoded pictures of a run; without it they are decoded once more")
    parser.add_argument("--out", type=Path, default=Path("preview.png"))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    carry_out("preview", partial(_preview, args))


def _preview(args: argparse.Namespace) -> None:
    if not (args.out.parent.is_dir() and cv2.haveImageWriter(str(args.out))):
        raise OutputError(f"cannot write {args.out}: name a picture (.png, .jpg) in a folder that is there")
    annotations = read_annotations(args.data / args.train, args.images or args.data)
    with tempfile.TemporaryDirectory() as folder:
        cache = args.cache or Path(folder)
        build_cache(annotations, cache, workers=1)
        data = TrainingSet(annotations, cache, {})
        sampler = Sampler(data, Augmentation(), random.Random(args.seed))
        chosen = random.Random(args.seed).choices(range(len(data.weights)), data.weights.tolist(), k=ROWS * COLUMNS)
        tiles = [_draw(sampler.make(index, canvas_size(320, is_portrait=False))) for index in chosen]
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    if not cv2.imwrite(str(args.out), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)):
        raise OutputError(f"cannot write {args.out}")


def _draw(sample: Sample) -> Pixels:
    image = sample.image.copy()
    height, width = image.shape[:2]
    image[cv2.resize(sample.ignore, (width, height), interpolation=cv2.INTER_NEAREST) > 0] //= 3
    for item in sample.instances:
        _draw_instance(image, item)
    return image


def _draw_instance(image: Pixels, item: Instance) -> None:
    colour = np.random.default_rng(item.label).integers(60, 255, 3, np.uint8)
    outline = (255, 0, 0)
    if item.crop is not None and item.window is not None:
        height, width = image.shape[:2]
        x1, y1, x2, y2 = item.window
        view = View((x2 - x1) / item.crop.shape[1], (y2 - y1) / item.crop.shape[0], x1, y1)
        whole = np.array([0.0, 0.0, width, height])
        inside = warp_mask(MaskCrop(item.crop, 0, 0), view, whole, (height, width)) > 127
        image[inside] = image[inside] // 2 + colour // 2
        outline = int(colour[0]), int(colour[1]), int(colour[2])
    corners = [int(value) for value in item.box.round()]
    cv2.rectangle(image, corners[:2], corners[2:], outline, 1)
    place = corners[0] + 2, corners[1] + 11
    cv2.putText(image, str(item.label), place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1)


if __name__ == "__main__":
    main()
