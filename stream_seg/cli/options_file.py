"""Options in a file: `@cameras.txt` on the command line stands for the words that the file holds."""

from __future__ import annotations

import io
import os
import re
import shlex
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stream_seg.addresses.credentials import safe_address
from stream_seg.errors import UsageError

MARK = "@"

MOST_BYTES = 100_000
"""What is larger is hardly a file of options, but a recording, or a device without end. argparse takes a second for it,
and time that grows with the square of the size.
"""

LACKS_VALUE = "expected one argument"
"""What argparse says of an option."""

_COMMENT = re.compile(r"[ \t\r]*#")


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a command line; `place` tells the file and the line that it stands in, None if in none."""

    text: str
    place: str | None = None


def with_files(argv: Sequence[str]) -> list[Word]:
    """The words of a command line, and in place of each that begins with @, up to a --, those of that file.

    Raises `UsageError` for a file that cannot be read, that is none of words, or that names another.
    """
    end = argv.index("--") if "--" in argv else len(argv)
    words: list[Word] = []
    for text in argv[:end]:
        words += _words_of(text) if text.startswith(MARK) else [Word(text)]
    return [*words, *map(Word, argv[end:])]


def place_of_failure(words: Sequence[Word], failure: Callable[[Sequence[str]], str | None]) -> str | None:
    """The place of the word that parsing fails at; None where that is in no file.

    argparse does not tell which word it is. It is the last of the fewest, from the first on, of which `failure` tells
    what it tells of all.
    """
    if not any(word.place for word in words):
        return None
    texts = [word.text for word in words]
    message = failure(texts)

    def fails(number: int) -> bool:
        """Whether so many words do, with the value of an option that they end with."""
        told = failure(texts[:number])
        return message == (failure(texts[: number + 1]) if told and LACKS_VALUE in told else told)

    fewest = bisect_left(range(len(words)), True, key=fails)
    if failure(texts[:fewest]) != message:  # it is that value
        fewest += 1
    return words[fewest - 1].place


def place_of_mention(words: Sequence[Word], message: str) -> str | None:
    """The place of the word that a message, of a failure after parsing, is about; None where that is in no file.

    It is the first value that the message has in quotes, which may be part of a word (`--classes person,dgo`), else the
    first option, file or address in it; none where several words have that. What follows a comma, a semicolon or a
    bracket does not count: it may be what contradicts the word, or what to write instead.
    """
    if not any(word.place for word in words):
        return None
    about = re.split(r"[;,] | \(", message, maxsplit=1)[0]
    mentions = [(mention, word) for word in words for mention in _mentions(word.text, about)]
    first = min((mention for mention, _ in mentions), default=None)
    named = [word for mention, word in mentions if mention == first]
    return named[0].place if len(named) == 1 else None


def _mentions(word: str, message: str) -> Iterator[tuple[bool, int]]:
    """Where in a message a word stands, first what is in quotes (False), then what is not."""
    option, _, value = word.partition("=") if word.startswith("--") else ("", "", word)
    for part in {value, *re.split("[,=]", value)} - {""}:
        if (place := message.find(f"'{safe_address(part)}'")) >= 0:
            yield False, place
    is_name = re.search(r"[./:\\]", value) and any(map(str.isalpha, value))  # 0.5 may be anything
    for text in (option, value if is_name else ""):
        match = re.search(rf"(?<![\w./-]){re.escape(safe_address(text))}(?![\w./-])", message) if text else None
        if match:
            yield True, match.start()


def _words_of(marked: str) -> list[Word]:
    name = marked.removeprefix(MARK)
    words = []
    for number, line in enumerate(_read(name, marked).split("\n"), 1):
        place = f"{name}, line {number}"
        for text in _split(line.removesuffix("\r"), place):
            if text.startswith(MARK):
                raise UsageError(
                    f"{place}: a file of options names no other, as {safe_address(text)} would; give both on the "
                    "command line, and write ./ before the @ if it is none"
                )
            if text == "--":
                raise UsageError(f"{place}: -- is for the command line; a source that begins with - is written ./-name")
            words.append(Word(text, place))
    return words


def _read(name: str, marked: str) -> str:
    refusal = f"cannot read options from '{safe_address(name)}'"
    try:
        with Path(name).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        why = f"{error.strerror}".lower() if name else "no file is named behind the @"
        hint = f"; a source of that name is written ./{marked}" if os.path.exists(marked) else ""  # noqa: PTH110  a name too long is none
        raise UsageError(f"{refusal}: {why}{hint}") from None
    if len(data) > MOST_BYTES:
        raise UsageError(f"{refusal}: it is larger than {MOST_BYTES // 1000} kB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UsageError(f"{refusal}: it is not text in UTF-8")
    return text


def _split(line: str, place: str) -> list[str]:
    """The words of a line as a shell has them, with quotes, backslashes and comments, but nothing replaced.

    `shlex` alone would begin a comment in the midst of a word, as in clip#2.mp4.
    """
    text = io.StringIO(line)
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    try:
        while not _COMMENT.match(line, text.tell()) and (word := lexer.get_token()) is not None:
            words.append(word)
    except ValueError:  # it does not tell which
        if line.endswith("\\"):
            raise UsageError(
                f"{place} ends with \\, which is not needed: words go on in the next line anyway"
            ) from None
        raise UsageError(
            f"""{place}: a quotation mark is not closed; a name with one is written "bob's.mp4\""""
        ) from None
    return words
