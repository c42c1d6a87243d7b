"""Packets: what a container holds for its pictures, read with a timeout only where waiting is to be expected."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream


class Packets:
    """The packets of one stream, and of `others` among them, each read in one of two ways.

    While PyAV watches a timeout it takes the GIL to look at the clock before and after each small read from a socket,
    of which RTSP needs four for a packet: some thirty times for a picture. With 16 feeds their threads spent most of
    their time passing the GIL on. PyAV ends its watch when a generator of packets ends, and begins it with the next.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, others: Sequence[Stream] = ()) -> None:
        self._container = container
        self._streams: list[Stream] = [stream, *others]
        self._others = frozenset(other.index for other in others)
        self._going_on: Iterator[Packet[Stream]] | None = None
        self._ended = False

    def next(self) -> Packet[Stream] | None:
        """Return the next packet, None after the last of the stream, which is empty.

        After `next_waiting` without a timeout; before, with that of the container. Raises `av.FFmpegError`; after
        `av.InvalidDataError` and `av.PatchWelcomeError` reading may go on.
        """
        if self._ended:
            return None
        if self._going_on is None:
            self._going_on = self._container.demux(self._streams)
        try:
            return self._noted(next(self._going_on, None))
        except av.FFmpegError:
            self._going_on = None  # a generator that has raised is over
            raise

    def next_waiting(self) -> Packet[Stream] | None:
        """As `next`, but always with the timeout of the container."""
        if self._ended:
            return None
        if self._going_on is None:
            return self.next()
        with closing(cast("Generator[Packet[Stream]]", self._container.demux(self._streams))) as packets:
            return self._noted(next(packets, None))

    def _noted(self, packet: Packet[Stream] | None) -> Packet[Stream] | None:
        self._ended = packet is None or (is_last(packet) and packet.stream_index not in self._others)
        return packet


def is_last(packet: Packet[Stream] | Packet[VideoStream]) -> bool:
    """Whether a packet is the empty one after the last; that of a dropped picture is empty but has a time."""
    return not packet.size and packet.dts is None
