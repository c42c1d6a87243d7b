"""X11: as much of its protocol as it takes to look at a screen, spoken over a socket.

FFmpeg has x11grab, but PyAV and OpenCV each bring a libxcb-shm of one name that belongs to a libxcb of their own: where
OpenCV comes first, x11grab ends the process. So does Xlib, by itself, when its server goes away.

Numbers and layouts are those of the X Window System Protocol, version 11, and of its extension MIT-SHM 1.2, by which
the server writes pictures into memory that both have.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import socket
import struct
from pathlib import Path
from typing import cast

import cv2
import numpy as np

from stream_seg.frame import Image

GET_INPUT_FOCUS, GET_IMAGE, QUERY_EXTENSION = 43, 73, 98
SHM_QUERY_VERSION, SHM_GET_IMAGE, SHM_ATTACH_FD = 0, 4, 6
Z_PIXMAP = 2
ERROR, REPLY = 0, 1
COOKIE = b"MIT-MAGIC-COOKIE-1"
ANY_HOST = 65535
"""The family of an entry of the file of cookies that is for all hosts."""

TRUE_COLOUR = (0xFF0000, 0xFF00, 0xFF)
"""The bits of red, green and blue in a pixel of 32."""

Part = tuple[int, int, int, int]
"""x, y, width, height in pixels, from the upper left corner."""


class RequestError(Exception):
    """The server cannot do what it was asked for, as where a part lies outside of the screen."""


class X11:
    """A connection to the display of a name, as in $DISPLAY; `size` is the screen's (width, height).

    An answer may take `timeout` seconds. Raises `OSError` where the server cannot be reached, refuses or goes away, and
    `RequestError`, and at first `NotImplementedError` for colours of other than 24 bits.
    """

    def __init__(self, name: str, timeout: float) -> None:
        host, number, screen = parse_display(name)
        self._sequence = 0
        self._shared: mmap.mmap | None = None
        if host:
            self._socket = socket.create_connection((host, 6000 + number), timeout)
        else:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(timeout)
        try:
            if not host:
                _connect(self._socket, number)
            self._read_setup(self._set_up(*cookie(host, number)), screen)
            if not host and hasattr(os, "memfd_create"):
                with contextlib.suppress(RequestError):
                    self._share_memory()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the server."""
        self._socket.close()
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    def image(self, part: Part) -> Image:
        """What is on the screen now, (H, W, 3) uint8 BGR, without the pointer."""
        x, y, width, height = part
        place = struct.pack("<IhhHHI", self._root, x, y, width, height, 0xFFFFFFFF)
        data: mmap.mmap | bytearray
        if self._shared is None:
            data = self._ask(GET_IMAGE, Z_PIXMAP, place)[1]
        else:
            data = self._shared
            self._ask(self._shm, SHM_GET_IMAGE, place + struct.pack("<B3xII", Z_PIXMAP, self._segment, 0))
        pixels = np.frombuffer(data, np.uint8, width * height * 4).reshape(height, width, 4)
        return cast(Image, cv2.cvtColor(pixels, cv2.COLOR_BGRA2BGR))

    def _set_up(self, name: bytes, data: bytes) -> bytearray:
        lengths = struct.pack("<BxHHHH2x", ord("l"), 11, 0, len(name), len(data))
        self._socket.sendall(lengths + _padded(name) + _padded(data))
        header = self._receive(8)
        setup = self._receive(4 * int.from_bytes(header[6:8], "little"))
        if header[0] != 1:
            words = setup[: header[1]].decode("latin-1").strip()
            raise PermissionError(0, f"it refuses: {words}")
        return setup

    def _read_setup(self, setup: bytearray, screen: int) -> None:
        """Take the root window of a screen, which is all there is to be seen on it, from what the server tells."""
        base, vendor, screens, formats, is_big_endian = struct.unpack_from("<4xI8xH2xBBB", setup)
        self._segment = base  # of the numbers that are ours to give
        if screen >= screens:
            raise FileNotFoundError(0, f"it has no screen {screen}")
        place = 32 + vendor + -vendor % 4
        bits = {setup[at]: setup[at + 1] for at in range(place, place + 8 * formats, 8)}
        place += 8 * formats
        for _ in range(screen + 1):
            root, width, height, visual, depth, depths = struct.unpack_from("<I16xHH8xI2xBB", setup, place)
            place += 40
            masks = None
            for _ in range(depths):
                visuals = struct.unpack_from("<2xH", setup, place)[0]
                for at in range(place + 8, place + 8 + 24 * visuals, 24):
                    if struct.unpack_from("<I", setup, at)[0] == visual:
                        masks = struct.unpack_from("<III", setup, at + 8)
                place += 8 + 24 * visuals
        self._root, self.size = root, (width, height)
        if bits.get(depth) != 32 or masks != TRUE_COLOUR or is_big_endian:
            raise NotImplementedError(f"its pixels have {depth} bits of colour, and only 24 can be read")

    def _share_memory(self) -> None:
        """Have pictures written into memory, where it can: through the socket they take several times as long."""
        name = b"MIT-SHM"
        found = self._ask(QUERY_EXTENSION, 0, struct.pack("<H2x", len(name)) + _padded(name))[0]
        self._shm = found[9]
        if not found[8] or struct.unpack_from("<HH", self._ask(self._shm, SHM_QUERY_VERSION)[0], 8) < (1, 2):
            return
        length = self.size[0] * self.size[1] * 4
        file = os.memfd_create("stream-seg-screen")
        try:
            os.ftruncate(file, length)
            shared = mmap.mmap(file, length)
            request = self._request(self._shm, SHM_ATTACH_FD, struct.pack("<IB3x", self._segment, 0))
            socket.send_fds(self._socket, [request], [file])
        finally:
            os.close(file)
        try:
            self._ask(GET_INPUT_FOCUS)  # it has an answer, before which comes what was wrong with the request
        except BaseException:
            shared.close()
            raise
        self._shared = shared

    def _request(self, opcode: int, second: int, body: bytes) -> bytes:
        self._sequence = (self._sequence + 1) % 65536
        return struct.pack("<BBH", opcode, second, 1 + len(body) // 4) + body

    def _ask(self, opcode: int, second: int = 0, body: bytes = b"") -> tuple[bytearray, bytearray]:
        """The answer to a request: 32 bytes, and what follows them."""
        self._socket.sendall(self._request(opcode, second, body))
        failure, rest = None, bytearray()
        while True:
            header = self._receive(32)
            if header[0] == ERROR:
                failure = header[1]
            elif header[0] == REPLY:
                rest = self._receive(4 * int.from_bytes(header[4:8], "little"))
            else:
                continue  # an event: all are told of another keyboard
            if int.from_bytes(header[2:4], "little") == self._sequence:
                break
        if failure is not None:
            raise RequestError(f"error {failure}")
        return header, rest

    def _receive(self, count: int) -> bytearray:
        data = bytearray(count)
        view = memoryview(data)
        while view:
            got = self._socket.recv_into(view)
            if not got:
                raise ConnectionResetError(0, "it has gone away")
            view = view[got:]
        return data


def parse_display(name: str) -> tuple[str, int, int]:
    """The host, "" for this machine, and the numbers of display and screen. Raises `OSError` for what is no name."""
    match = re.fullmatch(r"(.*):(\d{1,5})(?:\.(\d{1,3}))?", name)
    if match is None or int(match[2]) > 59535:
        raise FileNotFoundError(0, "it is no name of a display, such as :0")
    return "" if match[1] == "unix" else match[1], int(match[2]), int(match[3] or 0)


def cookie(host: str, number: int) -> tuple[bytes, bytes]:
    """The name and the value by which a server lets its user in, from the file $XAUTHORITY; empty where it has none."""
    try:
        data = Path(os.environ.get("XAUTHORITY") or Path.home() / ".Xauthority").read_bytes()
    except (OSError, RuntimeError):  # the latter: there is no home
        return b"", b""
    ours = {socket.gethostname().encode(), host.encode()} - {b""}
    best, found = -1, (b"", b"")
    with contextlib.suppress(struct.error):  # it ends within an entry
        place = 0
        while place < len(data):
            (family,) = struct.unpack_from(">H", data, place)
            place += 2
            fields = []
            for _ in range(4):
                (length,) = struct.unpack_from(">H", data, place)
                fields.append(data[place + 2 : place + 2 + length])
                place += 2 + length
            address, display, name, value = fields
            fits = 2 if address in ours else int(family == ANY_HOST)
            if name == COOKIE and display in (b"", str(number).encode()) and fits > best:
                best, found = fits, (name, value)
    return found


def _connect(end: socket.socket, number: int) -> None:
    try:
        end.connect(f"/tmp/.X11-unix/X{number}")
    except FileNotFoundError:
        raise FileNotFoundError(0, "there is no X server") from None


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
