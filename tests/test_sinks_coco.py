"""What was found, as a COCO document: what pycocotools reads of it, and what is left after a failure."""

from __future__ import annotations

import json
import logging
from contextlib import redirect_stdout
from dataclasses import replace
from fractions import Fraction
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from stream_seg.cli import main
from stream_seg.coco import COCO_IDS, COCO_NAMES
from stream_seg.detections import Detections
from stream_seg.errors import OutputError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.geometry import coco_polygons, paste
from stream_seg.ground_truth import read_ground_truth
from stream_seg.protocols import Outcome
from stream_seg.sinks import CocoFile, coco_file
from tests.sink_films import BROKEN, CFR, NOTHING, TWO, deliver, frames, image, info, write_all
from tests.support import file_limit, needs_limits
from tests.test_sources_images import with_orientation
from tests.tiny_models import batched_model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own

ROOT = Path(__file__).parents[1]
AS_EVAL = ("--device", "cpu", "--size", "416", "--no-mirror")
"""Look at photos as `stream-seg eval` does."""


def document(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("ascii"))
    return found


def read(path: Path) -> COCO:
    with redirect_stdout(StringIO()):
        return COCO(str(path))


def decoded(polygons: list[list[int]], size: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, size[1], size[0])))


@pytest.mark.parametrize("smooth", [0.3, 1.0, 3.0])
def test_polygons_along_the_edges_of_pixels_are_the_mask_to_pycocotools_with_its_holes(smooth: float) -> None:
    rng = np.random.default_rng(0)
    for height, width in rng.integers(1, 60, (40, 2)).tolist():
        noise = cv2.GaussianBlur(rng.random((height, width)).astype(np.float32), (0, 0), smooth)
        truth = np.zeros((80, 90), np.uint8)
        rows, columns = slice(7, 7 + height), slice(11, 11 + width)
        truth[rows, columns] = noise >= np.median(noise)
        polygons = coco_polygons(rows, columns, truth[rows, columns], 1.0)
        assert (decoded([polygon.ravel().tolist() for polygon in polygons], (90, 80)) == truth).all()


def test_no_polygon_has_so_few_points_that_pycocotools_takes_it_for_a_box() -> None:
    truth = np.zeros((200, 200), np.uint8)
    truth[20:180, 20:180] = 1
    truth[100, 100] = 0
    truth[[0, 199], [0, 199]] = 1
    polygons = coco_polygons(slice(0, 200), slice(0, 200), truth, 200.0)
    assert len(polygons) == 3
    assert (decoded([polygon.ravel().tolist() for polygon in polygons], (200, 200)) == truth).all()
    for shape in ((9, 9), (0, 0)):  # nothing in it, nothing of it in the frame
        assert coco_polygons(slice(0, 9), slice(0, 9), np.zeros(shape, np.uint8), 9.0) == []


def test_a_document_holds_each_frame_and_each_object_with_its_mask(tmp_path: Path) -> None:
    sink = CocoFile(tmp_path / "a.json")
    sink.open(replace(info(), path=tmp_path / "my film.mp4"))
    sink.write(Frame(image(0), 7, Fraction(1001, 30000), 0.0), replace(TWO, ids=np.array([7, 3])))
    sink.write(Frame(image(1), 9, Fraction(1, 4), 0.0), NOTHING)
    sink.write(Frame(image(2), 10, Fraction(1, 3), 0.0), TWO)
    sink.close(Outcome.COMPLETE)
    assert sink.result == tmp_path / "a.json"
    whole = document(sink.result)
    size = {"width": 64, "height": 48}
    assert whole["images"] == [
        {"id": 1, "file_name": "my_film/frame_000007.png", **size, "frame": 7, "time": 0.033367},
        {"id": 2, "file_name": "my_film/frame_000009.png", **size, "frame": 9, "time": 0.25},
        {"id": 3, "file_name": "my_film/frame_000010.png", **size, "frame": 10, "time": 0.333333},
    ]
    assert whole["categories"] == [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}]
    assert set(whole["info"]) == {"description", "version", "date_created"}
    assert [one["id"] for one in whole["annotations"]] == [1, 2, 3, 4]
    assert [one["image_id"] for one in whole["annotations"]] == [1, 1, 3, 3]
    assert [one.get("track_id") for one in whole["annotations"]] == [7, 3, None, None]
    assert [one["bbox"] for one in whole["annotations"][:2]] == [[4.0, 6.0, 30.0, 34.0], [30.04, 2.0, 29.96, 45.96]]
    coco = read(sink.result)
    for one, truth, category in zip(coco.loadAnns([1, 2]), paste(TWO, (64, 48)), (2, 1), strict=True):
        assert (one["category_id"], one["iscrowd"]) == (category, 0)
        assert (coco.annToMask(one) == truth).all()
        assert one["area"] == truth.sum()
    assert [one["score"] for one in whole["annotations"][:2]] == [0.912, 0.5]
    assert len(read_ground_truth(sink.result).masks.anns) == 4


@pytest.mark.parametrize("count", [3, 0])
def test_a_sink_of_two_runs_holds_the_whole_document_of_the_last_with_frames(tmp_path: Path, count: int) -> None:
    sink = CocoFile(tmp_path / "found.json", overwrite=True)
    for length in (5, count):
        write_all(sink, length)
        sink.close(Outcome.COMPLETE)
    written = document(tmp_path / "found.json")
    assert [image["id"] for image in written["images"]] == list(range(1, (count or 5) + 1))
    assert len(written["annotations"]) == len(TWO) * (count or 5)


def test_results_of_pycocotools_are_scored_against_a_document(tmp_path: Path) -> None:
    sink = CocoFile(tmp_path / "a.json")
    write_all(sink, 3)
    sink.close(Outcome.COMPLETE)
    with redirect_stdout(StringIO()):
        results = read(sink.path).loadRes(document(sink.path)["annotations"])
    assert len(results.anns) == 6


def test_of_cocos_classes_the_numbers_are_cocos(tmp_path: Path) -> None:
    sink = CocoFile(tmp_path / "a.json")
    write_all(sink, 1, replace(TWO, class_ids=np.array([79, 0]), class_names=COCO_NAMES))
    sink.close(Outcome.COMPLETE)
    whole = document(sink.path)
    assert [one["category_id"] for one in whole["annotations"]] == [90, 1]
    assert [(one["id"], one["name"]) for one in whole["categories"]] == list(zip(COCO_IDS, COCO_NAMES, strict=True))


def test_frames_in_which_nothing_is_shown_are_a_document(tmp_path: Path) -> None:
    sink = CocoFile(tmp_path / "a.json")
    deliver(sink, info(), frames(CFR[:3]), Outcome.STOPPED)
    whole = document(tmp_path / "a.json")
    assert (len(whole["images"]), whole["annotations"]) == (3, [])
    assert [one["name"] for one in whole["categories"]] == list(NOTHING.class_names) != []
    assert len(read(sink.path).imgs) == 3


def test_categories_are_those_of_the_first_that_is_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = CocoFile(tmp_path / "a.json")
    others = replace(TWO, class_names=("dog", "bird"))
    sink.open(info())
    with caplog.at_level(logging.WARNING, "stream_seg"):
        for frame, found in zip(frames(CFR[:4]), (Detections.none(()), TWO, others, others), strict=True):
            sink.write(frame, found)
    sink.close(Outcome.COMPLETE)
    whole = document(sink.path)
    assert [one["name"] for one in whole["categories"]] == ["person", "dog"]
    assert [(one["id"], one["image_id"], one["category_id"]) for one in whole["annotations"]] == [
        (1, 2, 2),
        (2, 2, 1),
        (3, 3, 2),
        (4, 4, 2),
    ]
    assert caplog.messages == [f"left out of {sink.path} what is none of the classes it began with: bird"]


def test_of_images_the_name_is_told_and_of_addresses_what_a_file_may_be_called(tmp_path: Path) -> None:
    still = Frame(image(0), 0, Fraction(0), 0.0, name="d/\udcff\u00e9.png", is_still=True)
    deliver(CocoFile(tmp_path / "a.json"), SourceInfo("d", (64, 48), "images"), [still])
    (one,) = document(tmp_path / "a.json")["images"]
    assert one == {"id": 1, "file_name": still.name, "width": 64, "height": 48, "upright": True}
    for number, (name, film) in enumerate((("rtsp://cam:554/door?x=1", "door_x_1"), ("http://cam/..", "film"))):
        deliver(CocoFile(tmp_path / f"{number}.json"), SourceInfo(name, (64, 48), "live"), frames(CFR[:1]))
        assert document(tmp_path / f"{number}.json")["images"][0]["file_name"] == f"{film}/frame_000000.png"


def test_what_has_no_place_or_score_or_pixel_is_left_out(tmp_path: Path) -> None:
    sink = CocoFile(tmp_path / "a.json")
    write_all(sink, 2, BROKEN)
    sink.close(Outcome.COMPLETE)
    assert "NaN" not in sink.path.read_text("ascii")
    assert [(one["id"], one["image_id"]) for one in document(sink.path)["annotations"]] == [(1, 1), (2, 2)]


def test_the_images_of_a_long_run_wait_in_a_file_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coco_file, "_IN_MEMORY", 100)
    sink = CocoFile(tmp_path / "a.json")
    write_all(sink)
    sink.close(Outcome.STOPPED)
    assert [one["frame"] for one in document(sink.path)["images"]] == list(range(40))
    assert list(tmp_path.iterdir()) == [sink.path]


def test_a_failed_run_leaves_a_whole_document_under_the_partial_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = CocoFile(tmp_path / "a.json")
    write_all(sink, 3)
    with caplog.at_level(logging.WARNING, "stream_seg"):
        sink.close(Outcome.FAILED)
    assert sink.result == tmp_path / "a.part.json"
    assert caplog.messages == [f"what was written until then is in {sink.result}"]
    assert len(read(sink.result).anns) == 6
    assert not sink.path.exists()


@needs_limits
def test_a_full_disk_keeps_the_whole_annotations_and_no_document(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = CocoFile(tmp_path / "a.json")
    with (
        file_limit(2000),
        pytest.raises(OutputError, match=r"a\.json: File too large; what was written until then is in .*part"),
    ):
        write_all(sink)
    sink.close(Outcome.FAILED)
    assert sink.result == tmp_path / "a.part.json"
    assert "without the end that makes it JSON" in caplog.text
    lines = sink.result.read_text("ascii").split('"annotations": [\n')[1].splitlines()
    assert all(json.loads(line.rstrip(","))["bbox"] for line in lines)
    assert not sink.path.exists()


@needs_limits
@pytest.mark.parametrize("in_memory", [100, 2**20])
def test_so_does_one_that_is_full_at_the_end_or_for_the_images(
    in_memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coco_file, "_IN_MEMORY", in_memory)
    sink = CocoFile(tmp_path / "a.json")
    with file_limit(1500), pytest.raises(OutputError, match=r"cannot write .*a\.json: File too large"):
        deliver(sink, info(), frames(CFR))
    sink.close(Outcome.FAILED)
    assert not sink.path.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a.part.json"]


@needs_limits
def test_a_disk_that_takes_a_part_of_the_images_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_file, "_IN_MEMORY", 3000)
    sink = CocoFile(tmp_path / "a.json")
    with file_limit(2500), pytest.raises(OutputError, match=r"cannot write .*a\.json: File too large"):
        write_all(sink, found=NOTHING)
    sink.close(Outcome.FAILED)
    assert not sink.path.exists()


def test_the_command_writes_what_its_own_eval_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tmp_path / "found.json"
    assert main([str(ROOT / "samples" / "photo.jpg"), "-o", str(found), *AS_EVAL]) == 0
    assert str(found) in capsys.readouterr().out
    argv = ["eval", "--images", str(ROOT / "samples"), "--annotations", str(found), "--device", "cpu"]
    assert main(argv) == 0
    assert "mean of 2" in (out := capsys.readouterr().out)
    assert out.split("mean of 2")[1].split("\n")[0].split()[1:] == ["100.0"] * 6


@pytest.mark.parametrize(("orientation", "back"), [(3, cv2.ROTATE_180), (6, cv2.ROTATE_90_COUNTERCLOCKWISE)])
def test_it_reads_photos_turned_as_they_were_annotated(
    orientation: int, back: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = cv2.imread(str(ROOT / "samples" / "photo.jpg"))
    stored = cv2.imencode(".jpg", cv2.rotate(photo, back))[1].tobytes()
    (tmp_path / "a.jpg").write_bytes(with_orientation(stored, orientation))
    found = tmp_path / "found.json"
    assert main([str(tmp_path / "a.jpg"), "-o", str(found), *AS_EVAL]) == 0
    assert (document(found)["images"][0]["width"], document(found)["images"][0]["height"]) == (1280, 720)
    assert main(["eval", "--images", str(tmp_path), "--annotations", str(found), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert out.split("mean of 2")[1].split("\n")[0].split()[1:] == ["100.0"] * 6


def test_the_command_writes_one_of_each_film_beside_other_outputs(tmp_path: Path) -> None:
    argv = ["synthetic:64x64@30x6", "synthetic:32x32@15x3", "--model", str(batched_model(tmp_path / "tiny.onnx"))]
    outputs = [f"{tmp_path}/{{source}}.json", f"{tmp_path}/{{source}}.jsonl"]
    assert main([*argv, "-o", outputs[0], "-o", outputs[1], "--device", "cpu", "--segment", "1m"]) == 0
    documents = sorted(tmp_path.glob("*.json"))
    assert sorted(len(document(path)["images"]) for path in documents) == [3, 6]
    for path in documents:
        (lines,) = tmp_path.glob(f"{path.stem}_*.jsonl")
        objects = [json.loads(line)["objects"] for line in lines.read_text().splitlines()]
        numbers = [one["id"] for found in objects for one in found if one["outline"]]
        assert [one["track_id"] for one in document(path)["annotations"]] == numbers


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["-o", "a.json", "--segment", "1m"], 2, "--segment is for video and .jsonl files, and a.json is neither"),
        (["-o", "a.json", "--events", "1s"], 2, "--events is for video and .jsonl files, and a.json is neither"),
        (["-o", "a.json", "--metrics", "a.json"], 2, "a.json was named for two outputs"),
        (["-o", "a.json", "--metrics", "a.part.json"], 2, "a.part.json is what a.json is called until it is whole"),
        (["-o", "a.json", "-o", "a.part.json", "-o", "b.mp4", "--segment", "1m"], 2, "a.part.json is what a.json is"),
        (["-o", "a.json", "--codec", "hevc"], 2, "--codec hevc is for videos"),
        (["synthetic:8x8@1x2", "-o", "a.json"], 2, "cannot hold 2 sources"),
        (["-o", "a.csv", "--segment", "1m"], 2, "--segment is for video and .jsonl files, and a.csv is neither"),
        (["-o", "a.csv", "--events", "1s"], 2, "--events is for video and .jsonl files, and a.csv is neither"),
        (["-o", "a.csv", "--metrics", "a.part.csv"], 2, "a.part.csv is what a.csv is called until it is whole"),
        (["-o", "a.csv", "--codec", "hevc"], 2, "--codec hevc is for videos"),
        (["synthetic:8x8@1x2", "-o", "a.csv"], 2, "cannot hold 2 sources"),
        (["-o", "a.tsv"], 6, "'.tsv' is not understood"),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_line(
    argv: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["synthetic:8x8@1x1", *argv]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not list(tmp_path.iterdir())
