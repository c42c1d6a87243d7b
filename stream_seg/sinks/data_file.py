"""DataFile: what the files have in common that say what was found: how they begin, grow and end (docs/objects.md)."""

from __future__ import annotations

from pathlib import Path

from stream_seg.detections import Detections
from stream_seg.errors import OutputError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.protocols import Outcome, Sink
from stream_seg.sinks.part import PartFile, Target


class DataFile(Sink):
    """A file of which `_add` writes what it has of each frame, and `_end`, where there is more to come, the rest.

    The file grows under a partial name (`a.part.jsonl`) and gets its own when the run ends. After a failure the partial
    file stays: `result` is where what was written is found, None where no frame was.

    The constructor raises `OutputError` for an existing file without `overwrite`, a folder that is missing or cannot be
    written to, and an output that is the input (`source_path`); `open` for a file that is there by then and the last,
    `write` and `close` when writing fails.
    """

    of_one_feed = True
    wants_pictures = False

    _lack = ""
    """What a file is told to lack of which not all could be written."""

    def __init__(self, path: str | Path, *, overwrite: bool = False, source_path: str | Path | None = None) -> None:
        self.path = Path(path)
        self.result: Path | None = None
        self._target = Target(self.path, overwrite, source_path)
        self._part: PartFile | None = None
        self._about: SourceInfo | None = None
        self._has_begun = False  # whether there is a frame in it

    def open(self, info: SourceInfo) -> None:
        self._target.refuse_input(info.path)
        self._target.refuse_taken()  # since it was made, as by a run before with the same sink
        self._about = info
        self._part = PartFile(self._target)
        self._has_begun = False

    def write(self, frame: Frame, detections: Detections) -> None:
        if self._part is None or self._about is None:
            raise RuntimeError("open the sink before writing to it")
        try:
            self._add(self._part, self._about, frame, detections)
        except OSError as error:
            raise _unwritable(self._part, error) from error
        self._part.checkpoint()
        self._has_begun = True

    def close(self, outcome: Outcome) -> None:
        part, self._part = self._part, None
        if part is None or self._about is None:
            return
        if not self._has_begun:
            part.discard()
            return
        self.result = part.path
        try:
            self._end(part, self._about)
        except OSError as error:
            raise _unwritable(part, error) from error
        finally:
            if is_kept := part.error is not None or outcome is Outcome.FAILED:
                self.result = part.keep("" if part.error is None else self._lack)
        if is_kept:
            return
        try:
            part.publish()
        except OutputError:
            self.result = part.left
            raise
        self.result = self.path

    def _add(self, part: PartFile, about: SourceInfo, frame: Frame, detections: Detections) -> None:
        """Write what the file has of a frame. Raises `OSError` when that fails."""
        raise NotImplementedError

    def _end(self, part: PartFile, about: SourceInfo) -> None:
        """Write what comes behind all frames. Raises `OSError` when that fails."""


def _unwritable(part: PartFile, error: OSError) -> OutputError:
    """The error to raise, after which nothing more is written, also where it is no write to `part` that failed."""
    part.error = part.error or error
    return part.unwritable(error)
