"""Keeps only some classes of another segmenter's detections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stream_seg.coco import EVERYDAY
from stream_seg.detections import Detections
from stream_seg.errors import UsageError, did_you_mean
from stream_seg.frame import Image
from stream_seg.segmenters.base import Around, ModelSegmenter

LISTED, LISTED_WITHOUT_HINT = 25, 100
"""A model that knows at most this many classes has them listed in the message about an unknown one.

More of them where the message has no better hint.
"""


class ClassFilter(Around):
    """Passes on the detections of `classes` alone; ids and `class_names` stay those of the segmenter inside."""

    def __init__(self, segmenter: ModelSegmenter, classes: str | Sequence[str]) -> None:
        """Raise `UsageError` for a class the segmenter does not know (upper and lower case are the same), and for none.

        `classes` are names, or one name.
        """
        wanted = [classes] if isinstance(classes, str | int) else classes  # a number is refused by its name
        kept = {i for name in wanted for i in _class_ids(str(name), segmenter.class_names)}
        if not kept:
            raise UsageError("the list of classes is empty; name at least one, or leave it out for all of them")
        self._kept = np.array(sorted(kept), np.int64)
        names = ", ".join(dict.fromkeys(segmenter.class_names[i] for i in self._kept))
        super().__init__(segmenter, f"{segmenter.description}; only {names}")

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        return [found[np.isin(found.class_ids, self._kept)] for found in self._inner(images)]


def _class_ids(name: str, known: tuple[str, ...]) -> list[int]:
    """Several where labels of the user's give classes one name."""
    wanted = name.strip().lower()
    ids = [i for i, known_name in enumerate(known) if known_name.lower() == wanted]
    if not ids:
        meant = EVERYDAY.get(wanted) or EVERYDAY.get(wanted.removesuffix("s"))
        hint = did_you_mean(meant if meant in known else wanted, known)
        if wanted.isdecimal() and int(wanted) < len(known):
            hint = f"; classes are named, and number {int(wanted)}, counted from 0, is {known[int(wanted)]!r}"
        few = len(known) <= (LISTED if hint else LISTED_WITHOUT_HINT)
        listed = f"; it knows {', '.join(known)}" if few else ""
        raise UsageError(f"the model has no class {name.strip()!r}{hint}{listed}")
    return ids
