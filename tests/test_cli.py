"""The command as a user types it: real files and the real model in, files, text and exit codes out."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from skimage import data

from stream_seg import __version__, catalog
from stream_seg.cli import elsewhere, main
from stream_seg.cli.arguments import _run_parser, parse
from stream_seg.cli.export import CALIBRATION_FRAMES, calibration_frames
from stream_seg.cli.output import tell, tell_beside_bars
from stream_seg.cli.signals import Interrupted, ending_signals, interruptions_end_at_once
from stream_seg.detections import Detections
from stream_seg.frame import Image
from stream_seg.segmenters import FunctionSegmenter, load_segmenter
from tests.support import file_limit, needs_limits
from tests.tiny_models import LABELS, batched_model

COMMAND = [sys.executable, "-m", "stream_seg"]
SCORES = ("eval", "--images", "{tmp}", "--annotations", "{tmp}/a.json")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A person on a photo in the public domain."""
    path = tmp_path / "astronaut.jpg"
    cv2.imwrite(str(path), cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR))
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A model that is loaded at once, for what has a process of its own."""
    return batched_model(tmp_path / "tiny.onnx")


def frames_in(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def failure(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """Exit code and message of a command that must fail with one line."""
    code = main([*argv, "--quiet"])
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("stream-seg: ")
    assert "Traceback" not in lines[0]
    return code, lines[0]


def test_a_video_becomes_an_annotated_video_with_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, figures = tmp_path / "out.mp4", tmp_path / "run.json"
    assert main(["synthetic:320x240@30x12", "-o", str(out), "--metrics", str(figures), "--device", "cpu"]) == 0
    assert frames_in(out) == 12
    printed = capsys.readouterr().out
    assert "12 captured, 12 delivered, 0 dropped" in printed
    assert "limited by" in printed
    assert str(out) in printed
    written = json.loads(figures.read_text())
    assert written["outcome"] == "complete"
    assert written["captured"] == written["delivered"] == 12
    assert written["model"]["provider"] == "CPUExecutionProvider"
    assert written["outputs"] == [str(out)]
    documented = set(re.findall(r"`(\w+)`", Path("docs/metrics.md").read_text().split("|---|---|")[1]))
    assert set(written) <= documented


@pytest.mark.parametrize("view", ["both", "boxes", "masks"])
def test_a_photo_becomes_three_different_pictures(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], view: str
) -> None:
    out = tmp_path / "out.png"
    assert main([str(photo), "-o", str(out), "--view", view]) == 0
    assert re.search(r"astronaut.jpg: .*person 0\.\d\d", capsys.readouterr().out)
    before, after = cv2.imread(str(photo)), cv2.imread(str(out))
    assert before is not None
    assert after is not None
    assert after.shape == before.shape
    black = float((after.max(axis=2) == 0).mean())
    changed = float((np.abs(after.astype(int) - before).max(axis=2) > 40).mean())
    assert (black > 0.2) == (view == "masks")
    assert {"boxes": changed < 0.1, "both": 0.1 < changed < 0.9, "masks": True}[view]


def test_a_folder_becomes_a_folder(photo: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (photos / name).write_bytes(photo.read_bytes())
    assert main([str(photos), "-o", str(tmp_path / "annotated"), "--quiet"]) == 0
    assert sorted(path.name for path in (tmp_path / "annotated").iterdir()) == ["a.jpg", "b.jpg"]


def test_a_damaged_image_is_told_in_one_line_without_what_opencv_says_of_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bitmap = tmp_path / "photo.bmp"
    assert cv2.imwrite(str(bitmap), np.zeros((40, 60, 3), np.uint8))
    bitmap.write_bytes(bitmap.read_bytes()[:-100])
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_WARNING)
    try:
        assert main([str(bitmap), "-o", str(tmp_path / "out.png")]) == 3
    finally:
        cv2.utils.logging.setLogLevel(before)
    assert capfd.readouterr().err == f"stream-seg: {bitmap} cannot be read as an image; is it damaged?\n"


def few_pixels(folder: Path, *names: str) -> list[str]:
    """Small black photos of these names; returns what a command line calls them."""
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(folder / name), np.zeros((48, 64, 3), np.uint8))
    return [str(folder / name) for name in names]


def test_images_named_one_by_one_as_a_shell_does_are_one_source_in_their_order(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = few_pixels(tmp_path / "in", *[f"{number}.png" for number in range(39, 0, -1)], "cat[1].jpg")
    (tmp_path / "in" / "20.png").write_bytes(b"damaged")
    out, figures = tmp_path / "out", tmp_path / "run.json"
    argv = [*named, "-o", f"{out}/", "--metrics", str(figures), "--model", str(tiny), "--device", "cpu"]
    assert main(argv) == 0
    printed = capsys.readouterr()
    expected = [f"{number}.png" for number in range(39, 0, -1) if number != 20] + ["cat[1].jpg"]
    assert re.findall(r"^(.*): nothing found", printed.out, re.MULTILINE) == expected
    assert f"{named[0]} ... {named[-1]} (64x48) -> {out}" in printed.out
    assert printed.err.count("left out") == 1
    assert sorted(path.name for path in out.iterdir()) == sorted(expected)
    (source,) = json.loads(figures.read_text())["sources"]
    assert (source["label"], source["captured"], source["damaged"]) == ("39", 39, 1)


def test_results_in_the_folder_of_the_images_are_not_said_to_be_left_out(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few_pixels(tmp_path, "a.png")
    outputs = ["found/", "all.mp4", "{source}.mp4", "numbered/%d.png"]
    (tmp_path / "numbered").mkdir()
    argv = [str(tmp_path), *(word for name in outputs for word in ("-o", f"{tmp_path}/{name}")), "--overwrite"]
    for _ in range(2):
        assert main([*argv, "--model", str(tiny), "--device", "cpu", "--quiet"]) == 0
        assert not capsys.readouterr().err
    assert main([*argv[:3], "--overwrite", "--model", str(tiny), "--device", "cpu", "--quiet"]) == 0
    assert re.findall(r"left out \d \w+", capsys.readouterr().err) == ["left out 2 videos", "left out 1 folder"]


def test_images_of_one_name_from_several_folders_are_told_apart(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_pixels(tmp_path, "a/1.png", "b/1.png", "2.png")
    monkeypatch.chdir(tmp_path / "a")
    argv = ["1.png", "../b/1.png", str(tmp_path / "2.png"), "-o", "../out", "--model", str(tiny), "--quiet"]
    assert main([*argv, "--device", "cpu"]) == 0
    found = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.png")]
    assert sorted(map(str, found)) == ["2.png", str(Path("a/1.png")), str(Path("b/1.png"))]


@pytest.mark.parametrize(
    ("names", "output", "code", "words"),
    [
        (["1.png", "./1.png"], "out/", 3, "1.png was named twice; name each image once"),
        (["1.png", "3.png"], "out/", 3, "no such file: 3.png"),
        (["1.png", "2.png"], "o.png", 6, "o.png can hold one image, and 1.png ... 2.png has more"),
        (["1.png", "2.png"], ".", 6, "1.png is an image of the input"),
        (["1.png", "2.png"], "2.png", 6, "2.png is an input"),
        (["1.png", "*.png"], "out/", 2, "out/ cannot hold 2 sources"),
        (["1.png"] * 33, "{source}.jpg", 2, "images are one source where no output has {source} in its name"),
    ],
)
def test_images_that_cannot_be_one_source_are_refused_in_one_line(
    names: list[str],
    output: str,
    code: int,
    words: str,
    tmp_path: Path,
    tiny: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few_pixels(tmp_path, "1.png", "2.png")
    monkeypatch.chdir(tmp_path)
    found, line = failure(capsys, *names, "-o", output, "--overwrite", "--model", str(tiny), "--device", "cpu")
    assert found == code
    assert words in line
    assert {path.name for path in tmp_path.iterdir()} == {"1.png", "2.png", tiny.name}


@pytest.mark.parametrize(
    ("sources", "output"),
    [
        (["other/photos/", "photos/"], "{source}/"),
        (["photos.png", "photos_%d.png"], "{source}_%d.png"),
        (["other/1.png", "photos/"], "photos/{source}.png"),
    ],
)
def test_no_source_loses_an_image_to_the_results_of_another(
    sources: list[str],
    output: str,
    tmp_path: Path,
    tiny: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few_pixels(tmp_path, "other/1.png", "other/photos/1.png", "photos/1.png", "photos.png", "photos_0.png")
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    code, line = failure(capsys, *sources, "-o", output, "--overwrite", "--model", str(tiny), "--device", "cpu")
    assert code == 6
    assert "is an image of the input" in line
    assert {path: path.read_bytes() for path in before} == before


def test_each_of_several_images_can_still_have_a_result_of_its_own(tmp_path: Path, tiny: Path) -> None:
    named = few_pixels(tmp_path, "1.png", "2.jpg")
    argv = [*named, "-o", str(tmp_path / "{source}_seen.png"), "--model", str(tiny), "--device", "cpu", "--quiet"]
    assert main(argv) == 0
    assert sorted(path.name for path in tmp_path.glob("*_seen*")) == ["1_seen.png", "2_seen.png"]


def test_only_the_classes_asked_for_are_found(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(photo), "-o", str(tmp_path / "out.png"), "--classes", "cat,dog"]) == 0
    assert "person" not in capsys.readouterr().out


def test_classes_that_are_named_one_by_one_all_count() -> None:
    args = parse(["a.mp4", "--classes", "cat", "--classes", "dog,cow"])
    assert args.classes == ["cat", "dog", "cow"]
    assert parse(["a.mp4"]).classes is None


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out.strip() == f"stream-seg {__version__}"


@pytest.mark.parametrize("command", [[], ["models"], ["export"], ["eval"]])
def test_help_is_there_and_shows_the_options(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main([*command, "--help"])
    assert done.value.code == 0
    printed = capsys.readouterr().out
    assert "usage: stream-seg" in printed
    if not command:
        assert "examples:" in printed
        assert "exit codes:" in printed


def test_names_from_elsewhere_stand_for_options_that_are_there() -> None:
    known = _run_parser()._option_string_actions
    for name, here in elsewhere._OPTIONS.items():
        assert name not in known
        assert elsewhere.meant_option(name, known) == here
    assert not set(elsewhere._SENTENCES) & {*known, *elsewhere._OPTIONS}


EXPORT_ABSENT = ["export", "r50-fpn", "-o", "{tmp}/m.onnx", "--model-dir", "{tmp}", "--offline"]
"""Weights that would have to be fetched first."""


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        ([], 2, "no source"),
        (["a.mp4", "--veiw", "masks"], 2, "did you mean '--view'"),
        (["--source", "a.mp4"], 2, "a source is named without an option"),
        (["a.mp4", "--conf=0.5"], 2, "did you mean '--score-threshold'"),
        (["a.mp4", "--treshold", "0.4"], 2, "did you mean '--score-threshold'"),
        (["a.mp4", "--hide"], 2, "unknown argument --hide (see"),
        (["a.mp4", "--save"], 2, "--save (what is written is named with -o, as in -o annotated.mp4) (see"),
        (["a.mp4", "--config", "a.yaml"], 2, "did you mean '--model'"),
        (["a.mp4", "--to", "20"], 2, "did you mean '--end'"),
        (["a.mp4", "--view-img"], 2, "did you mean '--show'"),
        (["a.mp4", "--vid_stride", "2"], 2, "did you mean '--stride'"),
        (["a.mp4", "--score_threshold", "0.3"], 2, "did you mean '--score-threshold'"),
        (["a.mp4", "--blur"], 2, "did you mean '--view blurred'"),
        (["a.mp4", "--track"], 2, "--track (objects of films are followed anyway; --ids shows"),
        (["a.mp4", "--show_labels"], 2, "--show_labels (--view says what is drawn: with boxes are names"),
        (["a.mp4", "hide_conf=True"], 2, "no file hide_conf=True; --view says what is drawn"),
        (["a.mp4", "-d", "CPU"], 2, "did you mean '--device'"),
        (["a.mp4", "--serve"], 2, "argument --serve: expected one argument, as in --serve [HOST:]PORT (see"),
        (["a.mp4", "-o"], 2, "argument -o/--output: expected one argument, as in --output OUTPUT (see"),
        (["version"], 2, "no file version; it is told by stream-seg --version"),
        (["a.mp4", "-v"], 2, "did you mean '--verbose'"),
        (["a.mp4", "conf=0.3"], 2, "no file conf=0.3; options are written as in --score-threshold 0.3"),
        (["a.mp4", "show=True"], 2, "options are written as in --show"),
        (["source=a.mp4"], 2, "a source is named without an option"),
        (["predict", "a.mp4"], 2, "no file predict; a source is named alone"),
        (["size=?.jpg"], 3, "size=?.jpg"),
        (["missing=1.jpg"], 3, "no such file: missing=1.jpg"),
        (["--classes", "person", "cat", "tv", "a.mp4"], 2, "no file cat; classes have commas between them"),
        (["a.mp4", "--classes", "person,", "hot dog"], 2, "as in --classes 'person,hot dog'"),
        (["export", "compact", "--weights", "a.pth", "-o", "{tmp}/m.onnx"], 2, "unknown argument --weights (see"),
        (["a.mp4", "--view", "mask"], 2, "did you mean 'masks'"),
        (["a.mp4", "--device", "gpu"], 2, "(did you mean 'cuda'?); write auto, cpu, cuda"),
        (["a.mp4", "--device", "0"], 2, "did you mean 'cuda:0'"),
        (["a.mp4", "--device", "GPU:1"], 2, "did you mean 'cuda:1'"),
        (["a.mp4", "-o", "-.csv"], 2, "standard output takes a video (-o -) or lines of JSON (-o -.jsonl), not -.csv"),
        (["a.mp4", "--device", "tpu"], 2, "'tpu' is no device; write auto, cpu, cuda"),
        (["a.mp4", "--size", "640x480"], 2, "two sides; write the longer one alone, as in 640 (see"),
        (["a.mp4", "--batch-size", "0"], 2, "whole number of at least 1"),
        (["a.mp4", "--trails"], 2, "argument --trails: expected one argument, as in --trails 3s (see"),
        (["--trails", "a.mp4"], 2, "argument --trails: 'a.mp4' is no length of time; write a number and s, m, h or d"),
        (["a.mp4", "--trails", "5m"], 2, "trails show the last seconds; give more than 0, 60 at most, got 300"),
        (["a.mp4", "--trace", "3s"], 2, "did you mean '--trails'"),
        (["a.mp4", "--stride", "x"], 2, "whole number of at least 1"),
        (["a.mp4", "--score-threshold", "1.5"], 2, "from 0 to 1"),
        (["a.mp4", "--start", "soon"], 2, "write seconds"),
        (["a.mp4", "--start", "5", "--end", "4"], 2, "not after"),
        (["a.mp4", "--camera-size", "big"], 2, "WIDTHxHEIGHT"),
        (["a.mp4", "--camera-size", "640x000"], 2, "WIDTHxHEIGHT"),
        (["--webcam", "9" * 20], 2, "no camera number"),
        (
            ["--screen", "640x480+9"],
            2,
            "'640x480+9' is no part of a screen; write WIDTHxHEIGHT+X+Y, as in 1280x720+100+50",
        ),
        (["missing.mp4", "-o", "{tmp}/o.mp4"], 3, "missing.mp4"),
        (["synthetic:64x64@30x3", "-o", "{tmp}/o.xyz"], 6, "o.xyz"),
        (["synthetic:64x64@30x3", "-o", "{tmp}/none/o.mp4"], 6, "none"),
        (["synthetic:64x64@30x3", "-o", "{tmp}/none/frames/"], 6, "none does not exist; create it first"),
        (["synthetic:64x64@30x3", "-o", "{tmp}/o.mp4", "--codec", "hevv"], 6, "did you mean 'hevc'"),
        (["synthetic:64x64@30x3", "-o", "{tmp}/o.mp4", "--model", "compct"], 4, "did you mean 'compact'"),
        (["synthetic:64x64@30x3", "-o", "{tmp}/o.mp4", "--model", "{tmp}/no.onnx"], 4, "no.onnx"),
        (["synthetic:64x64@30x3", "-o", "{tmp}/o.mp4", "--model", __file__], 4, "test_cli.py"),
        (["synthetic:64x64@30x3", "-o", "{tmp}/o.mp4", "--classes", "preson"], 2, "did you mean 'person'"),
        (["synthetic:64x64@30x3", "-o", "{tmp}/o.mp4", "--classes", "face"], 2, "it knows person, bicycle, car, "),
        (["synthetic:64x64@30x3", "-o", "{tmp}/o.mp4", "--classes", "16"], 2, "number 16, counted from 0, is 'dog'"),
        (["synthetic:64x64@30x3", "-o", "{tmp}/o.mp4", "--classes", "People"], 2, "did you mean 'person'"),
        (["synthetic:64x64@30x3", "-o", "{tmp}/o.mp4", "--metrics", "{tmp}/none/m.json"], 6, "m.json"),
        (["n" * 300 + ".mp4", "-o", "{tmp}/o.mp4"], 3, "too long"),
        (["n" * 300, "-o", "{tmp}/o.mp4"], 3, "too long"),
        (["synthetic:64x64@30x3", "synthetic:64x64@30x3", "-o", "{tmp}/o.mp4/"], 2, "cannot hold 2 sources"),
        (["tcp://127.0.0.1:9/?" + "n" * 300, "-o", "{tmp}/o.mp4", "--reconnect", "0"], 3, "refused"),
        (["synthetic:64x64@30x3", "-o", "{tmp}/" + "n" * 300 + ".mp4"], 6, "too long"),
        (["synthetic:64x64@30x3", "-o", "{tmp}/o.mp4", "--model", "n" * 300], 4, "too long"),
        (["synthetic:64x64@30x3", "-o", "-"], 6, "standard output"),
        (["synthetic:64x64@30x3", "synthetic:64x64@30x3", "-o", "s3://h/KEY"], 6, "cannot send to an address of s3"),
        (["synthetic:64x64@30x3", "-o", "{tmp}/o.mp4", "-o", "{tmp}/./o.mp4"], 2, "two outputs"),
        (["synthetic:64x64@30x3", "-o", "{tmp}/o.mp4", "--metrics", "{tmp}/o.mp4"], 2, "two outputs"),
        (["models", "pull", "compact", "--offline"], 2, "--offline"),
        (["models", "remove", "r50-fpn", "--model-dir", "{tmp}/" + "n" * 300], 4, "too long"),
        (["models", "pul", "compact"], 2, "pull"),
        (["--verbose", "models", "pul"], 2, "stream-seg models --help"),
        (["models", "path", "r50-fpn", "--device", "cuda", "--model-dir", "{tmp}"], 4, "pull r50-fpn --device cuda"),
        (["models", "path", "zoo-r50-fpn", "--model-dir", "{tmp}"], 4, "models pull zoo-r50-fpn --model-dir {tmp}"),
        (["--offline", "export"], 2, "the subcommand comes first: stream-seg export"),
        (["model", "list"], 2, "no file and no subcommand model (did you mean 'models'?)"),
        (["synthetic:64x64@30x3", "-o", "{tmp}/o.mp4", "--metrics", "-"], 2, "name a file"),
        (["eval", "--images", "{tmp}", "--annotations", "{tmp}/a.json", "--json", "-"], 2, "name a file"),
        (["eval", "--images", "a", "--annotations", "a.json", "--score-threshold", "0.01"], 2, "scored from 0.05 on"),
        (["synthetic:64x64@30x3", "-o", "{tmp}/o.png", "-o", "{tmp}/frames/", "--codec", "hevc"], 2, "o.png is none"),
        (["models", "remove", "compact"], 4, "part of the package"),
        (["export", "nothing.pth", "-o", "{tmp}/m.onnx"], 4, "nothing.pth"),
        (["export", "compact", "-o", "{tmp}/m.onnx", "--calibrate", "a.mp4"], 2, "--calibrate is for --precision int8"),
        ([*EXPORT_ABSENT, "--precision", "fp99"], 2, "precision must be fp32, fp16 or int8, not 'fp99'"),
        ([*EXPORT_ABSENT, "--precision", "int8"], 2, "int8 needs frames to calibrate on"),
        ([*EXPORT_ABSENT, "--labels", "{tmp}/none.txt"], 2, "none.txt cannot be read"),
    ],
)
def test_a_mistake_gets_one_line_and_its_exit_code(
    argv: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    got, line = failure(capsys, *(word.replace("{tmp}", str(tmp_path)) for word in argv))
    assert words.replace("{tmp}", str(tmp_path)) in line
    assert got == code


@pytest.mark.parametrize(
    ("options", "about"),
    [
        (
            ["--camera-size", "320x240", "--camera-fps", "5"],
            ["--camera-size is for webcams", "--camera-fps is for webcams"],
        ),
        (
            ["--transport", "udp", "--max-age", "9", "--max-fps", "9"],
            [
                "--transport is for rtsp://",
                "--max-age is for webcams, screens and addresses",
                "--max-fps is for webcams, screens and addresses",
            ],
        ),
        (["--open-timeout", "3", "--stall-timeout", "3"], ["--open-timeout is for", "--stall-timeout is for"]),
        (
            ["--reconnect", "3", "--frame-rate", "10"],
            ["--reconnect is for webcams, screens and addresses", "--frame-rate is for images"],
        ),
        (["--codec", "hevc"], ["--codec is for videos"]),
        (["--sound"], ["--sound: no video file is written, so it has no effect"]),
        (["--no-sound"], ["--no-sound: no video file is written, so it has no effect"]),
        (["--ids"], []),
        (["--ids", "--no-steady"], ["with --no-steady objects have no numbers"]),
        (["--ids", "--view", "masks"], ["--view masks shows no names: --ids has no"]),
        (["--ids", "--view", "tinted"], ["--view tinted shows no names: --ids has no"]),
        (["--ids", "--view", "blurred"], ["--view blurred shows no names: --ids has no"]),
        (["--ids", "--view", "cutouts"], ["--view cutouts shows no names: --ids has no"]),
        (["--trails", "3s", "--view", "blurred"], []),
        (["--trails", "3s", "--no-steady"], ["with --no-steady objects have no numbers: --trails"]),
        (["--trails", "3s", "--view", "masks"], ["--view masks shows objects alone, on black: --trails has no"]),
        (["--trails", "3s", "--view", "cutouts"], ["--view cutouts shows objects alone, on black: --trails has no"]),
    ],
)
def test_an_option_without_effect_gets_a_word(
    options: list[str], about: list[str], tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["synthetic:64x64@30x3", "--no-show", "--model", str(tiny), "--device", "cpu", "--quiet"]
    assert main([*argv, *options]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(about)
    assert all(words in line for words, line in zip(about, lines, strict=True))


def test_no_steady_shows_photos_by_all_their_names_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cat, out = tmp_path / "chelsea.png", tmp_path / "found.json"
    cv2.imwrite(str(cat), cv2.cvtColor(data.chelsea(), cv2.COLOR_RGB2BGR))
    argv = [str(cat), "-o", str(out), "--overwrite", "--score-threshold", "0.3", "--device", "cpu", "--quiet"]
    argv += ["--size", "416", "--no-mirror"]  # with which the network finds the dog
    for options, names in ([], ["cat"]), (["--no-steady"], ["cat", "dog"]):
        assert main([*argv, *options]) == 0
        document = json.loads(out.read_text())
        called = {category["id"]: category["name"] for category in document["categories"]}
        assert [called[one["category_id"]] for one in document["annotations"]] == names
    assert capsys.readouterr().err == ""


def test_what_one_look_at_a_photo_sees_is_blurred_also_where_its_mirror_image_does_not_show_it(tmp_path: Path) -> None:
    red, out = tmp_path / "red.png", tmp_path / "found.csv"
    cv2.imwrite(str(red), np.full((60, 80, 3), (0, 0, 200), np.uint8))
    model = batched_model(tmp_path / "m.onnx", metadata={"labels": LABELS, "mirrored": "yes"})  # finds it at the left
    argv = [str(red), "-o", str(out), "--overwrite", "--model", str(model), "--device", "cpu", "--quiet"]
    for options, count in ([], 0), (["--view", "blurred"], 1), (["--view", "blurred", "--mirror"], 0):
        assert main([*argv, *options]) == 0
        assert len(out.read_text().splitlines()) == 1 + count


@pytest.mark.parametrize("option", [["--ids"], ["--trails", "3s"]])
def test_numbers_get_a_word_where_all_that_is_named_are_photos(
    option: list[str], photo: Path, tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo.with_name("film_1.jpg").write_bytes(photo.read_bytes())
    argv = ["--no-show", *option, "--model", str(tiny), "--device", "cpu", "--quiet"]
    word = f"stream-seg: {option[0]} is for films, of which none was named: it has no effect\n"
    film, numbered = "synthetic:64x64@30x3", str(tmp_path / "film_%d.jpg")
    for named, said in ([str(photo)], word), ([str(photo), film], ""), ([numbered], ""):
        assert main([*named, *argv]) == 0
        assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    "argv",
    [
        ["http://127.0.0.1:1/a.mp4", "--reconnect", "0", "--max-age", "9", "--stall-timeout", "1", "--no-show"],
        ["http://127.0.0.1:1/a.mp4", "synthetic:64x64@30x3", "--frame-rate", "10", "--reconnect", "0", "--no-show"],
    ],
)
def test_of_what_is_not_open_yet_nothing_is_supposed(
    argv: list[str], tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, "--model", str(tiny), "--device", "cpu", "--quiet"]) == 3
    printed = capsys.readouterr().err
    assert "refused" in printed
    assert ("no effect" in printed, "--frame-rate is for images" in printed) == (False, "--frame-rate" in argv)


def test_the_age_of_a_made_up_camera_matters(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["synthetic:64x64@30,live", "--max-age", "900", "--max-frames", "2", "--no-show", "--no-hud"]
    assert main([*argv, "--model", str(tiny), "--device", "cpu", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_frames_that_are_all_too_old_are_not_said_to_be_missing(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["synthetic:64x64@30,live", "--max-age", "0.0001", "--end", "0.1", "-o", str(tmp_path / "a.mp4")]
    code, line = failure(capsys, *argv, "--model", str(tiny), "--device", "cpu")
    assert code == 3
    assert re.search(r"none of \d+ frames was as new as --max-age wants; nothing was written$", line)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["-o", "{tmp}/cam[1].mp4", "--segment", "10s"], ["cam[1]_*.mp4"]),
        (["-o", "{tmp}/a.mp4", "-o", "{tmp}/a.jsonl", "--events", "1s", "--keep", "1h"], ["a_*.mp4", "a_*.jsonl"]),
        (["-o", "{tmp}/a.mp4", "-o", "{tmp}/a.jsonl", "--events", "1s", "--before", "2s"], ["a_*.mp4", "a_*.jsonl"]),
        (["-o", "{tmp}/a.mp4", "--events", "1s", "--score-threshold", "1"], []),
        (["-o", "{tmp}/50%.mp4", "-o", "{tmp}/f_%03d.png"], ["50%.mp4", "f_%03d.png"]),
        (["-o", "{tmp}/a.mp4", "-o", "{tmp}/a.part2.mp4", "-o", "{tmp}/all/"], ["a.mp4", "a.part2.mp4", "all"]),
    ],
)
def test_the_outputs_are_named_as_they_were_given(
    options: list[str], found: list[str], tiny: Path, tmp_path: Path
) -> None:
    figures = tmp_path / "run.json"
    argv = ["synthetic:64x64@30x3", *(word.replace("{tmp}", str(tmp_path)) for word in options)]
    assert main([*argv, "--metrics", str(figures), "--model", str(tiny), "--device", "cpu", "--quiet"]) == 0
    assert json.loads(figures.read_text())["outputs"] == [str(tmp_path / name) for name in found]


def test_an_unfinished_output_is_named_where_it_is_and_not_what_was_to_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures, out = tmp_path / "run.json", tmp_path / "out.mp4"
    out.write_bytes(b"mine")
    segmenter = FunctionSegmenter(Failing(after=150), ["thing"])
    monkeypatch.setattr("stream_seg.cli.run.load_model", lambda _args, _images, mirror: segmenter)
    argv = ["synthetic:64x64@30x200", "-o", str(out), "--overwrite", "--metrics", str(figures), "--quiet"]
    assert main(argv) == 1
    assert json.loads(figures.read_text())["outputs"] == [str(tmp_path / "out.part.mp4")]
    assert out.read_bytes() == b"mine"


class Failing:
    """Finds nothing, and then breaks."""

    def __init__(self, after: int) -> None:
        self._left = after

    def __call__(self, _image: Image) -> Detections:
        self._left -= 1
        if self._left < 0:
            raise RuntimeError("broken")
        return Detections.none(("thing",))


def test_an_option_that_has_an_effect_gets_none(
    tiny: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(photo), "-o", str(tmp_path / "o.mp4"), "--frame-rate", "10", "--codec", "mpeg4", "--model", str(tiny)]
    assert main([*argv, "--device", "cpu", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_what_is_for_videos_is_for_the_videos_among_the_outputs(tiny: Path, tmp_path: Path) -> None:
    video, folder = tmp_path / "o.mp4", tmp_path / "frames"
    outputs = ["-o", str(video), "-o", f"{folder}/", "-o", str(tmp_path / "found.jsonl")]
    argv = ["synthetic:64x64@30x90", *outputs, "--segment", "1s", "--codec", "mpeg4"]
    assert main([*argv, "--model", str(tiny), "--device", "cpu", "--quiet"]) == 0
    assert len(list(folder.iterdir())) == 90
    assert [len(path.read_text().splitlines()) for path in tmp_path.glob("found_*.jsonl")] == [30] * 3
    segments = sorted(tmp_path.glob("o_*.mp4"))
    assert sum(map(frames_in, segments)) == 90
    with av.open(str(segments[0])) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"


@pytest.mark.parametrize("higher", [False, True])
def test_eval_tells_what_is_right_of_what_is_shown(
    higher: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the model shows is annotated as true, and one box more."""
    picture = Path(__file__).parents[1] / "samples" / "photo.jpg"
    with load_segmenter("compact", device="cpu", long_side=416) as segmenter:
        (found,) = segmenter([cv2.imread(str(picture))])
    boxes = [(*box[:2], *(box[2:] - box[:2])) for box in found.boxes.astype(float)]
    truth = [(box, k) for box, k in zip(boxes, found.class_ids, strict=True)] + [((0, 0, 9, 9), 0)]
    height, width = cv2.imread(str(picture)).shape[:2]
    annotations = {
        "images": [{"id": 1, "file_name": picture.name, "width": width, "height": height}],
        "categories": [{"id": k, "name": name} for k, name in enumerate(found.class_names)],
        "annotations": [{"image_id": 1, "category_id": int(k), "bbox": list(box)} for box, k in truth],
    }
    (tmp_path / "a.json").write_text(json.dumps(annotations))
    out = tmp_path / "result.json"
    argv = ["eval", "--images", str(picture.parent), "--annotations", str(tmp_path / "a.json"), "--json", str(out)]
    threshold = round(float(found.scores.mean()), 3) if higher else 0.5
    argv += ["--size", "416", "--device", "cpu"] + (["--score-threshold", str(threshold)] if higher else [])
    assert main(argv) == 0
    shown = int((found.scores > threshold).sum())
    assert 0 < shown < len(found) or not higher
    result = json.loads(out.read_text())["shown"]
    assert (result["score_threshold"], result["boxes"], result["precision"]) == (threshold, shown, 100)
    assert result["recall"] == pytest.approx(100 * shown / (len(found) + 1))
    printed = capsys.readouterr().out
    assert f"above a score of {threshold}: boxes {shown}, right 100.0 % (IoU 0.50)" in printed
    assert main([*argv, "--overwrite", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_the_result_of_eval_is_kept_unless_told_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old.json").write_text("mine")
    argv = ["eval", "--images", str(tmp_path), "--annotations", str(tmp_path / "a.json")]
    code, line = failure(capsys, *argv, "--json", str(tmp_path / "old.json"))
    assert (code, "--overwrite" in line) == (6, True)
    code, line = failure(capsys, *argv, "--json", str(tmp_path / "old.json"), "--overwrite")
    assert (code, "a.json cannot be read" in line) == (3, True)
    assert (tmp_path / "old.json").read_text() == "mine"


@needs_limits
def test_of_figures_that_cannot_be_finished_nothing_is_left(
    tiny: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with load_segmenter(tiny, device="cpu") as segmenter:
        names = segmenter.class_names
    annotations = {
        "images": [{"id": 1, "file_name": photo.name, "width": 512, "height": 512}],
        "categories": [{"id": k, "name": name} for k, name in enumerate(names)],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [9, 9, 99, 99]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(annotations))
    (tmp_path / "old.json").write_text("of before")
    scores = ["eval", "--images", str(tmp_path), "--annotations", str(tmp_path / "a.json"), "--json"]
    found = ["synthetic:64x64@30x1", "-o", "{tmp}/found.csv", "--classes", names[2], "--metrics"]
    for number, argv in enumerate((scores, found)):
        options = [word.format(tmp=tmp_path) for word in argv]
        for path in (tmp_path / f"{number}.json", tmp_path / "old.json"):
            with file_limit(300):
                got = failure(capsys, *options, str(path), "--model", str(tiny), "--device", "cpu", "--overwrite")
            assert got == (6, f"stream-seg: cannot write {path}: File too large")
    assert (tmp_path / "old.json").read_text() == "of before"
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["a.json", "old.json"]


def test_an_existing_file_is_kept_unless_told_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.mp4"
    out.write_bytes(b"mine")
    code, line = failure(capsys, "synthetic:64x64@30x3", "-o", str(out))
    assert code == 6
    assert "--overwrite" in line
    assert out.read_bytes() == b"mine"
    assert main(["synthetic:64x64@30x3", "-o", str(out), "--overwrite", "--quiet"]) == 0
    assert frames_in(out) == 3


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["{mine}", "-o", "{tmp}/o.png", "--metrics", "{mine}", "--overwrite"], 6),
        (["synthetic:64x64@30x3", "-o", "{tmp}/o.mp4", "--metrics", "{mine}"], 6),
        (["eval", "--images", "{tmp}", "--annotations", "{mine}", "--json", "{mine}"], 6),
        ([*SCORES, "--model", "{mine}", "--json", "{mine}", "--overwrite"], 6),
        ([*SCORES, "--labels", "{mine}", "--json", "{mine}", "--overwrite"], 6),
        (["export", "{mine}", "-o", "{mine}", "--overwrite"], 6),
        (["export", "compact", "-o", "{mine}", "--overwrite", "--precision", "int8", "--calibrate", "{mine}"], 6),
        (["export", "compact", "-o", "{mine}", "--overwrite", "--labels", "{mine}"], 6),
    ],
    ids=[
        "figures onto the input",
        "figures onto a file",
        "scores onto the annotations",
        "scores onto the model",
        "scores onto its labels",
        "graph onto the weights",
        "graph onto what it is calibrated on",
        "graph onto its labels",
    ],
)
def test_a_file_that_is_read_or_was_there_is_not_replaced(
    argv: list[str], code: int, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = photo.read_bytes()
    got, line = failure(capsys, *(word.format(mine=photo, tmp=tmp_path) for word in argv))
    assert got == code
    assert photo.name in line
    assert photo.read_bytes() == before


def test_closed_streams_do_not_cost_the_result(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    argv = [*COMMAND, "synthetic:64x64@30x3", "-o", str(out), "--device", "cpu", "--model", str(tiny)]
    done = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *argv], timeout=60, check=False)
    assert done.returncode == 0
    assert frames_in(out) == 3


@pytest.mark.parametrize("output", ["-", "-.jsonl"])
def test_a_closed_standard_output_is_none_to_write_to(output: str, tiny: Path) -> None:
    argv = [*COMMAND, "synthetic:64x64@30x3", "-o", output, "--device", "cpu", "--model", str(tiny)]
    for end, code in ((">&-", 6), (">/dev/null", 0)):
        command = ["sh", "-c", f'exec "$@" {end}', "sh", *argv, "--quiet"]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        assert done.returncode == code
        assert len(done.stderr.splitlines()) == (code != 0)
        assert "standard output cannot be had" in done.stderr or not code


@pytest.mark.parametrize("body", [b"", b"<html>404</html>"])
def test_info_says_what_a_file_is_that_is_no_model(
    body: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(body)
    code, line = failure(capsys, "models", "info", str(file))
    assert code == 4
    assert "fetch it again" in line


def test_no_display_gets_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    code, line = failure(capsys, "synthetic:64x64@30x3")
    assert code == 7
    assert "-o" in line


def test_cuda_that_cannot_be_had_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = failure(capsys, "synthetic:64x64@30x3", "-o", str(tmp_path / "o.mp4"), "--device", "cuda:7")
    assert code == 5
    assert "cuda" in line.lower()


def test_the_figures_of_a_failed_run_are_written_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "run.json"
    nobody = "tcp://127.0.0.1:9"  # the port that discards, where nobody listens
    code, line = failure(capsys, nobody, "-o", str(tmp_path / "out.mp4"), "--metrics", str(figures), "--reconnect", "0")
    assert code == 3
    written = json.loads(figures.read_text())
    assert written["outcome"] == "failed"
    (source,) = written["sources"]
    assert (source["kind"], source["width"]) == (None, None)
    assert written["error"] == source["error"]
    assert written["error"] in line


@pytest.mark.parametrize("argv", [["models"], ["models", "list"], ["--quiet", "models"]])
def test_models_are_listed(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("compact", "r50-fpn", "r50-fpn-v2", "zoo-r50-fpn", "zoo-r50-fpn-int8"))


@pytest.mark.parametrize(("option", "said"), [([], "removed model.onnx\n"), (["--quiet"], "")])
def test_what_was_removed_is_told_unless_it_is_to_be_quiet(
    option: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(catalog, "remove", lambda name, model_dir: [Path("model.onnx")])
    assert main(["models", "remove", "r50-fpn", *option]) == 0
    assert capsys.readouterr().out == said


def test_a_model_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compact").mkdir()  # as in the folder of models of a checkout
    assert main(["models", "info", "compact"]) == 0
    assert "score_threshold" in capsys.readouterr().out


def test_the_module_is_the_command() -> None:
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == f"stream-seg {__version__}"


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], limit: float = 30.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.usefixtures("in_a_terminal")
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), *([] if sys.platform == "win32" else [(signal.SIGHUP, 129)])],
)
def test_a_signal_finishes_the_file(number: signal.Signals, code: int, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    argv = [*COMMAND, "synthetic:320x240@30", "-o", str(out), "--device", "cpu", "--model", str(tiny)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: any(part.stat().st_size > 20_000 for part in tmp_path.glob("*.part.mp4")), process)
        process.send_signal(number)
        printed, errors = process.communicate(timeout=20)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    delivered = re.search(r"(\d+) delivered", printed)
    assert delivered is not None
    assert frames_in(out) == int(delivered[1]) > 0
    assert {path.name for path in tmp_path.iterdir()} == {tiny.name, "out.mp4"}


@pytest.mark.usefixtures("in_a_terminal")
@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_a_terminal_that_goes_away_says_so_twice_and_ends_the_run_once() -> None:
    stops: list[str] = []
    with ending_signals() as ending:
        ending.stop = lambda: stops.append("stop")
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
    assert stops == ["stop"]
    assert ending.exit_code == 129


@pytest.mark.skipif(sys.platform == "win32", reason="processes do not end by signals there")
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_twice_at_once_is_one_and_a_later_one_ends_the_process(second: signal.Signals) -> None:
    code = (
        "import signal, time\n"
        "from stream_seg.cli.signals import ending_signals\n"
        "with ending_signals() as ending:\n"
        "    ending.stop = lambda: print('stop', flush=True)\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        f"    signal.raise_signal({second:d})\n"
        "    print('goes on', flush=True)\n"
        "    time.sleep(0.5)\n"
        f"    signal.raise_signal({second:d})\n"
        "    print('never')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (-second, "stop\ngoes on\n"), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere terminals that have gone fail in other ways")
@pytest.mark.parametrize("printing", [tell, tell_beside_bars])
def test_what_is_printed_to_a_terminal_that_has_gone_costs_no_result(
    printing: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal, end = os.openpty()
    with os.fdopen(end, "w") as output:
        os.close(terminal)
        monkeypatch.setattr(sys, "stdout", output)
        printing("photo.jpg: person 0.96")
        printing("photo2.jpg: person 0.97")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_a_run_that_is_to_outlive_its_terminal_does() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with ending_signals() as ending:
            signal.raise_signal(signal.SIGHUP)
        assert ending.exit_code == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("interruption", "code"), [(KeyboardInterrupt(), 130), (Interrupted(signal.SIGTERM), 143)])
def test_an_interruption_that_a_library_makes_an_error_of_is_still_one(
    interruption: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def parse(_: object) -> None:
        try:
            raise interruption
        except BaseException as error:
            raise ImportError("initialization failed") from error

    monkeypatch.setattr("stream_seg.cli.arguments.parse", parse)
    assert main(["a.mp4"]) == code
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="processes do not end by signals there")
@pytest.mark.parametrize("library", ["tqdm", "av"])
def test_an_interruption_that_a_library_loses_ends_the_command_all_the_same(library: str, tmp_path: Path) -> None:
    losing = "import contextlib, signal\nwith contextlib.suppress(BaseException): signal.raise_signal(signal.SIGINT)\n"
    (tmp_path / f"{library}.py").write_text(f"{losing}class tqdm: pass\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from stream_seg.cli import main; main(['models'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize(("left_behind", "ending"), [(True, ""), (False, "Python was taken apart\n")])
def test_the_program_waits_for_nothing_where_a_thread_was_left_behind(left_behind: bool, ending: str) -> None:
    """FFmpeg in that thread would call into what Python has taken apart, and crash."""
    code = f"""
import atexit, threading, time
import stream_seg.cli as cli
atexit.register(print, "Python was taken apart")
if {left_behind}:
    threading.Thread(target=time.sleep, args=(60,), name="stream-seg-reader udp://:5000", daemon=True).start()
cli.main = lambda: print("done") or 6
cli.program()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (6, "done\n" + ending, "")


def test_an_interruption_that_was_lost_before_a_run_ends_it() -> None:
    with ending_signals() as ending:
        with suppress(Interrupted):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted):
            ending.leave_to(lambda: None)


def test_an_interruption_that_is_ignored_stays_so_while_libraries_are_loaded() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptions_end_at_once():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_program_may_run_the_command_on_a_thread_which_may_handle_no_signal() -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(["models"])))
    thread.start()
    thread.join()
    assert codes == [0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only: a device that is always full")
def test_a_full_disk_behind_standard_output_is_told_in_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, "models"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 6
    assert done.stderr.strip() == "stream-seg: cannot write to standard output: No space left on device"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only: a device that is always full")
def test_what_was_found_that_cannot_be_printed_is_told_in_one_line(tiny: Path, photo: Path, tmp_path: Path) -> None:
    argv = [str(photo), "-o", str(tmp_path / "out.png"), "--device", "cpu", "--model", str(tiny)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, *argv], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 6
    assert done.stderr.strip() == "stream-seg: cannot write to standard output: No space left on device"


def test_a_name_that_standard_output_has_no_letters_for_costs_nothing(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("1-日本.png", "2-caf\udce9.png"):  # the second is Latin-1, as old disks have it
        (folder / name).write_bytes(cv2.imencode(".png", np.zeros((48, 64, 3), np.uint8))[1].tobytes())
    out = tmp_path / "出力"
    argv = [*COMMAND, str(folder), "-o", f"{out}/", "--device", "cpu", "--model", str(tiny)]
    done = subprocess.run(argv, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list(out.iterdir())) == 2
    assert b"1-\\u65e5\\u672c.png: nothing found" in done.stdout
    assert b"2-caf\\udce9.png: nothing found" in done.stdout


def test_no_name_gives_orders_to_the_terminal(
    tiny: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "photos", tmp_path / "to\x9b1m\x07"
    folder.mkdir()
    photo.rename(folder / "a\x1b[31m\n.jpg")
    (folder / "b\x1b[0m.jpg").write_bytes(b"no image")
    assert main([str(folder / "*"), "-o", str(out), "--model", str(tiny)]) == 0
    assert main([str(folder / "b*"), "-o", str(out / "b")]) == 3
    told = capsys.readouterr()
    assert told.out.splitlines()[0].startswith(r"a\x1b[31m\n.jpg: ")
    assert told.out.splitlines()[1].endswith(r"to\x9b1m\x07")
    assert [r"b\x1b[0m.jpg" in line for line in told.err.splitlines()] == [True, True]
    assert all(character == "\n" or character.isprintable() for character in told.out + told.err)


def test_cutouts_are_transparent_in_images_that_can_be(photo: Path, tmp_path: Path) -> None:
    cut = [tmp_path / name for name in ("cut.png", "cut_%d.webp", "cut.jpg")]
    outputs = [word for path in cut for word in ("-o", str(path))]
    assert main([str(photo), *outputs, "--view", "cutouts", "--device", "cpu", "--quiet"]) == 0
    png, webp, jpg = (cv2.imread(str(path).replace("%d", "0"), cv2.IMREAD_UNCHANGED) for path in cut)
    for image in png, webp:
        assert image is not None
        assert (image[250, 230, 3], image[250, 500, 3]) == (255, 0)
    assert jpg is not None
    assert jpg.shape[2] == 3
    assert main([str(photo), "-o", str(cut[0]), "--view", "masks", "--device", "cpu", "--overwrite", "--quiet"]) == 0
    png = cv2.imread(str(cut[0]), cv2.IMREAD_UNCHANGED)
    assert png is not None
    assert png.shape[2] == 3


def test_calibration_takes_frames_from_all_over_a_recording_and_no_more_than_it_may() -> None:
    assert sum(1 for _ in calibration_frames("synthetic:16x16@30x205")) == CALIBRATION_FRAMES
    assert sum(1 for _ in calibration_frames("synthetic:16x16@30x7")) == 7


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only: a device that is always full")
def test_a_log_that_cannot_be_written_ends_no_run_and_changes_no_exit_code(tiny: Path, tmp_path: Path) -> None:
    argv = ["tcp://127.0.0.1:1/", "synthetic:64x64@30x12", "-o", str(tmp_path / "{source}.mp4"), "--reconnect", "1"]
    argv += ["--model", str(tiny)]
    with Path("/dev/full").open("w") as full:
        refused = subprocess.run([*COMMAND, "nothing.mp4"], stderr=full, check=False)
        done = subprocess.run([*COMMAND, *argv], stderr=full, stdout=subprocess.PIPE, text=True, check=False)
    assert refused.returncode == 3
    assert done.returncode == 3
    assert "(tried again once)" in done.stdout
    assert frames_in(tmp_path / "synthetic.mp4") == 12
