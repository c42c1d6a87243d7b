"""Draws the outlines that a data set lacks, where it knows only boxes, so that training can learn masks from them.

    python scripts/train/outline.py DATA --out DATA/outlined.json
    python scripts/train/train.py DATA --train outlined.json --out RUN

A model that is told the right box, and looks at a large and a mirrored picture, outlines an object better than it does
when it finds it by itself in a small one: that is what there is to learn (self-training). Outlines that it is not
sure of are left out, and nothing else in the annotations changes. An annotation that got an outline says how sure the
model was of it, under "outline_score". The class does not matter: masks are the same for all.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from annotations import Picture, read_annotations
from commands import carry_out, write
from numpy.typing import NDArray
from segmenter import NetSegmenter
from tqdm import tqdm
from weights import BUILT_IN, read_weights, start_from

from stream_seg.errors import UsageError
from stream_seg.evaluate import encoded, read_annotated
from stream_seg.ground_truth import usable_outline

LEAST_SIDE = 6.0
"""Of a box, in pixels: smaller ones hardly have an outline."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("data", type=Path)
    add("--out", type=Path, required=True, help="the annotations with the outlines that were drawn")
    add("--train", default="train.json", help="annotations, from DATA (default: %(default)s)")
    add("--images", type=Path, help="where the file names start from (default: DATA)")
    add("--weights", type=Path, default=BUILT_IN, help="of the model that outlines (default: the built-in one's)")
    add("--size", type=int, default=640, help="long side at which it looks at pictures (default: %(default)s)")
    add("--sure", type=float, default=0.75, help="mean probability inside an outline, at least (default: %(default)s)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    carry_out("outline", partial(_outline, args))


def _outline(args: argparse.Namespace) -> None:
    path = args.data / args.train
    if args.out.exists():
        raise UsageError(f"{args.out} is there already: give another --out")
    pictures = read_annotations(path, args.images or args.data).pictures
    document = json.loads(path.read_text("utf-8"))
    lacking: dict[Any, list[dict[str, Any]]] = {}
    for one in document["annotations"]:
        if _lacks_outline(one):
            lacking.setdefault(one["image_id"], []).append(one)
    torch.set_flush_denormal(True)
    _, classes = read_weights(args.weights)
    net = start_from(args.weights, classes, frozen=-1).to(args.device, memory_format=torch.channels_last)
    segmenter = NetSegmenter(net, args.size)
    part = args.out.with_name(f"{args.out.name}.part")
    write(part, "")  # drawing takes long: see that it can be kept before it is done
    todo = [(p, lacking[im["id"]]) for p, im in zip(pictures, document["images"], strict=True) if im["id"] in lacking]
    drawn = sum(_draw(segmenter, *one, args.sure) for one in tqdm(todo, "outlining", unit=" pictures", leave=False))
    write(part, json.dumps(document))
    part.replace(args.out)
    print(f"{drawn} of {sum(map(len, lacking.values()))} boxes without an outline got one; written to {args.out}")


def _lacks_outline(one: dict[str, Any]) -> bool:
    return usable_outline(one) is None and not one.get("iscrowd") and min(one["bbox"][2:]) >= LEAST_SIDE


def _draw(segmenter: NetSegmenter, picture: Picture, annotations: list[dict[str, Any]], sure: float) -> int:
    """Give annotations the outlines the segmenter is sure of, in place; how many that were."""
    boxes = np.array([one["bbox"] for one in annotations], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    drawn, image = 0, read_annotated(picture.path, picture.size)
    for one, box, mask in zip(annotations, boxes, segmenter.outlines(image, boxes), strict=True):
        inside = mask[mask > 0.5]
        if inside.size and inside.mean() >= sure:
            outline = _run_lengths(box, mask, picture.size)
            one |= {"segmentation": outline, "mask_valid": True, "outline_score": round(float(inside.mean()), 3)}
            drawn += 1
    return drawn


def _run_lengths(box: NDArray[np.float32], mask: NDArray[np.float32], size: tuple[int, int]) -> dict[str, Any]:
    """COCO's compressed run lengths of a mask in a picture of (height, width) `size`, as JSON can hold them."""
    found = encoded(box, mask, size)
    return found | {"counts": found["counts"].decode("ascii")}


if __name__ == "__main__":
    main()
