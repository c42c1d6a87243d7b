"""A written video: every frame at its time, the sound beside it, the right colours, whatever happens."""

from __future__ import annotations

import contextlib
import dataclasses
import fractions
import gc
import io
import math
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from itertools import count, groupby, pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.packet import Packet
from av.stream import Disposition, Stream

from stream_seg.errors import OutputError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.protocols import Outcome, Sink
from stream_seg.sinks import SegmentedVideo, VideoFile, soundtrack
from stream_seg.sinks.encoders import Encoder
from stream_seg.sinks.recorded import Recorded
from stream_seg.sinks.soundtrack import Soundtrack
from stream_seg.sources import Recording
from tests.sink_films import (
    CFR,
    VFR,
    Film,
    copied,
    deliver,
    frames,
    image,
    info,
    noise,
    read,
    record,
    recording,
    sounds,
    taken,
)
from tests.source_files import write_video
from tests.support import file_limit

MILLISECOND = Fraction(1, 1000)
COLOUR_TOLERANCE = 4
"""Levels of 255 that 4:2:0, limited range and quantisation may cost a plain colour."""


def write(path: Path, times: tuple[Fraction, ...], about: SourceInfo, codec: str | None = None) -> Film:
    deliver(VideoFile(path, codec=codec), about, frames(times, about.size))
    return read(path)


@pytest.mark.parametrize("suffix", ["mp4", "m4v", "mov", "mkv", "webm"])
@pytest.mark.parametrize("size", [(64, 48), (65, 49)], ids=["even", "odd"])
@pytest.mark.parametrize("times", [CFR, VFR], ids=["constant", "variable"])
def test_every_frame_keeps_its_time(
    suffix: str, size: tuple[int, int], times: tuple[Fraction, ...], tmp_path: Path
) -> None:
    last = times[-1] - times[-2]
    about = info(times, size=size, time_base=Fraction(1, 90000), duration=times[-1] + last, rate=None)
    film = write(tmp_path / f"a.{suffix}", times, about)
    exact = suffix not in ("mkv", "webm")
    assert len(film.times) == len(times)
    assert max(abs(a - b) for a, b in zip(film.times, times, strict=True)) <= (0 if exact else MILLISECOND / 2)
    assert abs(film.duration - (times[-1] + last)) <= 2 * MILLISECOND
    assert film.picture.shape[:2] == (size[1] + size[1] % 2, size[0] + size[0] % 2)


@pytest.mark.parametrize("codec", ["hevc", "av1", "vp9"])
def test_other_codecs_keep_the_times_too(codec: str, tmp_path: Path) -> None:
    assert write(tmp_path / "a.mp4", CFR, info(), codec).times == list(CFR)


@pytest.mark.parametrize("base", [Fraction(1, 25), Fraction(1001, 30000), Fraction(1, 12800), Fraction(1, 10**6)])
def test_times_are_exact_in_every_unit(base: Fraction, tmp_path: Path) -> None:
    times = tuple(base * i * max(1, round(Fraction(1, 25) / base)) for i in range(3, 20))
    assert write(tmp_path / "a.mp4", times, info(times, rate=None, time_base=base)).times == list(times)


def test_an_output_begins_where_the_clip_begins(tmp_path: Path) -> None:
    times = tuple(Fraction(10) + pts for pts in CFR)
    about = SourceInfo("a clip", (64, 48), "video", time_base=Fraction(1, 30000), start=Fraction(10))
    assert write(tmp_path / "a.mp4", times, about).times == list(CFR)


@pytest.mark.parametrize("start", [Fraction(1, 2), Fraction("1.234")], ids=str)
def test_an_output_that_begins_between_two_ticks_keeps_the_times(start: Fraction, tmp_path: Path) -> None:
    about, times = in_ticks_of_an_avi(start)
    assert write(tmp_path / "a.mp4", times, about).times == [pts - start for pts in times]


def test_a_beginning_that_is_too_fine_for_a_file_does_not_move_pictures_apart(tmp_path: Path) -> None:
    about, times = in_ticks_of_an_avi(Fraction(1, 50) + Fraction(1, 10**9))
    assert write(tmp_path / "a.mp4", times, about).times == [pts - times[0] for pts in times]


def in_ticks_of_an_avi(start: Fraction) -> tuple[SourceInfo, tuple[Fraction, ...]]:
    """Two seconds at 25 pictures a second, counted in these, and the times of those from `start` on."""
    tick = Fraction(1, 25)
    about = SourceInfo("a clip", (64, 48), "video", 1 / tick, time_base=tick, start=start)
    return about, tuple(tick * count for count in range(math.ceil(start / tick), 50))


def test_a_live_recording_begins_with_its_first_frame_and_has_its_true_length(tmp_path: Path) -> None:
    times = tuple(Fraction(3) + pts for pts in VFR)
    film = write(tmp_path / "a.mp4", times, SourceInfo("camera", (64, 48), "live"))
    assert film.times == [pts - times[0] for pts in times]
    assert abs(film.duration - (2 * VFR[-1] - VFR[-2] - VFR[0])) <= MILLISECOND


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_camera_may_be_away_for_a_day(suffix: str, tmp_path: Path) -> None:
    times = (*CFR[:5], *(Fraction(86400) + pts for pts in CFR[:5]))
    film = write(tmp_path / f"a.{suffix}", times, SourceInfo("camera", (64, 48), "live"))
    assert [pts for pts in film.times if pts < 1] == pytest.approx(CFR[:5], abs=0.0005)
    assert film.times[-5:] == pytest.approx(times[-5:], abs=0.0005)
    assert len(film.times) <= 10 + 24  # the last picture is repeated at times, which MP4 needs
    assert film.duration == pytest.approx(86400 + float(CFR[5]), abs=0.002)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_recording_in_milliseconds_may_have_a_gap_of_days(suffix: str, tmp_path: Path) -> None:
    times = (*CFR[:5], *(Fraction(3 * 86400) + pts for pts in CFR[:5]))
    film = write(tmp_path / f"a.{suffix}", times, info(time_base=MILLISECOND, duration=None))
    assert film.times[-5:] == pytest.approx(times[-5:], abs=0.0005)
    assert len(film.times) <= 10 + 6


def test_the_last_picture_does_not_last_as_long_as_an_outage_before_it(tmp_path: Path) -> None:
    film = write(tmp_path / "a.mp4", (*CFR[:5], Fraction(600)), SourceInfo("camera", (64, 48), "live"))
    assert film.duration == pytest.approx(601, abs=0.01)


def test_a_comment_goes_into_the_metadata(tmp_path: Path) -> None:
    deliver(VideoFile(tmp_path / "a.mp4", comment="the back door"), info(), frames(CFR[:3]))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.metadata["comment"] == "the back door"


def test_a_lone_picture_lasts_as_long_as_the_recording(tmp_path: Path) -> None:
    about = info(CFR[:1], rate=None, duration=Fraction(5))
    assert abs(write(tmp_path / "a.mp4", CFR[:1], about).duration - 5) <= MILLISECOND


@pytest.mark.parametrize("end", [Fraction(41, 100), Fraction(47, 100)])
def test_the_last_picture_of_a_part_lasts_until_its_end(end: Fraction, tmp_path: Path) -> None:
    times = [Fraction(i, 25) for i in range(11)]
    whole = info(times, rate=Fraction(25), time_base=Fraction(1, 100), duration=Fraction(4))
    deliver(VideoFile(tmp_path / "a.mp4"), dataclasses.replace(whole, end=end), frames(times))
    with av.open(str(tmp_path / "a.mp4")) as container:
        (film,) = container.streams.video
        assert film.duration is not None
        assert film.time_base is not None
        assert film.duration * film.time_base == end


def test_each_stride_frame_lasts_as_long_as_those_it_stands_for(tmp_path: Path) -> None:
    times = CFR[::7]
    about = info(times, rate=Fraction(30000, 1001) / 7, duration=CFR[-1] + CFR[1])
    film = write(tmp_path / "a.mp4", times, about)
    assert film.times == list(times)
    assert abs(film.duration - (CFR[-1] + CFR[1])) <= MILLISECOND


def test_the_declared_rate_is_kept_and_none_is_made_up(tmp_path: Path) -> None:
    assert write(tmp_path / "a.mp4", CFR, info()).rate == Fraction(30000, 1001)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.profile in ("Main", "High")
    assert not write(tmp_path / "b.mkv", VFR, info(VFR, rate=None, time_base=Fraction(1, 90000))).rate


def test_times_that_repeat_or_run_backwards_do_not_break_the_file(tmp_path: Path) -> None:
    times = (Fraction(0), Fraction(1, 10), Fraction(1, 10), Fraction(1, 20), Fraction(1, 5))
    assert len(write(tmp_path / "a.mp4", times, info(times)).times) == len(times)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
def test_there_is_a_key_frame_each_second(suffix: str, tmp_path: Path) -> None:
    times = tuple(Fraction(i, 10) for i in range(45))
    deliver(VideoFile(tmp_path / f"a.{suffix}"), info(times, rate=None), frames(times))
    with av.open(str(tmp_path / f"a.{suffix}")) as container:
        keys = [
            float(packet.pts * packet.time_base)
            for packet in container.demux()
            if packet.is_keyframe and packet.size and packet.pts is not None
        ]
    assert max(np.diff([*keys, 4.5])) <= 1.01
    assert len(keys) <= 6


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "h264"), ("mp4", "hevc"), ("mp4", "av1"), ("webm", "vp9"), ("mkv", "h264")]
)
def test_colours_come_back_and_are_tagged(suffix: str, codec: str, tmp_path: Path) -> None:
    colours = np.array(
        [[0, 0, 255], [255, 0, 0], [0, 255, 0], [40, 90, 200], [128, 128, 128], [255, 255, 255]], np.uint8
    )
    bars = np.repeat(np.repeat(colours[None], 64, axis=0), 32, axis=1)
    deliver(
        VideoFile(tmp_path / f"a.{suffix}", codec=codec),
        info(CFR[:3], size=(192, 64)),
        [Frame(bars, i, pts, 0.0) for i, pts in enumerate(CFR[:3])],
    )
    back = read(tmp_path / f"a.{suffix}").picture[32, 16::32]
    assert np.abs(back.astype(int) - colours).max() <= COLOUR_TOLERANCE
    with av.open(str(tmp_path / f"a.{suffix}")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", None), ("a.mp4", "vp9"), ("a.mov", "hevc"), ("a.mkv", None), ("a.mkv", "hevc")]
)
def test_pixels_that_are_not_square_stay_so(name: str, codec: str | None, tmp_path: Path) -> None:
    about, shown = recording(record(tmp_path / "in.mp4", seconds=0.2, aspect=Fraction(4, 3)))
    deliver(VideoFile(tmp_path / name, codec=codec), about, shown)
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


@pytest.mark.parametrize(("name", "codec"), [("a.webm", None), ("a.mkv", "av1")])
def test_that_pixels_are_not_square_is_told_where_the_file_cannot(
    name: str, codec: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    about, shown = recording(record(tmp_path / "in.mp4", seconds=0.2, aspect=Fraction(4, 3)))
    deliver(VideoFile(tmp_path / name, codec=codec), about, shown)
    assert "the pixels of in.mp4 are not square (4:3)" in caplog.text


def test_the_added_row_and_column_repeat_the_last(tmp_path: Path) -> None:
    plain = np.full((33, 33, 3), (20, 120, 220), np.uint8)
    deliver(
        VideoFile(tmp_path / "a.mp4"), info(CFR[:2], size=(33, 33)), [Frame(plain, i, CFR[i], 0.0) for i in range(2)]
    )
    back = read(tmp_path / "a.mp4").picture
    assert back.shape == (34, 34, 3)
    assert np.abs(back.astype(int) - plain[0, 0]).max() <= COLOUR_TOLERANCE


def test_a_frame_of_another_size_is_fitted_between_bars(tmp_path: Path) -> None:
    white = [Frame(np.full((h, w, 3), 255, np.uint8), i, CFR[i], 0.0) for i, (w, h) in enumerate([(64, 64), (128, 64)])]
    deliver(VideoFile(tmp_path / "a.mp4"), SourceInfo("images", (64, 64), "images"), white)
    with av.open(str(tmp_path / "a.mp4")) as container:
        second = list(container.decode(video=0))[1].to_ndarray(format="gray")
    assert second[:12].max() < 30
    assert second[20:44].min() > 225
    assert second[52:].max() < 30


@pytest.mark.parametrize(
    ("sound", "inside", "suffix"),
    [("aac", "mp4", "mp4"), ("aac", "mkv", "mov"), ("libmp3lame", "mp4", "mp4"), ("libopus", "mkv", "mkv"),
     ("libopus", "mkv", "webm"), ("libopus", "mkv", "mp4"), ("flac", "mkv", "mp4"), ("pcm_s16le", "mov", "mov")],
)  # fmt: skip
def test_sound_is_copied_to_the_bit(sound: str, inside: str, suffix: str, tmp_path: Path) -> None:
    source = record(tmp_path / f"in.{inside}", sound)
    about, shown = recording(source)
    deliver(VideoFile(tmp_path / f"out.{suffix}"), about, shown)
    (before,), (after,) = sounds(source), sounds(tmp_path / f"out.{suffix}")
    assert b"".join(after.packets) == b"".join(before.packets)
    assert after.codec == before.codec
    assert after.times[-1] == pytest.approx(before.times[-1], abs=0.02)
    if not sound.startswith("pcm"):  # whose packets have no size of their own
        assert after.packets == before.packets
        assert after.times == pytest.approx(before.times, abs=0.0011)
    film = read(tmp_path / f"out.{suffix}")
    assert [float(t) for t in film.times] == pytest.approx([float(frame.pts) for frame in shown], abs=0.0006)
    assert about.duration is not None
    assert abs(film.duration - about.duration) < Fraction(1, 25)


@pytest.mark.parametrize(("sound", "suffix", "becomes"), [("aac", "webm", "opus"), ("libopus", "mov", "aac")])
def test_sound_the_container_refuses_is_encoded_anew(sound: str, suffix: str, becomes: str, tmp_path: Path) -> None:
    source = record(tmp_path / "in.mkv", sound)
    deliver(VideoFile(tmp_path / f"out.{suffix}"), *recording(source))
    (after,) = sounds(tmp_path / f"out.{suffix}")
    assert after.codec == becomes
    assert after.times[-1] == pytest.approx(2, abs=0.1)


def test_sound_the_container_refuses_costs_the_other_tracks_nothing(tmp_path: Path) -> None:
    paths = [record(tmp_path / f"{sound}.mkv", sound) for sound in ("aac", "libopus")]
    with contextlib.ExitStack() as opened:
        first, second = (opened.enter_context(av.open(str(path))) for path in paths)
        output = opened.enter_context(av.open(str(tmp_path / "in.mkv"), "w"))
        for packet in copied([*first.streams, *second.streams.audio], output):
            output.mux(packet)
    about, shown = recording(tmp_path / "in.mkv")
    deliver(VideoFile(tmp_path / "out.mov"), about, shown)  # FFmpeg refuses Opus only when the header is written
    before, after = sounds(tmp_path / "in.mkv"), sounds(tmp_path / "out.mov")
    assert [sound.codec for sound in after] == ["aac", "aac"]
    assert after[0].packets == before[0].packets


def test_broadcast_sound_is_repacked_without_loss(tmp_path: Path) -> None:
    source = record(tmp_path / "in.ts")
    deliver(VideoFile(tmp_path / "out.mp4"), *recording(source))
    (before,), (after,) = sounds(source), sounds(tmp_path / "out.mp4")
    headless = [packet[7:] for packet in before.packets]  # less the ADTS header
    assert after.packets == headless


def test_every_sound_track_goes_over_with_its_language(tmp_path: Path) -> None:
    source = record(tmp_path / "in.mkv", tracks=2)
    deliver(VideoFile(tmp_path / "out.mp4"), *recording(source))
    assert [sound.language for sound in sounds(tmp_path / "out.mp4")] == ["deu", "eng"]


def test_a_clip_takes_the_sound_of_its_part(tmp_path: Path) -> None:
    source = record(tmp_path / "in.mp4", seconds=4)
    about, shown = recording(source)
    start, end = Fraction(1), Fraction(3)
    clip = SourceInfo(
        "clip", about.size, "video", about.frame_rate, 50, about.duration, about.time_base, source, start, end
    )
    deliver(VideoFile(tmp_path / "out.mp4"), clip, [frame for frame in shown if start <= frame.pts < end])
    (before,), (after,) = sounds(source), sounds(tmp_path / "out.mp4")
    kept = [packet for packet, time in zip(before.packets, before.times, strict=True) if 1 <= time < 3]
    assert after.packets == kept
    assert 0 <= after.times[0] < 0.025
    assert abs(read(tmp_path / "out.mp4").duration - 2) < Fraction(1, 25)


@pytest.mark.parametrize("outcome", [Outcome.COMPLETE, Outcome.STOPPED])
def test_sound_ends_with_a_run_that_was_cut_short(outcome: Outcome, tmp_path: Path) -> None:
    source = record(tmp_path / "in.mp4", seconds=4)
    about, shown = recording(source)
    deliver(VideoFile(tmp_path / "out.mp4"), about, shown[:25], outcome)
    (after,) = sounds(tmp_path / "out.mp4")
    assert 0.95 < after.times[-1] < 1.0


def test_sound_that_outlasts_the_pictures_is_kept(tmp_path: Path) -> None:
    silent, whole = record(tmp_path / "short.mp4", seconds=1), record(tmp_path / "long.mp4", seconds=2)
    source = tmp_path / "in.mkv"
    remux(silent, whole, source)
    deliver(VideoFile(tmp_path / "out.mkv"), *recording(source))
    assert sounds(tmp_path / "out.mkv")[0].packets == sounds(source)[0].packets
    assert sounds(tmp_path / "out.mkv")[0].times[-1] > 1.9


@pytest.mark.parametrize("outcome", [Outcome.COMPLETE, Outcome.STOPPED, Outcome.FAILED])
@pytest.mark.parametrize("sort", [VideoFile, partial(SegmentedVideo, seconds=1.0)])
def test_once_it_is_closed_a_sink_keeps_nothing_of_the_recording(
    sort: Callable[[Path], Sink], outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, times = weakref.WeakSet[Recorded](), list[int]()
    open_original = Recorded._open

    def noted(original: Recorded) -> None:
        opened.add(original)
        times.append(len(opened))
        open_original(original)

    monkeypatch.setattr(Recorded, "_open", noted)
    sink = sort(tmp_path / "out.mp4")
    deliver(sink, *recording(record(tmp_path / "in.mp4")), outcome)
    assert times == [1]
    gc.collect()
    assert not opened


def remux(pictures: Path, sound: Path, path: Path) -> None:
    """The pictures of one file with the sound of another."""
    with av.open(str(pictures)) as first, av.open(str(sound)) as second, av.open(str(path), "w") as output:
        for packet in copied([first.streams.video[0], second.streams.audio[0]], output):
            output.mux(packet)


def test_of_several_tracks_of_pictures_what_the_one_shown_says_counts(tmp_path: Path) -> None:
    other, sound = record(tmp_path / "other.mp4", seconds=3), record(tmp_path / "long.mp4", seconds=3)
    wide = record(tmp_path / "wide.mp4", seconds=1, aspect=Fraction(4, 3))
    with av.open(str(tmp_path / "in.mkv"), "w") as output, contextlib.ExitStack() as opened:
        first, second, third = (opened.enter_context(av.open(str(path))) for path in (other, wide, sound))
        packets = copied([first.streams.video[0], second.streams.video[0], third.streams.audio[0]], output)
        for stream in output.streams:
            stream.disposition = Disposition.default if stream.index else Disposition(0)
        for packet in packets:
            output.mux(packet)
    deliver(VideoFile(tmp_path / "out.mp4"), *taken(tmp_path / "in.mkv"))
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
    assert sounds(tmp_path / "out.mp4")[0].packets == sounds(tmp_path / "in.mkv")[0].packets


def test_a_track_that_begins_long_after_another_is_left_out_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = record(tmp_path / "in.mkv", seconds=8, tracks=2, rate=5)
    about, shown = recording(source)
    read_packets = Recorded._demux

    def late(recorded: Recorded) -> Iterator[Packet[Stream]]:
        return (packet for packet in read_packets(recorded) if packet.stream_index < 2 or (packet.pts or 0) > 6000)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorded, "_demux", late)
        deliver(VideoFile(tmp_path / "out.mp4"), about, shown)
    assert [track.language for track in sounds(tmp_path / "out.mp4")] == ["deu"]
    (said,) = caplog.messages
    assert said == f"a sound track of {source} is left out: it begins after 6.0 s, and the file could not wait"


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_sound_that_was_cut_off_at_the_beginning_is_not_heard_again(suffix: str, tmp_path: Path) -> None:
    whole, source, out = record(tmp_path / "whole.mp4"), tmp_path / "in.mp4", tmp_path / f"out.{suffix}"
    with av.open(str(whole)) as container, av.open(str(source), "w") as cut:
        for packet in copied(container.streams.get(), cut):
            if packet.pts is not None and packet.dts is not None:
                half_a_second = round(1 / packet.time_base / 2)
                packet.pts, packet.dts = packet.pts - half_a_second, packet.dts - half_a_second
                cut.mux(packet)
    with Recording(source) as recorded:
        shown = list(recorded)
        deliver(VideoFile(out), recorded.info, shown)
    (before,), (after,) = sounds(whole), sounds(out)
    assert read(out).times[0] == pytest.approx(0, abs=0.1)
    kept = round((1.5 + 0.1) * 48000 / 1024)
    assert len(after.packets) == pytest.approx(kept, abs=1)
    assert after.packets == before.packets[-len(after.packets) :]


def test_broken_sound_does_not_cost_the_pictures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = record(tmp_path / "in.mkv")
    about, shown = recording(source)
    data = bytearray(source.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 2000] = b"\xff" * 2000
    source.write_bytes(data)
    deliver(VideoFile(tmp_path / "out.mp4"), about, shown)
    assert len(read(tmp_path / "out.mp4").times) == len(shown)


def test_a_damaged_packet_of_broadcast_sound_costs_no_other(tmp_path: Path) -> None:
    source = record(tmp_path / "in.ts")
    about, shown = recording(source)
    (before,) = sounds(source)
    data = bytearray(source.read_bytes())
    data[data.index(before.packets[40][:7]) + 3] ^= 0x55  # in an ADTS header
    source.write_bytes(data)
    deliver(VideoFile(tmp_path / "out.mp4"), about, shown)
    (after,) = sounds(tmp_path / "out.mp4")
    assert 80 < len(after.packets) < len(before.packets) == 95  # a dozen share a packet of the transport stream
    assert after.times[-1] > 1.9


def test_a_packet_that_its_decoder_makes_no_sense_of_costs_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = record(tmp_path / "in.mkv")
    about, shown = recording(source)
    packet = sounds(source)[0].packets[40]
    source.write_bytes(source.read_bytes().replace(packet, b"\xff" * len(packet)))  # AAC with what was never specified
    deliver(VideoFile(tmp_path / "out.webm"), about, shown)
    assert sounds(tmp_path / "out.webm")[0].times[-1] > 1.9
    assert not caplog.records


@pytest.mark.parametrize("error", [av.error.ArgumentError(22, "Invalid argument"), ValueError("Invalid argument")])
def test_sound_that_cannot_be_written_any_further_ends_there_and_not_the_run(
    error: Exception, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = record(tmp_path / "in.mp4")
    about, shown = recording(source)
    written = soundtrack._Copy.put

    def put(track: soundtrack._Copy, packet: Packet[AudioStream]) -> None:
        if packet.pts is not None and packet.pts * packet.time_base >= 1:
            raise error
        written(track, packet)

    monkeypatch.setattr(soundtrack._Copy, "put", put)
    deliver(VideoFile(tmp_path / "out.mp4"), about, shown)
    (after,) = sounds(tmp_path / "out.mp4")
    assert after.times[-1] == pytest.approx(1, abs=0.03)
    assert len(read(tmp_path / "out.mp4").times) == len(shown)
    assert f"a sound track of {source} is left out from 1.0 s on: Invalid argument" in caplog.text


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_the_sound_of_recordings_glued_together_goes_on_with_their_pictures(suffix: str, tmp_path: Path) -> None:
    once, source, out = record(tmp_path / "once.ts"), tmp_path / "in.ts", tmp_path / f"out{suffix}"
    source.write_bytes(3 * once.read_bytes())
    deliver(VideoFile(out), *taken(source))
    (before,), (after,) = sounds(once), sounds(out)
    assert len(read(out).times) == 150
    assert after.times == sorted(set(after.times))
    assert after.times[-1] == pytest.approx(6, abs=0.06)
    if suffix != ".webm":  # where it is encoded anew
        count = len(before.times)
        assert after.packets == 3 * after.packets[:count]
        assert after.times[count] - after.times[0] == pytest.approx(2, abs=0.05)
        assert after.times[2 * count] - after.times[0] == pytest.approx(4, abs=0.05)


def glue(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize("start", ["0.5", "2.5", "4.5"])
@pytest.mark.parametrize(("suffix", "codec"), [("ts", "aac"), ("mpg", "mp2")])
def test_a_start_in_recordings_glued_together_has_the_sound_of_there(
    suffix: str, codec: str, start: str, tmp_path: Path
) -> None:
    parts = [record(tmp_path / f"{seconds}.{suffix}", codec, seconds=seconds) for seconds in (2, 4)]
    source = glue(tmp_path / f"in.{suffix}", *parts)
    for name, begin in (("whole", Fraction(0)), ("part", Fraction(start))):
        with Recording(source, start=begin) as recorded:
            deliver(VideoFile(tmp_path / f"{name}.mp4"), recorded.info, list(recorded))
    (whole,), (part,) = sounds(tmp_path / "whole.mp4"), sounds(tmp_path / "part.mp4")
    expected = [(time, packet) for time, packet in zip(whole.times, whole.packets, strict=True) if time >= begin]
    assert part.packets == [packet for _, packet in expected]
    assert part.times == pytest.approx([float(time - begin) for time, _ in expected], abs=1e-3)


def test_what_is_read_on_the_way_to_a_start_is_counted_in_ticks(tmp_path: Path) -> None:
    """Two hours are half a million packets, and fractions of each took several times what reading them takes."""
    source = record(tmp_path / "in.ts", seconds=20)
    original = Recorded(source, Fraction(18), None)
    calls: Counter[str] = Counter()
    sys.setprofile(lambda frame, event, _: calls.update([frame.f_code.co_filename] if event == "call" else ()))
    try:
        tracks = original.tracks_from(Fraction(18))
    finally:
        sys.setprofile(None)
        original.close()
    assert len(tracks) == 1
    assert calls[fractions.__file__] < 18 * 25


def test_of_short_parts_whose_sound_lies_behind_their_pictures_all_is_kept(tmp_path: Path) -> None:
    """As in program streams, in which one packet holds pictures of half a second."""
    once = record(tmp_path / "once.mpg", "mp2", seconds=1.5)
    source, out = glue(tmp_path / "in.mpg", once, once, once), tmp_path / "out.mkv"
    deliver(VideoFile(out), *taken(source))
    (before,), (after,) = sounds(once), sounds(out)
    assert after.packets == 3 * before.packets
    assert max(later - earlier for earlier, later in pairwise(after.times)) < 0.05


@pytest.mark.parametrize(("suffix", "codec"), [("ts", "aac"), ("mpg", "mp2")])
def test_after_a_part_without_sound_that_of_the_next_comes_with_its_pictures(
    suffix: str, codec: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sounding, silent = record(tmp_path / f"a.{suffix}", codec), record(tmp_path / f"b.{suffix}", tracks=0)
    source, out = glue(tmp_path / f"in.{suffix}", sounding, silent, sounding), tmp_path / "out.mkv"
    deliver(VideoFile(out), *taken(source))
    (before,), (after,) = sounds(sounding), sounds(out)
    count = len(before.packets)
    assert len(after.packets) == 2 * count
    assert after.times[count - 1] < 2.1
    assert after.times[count] - after.times[0] == pytest.approx(4, abs=0.1)
    assert not caplog.records


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
def test_a_long_part_without_sound_comes_before_that_of_the_next(
    suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """So long that FFmpeg, when opening the recording, sees no sound of the track it finds there is."""
    silent, sounding = record(tmp_path / "a.ts", tracks=0, seconds=12, rate=10), record(tmp_path / "b.ts", rate=10)
    out = tmp_path / f"out.{suffix}"
    deliver(VideoFile(out), *taken(glue(tmp_path / "in.ts", silent, sounding)))
    (before,), (after,) = sounds(sounding), sounds(out)
    assert after.times[0] == pytest.approx(12, abs=0.1)
    assert after.times[-1] == pytest.approx(14, abs=0.1)
    if suffix != "webm":  # where it is encoded anew
        # FFmpeg 9 has an .mp4 of such a track say that the last packet is not to be heard.
        with av.open(str(out), options={"ignore_editlist": "1"} if suffix == "mp4" else {}) as container:
            kept = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
        assert kept == [packet[7:] for packet in before.packets]  # without headers of their own
    assert not caplog.records


@pytest.mark.parametrize("sound", ["aac", "ac3"])
def test_a_film_that_is_stopped_before_its_first_sound_is_whole(sound: str, tmp_path: Path) -> None:
    """An MP4 header cannot be written without AC-3, and waits for all other sound."""
    silent, sounding = record(tmp_path / "a.ts", tracks=0), record(tmp_path / "b.ts", sound)
    with Recording(glue(tmp_path / "in.ts", silent, sounding)) as recorded:
        deliver(VideoFile(tmp_path / "out.mp4"), recorded.info, list(recorded)[:30], Outcome.STOPPED)
    assert len(read(tmp_path / "out.mp4").times) == 30
    (after,) = sounds(tmp_path / "out.mp4")
    assert after.times == pytest.approx([1.2], abs=0.001)


def test_sound_that_an_mp4_would_have_to_wait_for_too_long_is_left_out_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soundtrack, "_LONGEST_WAIT", 1)
    silent, sounding = record(tmp_path / "a.ts", tracks=0), record(tmp_path / "b.ts", "mp2")
    source = glue(tmp_path / "in.ts", silent, sounding)
    for name in ("out.mp4", "out.mkv"):
        deliver(VideoFile(tmp_path / name), *taken(source))
    assert [len(sounds(tmp_path / name)) for name in ("out.mp4", "out.mkv")] == [0, 1]
    (said,) = caplog.messages
    assert said == f"a sound track of {source} is left out: it begins at 2 s, too late for this format; .mkv takes it"


def test_sound_that_alone_jumps_back_is_left_out_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = record(tmp_path / "in.ts", seconds=4), tmp_path / "out.mp4"
    read_packets = Recorded._demux

    def jumping(recorded: Recorded) -> Iterator[Packet[Stream]]:
        for packet in read_packets(recorded):
            if isinstance(packet.stream, AudioStream) and packet.pts is not None and packet.pts > 180_000:
                packet.pts = packet.dts = packet.pts - 180_000
            yield packet

    monkeypatch.setattr(Recorded, "_demux", jumping)
    deliver(VideoFile(out), *taken(source))
    assert sounds(out)[0].times[-1] == pytest.approx(2, abs=0.1)
    assert len(read(out).times) == 100
    assert f"the sound of {source} jumps back to 0.0 s, its pictures do not: left out" in caplog.text


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_all_sound_behind_the_last_of_few_pictures_is_kept_at_its_time(suffix: str, tmp_path: Path) -> None:
    """One a second, some of which wait for later ones: their times step back by more than that.

    Matroska has no other times, and FFmpeg does not make up any for the first pictures.
    """
    source, out = tmp_path / f"talk.{suffix}", tmp_path / "out.mp4"
    with av.open(str(source), "w") as container:
        video = container.add_stream("libx264", rate=1, options={"bf": "3", "b_strategy": "0"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=48000, layout="mono")
        for index in range(20):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image(index), "bgr24")))
        container.mux(video.encode(None))
        for second in range(30):
            heard = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.int16), "s16", "mono")
            heard.sample_rate, heard.pts, heard.time_base = 48000, 48000 * second, Fraction(1, 48000)
            container.mux(audio.encode(heard))
        container.mux(audio.encode(None))
    deliver(VideoFile(out), *taken(source))
    (before,), (after,) = sounds(source), sounds(out)
    assert after.packets == before.packets
    assert after.times == pytest.approx(before.times, abs=0.002)


def test_sound_in_packets_shorter_than_a_tick_is_kept(tmp_path: Path) -> None:
    """As TrueHD in Matroska: six packets of 0.83 ms have five times in milliseconds, and no duration."""
    recorded = Recorded(record(tmp_path / "in.mkv"), Fraction(0), None)
    packets: list[Packet[AudioStream]] = [Packet(b"sound") for _ in range(60)]
    for number, packet in enumerate(packets):
        packet.pts = packet.dts = number * 5 // 6
    assert all(map(Soundtrack(recorded, Fraction(0))._is_in_order, packets))
    assert [packet.dts for packet in packets] == [number * 5 // 6 for number in range(60)]
    recorded.close()


def test_sound_that_changes_its_loudspeakers_is_encoded_to_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, parts = tmp_path / "in.ts", [record(tmp_path / f"{one}.ts", "ac3", layout=one) for one in ("stereo", "5.1")]
    source.write_bytes(b"".join(part.read_bytes() for part in (*parts, parts[0])))
    deliver(VideoFile(tmp_path / "out.webm"), *taken(source))
    (after,) = sounds(tmp_path / "out.webm")
    assert after.times[-1] == pytest.approx(6, abs=0.06)
    assert max(later - earlier for earlier, later in pairwise(after.times)) < 0.06
    assert not caplog.records


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_two_packets_of_sound_with_one_time_cost_nothing(suffix: str, tmp_path: Path) -> None:
    source = record(tmp_path / "in.mkv")
    twice = with_a_time_twice(source, tmp_path / "twice.mkv", 20)
    deliver(VideoFile(tmp_path / f"out{suffix}"), *recording(twice))
    (before,), (after,) = sounds(source), sounds(tmp_path / f"out{suffix}")
    assert after.times[-1] == pytest.approx(before.times[-1], abs=0.03)
    if suffix != ".webm":
        assert after.packets == before.packets
        assert after.times == sorted(after.times)


def with_a_time_twice(path: Path, copy: Path, number: int) -> Path:
    """A copy in which a packet of sound has the time of the one before it."""
    with av.open(str(path)) as source, av.open(str(copy), "w") as output:
        last, count = None, 0
        for packet in copied(source.streams.get(), output):
            if packet.stream.type == "audio":
                if count == number:
                    packet.pts = packet.dts = last
                last, count = packet.pts, count + 1
            output.mux(packet)
    return copy


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".mp4"])
def test_sound_that_pauses_for_a_day_goes_on_after_it(suffix: str, tmp_path: Path) -> None:
    """As that of cameras' recordings glued together, whose clocks go on; FFmpeg would end the process at an MP4."""
    day = 24 * 60 * 60
    source = with_a_pause(record(tmp_path / "in.mkv"), tmp_path / "pause.mkv", day)
    deliver(VideoFile(tmp_path / f"out{suffix}"), *recording(source))
    (before,), (after,) = sounds(source), sounds(tmp_path / f"out{suffix}")
    assert before.times[-1] > day
    assert after.times[-1] == pytest.approx(before.times[-1], abs=0.1)
    assert max(later - earlier for earlier, later in pairwise(after.times)) <= 3600.1
    assert read(tmp_path / f"out{suffix}").times[-1] == pytest.approx(day + 1.96, abs=0.1)
    if suffix != ".webm":
        assert [packet for packet, _ in groupby(after.packets)] == before.packets


@pytest.mark.parametrize(
    ("sound", "inside", "suffix", "silence"),
    [("pcm_s16le", "mkv", "mp4", b"\0\0"), ("pcm_s24le", "mkv", "mov", b"\0\0\0"), ("pcm_u8", "mkv", "mov", b"\x80"),
     ("pcm_alaw", "nut", "mov", b"\xd5"), ("pcm_mulaw", "nut", "mov", b"\xff")],
)  # fmt: skip
def test_silence_fills_a_pause_of_sound_without_times_of_its_own(
    sound: str, inside: str, suffix: str, silence: bytes, tmp_path: Path
) -> None:
    """An MP4 tells of samples of one size only when the first begins, so what came after the pause came early."""
    source = with_a_pause(record(tmp_path / f"in.{inside}", sound), tmp_path / f"pause.{inside}", 2)
    deliver(VideoFile(tmp_path / f"out.{suffix}"), *recording(source))
    (before,), (after,) = sounds(source), sounds(tmp_path / f"out.{suffix}")
    first = b"".join(packet for packet, time in zip(before.packets, before.times, strict=True) if time < 2)
    rest = b"".join(before.packets)[len(first) :]
    assert (after.codec, before.times[-1]) == (sound, pytest.approx(3.9, abs=0.1))
    assert b"".join(after.packets) == first + silence * (2 * 48000) + rest
    assert after.times[-1] == pytest.approx(4, abs=0.03)


@pytest.mark.parametrize("every", [5, 10])
def test_sound_that_has_lost_a_little_again_and_again_keeps_its_place(
    every: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is missing is less than silence is put in for, until it has added up."""
    source = without_each(every, record(tmp_path / "in.mkv", "pcm_s16le", seconds=4), tmp_path / "lossy.mkv")
    deliver(VideoFile(tmp_path / "out.mp4"), *recording(source))
    (before,), (after,) = sounds(source), sounds(tmp_path / "out.mp4")
    samples, end = b"".join(after.packets), 0
    for packet, time in zip(before.packets, before.times, strict=True):
        begin = samples.index(packet, end)
        end = begin + len(packet)
        assert -0.101 <= begin / (2 * 48000) - time <= 0.001
    assert not caplog.records


def test_a_pause_that_no_file_can_be_filled_with_ends_such_sound(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = with_a_pause(record(tmp_path / "in.mkv", "pcm_s16le"), tmp_path / "pause.mkv", 2 * 3600)
    deliver(VideoFile(tmp_path / "out.mp4"), *recording(source))
    (after,) = sounds(tmp_path / "out.mp4")
    assert after.times[-1] == pytest.approx(1, abs=0.1)
    assert read(tmp_path / "out.mp4").times[-1] == pytest.approx(2 * 3600 + 1.96, abs=0.1)
    (said,) = caplog.messages
    assert said.endswith(
        "from 7201.0 s on: nothing is heard for 2.0 h, which this format has no way to tell; .mkv does"
    )


def without_each(nth: int, path: Path, copy: Path) -> Path:
    """A copy that lacks each n-th packet of sound."""
    with av.open(str(path)) as source, av.open(str(copy), "w") as output:
        heard = count(1)
        for packet in copied(source.streams.get(), output):
            if packet.stream.type != "audio" or next(heard) % nth:
                output.mux(packet)
    return copy


def with_a_pause(path: Path, copy: Path, seconds: int) -> Path:
    """A copy in which all that comes after the first second is so much later."""
    with av.open(str(path)) as source, av.open(str(copy), "w") as output:
        for packet in copied(source.streams.get(), output):
            if packet.pts is not None and packet.time_base is not None:
                later = round(seconds / packet.time_base) if packet.pts * packet.time_base >= 1 else 0
                packet.pts += later
                packet.dts = None if packet.dts is None else packet.dts + later
                output.mux(packet)
    return copy


def test_a_pause_of_a_second_is_no_damage(tmp_path: Path) -> None:
    source = with_a_pause(record(tmp_path / "in.mkv"), tmp_path / "pause.mkv", 1)
    with Recording(source) as recorded:
        shown = list(recorded)
        deliver(VideoFile(tmp_path / "out.mkv"), recorded.info, shown)
    assert [frame.pts for frame in shown] == [frame.pts for frame in recording(source)[1]]
    assert sounds(tmp_path / "out.mkv") == sounds(source)


@pytest.mark.parametrize("hours", [10, -10])
@pytest.mark.parametrize(("kind", "stamps"), [("video", 2), ("video", 1), ("audio", 1)])
def test_a_damaged_time_stamp_moves_nothing_else(
    kind: str, stamps: int, hours: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a bit that was flipped on its way makes it, in broadcasts; all after it was hours away, or its sound gone."""
    source = write_video(tmp_path / "in.ts", 75, sound=True)
    damaged = tmp_path / "damaged.ts"
    damaged.write_bytes(with_another_time(source.read_bytes(), kind, 3, stamps, hours * 3600))
    for path in (source, damaged):
        deliver(VideoFile(path.with_suffix(".mkv")), *taken(path))
    before, after = (path.with_suffix(".mkv") for path in (source, damaged))
    assert read(after).times == read(before).times
    ((was,), (now,)) = sounds(before), sounds(after)
    if kind == "video":
        assert now == was
    else:  # what came with that time is silence
        assert 0.8 * len(was.times) < len(now.times) < len(was.times)
        assert set(now.times) < set(was.times)
    assert not caplog.records


def with_another_time(stream: bytes, kind: str, number: int, stamps: int, seconds: int) -> bytes:
    """A transport stream in which a packet of a track is so much later; of pictures 2 `stamps`, when to decode, too.

    Places from ISO/IEC 13818-1, 2.4.3.2 and 2.4.3.6.
    """
    data, found = bytearray(stream), 0
    first, last = (0xE0, 0xEF) if kind == "video" else (0xC0, 0xDF)
    for packet in range(0, len(data), 188):
        begin = packet + 4 + (data[packet + 4] + 1 if data[packet + 3] & 0x20 else 0)
        begins = data[packet + 1] & 0x40 and data[begin : begin + 3] == b"\0\0\1" and first <= data[begin + 3] <= last
        found += bool(begins)
        if begins and found == number + 1:
            for place in [begin + 9, begin + 14][: min(stamps, (data[begin + 7] >> 6) - 1)]:
                one, two, three, four, five = data[place : place + 5]
                ticks = (one >> 1 & 7) << 30 | two << 22 | three >> 1 << 15 | four << 7 | five >> 1
                ticks = (ticks + 90000 * seconds) % 2**33
                low = (ticks >> 15 & 0x7FFF) << 17 | 1 << 16 | (ticks & 0x7FFF) << 1 | 1
                data[place] = one & 0xF1 | (ticks >> 30) << 1
                data[place + 1 : place + 5] = low.to_bytes(4, "big")
    return bytes(data)


def test_sound_of_an_unknown_codec_is_left_out_and_the_other_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = record(tmp_path / "in.mkv", tracks=2)
    about, shown = recording(source)
    data = source.read_bytes()
    second = data.index(b"A_AAC", data.index(b"A_AAC") + 1)
    source.write_bytes(data[:second] + b"A_XYZ" + data[second + 5 :])
    deliver(VideoFile(tmp_path / "out.mp4"), about, shown)
    assert [sound.language for sound in sounds(tmp_path / "out.mp4")] == ["deu"]
    assert "is left out: this FFmpeg does not know its codec" in caplog.text


@pytest.mark.parametrize("layout", ["5.1(side)", "4.0", "2.1"])
def test_sound_of_unusual_loudspeakers_is_encoded_for_usual_ones(layout: str, tmp_path: Path) -> None:
    source = record(tmp_path / "in.mkv", "ac3", tracks=2, layout=layout)
    deliver(VideoFile(tmp_path / "out.webm"), *recording(source))
    after = sounds(tmp_path / "out.webm")
    assert [(sound.codec, sound.language) for sound in after] == [("opus", "deu"), ("opus", "eng")]
    assert after[0].times[-1] == pytest.approx(2, abs=0.1)


def test_a_title_in_an_old_alphabet_is_no_obstacle(tmp_path: Path) -> None:
    source = record(tmp_path / "in.avi", title="Caf__")
    source.write_bytes(source.read_bytes().replace(b"Caf__", b"Caf\xe9 "))  # Latin-1, as Windows wrote it
    with Recording(source) as recorded:
        about, shown = recorded.info, list(recorded)
    deliver(VideoFile(tmp_path / "out.mkv"), about, shown)
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.metadata["title"] == "Caf\ufffd "


def test_a_recording_that_is_gone_leaves_the_pictures_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = record(tmp_path / "in.mp4")
    about, shown = recording(source)
    source.write_bytes(b"not a film")
    deliver(VideoFile(tmp_path / "out.mp4"), about, shown)
    assert sounds(tmp_path / "out.mp4") == []
    assert "is left out" in caplog.text


@pytest.mark.parametrize(("name", "codec", "message"), [
    ("a.mp4", "h265x", "no video codec 'h265x'.*did you mean 'h265'"),
    ("a.mp4", "aac", "no video codec 'aac'"),
    ("a.webm", "h264", "a .webm file cannot hold h264; use --codec av1 or vp9"),
    ("a.mov", "av1", "a .mov file cannot hold av1; use --codec h264 or hevc"),
    ("a.gif", "h264", "a .gif file cannot hold h264; leave --codec out, or use another suffix"),
    ("a.mp4", "h264_v4l2m2m", "encoder h264_v4l2m2m cannot be opened"),
])  # fmt: skip
def test_a_codec_that_cannot_be_is_refused_at_once(name: str, codec: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=message):
        VideoFile(tmp_path / name, codec=codec)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("size", "hangs"), [((200, 8), True), ((24, 66), True), ((64, 8), False), ((32, 66), False)])
def test_pictures_on_which_an_encoder_hangs_are_refused(size: tuple[int, int], hangs: bool, tmp_path: Path) -> None:
    encoder = Encoder(tmp_path / "a.mp4", "av1")
    with av.open(io.BytesIO(), "w", format="mp4") as container:
        if hangs:
            with pytest.raises(OutputError, match=rf"opened for {size[0]}x{size[1]} \(it would hang\); choose another"):
                encoder.add_to(container, size, Fraction(1, 30), None)
        else:
            encoder.add_to(container, size, Fraction(1, 30), None)


def test_an_encoder_can_be_named(tmp_path: Path) -> None:
    assert len(write(tmp_path / "a.mp4", CFR, info(), "libx264").times) == len(CFR)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "gif"])
def test_after_a_failure_what_was_written_is_kept_and_plays(
    suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = VideoFile(tmp_path / f"a.{suffix}")
    deliver(sink, info(), frames(CFR), Outcome.FAILED)
    assert sink.kept == (tmp_path / f"a.part.{suffix}").resolve()
    assert len(read(sink.kept).times) == len(CFR)
    assert f"what was written until then is in {sink.kept}" in caplog.text
    assert not (tmp_path / f"a.{suffix}").exists()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of videos without and with sound whose processes were killed after their 50th frame."""
    folder = tmp_path_factory.mktemp("killed")
    source = record(folder / "in.mkv")
    command = [sys.executable, "-m", "tests.sink_killed", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return folder


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "gif"])
@pytest.mark.parametrize("sound", ["silent", "sounding"])
def test_a_killed_process_loses_less_than_a_second(suffix: str, sound: str, killed: Path) -> None:
    film = read(killed / f"{sound}.part.{suffix}")
    assert len(film.times) >= 25
    assert film.times[: len(film.times)] == pytest.approx([i / 25 for i in range(len(film.times))], abs=0.025)
    assert not (killed / f"{sound}.{suffix}").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "gif"])
def test_a_full_disk_ends_the_file_and_leaves_it_playable(suffix: str, tmp_path: Path) -> None:
    whole, about = tmp_path / f"whole.{suffix}", info(size=(160, 120))
    shown = [Frame(noise(i, (160, 120)), i, t, 0.0) for i, t in enumerate(CFR)]
    deliver(VideoFile(whole), about, shown)
    size = whole.stat().st_size
    for limit in (size // 2, size - 50):  # in the middle; when all frames are written and only the index is not
        output = tmp_path / f"a{limit}.{suffix}"
        sink = VideoFile(output)
        with file_limit(limit):
            with pytest.raises(OutputError) as caught:
                deliver(sink, about, shown)
            sink.close(Outcome.FAILED)
        assert sink.kept is not None
        said = f"cannot write {output}: File too large; what was written until then is in {sink.kept}"
        assert str(caught.value).startswith(said)
        assert len(read(sink.kept).times) > 10
        assert not output.exists()
