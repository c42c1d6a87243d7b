"""Pipe: a video that another program writes to standard input."""

from __future__ import annotations

import dataclasses
import math
import os
import select
import sys
import threading
from typing import cast

from av.container import InputContainer

from stream_seg.addresses.failures import reading
from stream_seg.errors import SourceError
from stream_seg.frame import Reopening
from stream_seg.sources.container import open_container
from stream_seg.sources.decoded import Decoded
from stream_seg.sources.decoding import Decoder
from stream_seg.sources.tee import Branch, Tee

STANDARD_INPUT = 0

POLL_SECONDS = 0.1
"""How soon a reader that waits for the writer sees that it shall stop."""


class Pipe(Decoded):
    """Every frame of a stream that comes through a pipe, as from a file: the writer waits while frames are worked on.

    `fd` is the file descriptor to read, standard input by default. With `sound`, that of the stream can be had, too;
    what comes is kept for it until it is read. Raises `SourceError` when `fd` is a terminal or closed (the
    constructor), or when no video comes out of it (`with`).
    """

    def __init__(self, fd: int = STANDARD_INPUT, *, sound: bool = False) -> None:
        super().__init__("standard input" if fd == STANDARD_INPUT else "pipe")
        refuse_terminal(fd)
        self._fd = fd
        self._with_sound = sound

    def _open(self) -> None:
        reader: _Reader | Branch = _Reader(self._fd, self._stopping)
        reopening = None
        if self._with_sound:
            tee, name = Tee(reader.read, self._stopping.is_set), self.name
            reader = tee.pictures
            reopening = Reopening(
                name,
                lambda: open_container(tee.sound(), name),
                math.inf,
                math.inf,
                can_seek=False,
                is_ahead=lambda opened: tee.is_ahead(cast(InputContainer, opened).file.file),
            )
        with reading(self.name):
            try:
                self._decoder = Decoder(
                    lambda: open_container(reader, self.name), self.name, stopping=self._stopping.is_set
                )
            except SourceError as error:
                raise SourceError(f"{error}; write MPEG-TS or Matroska into it (ffmpeg ... -f mpegts -)") from None
        self._info = dataclasses.replace(self._decoder.info("video"), reopening=reopening)


class _Reader:
    """The file object PyAV reads from: ends early when the source is closed, which a plain read would not."""

    def __init__(self, fd: int, stopping: threading.Event) -> None:
        self._fd = fd
        self._stopping = stopping

    def read(self, size: int) -> bytes:
        while not self._ready():
            if self._stopping.is_set():
                return b""
        return os.read(self._fd, size)

    def _ready(self) -> bool:
        if self._stopping.is_set():
            return False
        if sys.platform == "win32":  # select knows only sockets there
            return True
        return bool(select.select([self._fd], [], [], POLL_SECONDS)[0])


def refuse_terminal(fd: int) -> None:
    """Raise `SourceError` unless something other than a keyboard is connected."""
    try:
        os.fstat(fd)
    except OSError:
        raise SourceError("standard input is closed; pipe a video into it") from None
    if os.isatty(fd):
        raise SourceError(
            "standard input is a terminal; pipe a video into it, as in: "
            "ffmpeg -i INPUT -f mpegts - | stream-seg - -o out.mp4"
        )
