"""Class names of the published weights: the index is the label, 0 is the background."""

from __future__ import annotations

_COMPACT = (
    "background,person,bicycle,car,motorcycle,airplane,bus,train,boat,bird,cat,dog,horse,sheep,cow,bottle,chair,couch,"
    "potted plant,dining table,tv"
)
COMPACT_LABELS = _COMPACT.split(",")

_COCO = (
    "background,person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,N/A,"
    "stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,N/A,backpack,umbrella,"
    "N/A,N/A,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,"
    "surfboard,tennis racket,bottle,N/A,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,"
    "carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,N/A,dining table,N/A,N/A,toilet,N/A,tv,laptop,"
    "mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,N/A,book,clock,vase,scissors,"
    "teddy bear,hair drier,toothbrush"
)
COCO_LABELS = _COCO.split(",")
"""COCO's 91 ids, of which 10 were never used ("N/A"), as torchvision numbers them."""


def default_labels(classes: int) -> tuple[str, ...]:
    """The names that go with weights of so many classes (background included); numbers where no list is known."""
    for known in (COMPACT_LABELS, COCO_LABELS):
        if len(known) == classes:
            return tuple(known)
    return ("background", *(f"class {i}" for i in range(1, classes)))
