"""What the adapters of other projects' models share, and where they differ: names, batches, suppression, nonsense."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_seg.coco import COCO_IDS, COCO_NAMES
from stream_seg.detections import Detections
from stream_seg.errors import ModelError
from stream_seg.frame import Image
from stream_seg.geometry import Placement, paste
from stream_seg.segmenters import load_segmenter
from stream_seg.segmenters.classes import classes_at, classes_by_id, classes_from
from stream_seg.segmenters.full_masks import crop, lift
from stream_seg.segmenters.mmdeploy import MmdeploySegmenter
from stream_seg.segmenters.onnx_segmenter import OnnxSegmenter, Options
from stream_seg.segmenters.preprocess import Size, fit, round_up, scaled
from stream_seg.segmenters.session import Run, Session
from stream_seg.segmenters.yolo_seg import YoloSegmenter, suppress
from tests.adapter_graphs import (
    Probing,
    detectron2_model,
    mmdeploy_model,
    rfdetr_model,
    tf_model,
    torchvision_model,
    yolo_model,
    zoo_model,
)

Floats = NDArray[np.float32]
Build = Callable[[Path, Probing], Path]

GREY: Image = np.full((60, 80, 3), 90, np.uint8)


def probing(
    count: int,
    masks: NDArray[np.generic],
    *,
    first: int = 0,
    metadata: dict[str, str] | None = None,
    box: tuple[float, float, float, float] = (8, 6, 40, 30),
) -> Probing:
    """`count` objects, the last two of which tell the size of the input; their classes count from `first`."""
    boxes = np.repeat(np.array([box], np.float32), count, axis=0)
    return Probing([(0, 20, 30)] * (count - 2), 0.001, 0.5, boxes, masks, first, metadata or {})


def small(count: int) -> Floats:
    return np.full((count, 28, 28), 0.75, np.float32)


def names_found(path: Path, *, labels: list[str] | None = None, image: Image = GREY) -> list[str]:
    """Sorted, without order by score."""
    with load_segmenter(path, device="cpu", threads=1, score_threshold=1e-6, labels=labels) as segmenter:
        return sorted(segmenter([image])[0].names)


def test_coco_has_80_classes_with_ids_up_to_90() -> None:
    assert len(COCO_NAMES) == len(COCO_IDS) == 80
    assert len(set(COCO_NAMES)) == 80
    # Three of pycocotools' categories, and the last.
    named = dict(zip(COCO_IDS, COCO_NAMES, strict=True))
    assert (named[1], named[13], named[27], named[90]) == ("person", "stop sign", "backpack", "toothbrush")


def test_names_that_are_none_and_unused_ids_lead_nowhere() -> None:
    classes = classes_from(1, ["cat", "N/A", "dog"])
    assert classes.names == ("cat", "dog")
    assert classes.indices(np.array([-1, 0, 1, 2, 3])).tolist() == [-1, -1, 0, -1, 1]
    assert classes.covers(np.array([3]))
    assert not classes.covers(np.array([4]))
    assert classes_at([7], ["bus"]).indices(np.array([6, 7])).tolist() == [-1, 0]


def test_80_names_for_90_ids_are_the_80_classes_and_any_other_number_counts_from_one() -> None:
    letters = [f"n{i}" for i in range(80)]
    assert classes_by_id(letters).indices(np.array([1, 12, 13, 90])).tolist() == [0, -1, 11, 79]
    assert classes_by_id(["a", "b"]).indices(np.array([0, 1, 2])).tolist() == [-1, 0, 1]


NUMBERED: dict[str, tuple[Build, Floats, int]] = {
    "zoo": (zoo_model, np.full((5, 1, 28, 28), 0.75, np.float32), 1),
    "torchvision": (torchvision_model, np.full((5, 1, 60, 80), 0.75, np.float32), 1),
    "TensorFlow": (tf_model, small(5), 1),
    "detectron2": (detectron2_model, np.full((5, 1, 28, 28), 0.75, np.float32), 0),
    "MMDeploy": (partial(mmdeploy_model, declared=["b", "n", 28, 28]), small(5), 0),
    "RF-DETR": (rfdetr_model, small(5), 1),
}
"""How a family's graph is built and the number it gives to the first of COCO's classes."""


@pytest.mark.parametrize("family", NUMBERED)
def test_without_names_the_classes_are_those_of_coco(family: str, tmp_path: Path) -> None:
    build, masks, first = NUMBERED[family]
    path = build(tmp_path / "model.onnx", probing(5, masks, first=first))
    assert names_found(path) == sorted(COCO_NAMES[:5])


@pytest.mark.parametrize("family", NUMBERED)
def test_names_of_the_user_replace_those_of_coco(family: str, tmp_path: Path) -> None:
    build, masks, first = NUMBERED[family]
    path = build(tmp_path / "model.onnx", probing(5, masks, first=first))
    labels = ["background", *(f"name {i}" for i in range(80))]
    assert names_found(path, labels=labels) == [f"name {i}" for i in range(5)]


@pytest.mark.parametrize("family", ["zoo", "torchvision", "TensorFlow", "detectron2", "MMDeploy"])
def test_a_class_without_a_name_is_an_error_that_says_what_to_do(family: str, tmp_path: Path) -> None:
    build, masks, first = NUMBERED[family]
    path = build(tmp_path / "model.onnx", probing(5, masks, first=first))
    with pytest.raises(ModelError, match=f"returned class {first + 4}, for which there is no name: give all"):
        names_found(path, labels=["only", "four", "of", "five"])


@pytest.mark.parametrize("family", ["torchvision", "TensorFlow"])
def test_ids_that_coco_never_used_are_left_out(family: str, tmp_path: Path) -> None:
    build, masks, _ = NUMBERED[family]
    path = build(tmp_path / "model.onnx", probing(5, masks, first=10))  # 10 to 14, of which 12 is unused
    assert names_found(path) == sorted(["traffic light", "fire hydrant", "stop sign", "parking meter"])


@pytest.mark.parametrize("family", NUMBERED)
def test_names_in_the_metadata_are_used(family: str, tmp_path: Path) -> None:
    build, masks, first = NUMBERED[family]
    labels = ",".join(f"name {i}" for i in range(80))
    path = build(tmp_path / "model.onnx", probing(5, masks, first=first, metadata={"labels": labels}))
    assert names_found(path) == [f"name {i}" for i in range(5)]


def test_an_rfdetr_model_names_its_classes_in_its_own_metadata(tmp_path: Path) -> None:
    said = json.dumps({"class_id_to_name": {"2": "two", "3": "three", "5": "five"}})
    build = partial(rfdetr_model, classes=8)
    path = build(tmp_path / "model.onnx", probing(5, small(5), first=1, metadata={"rfdetr_inference": said}))
    assert names_found(path) == ["five", "three", "two"]
    assert names_found(path, labels=["ii", "iii", "v"]) == ["ii", "iii", "v"]


@pytest.mark.parametrize("nothing", [None, "", " ", "n/a"])
def test_classes_that_their_models_do_not_name_are_left_out(nothing: str | None, tmp_path: Path) -> None:
    said = json.dumps({"class_id_to_name": {"0": "zero", "1": nothing, "2": "two"}})
    described = probing(5, small(5), metadata={"rfdetr_inference": said})
    assert names_found(rfdetr_model(tmp_path / "rf.onnx", described, classes=6)) == ["two", "zero"]
    yolo = yolo_model(tmp_path / "yolo.onnx", yolo_probing(3, {"names": repr({0: "zero", 1: nothing, 2: "two"})}))
    assert names_found(yolo) == ["two", "zero"]


def test_a_model_that_names_nothing_but_none_has_no_names(tmp_path: Path) -> None:
    path = yolo_model(tmp_path / "model.onnx", yolo_probing(3, {"names": "{0: None, 1: '', 2: 'N/A'}"}))
    with pytest.raises(ModelError, match="names no classes: give them with --labels"):
        load_segmenter(path, device="cpu")


@pytest.mark.parametrize("number", ["99999999999", "-1", "person"])
def test_rfdetr_names_whose_numbers_have_no_sense_are_not_taken(number: str, tmp_path: Path) -> None:
    said = json.dumps({"class_id_to_name": {number: "one"}})
    path = rfdetr_model(tmp_path / "model.onnx", probing(4, small(4), metadata={"rfdetr_inference": said}), classes=4)
    with pytest.raises(ModelError, match="names no classes: give them with --labels"):
        load_segmenter(path, device="cpu")


def test_a_fine_tuned_rfdetr_model_counts_from_zero_and_needs_names(tmp_path: Path) -> None:
    path = rfdetr_model(tmp_path / "model.onnx", probing(4, small(4)), classes=4)
    with pytest.raises(ModelError, match="names no classes: give them with --labels"):
        load_segmenter(path, device="cpu")
    # The fourth slot is "no object".
    assert names_found(path, labels=["a", "b", "c"]) == ["a", "b", "c"]


def test_a_query_of_rfdetr_may_be_two_things(tmp_path: Path) -> None:
    found = probing(4, small(4))
    twice = Probing(found.probes, found.gain, found.offset, found.boxes, found.masks, 0)
    path = rfdetr_model(tmp_path / "model.onnx", twice, classes=4)
    with load_segmenter(path, device="cpu", score_threshold=1e-15, labels=["a", "b", "c", "d"]) as segmenter:
        # The best four of sixteen pairs: the likely class of each query, none of the unlikely ones.
        assert sorted(segmenter([GREY])[0].names) == ["a", "b", "c", "d"]


def yolo_probing(count: int, metadata: dict[str, str] | None = None) -> Probing:
    """Objects side by side, so that none suppresses another."""
    boxes = np.array([[10 + 20 * i, 20, 16, 16] for i in range(count)], np.float32)
    prototypes = np.full((count, 16, 16), 3.0, np.float32)
    return Probing([(0, 20, 30)] * (count - 2), 0.001, 0.5, boxes, prototypes, 0, metadata or {})


def test_yolo_names_come_from_its_metadata_as_a_python_literal(tmp_path: Path) -> None:
    said = {"names": "{0: 'hat', 1: \"cat's\", 2: 'mat'}", "task": "segment", "stride": "32", "imgsz": "[96, 96]"}
    path = yolo_model(tmp_path / "model.onnx", yolo_probing(3, said))
    assert names_found(path) == ["cat's", "hat", "mat"]
    assert names_found(path, labels=["x", "y", "z"]) == ["x", "y", "z"]


NO_LITERALS = ("__import__('os').getcwd()", "{0: open('x')}", "[", "7", "", "-" * 100_000 + "1")
NO_NUMBERS = ("{[]: 1}", "{None: 'a'}", "{1e999: 'a'}", "{99999999999: 'a'}", "{-1: 'a'}")


@pytest.mark.parametrize("names", NO_LITERALS + NO_NUMBERS, ids=lambda names: repr(names[:20]))
def test_yolo_names_that_are_no_literal_are_not_run_and_those_without_sense_not_taken(
    names: str, tmp_path: Path
) -> None:
    path = yolo_model(tmp_path / "model.onnx", yolo_probing(3, {"names": names, "task": "segment"}))
    with pytest.raises(ModelError, match="names no classes"):
        load_segmenter(path, device="cpu")


@pytest.mark.parametrize(
    ("said", "together"), [({}, 1), ({"args": "{'batch': 1, 'nms': True}"}, 1), ({"end2end": "True"}, 4)]
)
def test_a_yolo_graph_whose_suppression_is_unrolled_for_one_image_gets_one_at_a_time(
    said: dict[str, str], together: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = np.array([[10 + 20 * i, 20, 26 + 20 * i, 36] for i in range(3)], np.float32)
    masks = np.full((3, 16, 16), 3.0, np.float32)
    described = Probing([(0, 20, 30)], 0.001, 0.5, boxes, masks, 0, {"names": "{0: 'a', 1: 'b', 2: 'c'}", **said})
    unrolled = "end2end" not in said
    path = yolo_model(tmp_path / "model.onnx", described, suppressed=True, unrolled=unrolled)
    session = Session(path, "cpu", threads=1)
    monkeypatch.setattr(session, "batches", (1, 4))  # as on CUDA
    with YoloSegmenter(session, Options(score_threshold=0.0)) as segmenter:
        assert segmenter.max_batch == together
        assert [len(found) for found in segmenter([GREY] * 3)] == [3, 3, 3]


@pytest.mark.parametrize(
    ("said", "side"),
    [
        ("[256, 256]", 256),
        ("256", 256),
        ("[256.75, 192.0]", 256),
        ("[0, 0]", 640),
        ("[100000, 256]", 256),
        (f"[{'9' * 5000}]", 640),
    ],
    ids=lambda said: str(said)[:20],
)
def test_the_size_in_yolo_metadata_is_that_of_the_canvas_if_it_is_one(said: str, side: int, tmp_path: Path) -> None:
    described = yolo_probing(3, {"names": "{0: 'a', 1: 'b', 2: 'c'}", "imgsz": said})
    with load_segmenter(yolo_model(tmp_path / "model.onnx", described), device="cpu", threads=1) as segmenter:
        assert segmenter.description == f"3 classes, {side} px"
        segmenter([GREY])


@pytest.mark.parametrize(
    ("stride", "canvas"), [("32", (640, 480)), ("64", (640, 512)), ("8", (640, 480)), ("x", (640, 480))]
)
def test_canvases_of_yolo_fit_the_stride_in_its_metadata(stride: str, canvas: tuple[int, int], tmp_path: Path) -> None:
    said = {"names": "{0: 'a'}", "task": "segment", "stride": stride}
    with load_segmenter(yolo_model(tmp_path / "model.onnx", yolo_probing(3, said)), device="cpu") as segmenter:
        assert isinstance(segmenter, YoloSegmenter)
        assert segmenter.canvas_for((80, 60)) == canvas


def naive_suppress(boxes: Floats, scores: Floats, numbers: NDArray[np.int64]) -> list[int]:
    """From the definition, in plain loops."""
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        for j in kept:
            width = min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0])
            height = min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1])
            common = max(width, 0) * max(height, 0)
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (boxes[i], boxes[j])]
            if numbers[i] == numbers[j] and common / max(sum(areas) - common, 1e-9) > 0.7:
                break
        else:
            kept.append(int(i))
    return kept


@given(st.integers(0, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_suppression_keeps_the_best_of_each_class(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    low = random.uniform(0, 20, (count, 2))
    boxes = np.concatenate([low, low + random.uniform(20, 40, (count, 2))], axis=1).astype(np.float32)
    scores, numbers = random.permutation(count).astype(np.float32), random.integers(0, 3, count)
    assert suppress(boxes, scores, numbers).tolist() == naive_suppress(boxes, scores, numbers)


def test_suppression_keeps_at_most_300() -> None:
    boxes = np.array([[10 * i, 0, 10 * i + 9, 9] for i in range(500)], np.float32)
    kept = suppress(boxes, np.linspace(0, 1, 500, dtype=np.float32), np.zeros(500, np.int64))
    assert kept.tolist() == list(range(499, 199, -1))


def shade(value: int, width: int = 80, height: int = 60) -> Image:
    return np.full((height, width, 3), value, np.uint8)


BATCHED: dict[str, tuple[Build, Floats, tuple[float, float, float, float]]] = {
    "TensorFlow": (partial(tf_model, batch=2), small(4), (8, 6, 40, 30)),
    "MMDeploy": (partial(mmdeploy_model, shape=[2, 3, 64, 96], declared=[2, "n", 28, 28]), small(4), (8, 6, 40, 30)),
    "RF-DETR": (partial(rfdetr_model, batch=2), small(4), (0.3, 0.3, 0.2, 0.2)),
    "YOLO": (partial(yolo_model, shape=[2, 3, 64, 96]), np.full((4, 16, 24), 3, np.float32), (30, 30, 20, 20)),
    "torchvision": (partial(torchvision_model, inputs=2), np.full((4, 1, 60, 80), 0.75, np.float32), (8, 6, 40, 30)),
    "torchvision, fixed": (
        partial(torchvision_model, inputs=2, size=(60, 80)), np.full((4, 1, 60, 80), 0.75, np.float32), (8, 6, 40, 30)
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", BATCHED)
def test_a_graph_for_two_images_answers_any_number_as_one_by_one(family: str, tmp_path: Path) -> None:
    build, masks, box = BATCHED[family]
    described = probing(4, masks, box=box)
    path = build(tmp_path / "model.onnx", Probing(described.probes, 0.001, 0.5, described.boxes, masks, 1))
    images = [shade(40), shade(120), shade(200)]
    labels = [f"name {i}" for i in range(91)]
    with load_segmenter(path, device="cpu", threads=1, score_threshold=0.0, labels=labels) as segmenter:
        assert segmenter.max_batch == 2
        together, alone = segmenter(images), [segmenter([image])[0] for image in images]
    assert len({float(found.scores.max()) for found in together}) == 3
    for one, other in zip(together, alone, strict=True):
        assert same(one, other)


@pytest.mark.parametrize("family", BATCHED)
def test_a_graph_for_two_images_is_warmed_up_by_one_run(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, masks, box = BATCHED[family]
    path = build(tmp_path / "model.onnx", probing(4, masks, box=box))
    with load_segmenter(path, device="cpu", threads=1, labels=[f"name {i}" for i in range(91)]) as segmenter:
        assert isinstance(segmenter, OnnxSegmenter)
        detect, runs = segmenter.detect, []

        def counting(run: Run, images: Sequence[Image], canvas: Size) -> list[Detections]:
            runs.append(len(images))
            return detect(run, images, canvas)

        monkeypatch.setattr(segmenter, "detect", counting)
        segmenter.warm_up((80, 60))
    assert runs == [2]


def same(one: Detections, other: Detections) -> bool:
    return all(np.array_equal(getattr(one, key), getattr(other, key)) for key in ("boxes", "scores", "masks"))


def test_a_graph_for_one_image_answers_several(tmp_path: Path) -> None:
    path = zoo_model(tmp_path / "model.onnx", probing(4, np.full((4, 1, 28, 28), 0.75, np.float32), first=1))
    with load_segmenter(path, device="cpu", threads=1, score_threshold=0.0) as segmenter:
        segmenter.warm_up((80, 60), 2)
        several = segmenter([shade(40), shade(200, 60, 80)])
        assert [len(found) for found in several] == [4, 4]
        assert segmenter([]) == []


def test_only_what_scores_above_the_threshold_is_kept(tmp_path: Path) -> None:
    path = mmdeploy_model(tmp_path / "model.onnx", probing(6, small(6)), declared=["b", "n", 28, 28])
    for threshold, expected in ((None, 2), (0.4, 2), (0.6, 0)):  # the sides score 0.53 and 0.4 of 2000 pixels
        with load_segmenter(path, device="cpu", threads=1, score_threshold=threshold) as segmenter:
            (found,) = segmenter([shade(90, 800, 600)])
        assert sum(found.scores > 0.4) == len(found)
        assert (len(found) >= 1) == (expected > 0)


def test_metadata_changes_the_normalisation_of_mmdeploy_models(tmp_path: Path) -> None:
    said = {"family": "mmdet", "channels": "bgr", "mean": "10, 20, 30", "deviation": "[1.0, 1.0, 1.0]"}
    masks = np.full((5, 64, 96), 0.75, np.float32)  # floats on the whole canvas: RTMDet's, were it not said
    described = Probing([(c, 4, 4) for c in range(3)], 0.001, 0.5, np.zeros((5, 4), np.float32), masks, 0, said)
    path = mmdeploy_model(tmp_path / "model.onnx", described, shape=[1, 3, 64, 96])
    image = np.full((64, 96, 3), (100, 150, 200), np.uint8)
    with load_segmenter(path, device="cpu", threads=1, score_threshold=0.0) as segmenter:
        (found,) = segmenter([image])
    scores = dict(zip(found.names, found.scores, strict=True))
    assert [described.value(scores[name]) for name in COCO_NAMES[:3]] == pytest.approx([90, 130, 170], abs=0.01)


def test_metadata_that_is_not_three_numbers_is_refused(tmp_path: Path) -> None:
    for mean in ("1, 2", f"{'9' * 400}, 1, 1"):
        described = probing(4, small(4), metadata={"mean": mean})
        with pytest.raises(ModelError, match=f"mean must be three numbers, not '{mean}'"):
            load_segmenter(mmdeploy_model(tmp_path / "model.onnx", described), device="cpu")


def test_numbers_in_metadata_are_read_as_they_are_written(tmp_path: Path) -> None:
    said = {"mean": "-10, .5, 1e1", "deviation": "1e0, .5, 2."}
    with load_segmenter(mmdeploy_model(tmp_path / "model.onnx", probing(4, small(4), metadata=said))) as segmenter:
        assert isinstance(segmenter, MmdeploySegmenter)
        assert (segmenter.pixels.mean, segmenter.pixels.deviation) == ((-10, 0.5, 10), (1, 0.5, 2))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"deviation": "58, 0, 57"}, "deviation must be above 0, not '58, 0, 57'"),
        ({"family": "rtmdet"}, "family must be mmdet or rtmdet-ins, not 'rtmdet'"),
        ({"channels": "gbr"}, "channels must be rgb or bgr, not 'gbr'"),
    ],
)
def test_metadata_of_mmdeploy_models_that_mean_nothing_are_refused(
    said: dict[str, str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=words):
        load_segmenter(mmdeploy_model(tmp_path / "model.onnx", probing(4, small(4), metadata=said)), device="cpu")


def test_words_in_metadata_may_be_written_in_capitals(tmp_path: Path) -> None:
    said = {"family": "RTMDet-Ins", "channels": "RGB"}
    described = probing(4, small(4), metadata=said)
    path = mmdeploy_model(tmp_path / "model.onnx", described, declared=["b", "n", 28, 28])  # else Mask R-CNN's
    with load_segmenter(path, device="cpu") as segmenter:
        assert isinstance(segmenter, MmdeploySegmenter)
        assert segmenter.long_side == 640
        assert segmenter.pixels.rgb


NONSENSE: dict[str, tuple[Build, Probing]] = {
    "zoo": (zoo_model, probing(4, np.zeros((3, 1, 28, 28), np.float32))),
    "torchvision": (torchvision_model, probing(4, np.zeros((3, 1, 60, 80), np.float32))),
    "detectron2": (detectron2_model, probing(4, np.zeros((3, 1, 28, 28), np.float32))),
    "MMDeploy": (mmdeploy_model, probing(4, small(3))),
    "YOLO": (yolo_model, probing(3, np.zeros((9, 8, 8), np.float32))),
}  # fmt: skip


@pytest.mark.parametrize("family", NONSENSE)
def test_outputs_that_do_not_fit_together_are_an_error(family: str, tmp_path: Path) -> None:
    build, described = NONSENSE[family]
    labels = [f"name {i}" for i in range(80)]
    with (
        load_segmenter(build(tmp_path / "model.onnx", described), device="cpu", threads=1, labels=labels) as segmenter,
        pytest.raises(ModelError, match="do not fit together"),
    ):
        segmenter([GREY])


@given(
    st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
    st.tuples(st.integers(32, 1400), st.integers(32, 1400)),
    st.tuples(st.integers(0, 99), st.integers(0, 99)),
)
def test_boxes_go_to_the_canvas_and_back(
    size: tuple[int, int], canvas: tuple[int, int], corner: tuple[int, int]
) -> None:
    inner = fit(size, canvas)
    assert inner[0] <= canvas[0]
    assert inner[1] <= canvas[1]
    placement = Placement(size, inner, corner)
    boxes = np.array([[0, 0, *size], [size[0] / 3, size[1] / 4, size[0] / 2, size[1]]], np.float32)
    back = placement.to_image(placement.to_canvas(boxes))
    np.testing.assert_allclose(back, boxes, atol=1e-3 * max(1, max(size) / min(inner)))
    beyond = np.array([[-9, -9, *np.add(canvas, 99)]])
    np.testing.assert_allclose(placement.visible(beyond), [[*corner, *np.add(corner, inner)]], rtol=1e-6)


def test_sizes_are_rounded_half_up_and_to_strides() -> None:
    assert scaled((5, 1), 0.5) == (3, 1)
    assert scaled((1000, 1), 0.1) == (100, 1)
    assert round_up((33, 64), 32) == (64, 64)


def torchvision_paste(mask: Floats, box: Floats, size: tuple[int, int]) -> Floats:
    """torchvision's `paste_masks_in_image`: a border of zeros, the box grown by it and rounded to whole pixels."""
    grid = mask.shape[0]
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * (grid + 2) / grid
    x1, y1, x2, y2 = np.trunc(np.concatenate([centre - half, centre + half])).astype(int)
    enlarged = cv2.resize(np.pad(mask, 1), (max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)), interpolation=cv2.INTER_LINEAR)
    canvas = np.zeros((size[1], size[0]), np.float32)
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2 + 1, size[0]), min(y2 + 1, size[1])
    canvas[top:bottom, left:right] = enlarged[top - y1 : bottom - y1, left - x1 : right - x1]
    return canvas


@given(
    st.floats(0, 100), st.floats(0, 80), st.floats(60, 200), st.floats(60, 160), st.floats(0.5, 1.0), st.floats(3, 40)
)
@settings(max_examples=40)
def test_what_torchvision_pasted_is_found_again(
    left: float, top: float, width: float, height: float, radius: float, sharpness: float
) -> None:
    """Discs of any softness, up to the edge of their boxes; torchvision rounds boxes, which moves outlines a little."""
    y, x = np.mgrid[:28, :28] / 13.5 - 1
    mask = (1 / (1 + np.exp(-(radius - np.hypot(x, y)) * sharpness))).astype(np.float32)
    box = np.array([left, top, left + width, top + height], np.float32)
    pasted = torchvision_paste(mask, box, (320, 256))
    found = lift(pasted[None], box[None])
    detections = Detections(box[None], np.ones(1, np.float32), np.zeros(1, np.int64), found, ("disc",))
    ours, theirs = paste(detections, (320, 256))[0], pasted > 0.5
    assert np.count_nonzero(ours & theirs) >= 0.97 * np.count_nonzero(ours | theirs)


@pytest.mark.parametrize("probability", [0.55, 0.75, 1.0])
def test_an_object_that_fills_its_box_is_not_eaten_away_at_the_edges(probability: float) -> None:
    box = np.array([20, 10, 180, 90], np.float32)
    found = lift(np.full((1, 100, 200), probability, np.float32), box[None])
    assert found.max() <= 1.0
    detections = Detections(box[None], np.ones(1, np.float32), np.zeros(1, np.int64), found, ("all",))
    assert np.count_nonzero(paste(detections, (200, 100))) == 160 * 80


@pytest.mark.parametrize(
    "box", [(3, 3, 3, 3), (9, 9, 2, 2), (np.nan, 0, 5, 5), (0, 0, np.inf, 5), (-50, -50, -40, -40)]
)
def test_boxes_without_area_or_sense_do_no_harm(box: tuple[float, ...]) -> None:
    assert np.isfinite(lift(np.ones((1, 20, 30), np.float32), np.array([box], np.float32))).all()


def test_no_detections_give_no_masks() -> None:
    none = np.zeros((0, 4), np.float32)
    assert lift(np.zeros((0, 20, 30), np.float32), none).shape == (0, 28, 28)
    assert crop(np.zeros((0, 14, 28), np.float32), none, none).shape == (0, 14, 28)


@given(st.floats(-30, 60), st.floats(-30, 40), st.floats(60, 160), st.floats(60, 160), st.floats(3, 40))
@settings(max_examples=40)
def test_a_cropped_mask_is_pasted_where_the_whole_one_was(
    left: float, top: float, width: float, height: float, sharpness: float
) -> None:
    """Discs of any softness; bilinear interpolation of what is interpolated moves outlines a little."""
    y, x = (np.linspace(-1, 1, cells) for cells in (20, 28))
    mask = (1 / (1 + np.exp(-(1 - np.hypot(x, y[:, None])) * sharpness))).astype(np.float32)
    box = np.array([[left, top, left + width, top + height]], np.float32)
    visible = np.clip(box, 0, [100, 80, 100, 80]).astype(np.float32)
    before, after = (
        paste(Detections(where, np.ones(1, np.float32), np.zeros(1, np.int64), grid, ("disc",)), (100, 80))
        for where, grid in ((box, mask[None]), (visible, crop(mask[None], box, visible)))
    )
    assert np.count_nonzero(before & after) >= 0.97 * np.count_nonzero(before | after)


@pytest.mark.parametrize("far", [np.nan, np.inf, 1e30])
def test_boxes_without_sense_are_cropped_without_harm(far: float) -> None:
    boxes = np.array([[0, 0, far, 5], [-far, 3, 3, 3], [-1e-30, -1, 0, 9], [-4, -4, 8, 8]], np.float32)
    cropped = crop(np.ones((4, 28, 28), np.float32), boxes, np.clip(boxes, 0, 20).astype(np.float32))
    assert np.isfinite(cropped).all()
