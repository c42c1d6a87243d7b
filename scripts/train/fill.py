"""Fills outlines through which one can see, so that all of a data set follow one rule.

    python scripts/train/fill.py DATA --classes bicycle,motorcycle --source voc2012 --out DATA/filled.json
    python scripts/train/train.py DATA --train filled.json --out RUN

Pascal VOC outlines the tyres and the tubes of a bicycle, COCO all that lies between them, too. Who learns from both is
sure of neither, and outlines nothing. Gaps that are narrow beside the object are closed first (--gap), since rims and
frames are often interrupted; then what is enclosed belongs to the object.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from annotations import Segmentation, read_annotations
from cache import bitmask
from commands import carry_out, data_parser, refuse_existing
from numpy.typing import NDArray

from stream_seg.errors import SourceError, UsageError
from stream_seg.ground_truth import read_document, usable_outline
from stream_seg.sinks.part import write_text


def main() -> None:
    parser = data_parser(__doc__)
    add = parser.add_argument
    add("--classes", type=lambda text: text.split(","), required=True, help="names, such as bicycle,motorcycle")
    add("--out", type=Path, required=True, help="the annotations with the outlines filled")
    add("--source", help="only in pictures with this source (default: in all)")
    add("--gap", type=float, default=0.16, help="of the shorter side of a box, closed (default: %(default)s)")
    args = parser.parse_args()
    carry_out("fill", partial(_fill, args))


def _fill(args: argparse.Namespace) -> None:
    path = args.data / args.train
    refuse_existing(args.out)
    known = read_annotations(path, args.images or args.data).classes
    if unknown := [name for name in args.classes if name not in known]:
        raise UsageError(f"{path} has no class {', '.join(unknown)}; it has {', '.join(known)}")
    if not 0 <= args.gap <= 1:
        raise UsageError(f"--gap is a share of the box, from 0 to 1, not {args.gap}")
    document = read_document(path)
    wanted = {one["id"] for one in document["categories"] if one["name"] in args.classes}
    sizes = {
        image["id"]: (image["height"], image["width"])
        for image in document["images"]
        if args.source is None or image.get("source") == args.source
    }
    if not sizes:
        raise UsageError(f"{path} has no picture with the source {args.source}")
    todo = [
        (one, outline)
        for one in document["annotations"]
        if one["category_id"] in wanted
        and one["image_id"] in sizes
        and not one.get("iscrowd")
        and (outline := usable_outline(one)) is not None
    ]
    grown = sum(_fill_one(one, outline, sizes[one["image_id"]], args.gap) for one, outline in todo)
    write_text(args.out, json.dumps(document))
    print(f"{grown} of {len(todo)} outlines were filled; written to {args.out}")


def _fill_one(one: dict[str, Any], outline: Segmentation, size: tuple[int, int], gap: float) -> bool:
    """Fill the outline of an annotation, in place; whether that added to it."""
    from pycocotools import mask as coco_mask

    try:
        mask = bitmask(outline, size)
    except ValueError as error:
        raise SourceError(f"the annotation {one.get('id')} of image {one['image_id']} is damaged: {error}") from error
    side = max(0, min(*one["bbox"][2:], *size))  # of a box in other units than its outline, too
    whole = filled(mask, round(gap * side))
    if (whole == mask).all():
        return False
    found = coco_mask.encode(np.asfortranarray(whole))
    one |= {"segmentation": {"size": list(size), "counts": found["counts"].decode("ascii")}, "area": int(whole.sum())}
    return True


def filled(mask: NDArray[np.uint8], gap: int) -> NDArray[np.uint8]:
    """A mask (H, W) of 0 and 1, with what it encloses when gaps of up to `gap` pixels are closed."""
    reach = gap // 2
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    # The picture's edge closes nothing.
    room = cv2.copyMakeBorder(mask, reach, reach, reach, reach, cv2.BORDER_CONSTANT)
    closed = np.asarray(cv2.morphologyEx(room, cv2.MORPH_CLOSE, disc), np.uint8)
    outer, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(closed, outer, -1, 1, cv2.FILLED)
    return closed[reach : reach + mask.shape[0], reach : reach + mask.shape[1]]


if __name__ == "__main__":
    main()
