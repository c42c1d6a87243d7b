"""GifPackets: pictures of 256 colours to the packets of a GIF, of which each palette begins with a whole picture.

FFmpeg's encoder writes only what has changed since the picture before, but not once the palette has changed: then it
writes all of each picture until the end. So each palette has an encoder of its own here, and its packets that palette.
"""

from __future__ import annotations

from typing import cast

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

# GIF89a specification, sections 17 to 23: a header and a screen descriptor of 13 bytes, the palette of all images, and
# for each image a graphic control extension of 8 bytes and a descriptor of 10, whose last says that a palette follows.
_HEADER, _PALETTE, _FLAGS = 13, 3 * 256, 17
_HAS_PALETTE = 0x87
"""That a palette follows, of 256 colours."""


class GifPackets:
    """Encodes pal8 pictures for `stream`, a track of a GIF: the first palette is the file's, others are the images'."""

    def __init__(self, stream: VideoStream) -> None:
        self._stream = stream
        self._context: VideoCodecContext | None = None
        self._palette = b""  # as pictures have it
        self._local: bytes | None = None  # as files have it, unless it is the first

    def encode(self, picture: av.VideoFrame | None) -> list[Packet[VideoStream]]:
        """Return the packet of a picture; nothing for None, for nothing is held back."""
        if picture is None:
            return []
        palette = bytes(picture.planes[1])
        is_first = self._context is None
        if self._context is None or palette != self._palette:
            self._context, self._palette = self._new_context(), palette
        return [self._adapted(packet, is_first=is_first) for packet in self._context.encode(picture)]

    def _new_context(self) -> VideoCodecContext:
        given = self._stream.codec_context
        context = av.CodecContext.create(given.name, "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height, context.pix_fmt = given.width, given.height, given.pix_fmt
        context.time_base, context.framerate = given.time_base, given.framerate
        return context

    def _adapted(self, encoded: Packet[VideoStream], *, is_first: bool) -> Packet[VideoStream]:
        data = bytes(encoded)
        if not is_first and data.startswith(b"GIF89a"):
            self._local, data = data[_HEADER : _HEADER + _PALETTE], data[_HEADER + _PALETTE :]
        if self._local is not None:
            data = b"".join((data[:_FLAGS], bytes((data[_FLAGS] | _HAS_PALETTE,)), self._local, data[_FLAGS + 1 :]))
        packet = cast("Packet[VideoStream]", Packet(data))
        packet.stream, packet.time_base, packet.is_keyframe = self._stream, encoded.time_base, encoded.is_keyframe
        packet.pts = packet.dts = encoded.pts
        return packet
