"""Which files a name stands for: a folder, a pattern, a numbered sequence or a list; images, or films."""

from __future__ import annotations

import fnmatch
import glob
import itertools
import logging
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stream_seg.addresses.credentials import refuse_lacking_scheme
from stream_seg.errors import SourceError

logger = logging.getLogger(__name__)

SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jfif",
    ".webp",
    ".heic",
    ".heif",
    ".hif",
    ".avif",
    ".jp2",
    ".bmp",
    ".pbm",
    ".pgm",
    ".ppm",
    ".pnm",
    ".tif",
    ".tiff",
)

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".vob"),
    *(".ts", ".mts", ".m2ts", ".ogv", ".flv", ".wmv", ".3gp", ".gif"),
)
"""How the names of recordings end, as far as that matters: a file that is named is opened by whatever name."""

_NUMBER = re.compile(r"%0?(\d*)d")


def is_image(path: Path) -> bool:
    """Whether the name ends as an image's."""
    return path.suffix.lower() in SUFFIXES


def images_in(folder: Path, results: Iterable[str | Path] = ()) -> list[Path]:
    """Return the images directly in a folder, 2 before 10; raise `SourceError` when there is none.

    Hidden files are left out, as patterns do it: macOS puts a ._IMG_1.jpg, which is none, beside each image on a card.
    A warning tells of videos and of folders with images, which are left out as well, but for `results`.
    """
    found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    images = _images_of(found)
    below = [path for path in found if _holds_image(path)]
    pattern = shlex.quote(str(Path(glob.escape(str(folder)), "**", "*")))
    if not images:
        kinds = ", ".join(suffix[1:] for suffix in SUFFIXES)
        advice = f"; folders in it do, which {pattern} reads" if below else _advice_on_others(found)
        raise SourceError(f"{folder} holds no images ({kinds}){advice}")
    _warn_of_films(found, results)
    below = _others_than(results, below)
    if below:
        logger.warning("left out %s: %s reads those, too", _counted(below, "folder{s} with images"), pattern)
    return images


def images_matching(pattern: str, results: Iterable[str | Path] = ()) -> list[Path]:
    """Return the images a glob pattern finds (`**` goes into folders); raise `SourceError` when there is none.

    A warning tells of videos, which are left out, but for `results`.
    """
    found = set(_found(Path(pattern)))
    images = _images_of(found)
    if not images:
        refuse_lacking_scheme(pattern)
        raise SourceError(f"no images match {pattern}{_advice_on_others(found)}")
    _warn_of_films(found, results)
    return images


def films_in(spec: str) -> list[Path]:
    """Return the films directly in a folder, or those that a glob pattern finds, 2 before 10.

    There are none for anybody where there are images, which is what such a name stands for, nor for another name.
    Raises `OSError` for a folder that may not be looked into.
    """
    path = Path(spec)
    if path.is_dir():
        found = [item for item in path.iterdir() if not item.name.startswith(".")]
    elif not path.exists() and not is_numbered(spec) and glob.has_magic(spec):
        found = list(set(_found(path)))
    else:
        return []
    return [] if _images_of(found) else sorted(filter(_is_film, found), key=natural_order)


def would_find(pattern: str, path: Path) -> bool:
    """Whether a glob pattern would find a file, were it there."""
    return _fits(Path(os.path.abspath(path)).parts, Path(os.path.abspath(pattern)).parts)  # noqa: PTH100  as below


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[place:], pattern[1:] or ("*",)) for place in range(len(parts)))
    return len(parts) > 0 and fnmatch.fnmatch(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _is_film(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def _images_of(paths: Iterable[Path]) -> list[Path]:
    return sorted((path for path in paths if is_image(path) and path.is_file()), key=natural_order)


def _holds_image(folder: Path) -> bool:
    """Whether there is an image directly in a folder; one that may not be looked into has none."""
    try:
        return folder.is_dir() and any(is_image(path) and not path.name.startswith(".") for path in folder.iterdir())
    except OSError:
        return False


def _warn_of_films(paths: Iterable[Path], results: Iterable[str | Path]) -> None:
    films = _others_than(results, filter(_is_film, paths))
    if films:
        logger.warning("left out %s, for videos are named one by one", _counted(films, "video{s}"))


def _others_than(results: Iterable[str | Path], paths: Iterable[Path]) -> list[Path]:
    """Those of some paths that are no result, nor a folder of results."""
    ours = [Path(os.path.realpath(result)) for result in results]
    return [path for path in paths if not any(our.is_relative_to(os.path.realpath(path)) for our in ours)]


def _counted(paths: Iterable[Path], words: str) -> str:
    """`2 videos (photos/a.mp4 ...)`, where `words` are "video{s}"."""
    first, *others = sorted(paths, key=natural_order)
    return f"{1 + len(others)} {words.format(s='s' if others else '')} ({first}{' ...' if others else ''})"


def _advice_on_others(paths: Iterable[Path]) -> str:
    """What to do where there are files, but no images: they may be videos. Else nothing."""
    files = [path for path in paths if path.is_file()]
    if any(map(_is_film, files)):
        return "; videos are named one by one"
    kinds = ", ".join(suffix[1:] for suffix in VIDEO_SUFFIXES)
    return f", nor videos ({kinds}); files of other names are named one by one" if files else ""


def common_folder(paths: Sequence[Path]) -> Path:
    """Return the folder that all of these files are in, themselves or in folders of it.

    Raises `SourceError` when there is none, as on several drives of Windows, and when a file is named twice.
    """
    places = [os.path.abspath(path) for path in paths]  # noqa: PTH100  Path.absolute leaves .. in it
    times = Counter(places)
    twice = next((path for path, place in zip(paths, places, strict=True) if times[place] > 1), None)
    if twice is not None:
        raise SourceError(f"{twice} was named twice; name each image once")
    try:
        return Path(os.path.commonpath([os.path.dirname(place) for place in places]))  # noqa: PTH120
    except ValueError:
        raise SourceError(f"{paths[0]} and other images are on several drives; name those of one drive") from None


def numbered_images(pattern: str) -> list[Path]:
    """Return the files of a sequence such as `img_%04d.png` in the order of their numbers, wherever they begin.

    Only numbers as printf writes them: 01 is not for %d, which would have it twice. Raises `SourceError` when there is
    none.
    """
    template = Path(pattern)
    before, digits, after = _NUMBER.split(template.name, maxsplit=1)
    width = max(1, int(digits or 1))
    names = re.compile(f"{re.escape(before)}(\\d{{{width}}}|[1-9]\\d{{{width},}}){re.escape(after)}")
    if not template.parent.is_dir():
        refuse_lacking_scheme(pattern)
        raise SourceError(f"no images match {pattern}: there is no folder {template.parent}")
    found = {int(match[1]): path for path in template.parent.iterdir() if (match := names.fullmatch(path.name))}
    if not found:
        refuse_lacking_scheme(pattern)
        raise SourceError(f"no images match {pattern}")
    return [found[number] for number in sorted(found)]


def is_numbered(spec: str) -> bool:
    """Whether a path is a pattern of numbered files, as printf writes them."""
    return _NUMBER.search(Path(spec).name) is not None


def fixed_folder(pattern: str) -> Path:
    """Return the folder that everything a glob pattern finds is in."""
    parts = Path(pattern).parent.parts
    return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), parts))


def _found(pattern: Path) -> Iterator[Path]:
    """What a glob pattern finds. `glob` itself follows links in circles, and never ends where two of them meet."""
    parts = pattern.parts
    if "**" not in parts:
        yield from map(Path, glob.glob(str(pattern)))  # noqa: PTH207  Path.glob takes no absolute pattern
        return
    place = parts.index("**")
    for top in _found(Path(*parts[:place])):
        for folder in _folders(top, frozenset()):
            yield from _found(Path(glob.escape(str(folder)), *parts[place + 1 :] or ("*",)))


def _folders(top: Path, above: frozenset[str]) -> Iterator[Path]:
    """A folder and those in it, linked ones too, but for hidden ones and links to one of those `above`."""
    itself = os.path.realpath(top)  # not Path.resolve: it raises an error for a link to itself
    if itself not in above:
        yield top
        for name in glob.glob(f"{glob.escape(str(top))}/*/"):  # noqa: PTH207  it passes over what it may not look into
            yield from _folders(Path(name), above | {itself})


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts img2 before img10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", str(path))]
