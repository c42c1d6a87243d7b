"""Video files: every frame once with its exact time, upright, in the right colours, whatever the file is like."""

from __future__ import annotations

import errno
import gc
import io
import logging
import os
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import SideDataContainer
from av.video.stream import VideoStream

from stream_seg import Detections, Pipeline, VideoFile
from stream_seg.errors import SourceError, UsageError
from stream_seg.frame import Frame
from stream_seg.segmenters import FunctionSegmenter
from stream_seg.sources import Recording, Synthetic, open_source
from stream_seg.sources.container import open_container
from stream_seg.sources.decoding import Decoder
from stream_seg.sources.picture import Orientation
from stream_seg.sources.timeline import Timeline, exact_origin, known_rate, meant_rate
from tests.source_files import (
    RATE,
    SIZE,
    UNSPECIFIED,
    add_sound,
    number_of,
    numbered,
    numbers_of,
    write_colour,
    write_sound,
    write_tiled_photo,
    write_video,
)

COLOUR_TOLERANCE = 3
"""8-bit YCbCr rounds a colour by up to 2; swscale's tables add 1."""

COLOURS = [(60, 30, 200), (40, 180, 20), (220, 90, 10), (128, 128, 128), (255, 255, 255), (0, 0, 0)]

CONTAINERS = [
    ("film.mp4", "libx264"),
    ("film.mov", "libx264"),
    ("film.mkv", "libx264"),
    ("film.ts", "libx264"),
    ("film.flv", "libx264"),
    ("film.webm", "libvpx"),
    ("film.avi", "mpeg4"),
    ("film.mpg", "mpeg2video"),
]


Numbered = tuple[Fraction, int]
"""The time of a picture, and its number."""


def frames_of(path: Path, start: Fraction = Fraction(0)) -> list[Frame]:
    with Recording(path, start=start) as source:
        return list(source)


def spoil_pictures(path: Path, which: slice) -> None:
    """Wipe out the beginnings of some packets of a file that holds PNG pictures."""
    data = bytearray(path.read_bytes())
    for match in list(re.finditer(b"\x89PNG", data))[which]:
        data[match.start() : match.start() + 8] = bytes(8)
    path.write_bytes(data)


def drop_picture(path: Path, number: int) -> None:
    """Leave an empty sample of a QuickTime file where a picture was, which becomes the tail of the one before."""
    data = bytearray(path.read_bytes())
    sizes = data.index(b"stsz") + 16 + 4 * number  # after the version, a common size, of which there is none, the count
    before, dropped = struct.unpack_from(">II", data, sizes - 4)
    struct.pack_into(">II", data, sizes - 4, before + dropped, 0)
    path.write_bytes(data)


@pytest.mark.parametrize(("name", "codec"), CONTAINERS)
def test_every_frame_comes_once_in_order(tmp_path: Path, name: str, codec: str) -> None:
    frames = frames_of(write_video(tmp_path / name, 30, codec=codec))
    assert numbers_of(frames) == list(range(30))
    assert [frame.index for frame in frames] == list(range(30))
    steps = {after.pts - before.pts for before, after in pairwise(frames)}
    assert steps == {Fraction(1, RATE)}


@pytest.mark.parametrize(("name", "codec"), CONTAINERS)
def test_starting_anywhere_gives_the_same_frames_as_reading_all(tmp_path: Path, name: str, codec: str) -> None:
    path = write_video(tmp_path / name, 40, codec=codec)
    whole = frames_of(path)
    for wanted in (*whole[1::6], whole[-1]):
        part = frames_of(path, start=wanted.pts)
        assert [(frame.pts, number_of(frame.image)) for frame in part] == [
            (frame.pts, number_of(frame.image)) for frame in whole if frame.pts >= wanted.pts
        ]


@pytest.mark.parametrize(
    "times",
    [
        [0, 33, 67, 100, 400, 433, 1200, 1233, 1300, 2000],
        [0, 33, 1066, 1099, 2130, 2163, 2196, 3220, 3253, 3286],  # a screen on which something happens each second
        [0, 3000, 5500, 12000, 13100, 14000, 20000, 21000, 24500, 26600],
    ],
)
@pytest.mark.parametrize("name", ["phone.mp4", "phone.mkv"])
def test_variable_frame_rate_keeps_its_times_exactly(tmp_path: Path, name: str, times: list[int]) -> None:
    frames = frames_of(write_video(tmp_path / name, len(times), pts=times))
    assert [frame.pts for frame in frames] == [Fraction(time, 1000) for time in times]


def test_pictures_that_are_far_apart_leave_nothing_behind_each(tmp_path: Path) -> None:
    path = write_video(tmp_path / "plant.mkv", 120, pts=range(0, 240_000, 2000))
    gc.collect()
    gc.disable()
    try:
        with Recording(path) as source:
            alive = {number: len(gc.get_objects()) for number, _ in enumerate(source) if number in (60, 119)}
    finally:
        gc.enable()
    assert abs(alive[119] - alive[60]) < 60


def test_h264_in_avi_where_times_are_in_another_order_gives_each_picture_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_video(tmp_path / "film.avi", 21, options={"bf": "3", "b_strategy": "0"})
    assert numbers_of(frames_of(path)) == list(range(21))
    assert not caplog.records


def test_each_picture_of_h264_in_avi_is_shown_for_as_long(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.avi", 100, options={"bf": "3", "b_strategy": "0", "g": "10"})
    frames = frames_of(path)
    assert {after.pts - before.pts for before, after in pairwise(frames)} == {Fraction(1, RATE)}
    part = frames_of(path, frames[70].pts)
    assert [frame.pts for frame in part] == [frame.pts for frame in frames[70:]]
    assert numbers_of(part) == numbers_of(frames)[70:] == list(range(70, 100))


def test_times_count_from_the_start_of_the_container_so_that_sound_stays_in_sync(tmp_path: Path) -> None:
    path = tmp_path / "late.mkv"
    write_video(path, 5, pts=[500, 540, 580, 620, 660], sound=True)
    with av.open(str(path)) as container:
        sound_starts = container.streams.audio[0].start_time
        assert sound_starts is not None
        offset = Fraction(500 - min(sound_starts, 500), 1000)
    assert frames_of(path)[0].pts == offset
    assert offset >= Fraction(49, 100)


def test_a_transport_stream_does_not_begin_at_its_odd_clock(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.ts", 10)
    with av.open(str(path)) as container:
        assert container.streams.video[0].start_time  # the muxer begins at 1.4 s
    assert frames_of(path)[0].pts == 0


def write_channel(path: Path, count: int) -> Path:
    """Write numbered pictures and sound as one channel of a broadcast that names another, of which nothing is there."""
    film = write_video(path.with_suffix(".mp4"), count, sound=True)
    with av.open(str(film)) as source, av.open(str(path), "w") as broadcast:
        (pictures,), (sound,) = source.streams.video, source.streams.audio
        elsewhere, here, heard = (broadcast.add_stream_from_template(stream) for stream in (pictures, pictures, sound))
        for packet in source.demux(pictures, sound):
            if packet.dts is None:
                continue
            if packet.stream is pictures:
                copy = Packet(bytes(packet))
                copy.pts, copy.dts, copy.time_base, copy.stream = packet.pts, packet.dts, packet.time_base, elsewhere
                broadcast.mux(copy)
            packet.stream = here if packet.stream is pictures else heard
            broadcast.mux(packet)
    data = path.read_bytes()
    packets = (data[place : place + 188] for place in range(0, len(data), 188))
    of_first = struct.pack(">H", 0x100)  # FFmpeg's first packet identifier, 13 bits
    path.write_bytes(b"".join(packet for packet in packets if bytes([packet[1] & 31, packet[2]]) != of_first))
    return path


def test_of_a_broadcast_that_channel_is_shown_which_was_recorded(tmp_path: Path) -> None:
    path = write_channel(tmp_path / "multiplex.ts", 50)
    with av.open(str(path)) as container:
        assert [film.codec_context.width for film in container.streams.video] == [0, SIZE[0]]
    assert numbers_of(frames_of(path)) == list(range(50))


def test_the_sound_of_a_part_of_a_recorded_channel_ends_with_its_pictures(tmp_path: Path) -> None:
    path = write_channel(tmp_path / "multiplex.ts", 50)
    segmenter = FunctionSegmenter(lambda _: Detections.none(("dog",)), ("dog",))
    out = tmp_path / "out.mkv"
    Pipeline(open_source(path, max_frames=25), segmenter, sinks=[VideoFile(out)]).run()
    with av.open(str(out)) as container:
        (sound,) = container.streams.audio
        ends = [packet.pts * packet.time_base for packet in container.demux(sound) if packet.pts is not None]
    assert 0.8 < ends[-1] < 1.2


def test_a_raw_bitstream_without_any_times_is_spaced_evenly(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.h264", 10, container_format="h264")
    frames = frames_of(path)
    assert numbers_of(frames) == list(range(10))
    assert [frame.pts for frame in frames] == [Fraction(index, RATE) for index in range(10)]


def test_a_file_in_which_times_jump_back_goes_on_steadily(tmp_path: Path) -> None:
    first, second = (write_video(tmp_path / f"{part}.ts", 50).read_bytes() for part in "ab")
    glued = tmp_path / "glued.ts"
    glued.write_bytes(first + second)
    frames = frames_of(glued)
    assert numbers_of(frames) == [*range(50), *range(50)]
    assert all(before.pts < after.pts for before, after in pairwise(frames))
    assert abs(frames[-1].pts - Fraction(99, RATE)) < Fraction(1, 10)


@pytest.mark.parametrize("name", ["film.ts", "film.mpg"])
def test_a_start_late_in_an_mpeg_stream_is_reached_without_decoding_all_before(tmp_path: Path, name: str) -> None:
    codec = "libx264" if name.endswith("ts") else "mpeg2video"
    path = write_video(tmp_path / name, 250, codec=codec, options={"g": "50", "bf": "2"})
    whole = frames_of(path)
    part = frames_of(path, start=Fraction(9))
    assert [(frame.pts, number_of(frame.image)) for frame in part] == [
        (frame.pts, number_of(frame.image)) for frame in whole if frame.pts >= 9
    ]
    with Recording(path, start=Fraction(9)) as source:
        assert source._decoder is not None
        first, _ = next(iter(source._decoder))
        assert 2 < first < 9


def test_a_small_step_back_of_times_is_no_reason_to_read_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "film.ts", 250, options={"g": "10"})
    read = Decoder._packets

    def stepping(decoder: Decoder) -> Iterator[Packet[VideoStream]]:
        for number, packet in enumerate(read(decoder)):
            if number == 30 and packet.dts is not None:
                packet.dts -= 9000  # a tenth of a second, more than a picture
            yield packet

    monkeypatch.setattr(Decoder, "_packets", stepping)
    with Recording(path, start=Fraction(9)) as source:
        assert source._decoder is not None
        first, _ = next(iter(source._decoder))
        assert 2 < first < 9


@pytest.fixture(scope="module", params=["1", "250"])
def jumping(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Numbered]]:
    """A file in which times jump back, with a key frame so often, and the times and numbers of its pictures."""
    folder = tmp_path_factory.mktemp("jumping")
    films = [write_video(folder / f"{count}.ts", count, options={"g": request.param}) for count in (150, 250)]
    glued = folder / "glued.ts"
    glued.write_bytes(b"".join(film.read_bytes() for film in films))
    return glued, [(frame.pts, number_of(frame.image)) for frame in frames_of(glued)]


@pytest.mark.parametrize("start", [2, 5, 8, 9, 12, 15])
def test_a_start_in_a_file_in_which_times_jump_back_is_that_of_reading_all(
    jumping: tuple[Path, list[Numbered]], start: int
) -> None:
    """Also where the next key frame is that of the next recording."""
    glued, whole = jumping
    part = frames_of(glued, start=Fraction(start))
    assert [(frame.pts, number_of(frame.image)) for frame in part] == [seen for seen in whole if seen[0] >= start]


@pytest.mark.parametrize(
    ("turn", "sides"),
    [  # which edge of the stored picture (0 left, 1 top, 2 right, 3 bottom) is seen left, top, right, bottom
        ((0, False, False), (0, 1, 2, 3)),
        ((90, False, False), (1, 2, 3, 0)),
        ((180, False, False), (2, 3, 0, 1)),
        ((-90, False, False), (3, 0, 1, 2)),
        ((0, True, False), (2, 1, 0, 3)),
        ((0, False, True), (0, 3, 2, 1)),
    ],
)
def test_pictures_are_turned_as_the_file_says(
    tmp_path: Path, turn: tuple[float, bool, bool], sides: Sequence[int]
) -> None:
    picture = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
    picture[8:-8, :8], picture[:8, 8:-8], picture[8:-8, -8:], picture[-8:, 8:-8] = 10, 90, 170, 250
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"qp": "5"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.set_display_rotation(*turn)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "bgr24")))
        container.mux(stream.encode(None))
    (frame,) = frames_of(path)
    stored = np.array([10, 90, 170, 250])
    seen = [int(np.median(side)) for side in (frame.image[:, 2], frame.image[2], frame.image[:, -3], frame.image[-3])]
    assert np.abs(np.array(seen) - stored[list(sides)]).max() < 12
    assert frame.size == (SIZE if turn[0] in (0, 180) else SIZE[::-1]) == Recording(path).info.size
    assert frame.image.flags.c_contiguous


def test_looking_at_a_pictures_orientation_does_not_keep_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "kept.mp4", 1, codec="libx264", pixel_format="yuv420p")
    with av.open(str(path)) as container:
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for picture in container.decode(video=0):
                assert SideDataContainer(picture)  # x264 signs its first picture
                assert Orientation.of(picture) == Orientation()
            del picture
            gc.collect()
            kept = [thing for thing in gc.garbage if isinstance(thing, av.VideoFrame)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
    assert not kept


def test_a_decoder_is_let_go_at_once_and_a_recording_is_read_once(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.mkv", 5)
    gc.collect()
    gc.disable()
    try:
        source = Recording(path)
        with source:
            assert len(list(source)) == 5
        assert not [one for one in gc.get_objects() if type(one) is Decoder]
        assert source.damaged == 0
    finally:
        gc.enable()
    with pytest.raises(RuntimeError, match=r"film\.mkv was read already"), source:
        pass


@pytest.mark.parametrize("size", [(63, 47), (1, 1), (65, 48)])
def test_odd_sizes_are_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_video(tmp_path / "odd.mkv", 3, size=size, codec="ffv1", pixel_format="yuv444p")
    frames = frames_of(path)
    assert [frame.size for frame in frames] == [size] * 3
    if size[0] > 8:
        assert numbers_of(frames) == [0, 1, 2]


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv422p10le", "gray", "yuv444p", "gbrp"])
def test_ten_bits_grey_and_other_samplings_are_read(tmp_path: Path, pixel_format: str) -> None:
    path = (
        write_video(tmp_path / "deep.mkv", 4, codec="libx264", pixel_format=pixel_format)
        if (pixel_format != "gbrp")
        else write_video(tmp_path / "deep.mkv", 4, codec="libx264rgb", pixel_format="rgb24")
    )
    assert numbers_of(frames_of(path)) == [0, 1, 2, 3]


@pytest.mark.parametrize(("codec", "pixel_format"), [("qtrle", "argb"), ("png", "rgba")])
def test_transparent_pixels_are_black(tmp_path: Path, codec: str, pixel_format: str) -> None:
    path = tmp_path / "clear.mov"
    picture = np.full((SIZE[1], SIZE[0], 4), 200, np.uint8)
    picture[:, : SIZE[0] // 2, 3] = 0
    picture[:, SIZE[0] // 2 :, 3] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height = SIZE
        stream.pix_fmt = pixel_format
        frame = av.VideoFrame.from_ndarray(picture, "rgba").reformat(format=pixel_format)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (seen,) = frames_of(path)
    assert seen.image[:, : SIZE[0] // 2].max() == 0
    assert seen.image[:, SIZE[0] // 2 :].min() == 200


@pytest.mark.parametrize("bgr", COLOURS)
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", [1, 6, 9], ids=["bt709", "bt601", "bt2020"])
def test_colours_follow_the_tagged_matrix_and_range(
    tmp_path: Path, matrix: int, full: bool, bgr: tuple[int, int, int]
) -> None:
    (frame,) = frames_of(write_colour(tmp_path / "colour.mp4", bgr, matrix=matrix, full=full))
    assert np.abs(frame.image.astype(int) - bgr).max() <= COLOUR_TOLERANCE


@pytest.mark.parametrize(("size", "matrix"), [((64, 48), 6), ((1280, 720), 1)])
def test_untagged_colours_are_taken_as_players_take_them(tmp_path: Path, size: tuple[int, int], matrix: int) -> None:
    bgr = (60, 30, 200)
    path = write_colour(tmp_path / "untagged.mp4", bgr, matrix=matrix, full=False, size=size, tagged=False)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).colorspace == UNSPECIFIED
    (frame,) = frames_of(path)
    assert np.abs(frame.image.astype(int) - bgr).max() <= COLOUR_TOLERANCE


def test_a_change_of_size_on_the_way_is_scaled(tmp_path: Path) -> None:
    parts = [
        write_video(tmp_path / f"{w}.h264", 5, size=(w, h), container_format="h264") for w, h in ((64, 48), (128, 96))
    ]
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = frames_of(path)
    assert numbers_of(frames) == [*range(5), *range(5)]
    assert {frame.size for frame in frames} == {(64, 48)}


@pytest.mark.parametrize(("other", "top", "left"), [((128, 48), 12, 0), ((48, 72), 0, 16), ((98, 72), 0, 0)])
def test_a_change_of_proportions_on_the_way_is_fitted_between_bars(
    tmp_path: Path, other: tuple[int, int], top: int, left: int
) -> None:
    parts = [write_video(tmp_path / f"{w}.h264", 3, size=(w, h), container_format="h264") for w, h in (SIZE, other)]
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    *_, frame = frames = frames_of(path)
    assert {frame.size for frame in frames} == {SIZE}
    inside = np.zeros(SIZE[::-1], bool)
    inside[top : SIZE[1] - top, left : SIZE[0] - left] = True
    assert number_of(frame.image[top : SIZE[1] - top, left : SIZE[0] - left]) == 2
    assert not frame.image[~inside].any()
    assert frame.image[-1 - top, -1 - left].mean() == pytest.approx(128, abs=COLOUR_TOLERANCE)


def test_damaged_packets_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_video(tmp_path / "film.mov", 30, codec="png", pixel_format="rgb24", options={})
    spoil_pictures(path, slice(5, 8))
    with caplog.at_level(logging.WARNING), Recording(path) as source:
        frames = list(source)
        assert source.damaged == 3
    assert numbers_of(frames) == [number for number in range(30) if number not in (5, 6, 7)]
    assert [frame.index for frame in frames] == list(range(27))
    assert frames[5].pts - frames[4].pts == Fraction(4, RATE)
    assert "3 damaged packets" in caplog.text


def test_flipped_bytes_do_not_end_the_run(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.mp4", 60, sound=True, options={"g": "10"})
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(3)
    for at in random.integers(200, data.index(b"moov") - 4, 40):
        data[at] ^= 0xFF
    path.write_bytes(data)
    frames = frames_of(path)
    assert 40 <= len(frames) <= 60
    assert all(before.pts < after.pts for before, after in pairwise(frames))


@pytest.mark.parametrize(("count", "least"), [(200, 50), (62, 10)])
def test_a_file_cut_off_in_the_middle_gives_what_is_there_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, count: int, least: int
) -> None:
    path = write_video(tmp_path / "film.mp4", count, options={"g": "10"}, container_format="mp4")
    fast = tmp_path / "fast.mp4"
    with av.open(str(path)) as given, av.open(str(fast), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    fast.write_bytes(fast.read_bytes()[: fast.stat().st_size * 2 // 3])
    with caplog.at_level(logging.WARNING):
        frames = frames_of(fast)
    assert least < len(frames) < count - 1
    assert numbers_of(frames)[:least] == list(range(least))
    assert "is cut off" in caplog.text


def without_tagged_lengths(path: Path) -> None:
    """Leave of a Matroska file's lengths only that of the whole, as some programs write it."""
    path.write_bytes(path.read_bytes().replace(b"DURATION", b"DURATI0N"))


@pytest.mark.parametrize(
    ("name", "sound", "tagged"), [("a.mkv", True, True), ("a.webm", False, True), ("a.mkv", False, False)]
)
def test_a_matroska_file_cut_off_says_so_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, sound: bool, tagged: bool
) -> None:
    codec, haste = ("libvpx", {"deadline": "realtime"}) if name == "a.webm" else ("libx264", {})
    path = write_video(tmp_path / name, 100, codec=codec, options={"g": "10", **haste}, sound=sound)
    if not tagged:
        without_tagged_lengths(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level(logging.WARNING):
        frames = frames_of(path)
    assert 10 < len(frames) < 80
    assert f"{path} is cut off: it ends at {float(frames[-1].pts) + 1 / RATE:.1f} s of 4.0 s" in caplog.text


@pytest.mark.parametrize("tagged", [True, False])
def test_sound_that_goes_on_after_the_pictures_is_no_cut(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, tagged: bool
) -> None:
    path = write_video(tmp_path / "film.mkv", 100, pts=range(0, 1000, 10), sound=True)
    if not tagged:
        without_tagged_lengths(path)
    with caplog.at_level(logging.WARNING), Recording(path) as source:
        assert source.info.duration is not None
        assert source.info.duration >= 4
        assert len(list(source)) == 100
    assert not caplog.text


@pytest.mark.parametrize("tagged", [True, False])
def test_sound_that_goes_on_after_pictures_that_begin_late_is_no_cut(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, tagged: bool
) -> None:
    """So late that FFmpeg does not come across them while it looks for what tracks there are."""
    path = write_video(tmp_path / "late.mkv", 250, pts=range(6000, 7000, 4), sound=True)
    if not tagged:
        without_tagged_lengths(path)
    with caplog.at_level(logging.WARNING):
        frames = frames_of(path)
    assert (len(frames), frames[0].pts) == (250, 6)
    assert not caplog.text


def test_of_a_damaged_end_that_threads_decode_all_good_pictures_come(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.mov", 30, codec="png", pixel_format="rgb24", options={})
    spoil_pictures(path, slice(22, 27, 4))
    good = [*range(22), *range(23, 26), *range(27, 30)]
    with closing(Decoder(lambda: open_container(str(path), "film"), "film", threads=8)) as decoder:
        pictures = [(pts * RATE, number_of(decoder.image(picture))) for pts, picture in decoder]
    assert pictures == [(number, number) for number in good]
    assert decoder.damaged == 2


def test_where_a_damaged_end_cannot_be_read_again_what_was_lost_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_video(tmp_path / "film.mov", 30, codec="png", pixel_format="rgb24", options={})
    spoil_pictures(path, slice(27, 28))
    containers = [open_container(str(path), "film")]

    def once() -> InputContainer:
        if not containers:
            raise SourceError("cannot read film: it is over")
        return containers.pop()

    with closing(Decoder(once, "film", threads=8)) as decoder, caplog.at_level(logging.WARNING):
        pictures = [number_of(decoder.image(picture)) for _, picture in decoder]
    assert pictures == list(range(27))
    assert decoder.damaged == 3
    assert "film: its last 3 pictures were lost, for one of them is damaged" in caplog.text


@pytest.mark.parametrize("start", [0, 1])
def test_what_makes_no_sense_to_ffmpeg_behind_a_seek_is_damage_and_not_the_end_of_the_run(
    start: int, tmp_path: Path
) -> None:
    path = write_video(tmp_path / "film.apng", 60, codec="apng", pixel_format="rgb24", options={})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 8 // 10])  # read on from a seek, its end is one that FFmpeg does not implement
    with Recording(path, start=Fraction(start)) as source:
        numbers = numbers_of(list(source))
    assert numbers == list(range(start * RATE, numbers[-1] + 1))
    assert numbers[-1] > 40
    assert source.damaged


def test_after_a_picture_that_the_camera_left_out_reading_goes_on(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.mov", 20, codec="mjpeg", pixel_format="yuvj420p", options={})
    drop_picture(path, 7)
    with Recording(path) as source:
        frames = list(source)
        assert source.damaged == 0
    assert numbers_of(frames) == [*range(7), *range(8, 20)]
    assert [frame.pts for frame in frames] == [Fraction(number, RATE) for number in numbers_of(frames)]


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
def test_a_last_picture_that_is_shown_for_long_is_no_cut(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    source = Synthetic((64, 48), Fraction(30), 45)
    video = VideoFile(tmp_path / name, codec="mpeg4")
    with source, caplog.at_level(logging.WARNING):
        video.open(source.info)
        for frame in source:
            video.write(frame, Detections.none(("dog",)))
        video.finish(Fraction(3))
        assert len(frames_of(tmp_path / name)) == 45
    with av.open(str(tmp_path / name)) as film:
        stream = film.streams.video[0]
        assert film.duration == 3 * 10**6
        assert stream.time_base is not None
        assert stream.duration is None or stream.duration * stream.time_base == 3
    assert "cut off" not in caplog.text


class OnABadDisk:
    """A file of which only the beginning can be read."""

    def __init__(self, path: Path, good: int) -> None:
        self._good = io.BytesIO(path.read_bytes()[:good])

    def read(self, size: int) -> bytes:
        data = self._good.read(size)
        if not data:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return data


def test_a_file_that_cannot_be_read_any_further_is_an_error_and_what_was_written_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "film.mkv", 60, size=(320, 240), codec="rawvideo", pixel_format="uyvy422", options={})
    half = path.stat().st_size // 2
    monkeypatch.setattr(Recording, "_container", lambda self: open_container(OnABadDisk(path, half), self.name))
    video = VideoFile(tmp_path / "out.mp4")
    segmenter = FunctionSegmenter(lambda _: Detections.none(("dog",)), ("dog",))
    with pytest.raises(SourceError, match=r"film\.mkv broke off: input/output error$"):
        Pipeline(Recording(path), segmenter, sinks=[video]).run()
    assert not (tmp_path / "out.mp4").exists()
    assert video.kept is not None
    monkeypatch.undo()
    kept = numbers_of(frames_of(video.kept))
    assert 10 < len(kept) < 30  # what was still on its way is not waited for
    assert kept == list(range(len(kept)))


def test_a_file_whose_name_looks_like_an_address_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    film = write_video(tmp_path / "film.mp4", 3)
    for name in ("12:30.mp4", "rtsp:film.mp4", "file:film.mp4"):
        film = film.rename(tmp_path / name)
        with open_source(name) as source:
            assert numbers_of(list(source)) == [0, 1, 2]
            assert source.info.name == name


@pytest.mark.parametrize("name", ["song.m4a", "song.mka"])
def test_a_sound_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match=rf"{name} holds no video, only sound$"):
        Recording(write_sound(tmp_path / name))


def test_an_encrypted_film_is_refused_as_such(tmp_path: Path) -> None:
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "01" * 16, "encryption_kid": "02" * 16}
    with av.open(str(tmp_path / "film.mp4"), "w", container_options=options) as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            output.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        output.mux(stream.encode(None))
    with pytest.raises(SourceError, match="is encrypted"):
        Recording(tmp_path / "film.mp4")


def test_a_photo_in_tiles_by_another_name_is_refused_rather_than_shown_as_its_first_tile(tmp_path: Path) -> None:
    photo = write_tiled_photo(tmp_path / "photo")
    with av.open(str(photo)) as container:
        assert len(container.streams.video) == 2
    with pytest.raises(SourceError, match=r"photo is a photo in tiles.* name ends in \.heic$"):
        open_source(photo)


def test_a_sound_file_with_a_cover_picture_is_refused(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "song.m4a", cover=numbered(3))
    with pytest.raises(SourceError, match="holds no video, only a cover picture and sound"):
        Recording(path)


@pytest.mark.parametrize("start", [0, 0.2])
def test_a_file_that_is_closed_before_it_is_opened_is_not_called_damaged(tmp_path: Path, start: float) -> None:
    path = tmp_path / "film.mp4"
    write_video(path, 10)
    source = open_source(path, start=start)
    source.close()
    with pytest.raises(SourceError, match=r"film\.mp4 was closed before its first picture$"), source:
        pass


def test_a_missing_file_is_refused_with_a_close_name(tmp_path: Path) -> None:
    write_video(tmp_path / "Holiday.mp4", 1)
    with pytest.raises(SourceError, match=r"no such file: .*holidy\.mp4 .did you mean 'Holiday\.mp4'\?"):
        Recording(tmp_path / "holidy.mp4")


def test_a_file_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no folder"):
        Recording(tmp_path / "nowhere" / "film.mp4")


@pytest.mark.parametrize(
    "address", ["192.168.1.5/s?token=secret", "cam:554/s?token=secret", "rtsp:/cam/s?token=secret", "localhost/a.mp4"]
)
def test_an_address_without_a_scheme_is_told_what_it_lacks_and_not_repeated(address: str) -> None:
    with pytest.raises(SourceError, match=r"; an address begins with rtsp:// ") as refused:
        open_source(address)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", b"Dear diary\n" * 50),
        ("film.mp4", b"not a film at all" * 99),
        ("empty.mp4", b""),
        ("a.bin", b"\0" * 999),
    ],
)
def test_what_is_not_a_video_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceError, match="not a video") as caught:
        Recording(path)
    assert "\n" not in str(caught.value)


def test_an_mp4_without_its_index_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.mp4", 60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SourceError, match="not a video, or too damaged"):
        Recording(path)


def test_a_file_without_one_good_picture_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.mov", 10, codec="png", pixel_format="rgb24", options={})
    spoil_pictures(path, slice(None))
    with pytest.raises(SourceError, match="not one picture that can be decoded"):
        Recording(path)


def test_what_is_known_of_a_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.mp4", 50)
    info = open_source(path).info
    assert (info.size, info.kind, info.path, info.is_live) == (SIZE, "video", path, False)
    assert (info.frame_rate, info.frame_count, info.duration) == (RATE, 50, 2)
    assert (info.start, info.end) == (0, None)


def test_the_part_between_start_and_end_is_exact(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.mp4", 50)
    with open_source(path, start=0.4, end=0.8) as source:
        frames = list(source)
        assert (source.info.start, source.info.end) == (Fraction(2, 5), Fraction(4, 5))
        assert source.info.frame_count == 10
    assert numbers_of(frames) == list(range(10, 20))
    assert [frame.index for frame in frames] == list(range(10))
    assert frames[0].pts == Fraction(2, 5)


def test_a_start_behind_the_end_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.mp4", 50)
    with pytest.raises(SourceError, match=r"has its last picture at 1\.960 s; it cannot start at 3 s"):
        open_source(path, start=3)


def test_a_start_behind_an_end_that_is_stated_too_early_is_reached(tmp_path: Path) -> None:
    first, second = (write_video(tmp_path / f"{part}.ts", 50).read_bytes() for part in "ab")
    path = tmp_path / "glued.ts"
    path.write_bytes(first + second)
    assert Recording(path).info.duration == 2
    with open_source(path, start=3.2) as source:
        assert (source.info.duration, source.info.frame_count) == (None, None)
        assert numbers_of(list(source)) == list(range(30, 50))
    with pytest.raises(SourceError, match=r"glued\.ts has its last picture at 3\.960 s; it cannot start at 4 s"):
        open_source(path, start=4)


def test_frames_skipped_before_the_start_are_not_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "film.mp4", 30, options={"g": "30"})
    converted = []
    with Recording(path, start=Fraction(1)) as source:
        assert source._decoder is not None
        pixels = source._decoder._pixels
        monkeypatch.setattr(source._decoder, "_pixels", lambda picture: converted.append(1) or pixels(picture))
        assert len(list(source)) == len(converted) == 5


def test_a_file_with_sound_keeps_all_its_frames(tmp_path: Path) -> None:
    assert numbers_of(frames_of(write_video(tmp_path / "film.mp4", 30, sound=True))) == list(range(30))


# Time stamps ----------------------------------------------------------------------------------------------------------


def test_missing_time_stamps_are_filled_in() -> None:
    timeline = Timeline(Fraction(1, 1000), Fraction(0), Fraction(25))
    stamps = [(0, 0), (None, None), (80, None), (None, 120), (None, None)]
    assert [timeline.next(*stamp) * 1000 for stamp in stamps] == [0, 40, 80, 120, 160]


def test_a_repeated_time_stamp_does_not_move_the_next() -> None:
    timeline = Timeline(Fraction(1, 1000), Fraction(0), Fraction(25))
    assert [timeline.next(pts, None) * 1000 for pts in (0, 40, 40, 80)] == [0, 40, 60, 80]


def test_times_before_the_origin_are_moved_to_it() -> None:
    timeline = Timeline(Fraction(1, 10), Fraction(1), Fraction(10))
    assert timeline.next(8, None) >= 0


def test_an_origin_between_two_ticks_is_kept_exactly() -> None:
    origin = exact_origin(Fraction(-21333, 10**6), [Fraction(-1024, 48000), Fraction(0)], Fraction(1, 12800))
    assert origin == Fraction(-1024, 48000)
    timeline = Timeline(Fraction(1, 12800), origin, Fraction(25))
    first, second = timeline.next(0, None), timeline.next(512, None)
    assert (first, second) == (Fraction(1024, 48000), Fraction(1024, 48000) + Fraction(1, 25))
    assert (first / timeline.unit).denominator == (second / timeline.unit).denominator == 1


def test_an_origin_that_no_encoder_could_count_in_is_rounded_to_a_tick() -> None:
    tick = Fraction(1, 2**24)
    origin = exact_origin(Fraction(1, 10**6), [], tick)
    assert (origin / tick).denominator == 1
    assert 0 <= Fraction(1, 10**6) - origin < tick


@pytest.mark.parametrize("rate", [None, Fraction(0), Fraction(90000), Fraction(-5)])
def test_an_impossible_frame_rate_is_unknown(rate: Fraction | None) -> None:
    assert known_rate(rate) is None


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ("23.976023976", Fraction(24000, 1001)),
        ("23.97602", Fraction(24000, 1001)),
        ("23.976", Fraction(2997, 125)),
        ("29.97002997", Fraction(30000, 1001)),
        ("29.97", Fraction(2997, 100)),
        ("9.99", Fraction(999, 100)),
        ("30000/1001", Fraction(30000, 1001)),
        ("0.3333333333333333", Fraction(1, 3)),
        ("0.00002", Fraction(1, 50000)),
        ("9999.99999", Fraction(10000)),
    ],
)
def test_a_frame_rate_that_is_told_is_the_one_meant(told: str, meant: Fraction) -> None:
    assert meant_rate("rate", Fraction(told)) == meant


@pytest.mark.parametrize("rate", ["0", "0.000001", "10000.1", "1e12"])
def test_a_frame_rate_that_no_film_has_is_refused(rate: str) -> None:
    with pytest.raises(UsageError, match=r"^rate must be more than 0: 0\.00001 to 10000 a second, got"):
        meant_rate("rate", Fraction(rate))


def test_sound_helper_writes_sound(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mka"), "w") as container:
        add_sound(container, 0.2)
    with av.open(str(tmp_path / "a.mka")) as container:
        assert len(container.streams.audio) == 1
