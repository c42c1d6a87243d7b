"""Webhook: an address that documents of JSON are posted to, by a thread that nobody waits for."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import logging
import math
import random
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from urllib.parse import quote, unquote, urljoin

from stream_seg.addresses.backoff import delay_before
from stream_seg.addresses.credentials import (
    SPLIT_PASSWORD,
    has_split_password,
    safe_address,
    split_address,
    with_password,
)
from stream_seg.addresses.failures import refuse_port, unknown_host
from stream_seg.channel import Channel, Overflow
from stream_seg.errors import OutputError, Reason, SourceError

logger = logging.getLogger(__name__)

BACKLOG = 64
"""Documents that may wait to be sent; of more, the oldest are left out."""

TRIES = 3
"""How often a document is sent to a server that is not there, or not ready."""

PATIENCE = 5.0
"""Seconds that a server may take for each step of an answer, and, at the end of a run, for all that waits."""

_NOT_NOW = (408, 429)
"""Beside 5xx, answers after which another try makes sense."""

_HOST = re.compile(r"(\[[\w:.%]+\]|[^\s:\[\]]+)(:\d*)?")


class Webhook:
    """Posts documents to an `http://` or `https://` address; several sinks, its `users`, may share it.

    All is done on a thread of its own: posting takes no time, however the server is. What a server does not take for
    want of a connection, or answers with 5xx, is sent again twice; what fails then is left out, with one warning until
    something has been sent again. Redirects are not followed. A name and password in the address, or that stand
    elsewhere, as `addresses.credentials` says, are sent as basic authentication. `name` is safe to print: it has no
    path, which mostly is a secret. `sent` counts what was taken since the first document, or the first after an `end`.

    Raises `OutputError` for an address of another kind, and for one that cannot be.
    """

    def __init__(self, address: str) -> None:
        if not re.match("https?://", address, re.IGNORECASE):  # not to be repeated: there may be a password in it
            raise OutputError("an address to notify begins with http:// or https://, as in http://home:8123/api/door")
        self.name = shown_address(address)
        try:
            refuse_port(address, self.name)
            parts = split_address(with_password(address))
        except SourceError as error:
            raise OutputError(str(error).replace(safe_address(address), self.name)) from None
        self._address = address
        user, _, host = parts.netloc.rpartition("@")
        named = _HOST.fullmatch(host)
        if named is None:
            hint = SPLIT_PASSWORD if has_split_password(address) else "it names no host"
            raise OutputError(f"cannot notify {self.name}: {hint}")
        try:
            named[1].encode("idna")
        except UnicodeError:  # which is no failure to connect for those who would come upon it later
            raise OutputError(f"cannot notify {self.name}: a host cannot have this name") from None
        wanted = parts._replace(scheme="", netloc="", fragment="").geturl()
        wanted = quote(wanted, safe="%/:=&?~+!$,;'@()*[]|", errors="surrogateescape")  # bytes of no text as they are
        self._url = f"{parts.scheme}://{host}{wanted if wanted.startswith('/') else f'/{wanted}'}"
        self._headers = {"Content-Type": "application/json", "User-Agent": "stream-seg"}
        if user:
            pair = unquote(user if ":" in user else f"{user}:").encode(errors="surrogateescape")
            basic = base64.b64encode(pair).decode()
            self._headers["Authorization"] = f"Basic {basic}"
        self._opener = urllib.request.build_opener(_NoRedirects)
        self.users: set[object] = set()
        self._thread: threading.Thread | None = None
        self.sent = 0

    def post(self, document: Mapping[str, object]) -> None:
        """Have the document sent as it is now."""
        if self._thread is None:
            self._start()
        dropped = self._documents.dropped
        self._posted += 1
        self._documents.put(json.dumps(document, separators=(",", ":")).encode("ascii"))
        if not dropped and self._documents.dropped:
            logger.warning("%s is slow: of more than %d notifications the oldest are left out", self.name, BACKLOG)

    def _start(self) -> None:
        self._documents: Channel[bytes] = Channel(BACKLOG, Overflow.DROP_OLDEST)
        self._closing = threading.Event()
        self._deadline = math.inf
        self._posted = self.sent = 0
        self._is_failing = False
        self._thread = threading.Thread(target=self._run, name=f"stream-seg-webhook {self.name}", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Send what waits, within `PATIENCE` seconds, and end the thread."""
        if self._thread is None:
            return
        self._deadline = time.monotonic() + PATIENCE
        self._closing.set()
        self._documents.close()
        self._thread.join(PATIENCE + 1)  # a server that sends its answer letter by letter is left behind
        self._documents.cancel()
        self._thread = None
        if self.sent < self._posted:
            lost = self._posted - self.sent
            logger.warning("%d of %d notifications were not taken by %s", lost, self._posted, self.name)

    def _run(self) -> None:
        for document in self._documents:
            self._send(document)

    def _send(self, document: bytes) -> None:
        request = urllib.request.Request(self._url, document, self._headers, method="POST")
        failure = ""
        for tries in itertools.count(1):
            left = self._deadline - time.monotonic()
            if left <= 0:
                break
            try:
                self._opener.open(request, timeout=min(PATIENCE, left)).close()
            except urllib.error.HTTPError as error:
                with error:
                    failure, is_final = self._refusal(error), error.code < 500 and error.code not in _NOT_NOW
            except (OSError, http.client.HTTPException) as error:
                failure, is_final = self._words(error), False
            else:
                self.sent += 1
                if self._is_failing:
                    logger.info("%s takes notifications again", self.name)
                self._is_failing = False
                return
            if is_final or tries == TRIES:
                break
            self._closing.wait(delay_before(tries - 1, Reason.OTHER, random.random()))
        if failure and not self._is_failing:
            logger.warning("cannot notify %s: %s", self.name, failure)
            self._is_failing = True

    def _refusal(self, error: urllib.error.HTTPError) -> str:
        place = error.headers.get("Location")
        if error.code < 400 and place:
            return f"it redirects to {shown_address(urljoin(self._url, place))}; give that address"
        hint = "; the name or password is missing or wrong" if error.code == http.client.UNAUTHORIZED else ""
        return f"it answers {error.code} {http.client.responses.get(error.code, '')}".rstrip() + hint

    def _words(self, error: OSError | http.client.HTTPException) -> str:
        """Say why there is no answer, without the address."""
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, socket.gaierror) and (host := unknown_host(self._address)) is not None:
            return f"there is no host named {host}"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({cause.verify_message})"
        if isinstance(cause, TimeoutError):
            return "it does not answer in time"
        words = cause.strerror if isinstance(cause, OSError) else None
        return words[:1].lower() + words[1:] if words else "it ended the connection, or does not speak HTTP"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for a failure: what follows one by the letter comes without its document."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def shown_address(address: str) -> str:
    """Return the address as it can be shown: without name and password, and without its path."""
    return re.sub(r"^([^:]*://[^/?#]*)[/?#].+$", r"\1/***", safe_address(address), flags=re.DOTALL)
