"""Standard input: a stream another program writes."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import pytest

from stream_seg.errors import SourceError
from stream_seg.protocols import Outcome
from stream_seg.sinks import VideoFile
from stream_seg.sinks.distant import Distant
from stream_seg.sinks.recorded import Recorded
from stream_seg.sources import Clip, Pipe
from stream_seg.sources import tee as tee_module
from stream_seg.sources.decoding import Decoder
from stream_seg.sources.tee import Tee
from tests.sink_films import NOTHING, copied, deliver, noise, read, record, sounds
from tests.source_counts import until
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


@pytest.mark.parametrize("good", [0, 3])
def test_what_an_input_needed_that_broke_off_is_let_go_at_once(tmp_path: Path, good: int) -> None:
    """Up to Python 3.11 it was, whatever was done with the error."""
    fd = os.open(write_raw(tmp_path / "film.mkv"), os.O_RDONLY)
    folder = os.open(tmp_path, os.O_RDONLY)  # reading it is an error
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(SourceError), contextlib.ExitStack() as stack:
            frames = iter(stack.enter_context(Pipe(fd))) if good else iter(())
            assert len(list(itertools.islice(frames, good))) == good
            os.dup2(folder, fd)
            list(frames if good else stack.enter_context(Pipe(fd)))
        del frames, stack
        assert not [one for one in gc.get_objects() if type(one) is Decoder]  # isinstance asks proxies
    finally:
        gc.enable()
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


@contextlib.contextmanager
def writer_of(data: bytes) -> Iterator[int]:
    """The end to read from of a pipe into which this is written."""
    reading, writing = os.pipe()
    thread = threading.Thread(target=write_all, args=(writing, data))
    thread.start()
    try:
        yield reading
    finally:
        os.close(reading)
        thread.join()


@pytest.mark.parametrize(("name", "codec"), [("in.ts", "aac"), ("in.mkv", "libopus")])
def test_its_sound_goes_into_each_file_made_of_it(name: str, codec: str, tmp_path: Path) -> None:
    film = record(tmp_path / name, codec, seconds=4)
    files = [tmp_path / "a.mkv", tmp_path / "b.mp4"]
    with writer_of(film.read_bytes()) as reading, Pipe(reading, sound=True) as source:
        outputs = [VideoFile(file) for file in files]
        for output in outputs:
            output.open(source.info)
        for frame in source:
            for output in outputs:
                output.write(frame, NOTHING)
        for output in outputs:
            output.close(Outcome.COMPLETE)
    expected = Recorded(film, Fraction(0), None)
    begins = [float(sound.time) for sound in iter(expected.next, None)]
    expected.close()
    for file in files:
        assert len(read(file).times) == 100
        assert sounds(file)[0].times == pytest.approx(begins, abs=0.0011)
    if codec == "libopus":  # in a .ts, each packet of AAC has its setup before it
        assert sounds(files[0])[0].packets == sounds(film)[0].packets


def test_a_part_of_it_has_the_sound_of_that(tmp_path: Path) -> None:
    film = record(tmp_path / "in.mkv", seconds=4)
    out = tmp_path / "out.mkv"
    with (
        writer_of(film.read_bytes()) as reading,
        Clip(Pipe(reading, sound=True), start=Fraction(2), end=Fraction(3)) as part,
    ):
        deliver(VideoFile(out), part.info, list(part))
    (heard,) = sounds(out)
    (sent,) = sounds(film)
    assert heard.packets == [data for data, when in zip(sent.packets, sent.times, strict=True) if 2 <= when < 3]
    assert heard.times[0] < 0.03


def test_without_sound_nothing_is_kept_of_it(tmp_path: Path) -> None:
    film = record(tmp_path / "in.mkv")
    with writer_of(film.read_bytes()) as reading, Pipe(reading) as source:
        assert source.info.reopening is None
        deliver(VideoFile(tmp_path / "out.mp4"), source.info, list(source))
    assert not sounds(tmp_path / "out.mp4")


def test_pictures_far_larger_than_what_is_kept_do_not_wait_for_sound_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tee_module, "MOST_BYTES", 1 << 19)
    monkeypatch.setattr(tee_module, "POLL_SECONDS", 0.002)
    film, out = tmp_path / "in.mkv", tmp_path / "out.mkv"
    with av.open(str(record(tmp_path / "a.mkv"))) as heard, av.open(str(film), "w") as container:
        pictures = container.add_stream("ffv1", rate=25)
        pictures.width, pictures.height = 128, 96
        packets = list(copied(heard.streams.audio, container))
        container.mux(packets[:15])  # 0.3 s
        for index in range(100):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(noise(index, (128, 96)), "bgr24")))
        container.mux(pictures.encode(None))
    assert film.stat().st_size > 3 * tee_module.MOST_BYTES
    with writer_of(film.read_bytes()) as reading, Pipe(reading, sound=True) as source:
        deliver(VideoFile(out), source.info, source)
    assert len(read(out).times) == 100
    assert sounds(out)[0].packets == sounds(film)[0].packets


def test_sound_that_was_read_as_far_ahead_as_may_be_before_the_first_picture_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film, out = record(tmp_path / "in.mkv", "pcm_s16le"), tmp_path / "out.mkv"
    monkeypatch.setattr(tee_module, "MOST_BYTES", film.stat().st_size * 2 // 3)  # so that it is never far behind
    with writer_of(film.read_bytes()) as reading, Pipe(reading, sound=True) as source:
        output = VideoFile(out)
        output.open(source.info)
        original = output._original
        assert isinstance(original, Distant)
        assert until(lambda: original._is_ahead())
        for frame in source:
            output.write(frame, NOTHING)
        output.close(Outcome.COMPLETE)
    assert sounds(out)[0].packets == sounds(film)[0].packets


# Tee


def test_who_is_behind_gets_what_the_others_have_read() -> None:
    parts = iter([b"abc", b"defgh", b"i", b"", b""])
    tee = Tee(lambda _: next(parts), lambda: False)
    assert tee.pictures.read(9) + tee.pictures.read(2) == b"abcde"
    sound, again = tee.sound(), tee.sound()
    assert [sound.read(2), sound.read(9), sound.read(9), sound.read(9), sound.read(9)] == [
        b"ab",
        b"c",
        b"defgh",
        b"i",
        b"",
    ]
    assert [tee.pictures.read(9) for _ in range(3)] == [b"fgh", b"i", b""]
    assert [again.read(9) for _ in range(4)] == [b"abc", b"defgh", b"i", b""]


def test_sound_too_far_ahead_waits_for_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tee_module, "MOST_BYTES", 10)
    monkeypatch.setattr(tee_module.time, "sleep", lambda _: tee.pictures.read(4))
    tee = Tee(lambda _: b"four", lambda: False)
    sound = tee.sound()
    for _ in range(9):
        assert sound.read(4) == b"four"
        assert tee.pictures.size <= 14


def test_sound_that_nobody_reads_is_lost_and_costs_the_pictures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tee_module, "MOST_BYTES", 10)
    tee = Tee(lambda _: b"four", lambda: False)
    early = tee.sound()
    assert [tee.pictures.read(4) for _ in range(9)] == [b"four"] * 9
    for sound in early, tee.sound():
        assert sound.size == 0
        with pytest.raises(OSError, match="not read in time"):
            sound.read(4)


def test_waiting_ends_when_all_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tee_module, "MOST_BYTES", 6)
    over = threading.Event()
    monkeypatch.setattr(tee_module.time, "sleep", lambda _: over.set())
    tee = Tee(lambda _: b"" if over.is_set() else b"four", over.is_set)
    sound = tee.sound()
    assert [sound.read(4), sound.read(4), sound.read(4)] == [b"four", b"four", b""]
