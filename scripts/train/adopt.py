"""Adds what another detector finds to pictures of which not all classes are annotated, so that training can learn it.

    python scripts/train/adopt.py DATA --results found.json --out DATA/adopted.json
    python scripts/train/outline.py DATA --train adopted.json --out DATA/outlined.json
    python scripts/train/train.py DATA --train outlined.json --out RUN

found.json holds COCO results (image_id, category_id, bbox, score) for every picture of the set, down to scores below
--absent, from any detector that knows the classes. In a picture where a class is not exhaustively
annotated, finds become boxes of it with the confidence that their score deserves: 0 below --never, 1 above --always,
and in between in proportion (compare finds in annotated pictures with their annotations). Where nothing looks like
the class, it counts as annotated: that there is none is what partly annotated pictures do not teach, and what a
detector knows best. Where a class is exhaustively annotated, finds with a score above --overlooked that overlap none of
its objects are regions to ignore: annotators overlook, too.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from annotations import read_annotations
from commands import carry_out, data_parser, refuse_existing
from numpy.typing import NDArray

from stream_seg.errors import SourceError, UsageError
from stream_seg.geometry import pairwise_iou
from stream_seg.ground_truth import is_box, is_number, read_document
from stream_seg.sinks.part import write_text

SAME_IOU = 0.7
"""Two finds that overlap so are of one object, whatever their classes: the surer one counts."""

LEAST_CONFIDENCE = 0.25
"""Of a find that becomes a box; with less, nothing is claimed."""

OVERLAP_IOU = 0.3
"""A find that overlaps an annotated object of its class so is that object, or a part of it."""


def main() -> None:
    parser = data_parser(__doc__)
    add = parser.add_argument
    add("--results", type=Path, required=True, help="COCO results of the detector, of all pictures")
    add("--out", type=Path, required=True, help="the annotations with what was added")
    add("--never", type=float, default=0.21, help="score up to which finds are wrong (default: %(default)s)")
    add("--always", type=float, default=0.67, help="score from which finds are right (default: %(default)s)")
    add(
        "--overlooked",
        type=float,
        default=0.5,
        help="where all are annotated, score from which one was overlooked (default: %(default)s)",
    )
    add("--absent", type=float, default=0.1, help="a class whose finds score less is not there (default: %(default)s)")
    args = parser.parse_args()
    carry_out("adopt", partial(_adopt, args))


def _adopt(args: argparse.Namespace) -> None:
    path = args.data / args.train
    refuse_existing(args.out)
    if not args.never < args.always:
        raise UsageError(f"--never {args.never} must be less than --always {args.always}")
    read_annotations(path, args.images or args.data)  # says what is wrong with them
    document = read_document(path)
    categories = {category["id"] for category in document["categories"]}
    found = _read_results(args.results, categories)
    if not any(image["id"] in found for image in document["images"]):
        raise SourceError(
            f"{args.results} holds nothing of the pictures and classes of {path}: let the detector write image_id and "
            "category_id as they are there"
        )
    lowest = min((finds[-1]["score"] for finds in found.values()), default=0)
    if lowest > args.absent:
        raise SourceError(
            f"{args.results} does not tell what is absent: it holds no score below --absent {args.absent:g}; let the "
            "detector write lower ones, too"
        )
    present: dict[Any, list[dict[str, Any]]] = {}
    for one in document["annotations"]:
        present.setdefault(one["image_id"], []).append(one)
    rule = Rule(args.never, args.always, args.overlooked, args.absent)
    added: list[dict[str, Any]] = []
    absent = 0
    for image in document["images"]:
        known = set(image.get("exhaustive", categories))
        finds = found.get(image["id"], [])
        if finds:  # a picture the detector was not shown, or sees nothing in, stays as it is
            objects = present.get(image["id"], [])
            added += _boxes(finds, objects, known, rule)
            also = _absent(finds, objects, categories, rule) - known
            if also:
                image["exhaustive"] = sorted(known | also)
            absent += len(also)
    _number(added, document["annotations"])
    document["annotations"] += added
    write_text(args.out, json.dumps(document))
    regions = sum(one["iscrowd"] for one in added)
    print(
        f"{len(added) - regions} boxes and {regions} regions to ignore were added, and {absent} times a class is known "
        f"not to be in a picture; written to {args.out}"
    )


class Rule(NamedTuple):
    """What scores say: those of main's options."""

    never: float
    always: float
    overlooked: float
    absent: float

    def confidence(self, score: float) -> float:
        return min(1.0, max(0.0, (score - self.never) / (self.always - self.never)))


def _read_results(path: Path, categories: set[Any]) -> dict[Any, list[dict[str, Any]]]:
    """COCO results by image, surest first; those of other classes, and boxes without an area, are left out."""
    try:
        document = json.loads(path.read_text("utf-8-sig"))
        if not isinstance(document, list):
            raise ValueError("it is not a list")
        finds: dict[Any, list[dict[str, Any]]] = {}
        for one in document:
            if not (is_number(one["score"]) and is_box(one["bbox"])):
                raise ValueError(f"an entry has the score {one['score']!r} and the bbox {one['bbox']!r}")
        for one in sorted(document, key=lambda one: -one["score"]):
            if one["category_id"] in categories and min(one["bbox"][2:]) > 0:
                finds.setdefault(one["image_id"], []).append(one)
        return finds
    except OSError as error:
        raise SourceError(f"the results {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"an entry lacks {error}" if isinstance(error, KeyError) else error
        raise SourceError(f"{path} does not hold COCO results: {what}") from error


def _boxes(
    finds: list[dict[str, Any]], objects: list[dict[str, Any]], known: set[Any], rule: Rule
) -> list[dict[str, Any]]:
    """What finds, surest first, add to the `objects` of a picture in which all of the classes `known` are annotated."""
    corners, taken = _corners(objects), np.zeros((0, 4), np.float32)
    added = []
    for find, box in zip(finds, _corners(finds), strict=True):
        category, ignore = find["category_id"], find["category_id"] in known
        confidence = rule.confidence(find["score"])
        if find["score"] < rule.overlooked if ignore else confidence < LEAST_CONFIDENCE:
            continue
        alike = np.array([one["category_id"] == category for one in objects], np.bool_)
        if (pairwise_iou(box[None], corners[alike]) >= OVERLAP_IOU).any() or (
            pairwise_iou(box[None], taken) >= SAME_IOU
        ).any():
            continue
        taken = np.concatenate([taken, box[None]])
        added.append(
            {
                "image_id": find["image_id"],
                "category_id": category,
                "bbox": find["bbox"],
                "area": find["bbox"][2] * find["bbox"][3],
                "iscrowd": int(ignore),
                "confidence": round(confidence, 3),
            }
        )
    return added


def _absent(finds: list[dict[str, Any]], objects: list[dict[str, Any]], categories: set[Any], rule: Rule) -> set[Any]:
    """The classes of which neither an object nor anything like one is in a picture."""
    likely = {find["category_id"] for find in finds if find["score"] >= rule.absent}
    return categories - likely - {one["category_id"] for one in objects}


def _corners(boxes: list[dict[str, Any]]) -> NDArray[np.float32]:
    """(n, 4) xyxy, of annotations or results."""
    corners = np.array([one["bbox"] for one in boxes], np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return corners


def _number(added: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> None:
    """Give what was added ids that no annotation has."""
    last = max((one["id"] for one in annotations if isinstance(one.get("id"), int)), default=0)
    for i, one in enumerate(added, last + 1):
        one["id"] = i


if __name__ == "__main__":
    main()
