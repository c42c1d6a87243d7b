"""Owns what differs between the versions of PyAV: before 19, and since then.

Since 19 rational numbers are its own `AVRational`, 0/1 where nothing is known, which was None and a `Fraction` before;
sizes that are unknown are None and no negative number; and texts in metadata are read with what is no UTF-8 in
surrogates, where it had to be told how.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Protocol

import av
from av.container import InputContainer

TOLERANT: Mapping[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}
"""Arguments of `av.open`, lest metadata that is no UTF-8 keeps a container from being read."""


class Rational(Protocol):
    """A `Fraction`, or what PyAV has in its place."""

    @property
    def numerator(self) -> int: ...

    @property
    def denominator(self) -> int: ...


def exact(value: Rational | None) -> Fraction | None:
    """A rate, a unit of time or a shape of pixels; None where it is not known, or is none, such as 0."""
    if value is None or not value.numerator or not value.denominator:
        return None
    return Fraction(value.numerator, value.denominator)


def size_of(container: InputContainer) -> int:
    """The length of what is read in bytes, 0 where it is not known."""
    return max(0, container.size or 0)


def legible(text: str) -> str:
    """A text of a container's metadata, in which what is no UTF-8 is replaced."""
    return text.encode(errors="surrogateescape").decode(errors="replace")
