"""Fetches one pinned file: mirrors in order, retries, resuming, and its checksum proved before it gets its name.

It stands on `urllib.request` alone. pooch 1.9, the obvious choice, brings seven packages (requests, urllib3, certifi,
platformdirs ...) and has neither mirrors nor resuming, does not tell a full disk from a broken network, and sees a
saved error page only as a wrong checksum; what it would leave to us is nearly all of this file. urllib follows
redirects, honours the proxy settings of the system and checks certificates, which is what is needed from a library.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import logging
import os
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import urlsplit

from stream_seg.errors import ModelError

logger = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]
"""Called with (done, total) bytes as they arrive; total is None where it is not known."""

_CHUNK = 1 << 18
_HEAD = 512
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_RANGE_REFUSED = 416


@dataclass(frozen=True, slots=True)
class Download:
    """A published file: its name on disk, addresses in order of preference, SHA-256 in hex, length in bytes."""

    file: str
    mirrors: tuple[str, ...]
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to bear with one mirror: attempts, seconds before the second one (doubling), seconds without a byte."""

    attempts: int = 4
    pause: float = 1.0
    timeout: float = 30.0


PATIENCE = Patience()


class _Refused(Exception):
    """This mirror will not give the file, however often it is asked."""


class _Broken(Exception):
    """This transfer failed, another attempt may not."""


def fetch(download: Download, folder: Path, progress: Progress | None = None, patience: Patience = PATIENCE) -> Path:
    """Bring `download` into `folder` and return its path; a half-finished `FILE.part` there is continued.

    One caller at a time (see `stream_seg.locking`). Raises `ModelError` when no mirror gives the file (naming each with
    its reason), when the disk is full or when the folder cannot be written.
    """
    target = folder / download.file
    with _Part(folder / f"{download.file}.part") as part:
        _check_space(folder, download.size - part.size)
        _from_any_mirror(download, part, progress or _silent, patience, target)
    with _disk(folder):
        part.path.replace(target)
    return target


def _silent(done: int, total: int | None) -> None:
    """Progress that nobody watches."""


def _from_any_mirror(download: Download, part: _Part, progress: Progress, patience: Patience, target: Path) -> None:
    reasons = []
    for url in download.mirrors:
        try:
            return _from_mirror(url, download, part, progress, patience)
        except _Refused as error:
            reasons.append(f"{urlsplit(url).hostname}: {error}")
            logger.info("%s", reasons[-1])
    raise ModelError(
        f"cannot download {download.file} ({'; '.join(reasons)}); check the network and any proxy, "
        f"or save {download.mirrors[0]} as {target} yourself"
    )


def _from_mirror(url: str, download: Download, part: _Part, progress: Progress, patience: Patience) -> None:
    reason = ""
    for attempt in range(patience.attempts):
        if attempt:
            time.sleep(patience.pause * 2 ** (attempt - 1))
        try:
            return _attempt(url, download, part, progress, patience.timeout)
        except _Broken as error:
            reason = str(error)
            logger.info("%s: %s", urlsplit(url).hostname, reason)
    raise _Refused(f"{reason} ({patience.attempts} attempts)")


def _attempt(url: str, download: Download, part: _Part, progress: Progress, timeout: float) -> None:
    """One request, continuing where the part ends; returns only with the whole, right file in the part."""
    begun_with = part.size
    if part.size < download.size:
        _transfer(url, download, part, progress, timeout)
    if part.size < download.size:
        _refuse_foreign(part)
        raise _Broken(f"cut off after {part.size} of {download.size} bytes")
    if part.size == download.size and part.hexdigest() == download.sha256:
        return
    _refuse_foreign(part)
    part.restart()
    if begun_with:
        raise _Broken("what was left of an earlier download did not fit")
    raise _Refused("sent other contents than the published file (wrong SHA-256 or length)")


def _refuse_foreign(part: _Part) -> None:
    what = _foreign(part.head())
    if what:
        part.restart()
        raise _Refused(what)


def _foreign(head: bytes) -> str:
    """What a body is that is plainly not a model, judged by its first bytes; empty when it may be one."""
    if head.startswith(b"version https://git-lfs"):
        return "sent a Git LFS pointer instead of the file"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "sent an HTML page instead of the file (a login or error page?)"
    return ""


def _transfer(url: str, download: Download, part: _Part, progress: Progress, timeout: float) -> None:
    with _request(url, part, timeout) as response:
        offset = part.size if response.status == http.client.PARTIAL_CONTENT else 0
        _check_offer(response, offset, download.size)
        if not offset:
            part.restart()
        progress(part.size, download.size)
        for chunk in _chunks(response):
            part.append(chunk)
            progress(min(part.size, download.size), download.size)
            if part.size > download.size:
                return


def _check_offer(response: http.client.HTTPResponse, offset: int, size: int) -> None:
    """Refuse a body of the wrong length before anything is overwritten with it."""
    if offset and not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
        raise _Refused("answered with another part of the file than was asked for")
    declared = response.headers.get("Content-Length", "")
    if not declared.isdecimal() or offset + int(declared) == size:
        return
    head = b"" if offset else b"".join(_chunks(response, _HEAD))
    raise _Refused(_foreign(head) or f"offers {offset + int(declared)} bytes where {size} were expected")


def _request(url: str, part: _Part, timeout: float) -> http.client.HTTPResponse:
    headers = {"User-Agent": "stream-seg", "Accept-Encoding": "identity"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
    with _network(part):
        response: http.client.HTTPResponse = urllib.request.build_opener(_NeverToPlainHttp).open(
            urllib.request.Request(url, headers=headers), timeout=timeout
        )
        return response


class _NeverToPlainHttp(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but none that leaves TLS (what a hotel's login page does)."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            fp.close()
            raise _Refused("redirects to an address without TLS")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _chunks(response: http.client.HTTPResponse, most: int | None = None) -> Iterator[bytes]:
    """The body piece by piece, as it arrives; at least `most` bytes of it if given and there are so many."""
    seen = 0
    while most is None or seen < most:
        with _network():
            chunk = response.read1(_CHUNK)
        if not chunk:
            return
        seen += len(chunk)
        yield chunk


@contextmanager
def _network(part: _Part | None = None) -> Iterator[None]:
    """Sort what can go wrong on the network into worth another attempt (`_Broken`) and not (`_Refused`)."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == _RANGE_REFUSED and part is not None:
            part.restart()
            raise _Broken("refused to continue a half-finished download") from error
        raise _judge_status(error) from error
    except urllib.error.URLError as error:
        raise _judge_cause(error.reason) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        # Its frames hold the answer that urllib has not closed: in cycles, since Python 3.12.
        raise _judge_cause(error) from error.with_traceback(None)


def _judge_status(error: urllib.error.HTTPError) -> _Refused | _Broken:
    if 300 <= error.code < 400:
        return _Refused("redirects in a loop or to an address that cannot be used")
    says = f"{error.code} {http.client.responses.get(error.code, '')}".strip()
    return _Broken(says) if error.code in _TRY_AGAIN else _Refused(says)


def _judge_cause(cause: BaseException | str) -> _Refused | _Broken:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _Refused(f"its certificate is not trusted ({cause.verify_message})")
    if isinstance(cause, ValueError):
        return _Refused(f"it, a redirect or a proxy has an address that makes no sense ({cause})")
    if isinstance(cause, socket.gaierror):
        return _Refused("host not found")
    if isinstance(cause, ConnectionRefusedError):
        return _Refused("connection refused")
    if isinstance(cause, TimeoutError):
        return _Broken("timed out")
    said = str(cause) or type(cause).__name__
    return _Broken(said.splitlines()[0])


def _check_space(folder: Path, needed: int) -> None:
    with _disk(folder):
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelError(
            f"{folder} has {free / 1e6:.0f} MB free and {needed / 1e6:.0f} MB are needed; "
            "free some space or choose another folder with --model-dir"
        )


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Turn failures of our own disk into the user's sentence: no mirror can mend them."""
    try:
        yield
    except OSError as error:
        what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise ModelError(
            f"cannot write to {folder}: {what}; free some space or choose another folder with --model-dir"
        ) from error


class _Part:
    """A half-finished file and the running checksum of its bytes; stays on disk when its `with` block is left."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._sha = hashlib.sha256()

    def __enter__(self) -> Self:
        with _disk(self.path.parent):
            self._file = self.path.open("a+b")
            self._read_back(self.path.stat().st_size)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _disk(self.path.parent), self._file:
            if kind is None:
                os.fsync(self._file.fileno())  # a power cut must not leave a whole name on half a file

    def _read_back(self, size: int) -> None:
        self._file.seek(0)
        while self.size < size and (chunk := self._file.read(min(_CHUNK, size - self.size))):
            self._sha.update(chunk)
            self.size += len(chunk)

    def append(self, chunk: bytes) -> None:
        """Add bytes at the end; they are on disk (or the error is raised) when this returns."""
        with _disk(self.path.parent):
            self._file.write(chunk)
            self._file.flush()
        self._sha.update(chunk)
        self.size += len(chunk)

    def restart(self) -> None:
        """Forget everything that was received."""
        if self.size:
            with _disk(self.path.parent):
                self._file.truncate(0)
        self.size, self._sha = 0, hashlib.sha256()

    def head(self) -> bytes:
        """The first bytes of the file."""
        with _disk(self.path.parent):
            self._file.seek(0)
            return self._file.read(min(_HEAD, self.size))

    def hexdigest(self) -> str:
        """SHA-256 of everything received so far."""
        return self._sha.hexdigest()
