"""ObjectsFile: what was found, as lines of JSON that other programs read (docs/objects.md); a `Record` makes one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from stream_seg.detections import Detections
from stream_seg.frame import Frame, SourceInfo
from stream_seg.geometry import outlines
from stream_seg.protocols import Outcome
from stream_seg.sinks.data_file import DataFile
from stream_seg.sinks.part import PartFile

SUFFIX = ".jsonl"


class ObjectsFile(DataFile):
    """Writes a line of JSON for each frame, also for one in which nothing is shown; docs/objects.md has its keys.

    All else is as in every `DataFile`. Each line can be read as soon as it was written. `comment` goes into the first.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        source_path: str | Path | None = None,
        comment: str | None = None,
    ) -> None:
        super().__init__(path, overwrite=overwrite, source_path=source_path)
        self._comment = comment

    def _add(self, part: PartFile, about: SourceInfo, frame: Frame, detections: Detections) -> None:
        comment = None if self._has_begun else self._comment
        part.write(Record.of(frame, detections, is_live=about.is_live, comment=comment).line())

    def finish(self, until: Fraction) -> None:  # noqa: ARG002  lines last no time
        """Finish the file in the middle of a run."""
        self.close(Outcome.STOPPED)


class Told(NamedTuple):
    """What is told of an object but where its pixels are: its number, None where it has none, class, score and box.

    Numbers have as many digits as they are worth.
    """

    id: int | None
    name: str
    score: float
    box: list[float]

    def entry(self) -> dict[str, object]:
        """The same under its keys (docs/objects.md)."""
        known: dict[str, object] = {} if self.id is None else {"id": self.id}
        return known | {"class": self.name, "score": self.score, "box": self.box}


def told(detections: Detections) -> Iterator[Told]:
    """What is told of each of them, all of which are finite."""
    ids = [None] * len(detections) if detections.ids is None else detections.ids.tolist()
    rows = zip(ids, detections.names, detections.scores.tolist(), detections.boxes.tolist(), strict=True)
    for number, name, score, box in rows:
        yield Told(number, name, round(score, 3), [round(side, 1) for side in box])


@dataclass(frozen=True, slots=True)
class Record:
    """What the line of one frame tells (docs/objects.md). It holds no pixels, and may be made a line later, or never.

    `about` are the keys that come first, those of the frame itself; `size` is its (width, height).
    """

    about: Mapping[str, object]
    size: tuple[int, int]
    detections: Detections

    @classmethod
    def of(
        cls,
        frame: Frame,
        detections: Detections,
        *,
        is_live: bool,
        comment: str | None = None,
        source: str | None = None,
    ) -> Record:
        """Those of a frame. `source` is its name among several, `comment` what else is to be said."""
        about: dict[str, object] = {"frame": frame.index, "time": round(float(frame.pts), 6)}
        if is_live:
            captured = time.time() - (time.monotonic() - frame.captured_at)
            about["captured"] = datetime.fromtimestamp(captured, UTC).isoformat(timespec="milliseconds")
        if frame.name is not None:
            about["image"] = frame.name
        if source is not None:
            about["source"] = source
        if comment is not None:
            about["comment"] = comment
        return cls(about, frame.size, detections)

    def line(self) -> bytes:
        """The line, with its end, in ASCII."""
        width, height = self.size
        detections = self.detections.finite()
        entry = dict(self.about)
        objects = [
            one.entry() | {"outline": [points.tolist() for points in outline]}
            for one, outline in zip(told(detections), outlines(detections, self.size), strict=True)
        ]
        if detections.lines:
            entry["lines"] = [
                {
                    **line.counts,
                    "crossed": [{"id": one.id, "class": one.name, "direction": one.direction} for one in line.now],
                }
                for line in detections.lines
            ]
        if detections.occupancy:
            entry["regions"] = [{"now": counts} for counts in detections.occupancy]
        entry |= {"width": width, "height": height, "objects": objects}
        return (json.dumps(entry, separators=(",", ":")) + "\n").encode("ascii")
