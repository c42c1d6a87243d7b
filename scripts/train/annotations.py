"""Reads a COCO instances file: images, classes and objects as arrays, with what is known to be missing in them.

Beyond COCO's fields an image may say `exhaustive`, the ids of the categories of which every instance in it is
annotated (without the field: all of them), `source`, where it comes from, and `upright: true` where it was annotated
turned as its file says (without the field: as it is stored); an annotation may say `mask_valid: false` when its box
can be used and its outline cannot, and, where a detector drew it, its `confidence`, how likely it is to be right
(without the field: certain). An annotation without a segmentation is a box without a mask, and `iscrowd` marks regions
that are neither object nor background.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_seg.errors import SourceError
from stream_seg.ground_truth import is_number, read_document, usable_outline

Segmentation = dict[str, Any] | list[list[float]]


@dataclass(frozen=True, slots=True)
class Objects:
    """The annotations of one image.

    `boxes` (n, 4) xyxy, `labels` (n,) from 1 on, `crowd` (n,), `confidence` (n,) in 0..1, `outlines` or None.
    """

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    outlines: list[Segmentation | None]


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file with its (height, width), what it shows, and which labels are exhaustively annotated in it.

    `upright` says that all this is of the picture turned as a camera has noted in the file.
    """

    path: Path
    size: tuple[int, int]
    upright: bool
    objects: Objects
    exhaustive: NDArray[np.bool_]
    source: str
    licence: str


@dataclass(frozen=True, slots=True)
class Annotations:
    """A training or validation set. `classes[k]` is the name of label k + 1; label 0 is the background."""

    pictures: list[Picture]
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        objects = sum(len(picture.objects.labels) for picture in self.pictures)
        return f"Annotations({len(self.pictures)} pictures, {objects} objects, {len(self.classes)} classes)"


def read_annotations(path: Path, images: Path) -> Annotations:
    """Read a COCO instances file whose `file_name`s start from the folder `images`.

    Labels follow the order of the category ids. Raises SourceError, in one sentence that names the file.
    """
    document = read_document(path)
    try:
        return _annotations(document, images)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        is_category = isinstance(error, KeyError)
        what = f"it lacks {error} among its 'categories', which an entry refers to" if is_category else error
        raise SourceError(f"{path} is not a COCO instances file: {what}") from error


def _annotations(document: dict[str, Any], images: Path) -> Annotations:
    categories = sorted(document["categories"], key=lambda category: category["id"])
    if not categories or not document["images"]:
        raise ValueError("it has no categories or no images")
    labels = {category["id"]: label for label, category in enumerate(categories, 1)}
    # They are only passed on, and tools write what they like there.
    listed = document["licenses"] if isinstance(document.get("licenses"), list) else []
    licences = {str(one.get("id")): str(one.get("name") or "") for one in listed if isinstance(one, dict)}
    groups: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in document["images"]}
    for annotation in document["annotations"]:
        if annotation["image_id"] in groups:  # parts of a data set often come with all annotations
            groups[annotation["image_id"]].append(annotation)
    pictures = [
        Picture(
            path=images / image["file_name"],
            size=(image["height"], image["width"]),
            upright=image.get("upright", False),
            objects=_objects(groups[image["id"]], labels),
            exhaustive=_exhaustive(image, labels),
            source=str(image.get("source") or ""),
            licence=licences.get(str(image.get("license")), ""),
        )
        for image in document["images"]
    ]
    return Annotations(pictures, tuple(category["name"] for category in categories))


def _exhaustive(image: dict[str, Any], labels: dict[int, int]) -> NDArray[np.bool_]:
    """(classes + 1,) bool; never true for the background."""
    known = np.zeros(len(labels) + 1, np.bool_)
    known[[labels[category] for category in image.get("exhaustive", labels)]] = True
    return known


def _objects(annotations: list[dict[str, Any]], labels: dict[int, int]) -> Objects:
    useful = [one for one in annotations if min(one["bbox"][2:]) > 0]
    boxes = np.array([one["bbox"] for one in useful], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Objects(
        boxes=boxes,
        labels=np.array([labels[one["category_id"]] for one in useful], np.int64),
        crowd=np.array([bool(one.get("iscrowd")) for one in useful], np.bool_),
        confidence=np.array([_confidence(one) for one in useful], np.float32),
        outlines=[usable_outline(one) for one in useful],
    )


def _confidence(annotation: dict[str, Any]) -> float:
    confidence = annotation.get("confidence", 1)
    if not (is_number(confidence) and 0 <= confidence <= 1):
        raise ValueError(f"a confidence of {json.dumps(confidence)} is not a number from 0 to 1")
    return float(confidence)
