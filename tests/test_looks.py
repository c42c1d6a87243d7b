"""Several looks at one image: which are taken, and what of their finds remains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from stream_seg.agreement import united
from stream_seg.cli.arguments import _eval_parser
from stream_seg.detections import Detections
from stream_seg.errors import UsageError
from stream_seg.frame import Image
from stream_seg.segmenters import ModelSegmenter, load_segmenter
from stream_seg.segmenters.batched import BatchedSegmenter
from stream_seg.segmenters.looks import BothWays, Sliced, TwoLooks
from stream_seg.segmenters.onnx_segmenter import Options
from stream_seg.segmenters.session import Session
from tests.tiny_models import LABELS, batched_model

ROOT = Path(__file__).parent.parent
COMPACT = ROOT / "models" / "compact" / "int8.onnx"

NAMES = ("person", "dog")


def found(*objects: tuple[tuple[float, float, float, float], float, int], cells: int = 28) -> Detections:
    """Of (box, score, class): masks say which it was, from 0.1 on."""
    boxes, scores, classes = zip(*objects, strict=True) if objects else ((), (), ())
    masks = [np.full((cells, cells), 0.1 * number, np.float32) for number in range(1, len(objects) + 1)]
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(classes, np.int64),
        np.array(masks, np.float32).reshape(-1, cells, cells),
        NAMES,
    )


class TestUnited:
    def test_of_two_looks_at_one_object_the_likelier_remains_as_it_is(self) -> None:
        close = found(((10, 10, 50, 90), 0.6, 0))
        afar = found(((12, 8, 50, 90), 0.8, 0))
        for looks in ((close, afar), (afar, close)):
            one = united(looks)
            assert one.boxes.tolist() == afar.boxes.tolist()
            assert one.scores.tolist() == afar.scores.tolist()

    def test_what_only_one_look_sees_is_there_best_first(self) -> None:
        both = united([found(((0, 0, 9, 9), 0.6, 0)), found(((50, 50, 90, 90), 0.9, 1), ((30, 0, 39, 9), 0.5, 0))])
        assert both.scores == pytest.approx([0.9, 0.6, 0.5])
        assert both.names == ["dog", "person", "person"]
        assert both.masks[:, 0, 0] == pytest.approx([0.1, 0.1, 0.2])

    def test_another_class_and_little_overlap_are_other_objects(self) -> None:
        one = ((0, 0, 40, 40), 0.7, 0)
        for other in (((0, 0, 40, 40), 0.6, 1), ((0, 0, 40, 20), 0.6, 0), ((41, 0, 80, 40), 0.6, 0)):
            assert len(united([found(one), found(other)])) == 2
        assert len(united([found(one), found(((0, 0, 40, 21), 0.6, 0))])) == 1

    def test_what_overlaps_within_a_look_is_the_models_say(self) -> None:
        crowd = found(((0, 0, 40, 40), 0.7, 0), ((2, 0, 42, 40), 0.6, 0))
        assert len(united([crowd, found(((90, 90, 99, 99), 0.5, 0))])) == 3
        assert united([crowd, found(((3, 0, 43, 40), 0.9, 0))]).scores == pytest.approx([0.9])

    def test_what_has_lost_takes_nothing_with_it(self) -> None:
        """Of three in a row the middle one is the first's, and the last is an object of its own."""
        left, middle, right = ((0, 0, 40, 40), 0.9, 0), ((12, 0, 52, 40), 0.8, 0), ((24, 0, 64, 40), 0.7, 0)
        assert united([found(left, right), found(middle)]).scores == pytest.approx([0.9, 0.7])

    def test_looks_that_found_nothing_change_nothing(self) -> None:
        one = found(((0, 0, 40, 40), 0.7, 0))
        for looks in ([one, found()], [found(), one], [found(), one, found()]):
            assert united(looks) is one
        assert len(united([found(), found()])) == 0

    def test_masks_of_several_sizes_come_on_the_finest_grid(self) -> None:
        both = united([found(((0, 0, 40, 40), 0.7, 0), cells=28), found(((50, 0, 90, 40), 0.6, 0), cells=56)])
        assert both.masks.shape == (2, 56, 56)
        assert both.masks == pytest.approx(np.full((2, 56, 56), 0.1))


class TestTwoLooks:
    @pytest.mark.parametrize(
        ("metadata", "long_side", "twice"),
        [
            ({"overview": "64"}, 96, True),
            ({"overview": "65"}, 96, False),
            ({"overview": "64"}, None, True),
            ({"overview": "999"}, None, False),
            ({"overview": "64", "canvases": "96x64,64x96"}, None, True),
            ({"overview": "64", "canvases": "64x64"}, None, False),
            ({"overview": "0"}, 640, False),
            ({"overview": "wide"}, 640, False),
            ({}, 640, False),
        ],
    )
    def test_a_model_says_from_where_on_it_looks_twice(
        self, tmp_path: Path, metadata: dict[str, str], long_side: int | None, twice: bool
    ) -> None:
        model = batched_model(tmp_path / "tiny.onnx", metadata={"labels": LABELS, **metadata})
        with load_segmenter(model, device="cpu", long_side=long_side) as segmenter:
            assert isinstance(segmenter, TwoLooks) == twice
            assert ("once more at 64 px" in segmenter.description) == twice
            (seen,) = segmenter([np.full((90, 160, 3), (100, 250, 200), np.uint8)])
            assert seen.names == ["green", "red", "blue"]

    def test_a_graph_of_one_size_looks_once(self, tmp_path: Path) -> None:
        model = batched_model(
            tmp_path / "tiny.onnx", images=["N", 96, 128, 3], metadata={"labels": LABELS, "overview": "64"}
        )
        with load_segmenter(model, device="cpu") as segmenter:
            assert isinstance(segmenter, BatchedSegmenter)

    def test_the_built_in_model_sees_what_fills_a_large_picture(self) -> None:
        picture = cv2.imread(str(ROOT / "samples" / "photo.jpg"))
        assert picture is not None
        cat = picture[230:580, 646:1160]
        with BatchedSegmenter(Session(COMPACT, "cpu", 1), Options(long_side=640)) as segmenter:
            (once,) = segmenter([cat])
        with load_segmenter(COMPACT, device="cpu", threads=1, long_side=640) as segmenter:
            (twice,) = segmenter([cat])
        assert once.names == twice.names == ["cat"]
        assert twice.scores[0] > once.scores[0] + 0.2
        widths = [float(one.boxes[0, 2] - one.boxes[0, 0]) for one in (once, twice)]
        assert widths[1] > widths[0] + 50  # the whole cat


def test_photos_are_looked_at_as_the_help_of_eval_says() -> None:
    with (
        load_segmenter(COMPACT, device="cpu", threads=1, images="stills") as photos,
        load_segmenter(COMPACT, device="cpu", threads=1, long_side=640, mirror=True) as asked_for,
        load_segmenter(COMPACT, device="cpu", threads=1) as by_default,
    ):
        assert photos.description == asked_for.description
        assert "mirrored" not in by_default.description
    said = " ".join(_eval_parser().format_help().split())
    assert "not the default here: --mirror --size 640 is how the built-in model looks at photos" in said


class _Bright(ModelSegmenter):
    """Finds a box around what is bright, of all that it is shown."""

    class_names = NAMES
    max_batch = 8
    description = "bright things"

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        self.seen += [(image.shape[1], image.shape[0]) for image in images]
        return [self._find(image) for image in images]

    @staticmethod
    def _find(image: Image) -> Detections:
        rows, columns = np.nonzero(image[:, :, 0] > 128)
        if not rows.size:
            return found()
        x1, y1, x2, y2 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        return found(((x1, y1, x2, y2), 0.5 + 0.4 * image.shape[1] / 1000, 0))


@pytest.mark.parametrize(
    ("looks", "expected", "models"),
    [
        (lambda inner: TwoLooks(inner, inner), [((100, 60), 3)] * 2, 2),
        (lambda inner: BothWays(inner, 0.5), [((100, 60), 6)], 1),
        (lambda inner: Sliced(inner, 2, 1), [((100, 60), 9), ((56, 60), 9)], 1),
    ],
)
def test_all_looks_are_warmed_up_with_as_many_images_as_they_take_and_closed(
    looks: Callable[[Any], ModelSegmenter], expected: list[tuple[tuple[int, int], int]], models: int
) -> None:
    class Warm(_Bright):
        long_side = 64

        def warm_up(self, size: tuple[int, int], max_batch: int | None = None) -> None:
            warmed.append((size, max_batch))

        def close(self) -> None:
            closed.append(self)

    closed: list[ModelSegmenter] = []
    warmed: list[tuple[tuple[int, int], int | None]] = []
    with looks(Warm()) as several:
        several.warm_up((100, 60), 3)
    assert (warmed, len(closed)) == (expected, models)


class TestSliced:
    @pytest.mark.parametrize("slices", [(2, 2), (3, 1), (1, 2), (8, 8)])
    @pytest.mark.parametrize("size", [(1000, 600), (333, 77), (64, 64)])
    def test_parts_are_of_one_size_overlap_and_cover_all(self, slices: tuple[int, int], size: tuple[int, int]) -> None:
        """A point anywhere is seen, where it is."""
        inner = _Bright()
        sliced = Sliced(inner, *slices)
        for x, y in ((0, 0), (size[0] - 2, size[1] - 2), (size[0] // 2, size[1] // 2), (size[0] // 3, size[1] // 3)):
            image = np.zeros((size[1], size[0], 3), np.uint8)
            image[y : y + 2, x : x + 2] = 255
            inner.seen.clear()
            (seen,) = sliced([image])
            assert len(seen) == 1
            assert seen.boxes[0].tolist() == [x, y, x + 2, y + 2]
            assert inner.seen[0] == size
            assert len(inner.seen) == 1 + slices[0] * slices[1]
            widths, heights = zip(*inner.seen[1:], strict=True)
            assert max(widths) - min(widths) <= 1
            assert max(heights) - min(heights) <= 1
            least = size[0] / slices[0], size[1] / slices[1]
            assert min(widths) > least[0] if slices[0] > 1 else min(widths) == size[0]
            assert min(heights) > least[1] if slices[1] > 1 else min(heights) == size[1]

    def test_what_parts_cut_counts_as_the_whole_sees_it(self) -> None:
        image = np.zeros((600, 1000, 3), np.uint8)
        image[100:500, 300:700] = 255
        (seen,) = Sliced(_Bright(), 2, 2)([image])
        assert seen.boxes.tolist() == [[300, 100, 700, 500]]

    def test_what_ends_with_the_image_is_not_cut(self) -> None:
        class OnlyParts(_Bright):
            def __call__(self, images: Sequence[Image]) -> list[Detections]:
                return [found(), *super().__call__(images[1:])]

        for x, y in ((900, 550), (0, 0)):
            image = np.zeros((600, 1000, 3), np.uint8)
            image[y : y + 50, x : x + 100] = 255
            (seen,) = Sliced(OnlyParts(), 2, 2)([image])
            assert seen.boxes.tolist() == [[x, y, x + 100, y + 50]]

    def test_images_of_one_call_keep_to_themselves(self) -> None:
        images = [np.zeros((60, 100, 3), np.uint8) for _ in range(3)]
        images[0][10:20, 10:20] = images[2][40:50, 80:90] = 255
        first, second, third = Sliced(_Bright(), 2, 1)(images)
        assert first.boxes.tolist() == [[10, 10, 20, 20]]
        assert len(second) == 0
        assert third.boxes.tolist() == [[80, 40, 90, 50]]
        assert Sliced(_Bright(), 2, 1)([]) == []

    def test_a_batch_is_as_many_images_as_their_looks_fill(self) -> None:
        assert Sliced(_Bright(), 2, 1).max_batch == 2
        assert Sliced(_Bright(), 3, 3).max_batch == 1
        assert Sliced(_Bright(), 3, 2).description == "bright things; whole and in 3x2 parts"

    @pytest.mark.parametrize("slices", [(1, 1), (0, 2), (9, 1), (2, -1)])
    def test_numbers_that_make_no_parts_are_refused(self, slices: tuple[int, int]) -> None:
        with pytest.raises(UsageError, match="slices must be 2x1, 1x2 or more, up to 8x8, not"):
            load_segmenter(COMPACT, device="cpu", slices=slices)

    def test_small_things_are_found_that_one_look_misses(self) -> None:
        picture = cv2.imread(str(ROOT / "samples" / "photo.jpg"))
        assert picture is not None
        small = cv2.copyMakeBorder(picture, 0, 2160 - 720, 0, 3840 - 1280, cv2.BORDER_CONSTANT, value=(90, 120, 90))
        with load_segmenter(COMPACT, device="cpu", threads=1, long_side=320) as segmenter:
            once = segmenter([small])[0].names
        with load_segmenter(COMPACT, device="cpu", threads=1, long_side=320, slices=(3, 3)) as segmenter:
            sliced = segmenter([small])[0].names
        assert "cat" not in once
        assert sorted(sliced) == ["cat", "person"]
