"""Servers on 127.0.0.1 that tests read from: files over HTTP, a camera over HTTP, hosts that hang, RTSP."""

from __future__ import annotations

import contextlib
import functools
import http.server
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.source_files import jpeg

SYSTEM_PYTHON = "/usr/bin/python3"
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

    pictures = 20
    hang: threading.Event | None = None

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            for number in range(self.pictures):
                data = jpeg(number)
                self.wfile.write(b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data))
                self.wfile.write(data + b"\r\n")
            self.wfile.write(b"--next\r\n")
            if self.hang is not None:
                self.hang.wait()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def _serving(handler: type[http.server.BaseHTTPRequestHandler] | functools.partial[_Files]) -> Iterator[str]:
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
def http_camera(*, pictures: int = 20, then_hang: bool = False) -> Iterator[str]:
    """Serve a motion JPEG stream; yields host:port."""
    hang = threading.Event() if then_hang else None
    handler = type("Camera", (_Camera,), {"pictures": pictures, "hang": hang})
    with _serving(handler) as address:
        try:
            yield address
        finally:
            if hang is not None:
                hang.set()


@contextlib.contextmanager
def silent_host() -> Iterator[str]:
    """Listen, and never answer; yields host:port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def rtsp_camera() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the RTSP server of the testbed; yields host:port and the process, which obeys `freeze`."""
    command = [SYSTEM_PYTHON, str(RTSP_SERVER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            word, port = process.stdout.readline().split()
            assert word == "ready"
            yield f"127.0.0.1:{port}", process
        finally:
            process.kill()


def needs_rtsp() -> pytest.MarkDecorator:
    """Mark a test that needs GStreamer's RTSP server and its Python bindings."""
    question = "import gi, numpy; gi.require_version('GstRtspServer', '1.0')"
    try:
        there = subprocess.run([SYSTEM_PYTHON, "-c", question], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        there = False
    return pytest.mark.needs(missing=[] if there else ["gir1.2-gst-rtsp-server-1.0", "python3-gi"])
