"""The sound of recordings at addresses: the same as of files, and never at the cost of pictures or of time."""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import pytest

from stream_seg.detections import Detections
from stream_seg.frame import Frame, SourceInfo
from stream_seg.pipeline import Pipeline
from stream_seg.protocols import Outcome, Sink
from stream_seg.segmenters import FunctionSegmenter
from stream_seg.sinks import SegmentedVideo, VideoFile, distant
from stream_seg.sinks.original import Sound
from stream_seg.sinks.originals import original_of
from stream_seg.sinks.recorded import Recorded
from stream_seg.sources import network, open_source
from tests.misbehaving_server import (
    Behaviour,
    Handler,
    MisbehavingServer,
    chunked,
    cut_off,
    held,
    redirect,
    stalled,
    status,
    trickling,
    whole,
    without_length,
    without_range,
)
from tests.sink_films import NOTHING, copied, deliver, read, record, segments, sounds, taken
from tests.source_counts import until
from tests.source_servers import file_server

SECRET = "hunter2"
PROMPT = 8.0
"""Seconds within which a run ends that is told to, however long its sound keeps it waiting."""


@pytest.fixture(autouse=True)
def readers_end() -> Iterator[None]:
    """Those that were left behind, once their server has hung up."""
    yield
    assert until(lambda: not any(thread.name.startswith("stream-seg") for thread in threading.enumerate()))


@pytest.fixture(autouse=True)
def nobody_waits_longer_than_need_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distant, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(distant, "JOIN_SECONDS", 0.1)
    for name in ("STREAM_SEG_PASSWORD", "NETRC"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg does not come back to a server that has hung up."""
    monkeypatch.setattr(network, "options_for", lambda *_: {})


def copy_of(spec: str | Path, out: Path, **options: float) -> bytes:
    about, shown = taken(spec, **options)
    assert about.kind == "video"
    deliver(VideoFile(out, overwrite=True), about, shown)
    return out.read_bytes()


def faststart(source: Path) -> Path:
    """As MP4 is for the web, with what is needed to begin at its beginning."""
    path = source.with_stem("web")
    with av.open(str(source)) as film, av.open(str(path), "w", options={"movflags": "faststart"}) as output:
        output.metadata["title"] = film.metadata["title"]
        for packet in copied(film.streams.get(), output):
            output.mux(packet)
    return path


@pytest.mark.parametrize("part", [{}, {"start": 2.3}, {"start": 2.3, "end": 3}, {"max_frames": 20}], ids=str)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_an_address_gives_the_video_that_the_file_gives(suffix: str, part: dict[str, float], tmp_path: Path) -> None:
    tracks = 2 if suffix == ".mkv" else 1
    source = record(tmp_path / f"in{suffix}", seconds=4, tracks=tracks, title="Titled", aspect=Fraction(4, 3))
    expected = copy_of(source, tmp_path / "file.mp4", **part)
    with file_server(tmp_path) as host:
        given = copy_of(f"http://{host}/{source.name}", tmp_path / "address.mp4", **part)
    if suffix == ".ts":  # the mean rate of broadcast sound, which its header tells, is that of what was read so far
        assert len(given) == len(expected)
    else:
        assert given == expected
    assert len(sounds(tmp_path / "file.mp4")) == tracks
    assert sounds(tmp_path / "address.mp4") == sounds(tmp_path / "file.mp4")
    with av.open(str(tmp_path / "address.mp4")) as container:
        assert container.metadata.get("title") == (None if suffix == ".ts" else "Titled")
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


@pytest.mark.parametrize("start", [0, 2.3])
@pytest.mark.parametrize("serve", [without_range, without_length, chunked], ids=lambda serve: serve.__name__)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_server_that_cannot_seek_or_tells_no_length_gives_all_sound(
    suffix: str, serve: Callable[[bytes], Behaviour], start: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = record(tmp_path / f"in{suffix}", seconds=4, title="Titled")
    source = faststart(source) if suffix == ".mp4" else source
    expected = copy_of(source, tmp_path / "file.mp4", start=start)
    with MisbehavingServer() as server:
        address = server.behave(f"/film{suffix}", serve(source.read_bytes()))
        assert copy_of(address, tmp_path / "address.mp4", start=start) == expected
    assert sounds(tmp_path / "file.mp4")[0].times[-1] > 3.9 - start
    assert not caplog.records


def test_segments_of_a_recording_at_an_address_have_its_sound_one_after_the_other(tmp_path: Path) -> None:
    source = record(tmp_path / "in.mp4", seconds=4)
    with file_server(tmp_path) as host:
        deliver(SegmentedVideo(tmp_path / "door.mp4", 1.5), *taken(f"http://{host}/in.mp4"))
    parts = [sounds(path)[0] for path in segments(tmp_path)]
    assert len(parts) == 3
    assert [packet for part in parts for packet in part.packets] == sounds(source)[0].packets
    assert max(part.times[0] for part in parts) < 0.025


def playlist(path: Path, source: Path, kinds: tuple[str, ...] = ("video", "audio")) -> None:
    """Tracks of a recording cut into segments of two seconds or more beside a playlist of them."""
    options = {"hls_time": "2", "hls_list_size": "0", "hls_segment_filename": f"{path.with_suffix('')}%d.ts"}
    with av.open(str(source)) as film, av.open(str(path), "w", format="hls", options=options) as output:
        for packet in copied([stream for stream in film.streams.get() if stream.type in kinds], output):
            output.mux(packet)


@pytest.mark.parametrize("part", [{}, {"start": 5.5}, {"end": 3}], ids=str)
def test_a_playlist_may_have_its_sound_in_files_of_its_own(part: dict[str, float], tmp_path: Path) -> None:
    source = record(tmp_path / "in.ts", seconds=14)
    copy_of(source, tmp_path / "file.mp4", **part)
    playlist(tmp_path / "pictures.m3u8", source, ("video",))
    playlist(tmp_path / "sound.m3u8", source, ("audio",))
    film = tmp_path / "film.m3u8"
    film.write_text(
        "#EXTM3U\n"
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="Deutsch",LANGUAGE="deu",DEFAULT=YES,URI="sound.m3u8"\n'
        '#EXT-X-STREAM-INF:BANDWIDTH=100000,AUDIO="a"\npictures.m3u8\n'
    )
    original = Recorded(film, Fraction(0), None)
    behind = [original.picture_seen - sound.time for sound in iter(original.next, None)]
    assert max(behind) < 1  # the bytes of the ones are not compared with those of the others
    original.close()
    with file_server(tmp_path) as host:
        copy_of(f"http://{host}/film.m3u8", tmp_path / "address.mp4", **part)
    (before,), (after,) = sounds(tmp_path / "file.mp4"), sounds(tmp_path / "address.mp4")
    assert (after.packets, after.times, after.language) == (before.packets, before.times, before.language)


@pytest.mark.parametrize("part", [{}, {"start": 11.5, "end": 12.5}], ids=str)
def test_a_playlist_gives_the_sound_of_the_quality_that_is_shown(part: dict[str, float], tmp_path: Path) -> None:
    source = record(tmp_path / "in.ts", seconds=14)
    copy_of(source, tmp_path / "file.mp4", **part)
    with MisbehavingServer() as server:
        for name in ("small", "large"):
            playlist(tmp_path / f"{name}.m3u8", source)
        (tmp_path / "film.m3u8").write_text(
            "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=100000\nsmall.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=900000\nlarge.m3u8\n"
        )
        for path in tmp_path.iterdir():
            server.behave(f"/{path.name}", whole(path.read_bytes()))
        copy_of(server.url("/film.m3u8"), tmp_path / "address.mp4", **part)
        asked = [path for path, _ in server.requests]
    (before,), (after,) = sounds(tmp_path / "file.mp4"), sounds(tmp_path / "address.mp4")
    assert (after.packets, after.times) == (before.packets, before.times)
    assert read(tmp_path / "address.mp4").times == read(tmp_path / "file.mp4").times
    assert asked.count("/small1.ts") >= 2  # once for the pictures and once for the sound
    assert "/large1.ts" not in asked


def guarded(data: bytes) -> Behaviour:
    """The file for who knows the password."""
    known = "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()

    def answer(handler: Handler) -> None:
        if handler.headers.get("Authorization") == known:
            whole(data)(handler)
        else:
            handler.begin(401, {"WWW-Authenticate": 'Basic realm="x"', "Content-Length": 0})

    return answer


def test_a_password_opens_the_sound_as_well_and_is_told_to_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    source = record(tmp_path / "in.mkv")
    expected = copy_of(source, tmp_path / "file.mp4")
    with MisbehavingServer() as server:
        server.behave("/film.mkv", guarded(source.read_bytes()))
        address = server.behave("/moved.mkv", redirect("/film.mkv")).replace("//", f"//me:{SECRET}@")
        given = copy_of(f"{address}?token={SECRET}", tmp_path / "address.mp4")
        monkeypatch.setenv("STREAM_SEG_PASSWORD", SECRET)
        assert copy_of(address.replace(f":{SECRET}@", "@"), tmp_path / "environment.mp4") == given == expected
        about, shown = taken(f"{address}?token={SECRET}")
        server.behave("/film.mkv", status(401))
        deliver(VideoFile(tmp_path / "refused.mp4"), about, shown)
    assert "the sound of http://***@127" in caplog.text
    assert "STREAM_SEG_PASSWORD" in caplog.text
    assert SECRET not in caplog.text + repr(about) + repr(about.reopening)
    assert SECRET.encode() not in expected + (tmp_path / "refused.mp4").read_bytes()
    assert len(read(tmp_path / "refused.mp4").times) == len(shown)


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize(
    ("serve", "why", "heard"),
    [
        (lambda _: status(404), "the sound of {} is left out: cannot read {}: server returned 404", 0),
        (lambda data: stalled(data, 0), "the sound of {} is left out: {} did not answer within 0.4 s", 0),
        (lambda data: stalled(data, len(data) // 2), "the rest of the sound of {} is left out: the server sent", 1),
        (lambda data: cut_off(data, len(data) // 2), "the rest of the sound of {} is left out: Input/output error", 1),
        (lambda data: without_length(data[: len(data) // 2]), "the rest of the sound of {} is left out: Input/ou", 1),
        (lambda _: whole(b"no film" * 999), "the sound of {} is left out: cannot read {}: it is not a video", 0),
    ],
    ids=["gone", "silent", "stalled", "cut off", "hung up", "replaced"],
)
def test_sound_that_cannot_be_had_costs_no_picture_and_is_one_line(
    serve: Callable[[bytes], Behaviour], why: str, heard: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = record(tmp_path / "in.mkv", "pcm_s16le", seconds=6)
    with MisbehavingServer() as server:
        address = server.behave("/film.mkv", whole(source.read_bytes()))
        about, shown = taken(address, open_timeout=0.4, stall_timeout=0.4)
        server.behave("/film.mkv", serve(source.read_bytes()))
        began = time.monotonic()
        deliver(VideoFile(tmp_path / "out.mkv"), about, shown)
        took = time.monotonic() - began
    assert read(tmp_path / "out.mkv").times == read(source).times
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.messages[0].startswith(why.format(address, address))
    (before,), after = sounds(source), sounds(tmp_path / "out.mkv")
    assert len(after) == heard
    if after:
        assert 2 < after[0].times[-1] < 4
        assert after[0].packets == before.packets[: len(after[0].packets)]
    assert took < PROMPT


class StoppedClock:
    """A clock that goes on by a minute while sound is waited for, as that of a process that was stopped (Ctrl-Z)."""

    def __init__(self) -> None:
        self.waiting, self.over = threading.Event(), threading.Event()
        self._looks = 0

    def monotonic(self) -> float:
        self._looks += self.waiting.is_set() and threading.current_thread() is threading.main_thread()
        if self._looks == 12:
            self.over.set()
        return time.monotonic() + (60 if self._looks > 8 else 0)


def test_time_for_which_the_process_was_stopped_costs_no_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source, clock = record(tmp_path / "in.mkv", "pcm_s16le", seconds=6), StoppedClock()
    data = source.read_bytes()
    with MisbehavingServer() as server:
        address = server.behave("/film.mkv", whole(data))
        about, shown = taken(address, open_timeout=4, stall_timeout=4)
        server.behave("/film.mkv", held(data, len(data) // 2, clock.waiting, clock.over))
        monkeypatch.setattr(distant, "time", clock)
        deliver(VideoFile(tmp_path / "out.mkv"), about, shown)
    assert clock.over.is_set()
    assert sounds(tmp_path / "out.mkv")[0].packets == sounds(source)[0].packets
    assert not caplog.records


@pytest.mark.usefixtures("once")
def test_a_reader_that_hangs_is_left_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As FFmpeg does where it looks up a name: no timeout of its own holds there."""
    source = record(tmp_path / "in.mp4")
    about, shown = taken(source)
    hangs = threading.Event()

    def open_() -> object:
        hangs.wait()
        raise av.error.OSError(5, "Input/output error")

    reopening = network.Reopening("http://host/in.mp4", open_, 0.2, 0.2)
    about = SourceInfo(
        about.name, about.size, "video", about.frame_rate, time_base=about.time_base, reopening=reopening
    )
    began = time.monotonic()
    deliver(VideoFile(tmp_path / "out.mp4"), about, shown)
    assert time.monotonic() - began < PROMPT
    hangs.set()
    assert len(read(tmp_path / "out.mp4").times) == len(shown)
    assert caplog.messages == ["the sound of http://host/in.mp4 is left out: the server did not answer within 0.2 s"]


def test_nothing_is_waited_for_that_is_known_to_be_there_or_not_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing more is read: of two tracks one begins at 6 s, and until 20 s there is no other sound."""
    monkeypatch.setattr(distant, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(distant, "HURRY_SECONDS", 0.02)
    hangs = threading.Event()

    def open_() -> av.container.InputContainer:
        hangs.wait()
        raise av.error.OSError(5, "Input/output error")

    sound = distant.Distant(network.Reopening("http://host/in.mp4", open_, 9, 9), Fraction(0), None)
    sound._tracks = {1: None, 2: None}  # type: ignore[dict-item]
    sound._ahead.append(Sound(Fraction(6), SimpleNamespace(stream_index=1)))  # type: ignore[arg-type]
    assert [sound.waits_for(Fraction(time)) for time in (6, 7)] == [False, True]
    assert sound.waits_from(Fraction(0))  # it is not open yet
    sound._is_open = True
    assert [sound.waits_from(Fraction(start)) for start in (1, 2)] == [False, True]
    sound._tracks.pop(2)
    assert [sound.waits_from(Fraction(start)) for start in (6, 7)] == [False, True]
    sound.silent_until = Fraction(20)
    assert [sound.waits_for(Fraction(time)) for time in (14, 15)] == [False, True]
    assert [sound.waits_from(Fraction(start)) for start in (9, 10)] == [False, True]
    sound.waits_for(Fraction(0))
    sound.picture_seen = Fraction(3)
    sound.wait_for_picture(Fraction(2))
    assert not sound._is_over
    sound.hurry()
    due = sound._deadline
    sound.hurry()
    assert sound._deadline == due
    sound.wait_for_picture(Fraction(3))
    assert sound._is_over
    sound._is_open = False
    hangs.set()
    sound.close()


class Impatient(Sink):
    """Ends the run when nothing was shown for a while."""

    def __init__(self) -> None:
        self.shown = 0
        self._asked: int | None = None

    def open(self, info: SourceInfo) -> None:
        self._asked = 0

    def write(self, frame: Frame, detections: Detections) -> None:
        self.shown += 1
        self._asked = 0

    def wants_stop(self) -> bool:
        if self._asked is not None:
            self._asked += 1
        return (self._asked or 0) > 5


def shown_until_told(data: bytes, share: float, sink: Sink) -> int:
    """How many frames of a film were shown whose sound stalls after this share, until it was told to end, and did."""
    impatient = Impatient()
    with MisbehavingServer() as server:
        address = server.behave("/film.mkv", without_range(data), stalled(data, round(len(data) * share)))
        film = open_source(address, open_timeout=60, stall_timeout=60)
        segmenter = FunctionSegmenter(lambda _: NOTHING, NOTHING.class_names)
        pipeline = Pipeline(film, segmenter, sinks=[sink, impatient])
        began = time.monotonic()
        pipeline.run()
        assert time.monotonic() - began < PROMPT
        assert pipeline.stopped
    return impatient.shown


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("share", [0, 0.5], ids=["from the first", "in the middle"])
@pytest.mark.parametrize("segmented", [False, True], ids=["one", "segments"])
def test_a_run_whose_sound_stalls_still_ends_when_it_is_told_to(segmented: bool, share: float, tmp_path: Path) -> None:
    source = record(tmp_path / "in.mkv", "pcm_s16le", seconds=6)
    data = source.read_bytes()
    out = tmp_path / "out.mkv"
    sink = SegmentedVideo(out, 600) if segmented else VideoFile(out)
    shown = shown_until_told(data, share, sink)
    (path,) = tmp_path.glob("out*.mkv")
    assert shown == len(read(path).times) < 150
    assert len(sounds(path)) == (share > 0)


@pytest.mark.usefixtures("once")
def test_a_run_that_waits_for_the_sound_before_an_event_ends_when_it_is_told_to(tmp_path: Path) -> None:
    data = record(tmp_path / "in.mkv", "pcm_s16le", seconds=6).read_bytes()
    assert 50 < shown_until_told(data, 0.5, SegmentedVideo(tmp_path / "out.mkv", events=1, before=1)) < 150
    assert not list(tmp_path.glob("out*"))


@pytest.mark.usefixtures("once")
def test_a_run_that_is_stopped_closes_its_files_though_their_sound_stalls(tmp_path: Path) -> None:
    source = record(tmp_path / "in.mkv", "pcm_s16le", seconds=6)
    data = source.read_bytes()
    with MisbehavingServer() as server:
        address = server.behave("/film.mkv", without_range(data), stalled(data, len(data) // 2))
        about, shown = taken(address, open_timeout=60, stall_timeout=60)
        began = time.monotonic()
        deliver(VideoFile(tmp_path / "out.mkv"), about, shown[:60], Outcome.STOPPED)
        assert time.monotonic() - began < PROMPT
    assert sounds(tmp_path / "out.mkv")[0].times[-1] == pytest.approx(2.3, abs=0.01)


def test_a_run_that_is_stopped_does_not_wait_for_sound_that_trickles_in(tmp_path: Path) -> None:
    source = record(tmp_path / "in.mkv", "pcm_s16le", seconds=20)
    data = source.read_bytes()
    with MisbehavingServer() as server:
        address = server.behave("/film.mkv", without_range(data), trickling(data, len(data) // 200, 0.02))
        about, shown = taken(address)
        deliver(VideoFile(tmp_path / "out.mkv"), about, [shown[0], shown[-1]], Outcome.STOPPED)
    assert sounds(tmp_path / "out.mkv")[0].times[-1] < 10


def test_nothing_more_is_fetched_once_it_is_closed_though_no_sound_came_yet(tmp_path: Path) -> None:
    source = record(tmp_path / "in.ts", seconds=20)
    data = source.read_bytes()
    with MisbehavingServer() as server:
        address = server.behave("/film.ts", without_range(data))
        about, _ = taken(address, start=19.5)
        server.behave("/film.ts", trickling(data, len(data) // 100, 0.05))
        sound = original_of(about)
        assert sound is not None
        assert sound.waits_from(about.start)
        sound.close()
        assert until(lambda: not any(thread.name.startswith("stream-seg") for thread in threading.enumerate()), 2.5)


def test_a_reader_that_is_far_ahead_ends_once_it_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distant, "AHEAD", 4)
    record(tmp_path / "in.mkv", "pcm_s16le", seconds=1)
    with file_server(tmp_path) as host:
        about, _ = taken(f"http://{host}/in.mkv", max_frames=1)
        assert about.reopening is not None
        sound = distant.Distant(about.reopening, about.start, about.end)
        assert until(lambda: len(sound._sounds) == 4)
        sound.close()
        assert until(lambda: not sound._reader.is_alive())


def test_a_recording_without_sound_is_not_fetched_twice(tmp_path: Path) -> None:
    source = record(tmp_path / "in.mkv", seconds=2, tracks=0, title="Titled")
    data = source.read_bytes()
    with MisbehavingServer() as server:
        address = server.behave("/film.mkv", whole(data))
        about, shown = taken(address)
        server.behave("/film.mkv", stalled(data, len(data) * 3 // 4))
        deliver(VideoFile(tmp_path / "out.mp4"), about, shown)  # which would wait
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.metadata["title"] == "Titled"
