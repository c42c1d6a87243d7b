"""What eyes say of a detector's finds: right ones count in full, wrong ones teach what is not there, others go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.test_sources_images import with_orientation
from tests.training_scripts import importable, needing, run

pytestmark = needing("torch", seconds=60)

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 5, "name": "cat"}, {"id": 7, "name": "bear"}]
PERSON = {"id": 41, "image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 80]}


def find(number: int, image: int, category: int, confidence: float, x: int = 20) -> dict[str, Any]:
    box = [x, 20, 30, 40]
    return {"id": number, "image_id": image, "category_id": category, "bbox": box, "confidence": confidence}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pictures, grey but for what is found at x = 60 in the second; of the third, everything is annotated."""
    images: list[dict[str, Any]] = []
    for number in (1, 2, 3):
        picture = np.full((100, 120, 3), 128, np.uint8)
        if number == 2:
            picture[20:60, 60:90] = (0, 200, 0)
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
        images.append({"id": number, "file_name": f"{number}.png", "width": 120, "height": 100, "exhaustive": [1]})
    del images[2]["exhaustive"]
    finds = [
        find(50, 1, 7, 0.9),
        find(51, 1, 5, 0.4),
        find(52, 2, 7, 0.8),
        find(53, 2, 7, 0.3, x=60),
        find(54, 3, 7, 0.5),
        find(55, 2, 5, 0.6, x=80),
    ]
    document = {"images": images, "categories": CATEGORIES, "annotations": [PERSON, *finds]}
    (tmp_path / "train.json").write_text(json.dumps(document))
    return tmp_path


def judge(data: Path, verdict: object) -> tuple[str, dict[str, Any]]:
    (data / "verdict.json").write_text(json.dumps(verdict))
    with importable():
        printed = run("review", data, "--verdict", data / "verdict.json", "--out", data / "reviewed.json")
    return printed, json.loads((data / "reviewed.json").read_text())


def test_sheets_show_each_find_with_its_box(data: Path) -> None:
    with importable():
        printed = run("review", data, "--out", data / "sheets")
    assert printed == f"6 annotations on 1 sheets in {data / 'sheets'}\n"
    sheet = cv2.imread(str(data / "sheets" / "000.png"))
    assert sheet is not None
    # In the order of names, then the surest first: 50, 52, 54 and 53 are bears, 55 and 51 cats.
    middles = [sheet[14 + 72, 148 * place + 72].tolist() for place in range(7)]
    assert middles[3] == [0, 200, 0], "the green thing"
    assert middles[:3] == [[128, 128, 128]] * 3
    assert middles[6] == [255, 255, 255], "there is no seventh"
    red = (sheet[14 : 14 + 144, :144] == (0, 0, 255)).all(2)
    scale = 144 / 76
    assert red.any(0).sum() == round(50 * scale) - round(20 * scale) + 1
    assert red.any(1).sum() == round(60 * scale) - round(20 * scale) + 1
    assert (sheet[14:158, 148 * 4 + 140] == 90).all(), "beside the picture"


@pytest.mark.parametrize(("width", "box"), [(640, [0, 0, 640, 3]), (5, [-9e4, -9e4, 18e4, 18e4])])
def test_a_sheet_shows_thin_pictures_and_boxes_far_larger_than_theirs(data: Path, width: int, box: list[float]) -> None:
    cv2.imwrite(str(data / "1.png"), np.full((3, width, 3), 128, np.uint8))
    image = {"id": 1, "file_name": "1.png", "width": width, "height": 3}
    document = {"images": [image], "categories": CATEGORIES, "annotations": [find(50, 1, 7, 0.9) | {"bbox": box}]}
    (data / "train.json").write_text(json.dumps(document))
    with importable():
        printed = run("review", data, "--out", data / "sheets")
    assert printed == f"1 annotations on 1 sheets in {data / 'sheets'}\n"


@pytest.mark.parametrize("upright", [False, True])
def test_a_find_is_shown_where_its_picture_was_annotated(tmp_path: Path, *, upright: bool) -> None:
    picture = np.full((80, 120, 3), 128, np.uint8)
    picture[20:60, 10:40] = (0, 200, 0)
    (tmp_path / "a.jpg").write_bytes(with_orientation(cv2.imencode(".jpg", picture)[1].tobytes(), 3))
    image = {"id": 1, "file_name": "a.jpg", "width": 120, "height": 80, "upright": upright}
    entry = find(7, 1, 7, 0.5, x=80 if upright else 10)
    document = {"images": [image], "categories": CATEGORIES, "annotations": [entry]}
    (tmp_path / "train.json").write_text(json.dumps(document))
    with importable():
        run("review", tmp_path, "--out", tmp_path / "sheets")
    sheet = cv2.imread(str(tmp_path / "sheets" / "000.png"))
    assert sheet is not None
    assert np.abs(sheet[14 + 72, 72].astype(int) - (0, 200, 0)).max() < 20


def test_finds_of_pictures_that_are_not_there_are_left_out(data: Path) -> None:
    document = json.loads((data / "train.json").read_text())
    document["annotations"].append(find(90, 4, 7, 0.5))
    (data / "train.json").write_text(json.dumps(document))
    with importable():
        printed = run("review", data, "--out", data / "sheets")
    assert printed == f"6 annotations on 1 sheets in {data / 'sheets'}\n"


def test_right_ones_count_in_full_and_wrong_ones_teach_what_is_not_there(data: Path) -> None:
    printed, written = judge(data, {"wrong": [50, 52, 54], "doubtful": [51]})
    assert printed.startswith("2 are right, 3 wrong and 1 doubtful; 1 times a class is known not to be in a picture;")
    right = [find(53, 2, 7, 1.0, x=60), find(55, 2, 5, 1.0, x=80)]
    assert written["annotations"] == [PERSON, *right]
    # There is a bear in the second picture, if not where 52 was; of the third, everything was known.
    assert [image.get("exhaustive") for image in written["images"]] == [[1, 7], [1], None]


def test_where_one_of_a_class_is_doubtful_nobody_knows_that_there_is_none(data: Path) -> None:
    _, written = judge(data, {"wrong": [52], "doubtful": [53]})
    assert [image.get("exhaustive") for image in written["images"]] == [[1], [1], None]


def test_what_was_not_looked_at_stays_as_it_is(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with importable():
        import review  # type: ignore[import-not-found]

        monkeypatch.setattr(review, "ROWS", 1)
        monkeypatch.setattr(review, "COLUMNS", 4)
        (data / "verdict.json").write_text('{"wrong": [53], "sheets": [0]}')
        printed = run("review", data, "--verdict", data / "verdict.json", "--out", data / "reviewed.json")
    assert printed.startswith("3 are right, 1 wrong and 0 doubtful")
    left = {one["id"]: one["confidence"] for one in json.loads((data / "reviewed.json").read_text())["annotations"][1:]}
    assert left == {50: 1.0, 51: 0.4, 52: 1.0, 54: 1.0, 55: 0.6}


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        ([], 'should be like {"wrong"'),
        ({"wrong": [50.0]}, "wrong is no list of whole numbers"),
        ({"wrong": [50], "doubtful": [50]}, "says of 50 that it is wrong, and that it is doubtful"),
        ({"Wrong": [50], "doubtful": []}, "it says Wrong, which is none of these"),
        ({"wrong": [41]}, "names 41, which is on none of the sheets"),
        ({"wrong": [50], "sheets": [1]}, "names the sheet 1; there are 1, numbered from 0 on"),
        ({"wrong": [50], "sheets": []}, "names 50, which is on none of the sheets that were looked at"),
    ],
)
def test_a_verdict_that_is_none_is_a_line(
    data: Path, verdict: object, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        judge(data, verdict)
    assert ended.value.code == 3
    assert message in capsys.readouterr().err
    assert not (data / "reviewed.json").exists()


def test_annotations_without_finds_are_a_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads((data / "train.json").read_text())
    document["annotations"] = [PERSON]
    (data / "train.json").write_text(json.dumps(document))
    with importable(), pytest.raises(SystemExit) as ended:
        run("review", data, "--out", data / "sheets")
    assert ended.value.code == 3
    assert "has no annotation with a confidence, such as adopt.py adds" in capsys.readouterr().err


@pytest.mark.parametrize(("confidence", "said"), [("0.5", '"0.5"'), (None, "null"), (1.5, "1.5"), (True, "true")])
def test_a_confidence_that_is_no_share_is_a_line(
    confidence: object, said: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads((data / "train.json").read_text())
    document["annotations"][1]["confidence"] = confidence
    (data / "train.json").write_text(json.dumps(document))
    with importable(), pytest.raises(SystemExit) as ended:
        run("review", data, "--out", data / "sheets")
    assert ended.value.code == 3
    assert f"a confidence of {said} is not a number from 0 to 1" in capsys.readouterr().err
