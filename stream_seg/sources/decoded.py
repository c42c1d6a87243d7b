"""Decoded: what files, pipes and addresses share, whose frames all come from a decoder."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from stream_seg.addresses.failures import reading
from stream_seg.frame import Frame
from stream_seg.sources.decoding import Decoder, recorded_frames
from stream_seg.sources.stoppable import Stoppable


class Decoded(Stoppable):
    """Base of the sources that read by a `_decoder`, which their `_open` makes: all its frames from `_start` on."""

    def __init__(self, name: str, start: Fraction = Fraction(0)) -> None:
        super().__init__(name)
        self._start = start
        self._decoder: Decoder | None = None
        self._damaged = 0

    @property
    def damaged(self) -> int:
        """How many damaged packets were left out so far."""
        decoder = self._decoder  # once: another thread may be about to let go of it
        return decoder.damaged if decoder else self._damaged

    def __iter__(self) -> Iterator[Frame]:
        if self._decoder is None:
            raise RuntimeError("the source is not open; use it in a with block")
        with reading(self.name):
            yield from recorded_frames(self._decoder, self._start, self._stopping.is_set)

    def _release(self) -> None:
        if self._decoder is not None:
            self._damaged = self._decoder.damaged
            self._decoder.close()
            self._decoder = None  # the two know each other, and a codec's memory must not wait for the collector
