"""Average precision against figures worked out by hand on pictures that hold two rectangles."""

from __future__ import annotations

import json
import math
import struct
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stream_seg.detections import Detections
from stream_seg.errors import SourceError, StreamSegError, UsageError
from stream_seg.evaluate import Result, check, evaluate, read_annotated
from stream_seg.frame import Image
from stream_seg.ground_truth import read_document, read_ground_truth, run_lengths
from stream_seg.segmenters import FunctionSegmenter
from tests.test_sources_images import with_orientation

Box = tuple[float, float, float, float]

LEFT: Box = (4, 4, 60, 60)
RIGHT: Box = (64, 20, 120, 76)
FULL = np.ones((28, 28), np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.full((80, 128, 3), 127 if name == "a.png" else 0, np.uint8))
    return tmp_path


def rectangle(box: Box) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def annotation(box: Box, *, image: int = 1, category: int = 1, crowd: bool = False) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    found: dict[str, Any] = {"image_id": image, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1]}
    if not crowd:
        return {**found, "segmentation": [rectangle(box)]}
    mask = np.zeros((80, 128), np.uint8, order="F")
    mask[int(y1) : int(y2), int(x1) : int(x2)] = 1
    edges = np.flatnonzero(np.diff(np.r_[0, mask.T.ravel(), 0])).tolist()
    counts = np.diff([0, *edges, mask.size]).tolist()
    return {**found, "iscrowd": 1, "segmentation": runs(counts)}


def runs(counts: list[int] | str) -> dict[str, Any]:
    return {"size": [80, 128], "counts": counts}


def truth(folder: Path, *annotations: dict[str, Any], names: Sequence[str] = ("person",)) -> Path:
    path = folder / "instances.json"
    images = [{"id": i, "file_name": name, "width": 128, "height": 80} for i, name in ((1, "a.png"), (2, "b.png"))]
    categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
    return path


def finder(
    *found: tuple[Box, float], names: Sequence[str] = ("person",), mask: NDArray[np.float32] = FULL
) -> FunctionSegmenter:
    """Finds the same in every picture that is not black, best first, all of the first class."""

    def find(image: Image) -> Detections:
        if not image.any():
            return Detections.none(tuple(names))
        return Detections(
            np.array([box for box, _ in found], np.float32).reshape(-1, 4),
            np.array([score for _, score in found], np.float32),
            np.zeros(len(found), np.int64),
            np.stack([mask] * len(found)) if found else np.zeros((0, 28, 28), np.float32),
            tuple(names),
        )

    return FunctionSegmenter(find, names)


def figures(result: Result) -> tuple[float, float, float, float]:
    return (result.mean.box_ap, result.mean.box_ap50, result.mean.mask_ap, result.mean.mask_ap50)


BOTH = (annotation(LEFT), annotation(RIGHT))


def test_everything_found_is_a_hundred(folder: Path) -> None:
    result = evaluate(finder((LEFT, 0.9), (RIGHT, 0.8)), str(folder), str(truth(folder, *BOTH)))  # or paths, as below
    assert figures(result) == pytest.approx((100, 100, 100, 100))
    assert (result.images, result.mean.objects) == (2, 2)


def test_half_found_is_half_the_recall_levels(folder: Path) -> None:
    """Precision is 1 at the 51 of COCO's 101 recall levels that reach 0.5."""
    result = evaluate(finder((LEFT, 0.9)), folder, truth(folder, *BOTH))
    assert figures(result) == pytest.approx([5100 / 101] * 4)


@pytest.mark.parametrize(
    "broken", [((math.nan,) * 4, 0.9), ((4, 4, 60, math.nan), 0.9), ((0, 0, math.inf, math.inf), 0.9), (LEFT, math.nan)]
)
def test_what_a_broken_model_finds_nowhere_is_not_right(folder: Path, broken: tuple[Box, float]) -> None:
    alone = evaluate(finder(broken), folder, truth(folder, annotation(LEFT)))
    assert (*figures(alone), alone.shown.boxes, alone.shown.recall) == (0, 0, 0, 0, 0, 0)
    beside = evaluate(finder(broken, (LEFT, 0.8)), folder, truth(folder, annotation(LEFT)))
    assert (*figures(beside), beside.shown.boxes) == pytest.approx((100, 100, 100, 100, 1))


def test_a_better_scored_mistake_halves_the_precision(folder: Path) -> None:
    result = evaluate(finder((RIGHT, 0.9), (LEFT, 0.8)), folder, truth(folder, annotation(LEFT)))
    assert figures(result) == pytest.approx([50] * 4)


def test_a_worse_scored_mistake_costs_nothing(folder: Path) -> None:
    result = evaluate(finder((LEFT, 0.9), (RIGHT, 0.8)), folder, truth(folder, annotation(LEFT)))
    assert figures(result) == pytest.approx([100] * 4)


def test_a_loose_box_counts_up_to_its_overlap(folder: Path) -> None:
    """40 of 56 columns: IoU 0.714, enough for 5 of the 10 thresholds. The mask follows the box."""
    result = evaluate(finder(((4, 4, 44, 60), 0.9)), folder, truth(folder, annotation(LEFT)))
    assert figures(result) == pytest.approx((50, 100, 50, 100))
    looser = evaluate(finder(((4, 4, 34, 60), 0.9)), folder, truth(folder, annotation(LEFT)))  # 0.536
    assert figures(looser) == pytest.approx((10, 100, 10, 100))


def test_masks_are_judged_apart_from_boxes(folder: Path) -> None:
    """The box is right and 20 of the mask's 28 columns are set: 40 of 56 pixels again."""
    mask = FULL.copy()
    mask[:, 20:] = 0
    result = evaluate(finder((LEFT, 0.9), mask=mask), folder, truth(folder, annotation(LEFT)))
    assert figures(result) == pytest.approx((100, 100, 50, 100))


def test_nothing_found_is_zero(folder: Path) -> None:
    result = evaluate(finder(), folder, truth(folder, *BOTH))
    assert figures(result) == (0, 0, 0, 0)
    assert result.fps > 0


def test_what_is_found_in_a_crowd_is_neither_right_nor_wrong(folder: Path) -> None:
    crowd = annotation(RIGHT, crowd=True)
    result = evaluate(finder((RIGHT, 0.9), (LEFT, 0.8)), folder, truth(folder, annotation(LEFT), crowd))
    assert figures(result) == pytest.approx([100] * 4)
    assert result.mean.objects == 1
    assert (result.shown.boxes, result.shown.precision, result.shown.recall) == (1, 100, 100)


def test_the_mean_is_over_the_classes_that_occur(folder: Path) -> None:
    path = truth(folder, annotation(LEFT), annotation(RIGHT, category=2), names=("person", "dog", "cat"))
    result = evaluate(finder((LEFT, 0.9), names=("person", "dog", "cat")), folder, path)
    assert [(c.name, c.box_ap) for c in result.classes] == [("person", pytest.approx(100)), ("dog", 0)]
    assert result.mean.box_ap == pytest.approx(50)
    assert result.mean.name == "mean of 2"


@pytest.mark.parametrize(
    ("found", "shown_above", "boxes", "precision", "recall"),
    [
        ([(LEFT, 0.9), (RIGHT, 0.3)], 0.4, 1, 100, 50),
        ([(LEFT, 0.9), (RIGHT, 0.3)], 0.2, 2, 100, 100),
        ([(LEFT, 0.75), (RIGHT, 0.5)], 0.5, 1, 100, 50),  # what is just as high is not shown in a window either
        ([((4, 4, 44, 60), 0.9)], 0.4, 1, 100, 50),  # IoU 0.714
        ([((4, 4, 28, 60), 0.9)], 0.4, 1, 0, 0),  # IoU 0.429
        ([(LEFT, 0.9), (LEFT, 0.8), (RIGHT, 0.7)], 0.4, 3, 200 / 3, 100),
        ([((4, 4, 44, 60), 0.9), (LEFT, 0.3)], 0.4, 1, 100, 50),  # a better one that is not shown takes nothing
        ([(LEFT, 0.3)], 0.4, 0, np.nan, 0),
    ],
)
def test_precision_and_recall_are_of_what_is_shown(
    folder: Path, found: list[tuple[Box, float]], shown_above: float, boxes: int, precision: float, recall: float
) -> None:
    result = evaluate(finder(*found), folder, truth(folder, *BOTH), shown_above=shown_above)
    assert (result.shown.score_threshold, result.shown.boxes) == (shown_above, boxes)
    for figure in (result.shown, result.mean, result.classes[0]):
        assert (figure.precision, figure.recall) == pytest.approx((precision, recall), nan_ok=True)


def test_what_is_shown_is_told_of_all_classes_together_and_of_each(folder: Path) -> None:
    path = truth(folder, *BOTH, annotation(LEFT, category=2), names=("person", "dog"))
    result = evaluate(finder((LEFT, 0.9), names=("person", "dog")), folder, path)
    assert [c.precision for c in result.classes] == pytest.approx([100, np.nan], nan_ok=True)
    assert [c.recall for c in result.classes] == [50, 0]
    assert (result.mean.precision, result.mean.recall) == pytest.approx((100, 25))
    assert (result.shown.boxes, result.shown.precision, result.shown.recall) == (1, 100, pytest.approx(100 / 3))


def test_where_nothing_is_shown_no_share_of_it_is_told(folder: Path) -> None:
    result = evaluate(finder((LEFT, 0.3)), folder, truth(folder, *BOTH))
    assert "above a score of 0.5: boxes 0, objects found 0.0 %" in str(result).splitlines()
    assert json.loads(result.to_json())["shown"]["precision"] is None


def test_a_class_that_no_picture_has_is_shown_in_vain(folder: Path) -> None:
    path = truth(folder, annotation(LEFT, category=2), names=("person", "dog"))
    result = evaluate(finder((LEFT, 0.9), names=("person", "dog")), folder, path)
    assert [c.name for c in result.classes] == ["dog"]
    assert (result.shown.boxes, result.shown.precision, result.shown.recall) == (1, 0, 0)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("tvmonitor", "tv"),
        ("sofa", "couch"),
        ("diningtable", "dining table"),
        ("Dining_Table", "dining table"),
        ("motorbike", "motorcycle"),
        ("aeroplane", "airplane"),
        ("pottedplant", "potted plant"),
        ("PERSON", "person"),
    ],
)
def test_classes_are_matched_by_their_names(folder: Path, ours: str, theirs: str) -> None:
    for one, other in ((ours, theirs), (theirs, ours)):
        path = truth(folder, annotation(LEFT, category=2), names=("zebra", other))
        result = evaluate(finder((LEFT, 0.9), names=(one, "unicorn")), folder, path)
        assert result.mean.box_ap == pytest.approx(100)
        assert (result.unknown_to_model, result.not_annotated) == (("zebra",), ("unicorn",))


@pytest.mark.parametrize(
    "names",
    [
        ("หมู", "หมี"),  # pig and bear in Thai: only the vowel, a mark, differs
        ("किला", "कील"),  # fort and nail in Hindi
        ("1.5 mm", "15 mm"),
        ("C", "C++"),
        ("+", "-"),
        ("tv", "tvmonitor"),
        ("A", "a"),
    ],
)
def test_classes_that_differ_in_little_stay_apart(folder: Path, names: tuple[str, str]) -> None:
    one, other = names
    path = truth(folder, annotation(LEFT), annotation(RIGHT, category=2), names=(other, one))
    result = evaluate(finder((RIGHT, 0.9), names=names), folder, path)
    assert [(c.name, c.box_ap) for c in result.classes] == [(other, 0), (one, pytest.approx(100))]
    assert (result.unknown_to_model, result.not_annotated) == ((), ())


@pytest.mark.parametrize(("ours", "theirs"), [("1.5 mm", "15 mm"), ("C", "C++"), ("A-", "A"), ("+", "-")])
def test_another_class_is_no_other_spelling(folder: Path, ours: str, theirs: str) -> None:
    path = truth(folder, annotation(LEFT), names=("person", theirs))
    result = evaluate(finder((LEFT, 0.9), names=("person", ours)), folder, path)
    assert (result.unknown_to_model, result.not_annotated) == ((theirs,), (ours,))


def test_of_several_spellings_none_is_guessed(folder: Path) -> None:
    path = truth(folder, annotation(LEFT), names=("person", "hot dog"))
    result = evaluate(finder((LEFT, 0.9), names=("person", "Hot-Dog", "hot_dog")), folder, path)
    assert (result.unknown_to_model, result.not_annotated) == (("hot dog",), ("Hot-Dog", "hot_dog"))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(("tv",), ("tv", "TV")), (("tv", "TV"), ("tv",)), (("tv", "hot_dog"), ("tv", "hot dog", "Hot-Dog"))],
)
def test_what_is_spelt_the_same_is_no_other_ones_partner(
    folder: Path, ours: tuple[str, ...], theirs: tuple[str, ...]
) -> None:
    result = evaluate(finder((LEFT, 0.9), names=ours), folder, truth(folder, annotation(LEFT), names=theirs))
    assert result.mean.box_ap == pytest.approx(100)
    assert (result.unknown_to_model, result.not_annotated) == (theirs[1:], ours[1:])


def test_letters_with_accents_are_the_same_however_they_are_written(folder: Path) -> None:
    path = truth(folder, annotation(LEFT), names=("v\u00e9lo",))
    result = evaluate(finder((LEFT, 0.9), names=("Ve\u0301lo",)), folder, path)
    assert result.mean.box_ap == pytest.approx(100)


def test_a_picture_of_more_pixels_than_opencv_takes_is_named(folder: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 30_000, 8, 2, 0, 0, 0))
    path = truth(folder, *BOTH)
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(9))))
    with pytest.raises(SourceError, match=r"a\.png is damaged, too large or of an unknown format"):
        evaluate(finder(), folder, path)


def test_classes_that_only_one_side_knows_change_nothing(folder: Path) -> None:
    """The model's second detection is a unicorn; the picture also shows a zebra."""

    def find(image: Image) -> Detections:
        boxes, scores = np.array([RIGHT, LEFT], np.float32), np.array([0.9, 0.8], np.float32)
        return Detections(boxes, scores, np.array([0, 1]), np.stack([FULL] * 2), ("unicorn", "person"))

    path = truth(folder, annotation(LEFT), annotation(RIGHT, category=2), names=("person", "zebra"))
    result = evaluate(FunctionSegmenter(find, ("unicorn", "person")), folder, path, limit=1)
    assert figures(result) == pytest.approx([100] * 4)


def test_a_limit_takes_the_first_images_only(folder: Path) -> None:
    path = truth(folder, annotation(LEFT), annotation(LEFT, image=2))
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "images": document["images"][::-1]}))  # the first by their ids
    assert evaluate(finder((LEFT, 0.9)), folder, path, limit=1).mean.box_ap == pytest.approx(100)
    assert evaluate(finder((LEFT, 0.9)), folder, path).mean.box_ap == pytest.approx(5100 / 101)


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_images_go_through_in_batches_and_progress_counts_them(folder: Path, batch: int) -> None:
    sizes: list[int] = []
    segmenter = finder((LEFT, 0.9), (RIGHT, 0.8))

    class Counting(FunctionSegmenter):
        def __call__(self, images: Sequence[Image]) -> list[Detections]:
            sizes.append(len(images))
            return segmenter(images)

    seen: list[tuple[int, int]] = []
    counting = Counting(lambda image: Detections.none(("person",)), ("person",), max_batch=batch)
    result = evaluate(counting, folder, truth(folder, *BOTH), progress=lambda done, total: seen.append((done, total)))
    assert figures(result) == pytest.approx([100] * 4)
    assert sizes == {1: [1, 1, 1], 2: [1, 2], 8: [1, 2]}[batch]
    assert seen[-1] == (2, 2)


def test_nothing_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(finder((LEFT, 0.9)), folder, truth(folder, *BOTH))
    assert capsys.readouterr() == ("", "")


def test_the_result_reads_as_json_and_as_a_table(folder: Path) -> None:
    result = evaluate(finder((LEFT, 0.9), names=("person", "unicorn")), folder, truth(folder, annotation(LEFT)))
    data = json.loads(result.to_json())
    assert data["mean"]["mask_ap"] == pytest.approx(100)
    assert data["classes"][0]["name"] == "person"
    assert data["not_annotated"] == ["unicorn"]
    lines = str(result).splitlines()
    assert lines[0].split() == ["class", "objects", "box", "AP", "AP50", "mask", "AP", "AP50", "precision", "recall"]
    assert lines[1].split() == ["person", "1", "100.0", "100.0", "100.0", "100.0", "100.0", "100.0"]
    assert len({len(line) for line in lines[:3]}) == 1
    assert lines[4] == "above a score of 0.5: boxes 1, right 100.0 % (IoU 0.50), objects found 100.0 %"
    assert lines[-1] == "not scored, not annotated: unicorn"
    assert len([line for line in lines if line.startswith("not scored")]) == 1


def test_no_class_in_common_is_said(folder: Path) -> None:
    with pytest.raises(UsageError, match="no class in common: it knows unicorn; annotated are person"):
        evaluate(finder(names=("unicorn",)), folder, truth(folder, *BOTH))


def test_what_is_found_in_one_picture_is_not_taken_for_that_of_another(folder: Path) -> None:
    cv2.imwrite(str(folder / "b.png"), np.full((80, 128, 3), 200, np.uint8))
    slowly = finder((LEFT, 0.9))

    class Slow(FunctionSegmenter):
        def __call__(self, images: Sequence[Image]) -> list[Detections]:
            time.sleep(0.01)
            return slowly(images)

    path = truth(folder, annotation(LEFT), annotation(LEFT, image=2))
    result = evaluate(Slow(lambda image: Detections.none(()), ("person",)), folder, path)
    assert figures(result) == pytest.approx([100] * 4)
    assert result.fps < 100  # both count


def test_images_without_any_object_to_find_are_refused(folder: Path) -> None:
    seen: list[int] = []
    with pytest.raises(SourceError, match="none of the images shows an annotated object"):
        evaluate(finder((LEFT, 0.9)), folder, truth(folder), progress=lambda done, _total: seen.append(done))
    assert not seen  # looking at all of them may take hours


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("[]", "not a JSON object"),
        ("{", "not a COCO instances file"),
        ('{"images": []}', "no list 'categories'"),
        ('{"images": [{"id": 1}], "categories": [], "annotations": []}', "'images' has no 'file_name'"),
        (
            '{"images": [], "categories": [], "annotations": [{"image_id": 1, "category_id": 1}]}',
            "'annotations' has no 'bbox'",
        ),
        ('{"images": [1], "categories": [], "annotations": []}', "'images' is not a JSON object"),
        (
            '{"images": [{"id": "a", "file_name": "a", "width": 1, "height": 1}], "categories": [], "annotations": []}',
            "'images' has the id \"a\"",
        ),
        (
            '{"images": [{"id": 1, "file_name": "a", "width": 1, "height": 1, "upright": 0}], "categories": [], '
            '"annotations": []}',
            "'images' has 0 as upright, not true or false",
        ),
        (
            r'{"images": [{"id": 1, "file_name": "a\u0000", "width": 1, "height": 1}], "categories": [], '
            '"annotations": []}',
            r"'images' has the file_name \"a\\u0000\"",
        ),
        (
            r'{"images": [{"id": 1, "file_name": "a\ud800", "width": 1, "height": 1}], "categories": [], '
            '"annotations": []}',
            r"'images' has the file_name \"a\\ud800\"",
        ),
        ('{"images": [], "categories": [{"id": 1, "name": 5}], "annotations": []}', "'categories' has the name 5"),
        ('{"images": [], "categories": [{"id": 1, "name": "person"}], "annotations": []}', "no images to score"),
    ],
)
def test_annotations_that_cannot_be_used_are_refused(folder: Path, body: str, said: str) -> None:
    path = folder / "instances.json"
    path.write_text(body)
    with pytest.raises(SourceError, match=said) as caught:
        evaluate(finder(), folder, path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("images", {"id": 1}, r"two of its 'images' have the id 1: number those of merged files anew"),
        ("categories", {"id": 1}, r"two of its 'categories' have the id 1: number those of merged files anew"),
        ("categories", {"name": "person"}, r"two of its 'categories' have the name \"person\": make them one"),
    ],
)
def test_entries_that_cannot_be_told_apart_are_refused(
    folder: Path, part: str, change: dict[str, Any], said: str
) -> None:
    path = truth(folder, *BOTH, annotation(LEFT, category=2), names=("person", "dog"))
    document = json.loads(path.read_text())
    document[part][1] |= change
    path.write_text(json.dumps(document))
    with pytest.raises(SourceError, match=said):
        evaluate(finder((LEFT, 0.9)), folder, path)


def test_annotations_of_categories_that_are_not_listed_are_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = truth(folder, *BOTH, annotation(LEFT, category=7), annotation(LEFT, category=8))
    assert figures(evaluate(finder((LEFT, 0.9), (RIGHT, 0.8)), folder, path)) == pytest.approx((100, 100, 100, 100))
    assert caplog.messages == [f"left out 2 of 4 annotations: {path} has no category of their category_id"]


def test_of_categories_of_one_name_that_no_object_has_one_is_left(folder: Path) -> None:
    path = truth(folder, *BOTH, names=("person", "dog", "dog"))
    document = json.loads(path.read_text())
    document["images"][0]["exhaustive"] = [1, 2, 3]
    path.write_text(json.dumps(document))
    assert [one["id"] for one in read_document(path)["categories"]] == [1, 3]
    assert read_document(path)["images"][0]["exhaustive"] == [1, 3]
    assert figures(evaluate(finder((LEFT, 0.9), (RIGHT, 0.8)), folder, path)) == pytest.approx((100, 100, 100, 100))


def test_a_category_that_no_object_has_may_have_the_name_of_another(folder: Path) -> None:
    path = truth(folder, *BOTH, names=("person", "person"))
    result = evaluate(finder((LEFT, 0.9), (RIGHT, 0.8)), folder, path)
    assert [(one.name, one.objects) for one in result.classes] == [("person", 2)]
    assert figures(result) == pytest.approx((100, 100, 100, 100))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"iscrowd": "0"}, r"'annotations' has \"0\" as iscrowd, not 0 or 1"),
        ({"mask_valid": "false"}, r"'annotations' has \"false\" as mask_valid, not 0 or 1"),
        ({"bbox": [4, 4, 56]}, r"'annotations' has the bbox \[4, 4, 56\]"),
        ({"segmentation": [[4, 4]]}, r"a segmentation cannot be read: \[\[4, 4\]\]"),
        ({"segmentation": [["x", 4, 5, 5, 4, 6]]}, r'a segmentation cannot be read: \[\["x", 4, 5, 5, 4, 6\]\]'),
        ({"segmentation": [4, 4, 5, 5, 4, 6]}, r"a segmentation cannot be read: \[4, 4, 5, 5, 4, 6\]"),
        (
            {"segmentation": [[[4, 4], [60, 4], [60, 60], [4, 60]]]},
            r"a segmentation cannot be read: \[\[\[4, 4\], \[60, 4",
        ),
        ({"segmentation": [[[4, 4]], [[60, 4]], [[60, 60]]]}, r"a segmentation cannot be read: \[\[\[4, 4\]\], "),
        ({"segmentation": {"counts": [10240]}}, r"has the size null in an image of \[80, 128\]"),
        ({"segmentation": {"size": [80, 128]}}, "a segmentation cannot be read"),
        ({"bbox": [math.nan, 4, 56, 56]}, r"'annotations' has the bbox \[NaN, 4, 56, 56\]"),
        ({"bbox": [4, 4, 10**400, 56]}, r"'annotations' has the bbox \[4, 4, 10000"),
        (
            {"segmentation": [[4, 4, math.nan, 4, 4, 60]]},
            "image 1 is damaged; mend it or leave .*: a segmentation cannot be read",
        ),
        ({"segmentation": [[4, 4, -1e8, 4, 4, 60]]}, "a segmentation cannot be read"),
        (
            {"segmentation": [[4, 4, 4, 60, 60, 60], [0, 0, 900_000, 80] * 3]},
            "damaged.*: an outline is 4500000 pixels long, for points far outside of its image",
        ),
        (
            {"id": 7, "segmentation": runs([324, 56])},
            "the annotation 7 of image 1 is damaged.* add up to 380 pixels, .* the 10240 of",
        ),
        ({"segmentation": runs([100, 20000])}, "add up to 20100 pixels"),
        ({"segmentation": runs([100, -50, 10190])}, "a segmentation cannot be read"),
        ({"segmentation": runs([])}, "add up to 0 pixels"),
        ({"segmentation": runs("")}, "a segmentation cannot be read"),
        ({"segmentation": runs("T:h")}, "a segmentation cannot be read"),  # it ends inside a number
        ({"segmentation": runs("T:h1")}, "add up to 380 pixels"),
        ({"segmentation": runs("T:h1^d9nM")}, "a segmentation cannot be read"),  # 324, 56, 9870, -10
        ({"segmentation": runs("T\u00e9")}, "a segmentation cannot be read"),
        ({"segmentation": runs("PPPPPP0")}, "a segmentation cannot be read"),
    ],
)
def test_damaged_annotations_are_refused(folder: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        evaluate(finder(), folder, truth(folder, annotation(LEFT) | wrong))


def test_run_lengths_as_pycocotools_writes_them_are_right_and_without_the_last_one_are_not() -> None:
    from pycocotools import mask as coco_mask

    rng = np.random.default_rng(5)
    for step in (1, 1, 9, 40):
        for _ in range(20):
            cells = rng.random(tuple(rng.integers(2, 20, 2))) < rng.uniform(0.2, 0.8)
            cells[0, 0] = True
            mask = np.asfortranarray(cells.repeat(step, 0).repeat(step, 1).astype(np.uint8))
            size = (int(mask.shape[0]), int(mask.shape[1]))
            changes = np.flatnonzero(np.diff(mask.T.ravel(), prepend=0))
            plain = {"size": list(size), "counts": np.diff(changes, prepend=0, append=mask.size).tolist()}
            packed = coco_mask.encode(mask)
            assert run_lengths(plain, size) == run_lengths(packed, size) == packed
            as_text = {**packed, "counts": packed["counts"].decode("ascii")}
            assert run_lengths(as_text, size) == as_text
            short = {**plain, "counts": plain["counts"][:-1]}
            for form in (short, coco_mask.frPyObjects(short, *size)):
                with pytest.raises(ValueError, match="add up to"):
                    run_lengths(form, size)


def test_an_image_of_more_pixels_than_pycocotools_counts_is_refused(folder: Path) -> None:
    path = truth(folder, annotation(LEFT))
    document = json.loads(path.read_text())
    document["images"][0] |= {"width": 70_000, "height": 70_000}
    path.write_text(json.dumps(document))
    with pytest.raises(SourceError, match=r"an image of \[70000, 70000\] is too large"):
        read_ground_truth(path)


@pytest.mark.parametrize("ids", [(None, None), (0, 1), (7, 7), ("a", "b"), (None, 1)])
def test_ids_of_annotations_do_not_matter(folder: Path, ids: tuple[object, object]) -> None:
    """To pycocotools an annotation with the id 0 is none, and of two with the same id there is one."""
    numbered = [one if i is None else {**one, "id": i} for one, i in zip(BOTH, ids, strict=True)]
    result = evaluate(finder((LEFT, 0.9), (RIGHT, 0.8)), folder, truth(folder, *numbered))
    assert figures(result) == pytest.approx([100] * 4)


def test_annotations_may_begin_with_the_mark_of_an_editor(folder: Path) -> None:
    path = truth(folder, *BOTH)
    path.write_text(path.read_text(), "utf-8-sig")
    assert figures(evaluate(finder((LEFT, 0.9), (RIGHT, 0.8)), folder, path)) == pytest.approx([100] * 4)


@pytest.mark.parametrize("area", [-500.0, 1e12, "500"])
def test_areas_of_annotations_do_not_matter(folder: Path, area: object) -> None:
    result = evaluate(finder((LEFT, 0.9)), folder, truth(folder, BOTH[0], BOTH[1] | {"area": area}))
    assert result.mean.recall == 50
    assert result.mean.box_ap == pytest.approx(100 * 51 / 101)


def test_area_and_crowd_may_be_null(folder: Path) -> None:
    result = evaluate(finder((LEFT, 0.9)), folder, truth(folder, annotation(LEFT) | {"area": None, "iscrowd": None}))
    assert figures(result) == pytest.approx([100] * 4)


@pytest.mark.parametrize(
    "lack",
    [{"segmentation": None}, {"segmentation": []}, {"segmentation": [[4, 4, 80, 80], []]}, {"mask_valid": False}],
)
def test_an_object_without_an_outline_is_scored_as_a_box_alone(folder: Path, lack: dict[str, Any]) -> None:
    """Its detection comes first: were its mask taken for wrong, the other's precision would be a half."""
    path = truth(folder, annotation(LEFT), annotation(RIGHT) | lack)
    mask = FULL.copy()
    mask[:, :20] = 0
    result = evaluate(finder((RIGHT, 0.9), (LEFT, 0.8)), folder, path)
    assert figures(result) == pytest.approx([100] * 4)
    assert result.mean.objects == 2
    assert figures(evaluate(finder((LEFT, 0.9)), folder, path)) == pytest.approx([5100 / 101, 5100 / 101, 100, 100])


def test_where_no_object_has_an_outline_masks_have_no_figure(folder: Path) -> None:
    boxes_alone = annotation(RIGHT, category=2) | {"segmentation": None}
    names = ("person", "dog")
    result = evaluate(
        finder((LEFT, 0.9), names=names), folder, truth(folder, annotation(LEFT), boxes_alone, names=names)
    )
    assert figures(result) == pytest.approx((50, 50, 100, 100))
    dog = json.loads(result.to_json())["classes"][1]
    assert (dog["name"], dog["box_ap"], dog["mask_ap"]) == ("dog", 0, None)
    only = evaluate(finder((RIGHT, 0.9)), folder, truth(folder, annotation(RIGHT) | {"segmentation": None}))
    assert figures(only) == pytest.approx((100, 100, np.nan, np.nan), nan_ok=True)


def test_what_nobody_annotated_is_not_taken_for_wrong(folder: Path) -> None:
    path = truth(folder, annotation(LEFT))
    found = finder((RIGHT, 0.9), (LEFT, 0.8))
    assert figures(evaluate(found, folder, path)) == pytest.approx([50] * 4)
    data = json.loads(path.read_text())
    for exhaustive, expected, shown in (([1], 50, 2), ([], 100, 1)):
        data["images"][0]["exhaustive"] = exhaustive
        path.write_text(json.dumps(data))
        result = evaluate(found, folder, path)
        assert figures(result) == pytest.approx([expected] * 4)
        assert (result.shown.boxes, result.shown.precision, result.shown.recall) == (shown, expected, 100)


def test_annotations_are_checked_without_a_model(folder: Path) -> None:
    path = truth(folder, *BOTH)
    check(("person",), folder, path)
    with pytest.raises(UsageError, match="no class in common"):
        check(("unicorn",), folder, path)
    crowd = truth(folder, annotation(LEFT, crowd=True), annotation(RIGHT, category=2), names=("person", "dog"))
    with pytest.raises(SourceError, match=r"instances\.json: none of the images shows an annotated object"):
        check(("person",), folder, crowd)
    nothing = folder / "nothing.json"
    nothing.write_text(json.dumps({"images": [], "categories": [{"id": 1, "name": "person"}], "annotations": []}))
    with pytest.raises(SourceError, match=r"no images to score in .*nothing\.json"):
        check(("person",), folder, nothing)
    path = truth(folder, *BOTH)
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:40])
    with pytest.raises(SourceError, match=r"b\.png is damaged"):
        check(("person",), folder, path)
    cv2.imwrite(str(folder / "b.png"), np.zeros((40, 64, 3), np.uint8))
    with pytest.raises(SourceError, match=r"b\.png is 64x40, its annotations are for 128x80"):
        check(("person",), folder, path)
    (folder / "b.png").unlink()
    with pytest.raises(SourceError, match=r"b\.png is not there"):
        check(("person",), folder, path)


def test_missing_and_wrong_files_are_named(folder: Path) -> None:
    path = truth(folder, *BOTH)
    with pytest.raises(SourceError, match=r"absent\.json cannot be read: No such file"):
        evaluate(finder(), folder, folder / "absent.json")
    (folder / "b.png").write_bytes(b"no image")
    with pytest.raises(SourceError, match=r"b\.png is damaged"):
        evaluate(finder(), folder, path)
    (folder / "b.png").write_bytes(b"")
    with pytest.raises(SourceError, match=r"b\.png is damaged"):
        evaluate(finder(), folder, path)
    (folder / "b.png").unlink()
    with pytest.raises(SourceError, match=r"b\.png cannot be read: No such file"):
        evaluate(finder(), folder, path)
    cv2.imwrite(str(folder / "a.png"), np.zeros((40, 64, 3), np.uint8))
    with pytest.raises(SourceError, match=r"a\.png is 64x40, its annotations are for 128x80"):
        evaluate(finder(), folder, path)


def test_a_photo_that_was_annotated_upright_is_told_how_to_say_so(folder: Path) -> None:
    path = truth(folder, *BOTH)
    document = json.loads(path.read_text())
    document["images"][0]["file_name"] = "photo.jpg"
    path.write_text(json.dumps(document))
    photo = cv2.imencode(".jpg", np.zeros((128, 80, 3), np.uint8))[1].tobytes()
    (folder / "photo.jpg").write_bytes(with_orientation(photo, 6))
    with pytest.raises(SourceError, match=r'photo\.jpg is 128x80, .* only when it is turned .* say "upright": true in'):
        evaluate(finder(), folder, path)
    (folder / "photo.jpg").write_bytes(photo)
    with pytest.raises(SourceError, match=r"photo\.jpg is 80x128, its annotations are for 128x80"):
        evaluate(finder(), folder, path)


def test_without_pycocotools_the_way_to_get_it_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(StreamSegError, match=r"pip install 'stream-seg\[eval\]'"):
        evaluate(finder(), folder, truth(folder, *BOTH))


@pytest.mark.parametrize("upright", [False, True])
def test_what_a_transparent_pixel_hides_is_not_scored(tmp_path: Path, *, upright: bool) -> None:
    pixels = np.full((8, 12, 4), 200, np.uint8)
    pixels[..., 3] = np.where(np.arange(12) < 6, 255, 0)
    (tmp_path / "cut.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    image = read_annotated(tmp_path / "cut.png", (8, 12), upright=upright)
    assert (image[:, :6] == 200).all()
    assert not image[:, 6:].any()
