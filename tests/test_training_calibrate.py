"""Scores that say how likely an object is to be right."""
# ruff: noqa: ANN401  scripts are loaded by name, and so their types are not known here

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from stream_seg import load_segmenter, open_source
from stream_seg.graph import export_graph
from tests.training_scripts import importable, needing, run

pytestmark = needing("torch", "safetensors")

PHOTO = Path(__file__).parents[1] / "samples" / "photo.jpg"
NOTED = {"steps": 9, "minutes": 1.0, "pictures": 4, "objects": 5, "sources": [], "options": {"weights": "w"}}
CLASSES = (7, "person"), (9, "cat")


@pytest.fixture(scope="module")
def calibrate() -> Iterator[ModuleType]:
    with importable():
        yield importlib.import_module("calibrate")


def finds(calibrate: ModuleType, scale: float, shift: float) -> Any:
    """So many that the share of right ones is what their scores should be."""
    import torch

    random = np.random.default_rng(0)
    logits, certainty = random.normal(-1, 2, 100_000), random.uniform(0.7, 1, 100_000)
    likely = certainty / (1 + np.exp(-(scale * logits + shift)))
    return calibrate.Finds(*map(torch.from_numpy, (logits, certainty, (random.random(100_000) < likely).astype(float))))


def test_the_scale_and_the_shift_are_found_by_which_scores_are_the_share_that_is_right(calibrate: ModuleType) -> None:
    scale, shift = calibrate.fit(finds(calibrate, 1.4, 0.8))
    assert (scale, shift) == (pytest.approx(1.4, abs=0.06), pytest.approx(0.8, abs=0.06))


def test_a_scale_that_is_too_large_is_made_less_about_where_half_are_right(calibrate: ModuleType) -> None:
    scale, shift = calibrate.fit(finds(calibrate, 3.0, 1.5))
    assert scale == calibrate.MOST_SCALE
    assert shift / scale == pytest.approx(1.5 / 3, abs=0.05)


def test_scores_that_say_nothing_are_refused(calibrate: ModuleType) -> None:
    with pytest.raises(calibrate.ModelError, match="say nothing of what is right"):
        calibrate.fit(finds(calibrate, -1.0, 0.0))


def test_each_object_is_found_once_and_what_lies_in_a_crowd_is_ignored(calibrate: ModuleType) -> None:
    annotations = importlib.import_module("annotations")
    objects = annotations.Objects(
        boxes=np.array([[0, 0, 10, 10], [20, 0, 30, 10], [100, 100, 200, 200]], np.float64),
        labels=np.array([1, 2, 1]),
        crowd=np.array([False, False, True]),
        confidence=np.ones(3, np.float32),
        outlines=[None] * 3,
    )
    boxes = [
        [0, 0, 10, 9],  # the first object
        [0, 0, 10, 10],  # once more
        [20, 0, 30, 10],  # an object of another label
        [20, 0, 30, 5],  # half of the second, just enough
        [190, 100, 210, 120],  # half in the crowd
        [110, 110, 120, 120],  # in the crowd
        [110, 110, 120, 120],  # in a crowd of another label
    ]
    labels = np.array([1, 1, 1, 2, 1, 1, 2])
    right = calibrate.judge(np.array(boxes, np.float32), labels, objects)
    np.testing.assert_array_equal(right, [1, 0, 0, 1, 0, np.nan, 0])
    nothing = annotations.Objects(np.zeros((0, 4)), *[np.zeros(0, int)] * 3, [])
    np.testing.assert_array_equal(calibrate.judge(np.array(boxes, np.float32), labels, nothing), np.zeros(7))


def write_photos(folder: Path, count: int, boxes: list[tuple[int, list[float]]]) -> None:
    """The sample photo so many times, annotated with boxes of categories."""
    shutil.copy(PHOTO, folder)
    image = {"file_name": PHOTO.name, "width": 1280, "height": 720}
    document = {
        "images": [{"id": n, **image} for n in range(count)],
        "categories": [{"id": number, "name": name} for number, name in CLASSES],
        "annotations": [
            {"id": 9 * n + k, "image_id": n, "category_id": number, "bbox": box, "iscrowd": 0}
            for n in range(count)
            for k, (number, box) in enumerate(boxes)
        ],
    }
    (folder / "train.json").write_text(json.dumps(document))


@pytest.fixture
def trained(calibrate: ModuleType, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(importlib.import_module("weights").BUILT_IN, folder)
    (folder / "run.json").write_text(json.dumps(NOTED))
    return folder / "weights.safetensors"


def test_weights_get_the_scores_that_annotated_pictures_deserve(
    trained: Path,
    calibrate: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calibrate, "LEAST_FINDS", 10)
    with load_segmenter("compact", device="cpu", long_side=416) as segmenter:
        (frame,) = open_source(str(PHOTO))
        (found,) = segmenter([frame.image])
    person = found.boxes[found.names.index("person")].tolist()
    wanted = (7, [*person[:2], person[2] - person[0], person[3] - person[1]])
    write_photos(tmp_path, 6, [wanted])  # so what is taken for a cat is wrong
    command = ["calibrate", tmp_path, "--weights", trained, "--sizes", "416", "--out"]
    printed = run(*command, tmp_path / "out")
    assert "% right; logits times" in printed
    noted = json.loads((tmp_path / "out" / "run.json").read_text())
    assert noted == NOTED | {"calibrated": str(trained)}
    scores = []
    for weights in (trained, tmp_path / "out" / trained.name):
        graph = tmp_path / "graph.onnx"
        export_graph(weights, graph)
        with load_segmenter(graph, device="cpu", long_side=416, score_threshold=0.05) as segmenter:
            (seen,) = segmenter([frame.image])
        scores.append([seen.scores[seen.names.index(name)] for name in ("person", "cat")])
    assert scores[0][1] / scores[0][0] > scores[1][1] / scores[1][0]  # what was right is surer beside what was wrong
    with pytest.raises(SystemExit) as ended:
        run(*command, tmp_path / "out")
    assert ended.value.code == 2
    assert "out is there already: give another --out" in capsys.readouterr().err.rpartition("\r")[2]


def test_what_cannot_be_calibrated_is_refused_in_one_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path, 2, [(7, [300, 100, 300, 500])])
    few = json.loads((tmp_path / "train.json").read_text())
    strange = {**few, "categories": [{"id": 7, "name": "unicorn"}]}
    (tmp_path / "strange.json").write_text(json.dumps(strange))
    unknown = {**few, "images": [image | {"exhaustive": []} for image in few["images"]]}
    (tmp_path / "unknown.json").write_text(json.dumps(unknown))
    for train, words in (
        ("train.json", "finds in 2 pictures are too few to tell"),
        ("strange.json", "no class of"),
        ("unknown.json", "is exhaustively annotated in"),
    ):
        with pytest.raises(SystemExit) as ended:
            run(
                "calibrate", tmp_path, "--train", train, "--weights", trained, "--sizes", "320", "--out", tmp_path / "o"
            )
        said = capsys.readouterr().err.rstrip("\n").rpartition("\r")[2]
        assert (ended.value.code, "\n" in said) == (3, False)
        assert words in said
    assert not (tmp_path / "o").exists()
