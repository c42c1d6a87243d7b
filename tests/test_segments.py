"""A recording in segments: nothing is lost between them, and of the old ones only our own are deleted."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import json
import logging
import os
import re
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import pytest

from stream_seg.errors import OutputError, UsageError
from stream_seg.frame import Frame, Kind, SourceInfo
from stream_seg.protocols import Outcome
from stream_seg.sinks import (
    Keep,
    ObjectsFile,
    SegmentedObjects,
    SegmentedVideo,
    VideoFile,
    open_sink,
    parse_duration,
    parse_keep,
)
from stream_seg.sinks import segments as recorder
from stream_seg.sinks.film import Film
from stream_seg.sinks.part import PartFile, Target
from stream_seg.sinks.retention import MARK, Segments
from stream_seg.sources import Recording
from tests.sink_films import (
    NOTHING,
    SOMETHING,
    deliver,
    frames,
    image,
    noise,
    read,
    record,
    recorded_by_a_process,
    recording,
    seen_in,
    segments,
    sounds,
    taken,
)

LIVE = SourceInfo("camera", (64, 48), "live")
STEADY = [Fraction(i, 25) for i in range(90)]
UNEVEN = [Fraction(ticks, 90000) for ticks in itertools.accumulate([7000, 3000, 9001, 1500, 20000, 2999] * 15)]
HOUR = 3600.0
LATE = 1_800_000_000


def length(path: Path) -> Fraction:
    """How long the pictures of a file last, exactly."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        assert packets[0].is_keyframe
        assert packets[0].pts == 0
        if path.suffix in (".mkv", ".webm"):  # where only the whole has a duration
            return Fraction(container.duration or 0, av.time_base)
        last = packets[-1]
        assert last.pts is not None
        assert last.duration is not None
        return (last.pts + last.duration) * last.time_base


def expected(times: Sequence[Fraction], seconds: Fraction) -> list[list[Fraction]]:
    """The times of frames, grouped by the multiples of `seconds` after the first that they lie between."""
    groups = itertools.groupby(times, key=lambda pts: (pts - times[0]) // seconds)
    return [list(group) for _, group in groups]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm"])
@pytest.mark.parametrize("times", [STEADY, UNEVEN], ids=["steady", "uneven"])
def test_every_frame_is_in_one_segment_at_its_time_and_no_moment_is_lost(
    suffix: str, times: list[Fraction], tmp_path: Path
) -> None:
    deliver(SegmentedVideo(tmp_path / f"door.{suffix}", 1.0), LIVE, frames(times))
    groups = expected(times, Fraction(1))
    files = segments(tmp_path)
    rounding = Fraction(0) if suffix in ("mp4", "mov") else Fraction(1, 1000)
    assert len(files) == len(groups) > 3
    for file, group, following in itertools.zip_longest(files, groups, groups[1:]):
        film = read(file)
        assert len(film.times) == len(group)
        assert max(abs(a - (b - group[0])) for a, b in zip(film.times, group, strict=True)) <= rounding
        if following:
            assert abs(length(file) - (following[0] - group[0])) <= rounding
    assert abs(length(files[-1]) - (2 * times[-1] - times[-2] - groups[-1][0])) <= rounding


def test_segments_end_at_the_first_frame_at_or_after_the_limit_counted_from_the_beginning(tmp_path: Path) -> None:
    times = [Fraction(4 * i, 10) for i in range(10)]
    deliver(SegmentedVideo(tmp_path / "door.mp4", 1.0), LIVE, frames(times))
    begins = [file_times[0] for file_times in expected(times, Fraction(1))]
    assert begins == [0, Fraction(12, 10), 2, Fraction(32, 10)]
    assert [len(read(path).times) for path in segments(tmp_path)] == [3, 2, 3, 2]


def test_a_recording_is_cut_as_counted_from_where_it_begins_though_its_first_frame_comes_later(tmp_path: Path) -> None:
    film = dataclasses.replace(LIVE, kind="video")
    deliver(SegmentedObjects(tmp_path / "door.jsonl", 1.0), film, frames([Fraction(4 * i, 10) for i in range(1, 6)]))
    assert [len(path.read_text().splitlines()) for path in segments(tmp_path)] == [2, 2, 1]


def test_the_last_picture_before_an_outage_lasts_until_the_first_after_it(tmp_path: Path) -> None:
    times = [Fraction(i, 10) for i in (0, 1, 2, 57, 58, 61)]
    deliver(SegmentedVideo(tmp_path / "door.mp4", 1.0), LIVE, frames(times))
    files = segments(tmp_path)
    assert [len(read(path).times) for path in files] == [3, 2, 1]
    assert [length(path) for path in files[:2]] == [Fraction(57, 10), Fraction(4, 10)]


def test_a_recording_is_cut_as_well_and_its_sound_goes_on_from_file_to_file(tmp_path: Path) -> None:
    source = record(tmp_path / "in.mp4", seconds=4)
    deliver(SegmentedVideo(tmp_path / "door.mp4", 1.5), *recording(source))
    files = segments(tmp_path)
    assert [len(read(path).times) for path in files] == [38, 37, 25]
    parts = [sounds(path)[0] for path in files]
    assert [packet for part in parts for packet in part.packets] == sounds(source)[0].packets
    assert max(part.times[0] for part in parts) < 0.025
    begins = [0, 1.52, 3.0]
    heard = [begin + at for begin, part in zip(begins, parts, strict=True) for at in part.times]
    assert heard == pytest.approx(sounds(source)[0].times, abs=0.001)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_all_the_sound_of_a_segment_is_heard(suffix: str, tmp_path: Path) -> None:
    """With PyAV 18 no file tells of the priming of AAC, which only that has that begins with it."""
    source = record(tmp_path / "in.mp4", seconds=4)
    deliver(SegmentedVideo(tmp_path / f"door.{suffix}", 1.5), *recording(source))
    _, second, last = segments(tmp_path)
    for path in (second, last):
        with av.open(str(path)) as container:
            heard = sum(1 for _ in container.decode(audio=0))
        assert heard == len(sounds(path)[0].packets)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_sound_that_begins_with_a_segment_is_in_that_one_alone(suffix: str, tmp_path: Path) -> None:
    source = record(tmp_path / "in.mp4", seconds=3, rate=30)  # 50th packet and 32nd picture: 1.0667 s, in mkv 1.067
    deliver(SegmentedVideo(tmp_path / f"door.{suffix}", 1.05), *recording(source))
    parts = [sounds(path)[0] for path in segments(tmp_path)]
    assert len(parts) == 3
    assert [packet for part in parts for packet in part.packets] == sounds(source)[0].packets


@pytest.mark.parametrize("begin", ["0", "2.5"])
def test_the_sound_of_recordings_glued_together_goes_on_from_file_to_file(begin: str, tmp_path: Path) -> None:
    source, parts = tmp_path / "in.ts", [record(tmp_path / f"{seconds}.ts", seconds=seconds) for seconds in (2, 4)]
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    for sink in (VideoFile(tmp_path / "whole.mp4"), SegmentedVideo(tmp_path / "door.mp4", 1.5)):
        with Recording(source, start=Fraction(begin)) as recorded:
            deliver(sink, recorded.info, list(recorded))
    (whole,), files = sounds(tmp_path / "whole.mp4"), segments(tmp_path)
    assert len(files) > 2
    assert [packet for file in files for packet in sounds(file)[0].packets] == whole.packets
    assert max(sounds(file)[0].times[0] for file in files) < 0.025


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_segment_before_the_first_sound_is_written_though_its_header_needs_some(suffix: str, tmp_path: Path) -> None:
    silent, sounding = record(tmp_path / "a.ts", tracks=0, seconds=2.4), record(tmp_path / "b.ts", "ac3")
    source = tmp_path / "in.ts"
    source.write_bytes(silent.read_bytes() + sounding.read_bytes())
    deliver(SegmentedVideo(tmp_path / f"door.{suffix}", 1.0), *taken(source))
    files = segments(tmp_path)
    assert [len(read(path).times) for path in files] == [25] * 4 + [10]
    heard = [sounds(path)[0].packets for path in files]
    assert list(itertools.chain(*heard[2:])) == sounds(sounding)[0].packets
    assert max(map(len, heard[:2])) <= 1


def test_events_are_recorded_from_what_is_seen_first_to_so_long_after_what_is_seen_last(tmp_path: Path) -> None:
    sink = SegmentedVideo(tmp_path / "door.mp4", events=0.5)
    seen_in(sink, LIVE, frames([Fraction(i, 10) for i in range(40)]), [3, 4, 8, 20, 38])
    first, second, last = segments(tmp_path)
    assert [read(path).times for path in (first, second)] == [
        [Fraction(i, 10) for i in range(10)],  # from 0.3 on: what is seen at 0.8 goes on with what was seen at 0.4
        [Fraction(i, 10) for i in range(5)],
    ]
    assert (length(first), length(second), length(last)) == (1, Fraction(1, 2), Fraction(2, 10))
    assert sink.result == tmp_path / "door_*.mp4"


def test_what_is_seen_when_an_event_is_just_over_is_another(tmp_path: Path) -> None:
    sink = SegmentedObjects(tmp_path / "door.jsonl", events=0.5)
    seen_in(sink, LIVE, frames([Fraction(i, 10) for i in range(12)]), [2, 7])
    assert [len(path.read_text().splitlines()) for path in segments(tmp_path)] == [5, 5]


def test_an_outage_ends_an_event_and_does_not_lengthen_its_last_picture(tmp_path: Path) -> None:
    times = [Fraction(i, 10) for i in (0, 1, 2, 900, 901)]
    seen_in(SegmentedVideo(tmp_path / "door.mp4", events=1.0), LIVE, frames(times), [0, 2, 3])
    assert [(len(read(path).times), length(path)) for path in segments(tmp_path)] == [
        (3, Fraction(12, 10)),
        (2, Fraction(2, 10)),
    ]


@pytest.mark.parametrize("kind", ["live", "video"])
def test_an_event_is_finished_while_its_camera_is_away_but_not_while_a_film_is_slow(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    sink = SegmentedVideo(tmp_path / "door.mp4", events=2.0)
    sink.open(dataclasses.replace(LIVE, kind=kind))
    first, second, late, later = frames([Fraction(i, 10) for i in (0, 5, 10, 900)])
    sink.write(first, SOMETHING)
    sink.write(second, NOTHING)
    for now, is_over in ((1011.4, False), (1011.6, kind == "live")):  # at 1.5 s, and what is late has ten more
        monkeypatch.setattr(time, "monotonic", partial(float, now))
        assert not sink.wants_stop()
        assert len(segments(tmp_path)) == is_over
    sink.write(late, NOTHING)
    sink.write(later, SOMETHING)
    sink.close(Outcome.STOPPED)
    event, another = segments(tmp_path)
    assert (len(read(event).times), length(event)) == (2 if kind == "live" else 3, 2)
    assert len(read(another).times) == 1


def test_where_nothing_is_seen_nothing_is_written(tmp_path: Path) -> None:
    sink = SegmentedVideo(tmp_path / "door.mp4", events=1.0)
    seen_in(sink, LIVE, frames(STEADY), [])
    assert list(tmp_path.iterdir()) == []
    assert sink.result is None


def test_long_events_are_cut_into_segments_as_well(tmp_path: Path) -> None:
    seen_in(SegmentedVideo(tmp_path / "door.mp4", 1.0, events=0.1), LIVE, frames(STEADY), range(10, 60))
    assert [len(read(path).times) for path in segments(tmp_path)] == [15, 25, 12]


def test_the_sound_of_an_event_is_that_of_its_pictures(tmp_path: Path) -> None:
    source = record(tmp_path / "in.mp4", seconds=4)
    about, shown = recording(source)
    seen_in(SegmentedVideo(tmp_path / "door.mp4", events=0.2), about, shown, [*range(25, 40), *range(75, 80)])
    (whole,) = sounds(source)
    for path, begin, end in zip(segments(tmp_path), (1.0, 3.0), (1.76, 3.36), strict=True):
        (part,) = sounds(path)
        first = whole.packets.index(part.packets[0])
        assert part.packets == whole.packets[first : first + len(part.packets)]
        assert [begin + at for at in part.times] == pytest.approx(whole.times[first:][: len(part.times)], abs=0.001)
        assert begin <= begin + part.times[0] < begin + 0.025
        assert end - 0.05 < begin + part.times[-1] < end


def test_a_clip_is_cut_from_where_it_begins(tmp_path: Path) -> None:
    about = SourceInfo("clip", (64, 48), "video", start=Fraction(10))
    deliver(SegmentedVideo(tmp_path / "door.mp4", 1.0), about, frames([Fraction(10) + pts for pts in STEADY]))
    assert [len(read(path).times) for path in segments(tmp_path)] == [25, 25, 25, 15]


def test_the_name_tells_when_a_segment_began_and_none_is_used_twice(tmp_path: Path) -> None:
    before = time.strftime("%Y%m%d-%H%M%S")
    sink = SegmentedVideo(tmp_path / "door.mp4", 1.0)
    deliver(sink, LIVE, frames(STEADY))
    deliver(SegmentedVideo(tmp_path / "door.mp4", 1.0), LIVE, frames(STEADY))
    names = [path.name for path in segments(tmp_path)]
    after = time.strftime("%Y%m%d-%H%M%S")
    assert len(names) == 8
    for name in names:
        match = re.fullmatch(r"door_(\d{8}-\d{6})(-\d+)?\.mp4", name)
        assert match
        assert before <= match[1] <= after


def test_two_runs_that_begin_at_once_have_names_of_their_own_from_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(time, "time", lambda: LATE)
    runs = [SegmentedObjects(tmp_path / "door.jsonl", 60) for _ in range(2)]
    for run in runs:
        run.open(LIVE)
        run.write(frames(STEADY[:1])[0], NOTHING)
    first, second = sorted(tmp_path.iterdir(), key=lambda path: len(path.name))
    assert second.name == first.name.replace(".part", "-2.part")
    assert not caplog.messages
    for run in runs:
        run.close(Outcome.STOPPED)


@pytest.mark.parametrize("kind", [SegmentedVideo, SegmentedObjects])
@pytest.mark.parametrize("when", ["before it is begun", "while it is written"])
def test_a_name_that_another_run_takes_in_between_is_no_failure(
    kind: type[SegmentedVideo | SegmentedObjects], when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = itertools.count(LATE)  # the names of two runs are the same, and all of one run differ
    monkeypatch.setattr(kind, "_began_at", lambda *_: next(at))
    sink = kind(tmp_path / ("door.mp4" if kind is SegmentedVideo else "door.jsonl"), 1.0)
    free = sink._free_name

    def taken_at_once(began: float) -> Path:
        path = free(began)
        if not path.stem.endswith("-2"):
            path.touch()
        return path

    if when == "before it is begun":
        monkeypatch.setattr(sink, "_free_name", taken_at_once)
    sink.open(LIVE)
    for frame in frames(STEADY):
        sink.write(frame, NOTHING)
        for part in tmp_path.glob("*.part*") if when == "while it is written" else []:
            part.with_stem(part.stem.removesuffix(".part")).touch()
    sink.close(Outcome.STOPPED)
    names = [path.stem for path in segments(tmp_path) if path.stat().st_size]
    assert len(names) == 4
    assert all(name.endswith("-2") for name in names)
    assert not list(tmp_path.glob("*.part*"))


def test_of_a_segment_whose_name_was_taken_no_encoder_stays_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to Python 3.11 none did, whatever was done with the error that told of it."""
    at = itertools.count(LATE)
    monkeypatch.setattr(SegmentedVideo, "_began_at", lambda *_: next(at))
    sink = SegmentedVideo(tmp_path / "door.mp4", 1.0)
    sink.open(LIVE)
    gc.collect()
    gc.disable()
    try:
        for frame in frames(STEADY):
            sink.write(frame, NOTHING)
            for part in tmp_path.glob("*.part*"):
                part.with_stem(part.stem.removesuffix(".part")).touch()
            assert len([one for one in gc.get_objects() if type(one) is Film]) == 1  # isinstance asks proxies
    finally:
        gc.enable()
    sink.close(Outcome.STOPPED)
    assert len([path for path in segments(tmp_path) if path.stem.endswith("-2")]) == 4


def numbers(path: Path) -> list[int]:
    """Of the frames whose lines a file holds."""
    return [json.loads(line)["frame"] for line in path.read_text("ascii").splitlines()]


def test_what_was_found_is_cut_where_a_video_is(tmp_path: Path) -> None:
    deliver(SegmentedVideo(tmp_path / "video.mp4", 1.5), LIVE, frames(UNEVEN))
    deliver(SegmentedObjects(tmp_path / "found.jsonl", 1.5), LIVE, frames(UNEVEN))
    files = segments(tmp_path, "found")
    assert len(files) > 3
    assert [len(numbers(path)) for path in files] == [len(read(path).times) for path in segments(tmp_path, "video")]
    assert [number for path in files for number in numbers(path)] == list(range(len(UNEVEN)))


@pytest.mark.parametrize("outcome", [Outcome.STOPPED, Outcome.FAILED])
def test_segments_of_what_was_found_are_kept_as_those_of_videos(outcome: Outcome, tmp_path: Path) -> None:
    old, whole = (tmp_path / f"door_2025010{day}-030405.jsonl" for day in (1, 2))
    deliver(SegmentedObjects(tmp_path / "door.jsonl", 60), LIVE, frames(STEADY[:5]), outcome)
    (path,) = tmp_path.iterdir()
    comments = [json.loads(line).get("comment") for line in path.read_text("ascii").splitlines()]
    assert comments == [MARK, None, None, None, None]
    path.rename(old)
    deliver(ObjectsFile(whole), LIVE, frames(STEADY[:5]))
    video = old_segment(tmp_path, "door_20250103-030405.mp4")
    age(old, 2 * HOUR)
    age(whole, 2 * HOUR)
    SegmentedObjects(tmp_path / "door.jsonl", 60, keep=Keep(seconds=HOUR)).open(LIVE)
    assert [path.exists() for path in (old, whole, video)] == [False, True, True]


@pytest.mark.parametrize("sort", [SegmentedVideo, SegmentedObjects])
@pytest.mark.parametrize("events", [None, 1.0])
def test_a_recording_that_is_used_again_goes_on_in_new_files(
    sort: type[SegmentedVideo | SegmentedObjects], events: float | None, tmp_path: Path
) -> None:
    sink = sort(tmp_path / f"door.{'mp4' if sort is SegmentedVideo else 'jsonl'}", 2.0, events=events)
    for size in ((64, 48), (32, 24)):
        sink.open(dataclasses.replace(LIVE, size=size))
        assert sink.result is None
        for number, at in enumerate(STEADY[:60]):
            sink.write(Frame(image(number, size), number, at, time.monotonic()), SOMETHING)
        sink.close(Outcome.STOPPED)
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 4
    if sort is SegmentedVideo:
        assert sorted(read(path).picture.shape for path in paths) == [(24, 32, 3)] * 2 + [(48, 64, 3)] * 2


def test_a_recording_that_is_used_again_knows_nothing_of_the_run_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, events = SegmentedObjects(tmp_path / "cut.jsonl", 1.0), SegmentedObjects(tmp_path / "door.jsonl", events=1.0)
    deliver(cut, LIVE, frames(STEADY[:5]))
    deliver(cut, LIVE, frames([Fraction(4 * i, 10) for i in range(1, 6)]))
    assert [len(numbers(path)) for path in segments(tmp_path, "cut")] == [5, 3, 2]
    seen_in(events, LIVE, frames(STEADY[:50]), [49])
    seen_in(events, LIVE, frames(STEADY[:50]), [])
    assert len(segments(tmp_path)) == 1
    events.open(dataclasses.replace(LIVE, kind="video"))
    events.write(frames(STEADY[:1])[0], SOMETHING)
    monkeypatch.setattr(time, "monotonic", lambda: 1e12)
    assert not events.wants_stop()
    assert len(segments(tmp_path)) == 1
    monkeypatch.undo()
    events.close(Outcome.STOPPED)


def test_a_segment_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    sink = SegmentedVideo(tmp_path / "door.mp4", 1.0)
    sink.open(LIVE)
    for frame in frames(STEADY[:25]):
        sink.write(frame, NOTHING)
    assert segments(tmp_path) == []
    assert len(list(tmp_path.glob("door_*.part*"))) == 1
    sink.write(Frame(image(25), 25, Fraction(1), 0.0), NOTHING)
    assert len(read(segments(tmp_path)[0]).times) == 25
    sink.close(Outcome.STOPPED)
    assert len(segments(tmp_path)) == 2
    assert not list(tmp_path.glob("*.part*"))


def test_a_failed_run_keeps_its_last_segment_under_a_partial_name(tmp_path: Path) -> None:
    sink = SegmentedVideo(tmp_path / "door.mp4", 1.0)
    deliver(sink, LIVE, frames(STEADY[:40]), Outcome.FAILED)
    assert [len(read(path).times) for path in segments(tmp_path)] == [25]
    assert sink.kept is not None
    assert len(read(sink.kept).times) == 15


def test_the_size_of_the_first_frame_is_kept_for_the_whole_run(tmp_path: Path) -> None:
    shown = frames(STEADY[:30]) + [Frame(image(i, (128, 48)), i, STEADY[i], 0.0) for i in range(30, 60)]
    deliver(SegmentedVideo(tmp_path / "door.mp4", 1.0), LIVE, shown)
    pictures = [read(path).picture for path in segments(tmp_path)]
    assert [picture.shape for picture in pictures] == [(48, 64, 3)] * 3
    assert pictures[2][:10].max() < 30  # between black bars


@pytest.mark.parametrize("suffix", ["mp4", "m4v", "mov", "mkv", "webm"])
@pytest.mark.parametrize("outcome", [Outcome.STOPPED, Outcome.FAILED])
def test_segments_are_marked_and_so_known_again(suffix: str, outcome: Outcome, tmp_path: Path) -> None:
    deliver(SegmentedVideo(tmp_path / f"door.{suffix}", 60), LIVE, frames(STEADY), outcome)
    (path,) = tmp_path.iterdir()
    with av.open(str(path)) as container:
        assert MARK in container.metadata.values()
    age(path, 2 * HOUR)
    SegmentedVideo(tmp_path / f"door.{suffix}", 60, keep=Keep(seconds=HOUR)).open(LIVE)
    assert not path.exists()


def age(path: Path, seconds: float) -> None:
    """Let a file have ended so long ago."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def old_segment(folder: Path, name: str, seconds: float = 2 * HOUR, comment: str | None = MARK) -> Path:
    """A file such as an earlier run has left."""
    deliver(VideoFile(folder / name, comment=comment), LIVE, frames(STEADY[:3]))
    age(folder / name, seconds)
    return folder / name


def test_by_age_the_old_segments_go_at_the_start_and_after_each_segment(tmp_path: Path) -> None:
    gone = old_segment(tmp_path, "door_20250102-030405.mp4")
    killed = old_segment(tmp_path, "door_20250102-040405-2.part.mp4")
    recent = old_segment(tmp_path, "door_20250102-050405.mp4", HOUR / 2)
    sink = SegmentedVideo(tmp_path / "door.mp4", 1.0, keep=Keep(seconds=HOUR))
    assert gone.exists()
    sink.open(LIVE)
    assert not gone.exists()
    assert not killed.exists()
    for frame in frames(STEADY[:25]):
        sink.write(frame, NOTHING)
    age(recent, 2 * HOUR)
    sink.write(Frame(image(25), 25, Fraction(1), 0.0), NOTHING)
    assert not recent.exists()
    sink.close(Outcome.STOPPED)
    assert len(segments(tmp_path)) == 2


def test_by_size_the_oldest_go_and_the_newest_stays_whatever_its_size(tmp_path: Path) -> None:
    old = [old_segment(tmp_path, f"door_2025010{day}-030405.mp4", (9 - day) * HOUR) for day in range(1, 6)]
    size = old[0].stat().st_size
    SegmentedVideo(tmp_path / "door.mp4", 1.0, keep=Keep(size=3 * size + size // 2)).open(LIVE)
    assert [path.exists() for path in old] == [False, False, True, True, True]
    SegmentedVideo(tmp_path / "door.mp4", 1.0, keep=Keep(size=1)).open(LIVE)
    assert [path.exists() for path in old] == [False] * 4 + [True]
    deliver(SegmentedVideo(tmp_path / "door.mp4", 60, keep=Keep(size=1)), LIVE, frames(STEADY[:5]))
    assert not old[4].exists()  # once the last segment of a run is there


def test_a_long_run_stays_within_its_size(tmp_path: Path) -> None:
    times = [Fraction(i, 10) for i in range(120)]
    deliver(SegmentedVideo(tmp_path / "all.mp4", 1.0), LIVE, frames(times))
    sizes = [path.stat().st_size for path in segments(tmp_path, "all")]
    deliver(SegmentedVideo(tmp_path / "door.mp4", 1.0, keep=Keep(size=4 * max(sizes))), LIVE, frames(times))
    assert len(sizes) == 12
    assert 4 <= len(segments(tmp_path)) <= 5
    assert len(segments(tmp_path, "all")) == 12  # another recording's


@pytest.mark.parametrize(("sizes", "stay"), [((9, 1, 1), (1, 1)), ((1, 1, 3), (3,))])
def test_it_is_their_own_sizes_by_which_the_oldest_go(
    sizes: tuple[int, ...], stay: tuple[int, ...], tmp_path: Path
) -> None:
    for day, size in enumerate(sizes, start=1):
        path = tmp_path / f"door_2025010{day}-030405.mp4"
        path.write_bytes(MARK.encode() * size)
        age(path, (9 - day) * HOUR)
    Segments(tmp_path / "door.mp4").remove_beyond(Keep(size=3 * len(MARK)), spared=[])
    assert [path.stat().st_size // len(MARK) for path in segments(tmp_path)] == list(stay)


def test_a_segment_is_known_by_a_mark_at_its_end(tmp_path: Path) -> None:
    """As programs that copy one write an .mp4."""
    path = tmp_path / "door_20250101-030405.mp4"
    with av.open(str(path), "w") as copy:
        copy.metadata["comment"] = MARK
        stream = copy.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(20):
            copy.mux(stream.encode(av.VideoFrame.from_ndarray(noise(i, (64, 48)), "bgr24")))
        copy.mux(stream.encode(None))
    assert path.read_bytes().index(MARK.encode()) > 2 * 16384
    age(path, 2 * HOUR)
    Segments(tmp_path / "door.mp4").remove_beyond(Keep(seconds=HOUR), spared=[])
    assert not path.exists()


def test_what_had_no_mark_yet_when_it_was_looked_at_is_looked_at_again(tmp_path: Path) -> None:
    path, recording = tmp_path / "door_20250101-030405.part.mp4", Segments(tmp_path / "door.mp4")
    path.touch()
    recording.remove_beyond(Keep(seconds=HOUR), spared=[])
    path.write_bytes(MARK.encode())
    age(path, 2 * HOUR)
    recording.remove_beyond(Keep(seconds=HOUR), spared=[])
    assert not path.exists()


def test_a_clock_that_was_set_back_costs_no_new_segment(tmp_path: Path) -> None:
    deliver(SegmentedVideo(tmp_path / "all.mp4", 1.0), LIVE, frames(STEADY))
    room = sum(path.stat().st_size for path in segments(tmp_path, "all"))
    ahead = [old_segment(tmp_path, f"door_2025010{day}-030405.mp4", -(20 + day) * HOUR) for day in range(1, 6)]
    last = old_segment(tmp_path, "door_20250106-030405.mp4")
    keep = Keep(size=room + last.stat().st_size)
    deliver(SegmentedVideo(tmp_path / "door.mp4", 1.0, keep=keep), LIVE, frames(STEADY))
    assert len([path for path in segments(tmp_path) if path not in [*ahead, last]]) == 4
    there = [path.exists() for path in [*ahead, last]]
    assert there == sorted(there)
    assert sum(there) in (1, 2)


def test_what_came_later_is_newer_whatever_its_time(tmp_path: Path) -> None:
    def finish(number: int, hours_ago: float) -> Path:
        path = tmp_path / f"door_20250102-03040{number}.mp4"
        path.write_bytes(MARK.encode())
        age(path, hours_ago * HOUR)
        return path

    recording, keep = Segments(tmp_path / "door.mp4"), Keep(size=3 * len(MARK))
    paths = [finish(number, hours_ago) for number, hours_ago in enumerate((2, 3))]
    for number, hours_ago in enumerate((-20, 9, 5), start=2):
        recording.remove_beyond(keep, spared=[])
        paths.append(finish(number, hours_ago))
    recording.remove_beyond(keep, spared=[])
    assert [path.exists() for path in paths] == [False, False, True, True, True]


def test_a_file_server_whose_clock_is_a_little_ahead_has_no_old_segments(tmp_path: Path) -> None:
    old = [old_segment(tmp_path, f"door_2025010{day}-030405.mp4", (1 - day) * HOUR / 4) for day in range(1, 4)]
    SegmentedVideo(tmp_path / "door.mp4", 1.0, keep=Keep(size=1)).open(LIVE)
    assert [path.exists() for path in old] == [False, False, True]


@pytest.mark.parametrize(
    "name",
    [
        "door_20250102-030405.mkv",
        "door_2025-01-02.mp4",
        "door_20250102-030405_best.mp4",
        "doors_20250102-030405.mp4",
        "other_20250102-030405.mp4",
        "door.mp4",
    ],
)
def test_a_segment_under_another_name_is_not_deleted(name: str, tmp_path: Path) -> None:
    path = old_segment(tmp_path, name)
    SegmentedVideo(tmp_path / "door.mp4", 1.0, keep=Keep(seconds=1)).open(LIVE)
    assert path.exists()


def test_a_file_that_only_has_the_name_of_a_segment_is_not_deleted(tmp_path: Path) -> None:
    video = old_segment(tmp_path, "door_20250102-030405.mp4", comment="my holiday")
    text = tmp_path / "door_20250102-030406.mp4"
    text.write_text("mine")
    age(text, 2 * HOUR)
    (tmp_path / "door_20250102-030408.mp4").mkdir()
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    linked = old_segment(outside, "precious.mp4")
    link = tmp_path / "door_20250102-030407.mp4"
    link.symlink_to(linked)
    SegmentedVideo(tmp_path / "door.mp4", 1.0, keep=Keep(seconds=1)).open(LIVE)
    assert video.exists()
    assert text.exists()
    assert link.is_symlink()
    assert linked.exists()


def test_the_input_is_not_deleted_though_it_is_a_segment(tmp_path: Path) -> None:
    source, other = (old_segment(tmp_path, f"door_2025010{day}-030405.mp4") for day in (1, 2))
    about = SourceInfo("a segment", (64, 48), "video", path=source)
    SegmentedVideo(tmp_path / "door.mp4", 1.0, keep=Keep(seconds=1)).open(about)
    assert (source.exists(), other.exists()) == (True, False)
    SegmentedVideo(tmp_path / "door.mp4", 1.0, keep=Keep(seconds=1), source_path=source).open(LIVE)
    assert source.exists()
    with pytest.raises(OutputError, match="is the input itself"):
        SegmentedVideo(source, 1.0, source_path=source)


@pytest.mark.skipif(sys.platform == "win32", reason="there an open file cannot be deleted anyway")
def test_a_file_that_another_run_is_writing_is_not_deleted(tmp_path: Path) -> None:
    path = tmp_path / "door_20250102-030405.mp4"
    writing = PartFile(Target(path))
    writing.write(MARK.encode())
    age(writing.path, 2 * HOUR)
    SegmentedVideo(tmp_path / "door.mp4", 1.0, keep=Keep(seconds=HOUR)).open(LIVE)
    assert writing.path.exists()
    writing.close()
    SegmentedVideo(tmp_path / "door.mp4", 1.0, keep=Keep(seconds=HOUR)).open(LIVE)
    assert not writing.path.exists()


def test_a_segment_that_cannot_be_deleted_is_one_warning_and_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old = old_segment(tmp_path, "door_20250102-030405.mp4").resolve()
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == old:
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    sink = SegmentedVideo(tmp_path / "door.mp4", 1.0, keep=Keep(seconds=HOUR))
    sink.open(LIVE)
    for frame in frames(STEADY):
        sink.write(frame, NOTHING)
    sink.close(Outcome.STOPPED)
    assert old.exists()
    assert len(segments(tmp_path)) == 5  # four of this run
    assert caplog.text.count("cannot remove the old segment") == 1
    assert "Permission denied" in caplog.text


def test_a_folder_that_cannot_be_looked_into_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    sink = SegmentedVideo(tmp_path / "door.mp4", 1.0, keep=Keep(seconds=HOUR))
    monkeypatch.setattr(Path, "iterdir", refuse)
    deliver(sink, LIVE, frames(STEADY))
    assert f"cannot look for old segments in {tmp_path.resolve()}: Permission denied" in caplog.text


@pytest.mark.parametrize("look", [1, 2, 3])
def test_a_segment_that_another_run_finishes_or_deletes_meanwhile_keeps_no_old_one_alive(
    look: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old, others = (old_segment(tmp_path, f"door_2025010{day}-030405.mp4", 2 * HOUR) for day in (1, 2))
    looks = itertools.count(1)
    stat = Path.stat

    def gone_by_then(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path.name == others.name and next(looks) == look:
            others.unlink()
        return stat(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", gone_by_then)
    Segments(tmp_path / "door.mp4").remove_beyond(Keep(seconds=HOUR), spared=[])
    monkeypatch.undo()
    assert not old.exists()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_killed_process_loses_less_than_a_second_and_nothing_of_earlier_segments(suffix: str, tmp_path: Path) -> None:
    recorded_by_a_process(str(tmp_path / f"door.{suffix}"), "2", "140", "killed")
    assert [len(read(path).times) for path in segments(tmp_path)] == [50, 50]
    (part,) = tmp_path.glob("*.part*")
    film = read(part)
    assert len(film.times) > 40 - 25
    assert film.times == pytest.approx([i / 25 for i in range(len(film.times))], abs=0.001)
    age(part, 2 * HOUR)
    SegmentedVideo(tmp_path / f"door.{suffix}", 1, keep=Keep(seconds=HOUR)).open(LIVE)
    assert not part.exists()
    assert len(segments(tmp_path)) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_on_a_full_disk_earlier_segments_are_whole_and_the_last_one_plays(tmp_path: Path) -> None:
    told = recorded_by_a_process(str(tmp_path / "door.mp4"), "1", "100", "full")
    (part,) = tmp_path.glob("*.part*")
    assert re.search(rf"cannot write .*door_.*: File too large; what was written until then is in {part}", told)
    assert [len(read(path).times) for path in segments(tmp_path)] == [25]
    assert len(read(part).times) > 0


def test_a_name_with_segments_is_a_recording_in_segments(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "door.mp4", codec="hevc", segment=600.0, keep=Keep(size=10))
    assert isinstance(sink, SegmentedVideo)
    (tmp_path / "door.mp4").write_bytes(b"an earlier recording")
    assert isinstance(open_sink(tmp_path / "door.mp4", segment=1.0), SegmentedVideo)
    assert isinstance(open_sink(tmp_path / "door.jsonl", segment=1.0), SegmentedObjects)
    with pytest.raises(UsageError, match="--codec hevc is for videos"):
        open_sink(tmp_path / "door.jsonl", codec="hevc", segment=1.0)


@pytest.mark.parametrize("name", ["a.png", "a_%03d.jpg", "folder"])
def test_segments_of_images_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--segment is for video and .jsonl files, and .*{name} is neither"):
        open_sink(tmp_path / name, segment=1.0)
    with pytest.raises(UsageError, match=f"--events is for video and .jsonl files, and .*{name} is neither"):
        open_sink(tmp_path / name, events=1.0)


def test_a_recording_is_cut_by_something_or_not_at_all(tmp_path: Path) -> None:
    assert isinstance(open_sink(tmp_path / "door.mp4", events=9.0, keep=Keep(size=10)), SegmentedVideo)
    with pytest.raises(UsageError, match="needs their length, or events"):
        SegmentedVideo(tmp_path / "door.mp4")
    with pytest.raises(UsageError, match="of 0 seconds"):
        SegmentedVideo(tmp_path / "door.mp4", 1.0, events=0)


def test_what_cannot_be_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="add their length, as in --segment 10m"):
        open_sink(tmp_path / "a.mp4", keep=Keep(size=10))
    with pytest.raises(OutputError, match="does not exist"):
        open_sink(tmp_path / "missing" / "a.mp4", segment=1.0)
    with pytest.raises(OutputError, match="no video codec"):
        open_sink(tmp_path / "a.mp4", codec="h265x", segment=1.0)
    with pytest.raises(OutputError, match=r"cannot write .*a_\d{8}-\d{6}\.mp4: File name too long"):
        SegmentedVideo(tmp_path / f"{'a' * 240}.mp4", 1.0)
    for seconds in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="give it some length"):
            SegmentedVideo(tmp_path / "a.mp4", seconds)
    for options in ({"segment": "10m"}, {"events": "10s"}, {"events": 10, "before": "5s"}, {"segment": [10]}):
        with pytest.raises(UsageError, match=r"numbers of seconds, as parse_duration\('10m'\) gives, not ['\[]"):
            open_sink(tmp_path / "a.mp4", **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"a Keep, as parse_keep\('24h'\) gives, not '20GB'"):
        open_sink(tmp_path / "a.jsonl", segment=1.0, keep="20GB")  # type: ignore[arg-type]
    for seconds, size in ((None, None), (1.0, 1)):
        with pytest.raises(UsageError, match="give one of the two"):
            Keep(seconds, size)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("24h", 86400), ("2d", 172800), ("1.5h", 5400), (" 5 M ", 300)]
)
def test_lengths_of_time_are_understood(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert parse_keep(text) == Keep(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "size"), [("20GB", 20 * 10**9), ("500MB", 5 * 10**8), ("1.5tb", 15 * 10**11), ("4GiB", 4 * 2**30)]
)
def test_sizes_are_understood(text: str, size: int) -> None:
    assert parse_keep(text) == Keep(size=size)


@pytest.mark.parametrize("text", ["", "10", "m", "10 parsecs", "-5m", "0s", "1h30m", "5GB", "1e3s", "nan s"])
def test_other_lengths_of_time_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"'{text}' is no length of time; write a number and s, m, h or d")):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "20", "GB", "0GB", "20G", "-1GB", "0d", "0.0001KB"])
def test_other_sizes_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"'{text}' is neither a time nor a size to keep")):
        parse_keep(text)


def test_what_an_encoder_leaves_is_given_back_before_the_next_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(recorder, "trim", lambda: seen.append([path.name for path in tmp_path.glob("*.part*")]))
    deliver(SegmentedVideo(tmp_path / "door.mp4", 1.0), LIVE, frames(STEADY), Outcome.COMPLETE)
    assert len(segments(tmp_path)) == 4
    assert seen == [[], [], []]
