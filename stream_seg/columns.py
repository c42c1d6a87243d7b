"""Owns how wide text is in a terminal, where letters of East Asia take two columns and combining marks none."""

from __future__ import annotations

import unicodedata


def columns(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    return sum(_of_letter(letter) for letter in text)


def padded(text: str, width: int) -> str:
    """`text` with as many spaces behind it as make it `width` columns wide."""
    return text + " " * (width - columns(text))


def _of_letter(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1
