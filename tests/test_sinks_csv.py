"""What was found, as a table: what programs read of it, and what is left after a failure."""

from __future__ import annotations

import csv
import json
import logging
import time
from dataclasses import replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from stream_seg.cli import main
from stream_seg.detections import Crossing, Crossings
from stream_seg.errors import OutputError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.geometry import paste
from stream_seg.protocols import Outcome
from stream_seg.region import Region
from stream_seg.sinks import CsvFile
from stream_seg.sinks.csv_file import COLUMNS
from tests.sink_films import BROKEN, CFR, NOTHING, TWO, deliver, frames, image, info, write_all
from tests.support import file_limit, needs_limits
from tests.tiny_models import batched_model

HEADER = ",".join(COLUMNS) + "\r\n"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def test_a_table_has_a_row_for_each_object_of_each_frame(tmp_path: Path) -> None:
    sink = CsvFile(tmp_path / "a.csv")
    sink.open(info())
    sink.write(Frame(image(0), 7, Fraction(1001, 30000), 0.0), replace(TWO, ids=np.array([7, 3])))
    sink.write(Frame(image(1), 9, Fraction(1, 4), 0.0), NOTHING)
    sink.write(Frame(image(2), 10, Fraction(1, 3), 0.0), TWO[1])
    sink.close(Outcome.COMPLETE)
    assert sink.result == tmp_path / "a.csv"
    areas = paste(TWO, (64, 48)).sum((1, 2)).tolist()
    assert areas[0] < 30 * 34  # it has a hole
    assert sink.path.read_bytes().decode("ascii") == (
        f"{HEADER}"
        f"a film,7,0.033367,7,dog,0.912,4.0,6.0,34.0,40.0,{areas[0]},,,,,64,48\r\n"
        f"a film,7,0.033367,3,person,0.5,30.0,2.0,60.0,48.0,{areas[1]},,,,,64,48\r\n"
        f"a film,10,0.333333,,person,0.5,30.0,2.0,60.0,48.0,{areas[1]},,,,,64,48\r\n"
    )


def test_where_nothing_is_shown_there_is_a_header(tmp_path: Path) -> None:
    deliver(CsvFile(tmp_path / "a.csv"), info(), frames(CFR[:3]))
    assert (tmp_path / "a.csv").read_bytes() == HEADER.encode()


def test_a_name_is_read_as_it_is_whatever_it_holds(tmp_path: Path) -> None:
    names = 'an "odd", name', "two\nlines\r\nand more", "Tür", "Wand"
    found = replace(TWO[np.array([0, 1, 0])], class_ids=np.array([0, 1, 2]), class_names=names)
    sink = CsvFile(tmp_path / "a.csv")
    sink.open(SourceInfo("a, b", (64, 48), "images"))
    sink.write(Frame(image(0), 0, Fraction(0), 0.0, name="d/\udcff\u00e9.png", is_still=True), found)
    sink.close(Outcome.COMPLETE)
    read = rows(sink.path)
    assert [row["class"] for row in read] == list(names[:3])
    assert {row["source"] for row in read} == {"a, b"}
    assert {row["image"] for row in read} == {"d/\\udcff\u00e9.png"}


def test_what_crosses_lines_says_which_way_and_of_several_which_one(tmp_path: Path) -> None:
    first = Crossings((0, 24), (64, 24), now=(Crossing(3, "person", "in"),))
    second = Crossings((9, 0), (9, 48), now=(Crossing(7, "dog", "out"), Crossing(3, "person", "out")))
    sink = CsvFile(tmp_path / "a.csv")
    sink.open(info())
    for frame, lines in zip(frames(CFR[:3]), ((first,), (), (first, second)), strict=True):
        sink.write(frame, replace(TWO, ids=np.array([7, 3]), lines=lines))
    sink.close(Outcome.COMPLETE)
    assert [row["crossed"] for row in rows(sink.path)] == ["", "in", "", "", "2 out", "1 in, 2 out"]


def test_of_each_object_it_is_told_in_which_regions_it_stands(tmp_path: Path) -> None:
    regions = [[(0, 0), (32, 48)], [(0, 0), (64, 48)], [(60, 0), (64, 9)]]
    sink = CsvFile(tmp_path / "a.csv")
    sink.open(info())
    for frame, given in zip(frames(CFR[:2]), (regions, regions[:1]), strict=True):
        sink.write(frame, Region(given)(frame, TWO))
    sink.close(Outcome.COMPLETE)
    told = [(row["class"], row["regions"]) for row in rows(sink.path)]
    assert told == [("dog", "1, 2"), ("person", "2"), ("dog", "1")]


def test_of_cameras_the_time_of_day_is_told(tmp_path: Path) -> None:
    sink = CsvFile(tmp_path / "a.csv")
    sink.open(SourceInfo("cam", (64, 48), "live"))
    sink.write(Frame(image(0), 0, Fraction(0), time.monotonic()), TWO)
    sink.close(Outcome.COMPLETE)
    assert all(datetime.fromisoformat(row["captured"]).tzinfo is not None for row in rows(sink.path))


def test_what_has_no_place_or_score_is_left_out(tmp_path: Path) -> None:
    sink = CsvFile(tmp_path / "a.csv")
    sink.open(info())
    sink.write(Frame(image(0), 0, Fraction(0), 0.0), BROKEN)
    sink.close(Outcome.COMPLETE)
    assert [(row["class"], row["area"] == "0") for row in rows(sink.path)] == [("dog", False), ("person", True)]


def test_a_failed_run_keeps_its_rows_under_the_partial_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = CsvFile(tmp_path / "a.csv")
    write_all(sink, 3)
    assert len(rows(tmp_path / "a.part.csv")) == 6
    with caplog.at_level(logging.WARNING, "stream_seg"):
        sink.close(Outcome.FAILED)
    assert sink.result == tmp_path / "a.part.csv"
    assert caplog.messages == [f"what was written until then is in {sink.result}"]
    assert not sink.path.exists()


@needs_limits
def test_a_full_disk_keeps_the_rows_of_whole_frames(tmp_path: Path) -> None:
    sink = CsvFile(tmp_path / "a.csv")
    words = r"a\.csv: File too large; what was written until then is in .*part"
    with file_limit(1000), pytest.raises(OutputError, match=words):
        write_all(sink)
    sink.close(Outcome.FAILED)
    assert sink.result == tmp_path / "a.part.csv"
    read = rows(sink.result)
    assert len(read) >= 4
    assert [row["class"] for row in read] == ["dog", "person"] * (len(read) // 2)
    assert None not in read[-1].values()


def test_the_command_writes_what_lines_of_json_say_of_each_film(tmp_path: Path) -> None:
    argv = ["synthetic:64x64@30x6", "synthetic:32x32@15x3", "--model", str(batched_model(tmp_path / "tiny.onnx"))]
    outputs = [f"{tmp_path}/{{source}}.csv", f"{tmp_path}/{{source}}.jsonl"]
    assert main([*argv, "-o", outputs[0], "-o", outputs[1], "--device", "cpu"]) == 0
    tables = sorted(tmp_path.glob("*.csv"))
    assert len(tables) == 2
    for path in tables:
        found = [
            [line["frame"], line["time"], one["id"], one["class"], one["score"], *one["box"]]
            for line in map(json.loads, path.with_suffix(".jsonl").read_text().splitlines())
            for one in line["objects"]
        ]
        assert found
        assert [list(row.values())[1:10] for row in rows(path)] == [list(map(str, row)) for row in found]


def test_a_table_that_is_there_is_kept_unless_it_is_to_be_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "a.csv"
    table.write_text("mine")
    argv = ["synthetic:64x64@30x2", "--model", str(batched_model(tmp_path / "tiny.onnx")), "-o", str(table)]
    assert main(argv) == 6
    assert f"{table} exists already" in capsys.readouterr().err
    assert table.read_text() == "mine"
    assert main([*argv, "--overwrite", "--device", "cpu"]) == 0
    assert rows(table)
