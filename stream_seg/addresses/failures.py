"""What FFmpeg's errors mean: the reason a program can tell apart, and words that leave out the address."""

from __future__ import annotations

import contextlib
import errno
import re
import socket
from collections.abc import Iterator

import av

from stream_seg.addresses.credentials import has_split_password, safe_address, split_address
from stream_seg.errors import Reason, SourceError

_REASONS: tuple[tuple[tuple[type[av.FFmpegError], ...], Reason], ...] = (
    ((av.ConnectionRefusedError,), Reason.REFUSED),
    ((av.HTTPUnauthorizedError, av.HTTPForbiddenError), Reason.AUTHENTICATION),
    ((av.HTTPNotFoundError, av.FileNotFoundError), Reason.NOT_FOUND),
    ((av.HTTPClientError, av.HTTPServerError, av.PermissionError), Reason.REFUSED),
    ((av.ExitError, av.TimeoutError), Reason.TIMEOUT),
    ((av.EOFError, av.ConnectionResetError, av.ConnectionAbortedError, av.BrokenPipeError), Reason.ENDED),
    ((av.InvalidDataError, av.PatchWelcomeError, av.DecoderNotFoundError, av.DemuxerNotFoundError), Reason.CODEC),
)
"""The first line that fits counts."""

_WITHOUT_USUAL_PORT = frozenset({"udp", "tcp", "rtp"})
_LAST_PORT = 65535

_UNREACHABLE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})


def reason_of(error: av.FFmpegError | OSError) -> Reason:
    """Say in a word why FFmpeg failed."""
    if error.errno in _UNREACHABLE:
        return Reason.NOT_FOUND
    return next((reason for kinds, reason in _REASONS if isinstance(error, kinds)), Reason.OTHER)


def words_of(error: av.FFmpegError | OSError) -> str:
    """Say why FFmpeg failed without repeating the address, which may hold a password."""
    if isinstance(error, av.InvalidDataError):
        return "it is not a video, or too damaged to be one"
    if isinstance(error, av.HTTPUnauthorizedError | av.HTTPForbiddenError):
        return (
            "the name or password is missing or wrong; write user@ before the host, and the password into "
            "STREAM_SEG_PASSWORD or ~/.netrc"
        )
    if isinstance(error, av.HTTPOtherClientError):  # FFmpeg tells no more of this one and the next
        return "the server refused it (4xx); is the address right?"
    if isinstance(error, av.HTTPServerError):
        return "the server has a fault, or is not ready (5xx)"
    words = (error.strerror or "unknown error").strip().rstrip(".")
    return words[0].lower() + words[1:] if words[1:2].islower() else words


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Raise what goes wrong with a file or a pipe as a `SourceError`; not for addresses, which FFmpeg's error holds."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        # Its frames, which know it, hold the decoder: in cycles, since Python 3.12.
        raise SourceError(f"{name} broke off: {words_of(error)}", reason_of(error)) from error.with_traceback(None)


def unknown_host(url: str) -> str | None:
    """Return the host of an address if it has no entry in the DNS, of which FFmpeg says "I/O error"; else None."""
    host = split_address(safe_address(url)).hostname
    if host is None:  # udp://:5000 listens for everybody
        return None
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return host
    return None


def refuse_port(url: str, shown: str) -> None:
    """Raise `SourceError` for an address, `shown` without its secrets, whose port is none, or that lacks one it needs.

    Of most FFmpeg says "invalid argument"; over UDP it waits at, or sends to, another port without a word.
    """
    if has_split_password(url):  # what looks like a port is the beginning of a password
        return
    parts = split_address(url)
    scheme, port = parts.scheme.lower(), re.search(r":([^:\]]*)$", parts.netloc.rpartition("@")[2])
    if port is None or not port[1]:
        if (port or scheme in _WITHOUT_USUAL_PORT) and "port=" not in parts.query:
            raise SourceError(f"{shown} lacks a port; write {scheme}://HOST:PORT")
    elif not (port[1].isdecimal() and 0 < int(port[1]) <= _LAST_PORT):
        raise SourceError(f"{shown} has a port that cannot be; they are 1 to {_LAST_PORT}")
