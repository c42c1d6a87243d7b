"""One contract for every segmenter, and what is particular to our own batched graphs."""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from skimage import data

from stream_seg.coco import COCO_NAMES
from stream_seg.detections import Detections
from stream_seg.errors import ModelError, UsageError
from stream_seg.frame import Image
from stream_seg.graph.labels import COCO_LABELS
from stream_seg.segmenters import ClassFilter, FunctionSegmenter, ModelSegmenter, load_segmenter, read_labels
from stream_seg.segmenters import session as session_module
from stream_seg.segmenters.batched import BatchedSegmenter, matches, open_batched
from stream_seg.segmenters.onnx_segmenter import OnnxSegmenter, Options
from stream_seg.segmenters.session import Session, Tensor
from tests.tiny_models import (
    DEFAULT_THRESHOLD,
    FRACTIONS,
    LABELS,
    MASKS,
    NAMES,
    batched_model,
    expected_scores,
)

COMPACT = Path(__file__).parent.parent / "models" / "compact" / "int8.onnx"

# One image alone runs on several threads, several images on one each: sums in another order.
BOX_PX = 0.5
SCORE = 5e-3

CAT: Image = np.asarray(data.chelsea(), np.uint8)[:, :, ::-1]  # type: ignore[no-untyped-call]

Make = Callable[[Path], ModelSegmenter]


def _tiny(folder: Path) -> ModelSegmenter:
    return load_segmenter(batched_model(folder / "tiny.onnx"), device="cpu", threads=2)


def _tiny_one_thread(folder: Path) -> ModelSegmenter:
    return load_segmenter(batched_model(folder / "tiny.onnx"), device="cpu", threads=1)


def _tiny_single(folder: Path) -> ModelSegmenter:
    return load_segmenter(batched_model(folder / "tiny.onnx", images=[1, 96, 128, 3]), device="cpu", threads=3)


def _compact(folder: Path) -> ModelSegmenter:
    return load_segmenter(COMPACT, device="cpu", threads=1, long_side=320)


def _function(folder: Path) -> ModelSegmenter:
    def find(image: Image) -> Detections:
        height, width = image.shape[:2]
        boxes = np.array([[0, 0, width, height]], np.float32)
        score = np.array([image.mean() / 255], np.float32)
        return Detections(boxes, score, np.zeros(1, np.int64), np.ones((1, 28, 28), np.float32), ("anything",))

    return FunctionSegmenter(find, ["anything"], max_batch=3)


def _filtered(folder: Path) -> ModelSegmenter:
    return ClassFilter(_tiny(folder), ["blue", "red"])


def _twice(folder: Path) -> ModelSegmenter:
    return load_segmenter(COMPACT, device="cpu", threads=1, long_side=640)


def _sliced(folder: Path) -> ModelSegmenter:
    return load_segmenter(COMPACT, device="cpu", threads=1, long_side=160, slices=(2, 1))


@pytest.fixture(params=[_tiny, _tiny_one_thread, _tiny_single, _compact, _function, _filtered, _twice, _sliced])
def segmenter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ModelSegmenter]:
    make: Make = request.param
    with make(tmp_path) as made:
        yield made


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[ModelSegmenter]:
    with _tiny(tmp_path) as made:
        yield made


def photo(size: tuple[int, int]) -> Image:
    """The cat, (width, height) large."""
    return np.asarray(cv2.resize(CAT, size, interpolation=cv2.INTER_AREA), np.uint8)


def flat(colour: tuple[int, int, int], size: tuple[int, int] = (320, 180)) -> Image:
    return np.full((size[1], size[0], 3), colour, np.uint8)


def same(found: Detections, expected: Detections) -> bool:
    """Equal but for rounding; the order of equal scores is free."""
    if len(found) != len(expected):
        return False
    return (
        np.allclose(found.boxes, expected.boxes, atol=BOX_PX)
        and np.allclose(found.scores, expected.scores, atol=SCORE)
        and np.array_equal(found.class_ids, expected.class_ids)
    )


class TestEverySegmenter:
    def test_no_images_give_no_detections(self, segmenter: ModelSegmenter) -> None:
        assert segmenter([]) == []

    def test_each_image_of_a_mixed_call_gets_the_detections_it_gets_alone(self, segmenter: ModelSegmenter) -> None:
        images = [
            photo((320, 200)),
            flat((10, 20, 250)),
            photo((200, 320)),
            photo((451, 300)),
            flat((9, 9, 9), (64, 64)),
        ]
        found = segmenter(images)
        assert len(found) == len(images)
        assert all(same(one, segmenter([image])[0]) for one, image in zip(found, images, strict=True))

    def test_boxes_lie_in_the_frame_best_first_with_known_classes(self, segmenter: ModelSegmenter) -> None:
        for size in ((451, 300), (300, 451), (1280, 720)):
            (found,) = segmenter([photo(size)])
            assert len(found)
            assert (found.boxes >= 0).all()
            assert (found.boxes <= np.array([*size, *size])).all()
            assert (np.diff(found.scores) <= 0).all()
            assert found.class_names == segmenter.class_names
            assert found.masks.dtype == np.float32
            assert found.masks.min() >= 0
            assert found.masks.max() <= 1

    def test_the_images_stay_as_they_were(self, segmenter: ModelSegmenter) -> None:
        image = photo((320, 200))
        segmenter([image])
        assert np.array_equal(image, photo((320, 200)))

    def test_earlier_detections_outlive_later_calls(self, segmenter: ModelSegmenter) -> None:
        (first,) = segmenter([photo((320, 200))])
        kept = first.boxes.copy(), first.masks.copy()
        segmenter([flat((200, 200, 200)), flat((0, 0, 0))])
        assert np.array_equal(first.boxes, kept[0])
        assert np.array_equal(first.masks, kept[1])

    def test_several_threads_may_call_at_once(self, segmenter: ModelSegmenter) -> None:
        images = [photo((320, 200)), flat((250, 20, 250)), photo((200, 320)), flat((128, 255, 0))]
        expected = segmenter(images)
        with ThreadPoolExecutor(3) as pool:
            calls = list(pool.map(segmenter, [images, images[::-1], images]))
        calls[1] = calls[1][::-1]
        assert all(same(f, e) for call in calls for f, e in zip(call, expected, strict=True))

    def test_warm_up_and_two_ends_are_harmless(self, segmenter: ModelSegmenter) -> None:
        segmenter.warm_up((320, 180))
        segmenter.close()
        segmenter.close()

    def test_it_says_what_it_is(self, segmenter: ModelSegmenter) -> None:
        assert segmenter.max_batch >= 1
        assert segmenter.device == "cpu"
        assert all((segmenter.model_name, segmenter.description, segmenter.provider, segmenter.class_names))


class TestOurGraphs:
    def test_the_answer_is_the_one_computed_by_hand(self, tiny: ModelSegmenter) -> None:
        for size in ((320, 180), (333, 517), (1280, 720), (7, 3)):
            image = flat((100, 250, 200), size)
            (found,) = tiny([image])
            assert found.names == ["green", "red", "blue"]
            assert found.scores == pytest.approx([expected_scores(image)[name] for name in found.names], abs=1e-5)
            assert np.allclose(found.boxes, FRACTIONS[[1, 0, 2]] * np.array([*size, *size]), atol=1e-3)
            assert np.array_equal(found.masks, MASKS[[1, 0, 2]])

    def test_nothing_found_is_empty_not_an_error(self, tiny: ModelSegmenter) -> None:
        found = tiny([flat((0, 0, 0)), flat((255, 0, 0)), flat((0, 0, 0))])
        assert [len(one) for one in found] == [0, 1, 0]
        assert found[0].masks.shape == (0, 28, 28)

    def test_what_is_nearly_one_is_none(self, tmp_path: Path) -> None:
        ours = Session(batched_model(tmp_path / "t.onnx"), "cpu", 1).signature
        assert matches(ours)
        images, sizes = ours.inputs["images"], ours.inputs["sizes"]
        for other in (
            replace(images, type="float"),
            replace(images, shape=("N", 96)),
            replace(images, shape=(*images.shape, 1)),
            replace(images, shape=("N", 3, "H", "W")),
            replace(sizes, shape=("N",)),
            Tensor("anchors", "float", (4,)),
        ):
            assert not matches(replace(ours, inputs={**ours.inputs, other.name: other}))
        for name in ours.inputs:
            assert not matches(replace(ours, inputs={key: value for key, value in ours.inputs.items() if key != name}))
        for name in ours.outputs:
            assert not matches(
                replace(ours, outputs={key: value for key, value in ours.outputs.items() if key != name})
            )

    @pytest.mark.parametrize("made_for", ["cpu", "cuda"])
    @pytest.mark.parametrize("device", ["cpu", "cuda:0"])
    def test_a_graph_for_a_cpu_is_not_for_cuda(
        self, device: str, made_for: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        session = Session(batched_model(tmp_path / "t.onnx", metadata={"labels": LABELS, "device": made_for}), "cpu")
        session.device = device
        open_batched(session, Options())
        assert [message.partition(",")[0] for message in caplog.messages] == (
            ["t.onnx is made for a CPU"] if (device, made_for) == ("cuda:0", "cpu") else []
        )

    @pytest.mark.parametrize("threshold", ["optional", "required", "absent"])
    def test_the_score_threshold_holds_however_the_graph_takes_it(self, tmp_path: Path, threshold: str) -> None:
        model = batched_model(tmp_path / "tiny.onnx", threshold=threshold)
        for least, names in ((0.5, ["green", "red"]), (0.1, ["green", "red", "blue"])):
            with load_segmenter(model, device="cpu", score_threshold=least) as segmenter:
                assert segmenter([flat((60, 200, 140))])[0].names == names

    def test_without_a_threshold_the_default_of_the_graph_holds(self, tiny: ModelSegmenter) -> None:
        just_above, just_below = (round(255 * DEFAULT_THRESHOLD) + step for step in (1, -1))
        assert tiny([flat((just_above, just_below, 0))])[0].names == ["blue"]

    def test_a_required_threshold_has_a_default(self, tmp_path: Path) -> None:
        with load_segmenter(batched_model(tmp_path / "tiny.onnx", threshold="required"), device="cpu") as segmenter:
            assert segmenter([flat((115, 140, 0))])[0].names == ["green"]

    @pytest.mark.parametrize(
        "labels", [LABELS, "red, green, blue", json.dumps(["BG", *NAMES]), json.dumps(dict(enumerate(NAMES)))]
    )
    def test_labels_are_read_from_metadata_in_each_notation(self, tmp_path: Path, labels: str) -> None:
        with load_segmenter(batched_model(tmp_path / "t.onnx", metadata={"labels": labels}), device="cpu") as segmenter:
            assert segmenter.class_names == NAMES

    @pytest.mark.parametrize(
        ("labels", "names", "slots"),
        [
            ('{"1": "person", "3": "car"}', ("person", "car"), [0, None, 1]),
            ('{"3": "car", "1": "person", "0": "background"}', ("person", "car"), [0, None, 1]),
            ('{"0": null, "1": "person", "2": "", "3": "car"}', ("person", "car"), [0, None, 1]),
            ('{"2": "c", "1": "b", "0": "a"}', ("a", "b", "c"), [0, 1, 2]),
            ('{"a": "b", "c": "d", "e": "f"}', ("b", "d", "f"), [0, 1, 2]),
            ('["background", "a", null, "b"]', ("a", "b"), [0, None, 1]),
            ('["a", "", "b"]', ("a", "b"), [0, None, 1]),
            ("background,a,,b", ("a", "b"), [0, None, 1]),
            ("a,n/a,b, ,", ("a", "b"), [0, None, 1]),
            ('"a,b,c"', ("a", "b", "c"), [0, 1, 2]),
        ],
    )
    def test_a_class_without_a_name_moves_no_other(
        self, tmp_path: Path, labels: str, names: tuple[str, ...], slots: list[int | None]
    ) -> None:
        """Labels 1, 2 and 3 are found."""
        with load_segmenter(batched_model(tmp_path / "t.onnx", metadata={"labels": labels}), device="cpu") as segmenter:
            (found,) = segmenter([flat((253, 254, 255))])
            assert segmenter.class_names == names
            assert found.class_ids.tolist() == [slot for slot in slots if slot is not None]
            assert len(found.boxes) == len(found.masks) == len(found.scores) == len(found)

    @pytest.mark.parametrize(("labels", "names"), [('"person"', ("person",)), ("7", ("7",))])
    def test_one_name_needs_no_list(self, tmp_path: Path, labels: str, names: tuple[str, ...]) -> None:
        with load_segmenter(batched_model(tmp_path / "t.onnx", metadata={"labels": labels}), device="cpu") as segmenter:
            assert segmenter.class_names == names

    @pytest.mark.parametrize("number", ["999999999", "9" * 5000])
    def test_numbers_beyond_all_reason_cost_no_memory(self, tmp_path: Path, number: str) -> None:
        model = batched_model(tmp_path / "t.onnx", metadata={"labels": json.dumps({number: "a", "1": "b"})})
        with load_segmenter(model, device="cpu") as segmenter:
            assert segmenter.class_names == ("a", "b")

    @pytest.mark.parametrize("labels", ["null", "[]", "{}", ",,", '["", null]', '{"1": "N/A"}', "[" * 100_000])
    def test_names_that_are_none_are_no_names(self, tmp_path: Path, labels: str) -> None:
        with pytest.raises(ModelError, match="names no classes"):
            load_segmenter(batched_model(tmp_path / "t.onnx", metadata={"labels": labels}), device="cpu")

    @pytest.mark.parametrize("given", [["rouge", "bleu"], ["background", "rouge", "N/A", "bleu"]])
    def test_the_user_names_the_classes_that_have_names_or_every_number(self, tmp_path: Path, given: list[str]) -> None:
        model = batched_model(tmp_path / "t.onnx", metadata={"labels": "background,red,N/A,blue"})
        with load_segmenter(model, device="cpu", labels=given) as segmenter:
            assert segmenter([flat((255, 254, 253))])[0].names == ["bleu", "rouge"]
        with pytest.raises(UsageError, match=r"1 labels were given, but .* has 2 classes"):
            load_segmenter(model, device="cpu", labels=given[-1:])

    def test_graphs_of_91_slots_have_the_80_classes_of_coco(self, tmp_path: Path) -> None:
        model = batched_model(tmp_path / "t.onnx", metadata={"labels": ",".join(COCO_LABELS)}, label=11)
        with load_segmenter(model, device="cpu") as segmenter:
            assert segmenter.class_names == COCO_NAMES
            # The labels 11, 12 and 13, of which 12 means nothing.
            assert segmenter([flat((253, 254, 255))])[0].names == ["fire hydrant", "stop sign"]
        letters = [f"n{i}" for i in range(80)]
        with load_segmenter(model, device="cpu", labels=letters) as segmenter:
            assert segmenter([flat((253, 254, 255))])[0].names == ["n10", "n11"]

    def test_labels_can_be_given_by_the_user(self, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_text("\ufeffbackground\nrouge\nvert\n\nbleu\n", "utf-8")
        model = batched_model(tmp_path / "tiny.onnx")
        with load_segmenter(model, device="cpu", labels=tmp_path / "names.txt") as segmenter:
            assert segmenter([flat((0, 0, 255))])[0].names == ["rouge"]
        nameless = batched_model(tmp_path / "nameless.onnx", metadata={})
        with load_segmenter(nameless, device="cpu", labels=str(tmp_path / "names.txt")) as segmenter:
            assert segmenter.class_names == ("rouge", "vert", "bleu")

    def test_the_canvases_come_from_the_user_then_the_metadata(self, tmp_path: Path) -> None:
        metadata = {"labels": LABELS, "canvases": "160x96,80x96", "stride": "16"}
        model = batched_model(tmp_path / "t.onnx", metadata=metadata)
        with (
            load_segmenter(model, device="cpu") as by_model,
            load_segmenter(model, device="cpu", long_side=64) as by_user,
        ):
            assert "160 px" in by_model.description
            assert "64 px" in by_user.description
            assert isinstance(by_model, BatchedSegmenter)
            assert isinstance(by_user, BatchedSegmenter)
            assert by_model.canvas_for((320, 192)) == (160, 96)
            assert by_user.canvas_for((320, 192)) == (64, 48)
            assert all(
                same(*pair) for pair in zip(by_model([photo((320, 192))]), by_user([photo((320, 192))]), strict=True)
            )

    def test_a_size_that_a_graph_cannot_take_gets_a_word(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        model = batched_model(tmp_path / "t.onnx", images=(1, 96, 160, 3))
        with caplog.at_level(logging.WARNING, "stream_seg"), load_segmenter(model, device="cpu", long_side=160):
            assert caplog.messages == []
        with caplog.at_level(logging.WARNING, "stream_seg"), load_segmenter(model, device="cpu", long_side=64) as other:
            assert caplog.messages == ["t.onnx takes pictures of 160x96 alone: another size cannot be had"]
            assert "160 px" in other.description

    @pytest.mark.parametrize(
        "junk",
        [
            {"canvases": "large", "stride": "-3", "long_side": "wide"},
            {"canvases": "0x0,64x0", "stride": "0", "long_side": "\u00b2"},
            {"canvases": "123456x64,64x123456,999999x999999", "stride": "100000", "long_side": "9" * 5000},
        ],
    )
    def test_junk_in_the_metadata_leaves_the_defaults(self, junk: dict[str, str], tmp_path: Path) -> None:
        metadata = {"labels": LABELS, **junk}
        with load_segmenter(batched_model(tmp_path / "t.onnx", metadata=metadata), device="cpu") as segmenter:
            assert "416 px" in segmenter.description

    @pytest.mark.parametrize(("precision", "furthest"), [("int8", 440), ("fp32", 436)])
    def test_the_compact_model_finds_the_cat_alone_and_among_others(self, precision: str, furthest: int) -> None:
        with load_segmenter(COMPACT.with_name(f"{precision}.onnx"), device="cpu", threads=2) as segmenter:
            (found,) = segmenter([photo((451, 300))])
            among = segmenter([flat((9, 9, 9)), photo((451, 300)), photo((320, 200))])
        assert found.names == ["cat"]
        assert found.scores[0] > 0.7
        left, top, right, bottom = found.boxes[0]
        assert (left, top, bottom) == pytest.approx((0, 0, 300), abs=15)
        assert 365 < right < furthest  # the tip of its ear is at 400
        assert [same(found, one) for one in among[:2]] == [False, True]
        assert among[2].names == ["cat"]

    @pytest.mark.parametrize("precision", ["fp32", "int8"])
    def test_a_batch_filled_up_for_cuda_finds_the_same(self, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
        session = Session(COMPACT.with_name(f"{precision}.onnx"), "cpu", threads=1)
        images = [photo((451, 300)), np.full((300, 451, 3), 9, np.uint8), photo((451, 300))]
        seen: list[int] = []
        run = session.run

        def noting(feeds: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
            seen.append(len(feeds["images"]))
            return run(feeds)

        monkeypatch.setattr(session, "run", noting)
        segmenter = BatchedSegmenter(session, Options())
        alone = [segmenter([image])[0] for image in images]
        monkeypatch.setattr(session, "batches", (1, 4))
        with BatchedSegmenter(session, Options()) as segmenter:
            segmenter.buffer((4, 288, 416, 3))[:] = 255  # what an earlier call left there
            together = segmenter(images)
        assert seen == [1, 1, 1, 4]
        assert [found.names for found in together] == [["cat"], [], ["cat"]]
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-2)
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
            np.testing.assert_allclose(one.masks, other.masks, atol=1e-3)

    def test_buffers_of_the_shapes_used_last_are_kept_and_no_others(self, tiny: ModelSegmenter) -> None:
        assert isinstance(tiny, OnnxSegmenter)
        often = tiny.buffer((1, 1, 1, 3))
        seen = [
            weakref.ref(tiny.buffer((1, side, 2, 3))) for side in range(1, 30) if tiny.buffer((1, 1, 1, 3)) is often
        ]
        assert [one() is not None for one in seen] == [False] * 22 + [True] * 7

    def test_a_light_model_gains_from_calls_at_the_same_time(self, tiny: ModelSegmenter) -> None:
        assert (tiny.max_batch, tiny.concurrency) == (1, 2)

    def test_a_call_beside_another_has_a_thread_of_its_own_and_one_alone_has_all(self, tmp_path: Path) -> None:
        sessions = Session(batched_model(tmp_path / "tiny.onnx"), "cpu", threads=2)._open()
        for _ in range(2):
            with sessions.lend({}) as alone, sessions.lend({}) as beside:
                assert [alone, beside] == sessions.ways()
                options = [one.get_session_options() for one in (alone, beside)]
                assert [one.intra_op_num_threads for one in options] == [2, 1]
                spinning = [one.get_session_config_entry("session.intra_op.allow_spinning") for one in options]
                assert spinning == ["0", "0"]

    def test_of_many_threads_no_more_are_taken_than_a_light_model_can_use(self, tmp_path: Path) -> None:
        model = batched_model(tmp_path / "tiny.onnx")
        assert Session(model, "cpu", threads=99).concurrency == session_module.MOST_WORKERS
        assert len(Session(model, "cpu", threads=1).ways) == 1

    def test_a_heavy_model_fills_all_threads_by_itself(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(session_module, "LIGHT_BYTES", 100)
        session = Session(batched_model(tmp_path / "tiny.onnx"), "cpu", threads=2)
        assert (session.concurrency, len(session.ways)) == (1, 1)


@pytest.mark.parametrize("make", [_tiny, _tiny_one_thread, _filtered])
def test_a_closed_segmenter_holds_no_session_and_says_so(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook, where the name stays after the `with` block."""
    loaded: list[weakref.ref[InferenceSession]] = []
    load = session_module._load

    def noted(*given: object) -> InferenceSession:
        session = load(*given)
        loaded.append(weakref.ref(session))
        return session

    monkeypatch.setattr(session_module, "_load", noted)
    with make(tmp_path) as segmenter:
        segmenter([photo((320, 200))] * 2)
        assert all(session() is not None for session in loaded)
    gc.collect()
    assert loaded
    assert all(session() is None for session in loaded)
    with pytest.raises(UsageError, match=r"^the segmenter of \S+\.onnx is closed: call it inside its with block$"):
        segmenter([photo((320, 200))])


FORKS = """
import os, signal, sys
import numpy as np
from stream_seg import load_segmenter

segmenter = load_segmenter(sys.argv[1], device="cpu", threads=2)
child = os.fork()
signal.alarm(10)  # nothing is left running
segmenter([np.zeros((48, 64, 3), np.uint8)])
if child:
    sys.exit(os.waitpid(child, 0)[1])
segmenter.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_process_forked_with_a_model_works_and_ends(tmp_path: Path) -> None:
    """As a worker of a server that loads its program first."""
    model = batched_model(tmp_path / "tiny.onnx")
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKS, model], check=True, timeout=20)


class TestRefusals:
    @pytest.mark.parametrize(
        ("nonsense", "message"),
        [
            ({"label": 2}, "a class beyond the 3 it has names for.*--labels"),
            ({"label": 0}, "a class beyond"),
            ({"first_index": 1}, "more images than the 1"),
            ({"first_index": -1}, "more images than the 1"),
            ({"masks": np.zeros((3, 5), np.float32)}, r"do not fit together: .*masks \(3, 5\)"),
        ],
    )
    def test_outputs_that_make_no_sense(
        self, tmp_path: Path, nonsense: dict[str, NDArray[np.float32]], message: str
    ) -> None:
        model = batched_model(tmp_path / "tiny.onnx", **nonsense)  # type: ignore[arg-type]
        with load_segmenter(model, device="cpu") as segmenter, pytest.raises(ModelError, match=message):
            segmenter([flat((255, 255, 255))])

    def test_a_model_that_fails_while_it_runs_says_so_in_one_line(self, tmp_path: Path) -> None:
        model = batched_model(tmp_path / "tiny.onnx", masks=MASKS[:1])
        with load_segmenter(model, device="cpu") as segmenter, pytest.raises(ModelError) as caught:
            segmenter([flat((255, 255, 255))])
        assert str(caught.value).startswith("the model tiny.onnx failed on cpu: ")
        assert "\n" not in str(caught.value)
        assert "onnxruntime_src" not in str(caught.value)

    def test_a_fixed_batch(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="exactly 4 images at once"):
            load_segmenter(batched_model(tmp_path / "t.onnx", images=[4, 64, 64, 3]), device="cpu")

    def test_a_model_without_class_names(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"names no classes.*--labels"):
            load_segmenter(batched_model(tmp_path / "t.onnx", metadata={}), device="cpu")

    def test_an_unknown_class_is_suggested_and_listed(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"no class 'gren' .did you mean 'green'..; it knows red, green, blue"):
            load_segmenter(batched_model(tmp_path / "t.onnx"), device="cpu", classes=["red", "gren"])

    @pytest.mark.parametrize("classes", [1, [1], np.array([1])])
    def test_a_number_is_told_the_name_of_its_class(self, tmp_path: Path, classes: object) -> None:
        with pytest.raises(UsageError, match=r"no class '1'; classes are named, and number 1, .* is 'green'; it knows"):
            load_segmenter(batched_model(tmp_path / "t.onnx"), device="cpu", classes=classes)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("labels", "wanted", "meant"),
        [
            (("person", "cow", "cat"), "cattle", "cow"),
            (("person", "bicycle", "car"), "Bikes", "bicycle"),
            (("phones", "watches", "bags"), "phone", "phones"),
        ],
    )
    def test_words_of_every_day_stand_for_the_classes_that_there_are(
        self, tmp_path: Path, labels: tuple[str, ...], wanted: str, meant: str
    ) -> None:
        with pytest.raises(UsageError, match=f"no class '{wanted}' .did you mean '{meant}'"):
            load_segmenter(batched_model(tmp_path / "t.onnx"), device="cpu", labels=labels, classes=[wanted])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"score_threshold": 1.5}, "between 0 and 1, not 1.5"),
            ({"score_threshold": float("nan")}, "between 0 and 1, not nan"),
            ({"score_threshold": "0.5"}, "a number between 0 and 1, not '0.5'"),
            ({"long_side": 8}, "64 to 4096 pixels, not 8"),
            ({"long_side": 416.0}, "must be a whole number, 64 to 4096 pixels, not 416.0"),
            ({"threads": 0}, "threads must be a whole number, 1 to 256, not 0"),
            ({"threads": 4 / 2}, "threads must be a whole number, 1 to 256, not 2.0"),
            ({"slices": 2}, r"slices are given as \(columns, rows\), as in \(3, 2\), not 2"),
            ({"slices": (2.0, 2)}, r"slices are given as .*, not \(2.0, 2\)"),
            ({"slices": (2, 2, 2)}, r"slices are given as .*, not \(2, 2, 2\)"),
            ({"slices": "2x2"}, "slices are given as .*, not '2x2'"),
            ({"labels": {0: "red", 1: "green", 2: "blue"}}, "labels are a list of names, .*; 0 is no name"),
            ({"device": "gpu"}, "auto, cpu, cuda or cuda:N, not 'gpu'"),
            ({"device": "cuda:-1"}, "not 'cuda:-1'"),
            ({"labels": Path("no/such/file")}, "labels file .* cannot be read"),
            ({"images": "photos"}, "images are 'films' or 'stills', or None for any, not 'photos'"),
            ({"images": ["stills"]}, "not .'stills'.$"),
            ({"mirror": "no"}, "mirror is True or False, or None for what suits the images, not 'no'"),
            ({"images": "films", "mirror": 1}, "not 1$"),
        ],
    )
    def test_an_option_out_of_range(self, tmp_path: Path, options: dict[str, object], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            load_segmenter(batched_model(tmp_path / "t.onnx"), **options)  # type: ignore[arg-type]

    def test_options_may_be_numbers_and_lists_of_numpy(self, tmp_path: Path) -> None:
        model, labels = batched_model(tmp_path / "t.onnx"), np.array(["a", "b", "c"])
        sizes = {"long_side": np.int64(160), "threads": np.int64(1), "slices": np.array([2, 1])}
        with load_segmenter(model, device="cpu", labels=labels, **sizes) as segmenter:  # type: ignore[arg-type]
            assert segmenter.class_names == ("a", "b", "c")
            assert "160 px; whole and in 2x1 parts" in segmenter.description

    def test_labels_are_read_from_a_path_that_is_a_string_as_well(self, tmp_path: Path) -> None:
        labels = tmp_path / "names.txt"
        labels.write_text("a\nb\n\nc\n")
        assert read_labels(str(labels)) == read_labels(labels) == ("a", "b", "c")

    def test_more_or_fewer_labels_than_the_model_has_classes(self, tmp_path: Path) -> None:
        labels = tmp_path / "names.txt"
        for names in ("ab", "abcd"):
            labels.write_text("\n".join(["background", *names]))
            words = rf"{len(names)} labels were given, but .*t\.onnx has 3 classes"
            with pytest.raises(UsageError, match=words):
                load_segmenter(batched_model(tmp_path / "t.onnx"), labels=labels)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (photo((320, 200)), r"a list of images, \[image\], got one array \(200, 320, 3\)"),
        ([None], "got NoneType"),
        (["photo.jpg"], "got str"),
        ([photo((320, 200))[..., 0]], r"got \(200, 320\) uint8"),
        ([photo((320, 200)) / 255], r"got \(200, 320, 3\) float64"),
    ],
)
def test_what_is_no_list_of_images_is_refused(images: list[Image], message: str, tiny: ModelSegmenter) -> None:
    """An only image would be taken for as many images as it has rows, and nothing be found in them."""
    with pytest.raises(ValueError, match=message):
        tiny(images)


class TestClassFilter:
    def test_only_the_classes_asked_for_pass(self, tmp_path: Path) -> None:
        model = batched_model(tmp_path / "tiny.onnx")
        with load_segmenter(model, device="cpu", classes=["Blue", " green "]) as segmenter:
            (found,) = segmenter([flat((255, 200, 220))])
            assert found.names == ["blue", "green"]
            assert found.class_names == NAMES
            assert segmenter.description.endswith("only green, blue")
        with load_segmenter(model, device="cpu", classes="blue") as segmenter:
            assert segmenter([flat((255, 200, 220))])[0].names == ["blue"]

    def test_an_empty_list_of_classes_does_not_stand_for_all(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="the list of classes is empty"):
            load_segmenter(batched_model(tmp_path / "t.onnx"), device="cpu", classes=[])

    def test_classes_that_share_a_name_all_pass(self, tmp_path: Path) -> None:
        model, labels = batched_model(tmp_path / "tiny.onnx"), tmp_path / "names.txt"
        labels.write_text("thing\nother\nthing\n")
        with load_segmenter(model, device="cpu", labels=labels, classes=["thing"]) as segmenter:
            (found,) = segmenter([flat((255, 200, 220))])
            assert found.names == ["thing", "thing"]
            assert segmenter.description.endswith("only thing")

    def test_closing_it_closes_the_one_inside(self, tmp_path: Path) -> None:
        segmenter = load_segmenter(batched_model(tmp_path / "t.onnx"), device="cpu", threads=2, classes=["red"])
        segmenter([flat((0, 0, 255))] * 2)
        segmenter.close()
