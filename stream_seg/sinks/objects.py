"""ObjectsFile: what was found, as lines of JSON that other programs read (docs/objects.md); a `Record` makes one."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

from stream_seg.detections import Detections
from stream_seg.frame import Frame, SourceInfo
from stream_seg.geometry import outlines
from stream_seg.protocols import Outcome, Sink
from stream_seg.sinks.part import PartFile, Target

logger = logging.getLogger(__name__)

SUFFIX = ".jsonl"


class ObjectsFile(Sink):
    """Writes a line of JSON for each frame, also for one in which nothing is shown; docs/objects.md has its keys.

    The file grows, line by line, under a partial name (`a.part.jsonl`) and gets its own when the run ends. After a
    failure the partial file stays: `result` is where what was written is found, None where nothing was. `comment` goes
    into the first line.

    The constructor raises `OutputError` for an existing file without `overwrite`, a folder that is missing or cannot be
    written to, and an output that is the input (`source_path`); `open` for the last, `write` when writing fails.
    """

    wants_pictures = False

    def __init__(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        source_path: str | Path | None = None,
        comment: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.result: Path | None = None
        self._comment = comment
        self._target = Target(self.path, overwrite, None if source_path is None else Path(source_path))
        self._part: PartFile | None = None
        self._is_live = False

    def open(self, info: SourceInfo) -> None:
        self._target.refuse_input(info.path)
        self._is_live = info.is_live
        self._part = PartFile(self._target)

    def write(self, frame: Frame, detections: Detections) -> None:
        if self._part is None:
            raise RuntimeError("open the sink before writing to it")
        comment = self._comment if self._part.is_empty() else None
        line = line_of(frame, detections, is_live=self._is_live, comment=comment)
        try:
            self._part.write(line)
        except OSError as error:
            raise self._part.unwritable(error) from error
        self._part.checkpoint()

    def finish(self, until: Fraction) -> None:  # noqa: ARG002  lines last no time
        """Finish the file in the middle of a run."""
        self.close(Outcome.STOPPED)

    def close(self, outcome: Outcome) -> None:
        part, self._part = self._part, None
        if part is None:
            return
        if part.is_empty():
            part.discard()
            return
        self.result = part.path
        if outcome is Outcome.FAILED or part.error is not None:
            part.close()
            logger.warning("what was written until then is in %s", part.path)
            return
        part.publish()
        self.result = self.path


def line_of(
    frame: Frame, detections: Detections, *, is_live: bool, comment: str | None = None, source: str | None = None
) -> bytes:
    """What docs/objects.md describes, of one frame, in ASCII."""
    return Record.of(frame, detections, is_live=is_live, comment=comment, source=source).line()


@dataclass(frozen=True, slots=True)
class Record:
    """What the line of one frame tells. It holds no pixels, and may be made a line later, or never.

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
            {"class": name, "score": round(score, 3), "box": [round(side, 1) for side in box], "outline": outline}
            for name, score, box, outline in zip(
                detections.names,
                detections.scores.tolist(),
                detections.boxes.tolist(),
                [[points.tolist() for points in outline] for outline in outlines(detections, self.size)],
                strict=True,
            )
        ]
        if detections.ids is not None:
            objects = [{"id": number} | one for number, one in zip(detections.ids.tolist(), objects, strict=True)]
        if detections.lines:
            entry["lines"] = [
                {
                    **line.counts,
                    "crossed": [{"id": one.id, "class": one.name, "direction": one.direction} for one in line.now],
                }
                for line in detections.lines
            ]
        entry |= {"width": width, "height": height, "objects": objects}
        return (json.dumps(entry, separators=(",", ":")) + "\n").encode("ascii")
