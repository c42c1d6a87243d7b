"""Turns the numbers that networks give classes into indices of a list of names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream_seg.coco import COCO_IDS, COCO_NAMES

MOST_CLASSES = 65536
"""A list with a place for each number up to that of a class would fill the memory, were it greater."""

NO_NAME = "N/A"
"""What stands in a list of names for a number that means nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Classes:
    """Class names, and the way to them from a network's own numbers.

    `slots[k]` is the index in `names` of what the network calls k, -1 where it means nothing (background, unused ids).
    """

    names: tuple[str, ...]
    slots: NDArray[np.int64]

    def covers(self, numbers: NDArray[np.int64]) -> bool:
        """Whether none of the network's numbers lies beyond the names."""
        return not numbers.size or int(numbers.max()) < len(self.slots)

    def indices(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The index of each in `names`, -1 for what has none."""
        return np.where(numbers < 0, -1, self.slots[numbers])


def is_name(name: str) -> bool:
    """Whether it names a class, and is not what stands for none."""
    return name.upper() not in (NO_NAME, "")


def as_name(value: object) -> str:
    """The name that metadata give a class, `NO_NAME` where that is none."""
    return NO_NAME if value is None else str(value).strip() or NO_NAME


def by_number(said: object) -> dict[int, str]:
    """Names by the network's number, where a model's metadata hold a mapping of such; else none.

    None is no name, but keeps its place.
    """
    try:
        names = {int(number): as_name(name) for number, name in said.items()} if isinstance(said, dict) else {}
    except (ValueError, TypeError, OverflowError):
        return {}
    makes_sense = all(0 <= number < MOST_CLASSES for number in names) and any(map(is_name, names.values()))
    return names if makes_sense else {}


def classes_at(numbers: Sequence[int], names: Sequence[str]) -> Classes:
    """Classes of a network that calls `names[i]` `numbers[i]`; names that are none ("N/A") are left out."""
    named = [(number, name) for number, name in zip(numbers, names, strict=True) if is_name(name)]
    slots = np.full(max(numbers, default=-1) + 1, -1, np.int64)
    slots[[number for number, _ in named]] = np.arange(len(named))
    return Classes(tuple(name for _, name in named), slots)


def classes_from(first: int, names: Sequence[str]) -> Classes:
    """Classes of a network that counts from `first`."""
    return classes_at(range(first, first + len(names)), names)


def classes_by_id(names: Sequence[str]) -> Classes:
    """Classes of a network with COCO's 90 ids; with `names` that are not 80, one that counts them from 1."""
    if names and len(names) != len(COCO_IDS):
        return classes_from(1, names)
    return classes_at(COCO_IDS, names or COCO_NAMES)
