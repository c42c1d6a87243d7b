"""Credentials: where the password of an address comes from, and what of an address may be shown.

Whatever is printed, logged, written into a file or its name is made by `safe_address` or `label_of`. The address with
the password in it is made by `with_password` and goes to FFmpeg, or to whom `--notify` names, alone.
"""

from __future__ import annotations

import logging
import netrc
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit

from stream_seg.errors import SourceError
from stream_seg.metrics import told_apart

logger = logging.getLogger(__name__)

PASSWORD_VARIABLE = "STREAM_SEG_PASSWORD"

ASKING_SCHEMES = frozenset({"rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "mqtt", "mqtts"})
"""What can ask for a name and a password."""

SPLIT_PASSWORD = "in a password, / ? and # are written %2F %3F and %23"
"""What to say where `has_split_password`, and what FFmpeg took for the host fails."""

LABEL_LENGTH = 40
LABEL_BYTES = 120
"""In UTF-8, in which a file name may have 255: what the user puts around a label needs some, and so does a segment."""

_SECRET = re.compile(r"(?i)((?:pass|pw|psw|token|key|secret|auth|sig|use?r|login|cred)\w*=)[^&;#\s]*")
_USER = re.compile(r"^(.*?://)(.+)@", re.DOTALL)
_AUTHORITY = re.compile(r"^([a-z][a-z0-9+.-]*://)([^/?#]*)(.*)$", re.IGNORECASE | re.DOTALL)
_HOST = re.compile(
    r"([\w-]*[a-z.][\w.-]*:\d+|localhost|(\d+\.){3}\d+|www\.[^/]+|(rtsps?|https?|rtmps?|tcp|srt):[^/]*)(?=/)",
    re.IGNORECASE,
)
"""What begins a path that was meant as an address."""

_NO_SCHEME = re.compile(r":.+@([\w.-]+|\[[\w:.%]+\])([:/?#]|$)", re.DOTALL)
_SUFFIX = re.compile(r"\.\w{1,5}$")
_CAMERA = re.compile(r"(?:/dev/video)?(\d+)")


def safe_address(url: str) -> str:
    """Return an address that can be shown: `rtsp://***@host/path?token=***` without names, passwords and tokens."""
    return _SECRET.sub(r"\1***", _USER.sub(r"\1***@", url))


def split_address(url: str) -> SplitResult:
    """Return the parts of an address; raise `SourceError`, which tells no secret, where that cannot be done."""
    try:
        return urlsplit(url)
    except ValueError:
        pass  # it repeats the password, and so must not be the context of ours
    raise SourceError(
        f"cannot read {safe_address(url)}: this is no address; in a name or password, "
        "[ ] : @ and / are written %5B %5D %3A %40 and %2F"
    )


def with_password(url: str) -> str:
    """Return the address with a name and password that stand elsewhere, percent-encoded, in it.

    A password in the address wins. Else one that names a user gets the password in the environment variable
    STREAM_SEG_PASSWORD, and else what the netrc file ($NETRC or ~/.netrc) holds for the host, which also serves
    addresses that name nobody. Raises `SourceError` for a netrc file that is needed and cannot be read.
    """
    match, parts = _AUTHORITY.match(url), split_address(url)
    if match is None or parts.scheme.lower() not in ASKING_SCHEMES:
        return url
    scheme, authority, rest = match.groups()
    user, at, host = authority.rpartition("@")
    if ":" in user or (not at and "@" in rest):  # the latter: a password with a slash in it, or nothing of the kind
        return url
    found = _found(unquote(user), parts.hostname or "")
    if found is None:
        return url
    return f"{scheme}{quote(found[0], safe='')}:{quote(found[1], safe='')}@{host}{rest}"


def _found(user: str, host: str) -> tuple[str, str] | None:
    """Return the name and password for a host, None when none are known; `user` may be empty."""
    password = os.environ.get(PASSWORD_VARIABLE)
    if user and password:
        return user, password
    try:
        entry = _netrc_entry(host)
    except SourceError as error:
        if user:
            raise
        logger.warning("%s; going on without it", error)
        return None
    if entry is None or (user and entry[0] not in ("", user)):
        return None
    return user or entry[0], entry[1]


def _netrc_entry(host: str) -> tuple[str, str] | None:
    named = os.environ.get("NETRC")
    try:
        path = Path(named) if named else Path.home() / ".netrc"
        if not named and not path.exists():
            return None
        # Without a path Python also refuses a file that others may read.
        entry = netrc.netrc(named or None).authenticators(host)
    except netrc.NetrcParseError as error:  # its message may repeat the word it stumbled over: a password
        raise SourceError(_netrc_refusal(path, error)) from None
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise SourceError(f"cannot read passwords from {named or '~/.netrc'}: {why}") from None
    return (entry[0] or "", entry[2]) if entry and entry[2] else None


def _netrc_refusal(path: Path, error: netrc.NetrcParseError) -> str:
    if error.msg.startswith("~/.netrc"):
        return f"cannot read passwords from {path}: others may read or own it; run chmod 600 {path}"
    return f"cannot read passwords from {path}: line {error.lineno} is not as a netrc file has it"


def has_split_password(url: str) -> bool:
    """Whether a password in an address seems to hold / ? or # as they are, where a reader takes the host to end."""
    match = _AUTHORITY.match(url)
    return match is not None and "@" not in match[2] and "@" in match[3]


def refuse_lacking_scheme(text: str) -> None:
    """Raise `SourceError` for `user:pw@host/path` or `host:554/path` without rtsp:// or with a mistyped one.

    It does not repeat what may be a secret. To be asked of what is not there: a file may well be called so.
    """
    if _NO_SCHEME.search(text):
        raise SourceError("no such file; for an address with a password write rtsp:// (or http:// ...) before it")
    host = _HOST.match(text)
    if host and not Path(host[0]).exists():
        raise SourceError(f"no such file or folder: {host[0]}; an address begins with rtsp:// (or http:// ...)")


def label_of(spec: str | int | Path) -> str:
    """Return a short name of a source for files, windows and tiles: letters, digits, `.`, `_`, `-`; no credentials.

    `rtsp://user:pw@cam1:554/stream?token=x` gives cam1-stream, camera 0 webcam0, holiday.mp4 holiday. Letters are those
    of all scripts, composed (NFC), with the marks that belong to them.
    """
    text = str(spec)
    camera = _CAMERA.fullmatch(text)
    if camera:
        return f"webcam{camera[1]}"
    if text == "-":
        return "stdin"
    if "://" in text:
        return _clean(_address_words(text))
    if text.startswith("synthetic"):
        return "synthetic"
    return _clean(_SUFFIX.sub("", Path(text).name))


def _address_words(url: str) -> str:
    """Return host and path of an address, without port, query and whatever `safe_address` hides."""
    shown = safe_address(url).partition("://")[2].rpartition("***@")[2]
    host, _, path = re.split(r"[?#]", shown, maxsplit=1)[0].partition("/")
    words = [word for word in re.split(r"[/&;]", path) if not word.endswith("***")]
    return "-".join([re.sub(r":\d*$", "", host), *words])


def _clean(words: str) -> str:
    kept = ""
    for letter in unicodedata.normalize("NFC", words):
        is_mark = unicodedata.category(letter) in ("Mn", "Mc") and kept[-1:] not in ("", *"-._")
        kept += letter if letter in "._" or letter.isalnum() or is_mark else "-"
    short = re.sub("-+", "-", kept)[:LABEL_LENGTH].encode()[:LABEL_BYTES].decode(errors="ignore")
    return short.strip("-._") or "source"


def labels_of(specs: Iterable[str | int | Path]) -> list[str]:
    """Return a label for each source, `-2`, `-3` ... added where two would be the same, also but for their case."""
    return told_apart(map(label_of, specs))
