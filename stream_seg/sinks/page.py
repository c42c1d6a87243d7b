"""Page: frames in browsers, served over HTTP as JPEGs that replace each other; what they show, as JSON."""

from __future__ import annotations

import logging
import re

from stream_seg.detections import Detections
from stream_seg.errors import OutputError, UsageError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.given import is_whole
from stream_seg.protocols import Outcome, Sink
from stream_seg.sinks.page_server import LOCAL, Newest, PageServer
from stream_seg.sinks.served import Findings, ServedObjects

logger = logging.getLogger(__name__)

PORTS = range(65536)
"""0 stands for any that is free."""


class Page(Sink):
    """Shows frames to browsers at `url`, the newest to each: one that is slow leaves frames out and holds up nobody.

    `/` is a page that fills the browser's window, `/picture.jpg` the newest picture, `/stream.mjpg` one after the other
    (multipart JPEG, which players and `open_source` read, too). Pictures are made only while somebody looks, on threads
    of the server. There is no password: whoever reaches `host` and `port` sees them.

    Programs get what is shown as JSON: `/objects`, in the newest picture, `/objects.jsonl` and `/events`, in each new
    one, and `/health` tells whether any come. That is what `write` gets, unless `objects` has made sinks for it: where
    the page shows several sources, or is behind `stream_seg.tiles.Tiles`, each source needs one.

    `host` is a name or an address of this machine, `0.0.0.0` or `::` for all of it; `port` 0 takes a free one. Raises
    `OutputError` from the constructor and from `open` when it cannot be served there, and `UsageError` for what is no
    port.
    """

    def __init__(self, port: int, host: str = LOCAL) -> None:
        if not is_whole(port, PORTS):
            raise UsageError(f"a port is a whole number, {PORTS[0]} to {PORTS[-1]}, not {port!r}")
        self._host = host
        self._port = port
        self._newest = Newest()
        self._findings = Findings()
        self._own: Sink | None = None
        self._server: PageServer | None = None
        self._serve().server_close()

    def __str__(self) -> str:
        return self.url

    @property
    def url(self) -> str:
        """Where the page is."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/"

    def objects(self, source: str | None = None) -> Sink:
        """A sink for the frames of one source, of which the page is to tell; before `open`. It needs no pictures.

        `source` is its name among several, which goes into its records.
        """
        return ServedObjects(self._findings, source)

    def open(self, info: SourceInfo) -> None:
        """Begin to serve."""
        self._newest = Newest()  # that of a run before has ended
        self._findings.begin()
        if not self._findings.sources:
            self._own = ServedObjects(self._findings, None)
        if self._own is not None:
            self._own.open(info)
        self._server = self._serve()
        self._port = self._server.server_address[1]
        self._server.begin(info.name)
        logger.info("watch at %s", self.url)

    def write(self, frame: Frame, detections: Detections) -> None:
        self._newest.put(frame.image)
        if self._own is not None:
            self._own.write(frame, detections)

    def close(self, outcome: Outcome) -> None:  # noqa: ARG002  the page ends either way
        """Let those who look have the last picture, and end."""
        self._newest.end()
        self._findings.end()
        server, self._server = self._server, None
        if server is not None:
            server.end()

    def _serve(self) -> PageServer:
        try:
            return PageServer(self._host, self._port, self._newest, self._findings)
        except (OSError, UnicodeError) as error:  # UnicodeError: a..b, or a word of more than 63 letters
            why = error.strerror if isinstance(error, OSError) else "that is no name of a host"
            raise OutputError(
                f"cannot serve a page at {self.url} ({why}); name another port, or an address of this machine"
            ) from error


def parse_host_and_port(text: str) -> tuple[str, int]:
    """`8080`, `0.0.0.0:8080` or `[::1]:8080` as host and port. Raises `UsageError` for anything else."""
    match = re.fullmatch(r"(?:(?P<host>[^:\[\]/@\s]+|\[[0-9a-fA-F:.]+\]):)?(?P<port>\d{1,5})", text)
    if match is None or int(match["port"]) not in PORTS:
        raise UsageError(f"'{text}' is no port to serve at; write PORT (8080) or HOST:PORT (0.0.0.0:8080)")
    return (match["host"] or LOCAL).strip("[]"), int(match["port"])
