"""Whose regions and lines are: a place in the picture belongs to the source that is named in front of it."""

from __future__ import annotations

import argparse
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from stream_seg.addresses.credentials import safe_address
from stream_seg.errors import UsageError, did_you_mean

T = TypeVar("T")

_LISTED = 6
"""Sources that are named where another was meant."""


@dataclass(frozen=True, slots=True)
class Place(Generic[T]):
    """A region or a line: its `points`, x and y in pixels, as they were `written`, in the picture of `source`.

    That is the name that stands for {source}; None where none was written: the only source, or each film of many.
    """

    points: T
    written: str
    source: str | None = None


def split_name(text: str) -> tuple[str | None, str]:
    """`door=0,360,640,720` as the name of the source and the numbers; None for a name that is not there.

    A name is composed as those of sources are, which a file's, and so what a shell completes, need not be.
    """
    name, equals, numbers = text.rpartition("=")
    return (unicodedata.normalize("NFC", name.strip()) if equals else None), numbers


def of_source(places: Sequence[Place[T]], label: str) -> list[T]:
    """The points of those places that are in the picture of the source of this name."""
    return [place.points for place in places if place.source in (None, label)]


def refuse_misnamed(args: argparse.Namespace, labels: Sequence[str], *, in_turns: bool) -> None:
    """Refuse a region or a line of a source that there is not, and one without a name where cameras are several."""
    for option, places in (("--region", args.region), ("--line", args.line)):
        for place in places:
            if place.source is None and len(labels) > 1 and not in_turns:
                raise UsageError(
                    f"{option} {place.written} is in the picture of one source, and there are {_listed(labels)}; "
                    f"{_whose(option, place, labels[0])}"
                )
            if place.source is not None and place.source not in labels:
                hint = did_you_mean(place.source, labels)
                raise UsageError(
                    f"{option}: no source is called '{safe_address(place.source)}'{hint}; there "
                    f"{'are' if len(labels) > 1 else 'is'} {_listed(labels)}"
                )


def refuse_of_several_sizes(args: argparse.Namespace, sizes: Sequence[tuple[str, tuple[int, int]]]) -> None:
    """Refuse a place without a name in films whose pictures, (width, height) by name, differ: it is in none of all."""
    other = next((one for one in sizes if one[1] != sizes[0][1]), None)
    if other is None:
        return
    (first, (width, height)), (second, size) = sizes[0], other
    for option, places in (("--region", args.region), ("--line", args.line)):
        place = next((place for place in places if place.source is None), None)
        if place is not None:
            raise UsageError(
                f"{option} {place.written} is for films of one size, and {first} has {width}x{height} pixels, "
                f"{second} {size[0]}x{size[1]}; give each size a run of its own, or {_whose(option, place, first)}"
            )


def _whose(option: str, place: Place[T], label: str) -> str:
    """What to write."""
    return f"write whose it is, as in {option} {label}={place.written}"


def _listed(labels: Sequence[str]) -> str:
    rest = [f"{len(labels) - _LISTED} more"] if len(labels) > _LISTED else []
    *most, last = [*labels[:_LISTED], *rest]
    return f"{', '.join(most)} and {last}" if most else last
