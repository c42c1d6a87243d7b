"""Detections: boxes, scores, class ids and small masks of one frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Direction = Literal["in", "out"]


class Crossing(NamedTuple):
    """An object that crossed a line: its number, the name of its class, and which way."""

    id: int
    name: str
    direction: Direction


@dataclass(frozen=True, slots=True)
class Crossings:
    """What crossed a line until now, as `line.Line` counts it.

    `start` and `end` of the line are x, y in frame pixels. `counts` has how many of each class crossed it, by name, for
    either direction; `now` are those of this frame.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    counts: Mapping[Direction, Mapping[str, int]] = field(default_factory=lambda: {"in": {}, "out": {}})
    now: tuple[Crossing, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The objects found in one frame, most confident first; possibly none.

    `boxes` (N, 4) float32: x1, y1, x2, y2 in frame pixels, continuous (a box round the whole frame is 0, 0, W, H).
    `scores` (N,) float32 in 0..1. `class_ids` (N,) int64, indices into `class_names`.
    `masks` (N, S, T) float32: the probability, 0..1, that a point inside the box belongs to the object, on a grid
    stretched over the box (28x28 in Mask R-CNN). They stay small until pixels are needed: see `geometry.paste`.
    `ids` (N,) int64 tell which object of the frames before each is, by a number from 1 on; None where nobody follows
    them, as `steady.Steady` does. `lines` are those that count what crosses them (`line.Line`), with the counts up to
    this frame, and `regions` the polygons they were chosen by (`region.Region`), the corners of each (K, 2)
    float32, x, y in frame pixels. `occupancy` has how many of each class stand in each of these now, by name. All three
    are of the frame, and stay the same where some of its detections are selected.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    masks: NDArray[np.float32]
    class_names: tuple[str, ...]
    ids: NDArray[np.int64] | None = None
    lines: tuple[Crossings, ...] = ()
    regions: tuple[NDArray[np.float32], ...] = ()
    occupancy: tuple[Mapping[str, int], ...] = ()

    def __post_init__(self) -> None:
        for name in ("boxes", "scores", "class_ids", "masks"):
            if not isinstance(getattr(self, name), np.ndarray):
                raise ValueError(f"{name} must be an array of numpy, got {type(getattr(self, name)).__name__}")
        if isinstance(self.class_names, str):  # whose letters would pass for names
            raise ValueError(
                f"class_names must be a tuple of names, got {self.class_names!r}: an only one is ('name',)"
            )
        n = len(self.scores)
        expected = {"boxes": (n, 4), "scores": (n,), "class_ids": (n,)}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {getattr(self, name).shape}")
        if self.ids is not None and self.ids.shape != (n,):
            raise ValueError(f"ids must have shape {(n,)}, got {self.ids.shape}")
        masks = self.masks
        drawable = masks.ndim == 3 and masks.size and masks.dtype in (np.float32, np.float64, np.uint8)
        if masks.shape != (n, *masks.shape[1:3]) or (n and not drawable):  # an array of no numbers has no kind
            raise ValueError(f"masks must be ({n}, S, T) float32, got {masks.shape} {masks.dtype}")
        if n and self.class_ids.dtype.kind not in "iu":
            raise ValueError(f"class_ids must be whole numbers, got {self.class_ids.dtype}")
        if n and not (self.class_ids.min() >= 0 and self.class_ids.max() < len(self.class_names)):
            found = f"{self.class_ids.min()}..{self.class_ids.max()}"
            raise ValueError(f"class_ids must be in 0..{len(self.class_names) - 1}, got {found}")

    @classmethod
    def none(cls, class_names: tuple[str, ...], mask_size: int = 28) -> Detections:
        """Detections of a frame in which nothing was found."""
        return cls(
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
            np.zeros(0, np.int64),
            np.zeros((0, mask_size, mask_size), np.float32),
            class_names,
        )

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detections]:
        """One after the other, each as `Detections` of length 1."""
        return (self[place] for place in range(len(self)))

    def __getitem__(
        self, index: int | np.integer[Any] | NDArray[np.bool_] | NDArray[np.integer[Any]] | Sequence[int] | slice
    ) -> Detections:
        """Select detections by a boolean mask, indices, a slice, or one by its place: all give `Detections`."""
        if isinstance(index, int | np.integer):
            index = np.arange(len(self))[index, None]  # raises IndexError
        ids = None if self.ids is None else self.ids[index]
        return Detections(
            self.boxes[index],
            self.scores[index],
            self.class_ids[index],
            self.masks[index],
            self.class_names,
            ids,
            self.lines,
            self.regions,
            self.occupancy,
        )

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.class_names[i] for i in self.class_ids]

    def finite(self) -> Detections:
        """Those whose boxes and scores are numbers: others, of a broken model, have no place, and JSON no word."""
        return self[np.isfinite(self.boxes).all(1) & np.isfinite(self.scores)]

    def __repr__(self) -> str:
        found = ", ".join(f"{name} {score:.2f}" for name, score in zip(self.names, self.scores, strict=True))
        return f"Detections({len(self)}: {found}; masks {self.masks.shape})"


def is_score(given: object) -> bool:
    """Whether it is a number from 0 to 1, also one of NumPy's."""
    return isinstance(given, Real) and 0 <= float(given) <= 1


def check_found(found: object) -> None:
    """Raise `TypeError` for what is not the `Detections` of one frame, such as the list that a segmenter returns."""
    if not isinstance(found, Detections):
        advice = ": a segmenter returns one for each image, (found,) = segmenter([image])"
        raise TypeError(
            f"the Detections of one frame are needed, got {type(found).__name__}"
            f"{advice if isinstance(found, list) else ''}"
        )
