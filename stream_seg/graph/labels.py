"""Class names of the published weights: the index is the label, 0 is the background."""

from __future__ import annotations

from stream_seg.coco import COCO_IDS, COCO_NAMES

_COMPACT = (
    "background,person,bicycle,car,motorcycle,airplane,bus,train,boat,bird,cat,dog,horse,sheep,cow,bottle,chair,couch,"
    "potted plant,dining table,tv"
)
COMPACT_LABELS = _COMPACT.split(",")

_NAME_OF = dict(zip(COCO_IDS, COCO_NAMES, strict=True))
COCO_LABELS = ["background", *(_NAME_OF.get(number, "N/A") for number in range(1, 91))]
"""COCO's 91 ids, of which 10 were never used ("N/A"), as torchvision numbers them."""


def default_labels(classes: int) -> tuple[str, ...]:
    """The names that go with weights of so many classes (background included); numbers where no list is known."""
    for known in (COMPACT_LABELS, COCO_LABELS):
        if len(known) == classes:
            return tuple(known)
    return ("background", *(f"class {i}" for i in range(1, classes)))
