"""Class names of weights: the index is the label, 0 is the background."""

from __future__ import annotations

import json

from stream_seg.coco import COCO_IDS, COCO_NAMES
from stream_seg.graph.config import MaskRCNN, ResNet

_BACKGROUND = {"background", "__background__", "bg"}

COMPACT_LABELS = ["background", *COCO_NAMES]
"""Of the built-in weights."""

_NAME_OF = dict(zip(COCO_IDS, COCO_NAMES, strict=True))
COCO_LABELS = ["background", *(_NAME_OF.get(number, "N/A") for number in range(1, 91))]
"""COCO's 91 ids, of which 10 were never used ("N/A"), as torchvision numbers them."""


def known_labels(config: MaskRCNN, *, built_in: bool) -> tuple[str, ...]:
    """The names that go with weights which bring none, empty where no list is known.

    A number of classes says little: 80 are COCO's in the built-in weights alone, 90 in a ResNet.
    """
    if built_in:
        return tuple(COMPACT_LABELS)
    is_coco = isinstance(config.backbone, ResNet) and config.classes == len(COCO_LABELS)
    return tuple(COCO_LABELS) if is_coco else ()


def numbered_labels(classes: int) -> tuple[str, ...]:
    """Numbers, for weights whose classes nobody has named."""
    return ("background", *(f"class {i}" for i in range(1, classes)))


def with_background(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names with the background first, which may be left out."""
    return names if names and names[0].lower() in _BACKGROUND else ("background", *names)


def parse_labels(text: str) -> tuple[str, ...]:
    """Names in metadata of weights or models: a JSON list, or separated by commas. Empty where they are neither."""
    try:
        names = json.loads(text)
    except RecursionError:
        return ()
    except ValueError:
        return tuple(name.strip() for name in text.split(",")) if text else ()
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def format_labels(names: tuple[str, ...]) -> str:
    """The opposite: with commas, as it always was, unless a name has one."""
    return json.dumps(names, ensure_ascii=False) if any("," in name for name in names) else ",".join(names)
