"""What each named model is: where it comes from, its checksum, size, licence and published accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stream_seg.catalog.downloads import Download

Device = Literal["cpu", "cuda"]

_TORCHVISION = "https://download.pytorch.org/models/"
_ZOO_FOLDER = "validated/vision/object_detection_segmentation/mask-rcnn/model"


@dataclass(frozen=True, slots=True)
class Entry:
    """One named model.

    `download` is the published file, None for the model that is part of the package. `architecture` names the network
    (`stream_seg.graph`) whose graph is built here from a downloaded state_dict, None where an ONNX file is downloaded.
    `box_ap` and `mask_ap` are published COCO AP in per cent (IoU 0.50 to 0.95), None where nobody published one.
    `size` is how large a picture the network sees, in words. `licence` is what its publisher states.
    """

    name: str
    description: str
    classes: int
    size: str
    licence: str
    box_ap: float | None
    mask_ap: float | None
    download: Download | None = None
    architecture: str | None = None

    def graph_file(self, device: Device) -> str:
        """Name of the ONNX file in the model folder; a graph that is built here suits one kind of device."""
        if self.architecture is None and self.download is not None:
            return self.download.file
        return f"{self.name}.onnx" if device == "cpu" else f"{self.name}-{device}.onnx"


def _zoo_mirrors(stem: str) -> tuple[str, ...]:
    return (
        f"https://huggingface.co/onnxmodelzoo/{stem}/resolve/main/{stem}.onnx",
        f"https://huggingface.co/onnxmodelzoo/legacy_models/resolve/main/{_ZOO_FOLDER}/{stem}.onnx",
        f"https://media.githubusercontent.com/media/onnx/models/main/{_ZOO_FOLDER}/{stem}.onnx",
    )


def _torchvision(file: str, sha256: str, size: int) -> Download:
    return Download(file, (_TORCHVISION + file,), sha256, size)


def _zoo(stem: str, sha256: str, size: int) -> Download:
    return Download(f"{stem}.onnx", _zoo_mirrors(stem), sha256, size)


ENTRIES = (
    # Measured by us on 151 images of COCO val2017 and 20 of its classes, so not comparable with the rest: see its card.
    Entry(
        name="compact",
        description="NanoDet-g with masks, in the package, real time on a CPU",
        classes=80,
        size="long side 416",
        licence="Apache-2.0",
        box_ap=33.0,
        mask_ap=27.3,
    ),
    Entry(
        name="r50-fpn",
        description="ResNet-50-FPN of torchvision, batched graph built here",
        classes=80,
        size="short side 800",
        licence="BSD-3-Clause",
        box_ap=37.9,
        mask_ap=34.6,
        download=_torchvision(
            "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
            "bf2d0c1efbc936eeee2bc95a48e80ebc86b891f61b0106485937fc29f9315fc0",
            178090079,
        ),
        architecture="r50-fpn",
    ),
    Entry(
        name="r50-fpn-v2",
        description="ResNet-50-FPN v2 of torchvision, batched graph built here; the most accurate",
        classes=80,
        size="short side 800",
        licence="BSD-3-Clause",
        box_ap=47.4,
        mask_ap=41.8,
        download=_torchvision(
            "maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth",
            "73cbd0190fcbe3ba339921fbce2c3a0b6bb9126c9a133c85e43a2a8e060a109e",
            185828065,
        ),
        architecture="r50-fpn-v2",
    ),
    Entry(
        name="zoo-r50-fpn",
        description="ResNet-50-FPN of the ONNX Model Zoo, one image at a time",
        classes=80,
        size="short side 800",
        licence="MIT",
        box_ap=33.7,
        mask_ap=None,
        download=_zoo("MaskRCNN-12", "5bf940c124d9117f6fae350c4e0d46df180cbb01981832b35fdbed148078b946", 177970010),
    ),
    Entry(
        name="zoo-r50-fpn-int8",
        description="the same with 8-bit weights and activations",
        classes=80,
        size="short side 800",
        licence="MIT",
        box_ap=33.1,
        mask_ap=None,
        download=_zoo("MaskRCNN-12-int8", "4409935e855719fd6cd986f7ec2a3de840d0bd9c9cf7a0cba84ce95377f5b476", 45769352),
    ),
)
