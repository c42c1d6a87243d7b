"""What annotated pictures show, as `evaluate` scores against it: a COCO instances file, checked, in pycocotools.

It may be honest about what it lacks, by the fields that training knows too (docs/training.md): an image's `exhaustive`
lists the categories of which every instance in it is annotated, and an annotation without a segmentation, or with
`mask_valid: false`, is a box whose outline is unknown.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from stream_seg.errors import SourceError, StreamSegError

if TYPE_CHECKING:
    from pycocotools import _EncodedRLE
    from pycocotools.coco import COCO, _Dataset

    _Segmentation = list[list[int]] | _EncodedRLE

_Entry = dict[str, Any]


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
    try:
        data = _checked(json.loads(path.read_text("utf-8")))
        outlines = _outlined(data)
    except OSError as error:
        raise SourceError(f"the annotations {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SourceError(f"{path} is not a COCO instances file: {error}") from error
    exhaustive = {image["id"]: frozenset(image["exhaustive"]) for image in data["images"] if "exhaustive" in image}
    return GroundTruth(index(data), index(data | {"annotations": outlines}), exhaustive)


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


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_size(value: object) -> bool:
    return _is_id(value) and cast("int", value) > 0


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


_FIELDS: Mapping[str, Mapping[str, Callable[[object], bool]]] = {
    "images": {"id": _is_id, "file_name": _is_name, "width": _is_size, "height": _is_size},
    "categories": {"id": _is_id, "name": _is_name},
    "annotations": {"image_id": _is_id, "category_id": _is_id, "bbox": _is_box},
}


def _checked(data: object) -> dict[str, list[_Entry]]:
    """Raise ValueError where something of COCO's format is missing or wrong; fill in what may be left out.

    Annotations are numbered anew: pycocotools looks them up by their ids, of which 0 means none to it, and files that
    were merged have some twice.
    """
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
    annotations = [_completed(entry, number) for number, entry in enumerate(data["annotations"], 1)]
    return {**data, "annotations": annotations}


def _completed(entry: _Entry, number: int) -> _Entry:
    area = entry["area"] if _is_number(entry.get("area")) else 0.0
    return {**entry, "id": number, "iscrowd": int(bool(entry.get("iscrowd"))), "area": area}


def _outlined(data: Mapping[str, list[_Entry]]) -> list[_Entry]:
    """The annotations as masks are scored against them: run lengths, and a crowd where no outline is to be trusted."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    known = (entry for entry in data["annotations"] if entry["image_id"] in sizes)
    return [_with_run_lengths(entry, sizes[entry["image_id"]]) for entry in known]


def _with_run_lengths(entry: _Entry, size: tuple[int, int]) -> _Entry:
    if segmentation := usable_outline(entry):
        return {**entry, "segmentation": run_lengths(segmentation, size)}
    x, y, width, height = entry["bbox"]
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    return {**entry, "segmentation": run_lengths([corners], size), "iscrowd": 1}


def usable_outline(annotation: Mapping[str, Any]) -> _Segmentation | None:
    """Polygons or run lengths of an annotation; None where there are none, or some that should not be trusted.

    What has two points or none encloses nothing; pycocotools would take the two for a box. A single point is damage,
    which `run_lengths` refuses.
    """
    found = annotation.get("segmentation") if annotation.get("iscrowd") or annotation.get("mask_valid", True) else None
    if isinstance(found, list):
        found = [part for part in found if not isinstance(part, list) or len(part) // 2 not in (0, 2)]
    return found or None


def run_lengths(segmentation: _Segmentation, size: tuple[int, int]) -> _EncodedRLE:
    """Polygons or run lengths of either kind as pycocotools' compressed ones, for an image of (height, width).

    Raises ValueError for what cannot be read or is of another size.
    """
    from pycocotools import mask as coco_mask

    if isinstance(segmentation, dict) and segmentation.get("size") != list(size):
        raise ValueError(f"a segmentation has the size {_short(segmentation.get('size'))} in an image of {list(size)}")
    try:
        if isinstance(segmentation, list):
            return coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
        if isinstance(segmentation["counts"], list):
            return coco_mask.frPyObjects(segmentation, *size)
        coco_mask.area(segmentation)
    except Exception as error:  # pycocotools raises many kinds, that one too
        raise ValueError(f"a segmentation cannot be read: {_short(segmentation)}") from error
    return segmentation


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) < 40 else f"{text[:37]}..."
