"""What `open_source` chooses, what it refuses, and the parts, synthetic pictures and lists it can give."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from stream_seg import Detections, VideoFile
from stream_seg.addresses.credentials import safe_address
from stream_seg.errors import SourceError, UsageError
from stream_seg.frame import Frame, Image, SourceInfo
from stream_seg.sources import (
    Clip,
    ImageFiles,
    ListSource,
    Reconnecting,
    Recording,
    Synthetic,
    open_source,
)
from stream_seg.sources.video import starting_at
from tests.source_files import numbered, numbers_of, write_video


def numbered_list(count: int) -> ListSource:
    return ListSource([numbered(number) for number in range(count)])


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (0, Reconnecting),
        ("2", Reconnecting),
        ("/dev/video7", Reconnecting),
        ("rtsp://camera/stream", Reconnecting),
        ("https://host/film.mp4", Reconnecting),
        ("udp://@:5000", Reconnecting),
        ("synthetic", Synthetic),
        ("synthetic:64x48@10x5", Synthetic),
    ],
)
def test_the_form_of_the_name_decides(spec: str | int, kind: type) -> None:
    assert type(open_source(spec)) is kind


def test_an_empty_name_is_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("photo.png", numbered(1))
    with pytest.raises(UsageError, match=r"^the name of a source is empty; the current folder is written \.$"):
        open_source("")
    assert type(open_source(".")) is ImageFiles


@pytest.mark.parametrize("spec", [None, 1.5, b"film.mp4", ["a.png", None], [0, 1]])
def test_what_is_no_name_is_no_source(spec: object) -> None:
    with pytest.raises(UsageError, match=r"is given by its name.*, not (None|1\.5|b'film\.mp4'|0)$"):
        open_source(spec)  # type: ignore[arg-type]


def test_numbers_may_be_those_of_numpy() -> None:
    options: dict[str, Any] = {"stride": np.int64(2), "max_frames": np.int32(3), "open_timeout": np.float32(5)}
    with open_source("synthetic:64x48@30x9", **options) as source:
        assert len(list(source)) == 3


def test_files_are_told_apart_by_what_they_are(tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", 2)
    cv2.imwrite(str(tmp_path / "photo.png"), numbered(1))
    kinds = {spec: type(open_source(tmp_path / spec)) for spec in ("film.mp4", "photo.png", "", "*.png")}
    assert kinds == {"film.mp4": Recording, "photo.png": ImageFiles, "": ImageFiles, "*.png": ImageFiles}


def test_a_file_that_is_named_like_a_number_can_be_had_by_its_path(tmp_path: Path) -> None:
    assert type(open_source(write_video(tmp_path / "7", 1, container_format="mp4"))) is Recording


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": -1}, "start must not be negative"),
        ({"start": 2, "end": 2}, "the end must come after the start"),
        ({"end": 0}, "the end must come after the start"),
        ({"stride": 0}, "stride must be a whole number of at least 1, got 0"),
        ({"stride": 1.5}, "stride must be a whole number of at least 1, got 1.5"),
        ({"stride": True}, "stride must be a whole number of at least 1, got True"),
        ({"max_fps": 0}, "max_fps must be more than 0"),
        ({"max_frames": 0}, "max_frames must be a whole number of at least 1, got 0"),
        ({"max_frames": "3"}, "max_frames must be a whole number of at least 1, got '3'"),
        ({"start": "1/0"}, "start must be a number"),
        ({"start": float("nan")}, "start must be a number"),
        ({"end": float("inf")}, "end must be a number"),
        ({"sequence_rate": 0}, "sequence_rate must be more than 0"),
        ({"transport": "sctp"}, "the transport must be tcp or udp, got sctp"),
        ({"open_timeout": 0}, "open_timeout must be more than 0 seconds, got 0"),
        ({"stall_timeout": float("nan")}, "stall_timeout must be more than 0 seconds, got nan"),
        ({"stall_timeout": float("inf")}, "stall_timeout must be more than 0 seconds"),
        ({"open_timeout": "3"}, "open_timeout must be more than 0 seconds, got '3'"),
        ({"reconnect": "3"}, "reconnect must be 0 or a whole number of times, got '3'"),
        ({"reconnect": -1}, "reconnect must be 0 or a whole number of times, got -1"),
        ({"reconnect": 1.5}, "reconnect must be 0 or a whole number of times"),
        ({"reconnect": float("nan")}, "reconnect must be 0 or a whole number of times"),
        ({"camera_size": 640}, r"camera_size must be \(width, height\) in pixels, as in \(1280, 720\), got 640"),
        ({"camera_size": "640x480"}, "camera_size must be .*, got '640x480'"),
        ({"camera_size": (640.0, 480)}, "camera_size must be .*, got .640.0, 480"),
        ({"camera_fps": "fast"}, "camera_fps must be a number, got fast"),
        ({"camera_fps": 0}, "camera_fps must be more than 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        open_source("synthetic:64x48", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "address",
    [
        *("rtsp://me:pw@cam:99999/1", "http://cam:65536/film.mp4", "udp://:0", "TCP://[::1]:70000"),
        *("rtsp://me:pw@cam:port/1", "rtmp://[::1]:19e5/app/key", "udp://:12a4"),
    ],
)
def test_a_port_that_cannot_be_is_refused_at_once(address: str) -> None:
    with pytest.raises(SourceError, match=r"^\w+://\S+ has a port that cannot be; they are 1 to 65535$") as refusal:
        open_source(address)
    assert "pw" not in str(refusal.value)


@pytest.mark.parametrize("address", ["udp://239.0.0.1", "tcp://[::1]", "rtp://@cam/x", "UDP://", "rtsp://cam:/1"])
def test_a_port_that_is_needed_and_missing_is_refused_at_once(address: str) -> None:
    with pytest.raises(SourceError, match=r"^\w+://\S* lacks a port; write (udp|tcp|rtp|rtsp)://HOST:PORT$"):
        open_source(address)


@pytest.mark.parametrize(
    "address",
    ["udp://239.0.0.1?localport=5000", "rtsp://cam:65535", "rtsp://me:123456/7@cam/x", "rtsp://[::1]/a:b"],
)
def test_what_looks_like_no_port_may_be_right(address: str) -> None:
    assert isinstance(open_source(address), Reconnecting)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(SourceError, match="cannot read gopher:// addresses; understood are rtsp"):
        open_source("gopher://host/film")


@pytest.mark.parametrize(
    "spec", ["synthetic:", "synthetic:64", "synthetic:64x48x9@30", "synthetic:64x48@-3", "synthetic,dead"]
)
def test_a_misspelt_synthetic_source_is_refused(spec: str) -> None:
    if spec == "synthetic:":
        assert open_source(spec).info.frame_count == 300
        return
    with pytest.raises(UsageError, match="cannot understand"):
        open_source(spec)


def test_what_a_synthetic_source_is_asked_for() -> None:
    info = open_source("synthetic:320x240@12.5x40").info
    assert (info.size, info.frame_rate, info.frame_count, info.kind) == ((320, 240), Fraction(25, 2), 40, "video")
    live = open_source("synthetic:@60,live").info
    assert (live.size, live.frame_rate, live.frame_count, live.kind) == ((1280, 720), 60, None, "live")


def test_a_rate_with_many_decimals_can_be_that_of_a_file(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), numbered(1))
    rates = {}
    for spec in ("synthetic:64x48@23.976023976x5", str(tmp_path / "*.png")):
        with open_source(spec, sequence_rate=23.976023976) as source:
            film = VideoFile(tmp_path / "film.mp4", codec="mpeg4", overwrite=True)
            film.open(source.info)
            for frame in source:
                film.write(frame, Detections.none(()))
            film.finish(source.info.duration)
        with av.open(str(tmp_path / "film.mp4")) as container:
            rates[spec] = container.streams.video[0].average_rate
    assert set(rates.values()) == {Fraction(24000, 1001)}


def test_a_synthetic_picture_moves_and_is_always_the_same() -> None:
    first, second = (Synthetic((160, 120)) for _ in range(2))
    assert (first.image(7) == second.image(7)).all()
    assert np.abs(first.image(7).astype(int) - first.image(8)).mean() > 1


def test_a_live_synthetic_source_keeps_its_pace() -> None:
    with Synthetic((16, 16), Fraction(100), 11, live=True) as source:
        began = time.monotonic()
        assert [frame.captured_at - began >= frame.index / 100 for frame in source] == [True] * 11


def test_each_second_frame_of_a_part(tmp_path: Path) -> None:
    with Clip(numbered_list(50), start=Fraction(1, 5), end=Fraction(1), stride=2, max_frames=100) as clip:
        frames = list(clip)
        assert numbers_of(frames) == list(range(5, 25, 2))
        assert [frame.index for frame in frames] == list(range(10))
        assert [frame.pts for frame in frames[:2]] == [Fraction(5, 25), Fraction(7, 25)]
        assert (clip.info.frame_count, clip.info.frame_rate) == (10, Fraction(25, 2))
        assert (clip.info.start, clip.info.end) == (Fraction(1, 5), Fraction(1))


def test_of_an_odd_number_of_frames_the_last_counts_as_well() -> None:
    with open_source("synthetic:64x48@10x5", stride=2) as source:
        assert source.info.frame_count == len(list(source)) == 3


def test_a_part_may_begin_a_little_behind_the_length_that_a_recording_states() -> None:
    info = SourceInfo("a film", (64, 48), "video", Fraction(25), 250, duration=Fraction(10))
    part = starting_at(info, Fraction(21, 2))
    assert (part.start, part.duration, part.frame_count) == (Fraction(21, 2), None, None)
    with pytest.raises(SourceError, match=r"is 10.000 s long; it cannot start at 11 s"):
        starting_at(info, Fraction(11))


def test_a_part_of_a_source_of_unknown_length_that_is_over_before_it_is_refused() -> None:
    source = numbered_list(50)
    source._info = dataclasses.replace(source.info, duration=None)
    with (
        Clip(source, start=Fraction(2)) as clip,
        pytest.raises(SourceError, match=r"images has its last picture at 1\.960 s; it cannot start at 2 s"),
    ):
        list(clip)


def test_a_part_that_is_closed_before_it_begins_just_ends() -> None:
    class ClosedOnTheWay(ListSource):
        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                yield frame
                clip.close()

    source = ClosedOnTheWay([numbered(number) for number in range(50)])
    with Clip(source, start=Fraction(1)) as clip:
        assert list(clip) == []


def test_a_link_that_leads_nowhere_is_said_to_be_one(tmp_path: Path) -> None:
    link = tmp_path / "link.mp4"
    link.symlink_to("nowhere.mp4")
    with pytest.raises(SourceError, match="leads nowhere"):
        open_source(link)


@pytest.mark.parametrize("name", ["pipe.ts", "pipe.png"])
def test_a_named_pipe_is_to_be_read_as_standard_input(name: str, tmp_path: Path) -> None:
    pipe = tmp_path / name
    os.mkfifo(pipe)
    for spec in (pipe, [pipe]):
        with pytest.raises(SourceError, match="stream-seg - < "):
            open_source(spec)


def test_digits_that_are_no_numbers_can_be_in_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("²1.png", "²10.png"):
        (tmp_path / name).write_bytes(cv2.imencode(".png", numbered(0))[1].tobytes())
    with open_source("*.png") as source:
        assert [frame.name for frame in source] == ["²1.png", "²10.png"]


@pytest.mark.parametrize(("most", "came"), [(1, 1), (7, 7), (99, 20)])
def test_no_more_frames_than_asked_for(most: int, came: int) -> None:
    with Clip(numbered_list(20), max_frames=most) as clip:
        assert clip.info.frame_count == came
        assert len(list(clip)) == came


@pytest.mark.parametrize(
    ("sent", "most", "came"),
    [(30, 5, 20), (30, 20, 80), (30, 30, 120), (30, 50, 120), (25, Fraction(1, 2), 2)],
)
def test_of_a_live_source_no_more_frames_a_second_are_used_than_asked_for(sent: int, most: Fraction, came: int) -> None:
    late = [0.4 * (number % 3) / sent for number in range(4 * sent)]  # by how much each comes late
    shown = [
        Frame(numbered(number % 256), number, Fraction(number, sent), 100 + number / sent + late[number])
        for number in range(4 * sent)
    ]

    class Camera(ListSource):
        def __iter__(self) -> Iterator[Frame]:
            yield from shown

    for kind, expected in (("live", came), ("video", 4 * sent)):
        with Clip(Camera([numbered(0)], rate=Fraction(sent), kind=kind), max_fps=Fraction(most)) as clip:
            kept = list(clip)
            assert clip.info.frame_rate == (min(sent, most) if kind == "live" else sent)
        assert abs(len(kept) - expected) <= (kind == "live")
        assert [frame.index for frame in kept] == list(range(len(kept)))
        assert kept[0].pts == 0


def test_a_clip_reads_nothing_past_its_last_frame() -> None:
    read = []

    class Watched(ListSource):
        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                read.append(frame.index)
                yield frame

    with Clip(Watched([numbered(0)] * 30), stride=3, max_frames=4) as clip:
        assert len(list(clip)) == 4
    assert read == list(range(10))


def test_a_count_that_nobody_knows_stays_unknown() -> None:
    with Clip(Synthetic((16, 16), count=None), stride=3) as clip:
        assert clip.info.frame_count is None
    with Clip(Synthetic((16, 16), count=None), end=Fraction(2)) as clip:
        assert clip.info.frame_count == 60


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://user:pass@cam.local:554/ch1", "rtsp://***@cam.local:554/ch1"),
        ("rtsp://user:p@ss/w#rd@cam/ch1", "rtsp://***@cam/ch1"),
        ("http://cam/video?user=admin&pwd=s/e=cret&channel=2", "http://cam/video?user=***&pwd=***&channel=2"),
        ("https://host/live.m3u8?Access_Token=abc.def#x", "https://host/live.m3u8?Access_Token=***#x"),
        ("rtsp://cam/user=admin&password=secret&stream=0", "rtsp://cam/user=***&password=***&stream=0"),
        ("http://cam/mjpg?usr=admin&psw=secret&pw=secret&fps=5", "http://cam/mjpg?usr=***&psw=***&pw=***&fps=5"),
        ("rtsp://cam/stream1", "rtsp://cam/stream1"),
        ("udp://@:5000", "udp://@:5000"),
    ],
)
def test_credentials_are_not_shown(address: str, shown: str) -> None:
    assert safe_address(address) == shown


@pytest.mark.parametrize(("rate", "exact"), [(10, Fraction(10)), (12.5, Fraction(25, 2)), (29.97, Fraction(2997, 100))])
def test_a_list_of_images_has_a_rate_of_any_kind_of_number(rate: float, exact: Fraction) -> None:
    with ListSource([numbered(number) for number in range(3)], rate=rate) as source:
        assert (source.info.frame_rate, source.info.time_base) == (exact, 1 / exact)
        assert [frame.pts for frame in source] == [0, 1 / exact, 2 / exact]


def test_a_list_of_images_may_be_one_array() -> None:
    with ListSource(np.stack([numbered(number) for number in range(3)])) as source:
        assert len(list(source)) == 3


@pytest.mark.parametrize(
    ("images", "rate", "words"),
    [
        ((numbered(number) for number in range(2)), 25, "given as a list, got generator"),
        ([numbered(0)], 0, "rate must be more than 0"),
        (["a.jpg"], 25, r"image must be an array \(H, W, 3\) uint8, got str"),
        ([numbered(0)[..., 0]], 25, r"image must be \(H, W, 3\) uint8"),
    ],
)
def test_what_is_no_list_of_images_is_refused(images: Sequence[Image], rate: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ListSource(images, rate=rate)
