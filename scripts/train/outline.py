"""Draws the outlines that a data set lacks, where it knows only boxes, so that training can learn masks from them.

    python scripts/train/outline.py DATA --out DATA/outlined.json
    python scripts/train/train.py DATA --train outlined.json --out RUN

A model that is told the right box, and looks at a large and a mirrored picture, outlines an object better than it does
when it finds it by itself in a small one: that is what there is to learn (self-training). A larger model, which only
outlines, does that better still (--sam: see sam2.py), and takes some seconds per picture. Outlines that it is not
sure of are left out, and so are those that take in what is annotated as another object's; nothing else in the
annotations changes. An annotation that got an outline says how sure the model was of it, under "outline_score".

Ctrl-C, SIGTERM or a picture that cannot be read writes what was drawn so far; a second run, with it as --train, draws
what is left.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from annotations import Picture, Segmentation, read_annotations
from commands import carry_out, data_parser, device, refuse_existing, share
from numpy.typing import NDArray
from sam2 import Sam2
from segmenter import NetSegmenter
from stopping import StopSignals
from tqdm import tqdm
from weights import BUILT_IN, read_weights, start_from

from stream_seg.cli.arguments import whole
from stream_seg.errors import SourceError
from stream_seg.evaluate import encoded, read_annotated
from stream_seg.frame import Image
from stream_seg.geometry import Boxes
from stream_seg.ground_truth import read_document, run_lengths, usable_outline
from stream_seg.sinks.part import write_text

if TYPE_CHECKING:
    from pycocotools import _EncodedRLE

LEAST_SIDE = 6.0
"""Of a box, in pixels: smaller ones hardly have an outline."""

MOST_SHARED = 0.25
"""Of an outline, may lie in those of other objects: with more, it is of the rider and not of the horse."""

Entry = dict[str, Any]


def main() -> None:
    parser = data_parser(__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="the annotations with the outlines that were drawn")
    add("--weights", type=Path, default=BUILT_IN, help="of the model that outlines (default: the built-in one's)")
    add("--size", type=whole, default=640, help="long side at which it looks at pictures (default: %(default)s)")
    add(
        "--sam",
        type=Path,
        nargs=2,
        metavar=("ENCODER", "DECODER"),
        help="draw with SAM 2, of which these are the parts",
    )
    add(
        "--sure",
        type=share,
        help="mean probability inside an outline, at least (default: 0.75); of SAM 2, the IoU that it predicts (0.8)",
    )
    add("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    carry_out("outline", partial(_outline, args))


def _outline(args: argparse.Namespace) -> None:
    path = args.data / args.train
    refuse_existing(args.out)
    pictures = read_annotations(path, args.images or args.data).pictures
    document = read_document(path)
    lacking, given = _sorted(document["annotations"])
    drawer = Sam2(*args.sam) if args.sam else _Itself(args, document["categories"])
    draw = partial(_draw, drawer, drawer.least_sure if args.sure is None else args.sure)
    part = args.out.with_name(f"{args.out.name}.part")
    write_text(part, "")  # drawing takes long: see that it can be kept before it is done
    ids = [image["id"] for image in document["images"]]
    todo = [(picture, lacking[i], given.get(i, [])) for picture, i in zip(pictures, ids, strict=True) if i in lacking]
    drawn, failure = 0, None
    with StopSignals() as stop:
        try:
            for one in tqdm(todo, "outlining", unit=" pictures", leave=False):
                if stop.asked:
                    break
                drawn += draw(*one)
        except SourceError as error:
            if not drawn:
                part.unlink()
                raise
            failure = error
        write_text(part, json.dumps(document))
        part.replace(args.out)
    print(
        f"{drawn} of {sum(len(boxes) for _, boxes, _ in todo)} boxes without an outline got one; written to {args.out}"
    )
    if failure:
        raise failure
    if stop.asked:
        raise KeyboardInterrupt


class _Drawer(Protocol):
    """Draws what is in the boxes (N, 4) of an image, whose N `categories` are ids and say what is meant.

    Gives masks (N, S, S), as probabilities, and how sure each is (N,); those below `least_sure` are left out.
    """

    least_sure: float

    def outlines(
        self, image: Image, boxes: Boxes, categories: Sequence[int], /
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...


class _Itself:
    """The network that is trained; it is as sure as the mean probability inside an outline. A drawer."""

    least_sure = 0.75

    def __init__(self, args: argparse.Namespace, categories: list[Entry]) -> None:
        torch.set_flush_denormal(True)
        _, classes = read_weights(args.weights)
        net = start_from(args.weights, classes, frozen=-1).to(args.device, memory_format=torch.channels_last)
        self._segmenter = NetSegmenter(net, args.size)
        self._labels = {one["id"]: classes.index(one["name"]) + 1 for one in categories if one["name"] in classes}

    def outlines(
        self, image: Image, boxes: Boxes, categories: Sequence[int], /
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        labels = np.array([self._labels.get(one, 0) for one in categories], np.int64)
        masks = self._segmenter.outlines(image, boxes, labels)
        inside = [mask[mask > 0.5] for mask in masks]
        return masks, np.array([one.mean() if one.size else 0 for one in inside], np.float32)


def _sorted(annotations: list[Entry]) -> tuple[dict[Any, list[Entry]], dict[Any, list[Segmentation]]]:
    """Those that lack an outline, and the outlines of those that have one, by image."""
    lacking: dict[Any, list[Entry]] = {}
    given: dict[Any, list[Segmentation]] = {}
    for one in annotations:
        if one.get("iscrowd"):
            continue
        if (outline := usable_outline(one)) is not None:
            given.setdefault(one["image_id"], []).append(outline)
        elif min(one["bbox"][2:]) >= LEAST_SIDE:
            lacking.setdefault(one["image_id"], []).append(one)
    return lacking, given


def _draw(drawer: _Drawer, sure: float, picture: Picture, annotations: list[Entry], given: list[Segmentation]) -> int:
    """Give annotations the outlines the drawer is sure of, in place; how many that were."""
    boxes = np.array([one["bbox"] for one in annotations], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    categories = [one["category_id"] for one in annotations]
    image = read_annotated(picture.path, picture.size, upright=picture.upright)
    masks, certainties = drawer.outlines(image, boxes, categories)
    try:
        others = [run_lengths(outline, picture.size) for outline in given]
    except ValueError as error:
        raise SourceError(f"{picture.path}: {error}") from error
    drawn = 0
    for one, box, mask, certainty in zip(annotations, boxes, masks, certainties.tolist(), strict=True):
        if certainty < sure or not (mask > 0.5).any():
            continue
        outline = encoded(box, mask, picture.size)
        if shared(outline, others) <= MOST_SHARED:
            outline["counts"] = outline["counts"].decode("ascii")  # as JSON can hold them
            one |= {"segmentation": outline, "mask_valid": True, "outline_score": round(certainty, 3)}
            drawn += 1
    return drawn


def shared(outline: _EncodedRLE, others: list[_EncodedRLE]) -> float:
    """How much of an outline lies in any of the others; all are COCO's compressed run lengths."""
    from pycocotools import mask as coco_mask

    area = coco_mask.area(outline)
    both = coco_mask.merge([outline, coco_mask.merge(others)], intersect=True) if others else None
    return float(coco_mask.area(both) / area) if both and area else 0.0


if __name__ == "__main__":
    main()
