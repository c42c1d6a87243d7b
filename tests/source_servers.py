"""Servers on 127.0.0.1 that tests read from: files over HTTP, a camera over HTTP, hosts that hang, RTSP."""

from __future__ import annotations

import contextlib
import email.parser
import functools
import http.server
import itertools
import math
import socket
import socketserver
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from stream_seg.frame import Image
from tests.source_files import jpeg

SYSTEM_PYTHON = "/usr/bin/python3"
CLOCK_BITS = 44
RTSP_SERVER = Path(__file__).parent / "testbed" / "rtsp_server.py"


class _Files(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, with the byte ranges a seeking reader asks for."""

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(data[first:])

    def log_message(self, *_: object) -> None:
        pass


class _Camera(http.server.BaseHTTPRequestHandler):
    """Sends numbered JPEGs as network cameras do, then hangs until the test is over, or ends the stream."""

    header = b"Content-Type: image/jpeg\r\n"
    pictures = 20
    hang: threading.Event | None = None

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            for number in range(self.pictures):
                data = jpeg(number)
                self.wfile.write(b"--next\r\n%bContent-Length: %d\r\n\r\n" % (self.header, len(data)))
                self.wfile.write(data + b"\r\n")
            self.wfile.write(b"--next\r\n")
            if self.hang is not None:
                self.hang.wait()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def _serving(handler: type[socketserver.BaseRequestHandler] | functools.partial[_Files]) -> Iterator[str]:
    """Have a handler, of HTTP or of anything else, answer each who connects; yields host:port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP; yields host:port."""
    with _serving(functools.partial(_Files, directory=str(folder))) as address:
        yield address


@contextlib.contextmanager
def http_camera(*, pictures: int = 20, then_hang: bool = False, header: bytes = _Camera.header) -> Iterator[str]:
    """Serve a motion JPEG stream, each picture with this header; yields host:port."""
    hang = threading.Event() if then_hang else None
    handler = type("Camera", (_Camera,), {"pictures": pictures, "hang": hang, "header": header})
    with _serving(handler) as address:
        try:
            yield address
        finally:
            if hang is not None:
                hang.set()


@contextlib.contextmanager
def hls_camera(folder: Path, seconds: float, at_first: int, *, goes: bool = False) -> Iterator[str]:
    """Serve the segments 0.ts, 1.ts ... of a folder as live HLS, so many at first and then one each `seconds`.

    With `goes` no more come, and the playlist stays as if some would. Yields host:port; the playlist is live.m3u8, and
    names the last three.
    """
    began = time.monotonic()

    class Playlist(_Files):
        def do_GET(self) -> None:
            if self.path != "/live.m3u8":
                super().do_GET()
                return
            there = at_first + (0 if goes else int((time.monotonic() - began) / seconds))
            last = range(max(0, there - 3), there)
            lines = [
                "#EXTM3U",
                f"#EXT-X-TARGETDURATION:{math.ceil(seconds)}",
                f"#EXT-X-MEDIA-SEQUENCE:{last.start}",
                *(f"#EXTINF:{seconds},\n{number}.ts" for number in last),
            ]
            self.send_response(200)
            self.send_header("Content-Type", "application/vnd.apple.mpegurl")
            self.end_headers()
            self.wfile.write("\n".join([*lines, ""]).encode())

    with _serving(functools.partial(Playlist, directory=str(folder))) as address:
        yield address


@contextlib.contextmanager
def silent_host() -> Iterator[str]:
    """Listen, and never answer; yields host:port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def answering(data: bytes) -> Iterator[str]:
    """Send the same bytes to whoever connects, then hang up; yields host:port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1 << 14)
            self.request.sendall(data)

    with _serving(Handler) as address:
        yield address


@contextlib.contextmanager
def rtsp_sender(media: str, pictures: Sequence[Sequence[bytes]]) -> Iterator[str]:
    """Send pictures by RTSP over TCP, each in pieces as RTP has them, then hang up; yields host:port.

    `media` are the lines that an SDP description has of them; their payload type is 96, their clock 90 kHz.
    """
    description = f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n{media}\r\n"
    answers = {
        "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(description)}\r\n\r\n{description}",
        "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n\r\n",
    }

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            method = ""
            while method != "PLAY":
                method = self.rfile.readline().decode().partition(" ")[0]
                headers = email.parser.BytesParser().parsebytes(b"".join(iter(self.rfile.readline, b"\r\n")))
                answer = answers.get(method, "\r\n")
                self.wfile.write(f"RTSP/1.0 200 OK\r\nCSeq: {headers['CSeq']}\r\n{answer}".encode())
            with contextlib.suppress(ConnectionError):
                self.wfile.write(b"".join(interleaved(pictures)))

    with _serving(Handler) as address:
        yield address


def interleaved(pictures: Sequence[Sequence[bytes]]) -> Iterator[bytes]:
    """The RTP packets of pictures, 25 a second, as a connection of RTSP carries them (RFC 2326, 10.12)."""
    count = itertools.count()
    for number, pieces in enumerate(pictures, start=1):  # for FFmpeg 0 is no time
        for left, data in zip(range(len(pieces) - 1, -1, -1), pieces, strict=True):
            header = struct.pack(">BBHII", 0x80, 96 | (left == 0) << 7, next(count), number * 3600, 1)
            yield struct.pack(">cBH", b"$", 0, len(header) + len(data)) + header + data


def cut(data: bytes, size: int) -> list[bytes]:
    """The bytes in pieces of that size, the last of which may be smaller."""
    return [data[place : place + size] for place in range(0, len(data), size)]


def h264_pieces(unit: bytes, size: int) -> list[bytes]:
    """The NAL units of a picture, cut where they are larger than `size` (RFC 6184, 5.8)."""
    pieces = []
    for nal in unit.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]:
        parts = cut(nal[1:], size)
        if len(parts) == 1:
            pieces.append(nal)
            continue
        for number, part in enumerate(parts):
            mark = 0x80 * (number == 0) | 0x40 * (number == len(parts) - 1)
            pieces.append(bytes([nal[0] & 0xE0 | 28, mark | nal[0] & 0x1F]) + part)
    return pieces


class RtspCamera:
    """The RTSP server of the testbed as a process that can be killed, stopped and started again on the same port.

    `options` are those of the server's command line, by their names. `host` is host:port, known once it was started.
    """

    def __init__(self, port: int = 0, **options: object) -> None:
        self.port = port
        self._options = options
        self._process: subprocess.Popen[str] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, **options: object) -> RtspCamera:
        """Start it, with other options than so far if given, and wait until it listens."""
        self._options |= options
        words = [word for name, value in self._options.items() for word in (f"--{name}", str(value))]
        command = [SYSTEM_PYTHON, str(RTSP_SERVER), "--port", str(self.port), *words]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        word, port = self._process.stdout.readline().split()
        assert word == "ready"
        self.port = int(port)
        return self

    def tell(self, line: str) -> None:
        """Send a line that it obeys."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, whatever state it is in. Any number of times."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@contextlib.contextmanager
def rtsp_camera(port: int = 0, **options: object) -> Iterator[RtspCamera]:
    """Run the RTSP server of the testbed."""
    camera = RtspCamera(port, **options)
    try:
        yield camera.start()
    finally:
        camera.kill()


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def clock_of(image: Image) -> float:
    """Read the wall clock that the RTSP server draws into the top rows, in seconds; any size of picture."""
    block = image.shape[1] // CLOCK_BITS
    middles = image[8, block // 2 : CLOCK_BITS * block : block].mean(axis=1)
    return float(sum(1 << bit for bit, value in enumerate(middles) if value > 127)) / 1000


class Relay:
    """Passes TCP connections on to `target`, host:port, with the faults of a network between them.

    `hold` keeps what comes from the target back, until `let_go` passes all of it on at once; `cut` breaks every
    connection off wherever it happens to be, in the middle of a packet. `replace` is (what, by what) in all that comes
    from the target, of the same length.
    """

    def __init__(self, target: str, replace: tuple[bytes, bytes] = (b"", b"")) -> None:
        self._target = target.rpartition(":")[0], int(target.rpartition(":")[2])
        self._replace = replace
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open = threading.Event()
        self._open.set()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Relay:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def hold(self) -> None:
        self._open.clear()

    def let_go(self) -> None:
        self._open.set()

    def cut(self) -> None:
        self._open.set()
        sockets, self._sockets = self._sockets, []
        for end in sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _start(self, body: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=body, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            self._sockets += [client, server]
            self._start(self._pass_on, client, server, False)
            self._start(self._pass_on, server, client, True)

    def _pass_on(self, source: socket.socket, drain: socket.socket, may_hold: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 14):
                if may_hold:
                    self._open.wait()
                    data = data.replace(*self._replace) if self._replace[0] else data
                drain.sendall(data)
        with contextlib.suppress(OSError):
            drain.shutdown(socket.SHUT_RDWR)
        source.close()


@functools.cache
def needs_rtsp() -> pytest.MarkDecorator:
    """Mark a test that needs GStreamer's RTSP server and its Python bindings."""
    question = "import gi, numpy; gi.require_version('GstRtspServer', '1.0')"
    try:
        there = subprocess.run([SYSTEM_PYTHON, "-c", question], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        there = False
    return pytest.mark.needs(missing=[] if there else ["gir1.2-gst-rtsp-server-1.0", "python3-gi"])
