"""Makes scores say how likely an object is to be right, by what the network finds in annotated pictures.

    python scripts/train/calibrate.py DATA --weights RUN/weights.safetensors --out CALIBRATED

A dense head learns how well its boxes will fit, which is less than a user reads in a score: of what NanoDet-g is sure
of by 0.6, nine in ten are right. A score is the class's probability times the certainty of the mask. Two numbers, by
which the logits of all classes are multiplied and moved, are fitted so that it is the share that is right (Platt 1999),
as nearly as MOST_SCALE allows. They become part of the weights, so that nothing is computed for it later, and of two
objects of a picture the surer one stays that. Only classes count that are exhaustively annotated in a picture.

CALIBRATED is a folder like a run's, for evaluate.py and export.py.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import architecture as a
import numpy as np
import torch
from annotations import Objects, Picture, read_annotations
from commands import carry_out, data_parser, long_sides, read_run, refuse_existing
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm
from weights import read_weights, write_run

from stream_seg import Detections, load_segmenter
from stream_seg.errors import ModelError, SourceError
from stream_seg.evaluate import read_annotated
from stream_seg.geometry import Boxes, pairwise_iou
from stream_seg.graph import export_graph
from stream_seg.protocols import Segmenter

LEAST_SCORE = 0.15
"""Below, what is found is hardly ever right, and it would take most of the time."""
LEAST_FINDS = 100
"""Fewer say nothing of how often what is found is right."""
SAME_IOU, IGNORED_SHARE = 0.5, 0.5
MOST_SCALE = 2.0
"""More would leave too little of what is doubtful above the least score that average precision counts, 0.05."""
STEPS = 5
"""Of 20 iterations each, by which nothing changes any more."""


class Finds(NamedTuple):
    """Of what was found: logits of the classes, certainties of the masks, and whether they are right, 0 or 1; (N,)."""

    logits: Tensor
    certainty: Tensor
    right: Tensor


def main() -> None:
    parser = data_parser(__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="safetensors of a run")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--sizes", type=long_sides, default="320,416", help="long sides (default: %(default)s)")
    carry_out("calibrate", partial(_calibrate, parser.parse_args()))


def _calibrate(args: argparse.Namespace) -> None:
    refuse_existing(args.out)
    state, classes = read_weights(args.weights)
    run = read_run(args.weights.with_name("run.json")) | {"calibrated": str(args.weights)}
    annotations = read_annotations(args.data / args.train, args.images or args.data)
    labels = {classes.index(name): label for label, name in enumerate(annotations.classes, 1) if name in classes}
    pictures = [one for one in annotations.pictures if one.exhaustive[list(labels.values())].any()] if labels else []
    if not pictures:
        raise SourceError(f"no class of {args.weights} is exhaustively annotated in {args.data / args.train}")
    finds = _finds(args.weights, pictures, labels, args.sizes)
    if len(finds.right) < LEAST_FINDS:
        raise SourceError(
            f"{len(finds.right)} finds in {len(pictures)} pictures are too few to tell how many are right"
        )
    scale, shift = fit(finds)
    for level in range(len(a.STRIDES)):
        weight, bias = (f"dense.{level}.classes.{name}" for name in ("weight", "bias"))
        state[weight], state[bias] = state[weight] * scale, state[bias] * scale + shift
    write_run(args.out, state, classes, run)
    print(
        f"{len(finds.right)} finds, {100 * finds.right.mean():.1f}% right; logits times {scale:.3f}, plus {shift:.3f}"
    )


def _finds(weights: Path, pictures: Sequence[Picture], labels: dict[int, int], sizes: Sequence[int]) -> Finds:
    parts: list[list[NDArray[np.float64]]] = []
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "fp32.onnx"
        export_graph(weights, graph)
        for size in sizes:
            with load_segmenter(graph, device="cpu", score_threshold=LEAST_SCORE, long_side=size) as segmenter:
                bar = tqdm(pictures, f"looking at {size}", unit=" pictures", leave=False)
                parts += [_in_picture(segmenter, picture, labels) for picture in bar]
    return Finds(*(torch.from_numpy(np.concatenate(same)) for same in zip(*parts, strict=True)))


def _in_picture(segmenter: Segmenter, picture: Picture, labels: dict[int, int]) -> list[NDArray[np.float64]]:
    """Logits, certainties and whether they are right, of finds of classes that are exhaustively annotated."""
    (found,) = segmenter([read_annotated(picture.path, picture.size, upright=picture.upright)])
    label = np.array([labels.get(int(one), 0) for one in found.class_ids], np.int64)
    known = np.flatnonzero(picture.exhaustive[label])
    right = judge(found.boxes[known], label[known], picture.objects)
    judged, known = np.isfinite(right), known[np.isfinite(right)]
    certainty = _certainty(found[known])
    likely = np.clip(found.scores[known] / certainty, 1e-6, 1 - 1e-6)
    return [np.log(likely / (1 - likely)), certainty, right[judged]]


def _certainty(found: Detections) -> NDArray[np.float64]:
    """The mean probability inside each mask, by which the graph has multiplied the score, and so never 0."""
    inside = found.masks > 0.5
    return np.asarray((found.masks * inside).sum((1, 2)) / inside.sum((1, 2)), np.float64)


def judge(boxes: Boxes, labels: NDArray[np.int64], objects: Objects) -> NDArray[np.float64]:
    """1 for boxes (N, 4), best first, that are of an object of their label, 0 for others; NaN for the ignored.

    Each object is found once; what lies in a crowd of its label is ignored.
    """
    iou = pairwise_iou(boxes, objects.boxes.astype(np.float32)) * (labels[:, None] == objects.labels)
    right = np.zeros(len(boxes))
    free = ~objects.crowd
    for row, overlaps in enumerate(iou):
        best = int(np.argmax(overlaps * free)) if len(overlaps) else -1
        if best >= 0 and free[best] and overlaps[best] >= SAME_IOU:
            right[row], free[best] = 1, False
        elif _lies_in(boxes[row], objects.boxes[objects.crowd & (objects.labels == labels[row])]):
            right[row] = np.nan
    return right


def _lies_in(box: NDArray[np.float32], crowds: NDArray[np.float64]) -> bool:
    """Whether half of a box is in one of the crowds (N, 4)."""
    shared = np.minimum(box[2:], crowds[:, 2:]) - np.maximum(box[:2], crowds[:, :2])
    return bool((shared.clip(0).prod(1) > IGNORED_SHARE * (box[2:] - box[:2]).prod()).any())


def fit(finds: Finds) -> tuple[float, float]:
    """By what logits are to be multiplied, and what is to be added, so that scores are the shares that are right."""
    scale, shift = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    optimizer = torch.optim.LBFGS([scale.requires_grad_(), shift.requires_grad_()], line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        score = finds.certainty * (scale * finds.logits + shift).sigmoid()
        value = functional.binary_cross_entropy(score.clamp(1e-6, 1 - 1e-6), finds.right)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    for _ in range(STEPS):
        optimizer.step(loss)
    found = float(scale.detach()), float(shift.detach())
    if not np.isfinite(found).all() or found[0] <= 0:
        raise ModelError("scores of these weights say nothing of what is right, so that they cannot be made to")
    least = min(1.0, MOST_SCALE / found[0])  # of which half are right stays where it is
    return found[0] * least, found[1] * least


if __name__ == "__main__":
    main()
