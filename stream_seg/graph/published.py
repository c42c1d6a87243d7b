"""Weights whose publisher is known, and so their licence: torchvision's, and those of the package."""

from __future__ import annotations

import hashlib
from pathlib import Path

from stream_seg.graph.config import COMPACT, R50_FPN, R50_FPN_V2

COCO_V1_SHA256 = "bf2d0c1efbc936eeee2bc95a48e80ebc86b891f61b0106485937fc29f9315fc0"
"""torchvision's published weights of maskrcnn_resnet50_fpn: the ones made with a normalisation epsilon of 0."""

V2_COCO_V1_SHA256 = "73cbd0190fcbe3ba339921fbce2c3a0b6bb9126c9a133c85e43a2a8e060a109e"
"""torchvision's published weights of maskrcnn_resnet50_fpn_v2."""

_PACKAGE = Path(__file__).parents[1]


def is_built_in(sha256: str) -> bool:
    """Whether these are the weights of the built-in model. Its file is asked: the next training changes them."""
    for folder in (_PACKAGE / "models" / "compact", _PACKAGE.parent / "models" / "compact"):
        file = folder / "weights.safetensors"
        if file.is_file():
            return hashlib.sha256(file.read_bytes()).hexdigest() == sha256
    return False


def licence_of(sha256: str) -> str:
    """What the publisher of these weights states; "unknown" of anybody's own, whatever network they are of."""
    known = {COCO_V1_SHA256: R50_FPN.licence, V2_COCO_V1_SHA256: R50_FPN_V2.licence}
    return known.get(sha256) or (COMPACT.licence if is_built_in(sha256) else "unknown")
