"""A decoded copy of a training set on disk: pixels and masks by memory map, so that training decodes nothing.

`images.bin` holds RGB pixels, `masks.bin` the masks' bounding rectangles (0 or 255), `index.npz` where each one is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import cv2
import numpy as np
from annotations import Annotations, Picture, Segmentation
from numpy.typing import NDArray
from tqdm import tqdm

from stream_seg.errors import OutputError, SourceError
from stream_seg.evaluate import read_annotated
from stream_seg.ground_truth import run_lengths
from stream_seg.locking import Purpose, locked

LONGEST_SIDE = 640
"""Larger pictures are shrunk: training sees them smaller still."""

SURE = 0.9
"""Confidence of an annotation whose object may be shown elsewhere, at least."""

Pixels = NDArray[np.uint8]
_DECODING = Purpose("decoding the same pictures", "--cache", OutputError)


class MaskCrop(NamedTuple):
    """Mask pixels (h, w), 0 or 255, with a border of zeros, and the picture position of their upper left corner."""

    pixels: Pixels
    x: int
    y: int


class Cached(NamedTuple):
    """The objects of a picture in the cache's pixels. `masks` (n, 5): offset (-1: none), x, y, height, width."""

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    confidence: NDArray[np.float32]
    masks: NDArray[np.int64]


def build_cache(annotations: Annotations, folder: Path, workers: int) -> None:
    """Decode everything once, unless `folder` holds the cache of exactly these annotations already.

    Runs that start together wait for the first. Raises OutputError where the folder cannot be written.
    """
    if _is_current(annotations, folder):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", _DECODING):
            if not _is_current(annotations, folder):  # another run may have made it in the meantime
                _renew(annotations, folder, workers)
    except OSError as error:
        raise OutputError(
            f"cannot write the decoded pictures to {folder}: {error.strerror}; give another --cache"
        ) from error


def _renew(annotations: Annotations, folder: Path, workers: int) -> None:
    """By new files: a run that trains from the old ones has them mapped, and would crash where they got shorter."""
    parts = {name: folder / f"{name}.part" for name in ("images.bin", "masks.bin", "index.npz")}
    try:
        _write(annotations, parts, workers)
        (folder / "index.npz").unlink(missing_ok=True)  # which must not be taken for that of the other new files
        for name, part in parts.items():
            part.replace(folder / name)
    finally:  # of a full disk, none of it may stay taken
        for part in parts.values():
            part.unlink(missing_ok=True)


def _write(annotations: Annotations, parts: dict[str, Path], workers: int) -> None:
    """Pixels and masks one behind the other, and then where each is."""
    image_rows: list[tuple[int, int, int]] = []
    mask_rows: list[tuple[int, int, int, int, int]] = []
    with parts["images.bin"].open("wb") as images, parts["masks.bin"].open("wb") as masks:
        for image, crops in _decoded(annotations.pictures, workers):
            image_rows.append((images.tell(), *image.shape[:2]))
            images.write(image.data)
            for crop in crops:
                mask_rows.append(
                    (-1, 0, 0, 0, 0) if crop is None else (masks.tell(), crop.x, crop.y, *crop.pixels.shape)
                )
                masks.write(b"" if crop is None else crop.pixels.data)
        masks.write(b"\0")  # a file that is empty cannot be mapped
    mask_array = np.array(mask_rows, np.int64).reshape(-1, 5)
    of = np.array(_fingerprint(annotations))
    with parts["index.npz"].open("wb") as index:
        np.savez(index, of=of, images=np.array(image_rows, np.int64), masks=mask_array)


def _decoded(pictures: list[Picture], workers: int) -> Iterator[tuple[Pixels, list[MaskCrop | None]]]:
    """By threads: OpenCV decodes without Python's lock."""
    with ThreadPool(workers) as pool:
        try:
            yield from tqdm(pool.imap(_decode, pictures, 16), "decoding", len(pictures), unit=" pictures", leave=False)
        finally:
            pool.terminate()
            pool.join()  # Python must not end while one of them is inside OpenCV


def _is_current(annotations: Annotations, folder: Path) -> bool:
    try:
        with (folder / "index.npz").open("rb") as index:
            return str(np.load(index)["of"]) == _fingerprint(annotations)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # none, or one that was cut off
        return False


def _fingerprint(annotations: Annotations) -> str:
    found = hashlib.sha256()
    for picture in annotations.pictures:
        outlines = repr(picture.objects.outlines).encode()
        path = picture.path.resolve()  # the same file, however it is named
        stat = path.stat() if path.is_file() else None
        file = f"{path} {stat and (stat.st_size, stat.st_mtime_ns)}"
        seen = f"{picture.size}{' upright' * picture.upright}"
        found.update(f"{file} {seen} {picture.objects.boxes.tolist()}".encode() + outlines)
    return found.hexdigest()


def _decode(picture: Picture) -> tuple[Pixels, list[MaskCrop | None]]:
    image, size = read_annotated(picture.path, picture.size, upright=picture.upright), _stored_size(picture.size)
    try:
        crops = [_crop(outline, picture.size, size) for outline in picture.objects.outlines]
    except ValueError as error:
        raise SourceError(f"{picture.path}: {error}") from error
    return cv2.cvtColor(_shrink(image, size), cv2.COLOR_BGR2RGB).astype(np.uint8), crops


def _stored_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, LONGEST_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _shrink(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    if pixels.shape[:2] == size:
        return pixels
    return np.asarray(cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _crop(outline: Segmentation | None, size: tuple[int, int], stored: tuple[int, int]) -> MaskCrop | None:
    if outline is None:
        return None
    mask = _shrink(bitmask(outline, size) * np.uint8(255), stored)
    mask = np.where(mask > 127, np.uint8(255), np.uint8(0))
    x, y, width, height = cv2.boundingRect(mask)
    if not width:
        return None
    return MaskCrop(np.pad(np.ascontiguousarray(mask[y : y + height, x : x + width]), 1), x - 1, y - 1)


def bitmask(outline: Segmentation, size: tuple[int, int]) -> Pixels:
    """Polygons or run lengths, compressed or not, as (height, width) of 0 and 1. Raises ValueError."""
    from pycocotools import mask as coco

    return np.asarray(coco.decode(run_lengths(outline, size)), np.uint8)


class TrainingSet:
    """The cached pictures, and how often each is to be drawn.

    Raises OutputError where another run has replaced what `build_cache` made of these annotations.
    """

    def __init__(self, annotations: Annotations, cache: Path, shares: dict[str, float]) -> None:
        self._pixels = np.memmap(cache / "images.bin", np.uint8, "r")
        self._mask_pixels = np.memmap(cache / "masks.bin", np.uint8, "r")
        if not _is_current(annotations, cache):  # after they are mapped: from now on they may be replaced
            raise OutputError(
                f"another run has replaced the decoded pictures in {cache} by those of other annotations; "
                "give each its own --cache"
            )
        index = np.load(cache / "index.npz")
        self.rows = index["images"]
        self.classes = annotations.classes
        self.exhaustive = np.stack([picture.exhaustive for picture in annotations.pictures])
        self.objects = _cached(annotations, self.rows, index["masks"])
        self.weights = sampling_weights(annotations, shares)
        self.cumulative = np.cumsum(self.weights).tolist()
        self.is_portrait = self.rows[:, 1] > self.rows[:, 2]
        self.pasteable = self._pasteable()

    def image(self, index: int) -> Pixels:
        """(height, width, 3) RGB."""
        offset, height, width = self.rows[index]
        return self._pixels[offset : offset + height * width * 3].reshape(height, width, 3)

    def mask(self, row: NDArray[np.int64]) -> MaskCrop:
        """The mask of a row of `Cached.masks`."""
        offset, x, y, height, width = (int(value) for value in row)
        return MaskCrop(self._mask_pixels[offset : offset + height * width].reshape(height, width), x, y)

    def _pasteable(self) -> list[tuple[int, int]]:
        """(picture, object) of every mask that is large enough to be shown elsewhere, and surely of an object."""
        return [
            (k, int(j))
            for k, found in enumerate(self.objects)
            for j in np.flatnonzero(
                ~found.crowd & (found.masks[:, 0] >= 0) & (found.masks[:, 3:].min(1) >= 40) & (found.confidence >= SURE)
            )
        ]


def _cached(annotations: Annotations, rows: NDArray[np.int64], masks: NDArray[np.int64]) -> list[Cached]:
    """The objects with boxes in the pixels of the cache."""
    ends = np.cumsum([0, *(len(picture.objects.labels) for picture in annotations.pictures)])
    found = []
    for picture, row, (start, end) in zip(annotations.pictures, rows, pairwise(ends), strict=True):
        scale = np.array([row[2] / picture.size[1], row[1] / picture.size[0]] * 2)
        objects = picture.objects
        boxes = objects.boxes * scale
        found.append(Cached(boxes, objects.labels, objects.crowd, objects.confidence, masks[start:end]))
    return found


RARE = 0.05
"""A class seen in a smaller share of the pictures is drawn more often (Gupta 2019, arXiv 1908.03195, section 5)."""
MOST_OFTEN, EMPTY = 3.0, 0.5


def sampling_weights(annotations: Annotations, shares: dict[str, float]) -> NDArray[np.float64]:
    """Probability of each picture. `shares` fixes the share of some sources; the rest is divided by rarity alone.

    Raises SourceError for shares of other sources, and where no picture is left.
    """
    shown = [set(picture.objects.labels[~picture.objects.crowd].tolist()) for picture in annotations.pictures]
    count = np.bincount([label for labels in shown for label in labels], minlength=len(annotations.classes) + 1)
    factor = np.clip(np.sqrt(RARE * len(shown) / np.maximum(count, 1)), 1.0, MOST_OFTEN)
    weights = np.array([max((factor[label] for label in labels), default=EMPTY) for labels in shown])
    weights /= weights.sum()
    sources = np.array([picture.source for picture in annotations.pictures])
    unknown = set(shares) - set(sources.tolist())
    if unknown or sum(shares.values()) > 1 + 1e-6:
        raise SourceError(f"shares must name sources of the images and not exceed 1: {shares}")
    others = ~np.isin(sources, list(shares))
    if others.any():
        weights[others] *= max(0.0, 1 - sum(shares.values())) / weights[others].sum()
    for source, share in shares.items():
        weights[sources == source] *= share / weights[sources == source].sum()
    if not weights.any():
        raise SourceError(f"with these shares no picture is drawn: {shares}")
    return np.asarray(weights / weights.sum())
