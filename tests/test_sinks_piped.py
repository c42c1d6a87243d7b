"""A video into a pipe: the same as in a file, for as long as somebody reads it."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import av
import pytest

from stream_seg.errors import OutputError
from stream_seg.protocols import Outcome
from stream_seg.sinks import PipedVideo, VideoFile
from tests.sink_films import CFR, NOTHING, VFR, deliver, frames, info, read, record, recording, sounds
from tests.tiny_models import batched_model

COMMAND = [sys.executable, "-m", "stream_seg"]


def test_pictures_and_sound_are_those_of_a_file(tmp_path: Path) -> None:
    about, shown = recording(record(tmp_path / "in.mp4"))
    file, piped = tmp_path / "file.mkv", tmp_path / "piped.mkv"
    deliver(VideoFile(file), about, shown)
    with piped.open("wb") as pipe:
        sink = PipedVideo(pipe)
        deliver(sink, about, shown)
        sink.close(Outcome.COMPLETE)
        assert not pipe.closed
    assert read(piped).times == read(file).times
    assert [sound.packets for sound in sounds(piped)] == [sound.packets for sound in sounds(file)]
    assert sink.result == "a pipe"


def test_a_frame_can_be_read_once_the_third_after_it_has_come() -> None:
    out, into = os.pipe()
    with os.fdopen(out, "rb") as reader, os.fdopen(into, "wb") as pipe:
        os.set_blocking(out, False)
        sink = PipedVideo(pipe)
        sink.open(info(VFR))
        got = b""
        for number, frame in enumerate(frames(VFR[:6])):
            sink.write(frame, NOTHING)
            got += reader.read() or b""
            if number >= 3:
                with av.open(io.BytesIO(got)) as container:
                    assert sum(1 for packet in container.demux(video=0) if packet.size) == number - 2
        sink.close(Outcome.STOPPED)


def test_a_reader_that_goes_away_ends_the_run_in_good_order() -> None:
    out, into = os.pipe()
    with os.fdopen(into, "wb", buffering=0) as pipe:
        sink = PipedVideo(pipe)
        sink.open(info())
        first, *others = frames(CFR[:8])
        sink.write(first, NOTHING)
        assert not sink.wants_stop()
        os.close(out)
        for frame in others:
            sink.write(frame, NOTHING)
        assert sink.wants_stop()
        sink.close(Outcome.STOPPED)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only: a device that is always full")
def test_what_cannot_be_written_for_another_reason_is_told() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        sink = PipedVideo(full)
        sink.open(info())
        (frame,) = frames(CFR[:1])
        with pytest.raises(OutputError, match="cannot write to the pipe: No space left on device"):
            sink.write(frame, NOTHING)
        sink.close(Outcome.FAILED)  # the first failure is the one to tell


def test_a_codec_that_matroska_cannot_hold_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as pipe, pytest.raises(OutputError, match="no video codec"):
        PipedVideo(pipe, codec="h265x")


@pytest.mark.parametrize("sources", [1, 2])
def test_the_command_has_nothing_but_the_video_on_standard_output(sources: int, tmp_path: Path) -> None:
    argv = ["synthetic:64x64@30x5"] * sources + ["-o", "-", "--model", str(batched_model(tmp_path / "tiny.onnx"))]
    if sources == 1:
        argv += ["-o", str(tmp_path / "found.jsonl"), "--codec", "hevc"]
    done = subprocess.run([*COMMAND, *argv, "--device", "cpu"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    with av.open(io.BytesIO(done.stdout)) as container:
        assert container.streams.video[0].codec_context.name == ("hevc" if sources == 1 else "h264")
        assert sum(1 for packet in container.demux(video=0) if packet.size) == 5
    assert b"-> a pipe" in done.stderr
    assert b"5 captured, 5 delivered" in done.stderr or sources == 2


def test_a_terminal_is_not_filled_with_a_video(tmp_path: Path) -> None:
    terminal, inside = pty.openpty()
    argv = ["synthetic:64x64@30x5", "-o", "-", "--model", str(batched_model(tmp_path / "tiny.onnx"))]
    try:
        done = subprocess.run([*COMMAND, *argv], stdout=inside, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(inside)
        os.close(terminal)
    assert (done.returncode, done.stderr.count("\n")) == (6, 1)
    assert "pipe it into a program" in done.stderr
