"""ImageFile, NumberedImages and ImageFolder: rendered frames into image files."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from stream_seg.detections import Detections
from stream_seg.errors import OutputError
from stream_seg.frame import Frame, Image, SourceInfo
from stream_seg.geometry import mask_roi
from stream_seg.protocols import Outcome, Sink
from stream_seg.sinks.part import PartFile, Target, file_identity, identities, same_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_WITH_ALPHA = (".png", ".webp")

_OPTIONS = {
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 95],
}

_NUMBER = re.compile(r"%(0\d+)?d")


class _Images(Sink):
    """Each frame into a file of its own, which appears under its name when it is whole.

    PNG, JPEG (quality 95) or WebP (quality 95) by its suffix. `open` raises `OutputError` when images of the input have
    the names of such files, `write` when the file exists and `overwrite` is not set, when it is the input or one of its
    images, by whatever name, and when it cannot be written. Images that are `spared`, such as those of other sources of
    the run, count as the input's. With `transparent`, for objects drawn on black, PNG and WebP images have a fourth
    channel: what is black there and belongs to no object cannot be seen.
    """

    of_one_feed = True

    def __init__(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        source_path: str | Path | None = None,
        spared: Iterable[str | Path] = (),
        transparent: bool = False,
    ) -> None:
        self.path = Path(path)
        self._overwrite = overwrite
        self._source = source_path
        self._spared = [Path(path) for path in spared]
        self._transparent = transparent
        self._has_written = False
        self._named: set[Path] = set()  # what has its name from the input; an index is not given twice
        self._inputs: set[tuple[int, int]] = set()
        self._prepare()

    @property
    def result(self) -> Path | None:
        """Where the images are, as it was named; None where none was written."""
        return self.path if self._has_written else None

    def open(self, info: SourceInfo) -> None:
        self._has_written = False
        self._named.clear()
        if info.path is not None:
            self._source = info.path
        inputs = dict.fromkeys([*info.files, *self._spared])
        self._inputs = identities(inputs)
        for path in inputs:
            if self._is_named_like_a_result(path):
                raise replaces_input(path)

    def write(self, frame: Frame, detections: Detections) -> None:
        path = self._path_for(frame)
        if path in self._named:
            raise OutputError(f"{path} was just written, and another image is to have that name; write to a folder")
        if file_identity(path) in self._inputs:
            raise replaces_input(path)
        has_alpha = self._transparent and path.suffix.lower() in _WITH_ALPHA
        save(_cut_out(frame.image, detections) if has_alpha else frame.image, self._target(path))
        self._has_written = True
        if frame.name is not None:
            self._named.add(path)

    @abstractmethod
    def _prepare(self) -> None:
        """The rest of the constructor: refuse a place where nothing can be written."""

    @abstractmethod
    def _path_for(self, frame: Frame) -> Path:
        """The file for this frame."""

    def _is_named_like_a_result(self, path: Path) -> bool:  # noqa: ARG002  for subclasses to say
        """Whether an image of the input is in the place of the results and has the name of one."""
        return False

    def _target(self, path: Path) -> Target:
        return Target(path, self._overwrite, self._source)


class ImageFile(_Images):
    """One frame into one file, and an error when there are more.

    Where the source does not say that it has but one, the file is written once that is sure: when the sink is closed.
    After a failure it is not.

    The constructor raises `OutputError` when the file exists and `overwrite` is not set, when it is the input, and when
    its folder is missing or cannot be written to; `open` for the same by then, as of a run before with the same sink.
    """

    def _prepare(self) -> None:
        refuse_suffix(self.path)
        self._target(self.path)
        self._name = "the input"
        self._has_one = False
        self._waiting: tuple[Frame, Detections] | None = None

    def open(self, info: SourceInfo) -> None:
        super().open(info)
        self._target(self.path)
        self._name = info.name
        # How many frames a part of a recording has is but an estimate: of two, one may be before it or behind it, and
        # where the time between frames varies, one may be several.
        count = None if info.start > 0 or info.end is not None else info.frame_count
        if count is not None and count > 1:
            raise self._too_many()
        self._has_one = count == 1

    def write(self, frame: Frame, detections: Detections) -> None:
        if self._has_written or self._waiting is not None:
            self._waiting = None
            raise self._too_many()
        if self._has_one:
            super().write(frame, detections)
        else:
            self._waiting = frame, detections

    def close(self, outcome: Outcome) -> None:
        """Write the frame that was the only one."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and outcome is not Outcome.FAILED:
            super().write(*waiting)

    def _path_for(self, frame: Frame) -> Path:  # noqa: ARG002  there is but one
        return self.path

    def _too_many(self) -> OutputError:
        path = self.path.with_name(f"{self.path.stem}_%05d{self.path.suffix}")
        return OutputError(f"{self.path} can hold one image, and {self._name} has more; write to a folder or to {path}")


class NumberedImages(_Images):
    """Each frame into a file with its index in the name: `out_%05d.png`.

    The constructor raises `OutputError` when such a file exists and `overwrite` is not set, and when the folder is
    missing or cannot be written to.
    """

    def _prepare(self) -> None:
        refuse_suffix(self.path)
        self._target(self.path)  # refuses a missing folder
        self._pattern = re.compile(_NUMBER.sub(r"\\d+", re.escape(self.path.name)))
        for existing in sorted(self.path.parent.iterdir()):
            if not self._overwrite and self._pattern.fullmatch(existing.name):
                raise OutputError(f"{existing} exists already; pass --overwrite (overwrite=True) to replace it")

    def _is_named_like_a_result(self, path: Path) -> bool:
        return self._pattern.fullmatch(path.name) is not None and same_file(path.parent, self.path.parent)

    def _path_for(self, frame: Frame) -> Path:
        return self.path.with_name(_NUMBER.sub(lambda match: match[0] % frame.index, self.path.name))


class ImageFolder(_Images):
    """Each frame into a file of a folder, which is made if need be.

    An image keeps the name it came with, with the suffix .png where it had one that is not written here, or behind that
    where another image has such a name: a.bmp beside a.png becomes a.bmp.png. Frames of a video are named by their
    index, `000000.png`.

    The constructor raises `OutputError` when there is something in the folder and `overwrite` is not set, when it is
    the folder of the input, and when it cannot be made.
    """

    def _prepare(self) -> None:
        refuse_no_folder(self.path, self._source)
        if self.path.is_dir() and not self._overwrite and any(self.path.iterdir()):
            raise not_empty(self.path)
        self._keeping: set[tuple[str, ...]] = set()

    def open(self, info: SourceInfo) -> None:
        super().open(info)
        self._keeping.clear()
        # How much of its path a frame has for its name is not known here.
        for parts in (_folded(path) for path in info.files if path.suffix.lower() in SUFFIXES):
            self._keeping.update(parts[place:] for place in range(len(parts)))

    def _is_named_like_a_result(self, path: Path) -> bool:
        return path.suffix.lower() in SUFFIXES and same_file(path.parent, self.path)

    def _path_for(self, frame: Frame) -> Path:
        path = self.path / self._name(frame)
        make_folder(path.parent)
        return path

    def _name(self, frame: Frame) -> Path:
        if frame.name is None:
            return Path(f"{frame.index:06d}.png")
        came = inside(frame.name)
        name = came if came.suffix.lower() in SUFFIXES else came.with_suffix(".png")
        longer = came
        while self.path / name in self._named or (name != came and _folded(name) in self._keeping):
            name = longer = longer.with_name(f"{longer.name}.png")  # a.bmp and a.tif both become a.png
        return name


def refuse_no_folder(path: Path, source: str | Path | None) -> None:
    """Raise `OutputError` for what can be no folder of results: a file, or the folder of the input, the `source`."""
    if path.exists() and not path.is_dir():
        raise OutputError(f"cannot write images into {path}: it is a file; name a folder")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")
    if source is not None and same_file(source, path):
        raise OutputError(f"{path} is the folder of the input; write to another one")


def not_empty(path: Path) -> OutputError:
    """What to raise for a folder of results in which there is something already."""
    return OutputError(
        f"there is something in the folder {path} already; name another one, or pass --overwrite "
        "(overwrite=True) to replace files in it"
    )


def make_folder(path: Path) -> None:
    """Make a folder of results, and those it is in, unless it is there. Raises `OutputError`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {path} cannot be made: {error.strerror}") from error


def inside(name: str) -> Path:
    """What an image of the input is called, for results: it must not lead out of their folder."""
    came = Path(name)
    return Path(*(part for part in came.parts if part not in (came.anchor, "..")))


def replaces_input(path: Path) -> OutputError:
    """What to raise for a result in the place of an image that is read."""
    return OutputError(f"{path} is an image of the input; write to another folder")


def _folded(path: Path) -> tuple[str, ...]:
    """The parts of a path, the same for those that some file systems take for one."""
    return tuple(part.lower() for part in path.parts)


def is_numbered(path: Path) -> bool:
    """Whether the name has a place for a number, such as %05d."""
    return _NUMBER.search(path.name) is not None


def refuse_suffix(path: Path) -> None:
    """Raise `OutputError` for a kind of image that is not written here."""
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"cannot write {path}: images are written as {', '.join(SUFFIXES)}")


def _cut_out(image: Image, detections: Detections) -> NDArray[np.uint8]:
    """The image and a fourth channel, (H, W, 4): 0 where it is black and no object is, else 255."""
    alpha = np.asarray(cv2.bitwise_not(cv2.inRange(image, (0, 0, 0), (0, 0, 0))), np.uint8)
    for box, mask in zip(detections.boxes, detections.masks, strict=True):
        rows, columns, bitmask = mask_roi(box, mask, (image.shape[1], image.shape[0]))
        alpha[rows, columns] |= 255 * bitmask  # which may be black itself
    cut = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
    cv2.insertChannel(alpha, cut, 3)
    return np.asarray(cut, np.uint8)


def save(image: NDArray[np.uint8], target: Target, *, is_whole: bool = True) -> Path | None:
    """Encode and write one image, BGR or BGRA; return where it is.

    One that is not whole, as after a failure, keeps its partial name; None if it was deleted. Raises `OutputError` when
    either fails.
    """
    suffix = target.path.suffix.lower()
    encoded, data = cv2.imencode(suffix, image, _OPTIONS.get(suffix, []))
    if not encoded:
        raise OutputError(
            f"cannot write {target.path}: an image of {image.shape[1]}x{image.shape[0]} cannot be stored as {suffix}"
        )
    part = PartFile(target)
    try:
        part.write(data.tobytes())
    except OSError as error:
        part.discard()
        raise part.unwritable(error) from error
    if not is_whole:
        return part.keep()
    part.publish()
    return target.path
