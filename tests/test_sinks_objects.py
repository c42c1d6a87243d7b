"""What was found, as lines of JSON: what a line holds, and what is left after a failure."""

from __future__ import annotations

import json
import logging
import re
import time
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from stream_seg.cli import main
from stream_seg.detections import Crossing, Crossings
from stream_seg.errors import OutputError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.geometry import paste
from stream_seg.protocols import Outcome
from stream_seg.sinks import ObjectsFile, PipedObjects
from stream_seg.sinks.csv_file import COLUMNS
from stream_seg.sinks.retention import MARK
from tests.sink_films import BROKEN, CFR, NOTHING, TWO, deliver, frames, image, info, write_all
from tests.support import file_limit, needs_limits

DOCS = Path(__file__).parents[1] / "docs" / "objects.md"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


def test_a_line_holds_the_frame_its_time_and_each_object(tmp_path: Path) -> None:
    sink = ObjectsFile(tmp_path / "a.jsonl")
    sink.open(info())
    sink.write(Frame(image(0), 7, Fraction(1001, 30000), 0.0), TWO)
    sink.write(Frame(image(1), 9, Fraction(1, 4), 0.0), NOTHING)
    sink.close(Outcome.COMPLETE)
    first, second = lines(tmp_path / "a.jsonl")
    assert second == {"frame": 9, "time": 0.25, "width": 64, "height": 48, "objects": []}
    dog, person = first.pop("objects")
    assert first == {"frame": 7, "time": 0.033367, "width": 64, "height": 48}
    assert (dog["class"], dog["score"], dog["box"]) == ("dog", 0.912, [4.0, 6.0, 34.0, 40.0])
    assert (person["class"], person["score"], person["box"]) == ("person", 0.5, [30.0, 2.0, 60.0, 48.0])
    for found, truth in zip((dog, person), paste(TWO, (64, 48)), strict=True):
        whole = np.zeros((48, 64), np.uint8)
        cv2.fillPoly(whole, [np.array(polygon, np.int32) for polygon in found["outline"]], (1,))
        assert (whole == truth).all()


def test_what_is_followed_has_its_number(tmp_path: Path) -> None:
    sink = ObjectsFile(tmp_path / "a.jsonl")
    sink.open(info())
    sink.write(Frame(image(0), 0, Fraction(0), 0.0), replace(TWO, ids=np.array([7, 3])))
    sink.close(Outcome.COMPLETE)
    (line,) = lines(tmp_path / "a.jsonl")
    assert [(one["id"], one["class"]) for one in line["objects"]] == [(7, "dog"), (3, "person")]


def test_what_a_broken_model_gives_no_place_or_score_is_left_out_for_json_has_no_word_for_it(tmp_path: Path) -> None:
    sink = ObjectsFile(tmp_path / "a.jsonl")
    sink.open(info())
    sink.write(Frame(image(0), 0, Fraction(0), 0.0), BROKEN[:4])
    sink.close(Outcome.COMPLETE)
    text = (tmp_path / "a.jsonl").read_text("ascii")
    assert "NaN" not in text
    assert [one["class"] for one in json.loads(text)["objects"]] == ["dog"]


def test_of_images_the_name_and_of_cameras_the_time_of_day_is_told(tmp_path: Path) -> None:
    still = Frame(image(0), 0, Fraction(0), 0.0, name="d/\udcff\u00e9.png", is_still=True)
    deliver(ObjectsFile(tmp_path / "a.jsonl"), SourceInfo("d", (64, 48), "images"), [still])
    (line,) = lines(tmp_path / "a.jsonl")
    assert line["image"] == still.name
    assert "captured" not in line
    caught = Frame(image(0), 0, Fraction(0), time.monotonic() - 60)
    deliver(ObjectsFile(tmp_path / "b.jsonl"), SourceInfo("cam", (64, 48), "live"), [caught])
    (line,) = lines(tmp_path / "b.jsonl")
    ago = datetime.now(UTC) - datetime.fromisoformat(line["captured"])
    assert 59 < ago.total_seconds() < 90


def test_each_line_is_there_as_soon_as_it_was_written(tmp_path: Path) -> None:
    sink = ObjectsFile(tmp_path / "a.jsonl")
    sink.open(info())
    for number, frame in enumerate(frames(CFR[:3]), 1):
        sink.write(frame, TWO)
        assert len(lines(tmp_path / "a.part.jsonl")) == number
    sink.close(Outcome.STOPPED)
    assert sink.result == tmp_path / "a.jsonl"


def test_a_failed_run_keeps_its_lines_under_the_partial_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = ObjectsFile(tmp_path / "a.jsonl")
    with caplog.at_level(logging.WARNING, "stream_seg"):
        deliver(sink, info(), frames(CFR[:3]), Outcome.FAILED)
    assert sink.result == tmp_path / "a.part.jsonl"
    assert str(sink.result) in caplog.text
    assert [line["frame"] for line in lines(sink.result)] == [0, 1, 2]
    assert not (tmp_path / "a.jsonl").exists()


@needs_limits
def test_a_full_disk_keeps_the_whole_lines(tmp_path: Path) -> None:
    sink = ObjectsFile(tmp_path / "a.jsonl")
    words = r"a\.jsonl: File too large; what was written until then is in .*part"
    with file_limit(1000), pytest.raises(OutputError, match=words):
        write_all(sink, found=TWO)
    sink.close(Outcome.FAILED)
    assert sink.result == tmp_path / "a.part.jsonl"
    assert len(lines(sink.result)) >= 2
    assert sink.result.stat().st_size < 1000


def test_the_command_writes_them_beside_a_film_and_for_each_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, film = tmp_path / "{source}.jsonl", tmp_path / "wall.mp4"
    argv = ["synthetic:320x240@30x12", "synthetic:160x120@15x6", "--device", "cpu", "-o", str(found), "-o", str(film)]
    assert main(argv) == 0
    assert str(film) in capsys.readouterr().out
    counts = sorted(len(lines(path)) for path in tmp_path.glob("*.jsonl"))
    assert counts == [6, 12]


def test_several_sources_need_a_file_each(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    argv = ["synthetic:64x64@30x3", "synthetic:64x64@30x3", "-o", str(tmp_path / "a.jsonl")]
    assert main(argv) == 2
    assert "cannot hold 2 sources" in capsys.readouterr().err


def test_the_documentation_names_all_that_is_written_and_its_program_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sink = ObjectsFile(tmp_path / "found.jsonl", comment=MARK)
    sink.open(SourceInfo("cam", (64, 48), "live"))
    crossings = Crossings((0, 24), (64, 24), {"in": {"dog": 1}, "out": {}}, (Crossing(1, "dog", "in"),))
    followed = replace(TWO, ids=np.array([1, 2]), lines=(crossings,), occupancy=({"dog": 1},))
    sink.write(Frame(image(0), 0, Fraction(0), time.monotonic(), name="a.png"), followed)
    sink.close(Outcome.COMPLETE)
    (line,) = lines(tmp_path / "found.jsonl")
    text = DOCS.read_text(encoding="utf-8")
    of_frames, of_objects, of_lines, of_regions, columns = (
        set(re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.splitlines() if row.startswith("|"))))
        for table in text.split("|---|---|")[1:]
    )
    with (tmp_path / "piped.jsonl").open("wb") as pipe:
        piped = PipedObjects(pipe, source="cam")
        deliver(piped, SourceInfo("cam", (64, 48), "live"), frames(CFR[:1]))
    (of_several,) = lines(tmp_path / "piped.jsonl")
    assert of_frames == set(line) | set(of_several)
    assert of_objects == set(line["objects"][0])
    assert of_lines == set(line["lines"][0])
    assert of_regions == set(line["regions"][0])
    assert columns == set(COLUMNS)
    programs = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for program in programs:
        exec(program, {"__name__": "__main__"})
    dog, person = (mask.sum() for mask in paste(TWO, (64, 48)))
    printed = f"0.0 dog 0.912 {dog} pixels\n0.0 person 0.5 {person} pixels\n"
    assert capsys.readouterr().out == printed + "Counter({'dog': 1, 'person': 1})\n"
