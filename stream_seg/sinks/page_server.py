"""PageServer: what a page answers over HTTP, to whom, and that none of those who look outlives it or holds it up."""

from __future__ import annotations

import contextlib
import html
import http.server
import ipaddress
import itertools
import json
import logging
import re
import selectors
import socket
import socketserver
import threading
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType

import cv2

from stream_seg.channel import EndOfStream
from stream_seg.frame import Image
from stream_seg.sinks.served import Findings

logger = logging.getLogger(__name__)

LOCAL = "127.0.0.1"
"""Where a page is served unless told otherwise: whoever may see the camera is for its owner to say."""

MOST_VIEWERS = 16
"""How many connections are served at once; the next are turned away."""

_SPARE = 4
"""Connections beyond those, which are told of health alone: all who look are no reason to take a run for ill."""

_WITHIN = 10.0
"""Seconds in which a picture must have come from a source that is well, unless who asks says otherwise."""

_PATIENCE = 10.0
"""Seconds in which a browser must ask for something or take a piece of it; then it is taken for gone."""

_PIECE = 1 << 16
"""Bytes of a picture that a browser must take in that time: all of a large one takes longer on a slow connection."""

_HASTE = 1.0
"""Seconds in which those beyond the places must ask: one that says nothing is not to keep health from being told."""

_ON_THE_WAY = 1 << 18
"""Bytes that may wait in the system for a browser: more would be pictures that are old when it gets them."""

_QUALITY = 80
"""Of the JPEGs, from 0 to 100."""

_LONGEST_GAP = 5.0
"""Seconds after which the last picture is sent again: to one that has gone that fails, and its place is free. Those who
follow what is found are sent nothing twice: it is looked whether they are there."""

_PARTING_SECONDS = 0.5
"""How long those who look may take for the last picture."""

_POLL_SECONDS = 0.05
"""How often the server looks whether it is to end."""

_ASCII = bytes(range(128))

_BOUNDARY = "frame"

_HTML = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title} - stream-seg</title>
<style>
  html, body {{ height: 100%; margin: 0; background: #000; color: #ccc; font: 16px sans-serif }}
  img {{ display: block; width: 100%; height: 100%; object-fit: contain }}
  img:not([src]) {{ visibility: hidden }}
  p {{ position: fixed; left: 0; right: 0; bottom: 0; margin: 0; padding: 1em; text-align: center; background: #000;
       z-index: 1 }}
  p:not([hidden]) + img {{ filter: grayscale(1) brightness(0.35) }}
</style>
<p hidden>no connection, trying again</p>
<img alt="">
<script>
  const picture = document.querySelector("img"), notice = document.querySelector("p");
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  async function received(address) {{
    const silence = new AbortController(), parts = [];
    let timer;
    const wait = () => {{ clearTimeout(timer); timer = setTimeout(() => silence.abort(), 15000); }};
    try {{
      wait();
      const answer = await fetch(address, {{ signal: silence.signal }});
      if (!answer.ok) throw new Error(answer.statusText);
      const reader = answer.body.getReader();
      for (let part; !(part = await reader.read()).done; wait()) parts.push(part.value);
      return [answer.headers.get("Picture-Number"), new Blob(parts, {{ type: "image/jpeg" }})];
    }} finally {{
      clearTimeout(timer);
    }}
  }}
  async function next(after) {{
    const [number, jpeg] = await received("picture.jpg?after=" + after);
    const address = URL.createObjectURL(jpeg);
    await new Promise((shown, failed) => {{
      [picture.onload, picture.onerror, picture.src] = [shown, failed, address];
    }}).finally(() => URL.revokeObjectURL(address));
    return number;
  }}
  async function watch() {{
    for (let number = 0; ; ) {{
      try {{
        number = await next(number);
        notice.hidden = true;
      }} catch {{
        number = 0;
        notice.hidden = false;
        await pause(2000);
      }}
    }}
  }}
  watch();
</script>
</html>
"""


class Newest:
    """The newest picture, as JPEG for whoever wants it: made once, on the first thread that asks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._making = threading.Lock()
        self._image: Image | None = None
        self._number = 0
        self._made: tuple[int, bytes] = (0, b"")
        self._ended = False

    def put(self, image: Image) -> None:
        with self._changed:
            self._image = image
            self._number += 1
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def after(self, number: int) -> tuple[int, bytes] | None:
        """The newest picture, as its number, counted from 1, and JPEG; None once all are over and it is not newer.

        Waits a while for one that is newer than the one with this number, and as long as it takes for the first.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._number > number or self._ended, _LONGEST_GAP)
            self._changed.wait_for(lambda: self._number or self._ended)
            newest, image = self._number, self._image
            if image is None or (self._ended and newest <= number):
                return None
        with self._making:
            if self._made[0] < newest:
                _, data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))
                self._made = newest, data.tobytes()
            return self._made


class PageServer(http.server.ThreadingHTTPServer):
    """Serves one page; no thread of it outlives `end`, also none whose browser takes nothing."""

    allow_reuse_port = False
    request_queue_size = MOST_VIEWERS

    def __init__(self, host: str, port: int, newest: Newest, findings: Findings) -> None:
        self.newest = newest
        self.findings = findings
        self.title = ""
        self._viewers: dict[socket.socket, None] = {}  # in the order in which they came
        self._answering: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self.serve_forever, args=(_POLL_SECONDS,), name="stream-seg-page")
        self.address_family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        super().__init__((str(address[0]), port), _Viewer)

    def server_bind(self) -> None:
        """Bind, without asking the network for a name of this machine, as an HTTP server does: it may take seconds."""
        socketserver.TCPServer.server_bind(self)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return ipaddress.ip_address(str(self.server_address[0])).is_loopback

    def has_place(self, viewer: socket.socket) -> bool:
        """Whether a connection is among those that may look."""
        with self._changed:
            return viewer in itertools.islice(self._viewers, MOST_VIEWERS)

    def begin(self, title: str) -> None:
        self.title = title
        self._thread.start()

    def end(self) -> None:
        self.shutdown()
        self._thread.join()
        with self._changed:
            self._changed.wait_for(lambda: not self._viewers, _PARTING_SECONDS)
            for viewer in self._viewers:
                with contextlib.suppress(OSError):
                    viewer.shutdown(socket.SHUT_RDWR)
        for thread in self._answering:
            thread.join()
        self.server_close()

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Give a connection a thread of its own, if there is a place."""
        assert isinstance(request, socket.socket)
        request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ON_THE_WAY)
        target, arguments = self.process_request_thread, (request, client_address)
        thread = threading.Thread(target=target, args=arguments, name="stream-seg-viewer")
        with self._changed:
            if len(self._viewers) >= MOST_VIEWERS + _SPARE:
                logger.debug("a browser was sent away: %d are looking", MOST_VIEWERS)
                request.close()
                return
            thread.start()  # or the connection is closed, where the system gives no more threads
            self._viewers[request] = None
        self._answering = [*filter(threading.Thread.is_alive, self._answering), thread]

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        """Close a connection that is answered, and free its place."""
        assert isinstance(request, socket.socket)
        super().shutdown_request(request)
        with self._changed:
            self._viewers.pop(request, None)
            self._changed.notify_all()

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """Browsers go when they please: what their threads then raise is no error."""
        logger.debug("a browser has gone", exc_info=True)


class _Viewer(http.server.BaseHTTPRequestHandler):
    """Answers one request of a browser."""

    server: PageServer
    raw_requestline: bytes
    timeout = _PATIENCE
    protocol_version = "HTTP/1.1"  # a connection serves all that a browser asks for
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        if not self.server.has_place(self.connection):
            self.connection.settimeout(_HASTE)

    def do_GET(self) -> None:
        self.connection.settimeout(_PATIENCE)  # a place may have become free
        answers: dict[str, Callable[[], None]] = {
            "/": self._page,
            "/stream.mjpg": self._stream,
            "/picture.jpg": self._picture,
            "/objects": self._objects,
            "/objects.jsonl": self._lines,
            "/events": self._events,
            "/health": self._health,
        }
        path, _, self._query = self.path.partition("?")
        answer = answers.get(path)
        if path != "/health" and not self.server.has_place(self.connection):
            logger.debug("a browser was sent away: %d are looking", MOST_VIEWERS)
            self.close_connection = True
        elif answer is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        elif self.server.is_local and not _is_local(self.headers.get("Host", LOCAL)):
            # A page of somebody else's, whose name was made to mean this machine, would read the picture of a camera.
            self.send_error(HTTPStatus.FORBIDDEN, explain=f"Ask for {LOCAL}, or serve the page at another address")
        else:
            answer()

    do_HEAD = do_GET  # noqa: N815  as monitors ask: the same without what follows the headers

    def parse_request(self) -> bool:
        """Read a request, in whose address may be letters of any script as they are: curl sends what it was given."""
        self.raw_requestline = urllib.parse.quote(self.raw_requestline, safe=_ASCII).encode()
        return super().parse_request()

    def version_string(self) -> str:
        return "stream-seg"

    def log_message(self, format: str, *args: object) -> None:
        logger.debug("page: %s", format % args)

    def _page(self) -> None:
        # "replace": the name of a file may hold bytes that are no text.
        body = _HTML.format(title=html.escape(self.server.title)).encode(errors="replace")
        self._answer("text/html; charset=utf-8", body)

    def _picture(self) -> None:
        """The newest picture; with `?after=N`, once there is one after that with this number."""
        known = re.fullmatch(r"after=(\d{1,18})", self._query)
        newest = self.server.newest.after(int(known[1]) if known else 0)
        if newest is None:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        number, data = newest
        self._answer("image/jpeg", data, {"Picture-Number": number})

    def _stream(self) -> None:
        self._begin(f"multipart/x-mixed-replace; boundary={_BOUNDARY}", {"Connection": "close"})
        if self.command == "HEAD":
            return
        # Each part ends with the boundary of the next: browsers show it when they have read that.
        self.wfile.write(f"--{_BOUNDARY}\r\n".encode())
        number = 0
        while (newest := self.server.newest.after(number)) is not None:
            number, data = newest
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self._send(head.encode() + data + f"\r\n--{_BOUNDARY}\r\n".encode())

    def _objects(self) -> None:
        """What is in the newest picture: the record of an only source, a list of those of several."""
        sources = self._sources()
        if sources is None:
            return
        lines = [found.line for source in sources if (found := self.server.findings.newest(source)) is not None]
        if not lines:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, explain="No picture has come yet")
        else:
            records = lines[0] if len(sources) == 1 else b"[" + b",".join(lines) + b"]"
            self._answer("application/json", records + b"\n")

    def _lines(self) -> None:
        self._follow("application/jsonl", b"", b"\n")

    def _events(self) -> None:
        """The same as server-sent events, which a script in a browser takes as messages of an `EventSource`."""
        self._follow("text/event-stream", b"data: ", b"\n\n")

    def _follow(self, content_type: str, before: bytes, after: bytes) -> None:
        """What is in each picture from now on."""
        sources = self._sources()
        if sources is None:
            return
        with self.server.findings.following(sources) as channel, contextlib.suppress(EndOfStream):
            self._begin(content_type, {"Connection": "close"})
            while self.command != "HEAD":
                some = channel.take(1, timeout=_LONGEST_GAP)
                if not some and self._has_gone():
                    return
                for found in some:
                    self.wfile.write(before + found.line + after)

    def _has_gone(self) -> bool:
        """Whether who follows has closed the connection, on which no more is to come from there."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.connection, selectors.EVENT_READ)
            return bool(selector.select(0))

    def _health(self) -> None:
        """Whether pictures come: 200 if one came within ten seconds, or `?within=S`, else 503."""
        sources = self._sources()
        if sources is None:
            return
        within = self._asked("within") or str(_WITHIN)
        if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", within) is None:
            self.send_error(HTTPStatus.BAD_REQUEST, explain="within is a number of seconds, as in /health?within=30")
            return
        health = self.server.findings.health(sources, float(within))
        status = HTTPStatus.OK if health["status"] == "ok" else HTTPStatus.SERVICE_UNAVAILABLE
        # The place is free at once for the next who asks.
        self._answer("application/json", json.dumps(health).encode() + b"\n", {"Connection": "close"}, status)

    def _sources(self) -> Sequence[str | None] | None:
        """Which sources are asked about: all, or that of `?source=NAME`; None after an answer that there is no such."""
        sources, name = self.server.findings.sources, self._asked("source")
        if name is None:
            return sources
        if name in sources:
            return [name]
        known = [repr(source) for source in sources if source is not None]
        self.send_error(
            HTTPStatus.NOT_FOUND,
            explain=f"The sources are {', '.join(known)}" if known else "There is one source: leave out its name",
        )
        return None

    def _asked(self, name: str) -> str | None:
        """What stands in the address for this name, as in ?name=value."""
        values = urllib.parse.parse_qs(self._query, keep_blank_values=True, errors="surrogateescape").get(name)
        return None if values is None else values[-1]

    def _answer(
        self,
        content_type: str,
        body: bytes,
        headers: Mapping[str, str | int] = MappingProxyType({}),
        status: HTTPStatus = HTTPStatus.OK,
    ) -> None:
        self._begin(content_type, {"Content-Length": len(body), **headers}, status)
        if self.command != "HEAD":
            self._send(body)

    def _send(self, data: bytes) -> None:
        """Send it in pieces, for each of which there is time: that for a `write` is for all of what it is given."""
        for start in range(0, len(data), _PIECE):
            self.wfile.write(data[start : start + _PIECE])

    def _begin(self, content_type: str, headers: Mapping[str, str | int], status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Cache-Control": "no-store", **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()


def _is_local(host: str) -> bool:
    """Whether the host that a browser was told, with or without a port, can only mean its own machine."""
    name = re.sub(r":\d+$", "", host).strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"
