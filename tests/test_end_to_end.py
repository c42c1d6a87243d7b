"""From file to file through the command: every frame, its time and the sound arrive, whatever the recording is like."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import pytest
from skimage import data

from stream_seg.cli import main
from tests.sink_films import read, sounds
from tests.source_files import number_of, write_video
from tests.tiny_models import batched_model

VARIABLE = [0, 33, 100, 133, 400, 420, 453, 520, 521, 700, 733, 766]
"""Times in milliseconds of a recording without a steady rate."""


def annotate(source: Path, out: Path, *options: str) -> None:
    # Nothing of the numbered pictures is an object, so the numbers stay readable; the smallest size finds out soonest.
    found = ["--device", "cpu", "--score-threshold", "1", "--size", "64"]
    argv = [str(source), "-o", str(out), "--quiet", *found, *options]
    assert main(argv) == 0


def same_times(source: Path, out: Path, tolerance: Fraction = Fraction(0)) -> None:
    before, after = read(source), read(out)
    assert len(after.times) == len(before.times) > 0
    shift = before.times[0] - after.times[0]
    assert all(abs(b - a - shift) <= tolerance for b, a in zip(before.times, after.times, strict=True))
    frame = (before.times[-1] - before.times[0]) / (len(before.times) - 1)
    assert abs(before.duration - after.duration) < frame


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"pts": VARIABLE},
        {"size": (161, 91), "pixel_format": "yuv444p"},
        {"turn": (90.0, False, False)},
        {"codec": "libx265", "pixel_format": "yuv420p10le", "options": {"x265-params": "log-level=none"}},
        {"sound": True},
    ],
    ids=["constant", "variable", "odd", "rotated", "10-bit", "sounding"],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_every_frame_arrives_at_its_time(kind: dict[str, object], suffix: str, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", len(VARIABLE), **kind)  # type: ignore[arg-type]
    out = tmp_path / f"out{suffix}"
    annotate(source, out)
    # Matroska counts in milliseconds.
    same_times(source, out, Fraction(0) if suffix == ".mp4" else Fraction(1, 1000))
    if "turn" not in kind and "size" not in kind:
        with av.open(str(out)) as container:
            pictures = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
        assert [number_of(picture) for picture in pictures] == list(range(len(pictures)))
    if "sound" in kind:
        assert [s.packets for s in sounds(out)] == [s.packets for s in sounds(source)] != []


def test_a_rotated_recording_comes_out_upright(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", 3, size=(160, 96), turn=(90.0, False, False))
    annotate(source, tmp_path / "out.mp4")
    assert read(tmp_path / "out.mp4").picture.shape[:2] == (160, 96)


def test_a_part_of_a_recording_has_the_length_asked_for(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", 60, sound=True)
    annotate(source, tmp_path / "out.mp4", "--start", "0.5", "--end", "1.5")
    out = read(tmp_path / "out.mp4")
    rate = len(read(source).times) / read(source).duration
    assert len(out.times) == round(rate)
    assert abs(out.duration - 1) < 1 / rate
    assert sounds(tmp_path / "out.mp4")[0].times[-1] < 1.03  # the last packet of sound may overhang


def test_a_stride_keeps_the_timing(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", 30)
    annotate(source, tmp_path / "out.mp4", "--stride", "3")
    assert read(tmp_path / "out.mp4").times == read(source).times[::3]


def test_a_pipe_of_a_recording_becomes_a_file(tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.ts", 20)
    out = tmp_path / "out.mp4"
    tiny = batched_model(tmp_path / "tiny.onnx")
    argv = [sys.executable, "-m", "stream_seg", "-", "-o", str(out), "--device", "cpu", "--quiet", "--model", str(tiny)]
    with source.open("rb") as stream:
        done = subprocess.run(argv, stdin=stream, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(read(out).times) == 20


def test_several_outputs_are_written_at_once(tmp_path: Path) -> None:
    photo, first, second = tmp_path / "photo.png", tmp_path / "a.jpg", tmp_path / "b.webp"
    cv2.imwrite(str(photo), cv2.cvtColor(data.chelsea(), cv2.COLOR_RGB2BGR))
    assert main([str(photo), "-o", str(first), "-o", str(second), "--quiet"]) == 0
    assert first.is_file()
    assert second.is_file()


def test_the_output_is_never_the_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_video(tmp_path / "in.mp4", 5)
    before = source.read_bytes()
    link = tmp_path / "link.mp4"
    link.symlink_to(source)
    for out in (source, link):
        assert main([str(source), "-o", str(out), "--overwrite", "--quiet"]) == 6
    assert source.read_bytes() == before
    assert "input" in capsys.readouterr().err


def test_a_folder_is_never_written_onto_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), cv2.cvtColor(data.chelsea(), cv2.COLOR_RGB2BGR))
    before = photo.read_bytes()
    assert main([str(tmp_path), "-o", str(tmp_path), "--overwrite", "--quiet"]) == 6
    assert main([os.path.join(tmp_path, "*.png"), "-o", str(tmp_path), "--overwrite", "--quiet"]) == 6  # noqa: PTH118
    assert photo.read_bytes() == before
    assert "stream-seg:" in capsys.readouterr().err
