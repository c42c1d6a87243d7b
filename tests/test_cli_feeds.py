"""Several sources on the command line: a file each, the wall, figures of each, failures that stay with their source."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from stream_seg.cli import console, feeds, main
from stream_seg.cli.arguments import parse
from stream_seg.detections import Detections
from stream_seg.errors import Reason, UsageError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.render.labels import Labels
from stream_seg.render.trails import Trails
from stream_seg.sinks import ListSink, PipedObjects, PipedVideo, Publisher, SegmentedVideo
from stream_seg.sources import Reconnecting
from stream_seg.steady import Steady
from tests.source_files import numbered, write_video
from tests.test_cli import failure, frames_in
from tests.test_segments import old_segment
from tests.tiny_models import batched_model

NOBODY = "tcp://127.0.0.1:1/"


def size_of(path: Path) -> tuple[int, int]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.width, stream.height


def test_what_follows_two_dashes_is_sources_however_they_begin() -> None:
    args = parse(["a.mp4", "--show", "b.mp4", "--", "-c.mp4", "--show", "-"])
    assert (args.source, args.show) == (["a.mp4", "b.mp4", "-c.mp4", "--show", "-"], True)
    assert parse(["--", "-c.mp4"]).source == ["-c.mp4"]


def test_each_source_gets_a_file_and_all_share_a_wall(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    each, wall, figures = tmp_path / "out_{source}.mp4", tmp_path / "wall.mp4", tmp_path / "run.json"
    argv = ["synthetic:320x240@30x12", "-o", str(each), "-o", str(wall), "synthetic:160x120@15x6", "--device", "cpu"]
    assert main([*argv, "--metrics", str(figures)]) == 0
    printed = capsys.readouterr().out
    assert "2 sources" in printed
    assert "18 captured, 18 delivered, 0 dropped" in printed
    written = json.loads(figures.read_text())
    labels = [source["label"] for source in written["sources"]]
    assert len(set(labels)) == 2
    outs = [tmp_path / f"out_{label}.mp4" for label in labels]
    assert [frames_in(out) for out in outs] == [12, 6]
    assert [size_of(out) for out in outs] == [(320, 240), (160, 120)]
    assert frames_in(wall) == 12  # one picture for each time of the faster one
    assert size_of(wall)[0] > size_of(wall)[1]
    assert written["outcome"] == "complete"
    assert written["outputs"] == [*map(str, outs), str(wall)]
    assert [source["delivered"] for source in written["sources"]] == [12, 6]
    lines = re.findall(r"^(  (\S+) +)[\d.]+ fps;", printed, re.MULTILINE)
    assert [label for _, label in lines] == labels
    assert len({len(column) for column, _ in lines}) == 1  # one below the other, however long they are


def test_a_source_that_cannot_be_had_leaves_the_others_alone_and_is_named_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    each, figures = tmp_path / "{source}.mp4", tmp_path / "run.json"
    argv = [NOBODY, "synthetic:320x240@30x12", "-o", str(each), "--metrics", str(figures), "--reconnect", "0"]
    assert main(argv) == 3
    printed = capsys.readouterr()
    written = json.loads(figures.read_text())
    bad, good = written["sources"]
    assert written["outcome"] == "incomplete"
    assert "refused" in bad["error"]
    assert (good["delivered"], good["error"]) == (12, None)
    assert frames_in(tmp_path / f"{good['label']}.mp4") == 12
    assert written["outputs"] == [str(tmp_path / f"{good['label']}.mp4")]
    assert [path.name for path in tmp_path.glob("*.mp4")] == [f"{good['label']}.mp4"]
    assert f"{bad['label']} failed, the others go on" in printed.err
    assert "failed: " in printed.out


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder of three films, and a model that is loaded at once beside it."""
    batched_model(tmp_path / "tiny.onnx")
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("b10", "b9", "a"):
        write_video(folder / f"{name}.mp4", count=6)
    return folder


def options_of(clips: Path) -> list[str]:
    return ["--model", str(clips.parent / "tiny.onnx"), "--device", "cpu"]


def test_more_recordings_than_can_be_had_at_once_are_done_in_turns_also_if_one_cannot_be_read(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clips / "broken.mp4").write_bytes(b"no film" * 99)
    films = [*map(str, sorted(clips.iterdir())), *[str(clips / "a.mp4")] * 30]
    figures = tmp_path / "run.json"
    outputs = ["-o", str(tmp_path / "out/{source}.mp4"), "-o", str(tmp_path / "out/{source}.json")]
    assert main([*films, *outputs, "--metrics", str(figures), *options_of(clips)]) == 3
    assert len(list((tmp_path / "out").iterdir())) == 2 * 33
    assert frames_in(tmp_path / "out/a-31.mp4") == 6
    printed = capsys.readouterr()
    assert "broken failed, the others go on: cannot read" in printed.err
    assert re.search(r"^34 sources -> .*out/a.mp4, .*, and 60 more$", printed.out, re.MULTILINE)
    written = json.loads(figures.read_text())
    assert written["outcome"] == "incomplete"
    assert [source["label"] for source in written["sources"] if source["error"]] == ["broken"]


def test_of_a_film_that_cannot_be_read_that_is_said_and_nothing_of_places_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batched_model(tmp_path / "tiny.onnx")
    film = tmp_path / "clips/broken.mp4"
    film.parent.mkdir()
    film.write_bytes(b"no film" * 99)
    places = ["--region", "0,0,9,9", "--line", "0,0,9,9"]
    options = ["-o", str(tmp_path / "out/{source}.mp4"), *places, *options_of(film.parent)]
    code, line = failure(capsys, str(film.parent), *options)
    assert (code, line) == (3, f"stream-seg: cannot read {film}: it is not a video, or too damaged to be one")


@pytest.mark.parametrize("spec", ["clips", "clips/*.mp4"])
def test_a_folder_of_films_stands_for_each_of_them_in_the_order_of_their_names(
    spec: str, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clips.parent)
    for name in (".hidden.mp4", "notes.txt"):
        (clips / name).touch()
    job = feeds.plan(parse([spec, "-o", "out/{source}.mp4"]), lambda *of: [])
    assert [feed.source.info.name for feed in job.feeds] == ["clips/a.mp4", "clips/b9.mp4", "clips/b10.mp4"]
    assert job.in_turns
    assert main([spec, "-o", "out/{source}.mp4", "--quiet", *options_of(clips)]) == 0
    assert {path.name for path in (clips.parent / "out").iterdir()} == {"a.mp4", "b9.mp4", "b10.mp4"}


@pytest.mark.parametrize(
    ("outputs", "code", "words"),
    [
        ([], 3, "clips has 3 videos and no images; give each a result of its own, as in -o results/{source}.mp4"),
        (["-o", "wall.mp4"], 3, "clips has 3 videos"),
        (
            ["-o", "clips/{source}_seg.mkv"],
            2,
            "the next run would take it for one; write to another folder, as in -o r",
        ),
        (["-o", "{source}.jsonl", "-o", "clips/{source}.png"], 2, "clips/{source}.png is in the folder of the films"),
    ],
)
def test_results_that_a_folder_of_films_cannot_have_are_refused(
    outputs: list[str],
    code: int,
    words: str,
    clips: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(clips.parent)
    found, line = failure(capsys, "clips", *outputs)
    assert found == code
    assert words in line


def test_where_none_of_many_films_can_be_read_each_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batched_model(tmp_path / "tiny.onnx")
    films = [tmp_path / f"clips/{name}.mp4" for name in "abc"]
    films[0].parent.mkdir()
    for film in films:
        film.write_bytes(b"no film" * 99)
    argv = [str(films[0].parent), "-o", str(tmp_path / "out/{source}.mp4"), *options_of(films[0].parent)]
    assert main([*argv, "--quiet"]) == 3
    assert re.findall(r"cannot read (.*):", capsys.readouterr().err) == list(map(str, films))


def test_objects_in_a_pipe_are_results_enough_for_a_folder_of_films_and_say_whose_they_are(
    clips: Path, tmp_path: Path
) -> None:
    with (tmp_path / "piped").open("wb") as pipe:
        for left in (3, 1):
            job = feeds.plan(parse([str(clips), "-o", "-.jsonl"]), lambda *of: [], pipe)
            assert job.in_turns
            assert len(job.outputs) == left
            assert all(isinstance(sink, PipedObjects) and sink._source in ("a", "b9", "b10") for sink in job.outputs)
            for name in ("b9", "b10"):
                (clips / f"{name}.mp4").unlink(missing_ok=True)


def test_of_many_films_those_that_were_not_begun_are_counted_and_not_named(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.Progress, "wants_stop", lambda progress: progress._metrics.delivered > 12)
    films = [str(clips / "a.mp4")] * 40
    assert main([*films, "-o", str(tmp_path / "out/{source}.jsonl"), *options_of(clips)]) == 0
    lines = capsys.readouterr().out.splitlines()
    begun = [line for line in lines if re.search(r"^  a.*frames;", line)]
    assert 3 <= len(begun) < 20
    assert lines[-1] == f"  and {40 - len(begun)} more, which were not begun"


@pytest.mark.parametrize(
    ("spec", "output", "is_found"),
    [
        ("*/*.mp4", "results/{source}.mp4", True),
        ("**/*.mp4", "results/deep/{source}.mp4", True),
        ("clips/**", "clips/{source}/all.webm", True),
        ("clips/../*/b*.mp4", "results/{source}.mp4", True),
        ("*/*.mp4", "{source}.mp4", False),
        ("*/*.mp4", "results/{source}.mkv", False),
        ("clips/b*.mp4", "results/{source}.mp4", False),
        ("clips/**/*.mp4", "results/{source}.mp4", False),
        ("*/b*.mp4", "results/seg_{source}.mp4", False),
        ("**/*.mp4", "results/{source}.jsonl", False),
    ],
)
def test_results_that_a_pattern_would_find_the_next_time_are_refused(
    spec: str,
    output: str,
    is_found: bool,
    clips: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(clips.parent)
    if is_found:
        code, line = failure(capsys, spec, "-o", output)
        assert code == 2
        assert f"{output} is where {spec} finds films" in line
    else:
        assert feeds.plan(parse([spec, "-o", output]), lambda *of: []).feeds


def test_files_that_are_neither_images_nor_called_as_videos_are_said_to_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "film.dav").touch()
    for spec in (tmp_path, tmp_path / "*"):
        code, line = failure(capsys, str(spec), "-o", str(tmp_path / "{source}.mp4"))
        assert code == 3
        assert re.search(r", nor videos \(mp4, .*\); files of other names are named one by one$", line)


def test_a_folder_of_images_is_still_read_without_its_films(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(clips / "photo.png"), numbered(1))
    assert main([str(clips), "-o", str(tmp_path / "{source}.mp4"), "--quiet", *options_of(clips)]) == 0
    assert frames_in(tmp_path / "clips.mp4") == 1
    assert "left out 3 videos" in capsys.readouterr().err


def test_a_run_goes_on_with_what_lacks_a_result_and_leaves_the_rest_as_it_is(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    argv = [str(clips), "-o", f"{out}/{{source}}.mp4", "--skip-existing", *options_of(clips)]
    out.mkdir()
    (out / "a.mp4").write_bytes(b"done before")
    (out / "b9.part.mp4").write_bytes(b"begun before")
    assert main(argv) == 0
    printed = capsys.readouterr()
    assert "1 of 3 have their results already\n" in printed.err
    assert "2 sources -> " in printed.out
    assert (out / "a.mp4").read_bytes() == b"done before"
    assert [frames_in(out / f"{name}.mp4") for name in ("b9", "b10")] == [6, 6]
    assert main([*argv, "-o", f"{out}/{{source}}.json", "-o", f"{out}/{{source}}.jsonl"]) == 0  # of which none is there
    assert "already" not in capsys.readouterr().err
    assert (out / "a.mp4").read_bytes() == b"done before"
    assert {path.suffix for path in out.glob("a.*")} == {".mp4", ".json", ".jsonl"}
    (out / "b9.jsonl").unlink()
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert main([*argv, "-o", f"{out}/{{source}}.jsonl"]) == 0
    assert "2 of 3 have their results already\n" in capsys.readouterr().err
    assert {path.name for path in out.iterdir()} - {path.name for path in before} == {"b9.jsonl"}
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_nothing_left_to_do_is_a_success_that_loads_no_model(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for film in clips.iterdir():
        (tmp_path / f"{film.stem}.jsonl").touch()
    argv = [str(clips), "-o", f"{tmp_path}/{{source}}.jsonl", "--skip-existing", "--model", "none.onnx"]
    assert main([*argv, "--metrics", str(tmp_path / "run.json")]) == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (
        "",
        "stream-seg: 3 of 3 have their results already: nothing is left to do\n",
    )
    assert not (tmp_path / "run.json").exists()


def test_films_of_one_name_keep_their_results_apart_when_one_is_left_out(clips: Path, tmp_path: Path) -> None:
    films = [clips / "a.mkv", clips / "a.mp4"]
    write_video(films[0], count=3)
    (tmp_path / "a.mp4").touch()
    argv = [*map(str, films), "-o", f"{tmp_path}/{{source}}.mp4", "--skip-existing", "--quiet", *options_of(clips)]
    assert main(argv) == 0
    assert frames_in(tmp_path / "a-2.mp4") == 6  # of a.mp4, which came second


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["a.mp4", "-o", "{source}.mp4", "--overwrite"], 2, "--overwrite replaces them; give one of them"),
        (["a.mp4", "-o", "{source}.mp4", "--segment", "9s"], 2, "whether the files that --segment cuts are all there"),
        (["a.mp4", "-o", "{source}.mp4", "--events", "9s"], 2, "whether the files that --events cuts are all there"),
        (["a.mp4", "-o", "{source}.mp4", "--serve", "8080"], 2, "for results in files alone, and --serve is for"),
        (["a.mp4"], 2, "goes by a file for each source, as in -o results/{source}.mp4, and none was named"),
        (["a.mp4", "-o", "out.mp4"], 2, "and out.mp4 is none"),
        (["a.mp4", "-o", "rtsp://u:pw@h/{source}.mp4"], 2, "and rtsp://***@h/{source}.mp4 is none"),
        (["a.mp4", "-o", "{source}/"], 2, "and {source}/ is none"),
        (["a.mp4", "-o", "{source}_%d.png"], 2, "and {source}_%d.png is none"),
        (["rtsp://u:pw@h/1", "-o", "{source}.mp4"], 2, "--skip-existing is for files, and rtsp://***@h/1 is none"),
        (["a.mp4", "-", "-o", "{source}.mp4"], 2, "--skip-existing is for files, and - is none"),
        (["a.mp4", "-o", "{source}.jsonl", "--metrics", "run.json"], 6, "name another file for the figures"),
        (["a.mp4", "-o", "{source}.mp4"], 6, "a.mp4 is an input"),
    ],
)
def test_results_that_do_not_tell_what_is_done_cannot_be_skipped(
    argv: list[str],
    code: int,
    words: str,
    clips: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(clips)
    Path("run.json").touch()
    found, line = failure(capsys, *argv, "--skip-existing")
    assert found == code
    assert words in line
    assert len(list(clips.iterdir())) == 4
    with pytest.raises(UsageError, match=r"and -\.jsonl is none"):
        feeds.plan(parse(["a.mp4", "-o", "{source}.mp4", "-o", "-.jsonl", "--skip-existing"]), lambda *of: [])


@pytest.mark.parametrize("options", [["--show"], ["--serve", "0"], ["-o", "{tmp}/wall.mp4"]])
def test_what_is_to_be_seen_side_by_side_is_not_had_in_turns(
    options: list[str], clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films = [str(clips / "a.mp4")] * 33
    options = [option.replace("{tmp}", str(clips.parent)) for option in options]
    found, line = failure(capsys, *films, "-o", str(clips.parent / "{source}.mp4"), *options)
    assert found == 2
    assert re.search("33 sources were named; at most 32 .*; recordings go in turns where each has results", line)


def test_keep_deletes_no_input_also_of_several(tmp_path: Path) -> None:
    old = [old_segment(tmp_path, f"door_2025010{day}-030405.mp4") for day in (1, 2, 3)]
    argv = [*map(str, old[:2]), "-o", str(tmp_path / "door.mp4"), "--segment", "10m", "--keep", "1h", "--quiet"]
    assert main(argv) == 0
    assert [path.exists() for path in old] == [True, True, False]
    assert len(list(tmp_path.iterdir())) == 3


def test_the_name_of_an_only_source_can_stand_in_the_output(tmp_path: Path) -> None:
    assert main(["synthetic:160x120@30x3", "-o", str(tmp_path / "{source}.mkv"), "--quiet"]) == 0
    (out,) = tmp_path.glob("*.mkv")
    assert frames_in(out) == 3
    assert "{" not in out.name


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["-", "-", "-o", "x.mp4"], 2, "named twice"),
        (["--webcam", "0", "--webcam", "0"], 2, "opened once"),
        (["0", "--webcam", "0"], 2, "opened once"),
        (["synthetic:8x8@1x1"] * 33, 2, "at most 32"),
        (["synthetic:8x8@1x1", "synthetic:8x8@1x2", "-o", "wall.png"], 2, r"out_\{source\}\.mp4"),
        (["synthetic:8x8@1x1", "-o", "a.mp4", "--keep", "24h"], 2, "--segment"),
        (["synthetic:8x8@1x1", "--segment", "10m"], 2, "needs an output"),
        (["synthetic:8x8@1x1", "-o", "a.mp4", "--segment", "1m", "--before", "5s"], 2, "--before .* needs --events"),
        (["synthetic:8x8@1x1", "-o", "a.mp4", "--events", "9s", "--before", "6m"], 2, "300 at most"),
        (["synthetic:8x8@1x1", "-o", "a.mp4", "--events", "9s", "--before", "5"], 2, "no length of time"),
        (["synthetic:8x8@1x1", "--events", "10s"], 2, "--events cuts a recording, so it needs an output"),
        (
            ["synthetic:8x8@1x1", "synthetic:8x8@1x2", "-o", "a.mp4", "--events", "9s"],
            2,
            r"write one each with \{source",
        ),
        (["synthetic:8x8@1x1", "-o", "a.part.mp4", "-o", "a.mp4"], 2, r"a\.part\.mp4 is what a\.mp4 is called until"),
        (["synthetic:8x8@1x1", "-o", "a.jsonl", "-o", "a.part-2.jsonl"], 2, r"a\.part-2\.jsonl is what a\.jsonl is"),
        (["synthetic:8x8@1x1", "-o", "a.mp4", "--segment", "ten"], 2, "ten"),
        (["synthetic:8x8@1x1", "-o", "a.mp4", "--segment", "1m", "--keep", "much"], 2, "much"),
        (["rtsp://h/s", "--transport", "upd"], 2, r"did you mean 'udp'\?"),
        (["rtsp://h/s", "--reconnect", "-1"], 2, "--reconnect"),
        (["rtsp://h/s", "--stall-timeout", "0"], 2, "no time"),
        (["rtsp://h/s", "--max-age", "soon"], 2, "milliseconds"),
        (["synthetic:8x8@1x1", "absent.mp4", "-o", "{source}.mp4"], 3, "absent.mp4"),
    ],
)
def test_contradictions_are_refused_in_one_line(
    argv: list[str],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, line = failure(capsys, *argv)
    assert found == code
    assert re.search(words, line)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_one_of_the_inputs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = tmp_path / "a.mp4"
    assert main(["synthetic:160x120@30x3", "-o", str(film), "--quiet"]) == 0
    before = film.read_bytes()
    code, line = failure(capsys, "synthetic:8x8@1x1", str(film), "-o", str(film), "--overwrite")
    assert code == 6
    assert "is an input" in line
    assert film.read_bytes() == before


def test_events_of_each_source_are_recorded_beside_what_all_share_and_cannot_be_cut(tmp_path: Path) -> None:
    films = ["synthetic:8x8@1x1", "synthetic:8x8@1x2", "-o", f"{tmp_path}/{{source}}.mp4", "--events", "9s"]
    with (tmp_path / "piped").open("wb") as pipe:
        job = feeds.plan(parse([*films, "-o", "rtmp://h/live/KEY", "-o", "-"]), lambda *of: [], pipe)
    assert [type(sink) for sink in job.outputs] == [SegmentedVideo, SegmentedVideo, Publisher, PipedVideo]
    with pytest.raises(UsageError, match=r"--events is for video and \.jsonl files, and an address is neither"):
        feeds.plan(parse([*films[:2], "-o", "rtmp://h/live/KEY", "--events", "9s"]), lambda *of: [])


def test_a_recording_beside_a_camera_plays_no_faster_than_it_was_taken(tmp_path: Path) -> None:
    figures = tmp_path / "run.json"
    argv = ["synthetic:160x120@30x45", NOBODY, "-o", str(tmp_path / "wall.mp4"), "--reconnect", "1", "--quiet"]
    assert main([*argv, "--size", "64", "--metrics", str(figures)]) == 3
    recording, camera = json.loads(figures.read_text())["sources"]
    assert recording["delivered"] == 45
    assert camera["outages"] == {"refused": 1}
    with av.open(str(tmp_path / "wall.mp4")) as wall:
        assert wall.duration is not None
        assert wall.duration / 1e6 >= 44 / 30


def test_max_frames_are_those_that_are_delivered_of_what_is_live(tmp_path: Path) -> None:
    out, figures = tmp_path / "out.mp4", tmp_path / "run.json"
    argv = ["synthetic:64x64@200,live", "-o", str(out), "--max-frames", "5", "--metrics", str(figures), "--quiet"]
    assert main([*argv, "--size", "64"]) == 0
    written = json.loads(figures.read_text())
    assert (written["delivered"], written["outcome"]) == (5, "complete")
    assert written["captured"] > 5
    assert frames_in(out) == 5


def test_no_more_frames_of_what_is_live_are_captured_than_a_rate_that_is_asked_for(tmp_path: Path) -> None:
    out, figures = tmp_path / "out.mkv", tmp_path / "run.json"
    argv = ["synthetic:64x64@200,live", "-o", str(out), "--max-fps", "20", "--end", "0.5", "--metrics", str(figures)]
    assert main([*argv, "--model", str(batched_model(tmp_path / "tiny.onnx")), "--device", "cpu", "--quiet"]) == 0
    (source,) = json.loads(figures.read_text())["sources"]
    assert 2 < source["captured"] <= 12
    assert source["frame_rate"] == 20


@pytest.mark.parametrize("spec", ["rtsp://cam/1", "http://cam/video", "https://cam/live.m3u8", "0", "http://cam/a.mp4"])
def test_the_window_of_whatever_can_be_away_tells_of_it(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "Window", lambda paced: ListSink())
    job = feeds.plan(parse([spec, "--show"]), lambda *of: [])
    assert (job.wall is not None) == (spec != "http://cam/a.mp4")


def test_so_does_that_of_an_address_like_a_files_that_turns_out_to_be_live(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = ListSink()
    monkeypatch.setattr(feeds, "Window", lambda paced: shown)
    (feed,) = feeds.plan(parse(["http://cam/live.flv", "--show"]), lambda *of: []).feeds
    (window,) = feed.sinks
    window.open(SourceInfo("http://cam/live.flv", (64, 48), "live"))
    window.write(picture := Frame(np.full((48, 64, 3), 200, np.uint8), 0, Fraction(0), 0.0), Detections.none(()))
    assert shown.frames[-1].image is picture.image
    source = feed.source
    assert isinstance(source, Reconnecting)
    source.availability.lost(Reason.STALLED)
    window.wants_stop()
    assert shown.frames[-1].image.min() < 90


def test_objects_are_numbered_in_files_and_in_tiles_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: set[str] = set()
    monkeypatch.setattr(Labels, "draw", lambda self, image, text, *rest: written.add(text[:1]))
    films = ["synthetic:64x64@30x2", "synthetic:64x64@30x2", "--model", str(batched_model(tmp_path / "tiny.onnx"))]
    assert main([*films, "-o", str(tmp_path / "{source}.mp4"), "-o", str(tmp_path / "wall.mp4"), "--ids"]) == 0
    assert written == {"#"}


def test_trails_are_drawn_in_files_and_in_tiles_each_by_its_own_renderer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: dict[Trails, set[tuple[int, int]]] = defaultdict(set)
    monkeypatch.setattr(Trails, "draw", lambda self, image, frame, *rest: sizes[self].add(frame.size))
    films = ["synthetic:64x64@30x2", "synthetic:96x64@30x2", "--model", str(batched_model(tmp_path / "tiny.onnx"))]
    argv = [*films, "-o", str(tmp_path / "{source}.mp4"), "-o", str(tmp_path / "wall.mp4")]
    assert main([*argv, "--trails", "3s"]) == 0
    assert sorted(map(list, sizes.values())) == [[(64, 64)], [(96, 64)], [(960, 540)], [(960, 540)]]
    sizes.clear()
    assert main([*argv, "--overwrite"]) == 0
    assert not sizes


def test_a_film_is_shown_steadily_unless_told_otherwise() -> None:
    specs = ["synthetic:64x64@30x3", "synthetic:32x32@30x3", "-o", "{source}.mp4"]
    followers = [feed.follower for feed in feeds.plan(parse(specs), lambda *of: []).feeds]
    assert [type(follower) for follower in followers] == [Steady, Steady]
    assert followers[0] is not followers[1]
    raw = feeds.plan(parse([*specs, "--no-steady"]), lambda *of: []).feeds
    assert [feed.follower for feed in raw] == [None, None]


def test_all_that_is_found_in_a_film_is_blurred_also_what_would_be_held_back_elsewhere() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    ghost = Detections(
        np.array([[10, 10, 40, 40]], np.float32),
        np.array([0.2], np.float32),
        np.zeros(1, np.int64),
        np.ones((1, 28, 28), np.float32),
        ("person",),
    )
    for view, seen in ("blurred", True), ("both", False):
        (feed,) = feeds.plan(parse(["synthetic:64x64@30x3", "-o", "a.mp4", "--view", view]), lambda *of: []).feeds
        assert feed.follower is not None
        assert feed.renderer is not None
        for number, found in enumerate((ghost[:0], ghost)):
            frame = Frame(image, number, Fraction(number, 30), 0.0)
            drawn = feed.renderer(frame, feed.follower(frame, found)).image
            assert (drawn[10:40, 10:40] != image[10:40, 10:40]).any() == (seen and number == 1)


@pytest.mark.parametrize(
    ("output", "options", "made"),
    [
        ("results/{source}.mkv", [], "results/{label}.mkv"),
        ("results/{source}.mkv", ["--segment", "9s"], "results/{label}_*.mkv"),
        ("results/{source}.jsonl", [], "results/{label}.jsonl"),
        ("results/{source}/film.mkv", [], "results/{label}/film.mkv"),
        ("results/{source}/", [], "results/{label}/000000.png"),
        ("{source}/%d.png", [], "{label}/0.png"),
    ],
)
def test_the_folder_of_results_of_several_sources_is_made(
    output: str, options: list[str], made: str, tmp_path: Path
) -> None:
    tiny = batched_model(tmp_path / "tiny.onnx")
    films = ["synthetic:64x64@30x1", "synthetic:32x32@30x1"]
    argv = [*films, "-o", f"{tmp_path}/{output}", *options, "--model", str(tiny), "--device", "cpu", "--quiet"]
    assert main(argv) == 0
    for label in ("synthetic", "synthetic-2"):
        assert len(list(tmp_path.glob(made.format(label=label)))) == 1


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("none/results/{source}.mkv", "the folder .*none/results does not exist"),
        ("results/film.mkv", "the folder .*results does not exist"),
        ("file/{source}.mkv", "the folder .*file cannot be made: File exists"),
    ],
)
def test_no_other_folder_is_made(output: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["synthetic:64x64@30x1", "-o", f"{tmp_path}/{output}"]) == 6
    assert re.search(words, capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
