"""CsvFile: what was found, as a table for spreadsheets and pandas (docs/objects.md)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np

from stream_seg.detections import Crossings, Detections
from stream_seg.frame import Frame, SourceInfo
from stream_seg.geometry import mask_roi
from stream_seg.region import standing
from stream_seg.sinks.data_file import DataFile
from stream_seg.sinks.objects import Record, told
from stream_seg.sinks.part import PartFile

SUFFIX = ".csv"

COLUMNS = (
    *("source", "frame", "time", "id", "class", "score", "x1", "y1", "x2", "y2", "area", "crossed", "regions"),
    *("image", "captured", "width", "height"),
)
"""The same of every source and with all options, so that tables can be put together."""


class CsvFile(DataFile):
    """Writes a table as in RFC 4180, in UTF-8: a header with the `COLUMNS`, and a row for each object of each frame.

    Frames in which nothing is shown have no row. All else is as in every `DataFile`. The rows of a frame can be read as
    soon as it was written.
    """

    def _add(self, part: PartFile, about: SourceInfo, frame: Frame, detections: Detections) -> None:
        text = io.StringIO(newline="")
        rows = csv.DictWriter(text, COLUMNS, restval="")
        if not self._has_begun:
            rows.writeheader()
        rows.writerows(_rows(frame, detections.finite(), about))
        part.write(text.getvalue().encode("utf-8", "backslashreplace"))  # names of files may be of other bytes


def _rows(frame: Frame, detections: Detections, about: SourceInfo) -> list[dict[str, object]]:
    record = Record.of(frame, detections, is_live=about.is_live, source=about.name)
    width, height = record.size
    crossed = _crossed(detections.lines)
    within = standing(detections, detections.regions, record.size)
    rows: list[dict[str, object]] = []
    for one, box, mask, regions in zip(told(detections), detections.boxes, detections.masks, within, strict=True):
        x1, y1, x2, y2 = one.box
        found = {"id": one.id, "class": one.name, "score": one.score, "x1": x1, "y1": y1, "x2": x2, "y2": y2}
        area = np.count_nonzero(mask_roi(box, mask, record.size)[2])
        which = ", ".join(crossed.get(one.id, ()))
        where = ", ".join(str(number) for number in np.flatnonzero(regions) + 1)
        rest = {"area": area, "crossed": which, "regions": where, "width": width, "height": height}
        rows.append({**record.about, **found, **rest})
    return rows


def _crossed(lines: Sequence[Crossings]) -> dict[int | None, list[str]]:
    """Which way each object crosses in this frame, by its number; of several lines, with the number of that line."""
    crossed: dict[int | None, list[str]] = {}
    for number, line in enumerate(lines, 1):
        for one in line.now:
            way = f"{number} {one.direction}" if len(lines) > 1 else one.direction
            crossed.setdefault(one.id, []).append(way)
    return crossed
