"""Crops: a picture of each object, cut out of the frame that shows it best."""

from __future__ import annotations

import itertools
import math
import os
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stream_seg.detections import Detections
from stream_seg.errors import OutputError, UsageError
from stream_seg.frame import Frame, Image, SourceInfo
from stream_seg.metrics import KNOWN
from stream_seg.protocols import Outcome, Sink
from stream_seg.sinks.images import SUFFIXES, inside, make_folder, not_empty, refuse_no_folder, replaces_input, save
from stream_seg.sinks.part import TakenError, Target, file_identity, identities, same_file, shortened

GONE_SECONDS = 3.0
"""What was not seen for so long is gone: longer than `steady.REMEMBERED`, for which it keeps its number."""

BETTER = 1.1
"""How many times as good as the best look until now one must be that is copied: what comes nearer is a little larger in
each frame."""

MOST_BYTES = 100_000_000
"""Pixels of all looks that wait for better ones, of one source: a hundred people at half the height of a 4K picture."""

_CUT_OFF = 0.25  # what the border of the picture cuts off must be so many times larger to be the better look
_BORDER = 0.005  # share of the picture's sides: the boxes of what is cut off end so near to the border, if not on it
_MARGIN = 0.05  # around a box, as a share of its longer side
_LONGEST_STEM = 180  # bytes of an image's name, to which class and number are added

_TIMED = re.compile(r"_\d{8}-\d{6}(-\d+)?\.")
"""In the names of crops of live sources."""

_Object = tuple[str, int]
"""The name of its class and its number."""


@dataclass(slots=True)
class _Look:
    """The best look at an object until now, taken when the monotonic clock showed `at`.

    Its object was `seen` last at this time of the source. `image` is None once it is written, to `path`.
    """

    quality: float
    seen: float
    image: Image | None = None
    at: float = 0.0
    path: Path | None = None


class Crops(Sink):
    """Writes one JPEG of each object, from the picture as it was taken, with a small margin, into a folder.

    It is cut out of the frame in which its box is largest, times its score; what the border of the picture cuts off
    counts a quarter. Objects of films are told apart by their numbers (`Detections.ids`) and called `person-3.jpg`;
    each is written when it was not seen for `GONE_SECONDS`, or at the end, also after a failure. Those of live sources
    have the time of day too, `person-3_20261123-015316.jpg`: these names are never used twice, and a folder that holds
    nothing else can be gone on with. Of images each object is written at once, `photo-person-1.jpg`, in folders as
    theirs.

    `source` is a name that tells several sources of one folder apart: theirs are called `door-person-3.jpg`, and those
    of a source of several images are in a folder `source`. Looks that wait take `MOST_BYTES`, or a single one more;
    beyond that those of objects that were seen least recently are written early, and replaced if a better one comes.

    The constructor raises `OutputError` when there is something else in the folder and `overwrite` is not set, when it
    is that of the input (`source_path`), and when it cannot be made or written to; `open` when images of the input, or
    those that are `spared`, are in it; `write` and `close` when writing fails. `write` raises `UsageError` for objects
    of films that have no numbers.
    """

    of_one_feed = True
    wants_pictures = False
    wants_captured = True

    def __init__(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        source_path: str | Path | None = None,
        spared: Iterable[str | Path] = (),
        source: str | None = None,
    ) -> None:
        self.path = Path(path)
        self._overwrite = overwrite
        self._spared = [Path(path) for path in spared]
        self._source = source
        self._has_written = False
        self._info: SourceInfo | None = None
        self._inputs: set[tuple[int, int]] = set()
        self._pending: OrderedDict[_Object, _Look] = OrderedDict()  # least recently seen first
        self._written: OrderedDict[_Object, _Look] = OrderedDict()  # the same; they may come back
        self._bytes = 0
        self._began = 0.0  # what the monotonic clock showed at the time 0 of the source
        self._named: set[str] = set()  # what images are called here
        try:
            self._refuse(source_path)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from error

    @property
    def result(self) -> Path | None:
        """The folder, as it was named; None where nothing was written."""
        return self.path if self._has_written else None

    def open(self, info: SourceInfo) -> None:
        inputs = dict.fromkeys([*info.files, *self._spared, *([] if info.path is None else [info.path])])
        self._inputs = identities(inputs)
        for path in inputs:
            if path.suffix.lower() in SUFFIXES and same_file(path.parent, self.path):
                raise replaces_input(path)
        self._info = info
        self._has_written = False
        self._written.clear()  # numbers, and names of images, are those of one run
        self._named.clear()

    def write(self, frame: Frame, detections: Detections) -> None:
        if self._info is None:
            raise RuntimeError("open the sink before writing to it")
        if frame.is_still:
            self._write_all_of(frame, detections)
            return
        now = float(frame.pts)
        self._began = frame.captured_at - now
        if len(detections):
            self._look_at(frame, detections, now)
        self._write_gone(now)

    def wants_stop(self) -> bool:
        """Never. What a live source has shown is written meanwhile, which may be away for long."""
        if self._info is not None and self._info.is_live:
            self._write_gone(time.monotonic() - self._began)
        return False

    def close(self, outcome: Outcome) -> None:  # noqa: ARG002  each picture is whole, however the run ended
        """Write what is left of the looks. Raises the first `OutputError` once all were tried."""
        failure: OutputError | None = None
        while self._pending:
            try:
                self._write_first()
            except OutputError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _refuse(self, source: str | Path | None) -> None:
        if self.path.suffix.lower() in SUFFIXES and not self.path.is_dir():
            raise OutputError(f"crops are several images, and {self.path} is the name of one; name a folder")
        refuse_no_folder(self.path, source)
        place = self.path if self.path.is_dir() else self.path.parent
        if not os.access(place, os.W_OK | os.X_OK):
            raise OutputError(f"cannot write {self.path}: no permission to write in the folder {place}")
        others = (item for item in self.path.iterdir() if not _TIMED.search(item.name)) if self.path.is_dir() else ()
        if not self._overwrite and any(others):
            raise not_empty(self.path)

    def _look_at(self, frame: Frame, detections: Detections, now: float) -> None:
        """Keep what is seen better than before."""
        if detections.ids is None:
            raise UsageError("crops are of objects with numbers, which these have none of; give the pipeline a Steady")
        size = frame.size
        objects = zip(detections.names, detections.ids.tolist(), strict=True)
        for known, score, box in zip(objects, detections.scores.tolist(), detections.boxes.tolist(), strict=True):
            quality = _quality(box, score, size)
            look = self._pending.get(known) or self._written.get(known)
            if look is None:
                if not quality > 0:
                    continue
                look = _Look(0.0, now)
            look.seen = now
            if quality > BETTER * look.quality:
                self._bytes -= 0 if look.image is None else look.image.nbytes
                look.quality, look.image, look.at = quality, _cropped(frame.image, box).copy(), frame.captured_at
                self._bytes += look.image.nbytes
                self._written.pop(known, None)
                self._pending[known] = look
            (self._written if look.image is None else self._pending).move_to_end(known)
            while self._bytes > MOST_BYTES and len(self._pending) > 1:
                self._write_first()

    def _write_gone(self, now: float) -> None:
        """Write the looks at what is gone at this time of the source."""
        while self._pending and now - next(iter(self._pending.values())).seen > GONE_SECONDS:
            self._write_first()

    def _write_first(self) -> None:
        """Write the look at the object that was seen least recently, and remember that."""
        known, look = self._pending.popitem(last=False)
        image, look.image = look.image, None
        assert image is not None  # of all that is pending
        self._bytes -= image.nbytes
        if look.path is not None:  # which is of this object
            save(image, Target(look.path, overwrite=True))
        else:
            look.path = self._save(image, self._name(known, look.at))
        self._written[known] = look
        if len(self._written) > KNOWN:
            self._written.popitem(last=False)

    def _name(self, known: _Object, at: float) -> Path:
        source = "" if self._source is None else f"{self._source}-"
        name = f"{source}{_word(known[0])}-{known[1]}"
        if self._info is not None and self._info.is_live:
            seconds = time.time() - (time.monotonic() - at)
            name += time.strftime("_%Y%m%d-%H%M%S", time.localtime(seconds))
        return Path(f"{name}.jpg")

    def _write_all_of(self, frame: Frame, detections: Detections) -> None:
        """Write each object of an image, numbered by their classes."""
        stem: Path | None = None
        numbers: Counter[str] = Counter()
        for name, score, box in zip(
            detections.names, detections.scores.tolist(), detections.boxes.tolist(), strict=True
        ):
            if _quality(box, score, frame.size) > 0:
                stem = stem or self._stem(frame)
                word = _word(name)
                numbers[word.casefold()] += 1
                crop = _cropped(frame.image, box)
                self._save(crop, stem.with_name(f"{stem.name}-{word}-{numbers[word.casefold()]}.jpg"))

    def _stem(self, frame: Frame) -> Path:
        """What the names of all crops of an image begin with, which no other's do."""
        came = inside(frame.name or f"{frame.index:06d}")
        stem, number = came.with_name(shortened(came.stem, _LONGEST_STEM)), 1
        if self._source is not None:
            is_only = self._info is not None and len(self._info.files) == 1
            stem = Path(self._source) if is_only else self._source / stem
        while str(stem).casefold() in self._named:  # a.jpg and a.png would both be a
            counter = "" if number == 1 else f"-{number}"
            stem, number = stem.with_name(f"{shortened(came.name, _LONGEST_STEM)}{counter}"), number + 1
        self._named.add(str(stem).casefold())
        return stem

    def _save(self, image: Image, name: Path) -> Path:
        """Write to this place in the folder, or one beside it that is free; return where."""
        make_folder((self.path / name).parent)
        may_replace = self._overwrite and not (self._info is not None and self._info.is_live)
        for number in itertools.count(1):
            counter = "" if number == 1 else f"-{number}"
            path = (self.path / name).with_name(f"{name.stem}{counter}{name.suffix}")
            if not may_replace and path.exists():
                continue
            if file_identity(path) in self._inputs:
                raise replaces_input(path)
            try:
                save(image, Target(path, may_replace))
            except TakenError as error:  # since it was looked, by another run that writes into this folder, too
                if error.kept is not None:
                    error.kept.unlink(missing_ok=True)
            else:
                break
        self._has_written = True
        return path


def _quality(box: Sequence[float], score: float, size: tuple[int, int]) -> float:
    """How good a look at an object is: its pixels in a picture of `size`, times its score; 0 where none are in it."""
    (x1, y1, x2, y2), (width, height) = box, size
    if not math.isfinite(x1 + y1 + x2 + y2 + score):
        return 0.0
    seen = max(0.0, min(x2, width) - max(x1, 0)) * max(0.0, min(y2, height) - max(y1, 0)) * score
    near_x, near_y = _BORDER * width, _BORDER * height
    is_whole = x1 > near_x and y1 > near_y and x2 < width - near_x and y2 < height - near_y
    return seen if is_whole else _CUT_OFF * seen


def _cropped(image: Image, box: Sequence[float]) -> Image:
    """The part of the image, (H, W, 3), that is in a box and close around it, not copied."""
    x1, y1, x2, y2 = box
    margin = _MARGIN * max(x2 - x1, y2 - y1)
    top, left = max(0, math.floor(y1 - margin)), max(0, math.floor(x1 - margin))
    return image[top : math.ceil(y2 + margin), left : math.ceil(x2 + margin)]


def _word(name: str) -> str:
    """The name of a class in that of a file: letters, digits and _, so that - tells it from what is around it."""
    return shortened(re.sub(r"\W+", "_", name).strip("_"), 60) or "object"
