"""Recipient: an address that is sent documents of JSON, by a thread that nobody waits for."""

from __future__ import annotations

import abc
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
from collections.abc import Mapping, Sequence
from typing import ClassVar

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

WRONG_PASSWORD = "; the name or password is missing or wrong"

_HOST = re.compile(r"(\[[\w:.%]+\]|[^\s:\[\]]+)(:\d*)?")


class Undelivered(Exception):
    """A server did not take a document: why, in words that tell no secret, and whether it `is_final`, so that another
    try makes no sense.
    """

    def __init__(self, words: str, *, is_final: bool) -> None:
        super().__init__(words)
        self.is_final = is_final


class Recipient(abc.ABC):
    """Sends documents to an address of one of its `schemes`; several sinks, its `users`, may share it.

    At the end of a run it is done together with the rest of its `party`, so that none has to wait for another.

    All is done on a thread of its own: posting takes no time, however the server is. What a server does not take for
    want of a connection, or is not ready for, is sent again twice; what fails then is left out, with one warning until
    something has been sent again. `name` is the address as it may be printed. `sent` counts what was taken since the
    first document, or the first after an `end`.

    Raises `OutputError` for an address of another kind, and for one that cannot be.
    """

    schemes: ClassVar[tuple[str, ...]]
    protocol: ClassVar[str]
    """What the server must speak, as people call it."""

    def __init__(self, address: str) -> None:
        if not self.is_for(address):  # not to be repeated: there may be a password in it
            begins = " or ".join(f"{scheme}://" for scheme in self.schemes)
            raise OutputError(f"an address to notify over {self.protocol} begins with {begins}")
        self.name = self._shown(address)
        self._address = address
        try:
            refuse_port(address, self.name)
            self._parts = split_address(with_password(address))
        except SourceError as error:
            raise OutputError(str(error).replace(safe_address(address), self.name)) from None
        self._user, _, self._authority = self._parts.netloc.rpartition("@")
        named = _HOST.fullmatch(self._authority)
        if named is None:
            raise self._refusal(SPLIT_PASSWORD if has_split_password(address) else "it names no host")
        try:
            named[1].encode("idna")
        except UnicodeError:  # which is no failure to connect for those who would come upon it later
            raise self._refusal("a host cannot have this name") from None
        self.users: set[object] = set()
        self.party: Sequence[Recipient] = [self]
        self._thread: threading.Thread | None = None
        self.sent = 0

    @classmethod
    def is_for(cls, address: str) -> bool:
        """Whether an address begins with one of the `schemes`."""
        scheme, separator, _ = address.partition("://")
        return bool(separator) and scheme.lower() in cls.schemes

    def post(self, document: Mapping[str, object]) -> None:
        """Have the document sent as it is now."""
        if self._thread is None or self._closing.is_set():
            self.end()
            self._start()
        dropped = self._documents.dropped
        self._posted += 1
        self._documents.put(json.dumps(document, separators=(",", ":")).encode("ascii"))
        if not dropped and self._documents.dropped:
            logger.warning("%s is slow: of more than %d notifications the oldest are left out", self.name, BACKLOG)

    def leave(self, user: object) -> None:
        """Take a user for gone. The last one has what waits sent, and that of the `party` waits until all is done."""
        self.users.discard(user)
        if not self.users:
            self._finish()
        if not any(one.users for one in self.party):
            for one in self.party:
                one.end()

    def end(self) -> None:
        """Send what waits, within `PATIENCE` seconds, and end the thread."""
        if self._thread is None:
            return
        self._finish()
        left = max(0.0, self._deadline - time.monotonic())
        self._thread.join(left + 1)  # a server that sends its answer letter by letter is left behind
        self._documents.cancel()
        self._thread = None
        if self.sent < self._posted:
            lost = self._posted - self.sent
            logger.warning("%d of %d notifications were not taken by %s", lost, self._posted, self.name)

    @abc.abstractmethod
    def _deliver(self, document: bytes, seconds: float) -> None:
        """Send a document and wait for the answer, so many seconds for each step of it; on the thread.

        Raises `OSError` where there is none, and `Undelivered` where it is a refusal.
        """

    def _shown(self, address: str) -> str:
        return safe_address(address)

    def _refusal(self, words: str) -> OutputError:
        return OutputError(f"cannot notify {self.name}: {words}")

    def _start(self) -> None:
        self._documents: Channel[bytes] = Channel(BACKLOG, Overflow.DROP_OLDEST)
        self._closing = threading.Event()
        self._deadline = math.inf
        self._posted = self.sent = 0
        self._is_failing = False
        self._thread = threading.Thread(target=self._run, name=f"stream-seg-notify {self.name}", daemon=True)
        self._thread.start()

    def _finish(self) -> None:
        """Have what waits sent within `PATIENCE` seconds; this does not wait for it."""
        if self._thread is None or self._closing.is_set():
            return
        self._deadline = time.monotonic() + PATIENCE
        self._closing.set()
        self._documents.close()

    def _run(self) -> None:
        for document in self._documents:
            self._send(document)

    def _send(self, document: bytes) -> None:
        failure = ""
        for tries in itertools.count(1):
            left = self._deadline - time.monotonic()
            if left <= 0:
                break
            try:
                self._deliver(document, min(PATIENCE, left))
            except Undelivered as error:
                failure, is_final = str(error), error.is_final
            except OSError as error:
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

    def _words(self, error: OSError) -> str:
        """Say why there is no answer, without the address."""
        if isinstance(error, socket.gaierror) and (host := unknown_host(self._address)) is not None:
            return f"there is no host named {host}"
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({error.verify_message})"
        if isinstance(error, ssl.SSLError) and (reason := getattr(error, "reason", None)):
            return f"it speaks no TLS, or none that fits ({reason.replace('_', ' ').lower()})"
        if isinstance(error, TimeoutError):
            return "it does not answer in time"
        words = error.strerror
        return words[:1].lower() + words[1:] if words else f"it ended the connection, or does not speak {self.protocol}"
