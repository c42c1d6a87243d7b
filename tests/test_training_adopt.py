"""What another detector finds becomes annotations where there are none, and nothing that was annotated is lost."""

from __future__ import annotations

import json
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.training_scripts import importable, run

pytestmark = [
    pytest.mark.needs(missing=[package for package in ("torch",) if find_spec(package) is None]),
    pytest.mark.filterwarnings("ignore"),  # of other people's imports
]

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 5, "name": "cat"}, {"id": 7, "name": "dog"}]
PERSON = {"id": 41, "image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 80]}
CAT = {"id": 12, "image_id": 2, "category_id": 5, "bbox": [10, 10, 50, 50]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """In picture 1 and 3 persons alone are annotated, in picture 2 everything."""
    size = {"width": 100, "height": 100}
    images: list[dict[str, Any]] = [{"id": n, "file_name": f"{n}.png", **size} for n in (1, 2, 3)]
    images[0]["exhaustive"] = images[2]["exhaustive"] = [1]
    document = {"images": images, "categories": CATEGORIES, "annotations": [PERSON, CAT]}
    (tmp_path / "train.json").write_text(json.dumps(document))
    return tmp_path


def adopt(data: Path, finds: list[tuple[int, int, list[float], float]]) -> tuple[str, dict[str, Any]]:
    """What is printed, and written, for finds of (image, category, box, score)."""
    names = ("image_id", "category_id", "bbox", "score")
    (data / "found.json").write_text(json.dumps([dict(zip(names, find, strict=True)) for find in finds]))
    out = data / "adopted.json"
    out.unlink(missing_ok=True)
    with importable():
        printed = run("adopt", data, "--results", data / "found.json", "--out", out)
    return printed, json.loads(out.read_text())


def test_files_may_begin_with_the_mark_of_an_editor(data: Path) -> None:
    results = [{"image_id": 1, "category_id": 5, "bbox": [50, 50, 30, 30], "score": 0.9}]
    results.append(results[0] | {"score": 0.05})
    (data / "found.json").write_text(json.dumps(results), "utf-8-sig")
    (data / "train.json").write_text((data / "train.json").read_text(), "utf-8-sig")
    with importable():
        printed = run("adopt", data, "--results", data / "found.json", "--out", data / "adopted.json")
    assert printed.startswith("1 boxes and 0 regions")


def test_finds_become_boxes_with_the_confidence_of_their_score(data: Path) -> None:
    printed, written = adopt(
        data,
        [
            (1, 5, [50, 50, 30, 30], 0.44),
            (1, 7, [51, 50, 30, 30], 0.42),  # the same object, named otherwise
            (1, 5, [10, 50, 20, 20], 0.9),
            (1, 5, [70, 10, 20, 20], 0.3),  # 0.2 likely
            (1, 9, [70, 10, 20, 20], 0.9),  # none of the classes
            (1, 5, [70, 10, 0, 20], 0.9),
            (2, 7, [70, 70, 20, 20], 0.05),
        ],
    )
    cat = {"image_id": 1, "category_id": 5, "iscrowd": 0}
    assert printed.startswith("2 boxes and 0 regions to ignore were added, and 0 times")
    assert written["annotations"] == [
        PERSON,
        CAT,
        cat | {"id": 42, "bbox": [10, 50, 20, 20], "area": 400, "confidence": 1},
        cat | {"id": 43, "bbox": [50, 50, 30, 30], "area": 900, "confidence": 0.5},
    ]
    assert [image.get("exhaustive") for image in written["images"]] == [[1], None, [1]]


def test_a_class_is_absent_where_nothing_is_like_it(data: Path) -> None:
    _, written = adopt(data, [(1, 5, [50, 50, 30, 30], 0.2), (1, 7, [50, 50, 30, 30], 0.09)])
    assert written["annotations"] == [PERSON, CAT]
    # Dogs are known to be absent in the first picture; the third was not looked at.
    assert [image.get("exhaustive") for image in written["images"]] == [[1, 7], None, [1]]


def test_what_annotators_overlooked_is_ignored(data: Path) -> None:
    _, written = adopt(
        data,
        [
            (1, 1, [12, 11, 40, 80], 0.9),  # the person
            (1, 1, [60, 11, 30, 80], 0.6),
            (2, 5, [12, 12, 50, 50], 0.95),  # the cat
            (2, 7, [12, 12, 50, 50], 0.55),  # no dog is annotated there
            (2, 7, [70, 70, 20, 20], 0.45),
            (2, 7, [10, 70, 20, 20], 0.05),
        ],
    )
    added = written["annotations"][2:]
    assert [(one["image_id"], one["category_id"], one["iscrowd"]) for one in added] == [(1, 1, 1), (2, 7, 1)]


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (None, "cannot be read: No such file"),
        ("{}", "does not hold COCO results: it is not a list"),
        ("[1]", "does not hold COCO results"),
        ('[{"image_id": 1}]', "an entry lacks 'score'"),
        (
            '[{"image_id": 1, "category_id": 5, "bbox": [1, 1, 9], "score": 0.05}]',
            "an entry has the score 0.05 and the bbox [1, 1, 9]",
        ),
        (
            '[{"image_id": 1, "category_id": 5, "bbox": [1, 1, 9, 9], "score": "0.9"}]',
            "an entry has the score '0.9' and the bbox",
        ),
        (
            '[{"image_id": 1, "category_id": 5, "bbox": [1, 1, 9, 9], "score": NaN}]',
            "an entry has the score nan and the bbox",
        ),
        (
            '[{"image_id": 1, "category_id": 5, "bbox": [1, 1, 9, 9], "score": 0.3}]',
            "does not tell what is absent: it holds no score below --absent 0.1",
        ),
        ("[]", "holds nothing of the pictures and classes of"),
        (
            '[{"image_id": "1", "category_id": 5, "bbox": [1, 1, 9, 9], "score": 0.05}]',
            "holds nothing of the pictures and classes of",
        ),
        (
            '[{"image_id": 1, "category_id": "5", "bbox": [1, 1, 9, 9], "score": 0.05}]',
            "let the detector write image_id and category_id as they are there",
        ),
    ],
)
def test_results_that_are_none_are_a_line(
    data: Path, results: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if results is not None:
        (data / "found.json").write_text(results)
    with importable(), pytest.raises(SystemExit) as ended:
        run("adopt", data, "--results", data / "found.json", "--out", data / "adopted.json")
    assert ended.value.code == 3
    assert message in capsys.readouterr().err
    assert not (data / "adopted.json").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_nothing_is_left_of_annotations_that_could_not_be_finished(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "found.json").write_text('[{"image_id": 1, "category_id": 5, "bbox": [1, 1, 9, 9], "score": 0.05}]')
    import resource

    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        with importable(), pytest.raises(SystemExit) as ended:
            run("adopt", data, "--results", data / "found.json", "--out", data / "adopted.json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert ended.value.code == 6
    assert f"cannot write {data / 'adopted.json'}: File too large" in capsys.readouterr().err
    assert not list(data.glob("adopted*"))
