"""CocoFile: what was found, as one COCO document, for the tools that correct, convert and score such (docs/objects.md).

The annotations, which are nearly all of it, are written as they come. The images, which a document has in a list of
their own, wait in a temporary file until its end.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import numpy as np

from stream_seg.coco import COCO_IDS, COCO_NAMES
from stream_seg.detections import Detections
from stream_seg.frame import Frame, SourceInfo
from stream_seg.geometry import coco_polygons, mask_roi
from stream_seg.protocols import Outcome
from stream_seg.sinks.data_file import DataFile
from stream_seg.sinks.objects import told
from stream_seg.sinks.part import PartFile, write_all
from stream_seg.version import __version__

logger = logging.getLogger(__name__)

SUFFIX = ".json"

_IN_MEMORY = 2**20
"""Bytes of the list of images; more of them go into a file beside the result."""


class CocoFile(DataFile):
    """Writes one COCO document: an image for each frame, also for one in which nothing is shown, and its annotations.

    All else is as in every `DataFile`. After a failure of the run the partial file is a whole document of what was
    found until then; where writing failed, it lacks its end.

    The categories are the class names of the first frame in which something is shown. What a segmenter finds of others
    later is left out, with a warning.
    """

    _lack = ", without the end that makes it JSON"

    def __init__(self, path: str | Path, *, overwrite: bool = False, source_path: str | Path | None = None) -> None:
        super().__init__(path, overwrite=overwrite, source_path=source_path)
        self._start()

    def open(self, info: SourceInfo) -> None:
        super().open(info)
        self._start()

    def _start(self) -> None:
        """Begin with an empty document: a sink may be given to one run after the other, as `DataFile` allows it."""
        self._images = _Images(self._target.resolved.parent)
        self._annotations = 0
        self._class_names: tuple[str, ...] = ()
        self._numbers: dict[str, int] = {}  # by class name, once something is shown
        self._has_left_out = False

    def close(self, outcome: Outcome) -> None:
        try:
            super().close(outcome)
        finally:
            self._images.close()

    def _add(self, part: PartFile, about: SourceInfo, frame: Frame, detections: Detections) -> None:
        self._images.add(_image(frame, about, self._images.count + 1))
        found = [_line(one) for one in self._annotated(frame, detections)]
        if found:
            if not self._annotations:
                self._begin(part, about)
            separator = b",\n" if self._annotations else b"\n"
            part.write(separator + b",\n".join(found))
            self._annotations += len(found)

    def _annotated(self, frame: Frame, detections: Detections) -> Iterator[dict[str, object]]:
        """The annotations of the newest image."""
        if not self._numbers:
            self._class_names = detections.class_names or self._class_names
        if len(detections) and not self._numbers:
            self._numbers = dict(zip(self._class_names, _category_ids(self._class_names), strict=True))
        known = np.array([name in self._numbers for name in detections.names], np.bool_)
        if not (known.all() or self._has_left_out):
            self._has_left_out = True
            others = ", ".join(dict.fromkeys(detections[~known].names))
            logger.warning("left out of %s what is none of the classes it began with: %s", self.path, others)
        return _annotations(frame, detections[known], self._images.count, self._annotations + 1, self._numbers)

    def _begin(self, part: PartFile, about: SourceInfo) -> None:
        part.write(_head(about, self._class_names))

    def _end(self, part: PartFile, about: SourceInfo) -> None:
        if not self._annotations:
            self._begin(part, about)
        part.write(b'\n],\n"images": [')
        self._images.move_to(part)
        part.write(b"\n]}\n")


class _Images:
    """The list of images: in memory, and in a file without a name, in `folder`, once it is longer than that may be."""

    def __init__(self, folder: Path) -> None:
        self.count = 0
        self._folder = folder
        self._newest = bytearray()
        self._file: IO[bytes] | None = None

    def add(self, image: dict[str, object]) -> None:
        self._newest += (b",\n" if self.count else b"\n") + _line(image)
        self.count += 1
        if len(self._newest) > _IN_MEMORY:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115  open for the run
            write_all(self._file.fileno(), self._newest)
            self._newest.clear()

    def move_to(self, part: PartFile) -> None:
        if self._file is not None:
            self._file.seek(0)
            shutil.copyfileobj(self._file, part)
        part.write(bytes(self._newest))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _line(entry: dict[str, object]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode("ascii")


def _head(about: SourceInfo, class_names: tuple[str, ...]) -> bytes:
    info = {
        "description": f"found in {about.name} by stream-seg",
        "version": __version__,
        "date_created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    numbers = _category_ids(class_names)
    categories = [{"id": number, "name": name} for number, name in zip(numbers, class_names, strict=True)]
    return f'{{"info": {json.dumps(info)},\n"categories": {json.dumps(categories)},\n"annotations": ['.encode("ascii")


def _category_ids(class_names: tuple[str, ...]) -> Sequence[int]:
    """COCO's own numbers for its 80 classes, so that results can be scored against its annotations; else from 1 on."""
    return COCO_IDS if class_names == COCO_NAMES else range(1, len(class_names) + 1)


def _image(frame: Frame, about: SourceInfo, number: int) -> dict[str, object]:
    width, height = frame.size
    image: dict[str, object] = {"id": number, "file_name": frame.name, "width": width, "height": height}
    if frame.name is not None:
        image["upright"] = True
    else:
        image["file_name"] = f"{_film(about)}/frame_{frame.index:06d}.png"
    if not frame.is_still:
        image |= {"frame": frame.index, "time": round(float(frame.pts), 6)}
    return image


def _film(about: SourceInfo) -> str:
    """What a film or camera is called in the names of its frames: signs that names of files may have everywhere."""
    return re.sub(r"[^\w.-]+", "_", Path(about.path or about.name).stem).strip("._") or "film"


def _annotations(
    frame: Frame, detections: Detections, image: int, first: int, numbers: Mapping[str, int]
) -> Iterator[dict[str, object]]:
    """The annotations of an image, numbered from `first` on; `numbers` are those of the categories, by name."""
    detections = detections.finite()
    number = first
    for one, box, mask in zip(told(detections), detections.boxes, detections.masks, strict=True):
        x1, y1, x2, y2 = box.tolist()
        rows, columns, bitmask = mask_roi(box, mask, frame.size)
        polygons = coco_polygons(rows, columns, bitmask, min(x2 - x1, y2 - y1))
        if not polygons:  # which COCO has no word for: pycocotools fails at an empty list of them
            continue
        annotation: dict[str, object] = {
            "id": number,
            "image_id": image,
            "category_id": numbers[one.name],
            "bbox": [round(side, 2) for side in (x1, y1, x2 - x1, y2 - y1)],
            "segmentation": [polygon.ravel().tolist() for polygon in polygons],
            "area": int(np.count_nonzero(bitmask)),
            "iscrowd": 0,
            "score": one.score,
        }
        if one.id is not None:
            annotation["track_id"] = one.id
        number += 1
        yield annotation
