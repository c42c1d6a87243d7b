"""ListSink: what was delivered, in lists; for tests and notebooks."""

from __future__ import annotations

from stream_seg.detections import Detections
from stream_seg.frame import Frame, SourceInfo
from stream_seg.protocols import Outcome, Sink


class ListSink(Sink):
    """Keeps everything it is given: `info`, `frames`, `detections` and, once closed, the `outcome`."""

    def __init__(self) -> None:
        self.info: SourceInfo | None = None
        self.frames: list[Frame] = []
        self.detections: list[Detections] = []
        self.outcome: Outcome | None = None

    def open(self, info: SourceInfo) -> None:
        self.info = info

    def write(self, frame: Frame, detections: Detections) -> None:
        self.frames.append(frame)
        self.detections.append(detections)

    def close(self, outcome: Outcome) -> None:
        self.outcome = outcome
