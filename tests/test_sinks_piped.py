"""A video or lines into a pipe: the same as in a file, for as long as somebody reads it."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import av
import numpy as np
import pytest

from stream_seg.cli import main
from stream_seg.detections import Detections
from stream_seg.errors import OutputError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.protocols import Outcome, Sink
from stream_seg.sinks import ObjectsFile, Pipe, PipedObjects, PipedVideo, VideoFile, open_sink
from tests.sink_films import CFR, NOTHING, VFR, deliver, frames, info, noise, read, record, recording, sounds
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


@pytest.mark.parametrize("kind", [PipedVideo, PipedObjects])
def test_a_reader_that_goes_away_ends_the_run_in_good_order(kind: type[PipedVideo] | type[PipedObjects]) -> None:
    out, into = os.pipe()
    with os.fdopen(into, "wb", buffering=0) as pipe:
        sink = kind(pipe)
        sink.open(info())
        first, *others = frames(CFR[:8])
        sink.write(first, NOTHING)
        assert not sink.wants_stop()
        os.close(out)
        for frame in others:
            sink.write(frame, NOTHING)
        assert sink.wants_stop()
        assert not sink.holds()
        sink.close(Outcome.STOPPED)


LARGE = [Frame(noise(number, (320, 240)), number, pts, 0.0) for number, pts in enumerate(CFR[:20])]
"""Each takes more than a pipe holds."""


@pytest.fixture
def pipe() -> Iterator[tuple[int, IO[bytes]]]:
    """Where it is read, and where it is written."""
    out, into = os.pipe()
    with os.fdopen(into, "wb", buffering=0) as writable:
        yield out, writable
    os.close(out)


class Reader:
    """Takes what comes from a pipe until that is closed, a little at a time."""

    def __init__(self, descriptor: int) -> None:
        self.data = b""
        self._descriptor = descriptor
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def pictures(self) -> int:
        """How many have come, once the other end is closed."""
        self._thread.join(10)
        with av.open(io.BytesIO(self.data)) as container:
            return sum(1 for packet in container.demux(video=0) if packet.size)

    def lines(self) -> list[dict[str, object]]:
        """What has come, each of whole lines, once the other end is closed."""
        self._thread.join(10)
        return [json.loads(line) for line in self.data.splitlines(keepends=True) if line.endswith(b"\n")]

    def _read(self) -> None:
        while more := os.read(self._descriptor, 20000):
            self.data += more


def test_a_reader_that_takes_nothing_costs_a_live_source_frames_and_holds_up_nothing(
    pipe: tuple[int, IO[bytes]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("stream_seg.sinks.piped._PARTING_SECONDS", 0.1)
    out, into = pipe
    sink = PipedVideo(into)
    sink.open(SourceInfo("door", (320, 240), "live", time_base=info().time_base))
    began = time.monotonic()
    for frame in LARGE:
        sink.write(frame, NOTHING)
        assert not sink.holds()  # which would hold up what is written beside it
    sink.close(Outcome.STOPPED)
    assert time.monotonic() - began < 5
    assert caplog.messages == ["the reader of the pipe took nothing: the end of the video is not in it"]
    into.close()
    assert Reader(out).pictures() < 5


def test_a_recording_is_held_until_the_reader_takes_it(pipe: tuple[int, IO[bytes]]) -> None:
    out, into = pipe
    sink = PipedVideo(into)
    sink.open(info(size=(320, 240)))
    rest = iter(LARGE)
    while not sink.holds():
        sink.write(next(rest), NOTHING)
    assert sink.holds()
    sink.write(next(rest), NOTHING)  # as once the run is to end; it waits for nothing
    reader = Reader(out)
    for frame in rest:
        while sink.holds():
            pass
        sink.write(frame, NOTHING)
    sink.close(Outcome.COMPLETE)
    into.close()
    assert reader.pictures() == len(LARGE)


@pytest.mark.parametrize("kind", ["video", "live"])
def test_a_reader_that_does_not_take_the_end_holds_up_no_run_that_is_stopped_then(
    kind: str, pipe: tuple[int, IO[bytes]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("stream_seg.sinks.piped._PARTING_SECONDS", 0.1)
    _, into = pipe
    sink = PipedVideo(into)
    sink.open(dataclasses.replace(info(size=(320, 240)), kind="live" if kind == "live" else "video"))
    sink.write(LARGE[0], NOTHING)
    assert not sink.holds()
    sink.ended()
    assert sink.holds()
    sink.close(Outcome.STOPPED)
    assert caplog.messages == ["the reader of the pipe took nothing: the end of the video is not in it"]


def test_who_does_not_ask_waits_for_the_reader(pipe: tuple[int, IO[bytes]]) -> None:
    out, into = pipe
    reader = Reader(out)
    deliver(PipedVideo(into), info(size=(320, 240)), LARGE)
    into.close()
    assert reader.pictures() == len(LARGE)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only: a device that is always full")
@pytest.mark.parametrize("kind", [PipedVideo, PipedObjects])
def test_what_cannot_be_written_for_another_reason_is_told(kind: Callable[[IO[bytes]], Sink]) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        sink = kind(full)
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


@pytest.mark.parametrize(
    ("output", "words"), [("-", "a video would fill"), ("-.jsonl", "a list of objects would fill")]
)
def test_a_terminal_is_not_filled_with_what_is_for_a_program(output: str, words: str, tmp_path: Path) -> None:
    terminal, inside = pty.openpty()
    argv = ["synthetic:64x64@30x5", "-o", output, "--model", str(batched_model(tmp_path / "tiny.onnx"))]
    try:
        done = subprocess.run([*COMMAND, *argv], stdout=inside, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(inside)
        os.close(terminal)
    assert (done.returncode, done.stderr.count("\n")) == (6, 1)
    assert words in done.stderr
    assert "pipe it into a program" in done.stderr


def many(count: int = 100) -> Detections:
    """So many things that a few lines of them are more than a pipe holds."""
    boxes = np.tile(np.array([[4, 6, 34, 40]], np.float32), (count, 1))
    masks = np.full((count, 28, 28), 0.9, np.float32)
    return Detections(boxes, np.full(count, 0.9, np.float32), np.zeros(count, int), masks, ("person",))


LIVE = SourceInfo("door", (64, 48), "live", time_base=info().time_base)


def test_lines_are_those_of_a_file_and_in_the_pipe_at_once(tmp_path: Path, pipe: tuple[int, IO[bytes]]) -> None:
    out, into = pipe
    about, shown = info(), frames(CFR[:5])
    file, piped = ObjectsFile(tmp_path / "a.jsonl"), PipedObjects(into)
    file.open(about)
    piped.open(about)
    assert piped.result is None
    got = b""
    for frame in shown:
        file.write(frame, many(3))
        piped.write(frame, many(3))
        got += os.read(out, 65536)
        assert got == (tmp_path / "a.part.jsonl").read_bytes()
    piped.close(Outcome.COMPLETE)
    file.close(Outcome.COMPLETE)
    assert piped.result == "a pipe"
    assert not into.closed


def test_a_reader_that_takes_nothing_costs_a_live_source_whole_lines(pipe: tuple[int, IO[bytes]]) -> None:
    out, into = pipe
    sink = PipedObjects(into)
    sink.open(LIVE)
    shown = frames(CFR)
    for frame in shown[:-1]:
        sink.write(frame, many())
        assert not sink.holds()  # which would hold up what is written beside it
    reader = Reader(out)
    while not sink._pipe.pass_on(0):
        assert not sink.wants_stop()  # when the rest of the last line gets there
    sink.write(shown[-1], many())
    sink.close(Outcome.COMPLETE)
    into.close()
    numbers = [line["frame"] for line in reader.lines()]
    assert len(numbers) < len(CFR) - 5
    assert numbers == [*range(len(numbers) - 1), len(CFR) - 1]
    assert reader.data.count(b"\n") == len(numbers)
    assert reader.data.endswith(b"\n")


def test_lines_of_a_recording_wait_for_the_reader(pipe: tuple[int, IO[bytes]]) -> None:
    out, into = pipe
    sink = PipedObjects(into)
    sink.open(info())
    rest = iter(frames(CFR))
    while not sink.holds():
        sink.write(next(rest), many())
    reader = Reader(out)
    for frame in rest:
        while sink.holds():
            pass
        sink.write(frame, many())
    sink.ended()
    sink.close(Outcome.COMPLETE)
    into.close()
    assert [line["frame"] for line in reader.lines()] == list(range(len(CFR)))


def test_lines_of_a_recording_wait_for_the_reader_also_where_nobody_asks(pipe: tuple[int, IO[bytes]]) -> None:
    out, into = pipe
    reader = Reader(out)
    sink = PipedObjects(into)
    sink.open(info())
    for frame in frames(CFR):
        sink.write(frame, many())
    sink.close(Outcome.COMPLETE)
    into.close()
    assert len(reader.lines()) == len(CFR)


def test_several_sources_share_a_pipe_line_by_line_and_the_last_to_end_waits_for_its_reader(
    pipe: tuple[int, IO[bytes]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("stream_seg.sinks.piped._PARTING_SECONDS", 0.1)
    out, into = pipe
    shared = Pipe(into.fileno())
    door, yard = PipedObjects(shared, source="door"), PipedObjects(shared, source="yard")
    door.open(LIVE)
    yard.open(LIVE)
    for frame in frames(CFR):
        door.write(frame, many())
        yard.write(frame, many())
    door.ended()
    assert not door.holds()  # for the yard goes on
    door.close(Outcome.COMPLETE)
    assert caplog.messages == []
    yard.ended()
    assert yard.holds()
    yard.close(Outcome.STOPPED)
    assert caplog.messages == ["the reader of the pipe took nothing: the last lines are not in it"]
    into.close()
    lines = Reader(out).lines()
    assert [line["source"] for line in lines[:2]] == ["door", "yard"]


def test_no_line_is_cut_off_where_the_last_source_to_be_closed_never_had_a_frame(pipe: tuple[int, IO[bytes]]) -> None:
    out, into = pipe
    shared = Pipe(into.fileno())
    door, away = PipedObjects(shared, source="door"), PipedObjects(shared, source="away")
    door.open(LIVE)
    for frame in frames(CFR):
        door.write(frame, many())
    assert not shared.pass_on(0)
    door.close(Outcome.STOPPED)
    reader = Reader(out)
    away.close(Outcome.STOPPED)
    into.close()
    assert reader.lines()
    assert reader.data.endswith(b"\n")


@pytest.mark.parametrize("sources", [1, 2])
def test_the_command_has_nothing_but_the_lines_on_standard_output(sources: int, tmp_path: Path) -> None:
    argv = ["synthetic:64x64@30x5"] * sources + ["-o", "-.jsonl", "--model", str(batched_model(tmp_path / "tiny.onnx"))]
    argv += ["-o", str(tmp_path / "{source}.jsonl"), "--device", "cpu", "--verbose"]
    done = subprocess.run([*COMMAND, *argv], capture_output=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    files = {path.stem: path.read_text("ascii").splitlines() for path in tmp_path.glob("*.jsonl")}
    assert [len(lines) for lines in files.values()] == [5] * sources
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 5 * sources
    for label, expected in files.items():
        own = [line for line in lines if line.get("source", label) == label]
        assert [{key: value for key, value in line.items() if key != "source"} for line in own] == [
            json.loads(line) for line in expected
        ]
    assert all(("source" in line) == (sources > 1) for line in lines)
    assert done.stderr.count(b"a pipe") == 1


def test_a_program_that_has_read_enough_lines_ends_the_run(tmp_path: Path) -> None:
    film = tmp_path / "film.mkv"
    argv = ["synthetic:64x64@30", "-o", "-.jsonl", "-o", str(film), "--model", str(batched_model(tmp_path / "t.onnx"))]
    with subprocess.Popen([*COMMAND, *argv, "--quiet"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["frame"] == 0
        process.stdout.close()
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert read(film).times


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["-o", "-.jsonl", "-o", "-"], 2, "standard output can be had once, and -.jsonl and - were named"),
        (["--output", "-.jsonl", "-o", "-.jsonl"], 2, "standard output can be had once"),
        (["-o", "-.jsonl", "--codec", "hevc"], 2, "--codec hevc is for videos, and -.jsonl is none"),
        (["-o", "-.jsonl", "--segment", "10m"], 2, "--segment cuts a recording, so it needs an output"),
        (["-o", "-.jsonl", "--events", "10s"], 2, "--events cuts a recording, so it needs an output"),
    ],
)
def test_what_has_no_meaning_for_lines_in_a_pipe_is_refused(
    argv: list[str], code: int, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["synthetic:64x64@30x5", *argv]) == code
    printed = capfd.readouterr()
    assert words in printed.err
    assert (printed.err.count("\n"), printed.out) == (1, "")


@pytest.mark.parametrize(("name", "sink"), [("-", "PipedVideo"), ("-.jsonl", "PipedObjects")])
def test_a_name_that_stands_for_standard_output_names_no_file_in_a_program(name: str, sink: str) -> None:
    with pytest.raises(OutputError, match=rf"is written by {sink}; name a file or a folder \(\./{name} for one"):
        open_sink(name)
