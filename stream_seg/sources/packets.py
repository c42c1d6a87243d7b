"""Packets: what a container holds for one stream, read with a timeout only where waiting is to be expected."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream


class Packets:
    """The packets of one stream, each read in one of two ways.

    While PyAV watches a timeout it takes the GIL to look at the clock before and after each small read from a socket,
    of which RTSP needs four for a packet: some thirty times for a picture. With 16 feeds their threads spent most of
    their time passing the GIL on. PyAV ends its watch when a generator of packets ends, and begins it with the next.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container = container
        self._stream = stream
        self._going_on: Iterator[Packet[VideoStream]] | None = None
        self._ended = False

    def next(self) -> Packet[VideoStream] | None:
        """Return the next packet, None after the last, which is empty.

        After `next_waiting` without a timeout; before, with that of the container. Raises `av.FFmpegError`; after
        `av.InvalidDataError` and `av.PatchWelcomeError` reading may go on.
        """
        if self._ended:
            return None
        if self._going_on is None:
            self._going_on = self._container.demux(self._stream)
        try:
            return self._noted(next(self._going_on, None))
        except av.FFmpegError:
            self._going_on = None  # a generator that has raised is over
            raise

    def next_waiting(self) -> Packet[VideoStream] | None:
        """As `next`, but always with the timeout of the container."""
        if self._ended:
            return None
        if self._going_on is None:
            return self.next()
        with closing(cast("Generator[Packet[VideoStream]]", self._container.demux(self._stream))) as packets:
            return self._noted(next(packets, None))

    def _noted(self, packet: Packet[VideoStream] | None) -> Packet[VideoStream] | None:
        self._ended = packet is None or is_last(packet)
        return packet


def is_last(packet: Packet[VideoStream]) -> bool:
    """Whether a packet is the empty one after the last; that of a dropped picture is empty but has a time."""
    return not packet.size and packet.dts is None
