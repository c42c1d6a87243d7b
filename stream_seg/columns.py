"""Owns how text stands in a terminal: letters of East Asia take two columns, combining marks none, and characters that
are orders to it, which names of files and models may have, are told instead of obeyed.
"""

from __future__ import annotations

import unicodedata


def columns(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    # Syllables of Korean may come as their letters, as in names of files on macOS.
    return sum(_of_letter(letter) for letter in unicodedata.normalize("NFC", text))


def padded(text: str, width: int) -> str:
    """`text` with as many spaces behind it as make it `width` columns wide."""
    return text + " " * (width - columns(text))


def legible(text: str) -> str:
    """Lines of text, in which other control characters are written as in Python, `\\x1b`."""
    return "\n".join(map(legible_name, text.split("\n")))


def legible_name(name: str) -> str:
    """A name that stands in a line of text, in which all control characters are written so, line feeds, too."""
    return "".join(repr(letter)[1:-1] if unicodedata.category(letter) == "Cc" else letter for letter in name)


def _of_letter(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1
