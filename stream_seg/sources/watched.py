"""Watched: a source that is read by a thread of its own, so that one that hangs can be left behind."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Self

from stream_seg.channel import Channel, ChannelClosed, EndOfStream, Overflow
from stream_seg.errors import SourceError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.protocols import Source
from stream_seg.sources.container import no_answer
from stream_seg.sources.network import OPEN_TIMEOUT, STALL_TIMEOUT, stalled

GRACE_SECONDS = 2.0
"""The longest that we wait for an answer beyond what the source was given, so that its own reason is reported."""

JOIN_SECONDS = 0.5
"""How long leaving the `with` block waits for the reader; FFmpeg sits in a read until data or its timeout comes."""

LONGEST_STEP = 0.5
"""Seconds that are waited at a time: of those for which the process was stopped (Ctrl-Z), only so many count."""

HAND_OVER = 2
"""Frames between the reader and whoever iterates. Of a live source the newest: what FFmpeg may not hand over at once
piles up inside it, and every later frame is older."""


class Watched:
    """The frames of another source, opened, read and closed by a daemon thread.

    No answer within `open_timeout` seconds, or no new frame within `stall_timeout`, raises `SourceError`, whatever the
    library under the source does, and `close` takes effect at once. A reader that hangs is left behind; `hangs` tells.
    It ends, and closes the device or socket, when its read returns.

    A live source's frames are taken as they come; those that nobody took in time are counted in `dropped`. Of a
    recording none is lost, and only waiting for it counts as a stall, not what is done with its frames meanwhile.

    `worked` is the processor time in seconds that the thread took until its last frame: decoding, above all.
    """

    def __init__(
        self, source: Source, *, open_timeout: float = OPEN_TIMEOUT, stall_timeout: float = STALL_TIMEOUT
    ) -> None:
        self.name: str = getattr(source, "name", type(source).__name__)
        self._source = source
        self._open_timeout = open_timeout
        self._stall_timeout = stall_timeout
        self._opened: Channel[SourceInfo] = Channel(1)
        self._frames: Channel[Frame] = Channel(HAND_OVER)
        self._stopping = False
        self._left_at: float | None = None
        self._error: Exception | None = None
        self._info: SourceInfo | None = None
        self._arrived = 0.0
        self.worked = 0.0
        self._reader = threading.Thread(target=self._read, name=f"stream-seg-reader {self.name}", daemon=True)

    @property
    def info(self) -> SourceInfo:
        """What is known of the source, valid inside `with`."""
        return self._source.info if self._info is None else self._info

    @property
    def damaged(self) -> int:
        """How many damaged packets or files the source left out so far."""
        return int(getattr(self._source, "damaged", 0))

    @property
    def dropped(self) -> int:
        """How many frames of a live source nobody took in time."""
        return self._frames.dropped

    @property
    def hangs(self) -> bool:
        """Whether the reader is still at work; after the `with` block that means it is stuck."""
        return self._reader.is_alive()

    def __enter__(self) -> Self:
        self._reader.start()
        try:
            self._info = self._answer()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        if self._left_at is None:
            self._left_at = time.monotonic()
        if self._reader.is_alive():  # waited for once: whoever wraps this may leave it in several places
            self._reader.join(max(0.0, self._left_at + JOIN_SECONDS - time.monotonic()))

    def close(self) -> None:
        """End the iteration at once, also one that waits, and a `with` that waits for an answer."""
        self._stopping = True
        self._source.close()
        self._opened.cancel()
        self._frames.cancel()

    def __iter__(self) -> Iterator[Frame]:
        while True:
            try:
                frames = self._next()
            except EndOfStream:
                break
            if not frames:
                raise stalled(self.name, self._stall_timeout)
            yield from frames
        if not self._stopping:
            self._raise_error()

    def _next(self) -> list[Frame]:
        """Wait for the next frame; nothing where none comes in time."""
        patience = self._patience()
        while True:
            step = min(LONGEST_STEP, patience)
            patience -= step
            if (frames := self._frames.take(1, timeout=step)) or patience <= 0:
                return frames

    def _answer(self) -> SourceInfo:
        grace = min(GRACE_SECONDS, self._open_timeout / 2)
        with contextlib.suppress(EndOfStream):
            for info in self._opened.take(1, timeout=self._open_timeout + grace):
                return info
            raise no_answer(self.name, self._open_timeout)
        self._raise_error()
        raise SourceError(f"{self.name} was closed before it answered")

    def _raise_error(self) -> None:
        """Raise what ended the reader, if anything went wrong."""
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # else it and this frame keep each other, and with them all that the reader had

    def _patience(self) -> float:
        """Seconds to wait for the next frame: for a live source counted from the last, also if nobody asked since."""
        waited = time.monotonic() - self._arrived if self.info.is_live else 0.0
        return max(0.0, self._stall_timeout - waited)

    def _read(self) -> None:
        """Body of the reading thread: opens, reads and closes, and keeps what went wrong for whoever iterates."""
        try:
            with self._source as source:
                self._begin(source.info)
                for frame in source:
                    self._arrived = time.monotonic()
                    self.worked = time.thread_time()
                    self._frames.put(frame)
        except ChannelClosed:
            pass
        except SourceError as error:
            self._error = error.with_traceback(None)  # it would keep the decoder alive
        except Exception as error:  # the boundary of a thread: raised again by whoever iterates
            self._error = error
        finally:
            self._opened.close()
            self._frames.close()

    def _begin(self, info: SourceInfo) -> None:
        if info.is_live:
            self._frames.overflow = Overflow.DROP_OLDEST
        self._arrived = time.monotonic()
        self._opened.put(info)
