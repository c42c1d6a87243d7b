"""Standard input: a stream another program writes."""

from __future__ import annotations

import contextlib
import itertools
import os
import pty
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import pytest

from stream_seg.errors import SourceError
from stream_seg.sources import Pipe
from tests.source_files import matroska, numbers_of, write_video

ROOT = Path(__file__).parents[1]

PIPE_BYTES = 1 << 16
"""What a pipe holds on Linux."""

READ_ALL = """
from stream_seg.sources import open_source
from tests.source_files import numbers_of
with open_source("-") as source:
    print(source.info.name, source.info.kind, *numbers_of(list(source)))
"""


def test_every_frame_of_a_piped_stream_arrives(tmp_path: Path) -> None:
    stream = write_video(tmp_path / "film.ts", 40, options={"g": "10", "bf": "2"}).read_bytes()
    done = subprocess.run([sys.executable, "-c", READ_ALL], input=stream, cwd=ROOT, capture_output=True, timeout=30)
    assert done.stderr == b""
    assert done.stdout.decode().split() == ["standard", "input", "video", *map(str, range(40))]


def test_the_writer_waits_for_the_reader(tmp_path: Path) -> None:
    stream = write_raw(tmp_path / "film.mkv").read_bytes()
    assert len(stream) > 4 * PIPE_BYTES
    reading, writing = os.pipe()
    writer = threading.Thread(target=write_all, args=(writing, stream))
    writer.start()
    with Pipe(reading) as source:
        frames = iter(source)
        next(frames)
        assert writer.is_alive()
        assert 1 + len(list(frames)) == 30
    writer.join()
    os.close(reading)


def write_raw(path: Path) -> Path:
    """Write a video that is far larger than a pipe."""
    return write_video(path, 30, size=(320, 240), codec="rawvideo", pixel_format="uyvy422", options={})


def write_all(fd: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), os.fdopen(fd, "wb") as out:
        out.write(data)


@pytest.mark.parametrize("good", [0, 3])
def test_an_input_that_cannot_be_read_any_further_is_an_error_that_says_so(tmp_path: Path, good: int) -> None:
    fd = os.open(write_raw(tmp_path / "film.mkv"), os.O_RDONLY)
    folder = os.open(tmp_path, os.O_RDONLY)  # reading it is an error
    with contextlib.ExitStack() as stack:
        frames = iter(stack.enter_context(Pipe(fd))) if good else iter(())
        assert numbers_of(list(itertools.islice(frames, good))) == list(range(good))
        os.dup2(folder, fd)
        with pytest.raises(SourceError, match=r"^pipe broke off: is a directory$"):
            list(frames if good else stack.enter_context(Pipe(fd)))
    os.close(fd)
    os.close(folder)


def test_times_in_a_pipe_are_exact() -> None:
    reading, writing = os.pipe()
    write_all(writing, matroska(10))
    with Pipe(reading) as source:
        frames = list(source)
    os.close(reading)
    assert numbers_of(frames) == list(range(10))
    assert [frame.pts for frame in frames] == [Fraction(index, 25) for index in range(10)]


def test_closing_wakes_a_reader_whose_writer_is_silent() -> None:
    reading, writing = os.pipe()
    os.write(writing, matroska(60))  # and then nothing, but the pipe stays open
    with Pipe(reading) as source:
        frames = iter(source)
        next(frames)
        threading.Timer(0.2, source.close).start()
        began = time.monotonic()
        list(frames)
        assert time.monotonic() - began < 2
    os.close(writing)
    os.close(reading)


def test_a_terminal_is_refused() -> None:
    ours, theirs = pty.openpty()
    with pytest.raises(SourceError, match="standard input is a terminal; pipe a video into it, as in: ffmpeg"):
        Pipe(theirs)
    os.close(ours)
    os.close(theirs)


def test_a_closed_input_is_refused() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    with pytest.raises(SourceError, match="standard input is closed"):
        Pipe(reading)


@pytest.mark.parametrize("data", [b"", b"this is no video at all" * 100])
def test_what_is_not_a_video_is_refused(data: bytes) -> None:
    reading, writing = os.pipe()
    write_all(writing, data)
    with pytest.raises(SourceError, match=r"cannot read pipe: .*write MPEG-TS or Matroska into it"):
        Pipe(reading).__enter__()
    os.close(reading)


def test_an_mp4_that_must_be_read_from_its_end_is_refused(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    writer = threading.Thread(target=write_all, args=(writing, write_raw(tmp_path / "film.mov").read_bytes()))
    writer.start()
    words = r"be decoded; an \.mp4 or \.mov with its index at its end .*: name the file instead, .*; write MPEG-TS or"
    with pytest.raises(SourceError, match=words):
        Pipe(reading).__enter__()
    os.close(reading)
    writer.join()
