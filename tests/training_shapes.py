"""A made-up data set: coloured shapes on noise, some of them not annotated, a crowd, boxes without a mask."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SIDES = (160, 128)
"""Width and height of the pictures."""
COLOURS = {"ball": (40, 60, 220), "box": (60, 200, 70), "tent": (220, 120, 40)}
"""BGR. The categories' ids are 7, 3 and 12, and so their labels are not in the order of this list."""
CATEGORIES = {"ball": 7, "box": 3, "tent": 12}


def write_shapes(folder: Path, train: int, val: int) -> None:
    """Write train.json, val.json and the pictures they are about."""
    for name, count, seed in (("train", train, 1), ("val", val, 2)):
        (folder / name).mkdir(parents=True)
        document = _document(folder, name, count, random.Random(seed))
        (folder / f"{name}.json").write_text(json.dumps(document))


def _document(folder: Path, name: str, count: int, rng: random.Random) -> dict[str, Any]:
    categories = [{"id": number, "name": shape} for shape, number in CATEGORIES.items()]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for k in range(count):
        pixels, found = draw(rng)
        file = f"{name}/{k}.png"
        cv2.imwrite(str(folder / file), pixels)
        image = {"id": k, "file_name": file, "width": SIDES[0], "height": SIDES[1], "license": 1, "source": "made up"}
        if name == "train":
            found = _made_incomplete(k, image, found)
        images.append(image)
        annotations += [{"id": len(annotations) + n, "image_id": k, **one} for n, one in enumerate(found, 1)]
    licences = [{"id": 1, "name": "public domain"}]
    return {"images": images, "annotations": annotations, "categories": categories, "licenses": licences}


def _made_incomplete(k: int, image: dict[str, Any], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every fourth picture lacks its boxes and tents, and says so; every fifth has a crowd; others lack masks."""
    if k % 4 == 0:
        image |= {"exhaustive": [CATEGORIES["ball"]], "source": "balls only"}
        return [one for one in found if one["category_id"] == CATEGORIES["ball"]]
    if k % 5 == 0:
        found[0] |= {"iscrowd": 1, "segmentation": _run_lengths(found[0]["bbox"])}
    elif k % 5 == 1:
        del found[0]["segmentation"]
    elif k % 5 == 2:
        found[0]["mask_valid"] = False
    return found


def _run_lengths(bbox: list[float]) -> dict[str, Any]:
    """COCO's uncompressed run lengths of a filled rectangle."""
    x, y, width, height = (round(value) for value in bbox)
    counts = [x * SIDES[1] + y]
    for _ in range(width - 1):
        counts += [height, SIDES[1] - height]
    counts += [height, SIDES[0] * SIDES[1] - sum(counts) - height]
    return {"size": [SIDES[1], SIDES[0]], "counts": counts}


def draw(rng: random.Random) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    """A picture, (height, width, 3) BGR, of two shapes that do not overlap, and its annotations."""
    noise = np.random.default_rng(rng.randrange(2**32)).integers(90, 166, (SIDES[1], SIDES[0], 3), np.uint8)
    found = []
    for half in range(2):
        shape = rng.choice(list(COLOURS))
        radius = rng.randint(16, 36)
        x = half * SIDES[0] // 2 + rng.randint(radius, SIDES[0] // 2 - radius)
        y = rng.randint(radius, SIDES[1] - radius)
        outline = np.array([x, y]) + _outline(shape, radius)
        cv2.fillPoly(noise, [outline.round().astype(np.int32)], COLOURS[shape])
        (left, top), (right, bottom) = outline.min(0).tolist(), outline.max(0).tolist()
        box = [left, top, right - left, bottom - top]
        polygon = [outline.reshape(-1).tolist()]
        found.append({"category_id": CATEGORIES[shape], "bbox": box, "segmentation": polygon, "area": box[2] * box[3]})
    return noise, found


def _outline(shape: str, radius: float) -> NDArray[np.float64]:
    """Corners (N, 2) round the origin."""
    corners, first = {"ball": (24, 0.0), "box": (4, np.pi / 4), "tent": (3, -np.pi / 2)}[shape]
    angle = first + np.arange(corners) * 2 * np.pi / corners
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1)
