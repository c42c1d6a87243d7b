"""Webhook: an address that documents of JSON are posted to over HTTP."""

from __future__ import annotations

import base64
import http.client
import re
import urllib.error
import urllib.request
from urllib.parse import quote, unquote, urljoin

from stream_seg.addresses.credentials import safe_address
from stream_seg.sinks.recipient import WRONG_PASSWORD, Recipient, Undelivered

_NOT_NOW = (408, 429)
"""Beside 5xx, answers after which another try makes sense."""


class Webhook(Recipient):
    """Posts documents to an `http://` or `https://` address.

    A server that answers with 5xx is not ready. Redirects are not followed. A name and password in the address, or that
    stand elsewhere, as `addresses.credentials` says, are sent as basic authentication. The `name` has no path, which
    mostly is a secret.
    """

    schemes = ("http", "https")
    protocol = "HTTP"

    def __init__(self, address: str) -> None:
        super().__init__(address)
        wanted = self._parts._replace(scheme="", netloc="", fragment="").geturl()
        wanted = quote(wanted, safe="%/:=&?~+!$,;'@()*[]|", errors="surrogateescape")  # bytes of no text as they are
        self._url = f"{self._parts.scheme}://{self._authority}{wanted if wanted.startswith('/') else f'/{wanted}'}"
        self._headers = {"Content-Type": "application/json", "User-Agent": "stream-seg"}
        if self._user:
            pair = unquote(self._user if ":" in self._user else f"{self._user}:").encode(errors="surrogateescape")
            basic = base64.b64encode(pair).decode()
            self._headers["Authorization"] = f"Basic {basic}"
        self._opener = urllib.request.build_opener(_NoRedirects)

    def _shown(self, address: str) -> str:
        return _shown_address(address)

    def _deliver(self, document: bytes, seconds: float) -> None:
        request = urllib.request.Request(self._url, document, self._headers, method="POST")
        try:
            self._opener.open(request, timeout=seconds).close()
        except urllib.error.HTTPError as error:
            with error:
                is_final = error.code < 500 and error.code not in _NOT_NOW
                raise Undelivered(self._answered(error), is_final=is_final) from None
        except urllib.error.URLError as error:
            raise error.reason if isinstance(error.reason, OSError) else error from None
        except http.client.HTTPException as error:
            raise ConnectionError from error

    def _answered(self, error: urllib.error.HTTPError) -> str:
        place = error.headers.get("Location")
        if error.code < 400 and place:
            return f"it redirects to {_shown_address(urljoin(self._url, place))}; give that address"
        hint = WRONG_PASSWORD if error.code == http.client.UNAUTHORIZED else ""
        return f"it answers {error.code} {http.client.responses.get(error.code, '')}".rstrip() + hint


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for a failure: what follows one by the letter comes without its document."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def _shown_address(address: str) -> str:
    """Return the address as it can be shown: without name and password, and without its path."""
    return re.sub(r"^([^:]*://[^/?#]*)[/?#].+$", r"\1/***", safe_address(address), flags=re.DOTALL)
