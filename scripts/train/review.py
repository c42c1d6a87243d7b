"""Shows what a detector added to annotations, crop by crop, and takes out what somebody who looked says is wrong.

    python scripts/train/review.py DATA --train adopted.json --out SHEETS
    python scripts/train/review.py DATA --train adopted.json --verdict verdict.json --out DATA/reviewed.json

SHEETS gets pictures of 70 crops each, of all annotations with a `confidence`, by class and surest first. Above a crop
stand the annotation's id and its class. verdict.json says of which the class is wrong, of which one cannot tell, and,
if not all of them, which sheets were looked at: {"wrong": [31, 44], "doubtful": [7], "sheets": [0, 1, 5]}. What was
looked at and is in neither list is right, and gets a confidence of 1. What is wrong is taken out, and where nothing
else of its class is in the picture, the class counts as annotated there: that it is not in a picture where it was seen
is what a detector has to learn. What is doubtful is taken out, and teaches nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from annotations import read_annotations
from commands import carry_out, data_parser, refuse_existing
from numpy.typing import NDArray
from tqdm import tqdm

from stream_seg.errors import OutputError, SourceError
from stream_seg.evaluate import read_picture
from stream_seg.frame import Image
from stream_seg.ground_truth import read_document
from stream_seg.sinks.part import write_text

ROWS, COLUMNS, SIDE = 7, 10, 144
ROOM, LEAST = 1.9, 76.0
"""A crop is so many times as wide as the longer side of its box, and at least so many pixels of the picture."""
LINE = 14

Annotation = dict[str, Any]
Pixels = NDArray[np.uint8]


class Verdict(NamedTuple):
    """The ids of annotations that are wrong and of doubtful ones, and the sheets that were looked at (None: all)."""

    wrong: frozenset[int]
    doubtful: frozenset[int]
    sheets: frozenset[int] | None


def main() -> None:
    parser = data_parser(__doc__)
    parser.add_argument("--verdict", type=Path, help="what was seen on the sheets; without it they are drawn")
    parser.add_argument("--out", type=Path, required=True, help="folder of the sheets, or with --verdict, annotations")
    args = parser.parse_args()
    carry_out("review", partial(_apply if args.verdict else _draw, args))


def _read(args: argparse.Namespace) -> tuple[dict[str, Any], list[list[Annotation]]]:
    """The annotations' document, and those of them to look at, by sheet."""
    path = args.data / args.train
    refuse_existing(args.out)
    read_annotations(path, args.images or args.data)  # says what is wrong with them
    document = read_document(path)
    images = {one["id"] for one in document["images"]}  # parts of a data set often come with all annotations
    found = [one for one in document["annotations"] if "confidence" in one and one["image_id"] in images]
    if not found:
        raise SourceError(f"{path} has no annotation with a confidence, such as adopt.py adds")
    ids = {one["id"] for one in found if isinstance(one.get("id"), int)}
    if len(ids) < len(found):
        raise SourceError(f"{path}: annotations with a confidence need ids, whole numbers that no two share")
    names = {one["id"]: one["name"] for one in document["categories"]}
    found.sort(key=lambda one: (names[one["category_id"]], -one["confidence"], one["id"]))
    sheet = ROWS * COLUMNS
    return document, [found[start : start + sheet] for start in range(0, len(found), sheet)]


def _draw(args: argparse.Namespace) -> None:
    document, sheets = _read(args)
    names = {one["id"]: one["name"] for one in document["categories"]}
    folder, images = args.images or args.data, {one["id"]: one for one in document["images"]}
    try:
        args.out.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {args.out}: {error.strerror}; give another --out") from error
    for number, sheet in enumerate(tqdm(sheets, desc="sheets", leave=False)):
        page = np.full((ROWS, LINE + SIDE + 2, COLUMNS, SIDE + 4, 3), 255, np.uint8)
        for place, one in enumerate(sheet):
            row, column = divmod(place, COLUMNS)
            image, text = read_picture(folder, images[one["image_id"]]), f"{one['id']} {names[one['category_id']]}"
            page[row, : LINE + SIDE, column, :SIDE] = _tile(image, one["bbox"], text)
        path = args.out / f"{number:03}.png"
        if not cv2.imwrite(str(path), page.reshape(page.shape[0] * page.shape[1], -1, 3)):
            raise OutputError(f"cannot write {path}")
    print(f"{sum(map(len, sheets))} annotations on {len(sheets)} sheets in {args.out}")


def _tile(image: Image, box: list[float], text: str) -> Pixels:
    """(LINE + SIDE, SIDE, 3): a crop round a box (x, y, w, h) of a picture, the box in it, and a line above."""
    scale = SIDE / max(ROOM * max(box[2:]), LEAST)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    fx, fy = (max(scale, 1 / side) for side in image.shape[1::-1])  # of what is thin, a pixel is left
    scaled = cv2.resize(image, None, fx=fx, fy=fy, interpolation=how)
    x1, y1, x2, y2 = (round(scale * place) for place in (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    left = min(max((x1 + x2) // 2, 0), scaled.shape[1]) + SIDE // 2  # of the crop, in what has a frame of SIDE
    top = min(max((y1 + y2) // 2, 0), scaled.shape[0]) + SIDE // 2
    framed = cv2.copyMakeBorder(scaled, SIDE, SIDE, SIDE, SIDE, cv2.BORDER_CONSTANT, value=(90, 90, 90))
    cv2.rectangle(framed, (x1 + SIDE, y1 + SIDE), (x2 + SIDE, y2 + SIDE), (0, 0, 255), 1)
    line = np.full((LINE, SIDE, 3), 255, np.uint8)
    cv2.putText(line, text, (1, LINE - 3), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([line, framed[top : top + SIDE, left : left + SIDE]])


def _apply(args: argparse.Namespace) -> None:
    document, sheets = _read(args)
    verdict = _read_verdict(args.verdict, len(sheets))
    looked_at = {one["id"]: one for one in _looked_at(sheets, verdict)}
    if strangers := (verdict.wrong | verdict.doubtful) - looked_at.keys():
        raise SourceError(f"{args.verdict} names {min(strangers)}, which is on none of the sheets that were looked at")
    wrong, doubtful = ([looked_at.pop(number) for number in ids] for ids in (verdict.wrong, verdict.doubtful))
    for one in looked_at.values():
        one["confidence"] = 1.0
    gone = {id(one) for one in (*wrong, *doubtful)}
    document["annotations"] = [one for one in document["annotations"] if id(one) not in gone]
    absent = _note_absent(document, wrong, doubtful)
    write_text(args.out, json.dumps(document))
    print(
        f"{len(looked_at)} are right, {len(wrong)} wrong and {len(doubtful)} doubtful; {absent} times a class is known "
        f"not to be in a picture; written to {args.out}"
    )


def _looked_at(sheets: list[list[Annotation]], verdict: Verdict) -> Iterator[Annotation]:
    for number, sheet in enumerate(sheets):
        if verdict.sheets is None or number in verdict.sheets:
            yield from sheet


def _note_absent(document: dict[str, Any], wrong: list[Annotation], doubtful: list[Annotation]) -> int:
    """Note of what is wrong that its class is not in the picture, where nothing else may be of it; how often."""
    categories = {one["id"] for one in document["categories"]}
    there = {(one["image_id"], one["category_id"]) for one in (*document["annotations"], *doubtful)}
    absent: dict[Any, set[Any]] = {}
    for one in wrong:
        if (one["image_id"], one["category_id"]) not in there:
            absent.setdefault(one["image_id"], set()).add(one["category_id"])
    count = 0
    for image in document["images"]:
        known = set(image.get("exhaustive", categories))
        if also := absent.get(image["id"], set()) - known:
            image["exhaustive"] = sorted(known | also)
            count += len(also)
    return count


def _read_verdict(path: Path, sheets: int) -> Verdict:
    try:
        document = json.loads(path.read_text("utf-8-sig"))
        if unknown := document.keys() - {"wrong", "doubtful", "sheets"}:  # what it lists would count as right
            raise ValueError(f"it says {min(unknown)}, which is none of these")
        wrong, doubtful = (_numbers(document, key) for key in ("wrong", "doubtful"))
        looked_at = _numbers(document, "sheets") if "sheets" in document else None
    except OSError as error:
        raise SourceError(f"the verdict {path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise SourceError(
            f'{path} should be like {{"wrong": [31, 44], "doubtful": [7], "sheets": [0, 1]}}: {error}'
        ) from error
    if both := wrong & doubtful:
        raise SourceError(f"{path} says of {min(both)} that it is wrong, and that it is doubtful")
    if looked_at and not looked_at <= set(range(sheets)):
        raise SourceError(f"{path} names the sheet {max(looked_at)}; there are {sheets}, numbered from 0 on")
    return Verdict(wrong, doubtful, looked_at)


def _numbers(document: dict[str, Any], key: str) -> frozenset[int]:
    """The whole numbers under a key; none where it is not there. Raises ValueError."""
    found = document.get(key, [])
    if not isinstance(found, list) or not all(type(one) is int for one in found):
        raise ValueError(f"{key} is no list of whole numbers")
    return frozenset(found)


if __name__ == "__main__":
    main()
