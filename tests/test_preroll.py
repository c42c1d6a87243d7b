"""What comes before an event: in its file, from a key frame on, at its times, with its sound, and in no other file."""

from __future__ import annotations

import gc
import itertools
import json
import re
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stream_seg.errors import OutputError, UsageError
from stream_seg.frame import Frame, Image, SourceInfo
from stream_seg.protocols import Outcome
from stream_seg.sinks import SegmentedObjects, SegmentedVideo, open_sink
from stream_seg.sinks.preroll import Ahead, Encoded, PreRoll
from stream_seg.sources import Recording, open_source
from tests.sink_films import (
    NOTHING,
    SOMETHING,
    frames,
    image,
    read,
    record,
    recorded_by_a_process,
    recording,
    seen_in,
    segments,
    sounds,
)
from tests.source_servers import file_server

LIVE = SourceInfo("camera", (64, 48), "live", Fraction(25))
STEADY = [Fraction(i, 25) for i in range(200)]
UNEVEN = [Fraction(ticks, 90000) for ticks in itertools.accumulate([7000, 3000, 9001, 1500, 20000, 2999] * 20)]


def pictures(path: Path) -> list[Image]:
    with av.open(str(path)) as container:
        return [picture.to_ndarray(format="bgr24").astype(np.uint8) for picture in container.decode(video=0)]


def keys(path: Path) -> list[Fraction]:
    """When the key frames of a file begin."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size and packet.is_keyframe]
        return [packet.pts * packet.time_base for packet in packets if packet.pts is not None]


def reds(images: Sequence[Image]) -> list[float]:
    """By which the pictures of `image` are told from one another."""
    return [float(picture[:, :, 2].mean()) for picture in images]


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", None),
        ("a.mp4", "hevc"),
        ("a.mp4", "av1"),
        ("a.mov", None),
        ("a.mkv", None),
        ("a.mkv", "mpeg4"),
        ("a.webm", None),
    ],
)
@pytest.mark.parametrize("times", [STEADY, UNEVEN], ids=["steady", "uneven"])
def test_an_event_begins_with_the_key_frame_that_comes_so_long_before_it(
    name: str, codec: str | None, times: list[Fraction], tmp_path: Path
) -> None:
    shown = [Frame(image(5 * i, (64, 64)), i, pts, 0.0) for i, pts in enumerate(times)]  # AV1 leaves out small changes
    seen_in(SegmentedVideo(tmp_path / name, events=0.5, before=1.5, codec=codec), LIVE, shown, [110])
    (path,) = segments(tmp_path, "a")
    film = read(path)
    last = max(i for i, pts in enumerate(times) if pts < times[110] + Fraction(1, 2))
    first = last + 1 - len(film.times)
    assert Fraction(3, 2) - Fraction(1, 4) < times[110] - times[first] < Fraction(5, 2) + Fraction(1, 4)
    rounding = Fraction(0) if name.endswith(("mp4", "mov")) else Fraction(1, 1000)
    expected = [pts - times[first] for pts in times[first : last + 1]]
    assert max(abs(a - b) for a, b in zip(film.times, expected, strict=True)) <= rounding
    there = keys(path)
    assert there[0] == 0
    assert min(abs(at - (times[110] - times[first])) for at in there) <= rounding
    found = reds(pictures(path))
    assert max(abs(a - 100 * i % 256) for a, i in zip(found, range(first, last + 1), strict=True)) < 12


def test_an_encoder_that_makes_key_frames_when_it_likes_has_the_file_begin_with_one(tmp_path: Path) -> None:
    times = [pts * 3 for pts in STEADY]
    seen_in(SegmentedVideo(tmp_path / "door.mkv", events=1, before=5, codec="ffv1"), LIVE, frames(times), [110])
    (path,) = segments(tmp_path)
    found = reds(pictures(path))  # every 25th picture is a key frame
    assert keys(path)[0] == 0
    assert max(abs(a - i * 20 % 256) for i, a in enumerate(found, 75)) < 12
    assert len(found) == 35 + 9


def test_what_is_kept_begins_with_a_frame_of_that_time_or_up_to_a_second_earlier() -> None:
    for rate, seen in itertools.product((1, 3, 10, 25), (40, 41, 57, 63)):
        kept: PreRoll[Fraction] = PreRoll(Fraction(5), is_live=True)
        times = [Fraction(i, rate) for i in range(seen)]
        for pts in times:
            kept.advance(pts, pts)
            kept.add(pts, pts)
        sight = Fraction(seen, rate)
        kept.let_go(sight)
        start = kept.start
        items = kept.take()
        assert items[0] == start
        assert items == times[times.index(items[0]) :]
        assert items[0] <= max(sight - 5, Fraction(0)) < items[0] + 1 or rate == 1
        assert kept.start is None


def test_frames_of_one_time_before_an_event_are_all_kept(tmp_path: Path) -> None:
    times = [Fraction(i - i // 5 % 2, 25) for i in range(30)]
    seen_in(SegmentedVideo(tmp_path / "door.mp4", events=1, before=5), LIVE, frames(times), [29])
    (path,) = segments(tmp_path)
    assert len(read(path).times) == 30


def test_a_frame_that_comes_a_little_early_is_a_key_frame_as_well() -> None:
    kept: PreRoll[int] = PreRoll(Fraction(5), is_live=True)
    times = [max(Fraction(i, 25) - Fraction(1, 100), Fraction(0)) for i in range(60)]
    assert [i for i, pts in enumerate(times) if kept.advance(pts, pts)] == [0, 25, 50]


def test_no_frame_is_in_two_files_and_the_second_begins_where_the_first_ends(tmp_path: Path) -> None:
    seen_in(SegmentedVideo(tmp_path / "door.mp4", events=1, before=3), LIVE, frames(STEADY), [10, 60, 180])
    files = segments(tmp_path)
    # From the beginning of the run to 1 s after 10; from there to 1 s after 60; 3 s before 180, back to a key frame.
    assert [len(read(path).times) for path in files] == [35, 50, 20 + 75 + 20]
    assert [keys(path)[-1] for path in files[:2]] == [Fraction(10, 25), Fraction(25, 25)]
    found = reds(pictures(files[0]) + pictures(files[1]))
    assert max(abs(a - i * 20 % 256) for i, a in enumerate(found)) < 12


def test_long_events_are_cut_into_segments_and_the_first_has_what_came_before(tmp_path: Path) -> None:
    seen_in(SegmentedVideo(tmp_path / "door.mp4", 2, events=0.1, before=1), LIVE, frames(STEADY), range(60, 120))
    assert [len(read(path).times) for path in segments(tmp_path)] == [100 - 25, 22]


def test_what_was_found_is_told_of_the_same_frames(tmp_path: Path) -> None:
    for times, stem in ((STEADY, "steady"), (UNEVEN, "uneven")):
        sinks = [kind(tmp_path / f"{stem}{suffix}", events=0.3, before=1.2) for kind, suffix in KINDS]
        for sink in sinks:
            seen_in(sink, LIVE, frames(times), [50, 110])
        lines, videos = ([path for path in segments(tmp_path, stem) if path.suffix == suffix] for _, suffix in KINDS)
        told = [[json.loads(line) for line in path.read_text("ascii").splitlines()] for path in lines]
        assert [len(entries) for entries in told] == [len(read(path).times) for path in videos]
        for entries, seen in zip(told, (50, 110), strict=True):
            numbers = [entry["frame"] for entry in entries]
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
            assert [entry["frame"] for entry in entries if entry["objects"]] == [seen]
            assert {(entry["width"], entry["height"]) for entry in entries} == {(64, 48)}
            assert all("captured" in entry for entry in entries)


KINDS = ((SegmentedObjects, ".jsonl"), (SegmentedVideo, ".mp4"))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_sound_begins_with_the_first_picture(suffix: str, tmp_path: Path) -> None:
    source = record(tmp_path / "in.mp4", seconds=8)
    about, shown = recording(source)
    seen_in(SegmentedVideo(tmp_path / f"door.{suffix}", events=0.25, before=1.5), about, shown, [10, 100, 180])
    (whole,) = sounds(source)
    # Key frames come at 0, each second after 0.68, with which the first event is over, and each second after 4.28.
    for path, begin, end in zip(segments(tmp_path), (0, 1.68, 5.28), (0.68, 4.28, 7.48), strict=True):
        assert len(read(path).times) == round((end - begin) * 25)
        (part,) = sounds(path)
        first = whole.packets.index(part.packets[0])
        assert part.packets == whole.packets[first : first + len(part.packets)]
        assert [begin + at for at in part.times] == pytest.approx(whole.times[first:][: len(part.times)], abs=0.001)
        assert 0 <= part.times[0] < 0.025
        assert end - 0.05 < begin + part.times[-1] < end


def test_the_sound_of_an_event_in_a_part_of_a_recording_is_that_of_its_pictures(tmp_path: Path) -> None:
    source = record(tmp_path / "in.mp4", seconds=6)
    with Recording(source, start=Fraction("2.01")) as recorded:
        seen_in(SegmentedVideo(tmp_path / "door.mp4", events=0.2, before=1), recorded.info, list(recorded), [10])
    (path,), (whole,) = segments(tmp_path), sounds(source)
    (part,) = sounds(path)
    first = whole.packets.index(part.packets[0])
    assert read(path).times[0] == Fraction("0.03")  # the place that it has in the part
    assert [2.01 + at for at in part.times] == pytest.approx(whole.times[first:][: len(part.times)], abs=0.001)
    assert part.times[0] < 0.025


def test_an_address_gives_the_events_that_the_file_gives(tmp_path: Path) -> None:
    record(tmp_path / "in.mkv", seconds=6)
    with file_server(tmp_path) as host:
        for stem, spec in (("file", str(tmp_path / "in.mkv")), ("address", f"http://{host}/in.mkv")):
            with open_source(spec) as source:
                sink = SegmentedVideo(tmp_path / f"{stem}.mp4", events=0.2, before=1)
                sink.open(source.info)
                for place, frame in enumerate(source):
                    while sink.holds():
                        pass
                    sink.write(frame, SOMETHING if place in (40, 130) else NOTHING)
                sink.close(Outcome.COMPLETE)
    files, addresses = segments(tmp_path, "file"), segments(tmp_path, "address")
    assert [path.read_bytes() for path in addresses] == [path.read_bytes() for path in files]
    assert [len(sounds(path)[0].packets) > 50 for path in files] == [True, True]


def test_what_lies_before_an_outage_belongs_to_no_event_behind_it(tmp_path: Path) -> None:
    times = [pts + (3 if pts >= 4 else 0) for pts in STEADY]
    seen_in(SegmentedVideo(tmp_path / "door.mp4", events=1, before=5), LIVE, frames(times), [120])
    seen_in(SegmentedVideo(tmp_path / "at_once.mp4", events=1, before=5), LIVE, frames(times), [100])
    film = read(*segments(tmp_path))
    assert film.times == [Fraction(i, 25) for i in range(20 + 25)]
    assert read(*segments(tmp_path, "at_once")).times == [Fraction(i, 25) for i in range(25)]


def test_a_pause_of_a_recording_is_none(tmp_path: Path) -> None:
    times = [pts + (3 if pts >= 4 else 0) for pts in STEADY]
    about = SourceInfo("a film", (64, 48), "video", Fraction(25))
    seen_in(SegmentedVideo(tmp_path / "door.mp4", events=1, before=5), about, frames(times), [120])
    assert read(*segments(tmp_path)).times[:2] == [0, Fraction(1, 25)]
    assert len(read(*segments(tmp_path)).times) == 120 - 50 + 25


def test_a_source_that_is_slow_all_the_time_is_not_away(tmp_path: Path) -> None:
    times = [Fraction(4 * i) for i in range(20)]
    seen_in(SegmentedVideo(tmp_path / "door.mp4", events=1, before=10), LIVE, frames(times), [15])
    assert read(*segments(tmp_path)).times == [0, 4, 8]


def test_pictures_of_another_size_are_fitted_into_the_first_before_an_event_as_well(tmp_path: Path) -> None:
    shown = frames(STEADY[:30]) + [Frame(image(i, (128, 48)), i, STEADY[i], 0.0) for i in range(30, 60)]
    seen_in(SegmentedVideo(tmp_path / "door.mp4", events=1, before=5), LIVE, shown, [50])
    found = pictures(*segments(tmp_path))
    assert {picture.shape for picture in found} == {(48, 64, 3)}
    assert len(found) == 60
    assert found[29][:10].max() > 100 > 30 > found[31][:10].max()  # between black bars


@pytest.mark.parametrize("outcome", Outcome)
def test_where_nothing_is_seen_nothing_is_written(outcome: Outcome, tmp_path: Path) -> None:
    sink = SegmentedVideo(tmp_path / "door.mp4", events=1, before=2)
    seen_in(sink, LIVE, frames(STEADY), [], outcome)
    assert list(tmp_path.iterdir()) == []
    assert sink.result is None


def test_what_is_kept_goes_with_the_end_of_its_film_though_its_sink_stays(tmp_path: Path) -> None:
    sinks = [kind(tmp_path / f"door{suffix}", events=1, before=2) for kind, suffix in KINDS]
    for sink in sinks:
        seen_in(sink, LIVE, frames(STEADY), [20])
    gc.collect()
    kept = (Ahead, PreRoll, Encoded)
    assert not [left for left in gc.get_objects() if type(left) in kept]  # isinstance would ask others, which may warn


def test_a_run_that_is_stopped_in_an_event_finishes_its_file(tmp_path: Path) -> None:
    seen_in(SegmentedVideo(tmp_path / "door.mp4", events=9, before=1), LIVE, frames(STEADY), [150], Outcome.STOPPED)
    (path,) = tmp_path.iterdir()
    assert path in segments(tmp_path)
    assert len(read(path).times) == 75


def test_a_live_recording_is_named_by_when_its_first_picture_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1.8e9)
    film = SourceInfo("a film", (64, 48), "video", Fraction(25))
    for about in (LIVE, film):
        seen_in(SegmentedVideo(tmp_path / f"{about.kind}.mp4", events=1, before=2), about, frames(STEADY), [100])
    names = [time.strftime("%Y%m%d-%H%M%S", time.localtime(1.8e9 - before)) for before in (2, 0)]
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == [f"live_{names[0]}.mp4", f"video_{names[1]}.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_what_came_before_is_on_disk_when_the_process_is_killed_soon_after_the_sight(
    suffix: str, tmp_path: Path
) -> None:
    recorded_by_a_process(str(tmp_path / f"door.{suffix}"), "5", "120", "killed", "2")
    (part,) = tmp_path.glob("*.part*")
    film = read(part)
    assert len(film.times) > 75 - 25  # 2 s before the frame that shows something, the 101st, and half a second behind
    assert film.times == pytest.approx([i / 25 for i in range(len(film.times))], abs=0.001)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_on_a_disk_too_full_for_what_came_before_its_beginning_plays(tmp_path: Path) -> None:
    told = recorded_by_a_process(str(tmp_path / "door.mp4"), "1", "120", "full", "2")
    (part,) = tmp_path.glob("*.part*")
    assert re.search(rf"cannot write .*door_.*: File too large; what was written until then is in {part}", told)
    assert len(read(part).times) > 0


def test_an_encoder_that_fails_before_an_event_ends_the_run_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Ahead, __: Frame, *, is_key: bool) -> None:
        raise av.ExternalError(0, f"out of sessions (key: {is_key})")

    monkeypatch.setattr(Ahead, "encode", fail)
    with pytest.raises(OutputError, match=r"cannot encode what comes before an event of .*door.mp4: out of sessions"):
        seen_in(SegmentedVideo(tmp_path / "door.mp4", events=1, before=2), LIVE, frames(STEADY), [])


def test_what_cannot_be_is_refused_at_once(tmp_path: Path) -> None:
    for before in (0, -1.0, 301, float("nan")):
        with pytest.raises(UsageError, match="300 at most"):
            SegmentedVideo(tmp_path / "a.mp4", events=1, before=before)
    with pytest.raises(UsageError, match="needs events"):
        SegmentedObjects(tmp_path / "a.jsonl", 1, before=1)
    with pytest.raises(UsageError, match="add --events"):
        open_sink(tmp_path / "a.mp4", segment=1, before=1)
    for name in ("a.mp4", "a.jsonl"):
        assert open_sink(tmp_path / name, events=1, before=1).result is None  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())
