"""The int8 graph: static quantisation per channel, calibrated on frames, and how well it agrees with float32.

Activations are uint8 and weights int8 with one scale per output channel, as QDQ pairs (Jacob 2017, arXiv 1712.05877).
What is left in float32: the first convolution, whose input has the full range of pixels, and what comes before the
second; predictors, whose errors become errors of boxes and scores, but for the classes of a dense head, which are
predicted at all places and of which enough are left in 8 bits; RoIAlign and everything about boxes. (The float16 graph
is written directly, see `layers`.)
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from stream_seg.errors import ModelError, OutputError
from stream_seg.frame import Image, check_image
from stream_seg.geometry import Letterbox, choose_canvas, pairwise_iou
from stream_seg.graph.config import STRIDE

MAX_FRAMES = 100
"""More frames widen the ranges by noise only."""

_CALIBRATION_SCORE = 0.05
_COMPARED_SCORE = 0.3
_SAME_IOU = 0.5
_LONG_SIDES = (320, 256, 416)
"""Sizes frames are shown at in turn where no canvas is prescribed: those the compact network was trained for."""

_COMPUTING = frozenset({"Conv", "Gemm", "Relu", "LeakyRelu", "Add", "Concat", "Resize"})
_MOVING = frozenset({"Transpose", "Reshape", "Gather"})
"""Operators in 8 bits: those that compute, and those that hand on what is in 8 bits between them."""
_COMPUTING_NODES = re.compile(
    r"backbone/(?!(stem|conv1)/|LeakyRelu$)|fpn/|rpn/level\d+/conv\.|dense/level\d+/(conv|classes)/"
    r"|box/head/(?!cls_score|bbox_pred)|mask/(head|levels|detail)/"
)
_MOVING_NODES = re.compile(r"(dense/level\d+/(rows|chosen)|mask/(detail|pool/pixels|head/spread))/")

Report = Callable[[int, int], None]
Feed = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the detections of one graph compare with those of another, the reference, on the same frames.

    `found` of the reference's `objects` have a detection of the same class with an IoU of 0.5 in the other; `extra`
    are the other's detections without such a counterpart. `iou` and `score_difference` (absolute) are means over those
    found.
    """

    frames: int
    objects: int
    found: int
    extra: int
    iou: float
    score_difference: float

    def __str__(self) -> str:
        if not self.objects:
            return f"nothing was found in the {self.frames} frames: calibrate on some that show objects"
        means = f"; mean IoU {self.iou:.3f}, scores differ by {self.score_difference:.3f}" if self.found else ""
        return f"{self.found} of {self.objects} objects found again, {self.extra} more, in {self.frames} frames{means}"


@dataclass(frozen=True, slots=True)
class _Found:
    """Detections of one frame, best first."""

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]


def make_feeds(frames: Iterable[Image], canvases: Sequence[tuple[int, int]]) -> list[Feed]:
    """Inputs of a graph from frames, at most MAX_FRAMES, each on a canvas.

    Raises ModelError if there are none, ValueError for what are no images.
    """
    feeds = []
    for index, image in enumerate(islice(frames, MAX_FRAMES)):
        check_image(image)
        feeds.append(_feed(image, _canvas(image, index, canvases)))
    if not feeds:
        raise ModelError("int8 needs frames to calibrate on, and there were none; give a video or a folder of images")
    return feeds


def quantise(model: onnx.ModelProto, feeds: list[Feed], report: Report) -> onnx.ModelProto:
    """The int8 form of a float32 graph, its ranges measured on the feeds."""
    session = _session(model)
    calibration = _Calibration([_with_detections(session, feed) for feed in feeds], report)
    prepared, defaults = _prepared(model)
    with _temporary_folder() as folder:
        target = folder / "int8.onnx"
        quantize_static(
            prepared,
            target,
            calibration,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=sorted(_COMPUTING | _MOVING),
            nodes_to_quantize=[node.name for node in model.graph.node if _is_quantised(node)],
            # What follows the last of them wants float32.
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
        )
        quantised = onnx.load(target)
    quantised.graph.initializer.extend(defaults)
    onnx.helper.set_model_props(quantised, {entry.key: entry.value for entry in model.metadata_props})
    quantised.producer_name = model.producer_name
    return quantised


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """For the several copies of the graph that quantize_static writes. Raises OutputError."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    except OSError as error:
        raise OutputError(
            f"cannot make int8 in {tempfile.gettempdir()}: {error.strerror}; free some space there, or name another "
            "folder in the environment variable TMPDIR"
        ) from error


def _prepared(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[onnx.TensorProto]]:
    """A copy for quantize_static, without the defaults of inputs: each of its sessions would warn of them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    inputs = {value.name for value in model.graph.input}
    defaults = [tensor for tensor in model.graph.initializer if tensor.name in inputs]
    for tensor in defaults:
        copy.graph.initializer.remove(tensor)
    # It would also warn that the graph was not prepared, but there is nothing to prepare.
    onnx.helper.set_model_props(copy, {"onnx.quant.pre_process": "onnxruntime.quant"})
    return copy, defaults


def compare(reference: onnx.ModelProto, other: onnx.ModelProto, feeds: list[Feed]) -> Agreement:
    """How well the other graph agrees with the reference."""
    sessions = _session(reference), _session(other)
    pairs = [(_detect(sessions[0], feed), _detect(sessions[1], feed)) for feed in feeds]
    ious, differences, objects, extra = [], [], 0, 0
    for expected, got in pairs:
        certain = expected.scores >= _COMPARED_SCORE
        objects += int(certain.sum())
        for iou, match in _counterparts(expected, got, certain):
            ious.append(iou)
            differences.append(abs(float(expected.scores[match[0]] - got.scores[match[1]])))
        likely = got.scores >= _COMPARED_SCORE
        extra += int(likely.sum()) - len(list(_counterparts(got, expected, likely)))
    return Agreement(len(feeds), objects, len(ious), extra, _mean(ious), _mean(differences))


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _counterparts(ones: _Found, others: _Found, wanted: NDArray[np.bool_]) -> Iterable[tuple[float, tuple[int, int]]]:
    """IoU and indices of each wanted one and its best counterpart among the others, where it has one."""
    if not len(others.scores):
        return
    overlap = pairwise_iou(ones.boxes, others.boxes) * (ones.labels[:, None] == others.labels)
    for index in np.flatnonzero(wanted):
        best = int(overlap[index].argmax())
        if overlap[index, best] >= _SAME_IOU:
            yield float(overlap[index, best]), (int(index), best)


def _is_quantised(node: onnx.NodeProto) -> bool:
    kinds = (_COMPUTING, _COMPUTING_NODES), (_MOVING, _MOVING_NODES)
    return any(node.op_type in operators and nodes.match(node.name) for operators, nodes in kinds)


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Hands feeds to ONNX Runtime's calibration, one at a time."""

    def __init__(self, feeds: list[Feed], report: Report) -> None:
        self._feeds = feeds
        self._report = report
        self._next = 0

    def get_next(self) -> Feed | None:
        if self._next == len(self._feeds):
            return None
        self._report(self._next + 1, len(self._feeds))
        self._next += 1
        return self._feeds[self._next - 1]


def _with_detections(session: onnxruntime.InferenceSession, feed: Feed) -> Feed:
    """The feed with a threshold at which something is found: ranges inside the mask head need a mask."""
    threshold = _CALIBRATION_SCORE if len(_detect(session, feed).scores) else 0.0
    return {**feed, "score_threshold": np.array(threshold, np.float32)}


def _detect(session: onnxruntime.InferenceSession, feed: Feed) -> _Found:
    threshold = np.array(_CALIBRATION_SCORE, np.float32)
    boxes, labels, scores = session.run(["boxes", "labels", "scores"], {**feed, "score_threshold": threshold})
    return _Found(boxes, labels, scores)


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # Its only warning is that score_threshold has a default.
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _canvas(image: Image, index: int, canvases: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """(width, height) for a frame: the prescribed one that suits it, or one of the usual sizes in turn."""
    height, width = image.shape[:2]
    if canvases:
        return choose_canvas((width, height), canvases)
    scale = _LONG_SIDES[index % len(_LONG_SIDES)] / max(height, width)
    columns, rows = (max(1, math.ceil(side * scale / STRIDE)) for side in (width, height))
    return columns * STRIDE, rows * STRIDE


def _feed(image: Image, canvas: tuple[int, int]) -> Feed:
    letterbox = Letterbox((image.shape[1], image.shape[0]), canvas)
    pixels = np.empty((1, canvas[1], canvas[0], 3), np.uint8)
    letterbox.apply(image, pixels[0])
    return {"images": pixels, "sizes": np.array([letterbox.valid[::-1]], np.float32)}
