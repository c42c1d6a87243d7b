"""An HTTP server on 127.0.0.1 that does to a download what networks, mirrors and hotels do to it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

Behaviour = Callable[["Handler"], None]

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:5bf940c1\nsize 177970010\n"
PAGE = b"\n<!DOCTYPE html><html><body>Please log in to Free Airport WiFi</body></html>"
LONGEST_WAIT = 20.0


class Handler(BaseHTTPRequestHandler):
    """Answers each GET with the next behaviour of its path; the last one stays."""

    server: MisbehavingServer

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.requests.append((self.path, self.headers.get("Range")))
        steps = self.server.behaviours.get(path, [status(404)])
        (steps.pop(0) if len(steps) > 1 else steps[0])(self)

    def begin(self, code: int, headers: dict[str, str | int]) -> None:
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key, str(value))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""


class MisbehavingServer(ThreadingHTTPServer):
    """`with MisbehavingServer() as server: server.behave("/file", status(500), whole(data))`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.daemon_threads = False  # so that server_close waits for every one of them
        self.behaviours: dict[str, list[Behaviour]] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.closing = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), name="misbehaving-server")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self.shutdown()
        self._thread.join(LONGEST_WAIT)
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are what this server is for."""

    def behave(self, path: str, *steps: Behaviour) -> str:
        """Set what requests for `path` meet, in order; return its address."""
        self.behaviours[path] = list(steps)
        return self.url(path)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


def whole(data: bytes) -> Behaviour:
    """Everything right, Range requests too."""

    def answer(handler: Handler) -> None:
        start = _range_start(handler)
        if start > len(data):
            handler.begin(416, {"Content-Length": 0})
        elif start:
            span = f"bytes {start}-{len(data) - 1}/{len(data)}"
            handler.begin(206, {"Content-Length": len(data) - start, "Content-Range": span})
            handler.wfile.write(data[start:])
        else:
            without_range(data)(handler)

    return answer


def without_range(data: bytes) -> Behaviour:
    """The whole file with 200, whatever part was asked for."""

    def answer(handler: Handler) -> None:
        handler.begin(200, {"Content-Length": len(data)})
        handler.wfile.write(data)

    return answer


def status(code: int) -> Behaviour:
    return lambda handler: handler.begin(code, {"Content-Length": 0})


def redirect(to: str) -> Behaviour:
    return lambda handler: handler.begin(302, {"Location": to, "Content-Length": 0})


def cut_off(data: bytes, after: int) -> Behaviour:
    """Promises all of it and hangs up midway."""

    def answer(handler: Handler) -> None:
        handler.begin(200, {"Content-Length": len(data)})
        handler.wfile.write(data[:after])

    return answer


def without_length(data: bytes) -> Behaviour:
    """No Content-Length: the end of the connection is the end of the file."""

    def answer(handler: Handler) -> None:
        handler.begin(200, {})
        handler.wfile.write(data)

    return answer


def paused(data: bytes, after: int, go_on: threading.Event) -> Behaviour:
    """No Content-Length, as of a camera: sends `after` bytes, and the rest only once it is told to."""

    def answer(handler: Handler) -> None:
        without_length(data[:after])(handler)
        go_on.wait(LONGEST_WAIT)
        handler.wfile.write(data[after:])

    return answer


def chunked(data: bytes) -> Behaviour:
    """Transfer-Encoding: chunked, seven bytes at a time at first."""

    def answer(handler: Handler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.close_connection = True
        handler.begin(200, {"Transfer-Encoding": "chunked", "Connection": "close"})
        for piece in (data[:7], data[7:], b""):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    return answer


def wrong_range(data: bytes) -> Behaviour:
    """Answers a Range request with another part of the file."""

    def answer(handler: Handler) -> None:
        span = f"bytes 1-{len(data) - 1}/{len(data)}"
        handler.begin(206, {"Content-Length": len(data) - 1, "Content-Range": span})
        handler.wfile.write(data[1:])

    return answer


def held(data: bytes, after: int, reached: threading.Event, go_on: threading.Event) -> Behaviour:
    """Sends `after` bytes, says so, and the rest only once it is told to (or the test is over)."""

    def answer(handler: Handler) -> None:
        handler.begin(200, {"Content-Length": len(data)})
        handler.wfile.write(data[:after])
        reached.set()
        go_on.wait(LONGEST_WAIT)
        handler.wfile.write(data[after:])

    return answer


def stalled(data: bytes, after: int) -> Behaviour:
    """Sends `after` bytes and then nothing, without hanging up."""

    def answer(handler: Handler) -> None:
        handler.begin(200, {"Content-Length": len(data)})
        handler.wfile.write(data[:after])
        handler.server.closing.wait(LONGEST_WAIT)

    return answer


def trickling(data: bytes, piece: int, pause: float) -> Behaviour:
    """Slow, but it gets there."""

    def answer(handler: Handler) -> None:
        handler.begin(200, {"Content-Length": len(data)})
        for start in range(0, len(data), piece):
            handler.wfile.write(data[start : start + piece])
            handler.server.closing.wait(pause)

    return answer


def _range_start(handler: Handler) -> int:
    asked = handler.headers.get("Range", "bytes=0-")
    return int(asked.removeprefix("bytes=").removesuffix("-"))
