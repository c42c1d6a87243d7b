"""A film as a GIF: its times, its colours, and what stands still takes no room."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from stream_seg.cli import main
from stream_seg.errors import UsageError
from stream_seg.frame import Frame, Image, SourceInfo
from stream_seg.sinks import SegmentedVideo, VideoFile
from tests.sink_films import CFR, NOTHING, VFR, deliver, frames, image, info, read, record, recording
from tests.tiny_models import batched_model

HUNDREDTH = Fraction(1, 100)


def film(path: Path, images: list[Image], about: SourceInfo | None = None, rate: int = 25) -> list[Image]:
    """The pictures of a GIF that was written of these."""
    size = images[0].shape[1], images[0].shape[0]
    shown = [Frame(one, i, Fraction(i, rate), 0.0) for i, one in enumerate(images)]
    deliver(VideoFile(path), about or info(size=size, rate=Fraction(rate)), shown)
    return decoded(path)


def decoded(path: Path) -> list[Image]:
    with av.open(str(path)) as container:
        return [np.asarray(one.to_ndarray(format="bgr24"), np.uint8) for one in container.decode(video=0)]


def scene(number: int) -> Image:
    """A picture of 96x64 of a thousand colours, others for each number."""
    small = np.random.default_rng(number).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (96, 64), interpolation=cv2.INTER_CUBIC), np.uint8)


def with_square(picture: Image, place: int) -> Image:
    out = picture.copy()
    out[20:30, place : place + 10] = 255, 0, 255
    return out


@pytest.mark.parametrize("size", [(64, 48), (65, 49)], ids=["even", "odd"])
@pytest.mark.parametrize("times", [CFR, VFR], ids=["constant", "variable"])
def test_every_frame_keeps_its_time_to_the_hundredth(
    size: tuple[int, int], times: tuple[Fraction, ...], tmp_path: Path
) -> None:
    apart = [pts for i, pts in enumerate(times) if i == 0 or pts - times[i - 1] >= Fraction(25, 1000)]
    path = tmp_path / "a.gif"
    deliver(VideoFile(path), info(apart, size=size, time_base=Fraction(1, 90000), rate=None), frames(apart, size))
    film = read(path)
    assert len(film.times) == len(apart)
    assert max(abs(a - b) for a, b in zip(film.times, apart, strict=True)) <= HUNDREDTH / 2
    assert film.picture.shape[:2] == (size[1], size[0])
    assert abs(film.duration - 2 * apart[-1] + apart[-2]) <= 2 * HUNDREDTH


def test_the_last_frame_lasts_to_the_end_of_the_recording(tmp_path: Path) -> None:
    times = [Fraction(0), Fraction(1, 25), Fraction(4)]
    deliver(VideoFile(tmp_path / "a.gif"), replace(info(times), duration=Fraction(101, 25)), frames(times))
    assert read(tmp_path / "a.gif").duration == pytest.approx(4.04)


def test_it_is_shown_for_ever(tmp_path: Path) -> None:
    deliver(VideoFile(tmp_path / "a.gif"), info(), frames(CFR[:3]))
    assert b"NETSCAPE2.0\x03\x01\x00\x00\x00" in (tmp_path / "a.gif").read_bytes()


def test_colours_are_those_of_the_film_also_after_a_cut(tmp_path: Path) -> None:
    images = [with_square(scene(i // 5), 4 * i) for i in range(15)]
    shown = film(tmp_path / "a.gif", images)
    assert len(shown) == len(images)
    for one, original in zip(shown, images, strict=True):
        assert np.abs(one.astype(int) - original).mean() < 8
        blurred, wanted = (cv2.blur(picture, (8, 8)).astype(int) for picture in (one, original))
        assert np.abs(blurred - wanted).mean() < 6
        assert np.abs(one[20:30].astype(int) - original[20:30])[(original[20:30] == (255, 0, 255)).all(2)].max() < 8


def test_a_thin_line_of_a_colour_that_was_not_there_has_it(tmp_path: Path) -> None:
    grey = cv2.cvtColor(cv2.cvtColor(cv2.resize(scene(1), (640, 480)), cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    boxed = cv2.rectangle(grey.copy(), (304, 204), (316, 216), (255, 0, 255), 2)
    shown = film(tmp_path / "a.gif", [np.asarray(one, np.uint8) for one in (grey, boxed)])
    line = (boxed == (255, 0, 255)).all(2)
    assert np.abs(shown[1][line].astype(int) - (255, 0, 255)).max() < 8


def test_other_decoders_see_the_same_after_a_cut(tmp_path: Path) -> None:
    shown = film(tmp_path / "a.gif", [with_square(scene(i // 3), 4 * i) for i in range(9)])
    pillow = pytest.importorskip("PIL.Image")
    with pillow.open(tmp_path / "a.gif") as file:
        assert file.n_frames == len(shown)
        for number, one in enumerate(shown):
            file.seek(number)
            assert file.info["duration"] == 40
            assert np.array_equal(np.asarray(file.convert("RGB"))[..., ::-1], one)


def test_what_stands_still_takes_no_room_also_after_a_cut(tmp_path: Path) -> None:
    sink = VideoFile(tmp_path / "a.gif")
    sink.open(info(size=(96, 64)))
    sizes = []
    for i in range(20):
        sink.write(Frame(with_square(scene(i // 10), 4 * i), i, Fraction(i, 25), 0.0), NOTHING)
        sizes.append(os.path.getsize(tmp_path / "a.part.gif"))  # noqa: PTH202
    grown = np.diff(sizes)
    # The first of each scene, and one each where the square has hidden colours until then.
    assert 2 <= np.count_nonzero(grown > 2000) <= 4
    assert max(grown[-5:]) < 1400  # of which its palette takes 768


def test_noise_does_not_shimmer(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    still = np.clip(scene(1), 10, 245)
    noisy = [(still.astype(int) + rng.integers(-3, 4, still.shape)).astype(np.uint8) for _ in range(6)]
    first, *others = film(tmp_path / "a.gif", noisy)
    for one in others:
        assert np.array_equal(one, first)


def test_a_slow_change_is_followed(tmp_path: Path) -> None:
    shown = film(tmp_path / "a.gif", [np.full((48, 64, 3), 4 * i, np.uint8) for i in range(50)])
    for i, one in enumerate(shown):
        assert np.abs(one.astype(int) - 4 * i).max() <= 40
    assert np.abs(shown[-1].mean() - 196) < 12


def test_what_comes_too_fast_for_browsers_is_left_out_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    times = [Fraction(i, 120) for i in range(60)]
    with caplog.at_level(logging.WARNING, "stream_seg"):
        deliver(VideoFile(tmp_path / "a.gif"), info(times, rate=Fraction(120)), frames(times))
    assert caplog.messages == ["a GIF shows 50 frames a second at most: some of a film are left out"]
    found = read(tmp_path / "a.gif").times
    assert min(np.diff(found)) >= Fraction(2, 100)
    assert found[-1] == pytest.approx(times[-1], abs=0.025)


def test_fifty_frames_a_second_are_all_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    times = [Fraction(i, 50) for i in range(20)]
    deliver(VideoFile(tmp_path / "a.gif"), info(times, rate=Fraction(50)), frames(times))
    assert read(tmp_path / "a.gif").times == times
    assert not caplog.messages


def test_a_camera_that_was_away_for_an_hour_goes_on_after_it(tmp_path: Path) -> None:
    times = (*CFR[:5], *(Fraction(3600) + pts for pts in CFR[:5]))
    deliver(VideoFile(tmp_path / "a.gif"), SourceInfo("camera", (64, 48), "live"), frames(times))
    found = read(tmp_path / "a.gif").times
    assert found[-5:] == pytest.approx(times[-5:], abs=0.0051)
    assert len(found) <= 10 + 6


def test_frames_of_another_size_are_fitted_inside(tmp_path: Path) -> None:
    shown = film(tmp_path / "a.gif", [image(0), image(0, (48, 64))])
    assert [one.shape for one in shown] == [(48, 64, 3)] * 2
    assert shown[1][:, 0].max() < 8
    assert shown[1][:, 32].max() > 100


def test_pixels_that_are_not_square_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    deliver(VideoFile(tmp_path / "a.gif"), *recording(record(tmp_path / "in.mp4", seconds=1, aspect=Fraction(4, 3))))
    assert caplog.messages == [
        "the pixels of in.mp4 are not square (4:3), which a GIF cannot tell; .mp4 can, or .mkv with h264"
    ]


def test_a_gif_is_not_had_in_segments(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape("a.gif cannot be had in segments; name a video, as in a.mp4")):
        SegmentedVideo(tmp_path / "a.gif", 60)


def test_the_command_writes_a_film_and_tiles(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = record(tmp_path / "in.mkv", seconds=1)
    argv = ["--model", str(batched_model(tmp_path / "tiny.onnx")), "--device", "cpu"]
    outputs = ["-o", str(tmp_path / "a.gif"), "-o", str(tmp_path / "a.mp4"), "--codec", "hevc"]
    assert main([str(source), *outputs, *argv]) == 0  # the codec is for the other
    assert read(tmp_path / "a.gif").times == [Fraction(4 * i, 100) for i in range(25)]
    assert not [one for one in caplog.messages if "sound" in one]
    sources = ["synthetic:64x64@25x6", "synthetic:32x32@25x6"]
    assert main([*sources, "-o", str(tmp_path / "wall.gif"), *argv]) == 0
    assert len(read(tmp_path / "wall.gif").times) >= 6


def test_the_command_refuses_to_cut_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.gif"
    assert main(["synthetic:64x64@25x6", "-o", str(path), "--events", "10s"]) == 2
    assert f"--events is for video and .jsonl files, and {path} is neither" in capsys.readouterr().err
