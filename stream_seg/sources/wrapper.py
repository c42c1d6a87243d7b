"""Wrapper: what a source that hands on the frames of another one has from it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from stream_seg.availability import Availability
from stream_seg.frame import SourceInfo
from stream_seg.protocols import Source


class Wrapper:
    """Base of sources round a `_source`, of which everything is passed on; iterating is for the subclass to say."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def info(self) -> SourceInfo:
        """What is known of the source."""
        return self._source.info

    def __enter__(self) -> Self:
        self._source.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.__exit__(kind, error, trace)

    def close(self) -> None:
        """End the iteration soon, as the source does it."""
        self._source.close()

    @property
    def name(self) -> str:
        """What the source is called; safe to print."""
        return str(getattr(self._source, "name", type(self._source).__name__))

    @property
    def availability(self) -> Availability | None:
        """Tells of the outages of a source that can be away and come back; None for another."""
        return getattr(self._source, "availability", None)

    @property
    def dropped(self) -> int:
        """How many frames of a live source nobody took in time."""
        return int(getattr(self._source, "dropped", 0))

    @property
    def damaged(self) -> int:
        """How many damaged packets or files the source left out so far."""
        return int(getattr(self._source, "damaged", 0))

    @property
    def worked(self) -> float:
        """Seconds of processor time that threads of the source's own took so far."""
        return float(getattr(self._source, "worked", 0.0))
