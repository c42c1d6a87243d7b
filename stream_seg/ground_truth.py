"""What annotated pictures show, as `evaluate` scores against it: a COCO instances file, checked, in pycocotools.

It may be honest about what it lacks, by the fields that training knows too (docs/training.md): an image's `exhaustive`
lists the categories of which every instance in it is annotated, and an annotation without a segmentation, or with
`mask_valid: false`, is a box whose outline is unknown. An image that is `upright: true` was annotated turned as its
file says, others as they are stored.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from stream_seg.errors import SourceError, StreamSegError

if TYPE_CHECKING:
    from pycocotools import _EncodedRLE
    from pycocotools.coco import COCO, _Dataset

    _Segmentation = list[list[int]] | _EncodedRLE

logger = logging.getLogger(__name__)

_Entry = dict[str, Any]

_FARTHEST = 1e6
"""Numbers of boxes and polygons are smaller, in pixels: pycocotools fills the memory with longer lines, or crashes."""
_LONGEST = 4 * _FARTHEST
"""An outline is shorter, in pixels, as that of any box is: pycocotools takes 40 bytes for each."""
_MOST_PIXELS = 2**30
"""Of an image, as OpenCV has it; pycocotools counts them in 32 bits."""


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """Pictures with their objects, for boxes and for masks.

    In `masks` a box whose outline is unknown is a crowd: what is found there is neither right nor wrong. `exhaustive`
    holds, by image id, the categories of which every instance is annotated, for the images that say so.
    """

    boxes: COCO
    masks: COCO
    exhaustive: Mapping[int, frozenset[int]]

    def is_exhaustive(self, image: int, category: int) -> bool:
        """Whether an image is known to show no other instance of a category than the annotated ones."""
        return image not in self.exhaustive or category in self.exhaustive[image]


def read_ground_truth(path: Path) -> GroundTruth:
    """Read a COCO instances file. Raises `SourceError` where it is of no use, `StreamSegError` without pycocotools."""
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError as error:
        raise StreamSegError("eval needs pycocotools; run: pip install 'stream-seg[eval]'") from error
    document = read_document(path)
    listed = {category["id"] for category in document["categories"]}
    annotations = [_completed(entry) for entry in document["annotations"] if entry["category_id"] in listed]
    if lacking := len(document["annotations"]) - len(annotations):
        logger.warning(
            "left out %d of %d annotations: %s has no category of their category_id",
            lacking,
            len(document["annotations"]),
            path,
        )
    try:
        outlined = _outlined(document["images"], annotations)
    except ValueError as error:
        raise SourceError(f"{path} is not a COCO instances file: {error}") from error
    exhaustive = {image["id"]: frozenset(image["exhaustive"]) for image in document["images"] if "exhaustive" in image}
    boxes, masks = (index({**document, "annotations": _numbered(entries)}) for entries in (annotations, outlined))
    return GroundTruth(boxes, masks, exhaustive)


def read_document(path: Path) -> dict[str, Any]:
    """The JSON of a COCO instances file, in which what evaluation and training rely on is there and right.

    Outlines are left to `run_lengths`. Raises `SourceError`, in one sentence that names the file.
    """
    try:
        document = json.loads(path.read_text("utf-8-sig"))  # some editors mark UTF-8 by three bytes
        _check_fields(document)
        _leave_out_unused_twins(document)
        _check_told_apart(document)
    except OSError as error:
        raise SourceError(f"the annotations {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SourceError(f"{path} is not a COCO instances file: {error}") from error
    return cast("dict[str, Any]", document)


def index(data: Mapping[str, object]) -> COCO:
    """Annotations, or detections, as pycocotools' object."""
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = cast("_Dataset", data)
    with quiet():
        coco.createIndex()
    return coco


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep pycocotools from printing."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def is_number(value: object) -> bool:
    """Whether it is one, of JSON, and finite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _is_place(value: object) -> bool:
    return is_number(value) and abs(cast("float", value)) < _FARTHEST


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_size(value: object) -> bool:
    return _is_id(value) and cast("int", value) > 0


def _is_name(value: object) -> bool:
    """Whether it is one that a file can have."""
    try:
        return isinstance(value, str) and bool(os.fsencode(value)) and "\0" not in value
    except UnicodeEncodeError:  # half of a pair of surrogates, which JSON can have
        return False


def is_box(value: object) -> bool:
    """Whether it is a list of four numbers that can be pixels."""
    return isinstance(value, list) and len(value) == 4 and all(map(_is_place, value))


_FIELDS: Mapping[str, Mapping[str, Callable[[object], bool]]] = {
    "images": {"id": _is_id, "file_name": _is_name, "width": _is_size, "height": _is_size},
    "categories": {"id": _is_id, "name": _is_name},
    "annotations": {"image_id": _is_id, "category_id": _is_id, "bbox": is_box},
}

_NUMBER_ANEW = "number those of merged files anew, in their annotations too"
_UNIQUE = (
    ("images", "id", _NUMBER_ANEW),
    ("categories", "id", _NUMBER_ANEW),
    ("categories", "name", "make them one, or rename the one that is not meant"),
)
"""What tells entries apart, and what to do where it does not."""


def _check_fields(data: object) -> None:
    """Raise ValueError where something of COCO's format is missing or wrong."""
    if not isinstance(data, dict):
        raise ValueError("it is not a JSON object")
    for part, fields in _FIELDS.items():
        if not isinstance(data.get(part), list):
            raise ValueError(f"it has no list '{part}'")
        for entry in data[part]:
            if not isinstance(entry, dict):
                raise ValueError(f"an entry of its '{part}' is not a JSON object")
            for field, is_right in fields.items():
                if entry.get(field) in (None, [], {}, ""):
                    raise ValueError(f"an entry of its '{part}' has no '{field}'")
                if not is_right(entry[field]):
                    raise ValueError(f"an entry of its '{part}' has the {field} {_short(entry[field])}")
    for entry in data["images"]:
        listed = entry.get("exhaustive", [])
        if not (isinstance(listed, list) and all(map(_is_id, listed))):
            raise ValueError(f"an entry of its 'images' has {_short(listed)} as exhaustive, not a list of category ids")
        if not isinstance(upright := entry.get("upright", False), bool):
            raise ValueError(f"an entry of its 'images' has {_short(upright)} as upright, not true or false")
    for entry in data["annotations"]:
        for field in ("iscrowd", "mask_valid"):
            if entry.get(field) not in (None, 0, 1):  # a text, such as "0", would count as true
                raise ValueError(f"an entry of its 'annotations' has {_short(entry[field])} as {field}, not 0 or 1")


def _check_told_apart(data: _Entry) -> None:
    """Raise ValueError where two entries have in common what tells them apart."""
    for part, field, remedy in _UNIQUE:
        counts = Counter(entry[field] for entry in data[part])
        if twice := [value for value, count in counts.items() if count > 1]:
            raise ValueError(f"two of its '{part}' have the {field} {_short(twice[0])}: {remedy}")


def _leave_out_unused_twins(data: _Entry) -> None:
    """Leave out categories that no object has, where another has their name: some tools add one that holds the rest.

    The last is kept of several that none has.
    """
    used = {entry["category_id"] for entry in data["annotations"]}
    meant = {one["name"]: one["id"] for one in data["categories"]}
    meant |= {one["name"]: one["id"] for one in data["categories"] if one["id"] in used}
    left_out = {one["id"] for one in data["categories"]} - used - set(meant.values())
    data["categories"] = [one for one in data["categories"] if one["id"] not in left_out]
    for image in data["images"]:
        if "exhaustive" in image:
            image["exhaustive"] = [number for number in image["exhaustive"] if number not in left_out]


def _completed(entry: _Entry) -> _Entry:
    """An annotation with what may be left out.

    Its own area says nothing: objects of all sizes are scored, and pycocotools would ignore what is less than nothing,
    as the area of a polygon that was drawn the other way round.
    """
    return {**entry, "iscrowd": int(bool(entry.get("iscrowd"))), "area": 0.0}


def _numbered(annotations: list[_Entry]) -> list[_Entry]:
    """Anew: pycocotools looks them up by their ids, of which 0 means none to it, and merged files have some twice."""
    return [{**entry, "id": number} for number, entry in enumerate(annotations, 1)]


def _outlined(images: list[_Entry], annotations: list[_Entry]) -> list[_Entry]:
    """The annotations as masks are scored against them: run lengths, and a crowd where no outline is to be trusted."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in images}
    known = (entry for entry in annotations if entry["image_id"] in sizes)
    return [_with_run_lengths(entry, sizes[entry["image_id"]]) for entry in known]


def _with_run_lengths(entry: _Entry, size: tuple[int, int]) -> _Entry:
    if segmentation := usable_outline(entry):
        try:
            return {**entry, "segmentation": run_lengths(segmentation, size)}
        except ValueError as error:
            which = f"the annotation {entry.get('id', 'without an id')} of image {entry['image_id']}"
            raise ValueError(f"{which} is damaged; mend it or leave its segmentation out: {error}") from error
    x, y, width, height = entry["bbox"]
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    return {**entry, "segmentation": run_lengths([corners], size), "iscrowd": 1}


def usable_outline(annotation: Mapping[str, Any]) -> _Segmentation | None:
    """Polygons or run lengths of an annotation; None where there are none, or some that should not be trusted.

    What has two points or none encloses nothing; pycocotools would take the two for a box. A single point is damage,
    which `run_lengths` refuses, and so are points that are lists of their own, as OpenCV's contours have them.
    """
    found = annotation.get("segmentation") if annotation.get("iscrowd") or annotation.get("mask_valid", True) else None
    if isinstance(found, list):
        found = [part for part in found if not _encloses_nothing(part)]
    return found or None


def _encloses_nothing(part: object) -> bool:
    return isinstance(part, list) and len(part) // 2 in (0, 2) and not any(isinstance(one, list) for one in part)


def run_lengths(segmentation: _Segmentation, size: tuple[int, int]) -> _EncodedRLE:
    """Polygons or run lengths of either kind as pycocotools' compressed ones, for an image of (height, width).

    Raises ValueError for what cannot be read, is too long, or is of another size: pycocotools would read and write
    beside its memory, fill it, or compare masks for ever.
    """
    from pycocotools import mask as coco_mask

    if math.prod(size) > _MOST_PIXELS:
        raise ValueError(f"an image of {list(size)} is too large")
    if isinstance(segmentation, dict) and segmentation.get("size") != list(size):
        raise ValueError(f"a segmentation has the size {_short(segmentation.get('size'))} in an image of {list(size)}")
    try:
        if isinstance(segmentation, list):
            longest = max(map(_length, segmentation))
            if longest < _LONGEST:
                return coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
            raise _TooLongError(f"an outline is {longest:.0f} pixels long, for points far outside of its image")
        counts: list[int] | str | bytes = segmentation["counts"]
        if isinstance(counts, list):
            runs, found = np.array(counts, np.int64), coco_mask.frPyObjects(segmentation, *size)
        else:
            runs, found = _unpacked(counts), segmentation
        if (runs < 0).any():
            raise ValueError("a run is negative")
    except _TooLongError:
        raise
    except Exception as error:  # pycocotools raises many kinds, that one too
        raise ValueError(f"a segmentation cannot be read: {_short(segmentation)}") from error
    if runs.sum() != math.prod(size):
        raise ValueError(
            f"the runs of a segmentation add up to {runs.sum()} pixels, and not to the {math.prod(size)} of its image"
        )
    return found


class _TooLongError(ValueError):
    """Of an outline that can be read, and would fill the memory."""


def _length(polygon: Sequence[float]) -> float:
    """How many pixels an outline goes through from its first point to its last. Raises ValueError for what is none."""
    points = np.asarray(polygon, np.float64)
    if not (np.abs(points) < _FARTHEST).all():  # which NaN is not either
        raise ValueError("a point is no place")
    points = points[: len(points) // 2 * 2].reshape(-1, 2)
    return float(np.abs(points[1:] - points[:-1]).max(1).sum())


def _unpacked(counts: str | bytes) -> NDArray[np.int64]:
    """The run lengths in COCO's text.

    A character, less 48, holds 5 bits of a number, lowest first, and 32 where more follow; 16 in the last one makes it
    negative. From the fourth on, the numbers are differences to the run two before.
    """
    digits = np.frombuffer(counts.encode() if isinstance(counts, str) else counts, np.uint8).astype(np.int64) - 48
    if digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        raise ValueError("not what pycocotools writes")
    ends = np.flatnonzero(digits & 32 == 0)
    lengths = np.diff(ends, prepend=-1)
    starts = ends - lengths + 1
    places = 5 * (np.arange(len(digits)) - np.repeat(starts, lengths))
    if places.max() > 25:
        raise ValueError("a number of more than 30 bits, which pycocotools would read as another one")
    runs: NDArray[np.int64] = np.add.reduceat((digits & 31) << places, starts)
    runs -= (digits[ends] & 16) << places[ends] + 1
    runs[1::2], runs[2::2] = runs[1::2].cumsum(), runs[2::2].cumsum()
    return runs


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) < 40 else f"{text[:37]}..."
