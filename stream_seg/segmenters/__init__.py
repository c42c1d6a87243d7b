"""Turns a model file into a segmenter: recognises its family and picks the adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from stream_seg import catalog
from stream_seg.detections import is_score
from stream_seg.errors import ModelError, UsageError
from stream_seg.given import is_whole
from stream_seg.segmenters import (
    batched,
    detectron2_export,
    mmdeploy,
    rfdetr,
    tf_detection,
    torchvision_export,
    yolo_seg,
    zoo,
)
from stream_seg.segmenters.base import ModelSegmenter
from stream_seg.segmenters.device import choose, kind_of
from stream_seg.segmenters.filter import ClassFilter
from stream_seg.segmenters.function import FunctionSegmenter
from stream_seg.segmenters.looks import Alternating, BothWays, Sliced, check_slices
from stream_seg.segmenters.onnx_segmenter import DEFAULT_THRESHOLD, Options
from stream_seg.segmenters.session import Session, Signature
from stream_seg.steady import DOUBTFUL

__all__ = ["ClassFilter", "FunctionSegmenter", "ModelSegmenter", "load_segmenter", "read_labels"]


class Family(NamedTuple):
    """A kind of model: whether a signature is of it, its adapter, and what it is in words."""

    matches: Callable[[Signature], bool]
    adapter: Callable[[Session, Options], ModelSegmenter]
    words: str


FAMILIES = (
    Family(batched.matches, batched.open_batched, batched.UNDERSTOOD),
    Family(zoo.matches, zoo.ZooSegmenter, zoo.UNDERSTOOD),
    Family(torchvision_export.matches, torchvision_export.TorchvisionSegmenter, torchvision_export.UNDERSTOOD),
    Family(tf_detection.matches, tf_detection.TfDetectionSegmenter, tf_detection.UNDERSTOOD),
    Family(detectron2_export.matches, detectron2_export.Detectron2Segmenter, detectron2_export.UNDERSTOOD),
    Family(mmdeploy.matches, mmdeploy.MmdeploySegmenter, mmdeploy.UNDERSTOOD),
    Family(yolo_seg.matches, yolo_seg.YoloSegmenter, yolo_seg.UNDERSTOOD),
    Family(rfdetr.matches, rfdetr.RfdetrSegmenter, rfdetr.UNDERSTOOD),
)
"""No model is claimed by two."""

Images = Literal["films", "stills"]
"""What a segmenter is for: frames that follow each other, or images of their own."""
LONG_SIDES = range(64, 4097)
THREADS = range(1, 257)


def load_segmenter(
    model: str | Path,
    *,
    device: str = "auto",
    score_threshold: float | None = None,
    classes: str | Sequence[str] | None = None,
    threads: int | None = None,
    long_side: int | None = None,
    labels: str | Path | Sequence[str] | None = None,
    slices: tuple[int, int] | None = None,
    images: Images | None = None,
    mirror: bool | None = None,
) -> ModelSegmenter:
    """Open a model, an ONNX file or a name of the catalogue, with the adapter of its family; use it in `with`.

    A named model that is not on disk yet is downloaded; one that must be built first is refused with what to do.

    `device`: auto, cpu, cuda or cuda:N. `score_threshold` 0..1: detections above it are kept (the model's, mostly 0.5).
    `classes`: keep only these, or this one. `threads`: CPU threads, by default one per core. `long_side`: pixels of the
    longer side of what the network sees (default: the model's). `labels`: class names that replace the model's, or the
    path (also as a `str`) of a file with one per line; a first one "background" is dropped. `slices`: look at so many
    overlapping parts of each image as well, (columns, rows). `mirror`: look at each mirror image as well, and take
    objects for as likely as both looks together say, in twice the time.

    `images`, if given, says what it is for, and has it look as the command does. Of "stills" the built-in model sees
    more, 640 pixels, and their mirror images as well, unless `mirror` is False. Of "films" a `Pipeline` shows it every
    other frame mirrored, unless `mirror` is given: show what has `shown_from`, as `Steady(shown_from=...)` does. Other
    models do so whose metadata says `mirrored`.

    Raises `UsageError` for an option out of range, an unknown class or an empty list of them, `ModelError` for a file
    that is missing, damaged or of no known family, `DeviceError` for a device that cannot be had: there is no silent
    fallback.
    """
    _check(score_threshold, long_side, threads, slices)
    _check_looks(images, mirror)
    options = Options(score_threshold, long_side, _names(labels), stills=images == "stills")
    chosen = choose(device)
    path = catalog.locate(model, device=kind_of(chosen))
    session = Session(path, chosen, threads)
    may_mirror = images is not None and session.signature.metadata.get("mirrored") == "yes"
    mirrors = may_mirror if mirror is None else mirror
    threshold = DEFAULT_THRESHOLD if score_threshold is None else score_threshold
    if mirrors:
        options = replace(options, score_threshold=DOUBTFUL * threshold)
    segmenter = _adapter(session, options)
    if slices is not None:
        segmenter = Sliced(segmenter, *slices)
    if mirrors:
        alternates = images == "films" and mirror is None
        segmenter = (Alternating if alternates else BothWays)(segmenter, threshold)
    return segmenter if classes is None else ClassFilter(segmenter, classes)


def _adapter(session: Session, options: Options) -> ModelSegmenter:
    for family in FAMILIES:
        if family.matches(session.signature):
            return family.adapter(session, options)
    task = yolo_seg.other_task(session.signature)
    if task is not None:
        raise ModelError(
            f"the model {session.path} finds no outlines, for its task is {task}: a segmentation model is needed, "
            "whose name ends in -seg, as in yolo export model=yolo11n-seg.pt format=onnx"
        )
    raise ModelError(
        f"the model {session.path} is of no known kind: {session.signature}; understood are {understood()}"
    )


def understood() -> str:
    """The families a model may be of, in words."""
    *first, last = (family.words for family in FAMILIES)
    return f"{', '.join(first)} and {last}"


def _check(
    score_threshold: float | None, long_side: int | None, threads: int | None, slices: tuple[int, int] | None
) -> None:
    if score_threshold is not None and not is_score(score_threshold):
        raise UsageError(f"the score threshold must be a number between 0 and 1, not {score_threshold!r}")
    if long_side is not None and not is_whole(long_side, LONG_SIDES):
        raise UsageError(
            f"the long side must be a whole number, {LONG_SIDES[0]} to {LONG_SIDES[-1]} pixels, not {long_side}"
        )
    if threads is not None and not is_whole(threads, THREADS):
        raise UsageError(f"threads must be a whole number, {THREADS[0]} to {THREADS[-1]}, not {threads}")
    if slices is not None:
        pair = np.asarray(slices)
        if pair.shape != (2,) or not np.issubdtype(pair.dtype, np.integer):
            raise UsageError(f"slices are given as (columns, rows), as in (3, 2), not {slices!r}")
        check_slices(*slices)


def _check_looks(images: object, mirror: object) -> None:
    if images is not None and (not isinstance(images, str) or images not in get_args(Images)):
        raise UsageError(f"images are {' or '.join(map(repr, get_args(Images)))}, or None for any, not {images!r}")
    if mirror is not None and not isinstance(mirror, bool | np.bool_):
        raise UsageError(f"mirror is True or False, or None for what suits the images, not {mirror!r}")


def _names(labels: str | Path | Sequence[str] | None) -> tuple[str, ...] | None:
    if isinstance(labels, str | Path):
        return read_labels(labels)
    names = () if labels is None else tuple(labels)
    for name in names:
        if not isinstance(name, str):
            raise UsageError(
                f"labels are a list of names, or the path of a file with one per line; {name!r} is no name"
            )
    return names or None


def read_labels(path: str | Path) -> tuple[str, ...]:
    """The class names of a text file, one per line. Raise `UsageError` where there are none to be read."""
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise UsageError(f"the labels file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the labels file {path} cannot be read: it is not UTF-8 text") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise UsageError(f"the labels file {path} is empty")
    return names
