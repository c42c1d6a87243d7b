"""What a Mask R-CNN is: one frozen configuration for the sizes of its parts and for how detections are selected.

Papers: Mask R-CNN (He 2017, arXiv 1703.06870), Feature Pyramid Networks (Lin 2016, 1612.03144), Faster R-CNN (Ren 2015,
1506.01497), ResNet (He 2015, 1512.03385), Benchmarking Detection Transfer Learning with Vision Transformers (Li 2021,
2111.11429) for the heads of torchvision's "v2"; of the compact network, NanoDet
(github.com/RangiLyu/nanodet), CSPNet (Wang 2019, 1911.11929), Path Aggregation Network (Liu 2018, 1803.01534) and
Generalized Focal Loss (Li 2020, 2006.04388).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True, slots=True)
class ResNet:
    """A ResNet of bottleneck blocks: its number of blocks per stage, and the width of the first stage."""

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the feature maps handed to the pyramid."""
        return tuple(4 * self.width * 2**stage for stage in range(len(self.blocks)))

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels per cell of those feature maps."""
        return tuple(4 * 2**stage for stage in range(len(self.blocks)))


@dataclass(frozen=True, slots=True)
class Stage:
    """Of a CspNet: the channels inside, and the number of blocks. It hands on twice the channels."""

    channels: int
    blocks: int


@dataclass(frozen=True, slots=True)
class CspNet:
    """NanoDet-g's body, with normalisation already folded into its weights.

    A stem and a pooling halve the size twice, the first stage keeps it, and each other one halves it. All but the first
    stage's maps go to the pyramid; that one, of stride 4, is for outlines. Rectifiers leak by `slope`.
    """

    stem_channels: int = 32
    stages: tuple[Stage, ...] = (Stage(32, 1), Stage(64, 2), Stage(128, 2), Stage(256, 3))
    slope: float = 0.1

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the feature maps handed to the pyramid."""
        return tuple(2 * stage.channels for stage in self.stages[1:])

    @property
    def fine_channels(self) -> int:
        """Channels of the feature map for outlines."""
        return 2 * self.stages[0].channels

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels per cell of those feature maps."""
        return tuple(4 * 2**number for number in range(1, len(self.stages)))


@dataclass(frozen=True, slots=True)
class Pixels:
    """Normalisation of the input, (pixel - mean) / deviation, for RGB in 0..255."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Proposals:
    """The region proposal network: one anchor size per pyramid level, and the choice of proposals.

    The `per_level` most likely anchors of each level are decoded; those that survive non-maximum suppression at
    `nms_iou` compete, and the `count` best of an image go on. Boxes thinner than `min_side` pixels are dropped.
    """

    anchor_sizes: tuple[int, ...]
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    convolutions: int = 1
    per_level: int = 1000
    count: int = 1000
    nms_iou: float = 0.7
    min_side: float = 1e-3


@dataclass(frozen=True, slots=True)
class RoiPooling:
    """RoIAlign, and which pyramid level a box is pooled from: equation 1 of the FPN paper.

    A box of `canonical_side` pixels belongs to the level of stride 2 ** `canonical_level`.
    """

    canonical_side: float = 224.0
    canonical_level: int = 4
    samples: int = 2
    box_size: int = 7
    mask_size: int = 14


@dataclass(frozen=True, slots=True)
class BoxHead:
    """Convolutions, then fully connected layers, then the two predictors. `coder` divides the four box deltas."""

    convolutions: int = 0
    fully_connected: tuple[int, ...] = (1024, 1024)
    coder: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)


@dataclass(frozen=True, slots=True)
class DenseHead:
    """What finds objects in one stage, without proposals: at each place of the pyramid, classes and a box (Li 2020).

    A side of the box is the mean of 0, 1, ... `distances` - 1 strides away from the middle of the place, weighted by a
    softmax. The `candidates` likeliest of an image compete.
    """

    distances: int = 11
    candidates: int = 1000


@dataclass(frozen=True, slots=True)
class MaskHead:
    """Convolutions, then an upsampling by two, then one mask per class or one for all (`class_agnostic`).

    `dilations` spread the taps of the convolutions; those without one are not spread. With `detail` channels, the
    upsampled features are joined by as many that are pooled at the masks' own resolution from a map of stride 4, and
    refined by one more convolution: outlines follow edges that a cell of the pyramid is too coarse for. Only together
    with `class_agnostic` and a backbone that has such a map. `scores`: a detection is only as certain as its mask.
    `class_embedding`: a vector of each class is added to what the head sees of a region, so that it knows whether the
    rider or the horse is meant. `level_channels`: the head is not given the pyramid itself, but so many channels made
    of each of its levels.
    """

    convolutions: tuple[int, ...] = (256, 256, 256, 256)
    class_agnostic: bool = False
    dilations: tuple[int, ...] = ()
    detail: int = 0
    scores: bool = False
    class_embedding: bool = False
    level_channels: int = 0


@dataclass(frozen=True, slots=True)
class Detection:
    """Which boxes are detections: above the threshold, not suppressed by a better one of their class, the best few.

    Scores of those that overlap a better one of their class less than that fall with the overlap: the further, the
    smaller `decay` is; 0 leaves them as they are. The threshold is the graph's default.
    """

    score_threshold: float = 0.5
    nms_iou: float = 0.5
    decay: float = 0.0
    per_image: int = 100
    min_side: float = 1e-2


@dataclass(frozen=True, slots=True)
class MaskRCNN:
    """A whole network. `classes` counts the background.

    Objects are found in two stages, by `proposals` and the box head, or in one, by a `dense` head.
    `normed_heads`: pyramid, box head and mask head have batch normalisation (torchvision's v2). `norm_eps` is the
    epsilon of all batch normalisations; it is not in a state_dict. `canvases` are the (width, height) of the inputs it
    should be given, most preferred first; empty where it takes any. `even`: the heads' convolutions get equally many
    regions each time, some of them empty. cuDNN plans a convolution anew, for a millisecond, whenever its input is of
    another shape than the last one, and the number of detections is another one in every frame. `overview`: the long
    side of a second look that images get which it is shown much larger; 0 where one is enough. `still_size`: the long
    side of images of their own, 0 for that of others. `mirrored`: whether it was trained on mirror images as well, so
    that one is another look at an image.
    """

    name: str
    backbone: ResNet | CspNet
    pixels: Pixels
    proposals: Proposals | None = None
    dense: DenseHead | None = None
    classes: int = 91
    pyramid_channels: int = 256
    normed_heads: bool = False
    norm_eps: float = 1e-5
    pooling: RoiPooling = RoiPooling()
    box_head: BoxHead = BoxHead()
    mask_head: MaskHead = MaskHead()
    detection: Detection = Detection()
    canvases: tuple[tuple[int, int], ...] = ()
    even: bool = False
    overview: int = 0
    still_size: int = 0
    mirrored: bool = False
    licence: str = "unknown"

    def __post_init__(self) -> None:
        if (self.proposals is None) == (self.dense is None):
            raise ValueError("objects are found either by proposals or by a dense head")
        levels = len(self.backbone.channels) + 1
        if self.proposals and len(self.proposals.anchor_sizes) != levels:
            raise ValueError(f"{levels} pyramid levels need as many anchor sizes, got {self.proposals.anchor_sizes}")
        if self.classes < 2:
            raise ValueError(f"classes counts the background, so it must be at least 2, got {self.classes}")
        if self.mask_head.detail and not (self.mask_head.class_agnostic and isinstance(self.backbone, CspNet)):
            raise ValueError("a mask head with details is for one mask for all classes, on a CspNet")

    @property
    def mask_channels(self) -> int:
        """Channels of what the mask head is given of a region."""
        return self.mask_head.level_channels or self.pyramid_channels


STRIDE = 32
"""Width and height of a canvas must be multiples of it, so that the pyramid doubles exactly."""

_IMAGENET = Pixels((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_TORCHVISION_CANVASES = ((1344, 800), (800, 1344), (1088, 800), (800, 1088))
"""torchvision resizes to a short side of 800 and a long one of at most 1333; these cover 16:9, 4:3 and portraits."""

COMPACT = MaskRCNN(
    name="compact",
    backbone=CspNet(),
    pixels=_IMAGENET,
    dense=DenseHead(),
    classes=81,
    pyramid_channels=128,
    pooling=RoiPooling(canonical_side=160.0),
    mask_head=MaskHead(
        (64, 64, 64, 64),
        class_agnostic=True,
        dilations=(1, 2, 2, 1),
        detail=32,
        scores=True,
        class_embedding=True,
        level_channels=96,
    ),
    detection=Detection(nms_iou=0.6, decay=0.5),
    overview=416,
    still_size=640,
    mirrored=True,
    licence="Apache-2.0",
)
"""The embedded network."""

R50_FPN = MaskRCNN(
    name="r50-fpn",
    backbone=ResNet(),
    pixels=_IMAGENET,
    proposals=Proposals((32, 64, 128, 256, 512)),
    norm_eps=0.0,
    canvases=_TORCHVISION_CANVASES,
    licence="BSD-3-Clause",
)
"""torchvision's maskrcnn_resnet50_fpn with its COCO_V1 weights, which were trained with an epsilon of 0."""

R50_FPN_V2 = MaskRCNN(
    name="r50-fpn-v2",
    backbone=ResNet(),
    pixels=_IMAGENET,
    proposals=Proposals((32, 64, 128, 256, 512), convolutions=2),
    normed_heads=True,
    box_head=BoxHead(convolutions=4, fully_connected=(1024,)),
    canvases=_TORCHVISION_CANVASES,
    licence="BSD-3-Clause",
)
"""torchvision's maskrcnn_resnet50_fpn_v2."""

ARCHITECTURES = (COMPACT, R50_FPN, R50_FPN_V2)
