"""AccessUnits: whole pictures of a camera's stream, those of H.264 and HEVC as soon as their last byte is there."""

from __future__ import annotations

from collections import deque

START_CODE = b"\0\0\1"

SURE_AFTER = 8
"""Pictures in a row with one number of slices, after which the next one is expected to have it, too."""

HEADER_BYTES = 8
"""By how much the packets that carry one full fragment each may differ: only the first has the unit's own header."""


class AccessUnits:
    """Joins the packets of an RTP stream, which hold whole NAL units or fragments of one, into access units.

    The packets of other codecs, too, all carry the time stamp of their picture, of which the next one tells the end. Of
    H.264 and HEVC that can be told sooner.

    FFmpeg's parser knows the end of a picture by the beginning of the next, which comes a frame period later. Here a
    picture is taken for whole when it has as many slices as those before it, and the packet at hand ends a slice: it is
    shorter than the largest packets, with which the fragments of a unit are filled (RFC 6184, 5.8; RFC 7798, 4.4.3).
    Where that cannot be told, and for good once it was wrong, the next picture's time stamp is waited for.

    `codec` is FFmpeg's name.
    """

    def __init__(self, codec: str) -> None:
        self._is_slice = _SLICES.get(codec, lambda _: False)  # of others it is not known
        self._pts: int | None = None
        self._parts: list[bytes] = []
        self._slices = 0
        self._handed_out = False
        self._counts: deque[int] = deque(maxlen=SURE_AFTER)
        self._last = self._largest = 0
        self._patient = False

    def add(self, data: bytes, pts: int | None) -> list[tuple[bytes, int | None]]:
        """Take one packet; return the pictures that are whole now, as (bytes, time stamp): none, one or two."""
        whole = self.flush() if pts != self._pts else []
        self._pts = pts
        slices = self._slices_in(data)
        if self._handed_out:
            goes_on = slices > 0 or START_CODE not in data[: len(START_CODE) + 1]
            self._patient = self._patient or goes_on  # a parameter set or such may well follow
            return whole
        self._parts.append(data)
        self._slices += slices
        self._last = len(data)
        self._largest = max(self._largest, len(data))
        if self._is_whole(len(data)):
            whole.append((b"".join(self._parts), pts))
            self._handed_out = True
        return whole

    @property
    def goes_on(self) -> bool:
        """Whether the present picture lacks packets that must be on their way, for a sender sends a whole picture."""
        has_begun = bool(self._parts) and not self._handed_out
        return has_begun and (self._is_sure or self._last >= self._largest - HEADER_BYTES)

    def flush(self) -> list[tuple[bytes, int | None]]:
        """End the present picture; return it if it was not handed out yet."""
        rest = [] if self._handed_out or not self._parts else [(b"".join(self._parts), self._pts)]
        if self._parts:
            self._counts.append(self._slices)
        self._parts, self._slices, self._handed_out = [], 0, False
        return rest

    @property
    def _is_sure(self) -> bool:
        is_full = len(self._counts) == SURE_AFTER
        return is_full and self._counts[0] > 0 and len(set(self._counts)) == 1 and not self._patient

    def _is_whole(self, size: int) -> bool:
        return self._is_sure and self._slices == self._counts[0] and size < self._largest - HEADER_BYTES

    def _slices_in(self, data: bytes) -> int:
        """How many slices begin in a packet; what continues one holds no start code."""
        count, place = 0, data.find(START_CODE)
        while 0 <= place < len(data) - len(START_CODE):
            count += self._is_slice(data[place + len(START_CODE)])
            place = data.find(START_CODE, place + len(START_CODE))
        return count


def _is_h264_slice(header: int) -> bool:
    """Rec. ITU-T H.264, table 7-1: slices, the first partition of one, slices of an IDR picture."""
    return header & 0x1F in (1, 2, 5)


def _is_hevc_slice(header: int) -> bool:
    """Rec. ITU-T H.265, table 7-1: all types below 32 are slices."""
    return header >> 1 & 0x3F < 32


_SLICES = {"h264": _is_h264_slice, "hevc": _is_hevc_slice}
