"""What the adapters of all ONNX model families share: labels, options, splitting a call into runs."""

from __future__ import annotations

import json
import logging
import re
import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_seg.detections import Detections
from stream_seg.errors import ModelError
from stream_seg.frame import Image, check_image
from stream_seg.geometry import choose_canvas
from stream_seg.segmenters.base import ModelSegmenter
from stream_seg.segmenters.classes import MOST_CLASSES, NO_NAME, Classes, as_name, is_name
from stream_seg.segmenters.preprocess import Size, round_up
from stream_seg.segmenters.session import Array, Run, Session

logger = logging.getLogger(__name__)

DEFAULT_THRESHOLD = 0.5
"""Score above which a detection is kept, for models that bring no threshold of their own."""

PIXELS = "([1-9][0-9]{0,3})"
"""A side of a picture in metadata: more than 9999 would fill the memory."""

_BACKGROUND = {"background", "__background__", "bg"}

_MOST_BUFFERS = 8
"""For each thread: models that take pictures as they are would keep one for each size they have seen."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may ask of any model: None leaves it to the model.

    `stills`: whether images are each of their own, for which there is time to look closely.
    """

    score_threshold: float | None = None
    long_side: int | None = None
    labels: tuple[str, ...] | None = None
    stills: bool = False


class _Buffers(threading.local):
    """Arrays by shape, the one used last at the end; a set of its own for each thread."""

    def __init__(self) -> None:
        self.arrays: dict[tuple[int, ...], NDArray[np.uint8]] = {}


class OnnxSegmenter(ModelSegmenter):
    """Splits a call into runs of images that share a canvas, and hands the results back in order.

    An adapter says which `canvases` (width, height) it may use, how many images one run takes at most, and above which
    score, `floor`, detections are kept; it turns images into detections in `detect`. The buffers of the last few shapes
    are kept, for each thread. `long_side` is that of the largest canvas.
    """

    def __init__(self, session: Session, classes: Classes, canvases: Sequence[Size], batch: int, floor: float) -> None:
        self._session = session
        self._canvases = tuple(canvases)
        self._batch = batch
        self._classes = classes
        self._floor = floor
        self._buffers = _Buffers()
        self._warmed: set[tuple[Size, int]] = set()
        self.class_names = classes.names
        self.max_batch = batch
        self.concurrency = session.concurrency
        self.model_name = session.path.name
        self.provider = session.provider
        self.device = session.device
        self.long_side = max(map(max, canvases))
        self.description = f"{len(self.class_names)} classes, {self.long_side} px"

    @abstractmethod
    def detect(self, run: Run, images: Sequence[Image], canvas: Size) -> list[Detections]:
        """Detections of up to `batch` images, each in its own pixels. Called on several threads at once."""

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        if isinstance(images, np.ndarray) and images.ndim < 4:  # whose rows would pass for images
            raise ValueError(f"a segmenter takes a list of images, [image], got one array {images.shape}")
        for image in images:
            check_image(image)
        sharing: dict[Size, list[int]] = {}
        for place, image in enumerate(images):
            sharing.setdefault(self.canvas_for((image.shape[1], image.shape[0])), []).append(place)
        found: dict[int, Detections] = {}
        for canvas, places in sharing.items():
            for start in range(0, len(places), self._batch):
                some = places[start : start + self._batch]
                found.update(zip(some, self.detect(self._session.run, [images[i] for i in some], canvas), strict=True))
        return [found[place] for place in range(len(images))]

    def warm_up(self, size: Size, max_batch: int | None = None) -> None:
        blank, canvas = np.zeros((size[1], size[0], 3), np.uint8), self.canvas_for(size)
        counts = range(1, min(self._batch, max_batch or self._batch) + 1)
        for rows, count in {self.rows(count): count for count in counts}.items():
            if (canvas, rows) not in self._warmed:
                self._warmed.add((canvas, rows))
                for run in self._session.ways:
                    self.detect(run, [blank] * count, canvas)

    def close(self) -> None:
        self._session.close()
        self._buffers = _Buffers()

    def canvas_for(self, size: Size) -> Size:
        """The canvas for images of `size`; those that share one go through the model together."""
        return choose_canvas(size, self._canvases)

    def rows(self, images: int) -> int:
        """How many images, the rest of them empty, a run with so many should have."""
        return min(self._session.filled(images), self._batch)

    def pick(self, scores: Array, numbers: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which of the network's detections to keep, best first, and their class ids.

        `scores` (N,) and `numbers` (N,), the network's own class numbers. Raise `ModelError` for a class without name.
        """
        values = scores.astype(np.float32)
        kept = np.flatnonzero(values > self._floor)
        kept = kept[np.argsort(-values[kept], kind="stable")]
        found = numbers[kept].astype(np.int64)
        if not self._classes.covers(found):
            raise ModelError(
                f"{self.model_name} returned class {found.max()}, for which there is no name: "
                "give all of its classes with --labels FILE, one per line"
            )
        ids = self._classes.indices(found)
        return kept[ids >= 0], ids[ids >= 0]

    def misfit(self, outputs: Mapping[str, Array]) -> ModelError:
        """The error for outputs that are not what their declaration promised."""
        got = ", ".join(f"{name} {value.shape}" for name, value in outputs.items())
        return ModelError(f"{self.model_name} returned outputs that do not fit together: {got}")

    def buffer(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """An array of bytes of `shape` that is this thread's until it asks for the same shape again."""
        arrays = self._buffers.arrays
        found = arrays.pop(shape, None)
        if found is None:
            if len(arrays) >= _MOST_BUFFERS:
                arrays.pop(next(iter(arrays)))
            found = np.zeros(shape, np.uint8)
        arrays[shape] = found
        return found


def class_names(session: Session, options: Options) -> tuple[str, ...]:
    """Names without the background: the user's, else those in the model's metadata (`labels`: JSON, or with commas).

    Of metadata, "N/A" holds the place of each that has no name.

    Raise `ModelError` where there are none.
    """
    names = given_names(session, options)
    if not names:
        raise ModelError(f"the model {session.path} names no classes: give them with --labels FILE, one per line")
    return names


def given_names(session: Session, options: Options) -> tuple[str, ...]:
    """As `class_names`, but empty where there are none."""
    names = options.labels or _parse_labels(session.signature.metadata.get("labels", ""))
    return names[1:] if names and names[0].lower() in _BACKGROUND else names


def _parse_labels(text: str) -> tuple[str, ...]:
    try:
        said = json.loads(text)
    except ValueError:
        said = text
    except RecursionError:
        said = None
    if isinstance(said, dict):
        names = _in_order({key: as_name(value) for key, value in said.items()})
    elif isinstance(said, list):
        names = [as_name(value) for value in said]
    elif said is None:
        names = []
    else:
        names = [as_name(value) for value in (said if isinstance(said, str) else text).rstrip(", ").split(",")]
    return tuple(names) if any(map(is_name, names)) else ()


def _in_order(names: Mapping[str, str]) -> list[str]:
    """Names by number, as in {"0": "person", ...}. Where 0 has none it is the background, and they count from 1."""
    numbered = {int(key): name for key, name in names.items() if re.fullmatch(r"\d{1,9}", key)}
    if not numbered or len(numbered) < len(names) or max(numbered) >= MOST_CLASSES:  # taken in order
        return list(names.values())
    first = 0 if is_name(numbered.get(0, NO_NAME)) else 1
    return [numbered.get(number, NO_NAME) for number in range(first, max(numbered) + 1)]


def warn_of_fixed_size(session: Session, options: Options, size: Size) -> None:
    """Say so where a user asks for another size than the only one (width, height) that a graph takes."""
    if options.long_side is not None and options.long_side != max(size):
        logger.warning("%s takes pictures of %dx%d alone: another size cannot be had", session.path.name, *size)


def shapes_of(long_side: int, stride: int) -> list[Size]:
    """Canvases of `long_side` for 16:9, 3:2, 4:3 and square pictures, both ways up; sides are multiples of `stride`."""
    lying = {round_up((long_side, round(long_side * ratio)), stride) for ratio in (9 / 16, 2 / 3, 3 / 4, 1.0)}
    return sorted(lying | {(height, width) for width, height in lying})
