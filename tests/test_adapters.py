"""Every family of models: recognised, fed exactly what it was trained on, and its answers brought into frame pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stream_seg.detections import Detections
from stream_seg.errors import ModelError
from stream_seg.frame import Image
from stream_seg.geometry import paste
from stream_seg.segmenters import FAMILIES, Family, load_segmenter
from stream_seg.segmenters.session import Session
from tests.adapter_graphs import (
    SIZE_UNIT,
    Probe,
    Probing,
    detectron2_model,
    mmdeploy_model,
    rfdetr_model,
    tf_model,
    torchvision_model,
    yolo_model,
    zoo_model,
)
from tests.tiny_models import Shape, batched_model, identity_model

Floats = NDArray[np.float32]
Build = Callable[[Path, Probing], Path]
Rect = tuple[int, int, int, int]

TOP_LEFT, BOTTOM_RIGHT = (10, 200, 90), (230, 40, 160)
"""Colours, BGR, of two quarters of `picture`."""

RAMP = np.linspace(0, 1, 28 * 28, dtype=np.float32).reshape(28, 28)
ZOO_MEAN = (102.9801, 115.9465, 122.7717)
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
BGR_MEAN, BGR_DEVIATION = MEAN[::-1], DEVIATION[::-1]
FULL_WHITE = (255, 255, 255)
NONE, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
FULL = (255.0, 255.0, 255.0)
GREY = (114.0, 114.0, 114.0)

VALUE = 1e-4
"""Relative to the range of values a network sees: float32 through one multiplication and one addition."""


def picture(width: int, height: int) -> Image:
    """Four quarters of one colour each: bilinear scaling changes nothing away from their edges."""
    image = np.full((height, width, 3), 60, np.uint8)
    image[: height // 2, : width // 2] = TOP_LEFT
    image[height // 2 :, width // 2 :] = BOTTOM_RIGHT
    return image


def corners(box: Floats, _canvas: tuple[int, int], _inner: Rect) -> Floats:
    return box


def inclusive(box: Floats, _canvas: tuple[int, int], _inner: Rect) -> Floats:
    return box - np.array([0, 0, 1, 1], np.float32)


def parts_yx(box: Floats, canvas: tuple[int, int], _inner: Rect) -> Floats:
    return np.asarray(box / np.array([*canvas] * 2, np.float32), np.float32)[[1, 0, 3, 2]]


def centre(box: Floats, _canvas: tuple[int, int], _inner: Rect) -> Floats:
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]], np.float32)


def centre_parts(box: Floats, canvas: tuple[int, int], inner: Rect) -> Floats:
    return centre(np.asarray(box / np.array([*canvas] * 2, np.float32), np.float32), canvas, inner)


@dataclass(frozen=True)
class Case:
    """An image of `size` has to reach the network on a `canvas`, inside `inner` (left, top, width, height)."""

    build: Build
    size: tuple[int, int]
    canvas: tuple[int, int]
    inner: Rect
    order: str
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    around: tuple[float, ...] = NONE
    box: Callable[[Floats, tuple[int, int], Rect], Floats] = corners
    masks: str = "small"
    first_class: int = 0
    long_side: int | None = None
    tolerance: float = VALUE

    def image_box(self) -> Floats:
        width, height = self.size
        return np.array([0.1 * width, 0.2 * height, 0.6 * width, 0.7 * height], np.float32)

    def network_box(self) -> Floats:
        left, top, width, height = self.inner
        scale = np.array([width / self.size[0], height / self.size[1]] * 2, np.float32)
        on_canvas = self.image_box() * scale + np.array([left, top] * 2, np.float32)
        return self.box(on_canvas, self.canvas, self.inner)

    def network_masks(self, count: int) -> NDArray[np.generic]:
        if self.masks == "small":
            return np.repeat(RAMP[None], count, axis=0)
        if self.masks == "rank 4":
            return np.repeat(RAMP[None, None], count, axis=0)
        shape = (count, self.canvas[1], self.canvas[0])
        if self.masks == "bool":
            return np.ones(shape, bool)
        full = np.ones(shape, np.float32)
        return full[:, None] if self.masks == "pasted" else full

    def expected(self, colour: tuple[int, int, int]) -> list[float]:
        """The three numbers of a BGR colour, as the family's own preprocessing makes them."""
        values = colour if self.order == "bgr" else colour[::-1]
        return [(v - m) / d for v, m, d in zip(values, self.mean, self.deviation, strict=True)]

    def probing(self) -> tuple[Probing, list[float]]:
        """What to look at, and what must be there: two colours and the last pixel, if the image does not reach it."""
        left, top, width, height = self.inner
        spots = [(top + height // 4, left + width // 4), (top + 3 * height // 4, left + 3 * width // 4)]
        values = [*self.expected(TOP_LEFT), *self.expected(BOTTOM_RIGHT)]
        if (width, height) != self.canvas:
            spots.append((self.canvas[1] - 1, self.canvas[0] - 1))
            values += self.around
        probes: list[Probe] = [(channel, *spot) for spot in spots for channel in range(3)]
        largest = max(abs(value) for value in values)
        masks = self.network_masks(len(probes) + 2)
        boxes = np.repeat(self.network_box()[None], len(probes) + 2, axis=0)
        return Probing(probes, 0.45 / largest, 0.5, boxes, masks, self.first_class), values


def _padded(mean: tuple[float, ...], deviation: tuple[float, ...], colour: tuple[float, ...]) -> tuple[float, ...]:
    return tuple((c - m) / d for c, m, d in zip(colour, mean, deviation, strict=True))


def _zoo(size: tuple[int, int], canvas: tuple[int, int], inner: Rect, long_side: int | None = None) -> Case:
    return Case(
        zoo_model, size, canvas, inner, "bgr", ZOO_MEAN, ONE, box=inclusive, masks="rank 4", first_class=1,
        long_side=long_side,
    )  # fmt: skip


RTMDET_GREY = _padded(BGR_MEAN, BGR_DEVIATION, GREY)
MEAN_COLOUR = tuple(value / 255 for value in MEAN)
YOLO_GREY = (114 / 255, 114 / 255, 114 / 255)
HALF = 1e-3

CASES = {
    "zoo, 4:3": _zoo((400, 300), (1088, 800), (0, 0, 1067, 800)),
    "zoo, portrait, must not exceed 960": _zoo((300, 400), (736, 960), (0, 0, 720, 960)),
    "zoo, 16:9, must not exceed 1280": _zoo((640, 360), (1280, 736), (0, 0, 1280, 720)),
    "zoo, large": _zoo((1920, 1080), (1280, 736), (0, 0, 1280, 720)),
    "zoo, long side asked for": _zoo((400, 300), (640, 480), (0, 0, 640, 480), 640),
    "torchvision, any size": Case(
        torchvision_model, (100, 80), (100, 80), (0, 0, 100, 80), "rgb", NONE, FULL, masks="pasted", first_class=1
    ),
    "torchvision, a large image": Case(
        torchvision_model, (2000, 1000), (1333, 667), (0, 0, 1333, 667), "rgb", NONE, FULL, masks="pasted",
        first_class=1,
    ),
    "torchvision, fixed": Case(
        partial(torchvision_model, size=(64, 96)), (100, 50), (96, 64), (0, 0, 96, 48), "rgb", NONE, FULL,
        MEAN_COLOUR, masks="pasted", first_class=1,
    ),
    "torchvision, batch of one": Case(
        partial(torchvision_model, rank=4), (90, 80), (90, 80), (0, 0, 90, 80), "rgb", NONE, FULL, masks="pasted",
        first_class=1,
    ),
    "TensorFlow": Case(
        tf_model, (100, 80), (100, 80), (0, 0, 100, 80), "rgb", NONE, ONE, box=parts_yx, first_class=1
    ),
    "TensorFlow, plain names, long side asked for": Case(
        partial(tf_model, suffix=""), (200, 100), (64, 32), (0, 0, 64, 32), "rgb", NONE, ONE, box=parts_yx,
        first_class=1, long_side=64,
    ),
    "detectron2": Case(
        detectron2_model, (400, 300), (1067, 800), (0, 0, 1067, 800), "bgr", NONE, ONE, masks="rank 4"
    ),
    "detectron2, wide": Case(
        detectron2_model, (800, 200), (1333, 333), (0, 0, 1333, 333), "bgr", NONE, ONE, masks="rank 4"
    ),
    "detectron2, fixed, masks post-processed": Case(
        partial(detectron2_model, size=(320, 320)), (400, 300), (320, 320), (0, 0, 320, 240), "bgr", NONE, ONE,
        BGR_MEAN, masks="bool",
    ),
    "MMDeploy, Mask R-CNN": Case(
        partial(mmdeploy_model, declared=["batch", "n", 28, 28]), (400, 300), (1088, 800), (0, 0, 1067, 800), "rgb",
        MEAN, DEVIATION,
    ),
    "MMDeploy, Mask R-CNN, fixed, masks pasted": Case(
        partial(mmdeploy_model, shape=[1, 3, 160, 256]), (400, 200), (256, 160), (0, 0, 256, 128), "rgb", MEAN,
        DEVIATION, masks="bool",
    ),
    "MMDeploy, RTMDet-Ins": Case(
        partial(mmdeploy_model, shape=[1, 3, 640, 640]), (400, 300), (640, 640), (0, 0, 640, 480), "bgr", BGR_MEAN,
        BGR_DEVIATION, RTMDET_GREY, masks="full",
    ),
    "MMDeploy, RTMDet-Ins, any size": Case(
        mmdeploy_model, (400, 290), (640, 480), (0, 0, 640, 464), "bgr", BGR_MEAN, BGR_DEVIATION, RTMDET_GREY,
        masks="full",
    ),
    "RF-DETR": Case(
        rfdetr_model, (100, 50), (96, 96), (0, 0, 96, 96), "rgb", MEAN, DEVIATION, box=centre_parts, masks="full",
        first_class=1,
    ),
    "YOLO, fixed": Case(
        partial(yolo_model, shape=[1, 3, 320, 320]), (400, 300), (320, 320), (0, 40, 320, 240), "rgb", NONE, FULL,
        YOLO_GREY, box=centre, masks="full",
    ),
    "YOLO, any size": Case(
        yolo_model, (400, 310), (640, 512), (0, 8, 640, 496), "rgb", NONE, FULL, YOLO_GREY, box=centre, masks="full"
    ),
    "YOLO, odd padding": Case(
        partial(yolo_model, shape=[1, 3, 64, 64]), (100, 95), (64, 64), (0, 1, 64, 61), "rgb", NONE, FULL, YOLO_GREY,
        box=centre, masks="full",
    ),
    "YOLO, long side asked for": Case(
        yolo_model, (400, 300), (320, 256), (0, 8, 320, 240), "rgb", NONE, FULL, YOLO_GREY, box=centre, masks="full",
        long_side=320,
    ),
    "YOLO, suppressed inside": Case(
        partial(yolo_model, shape=[1, 3, 96, 96], suppressed=True), (300, 400), (96, 96), (12, 0, 72, 96), "rgb",
        NONE, FULL, YOLO_GREY, masks="full",
    ),
    "YOLO, half precision": Case(
        partial(yolo_model, shape=[1, 3, 64, 64], kind="float16"), (100, 100), (64, 64), (0, 0, 64, 64), "rgb", NONE,
        FULL, YOLO_GREY, box=centre, masks="full", tolerance=HALF,
    ),
}  # fmt: skip


def run(case: Case, path: Path, image: Image | None = None, labels: int = 91) -> tuple[Detections, Probing]:
    probing, _ = case.probing()
    names = [f"class {i}" for i in range(labels)]
    build = case.build(path, probing)
    with load_segmenter(
        build, device="cpu", threads=1, score_threshold=0.0, long_side=case.long_side, labels=names
    ) as segmenter:
        (found,) = segmenter([picture(*case.size) if image is None else image])
    return found, probing


Answer = Callable[[str], tuple[Detections, Probing]]


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """What the model of a case, by its name, finds in `picture`; each is asked once."""
    return cache(lambda name: run(CASES[name], tmp_path_factory.mktemp("case") / "model.onnx"))


@pytest.mark.parametrize("name", CASES)
def test_the_network_sees_the_picture_as_in_its_own_preprocessing(name: str, answer: Answer) -> None:
    case = CASES[name]
    found, probing = answer(name)
    _, values = case.probing()
    scores = dict(zip(found.names, found.scores, strict=True))
    sides = [scores[f"class {probing.count - 2}"], scores[f"class {probing.count - 1}"]]
    assert [side * SIZE_UNIT for side in sides] == pytest.approx(case.canvas, abs=case.tolerance * SIZE_UNIT)
    seen = [probing.value(scores[f"class {i}"]) for i in range(len(values))]
    assert seen == pytest.approx(values, abs=case.tolerance * max(map(abs, values)))


@pytest.mark.parametrize("name", CASES)
def test_boxes_come_back_in_pixels_of_the_image_and_scores_in_order(name: str, answer: Answer) -> None:
    case = CASES[name]
    found, _ = answer(name)
    expected = np.repeat(case.image_box()[None], len(found), axis=0)
    np.testing.assert_allclose(found.boxes, expected, atol=max(case.size) * max(case.tolerance, 1e-5))
    assert np.all(np.diff(found.scores) <= 0)


BILINEAR = ("torchvision, fixed", "MMDeploy, RTMDet-Ins", "RF-DETR", "YOLO, fixed", "YOLO, odd padding")


@pytest.mark.parametrize("name", BILINEAR)
def test_images_are_shrunk_as_the_family_does_it_without_averaging(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    noise = np.random.default_rng(0).integers(0, 256, (case.size[1] * 4, case.size[0] * 4, 3), np.uint8)
    found, probing = run(case, tmp_path / "model.onnx", noise)
    left, top, width, height = case.inner
    shrunk = cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
    scores = dict(zip(found.names, found.scores, strict=True))
    for i, (channel, row, column) in enumerate(probing.probes[:6]):
        blue, green, red = (int(value) for value in shrunk[row - top, column - left])
        wanted = case.expected((blue, green, red))[channel]
        assert probing.value(scores[f"class {i}"]) == pytest.approx(wanted, abs=0.01 * case.expected(FULL_WHITE)[0])


SMALL = [name for name, case in CASES.items() if case.masks in ("small", "rank 4")]


@pytest.mark.parametrize("name", SMALL)
def test_small_masks_are_passed_on_unchanged(name: str, answer: Answer) -> None:
    found, _ = answer(name)
    np.testing.assert_array_equal(found.masks, np.repeat(RAMP[None], len(found), axis=0))


Written = Callable[[Floats, tuple[int, int], Rect], Floats]

FULL_FRAME: dict[str, tuple[Build, str, Written, int]] = {
    "torchvision": (partial(torchvision_model, size=(96, 128)), "pasted", corners, 1),
    "detectron2": (partial(detectron2_model, size=(96, 128)), "bool", corners, 1),
    "MMDeploy": (partial(mmdeploy_model, shape=[1, 3, 96, 128]), "bool", corners, 1),
    "RTMDet-Ins": (partial(mmdeploy_model, shape=[1, 3, 96, 128]), "full", corners, 1),
    "RF-DETR": (rfdetr_model, "odds", centre_parts, 4),
    "YOLO": (partial(yolo_model, shape=[1, 3, 96, 128]), "odds", centre, 4),
}
"""How each family is built, what its masks hold, how its boxes are written, and pixels of the image per mask pixel."""

BOX = np.array([16.3, 10.6, 100.8, 90.2], np.float32)
SHAPES = ("disc", "whole box", "lower triangle", "ring")
PASTED_IOU = 0.97
"""Masks of a quarter of the resolution are enlarged twice, bilinearly: along slanted edges half a pixel moves."""


def distances(shape: str, xs: NDArray[np.floating], ys: NDArray[np.floating]) -> NDArray[np.floating]:
    """How deep inside a shape, which reaches the edges of BOX, points are, in pixels; negative outside."""
    x1, y1, x2, y2 = BOX
    x, y = np.meshgrid((xs - (x1 + x2) / 2) / (x2 - x1) * 2, (ys - (y1 + y2) / 2) / (y2 - y1) * 2)
    unit = float(y2 - y1) / 2
    if shape == "disc":
        return np.asarray((1 - np.hypot(x, y)) * unit)
    if shape == "ring":
        return np.asarray(np.minimum(1 - np.hypot(x, y), np.hypot(x, y) - 0.5) * unit)
    if shape == "lower triangle":
        return np.asarray((y - x) / np.sqrt(2) * unit)
    return np.full(x.shape, 2.0) * unit


def network_masks(content: str, per_pixel: int, count: int) -> NDArray[np.generic]:
    """The shapes, one per object, as a network whose mask pixels cover `per_pixel` of the image gives them."""
    xs, ys = ((np.arange(side // per_pixel) + 0.5) * per_pixel for side in (128, 96))
    depth = np.stack([distances(SHAPES[i % len(SHAPES)], xs, ys) for i in range(count)]).astype(np.float32)
    if content == "odds":
        return depth
    if content == "bool":
        return depth > 0
    soft = 1 / (1 + np.exp(-depth))
    return soft[:, None] if content == "pasted" else soft


@pytest.mark.parametrize("family", FULL_FRAME)
def test_masks_of_the_whole_picture_are_pasted_back_where_they_were(family: str, tmp_path: Path) -> None:
    build, content, written, per_pixel = FULL_FRAME[family]
    canvas, count = (128, 96), 5
    masks = network_masks(content, per_pixel, count)
    box = written(BOX, canvas, (0, 0, *canvas))
    first = 1 if family in ("torchvision", "RF-DETR") else 0
    probing = Probing([(0, 50, 50)] * 3, 0.001, 0.5, np.repeat(box[None], count, axis=0), masks, first)
    names = [f"class {i}" for i in range(91)]
    with load_segmenter(
        build(tmp_path / "model.onnx", probing), device="cpu", threads=1, score_threshold=0.0, labels=names
    ) as segmenter:
        (found,) = segmenter([picture(*canvas)])
    xs, ys = (np.arange(side) + 0.5 for side in canvas)
    inside = np.outer((ys > BOX[1]) & (ys < BOX[3]), (xs > BOX[0]) & (xs < BOX[2]))
    for pasted, number in zip(paste(found, canvas), found.class_ids, strict=True):
        wanted = (distances(SHAPES[number % len(SHAPES)], xs, ys) > 0) & inside
        overlap = np.count_nonzero(pasted & wanted) / np.count_nonzero(pasted | wanted)
        assert overlap >= PASTED_IOU, f"{SHAPES[number % len(SHAPES)]}: {overlap:.3f}"


SMALL_MASKS: dict[str, Build] = {
    "detectron2, 28x28": partial(detectron2_model, size=(96, 128)),
    "MMDeploy, 28x28": partial(mmdeploy_model, shape=[1, 3, 96, 128], declared=["batch", "n", 28, 28]),
}
CROPPED_IOU = 0.95
"""A mask of 28x28 is a disc of 40 pixels but for the softness of its edge."""


@pytest.mark.parametrize("family", [*SMALL_MASKS, *(name for name in FULL_FRAME if FULL_FRAME[name][3] == 1)])
@pytest.mark.parametrize("middle", [(64, 72), (64, 66), (64, 40), (5, 30)], ids=str)
def test_where_a_box_leaves_the_image_its_mask_does_not_shrink_with_it(
    family: str, middle: tuple[int, int], tmp_path: Path
) -> None:
    """The image, 128x72 in a canvas of 128x96, ends where networks do not know it; RTMDet does not clip at all."""
    canvas, size, radius, count = (128, 96), (128, 72), 20, 3
    box = np.array([middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius], np.float32)
    xs, ys = (np.arange(side) + 0.5 for side in canvas)
    depth = np.clip(radius - np.hypot(xs - middle[0], ys[:, None] - middle[1]), -30, 30).astype(np.float32)
    if family in SMALL_MASKS:
        build, first = SMALL_MASKS[family], 0
        cells = (np.arange(28) + 0.5) / 28 * 2 - 1
        mask = 1 / (1 + np.exp(-(1 - np.hypot(cells, cells[:, None])) * radius))
        content = "rank 4" if family.startswith("detectron2") else "small"
    else:
        build, content, _, _ = FULL_FRAME[family]
        first, mask = int(family == "torchvision"), depth > 0 if content == "bool" else 1 / (1 + np.exp(-depth))
    masks = np.repeat(mask[None], count, axis=0)
    masks = masks if content == "bool" else masks.astype(np.float32)
    masks = masks[:, None] if content in ("rank 4", "pasted") else masks
    probing = Probing([(0, 50, 50)], 0.001, 0.5, np.repeat(box[None], count, axis=0), masks, first)
    with load_segmenter(
        build(tmp_path / "model.onnx", probing), device="cpu", threads=1, score_threshold=0.0, labels=["a", "b", "c"]
    ) as segmenter:
        (found,) = segmenter([picture(*size)])
    np.testing.assert_allclose(found.boxes[0], np.clip(box, 0, [*size] * 2), atol=1e-3)
    pasted, wanted = paste(found, size)[0], depth[: size[1]] > 0
    assert np.count_nonzero(pasted & wanted) >= CROPPED_IOU * np.count_nonzero(pasted | wanted)


def _recognised() -> dict[str, tuple[str, Callable[[Path], Path]]]:
    def probing(masks: NDArray[np.generic]) -> Probing:
        return Probing([(0, 0, 0)], 0.001, 0.5, np.zeros((3, 4), np.float32), masks)

    small, ranked = probing(np.zeros((3, 28, 28), np.float32)), probing(np.zeros((3, 1, 28, 28), np.float32))
    flags, pasted = probing(np.zeros((3, 40, 50), bool)), probing(np.zeros((3, 1, 40, 50), np.float32))
    words = ("boxes", "labels", "scores", "masks")
    unknown: Shape = ["a", "b", "c", "d"]
    return {
        "our own": ("batched", batched_model),
        "zoo": ("zoo", lambda path: zoo_model(path, ranked)),
        "zoo, masks not declared 28x28": ("zoo", lambda path: zoo_model(path, pasted, masks=unknown)),
        "zoo, outputs renamed": ("zoo", lambda path: zoo_model(path, ranked, names=words)),
        "torchvision": ("torchvision_export", lambda path: torchvision_model(path, pasted)),
        "torchvision, renamed": (
            "torchvision_export", lambda path: zoo_model(path, pasted, names=words, masks=unknown)
        ),
        "torchvision, three images": ("torchvision_export", lambda path: torchvision_model(path, pasted, inputs=3)),
        "torchvision, batch of one": ("torchvision_export", lambda path: torchvision_model(path, pasted, rank=4)),
        "TensorFlow": ("tf_detection", lambda path: tf_model(path, small)),
        "TensorFlow 2": ("tf_detection", lambda path: tf_model(path, small, batch=1, suffix="")),
        "detectron2": ("detectron2_export", lambda path: detectron2_model(path, ranked)),
        "detectron2, post-processed": ("detectron2_export", lambda path: detectron2_model(path, flags)),
        "MMDeploy": ("mmdeploy", lambda path: mmdeploy_model(path, small)),
        "MMDeploy, pasted": ("mmdeploy", lambda path: mmdeploy_model(path, flags)),
        "RF-DETR": ("rfdetr", lambda path: rfdetr_model(path, small)),
        "YOLO": ("yolo_seg", lambda path: yolo_model(path, small)),
        "YOLO, suppressed": ("yolo_seg", lambda path: yolo_model(path, small, suppressed=True)),
        "YOLO, half": ("yolo_seg", lambda path: yolo_model(path, small, kind="float16")),
    }  # fmt: skip


RECOGNISED = _recognised()


def module_of(family: Family) -> str:
    return family.matches.__module__.rpartition(".")[2]


@pytest.mark.parametrize("name", RECOGNISED)
def test_every_model_is_claimed_by_its_family_alone(name: str, tmp_path: Path) -> None:
    family, build = RECOGNISED[name]
    session = Session(build(tmp_path / "model.onnx"), "cpu", threads=1)
    claims = [module_of(family) for family in FAMILIES if family.matches(session.signature)]
    assert claims == [family]


def test_every_family_is_among_the_recognised() -> None:
    assert {family for family, _ in RECOGNISED.values()} == set(map(module_of, FAMILIES))


@pytest.mark.parametrize("family", ["maskrcnn-benchmark", "torchvision"])
def test_metadata_says_which_of_two_look_alikes_it_is(family: str, tmp_path: Path) -> None:
    probing = Probing([(0, 0, 0)], 0.001, 0.5, np.zeros((3, 4), np.float32), np.zeros((3, 1, 28, 28), np.float32),
                      metadata={"family": family})  # fmt: skip
    session = Session(zoo_model(tmp_path / "model.onnx", probing), "cpu", threads=1)
    claims = [module_of(family) for family in FAMILIES if family.matches(session.signature)]
    assert claims == [{"maskrcnn-benchmark": "zoo", "torchvision": "torchvision_export"}[family]]


def test_an_unknown_model_is_refused_with_its_inputs_and_outputs_and_all_that_is_understood(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_segmenter(identity_model(tmp_path / "model.onnx"), device="cpu")
    message = str(caught.value)
    assert "inputs x float[2]; outputs y float[2]" in message
    for word in ("stream-seg", "Zoo", "torchvision", "TensorFlow", "detectron2", "MMDeploy", "YOLO", "RF-DETR"):
        assert word in message


def test_a_yolov5_model_which_counts_otherwise_is_not_taken_for_a_later_one(tmp_path: Path) -> None:
    probing = Probing([(0, 0, 0)], 0.001, 0.5, np.zeros((3, 4), np.float32), np.zeros((3, 8, 8), np.float32),
                      metadata={"stride": "32", "names": "{0: 'a', 1: 'b', 2: 'c'}"})  # fmt: skip
    with pytest.raises(ModelError, match="of no known kind"):
        load_segmenter(yolo_model(tmp_path / "model.onnx", probing), device="cpu")


@pytest.mark.parametrize("task", ["detect", "pose", "classify", "obb"])
def test_a_model_of_ultralytics_without_outlines_is_refused_as_that(tmp_path: Path, task: str) -> None:
    probing = Probing([(0, 0, 0)], 0.001, 0.5, np.zeros((1, 4), np.float32), np.zeros((1, 8, 8), np.float32),
                      metadata={"stride": "32", "task": task, "names": "{0: 'a'}"})  # fmt: skip
    with pytest.raises(ModelError, match=f"no outlines, for its task is {task}: a segmentation model is needed.*-seg"):
        load_segmenter(yolo_model(tmp_path / "model.onnx", probing), device="cpu")
