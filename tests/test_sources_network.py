"""Addresses: recordings and cameras over HTTP, playlists, a real RTSP server, hosts that fail and hang."""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stream_seg.addresses import backoff
from stream_seg.errors import Reason, SourceError
from stream_seg.frame import Frame
from stream_seg.sources import network, open_source
from stream_seg.sources.decoding import Decoder
from stream_seg.sources.seen import Seen
from tests.misbehaving_server import MisbehavingServer, cut_off, paused, status, whole, without_length, without_range
from tests.sink_films import record
from tests.source_counts import readers_end
from tests.source_files import RATE, SIZE, jpeg, number_of, numbered, numbers_of, write_video
from tests.source_servers import (
    Relay,
    clock_of,
    cut,
    file_server,
    h264_pieces,
    hls_camera,
    http_camera,
    needs_rtsp,
    rtsp_camera,
    rtsp_sender,
    silent_host,
)

SECRET = "hunter2"
NO_PORT = "127.0.0.1:1"

AGE_LIMIT = 1.5
"""Seconds a picture may be old; tens of milliseconds on an idle machine, and frame threads alone would add 0.5."""


def write_playlist(path: Path, count: int, seconds: float) -> None:
    """Write numbered pictures in segments 0.ts, 1.ts ... beside a playlist of all of them."""
    options = {"hls_time": str(seconds), "hls_list_size": "0", "hls_segment_filename": str(path.parent / "%d.ts")}
    with av.open(str(path), "w", format="hls", options=options) as out:
        stream = out.add_stream("libx264", rate=RATE, options={"g": str(round(RATE * seconds)), "bf": "0"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for number in range(count):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), "bgr24")))
        out.mux(stream.encode(None))


def test_a_recording_over_http_comes_whole_and_with_its_own_times(tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", 40)
    with file_server(tmp_path) as host, open_source(f"http://{host}/film.mp4") as source:
        assert (source.info.kind, source.info.frame_count, source.info.path) == ("video", 40, None)
        frames = list(source)
    assert numbers_of(frames) == list(range(40))
    assert [frame.pts for frame in frames] == [Fraction(index, RATE) for index in range(40)]


def test_the_scheme_of_an_address_may_be_written_in_capitals(tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", 5)
    with file_server(tmp_path) as host, open_source(f"HTTP://{host}/film.mp4") as source:
        assert source.info.name == f"HTTP://{host}/film.mp4"
        assert numbers_of(list(source)) == list(range(5))


def test_a_part_of_a_recording_over_http_is_exact(tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", 60)
    with file_server(tmp_path) as host, open_source(f"http://{host}/film.mp4", start=1.2, end=1.6) as source:
        assert (source.info.start, source.info.frame_count) == (Fraction(6, 5), 10)
        assert numbers_of(list(source)) == list(range(30, 40))


def test_a_recording_over_http_that_breaks_off_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "options_for", lambda *_: {"reconnect": "1", "reconnect_delay_max": "0"})
    film = write_video(tmp_path / "film.mkv", 60, size=(320, 240), codec="rawvideo", pixel_format="uyvy422", options={})
    data = film.read_bytes()
    came: list[Frame] = []
    with MisbehavingServer() as server:
        dies = cut_off(data, len(data) // 2)
        address = server.behave("/film.mkv", dies, lambda _: None)  # then it hangs up without a word
        with pytest.raises(SourceError, match="broke off: "), open_source(address) as source:
            came.extend(source)
    assert numbers_of(came) == list(range(len(came)))
    assert 20 < len(came) < 31


def test_a_server_that_goes_while_a_damaged_end_is_read_again_costs_those_pictures_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(network, "options_for", lambda *_: {"reconnect": "1", "reconnect_delay_max": "0"})
    film = write_video(tmp_path / "film.avi", 60, codec="png", pixel_format="rgb24", options={})
    data = bytearray(film.read_bytes())
    place = [match.start() for match in re.finditer(b"\x89PNG", data)][57]
    data[place : place + 8] = bytes(8)
    with MisbehavingServer() as server:
        dies = cut_off(bytes(data), len(data) // 2)
        address = server.behave("/film.avi", without_range(bytes(data)), dies, lambda _: None)
        with open_source(address) as source:
            numbers = numbers_of(list(source))
    assert numbers == list(range(len(numbers)))
    assert 40 < len(numbers) < 58
    assert "pictures were lost, for one of them is damaged" in caplog.text


def test_a_recording_whose_index_is_out_of_reach_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """As python -m http.server serves it: the index at the end is read on the way, and there is no way back."""
    film = record(tmp_path / "film.mp4", "pcm_s16le", seconds=2, rate=100)
    with MisbehavingServer() as server:
        address = server.behave("/film.mp4", without_range(film.read_bytes()))
        with pytest.raises(SourceError, match=r"broke off: .*: fetch the file first.*-movflags \+faststart$") as caught:
            open_source(address).__enter__()
    assert caught.value.__context__ is None


def test_a_part_of_a_recording_is_had_from_a_server_that_cannot_seek_though_its_index_says_where(
    tmp_path: Path,
) -> None:
    film = record(tmp_path / "film.avi", "libmp3lame", seconds=12)
    with MisbehavingServer() as server:
        address = server.behave("/film.avi", without_range(film.read_bytes()))
        with open_source(address, start=7) as served, open_source(film, start=7) as source:
            expected = [frame.pts for frame in source]
            assert [frame.pts for frame in served] == expected
    assert len(expected) > 100


def test_a_recording_of_a_server_that_cannot_seek_in_it_is_read_once(tmp_path: Path) -> None:
    film = write_video(tmp_path / "film.ts", 40).read_bytes()
    with MisbehavingServer() as server:
        address = server.behave("/film.ts", without_range(film))
        with open_source(address) as source:
            assert (source.info.kind, source.info.duration) == ("video", None)
            assert numbers_of(list(source)) == list(range(40))
        with open_source(address, start=1) as source:
            assert numbers_of(list(source)) == list(range(25, 40))


@pytest.mark.parametrize("suffix", [".m2ts", ".vob", ".gif"])
def test_what_a_camcorder_or_disc_holds_and_a_gif_are_recordings_where_the_server_cannot_seek(
    suffix: str, tmp_path: Path
) -> None:
    settings = ("gif", "rgb8") if suffix == ".gif" else ("mpeg2video", "yuv420p")
    path = write_video(tmp_path / f"film{suffix}", 20, codec=settings[0], pixel_format=settings[1], options={})
    with MisbehavingServer() as server:
        address = server.behave(f"/film{suffix}", without_range(path.read_bytes()))
        with open_source(address) as served, open_source(path) as source:
            assert served.info.kind == "video"
            assert [frame.pts for frame in served] == [frame.pts for frame in source]


def test_a_stream_whose_server_tells_no_length_is_live_whatever_its_name(tmp_path: Path) -> None:
    film = write_video(tmp_path / "film.ts", 40).read_bytes()
    with MisbehavingServer() as server:
        address = server.behave("/film.ts", without_length(film))
        with open_source(address, reconnect=0) as source:
            assert source.info.kind == "live"


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
def test_a_recording_whose_server_tells_no_length_is_whole_when_it_hangs_up_at_the_end(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_video(tmp_path / name, 50, options={"bf": "2"})  # the last pictures wait in the codec
    with MisbehavingServer() as server:
        address = server.behave(f"/{name}", without_length(path.read_bytes()))
        with open_source(address) as served, open_source(path) as source:
            expected = [(frame.pts, number_of(frame.image)) for frame in source]
            assert [(frame.pts, number_of(frame.image)) for frame in served] == expected
    assert not caplog.records


def test_a_recording_whose_server_tells_no_length_and_hangs_up_in_the_middle_breaks_off(tmp_path: Path) -> None:
    film = write_video(tmp_path / "film.mkv", 50, options={"g": "5", "bf": "0"}).read_bytes()
    came: list[Frame] = []
    with MisbehavingServer() as server:
        address = server.behave("/film.mkv", without_length(film[: len(film) // 2]))
        with pytest.raises(SourceError, match="broke off: "), open_source(address) as source:
            came.extend(source)
    assert numbers_of(came) == list(range(len(came)))
    assert 10 < len(came) < 40


def test_a_finished_playlist_is_a_recording(tmp_path: Path) -> None:
    write_playlist(tmp_path / "film.m3u8", 60, 1.0)
    with file_server(tmp_path) as host, open_source(f"http://{host}/film.m3u8") as source:
        assert source.info.kind == "video"
        assert numbers_of(list(source)) == list(range(60))


@pytest.mark.alone  # it watches the clock
def test_a_live_playlist_plays_smoothly_from_its_newest_segments_on(tmp_path: Path) -> None:
    write_playlist(tmp_path / "all.m3u8", 250, 1.0)
    with (
        hls_camera(tmp_path, 1.0, at_first=4) as host,
        open_source(f"http://{host}/live.m3u8", stall_timeout=0.8, reconnect=0) as source,
    ):
        assert source.info.kind == "live"
        frames = list(itertools.islice(source, 70))
    numbers = numbers_of(frames)
    assert 2 * RATE <= numbers[0] < 4 * RATE
    taken = [(number - numbers[0]) / RATE for number in numbers]
    assert max(abs(float(frame.pts) - at) for frame, at in zip(frames, taken, strict=True)) < 0.5


def test_what_the_playlist_of_a_camera_that_has_gone_still_names_does_not_come_again(tmp_path: Path) -> None:
    write_playlist(tmp_path / "all.m3u8", 100, 1.0)
    frames: list[Frame] = []
    with (
        hls_camera(tmp_path, 1.0, at_first=4, goes=True) as host,
        open_source(f"http://{host}/live.m3u8", stall_timeout=0.7, reconnect=1) as source,
        pytest.raises(SourceError, match=r"sent no new frame for 0\.7 s; is it still on\? \(tried again once\)"),
    ):
        frames.extend(source)
    numbers = numbers_of(frames)
    assert len(numbers) > RATE
    assert numbers == sorted(set(numbers))  # a reader that is late misses some, and none comes twice


def test_a_film_that_a_playlist_plays_again_and_again_comes_back_where_it_was_left() -> None:
    def pictures(*numbers: int) -> Iterator[tuple[Fraction, av.VideoFrame]]:
        for number in numbers:
            picture = av.VideoFrame.from_ndarray(numbered(number), "bgr24").reformat(format="yuv420p")
            picture.pts = number
            yield Fraction(number, RATE), picture

    seen, loop = Seen(), range(10)
    assert [picture.pts for _, picture in seen.unseen(pictures(*loop, 0, 1, 2, 3, 4))] == [*loop, 0, 1, 2, 3, 4]
    for _ in range(2):
        assert not list(seen.unseen(pictures(1, 2, 3, 4)))
    assert [picture.pts for _, picture in seen.unseen(pictures(9, 0, 1, 2, 3, 4, 5, 6))] == [5, 6]
    assert [picture.pts for _, picture in seen.unseen(pictures(5, 6, 20, 5))] == [20, 5]


def flv(pictures: int, *, sound: float = 0) -> list[bytes]:
    """The header and tags of numbered pictures, and of so many seconds of sound, as FLV and RTMP carry them."""
    file = io.BytesIO()
    with av.open(file, "w", format="flv", options={"flvflags": "no_metadata"}) as out:
        video = out.add_stream("libx264", rate=RATE, options={"tune": "zerolatency"})
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        audio = out.add_stream("mp3", rate=44100) if sound else None
        packets = []
        for number in range(pictures):
            packets += video.encode(av.VideoFrame.from_ndarray(numbered(number), "bgr24"))
        if audio is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, round(sound * 44100)), np.int16), "s16", "mono")
            silence.sample_rate = 44100
            packets += audio.encode(silence)
        out.mux(packets)
    data, parts, place = file.getvalue(), [], 13
    while place < len(data):
        end = place + 15 + int.from_bytes(data[place + 1 : place + 4])
        parts.append(data[place:end])
        place = end
    return [data[:13], *parts]


def test_sound_that_never_comes_is_not_waited_for() -> None:
    feed, opened = flv(4 * RATE), threading.Event()
    with MisbehavingServer() as server:
        address = server.behave("/live.flv", paused(b"".join(feed), len(b"".join(feed[: 3 * RATE])), opened))
        with network.NetworkStream(address, open_timeout=2) as source:
            opened.set()
            assert (source.info.kind, source.info.frame_rate) == ("live", RATE)
            assert numbers_of(list(source)) == list(range(4 * RATE))
        assert len(server.requests) == 1


def test_a_feed_whose_sound_comes_first_is_looked_at_until_its_pictures_come() -> None:
    header, *tags = flv(RATE, sound=2)
    tags.sort(key=lambda tag: tag[0] == 9)  # pictures last
    with MisbehavingServer() as server:
        address = server.behave("/live.flv", without_length(b"".join([header, *tags])))
        with network.NetworkStream(address) as source:
            assert numbers_of(list(source)) == list(range(RATE))


def test_a_recording_whose_address_looks_like_that_of_a_camera_is_looked_at_at_length(tmp_path: Path) -> None:
    (tmp_path / "film.flv").write_bytes(b"".join(flv(2 * RATE, sound=1)))
    with file_server(tmp_path) as host, open_source(f"http://{host}/film.flv") as source:
        assert source.info.kind == "video"
        assert numbers_of(list(source)) == list(range(2 * RATE))
        reopening = source.info.reopening
        assert reopening is not None
        with reopening.open() as again:
            assert {track.type for track in again.streams} == {"audio", "video"}


def test_an_mp4_at_an_address_that_a_server_takes_once_is_read(tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", 2 * RATE)
    with MisbehavingServer() as server:
        address = server.behave("/get", whole((tmp_path / "film.mp4").read_bytes()), status(403))
        with open_source(f"{address}?token=1", reconnect=0) as source:
            assert (source.info.kind, source.info.frame_count) == ("video", 2 * RATE)
            assert numbers_of(list(source)) == list(range(2 * RATE))


@pytest.mark.parametrize("path", ["/video", "/video.mjpg"])
def test_a_few_plain_pictures_of_a_camera_over_http_tell_what_it_sends(path: str) -> None:
    feed, opened = [jpeg(number, (1280, 720)) for number in range(30)], threading.Event()
    with MisbehavingServer() as server:
        address = server.behave(path, paused(b"".join(feed), len(b"".join(feed[:10])), opened))
        with network.NetworkStream(address, open_timeout=2) as source:
            opened.set()
            assert source.info.kind == "live"
            assert numbers_of(list(source)) == list(range(30))


@pytest.mark.parametrize(
    ("address", "short"),
    [
        ("rtmp://server/live/door", True),
        ("http://server/flv?port=1935", True),
        ("HTTP://server/Video.MJPG", True),
        ("http://server/cgi-bin/video?user=a.ts", True),
        ("http://server/live/door.flv", True),
        ("http://server/door.ts?flv", False),
        ("http://server/live.m3u8", False),
        ("udp://:5000", False),
        ("rtsp://server/mjpeg", False),
    ],
)
def test_what_would_be_waited_for_in_vain_is_told_by_the_address(address: str, short: bool) -> None:
    assert network.suits_short_look(address) is short


def test_a_camera_over_http_is_live_and_its_end_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "stream_seg"),
        http_camera(pictures=20) as host,
        open_source(f"http://{host}/video", reconnect=0) as source,
    ):
        frames = list(source)
        assert (source.info.kind, source.info.size, source.info.duration) == ("live", SIZE, None)
    assert numbers_of(frames)[-1] == 19
    assert frames[0].pts == 0  # however many came before it and were not taken in time
    assert "ended the stream" in caplog.text


def test_each_picture_of_a_camera_over_http_comes_once_also_the_last() -> None:
    with http_camera(pictures=20) as host, network.NetworkStream(f"http://{host}/video") as source:
        frames = list(source)
    assert numbers_of(frames) == list(range(20))
    assert [frame.index for frame in frames] == list(range(20))


@pytest.mark.parametrize("header", [b"", b"Content-Type: image/jpg\r\n"], ids=["none", "jpg"])
def test_pictures_of_a_camera_over_http_may_be_called_anything(header: bytes) -> None:
    with (
        http_camera(pictures=20, then_hang=True, header=header) as host,
        network.NetworkStream(f"http://{host}/video") as source,
    ):
        assert source.info.kind == "live"
        assert numbers_of(list(itertools.islice(source, 19))) == list(range(19))


@pytest.mark.parametrize(
    ("movflags", "kind"), [("empty_moov+default_base_moof+frag_keyframe", "live"), ("faststart", "video")]
)
def test_an_mp4_that_comes_in_fragments_without_a_length_is_live(movflags: str, kind: str, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "film.mp4"), "w", options={"movflags": movflags}) as container:
        stream = container.add_stream("libx264", rate=25, options={"tune": "zerolatency", "g": "5"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), "bgr24")))
        container.mux(stream.encode(None))
    with MisbehavingServer() as server:
        address = server.behave("/stream", without_length((tmp_path / "film.mp4").read_bytes()))
        with network.NetworkStream(address, open_timeout=5) as source:
            assert source.info.kind == kind
            assert [frame.index for frame in itertools.islice(source, 25)] == list(range(25))


def test_a_camera_that_stalls_is_an_error_soon() -> None:
    with http_camera(pictures=20, then_hang=True) as host:
        began = time.monotonic()
        with (
            pytest.raises(SourceError, match=r"sent no new frame for 0\.5 s|did not answer|broke off"),
            open_source(f"http://{host}/video", stall_timeout=0.5, reconnect=0) as source,
        ):
            list(source)
        assert time.monotonic() - began < 5


def test_a_host_that_never_answers_is_an_error_soon() -> None:
    with silent_host() as host:
        began = time.monotonic()
        with pytest.raises(SourceError, match=r"did not answer within 0\.5 s"):
            open_source(f"http://user:{SECRET}@{host}/video", open_timeout=0.5, reconnect=0).__enter__()
        assert time.monotonic() - began < 3


def test_closing_ends_the_wait_for_an_answer() -> None:
    with silent_host() as host:
        source = open_source(f"http://{host}/video", open_timeout=1.2, reconnect=0)
        threading.Timer(0.1, source.close).start()
        began = time.monotonic()
        with pytest.raises(SourceError, match="was closed before it answered"):
            source.__enter__()
        assert time.monotonic() - began < 1.1
        assert readers_end()


@pytest.mark.parametrize("scheme", ["rtsp", "http", "rtmp", "tcp"])
def test_a_refused_connection_is_an_error_without_credentials(scheme: str) -> None:
    with pytest.raises(SourceError, match=r"cannot read .*: ") as caught:
        open_source(f"{scheme}://user:{SECRET}@{NO_PORT}/video?token={SECRET}", open_timeout=2, reconnect=0).__enter__()
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_port_that_another_program_listens_on_is_named_as_the_reason() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", 0))
        with pytest.raises(SourceError, match=r"cannot read udp://:\d+: address already in use$"):
            network.NetworkStream(f"udp://:{other.getsockname()[1]}").__enter__()


def test_a_missing_page_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<html>no video here</html>" * 50)
    with file_server(tmp_path) as host, pytest.raises(SourceError, match=r"not a video.* not of a page"):
        open_source(f"http://{host}/page.html", reconnect=0).__enter__()


@pytest.mark.parametrize(
    ("code", "words"),
    [(404, "404 Not Found$"), (410, r"the server refused it \(4xx\); is the address right\?$"), (503, r"\(5xx\)$")],
)
def test_what_a_server_says_against_an_address_is_told(code: int, words: str) -> None:
    with MisbehavingServer() as server, pytest.raises(SourceError, match=words):
        open_source(server.behave("/video", status(code)), reconnect=0).__enter__()


def test_a_slow_consumer_of_a_recording_loses_nothing(tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", 30)
    with (
        file_server(tmp_path) as host,
        open_source(f"http://{host}/film.mp4", stall_timeout=0.6, reconnect=0) as source,
    ):
        frames = []
        for frame in source:
            if len(frames) in (3, 12):
                time.sleep(0.8)  # longer than the stall time: only waiting for the network counts
            frames.append(frame)
    assert numbers_of(frames) == list(range(30))


def test_what_a_connection_needed_is_let_go_at_once_not_when_garbage_is_collected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.0)
    gc.collect()
    gc.disable()
    try:
        with http_camera(pictures=10) as host, open_source(f"http://{host}/video") as source:
            assert len(list(itertools.islice(source, 30))) == 30
            assert source.availability.counts[Reason.ENDED] >= 2  # type: ignore[attr-defined]
            decoders = [one for one in gc.get_objects() if type(one) is Decoder]  # isinstance asks proxies
            assert len(decoders) <= 1
    finally:
        gc.enable()


@pytest.mark.parametrize("suffix", [".mp4", ".MKV", ".MTS"])
def test_a_file_that_is_not_there_over_http_is_not_waited_for(suffix: str) -> None:
    with pytest.raises(SourceError, match=r"connection refused$"):
        open_source(f"http://{NO_PORT}/film{suffix}?x=1").__enter__()


def test_making_a_network_source_waits_for_nothing() -> None:
    source = open_source(f"rtsp://user:{SECRET}@192.0.2.1/stream")
    with pytest.raises(RuntimeError, match="not open yet"):
        _ = source.info


def test_pictures_of_mpeg4_over_rtsp_are_whole_from_the_first_on(tmp_path: Path) -> None:
    film = write_video(tmp_path / "film.mp4", 12, size=(640, 480), codec="mpeg4", options={"qmin": "1", "qmax": "1"})
    with av.open(str(film)) as container:
        header = container.streams.video[0].codec_context.extradata
        assert header is not None
        media = f"m=video 0 RTP/AVP 96\r\na=rtpmap:96 MP4V-ES/90000\r\na=fmtp:96 config={header.hex()}"
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    with open_source(film) as source:
        pictures = [frame.image for frame in source]
    with (
        rtsp_sender(media, [cut(packet, 1000) for packet in packets]) as host,
        network.NetworkStream(f"rtsp://{host}/cam") as stream,
    ):
        frames = list(stream)
    assert len(frames) >= len(pictures) - 1
    assert len(packets[0]) > 3000  # so that it comes in pieces
    for frame, picture in zip(frames, pictures, strict=False):
        np.testing.assert_array_equal(frame.image, picture)


def test_an_rtsp_camera_that_tells_the_parameters_of_its_codec_within_the_stream_alone_is_read(tmp_path: Path) -> None:
    film = write_video(tmp_path / "film.h264", 30, options={"g": "10", "bf": "0"})
    with av.open(str(film)) as container:
        units = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    pictures = [h264_pieces(unit, 10) for unit in units]
    assert len(pictures[5]) > 1  # which is in the midst of a group
    with (
        rtsp_sender("m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000", pictures[5:]) as host,
        network.NetworkStream(f"rtsp://{host}/cam") as stream,
    ):
        assert numbers_of(list(stream)) == list(range(10, 30))


@needs_rtsp()
def test_a_real_rtsp_camera_is_fresh_then_stalls_with_a_reason() -> None:
    with rtsp_camera() as server:
        with open_source(f"rtsp://{server.host}/cam", stall_timeout=1.5, reconnect=0) as source:
            assert (source.info.kind, source.info.size) == ("live", (1280, 720))
            ages = [time.time() - clock_of(frame.image) for frame in itertools.islice(source, 40)]
            server.tell("freeze")
            arrived = [time.monotonic()]
            with pytest.raises(SourceError, match=r"no new frame for 1\.5 s|broke off"):
                arrived.extend(time.monotonic() for _ in source)  # what a busy server had still to send comes first
            assert 1 < time.monotonic() - arrived[-1] < 3
        assert np.median(ages[-20:]) < AGE_LIMIT
        assert min(ages) > -0.1
        assert readers_end()


@needs_rtsp()
@pytest.mark.parametrize("sound", [False, True])
def test_the_sound_of_an_rtsp_camera_whose_pictures_stall_keeps_no_reader(sound: bool) -> None:
    with rtsp_camera(size="320x240", sound="too") as server:
        with open_source(f"rtsp://{server.host}/cam", stall_timeout=0.5, reconnect=0, sound=sound) as source:
            frames = iter(source)
            for _ in range(5):
                next(frames)
            server.tell("freeze")
            with pytest.raises(SourceError, match=r"no new frame for 0\.5 s"):
                list(frames)
        assert readers_end(5)


@needs_rtsp()
def test_an_rtsp_address_with_sound_alone_holds_no_video() -> None:
    with (
        rtsp_camera(sound="only") as server,
        pytest.raises(SourceError, match=r"holds no video, only sound$") as caught,
    ):
        open_source(f"rtsp://{server.host}/cam", reconnect=0).__enter__()
    assert caught.value.reason is Reason.CODEC


@needs_rtsp()
def test_an_rtsp_camera_that_declares_no_frame_rate_has_that_of_its_codec() -> None:
    with (
        rtsp_camera(size="320x240", fps=10) as server,
        Relay(server.host, (b"a=framerate", b"a=something")) as network,
        open_source(f"rtsp://{network.host}/cam", reconnect=0) as source,
    ):
        assert source.info.frame_rate == 10


@needs_rtsp()
def test_an_rtsp_camera_that_is_switched_off_ends_the_stream() -> None:
    with rtsp_camera() as server, open_source(f"rtsp://{server.host}/cam", stall_timeout=3, reconnect=0) as source:
        frames = iter(source)
        for _ in range(5):
            next(frames)
        server.kill()
        began = time.monotonic()
        with contextlib.suppress(SourceError):  # depends on how the server's system takes leave
            list(frames)
        assert time.monotonic() - began < 5


@needs_rtsp()
def test_leaving_an_rtsp_camera_takes_no_time() -> None:
    with rtsp_camera() as server:
        with open_source(f"rtsp://{server.host}/cam", reconnect=0) as source:
            frames = iter(source)
            next(frames)
            began = time.monotonic()
        assert time.monotonic() - began < 1
