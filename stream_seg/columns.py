"""Owns how wide text is in a terminal, where letters of East Asia take two columns and combining marks none."""

from __future__ import annotations

import unicodedata


def columns(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    # Syllables of Korean may come as their letters, as in names of files on macOS.
    return sum(_of_letter(letter) for letter in unicodedata.normalize("NFC", text))


def padded(text: str, width: int) -> str:
    """`text` with as many spaces behind it as make it `width` columns wide."""
    return text + " " * (width - columns(text))


def _of_letter(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1
