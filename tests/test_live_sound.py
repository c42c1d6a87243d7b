"""What is heard from a live source, from the packets of a connection into the files that record it."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from stream_seg import sinks
from stream_seg.cli import main
from stream_seg.feed_sound import MOST_PIECES, FeedSound, Piece
from stream_seg.frame import Frame, SourceInfo
from stream_seg.protocols import Outcome, Sink
from stream_seg.sinks import SegmentedVideo, VideoFile, live_original
from stream_seg.sinks import segments as recorder
from stream_seg.sinks.live_original import LiveOriginal
from stream_seg.sources import hearing
from stream_seg.sources.clock import LiveClock
from stream_seg.sources.hearing import Hearing, hearing_of
from stream_seg.tracks import track_of
from tests.sink_films import NOTHING, SOMETHING, read, segments, sounds
from tests.source_servers import clock_of, needs_rtsp, rtsp_camera
from tests.tiny_models import batched_model

RATE = 25
SECONDS = 4
BEGAN = 5000.0
"""The `time.monotonic()` at which a connection is made."""


def clap(path: Path, codec: str = "aac", rate: int = 48000) -> Path:
    """Make a film whose pictures are white, and whose sound is a tone, in the first 0.2 s of each second."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "tune": "zerolatency"})
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        track = container.add_stream(codec, rate=rate, layout="mono")
        for index in range(SECONDS * RATE):
            is_on = index % RATE < RATE // 5
            picture = VideoFrame.from_ndarray(np.full((48, 64, 3), 255 * is_on, np.uint8), "bgr24")
            picture.pts, picture.time_base = index, Fraction(1, RATE)
            container.mux(pictures.encode(picture))
            samples = np.arange(index, index + 1, RATE / rate)[: rate // RATE] / RATE
            wave = (20000 * is_on * np.sin(2 * np.pi * 1000 * samples)).astype(np.int16)[None]
            heard = av.AudioFrame.from_ndarray(wave, "s16", "mono")
            heard.sample_rate, heard.pts, heard.time_base = rate, index * rate // RATE, Fraction(1, rate)
            container.mux(track.encode(heard))
        for stream in (pictures, track):
            container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clap(tmp_path_factory.mktemp("film") / "clap.mp4")


def connection(
    film: Path,
    sound: FeedSound,
    clock: LiveClock,
    *,
    began: float = BEGAN,
    delay: Sequence[float] = (0.0,),
    sound_ahead: float = 0.0,
    sound_late: float = 0.0,
    is_silent: bool = False,
    first: int = 0,
) -> Iterator[Frame]:
    """The frames of a camera that sends the film from `began` on, while what is heard goes to `sound`.

    Its pictures come by each of `delay` late in turn. Its sound comes `sound_late` after the pictures of its time, has
    stamps that are `sound_ahead` later by its clock, and begins with the packet `first`.
    """
    with av.open(str(film)) as container:
        track = container.streams.audio[0]
        ear = Hearing(sound, track, "rtsp://door")
        packets = [
            (float((packet.dts or 0) * packet.time_base) + sound_late * (packet.stream.type == "audio"), packet)
            for packet in container.demux()
            if packet.size
        ]
        index, heard = 0, 0
        for sent, packet in sorted(packets, key=lambda one: (one[0], one[1].stream.type)):
            arrived = began + sent
            if isinstance(packet.stream, AudioStream):
                packet.pts = (packet.pts or 0) + round(sound_ahead / packet.time_base)
                heard += 1
                if not is_silent and heard > first:
                    ear.hear(packet, arrived + 0.02)
                continue
            for picture in packet.decode():
                assert isinstance(picture, VideoFrame)
                assert picture.time is not None
                late = arrived + delay[index % len(delay)]
                ear.see(picture.time, late)
                yield Frame(picture.to_ndarray(format="bgr24").astype(np.uint8), index, clock.pts(late), late)
                index += 1


def write(sink: Sink, sound: FeedSound, *runs: Iterator[Frame]) -> None:
    """Run a sink as the pipeline does; something is seen in its white frames."""
    sink.open(SourceInfo("rtsp://door", (64, 48), "live", Fraction(RATE), sound=sound))
    for frames in runs:
        for frame in frames:
            assert not sink.holds()
            sink.write(frame, SOMETHING if frame.image.mean() > 128 else NOTHING)
    sink.close(Outcome.COMPLETE)


def begins(values: NDArray[np.float64], times: NDArray[np.float64], pause: float) -> list[float]:
    """When `values` become large after so many seconds in which they were not."""
    large = times[values > 0.1]
    return [float(time) for time, gap in zip(large, np.diff(large, prepend=-1.0), strict=True) if gap > pause]


def flashes(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        shown = [
            (frame.time or 0.0, frame.to_ndarray(format="gray").mean() / 255) for frame in container.decode(video=0)
        ]
    times, values = map(np.array, zip(*shown, strict=True))
    return begins(values, times, 0.3)


def tones(path: Path) -> list[float]:
    times, values = [], []
    with av.open(str(path)) as container:
        loudness = av.AudioResampler("flt", "mono", 48000)
        for decoded in container.decode(audio=0):
            for frame in loudness.resample(decoded):
                values.append(np.abs(frame.to_ndarray()[0]))
                times.append((frame.time or 0.0) + np.arange(frame.samples) / 48000)
    return begins(np.concatenate(values), np.concatenate(times), 0.3)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_sound_is_copied_as_it_is_and_is_heard_with_its_pictures(film: Path, suffix: str, tmp_path: Path) -> None:
    sound, out = FeedSound(), tmp_path / f"door.{suffix}"
    write(VideoFile(out), sound, connection(film, sound, LiveClock()))
    assert sounds(out)[0].codec == "aac"
    sent = sounds(film)[0].packets
    kept = sounds(out)[0].packets
    assert kept == sent[-len(kept) :]
    assert len(sent) - len(kept) < 5  # what came before the first picture
    assert flashes(out) == pytest.approx([0, 1, 2, 3], abs=0.001)
    assert tones(out)[1:] == pytest.approx([1, 2, 3], abs=0.03)


@pytest.mark.parametrize(("codec", "rate", "suffix"), [("aac", 48000, "webm"), ("pcm_alaw", 8000, "mp4")])
def test_sound_that_a_container_refuses_is_encoded_anew(codec: str, rate: int, suffix: str, tmp_path: Path) -> None:
    sound, out = FeedSound(), tmp_path / f"door.{suffix}"
    write(VideoFile(out), sound, connection(clap(tmp_path / "in.mov", codec, rate), sound, LiveClock()))
    assert sounds(out)[0].codec != codec
    assert tones(out)[-3:] == pytest.approx(flashes(out)[-3:], abs=0.03)


def test_it_goes_on_from_segment_to_segment(film: Path, tmp_path: Path) -> None:
    sound = FeedSound()
    write(SegmentedVideo(tmp_path / "door.mp4", 1.4), sound, connection(film, sound, LiveClock()))
    files = segments(tmp_path)
    parts = [packet for file in files for packet in sounds(file)[0].packets]
    assert parts == sounds(film)[0].packets[-len(parts) :]
    assert len(sounds(film)[0].packets) - len(parts) < 5
    assert [len(flashes(file)) for file in files] == [2, 1, 1]
    assert [tones(file)[-1] for file in files] == pytest.approx([flashes(file)[-1] for file in files], abs=0.03)


def sound_of(files: Sequence[Path]) -> list[bytes]:
    return [packet for file in files for track in sounds(file) for packet in track.packets]


def part_of(sent: list[bytes], heard: list[bytes]) -> range:
    """Which of the packets sent were heard, one after the other; those of silence are all the same."""
    length = len(heard)
    return next(range(begin, begin + length) for begin in range(len(sent)) if sent[begin : begin + length] == heard)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What `time.monotonic()` is, for as long as nothing else is put there."""
    now = [1000.0]
    monkeypatch.setattr(recorder.time, "monotonic", lambda: now[0])
    return now


def write_late(sink: Sink, sound: FeedSound, frames: Iterable[Frame]) -> None:
    """Write frames as the pipeline does whose sound is late, for the first of which it is waited."""
    sink.open(SourceInfo("rtsp://door", (64, 48), "live", Fraction(RATE), sound=sound))
    for frame in frames:
        if not sink.holds():
            sink.write(frame, SOMETHING if frame.image.mean() > 128 else NOTHING)
            assert not sink.wants_stop()


@pytest.mark.usefixtures("now")
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_sound_that_comes_when_the_next_file_has_begun_is_in_that_of_its_pictures(
    film: Path, suffix: str, tmp_path: Path
) -> None:
    sound, sent = FeedSound(), sounds(film)[0].packets
    sink = SegmentedVideo(tmp_path / f"door.{suffix}", 1.4)
    write_late(sink, sound, connection(film, sound, LiveClock(), sound_late=0.3))
    sink.close(Outcome.COMPLETE)
    files = segments(tmp_path)
    place = part_of(sent, sound_of(files))
    assert [place.start, place.stop] == pytest.approx([0.3 * 48000 / 1024, len(sent)], abs=3)
    assert [tones(file)[-1] for file in files] == pytest.approx([flashes(file)[-1] for file in files], abs=0.03)


def test_a_file_whose_sound_does_not_come_is_finished_while_its_camera_is_away(
    film: Path, now: list[float], tmp_path: Path
) -> None:
    sound, clock, sent = FeedSound(), LiveClock(), sounds(film)[0].packets
    sink = SegmentedVideo(tmp_path / "door.mkv", 1.0)
    frames = connection(film, sound, clock, sound_late=0.3)
    write_late(sink, sound, itertools.takewhile(lambda frame: frame.pts < 1.5, frames))
    for since, is_finished in ((0.9, False), (1.1, True)):
        now[0] = 1000 + since
        assert not sink.wants_stop()
        assert len(segments(tmp_path)) == is_finished
    for frame in connection(film, sound, clock, began=BEGAN + 100):
        sink.write(frame, NOTHING)
    sink.close(Outcome.STOPPED)
    first, _, *later = segments(tmp_path)
    heard = sound_of([first])
    assert part_of(sent, heard).stop == pytest.approx(1.2 * 48000 / 1024, abs=3)
    assert sound_of(later) == sent[-len(sound_of(later)) :]


@pytest.mark.usefixtures("now")
@pytest.mark.parametrize("outcome", [Outcome.STOPPED, Outcome.FAILED])
def test_when_a_run_ends_the_file_before_is_finished_as_well(film: Path, outcome: Outcome, tmp_path: Path) -> None:
    sound, sent = FeedSound(), sounds(film)[0].packets
    sink = SegmentedVideo(tmp_path / "door.mkv", 1.0)
    frames = connection(film, sound, LiveClock(), sound_late=0.3)
    write_late(sink, sound, itertools.takewhile(lambda frame: frame.pts < 1.5, frames))
    assert len(list(tmp_path.glob("*.part*"))) == 2
    sink.close(outcome)
    files = segments(tmp_path)
    assert [len(files), len(list(tmp_path.glob("*.part*")))] == ([2, 0] if outcome is Outcome.STOPPED else [1, 1])
    heard = sound_of(files)
    assert part_of(sent, heard).stop == pytest.approx(1.2 * 48000 / 1024, abs=3)


@pytest.mark.usefixtures("now")
def test_an_ended_file_whose_name_is_taken_meanwhile_gets_one_of_its_own_time(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = itertools.count(1e9)
    monkeypatch.setattr(SegmentedVideo, "_began_at", lambda *_: next(at))
    sound, sink = FeedSound(), SegmentedVideo(tmp_path / "door.mkv", 1.0)
    frames = connection(film, sound, LiveClock(), sound_late=0.3)
    write_late(sink, sound, itertools.takewhile(lambda frame: frame.pts < 1.5, frames))
    first, second = sorted(path.name.replace(".part", "") for path in tmp_path.iterdir())
    (tmp_path / first).touch()
    sink.close(Outcome.STOPPED)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([first, first.replace(".mkv", "-2.mkv"), second])


@pytest.mark.usefixtures("now")
def test_the_end_of_an_event_is_heard_though_it_comes_later(film: Path, tmp_path: Path) -> None:
    sound, sent = FeedSound(), sounds(film)[0].packets
    sink = SegmentedVideo(tmp_path / "door.mkv", events=0.3)
    write_late(sink, sound, connection(film, sound, LiveClock(), sound_late=0.3))
    sink.close(Outcome.COMPLETE)
    files = segments(tmp_path)
    for file in files:
        (heard,) = sounds(file)
        assert part_of(sent, heard.packets)
        assert len(heard.packets) == pytest.approx(0.46 * 48000 / 1024, abs=1)
        assert tones(file) == pytest.approx(flashes(file), abs=0.03)
    assert len(files) == 3


def test_a_file_that_begins_before_its_event_has_the_sound_of_that(film: Path, tmp_path: Path) -> None:
    sound = FeedSound()
    frames = (frame for frame in connection(film, sound, LiveClock()) if not 0.5 < frame.pts < 2)  # one flash less
    write(SegmentedVideo(tmp_path / "door.mkv", events=0.5, before=1.0), sound, frames)
    late = segments(tmp_path)[-1]
    assert tones(late) == pytest.approx(flashes(late), abs=0.03)
    assert sounds(late)[0].times[0] < 0.05


def test_a_track_of_which_nothing_came_while_the_connection_was_made_is_recorded_once_it_sounds(tmp_path: Path) -> None:
    late, sound = tmp_path / "late.ts", FeedSound()
    pieces = sound.listen()
    with av.open(str(clap(tmp_path / "in.ts"))) as source, av.open(str(late), "w") as container:
        streams = {stream: container.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.pts is not None and packet.dts is not None:
                if packet.stream.type == "audio":
                    packet.pts, packet.dts = packet.pts + 3 * 90000, packet.dts + 3 * 90000
                packet.stream = streams[packet.stream]
                container.mux(packet)
    with av.open(str(late), options={"analyzeduration": "100000"}) as container:
        assert not container.streams.audio[0].codec_context.sample_rate
        ear = hearing_of(container, container.streams.video[0], sound, "udp://door")
        assert ear is not None
        ear.see(0.0, BEGAN)
        for packet in container.demux(ear.track):
            ear.hear(packet, BEGAN)
    assert track_of(pieces[0].track).codec_context.sample_rate == 48000
    assert [float(piece.duration) for piece in pieces] == pytest.approx([1024 / 48000] * len(pieces))
    assert len(pieces) > 180


def test_after_an_outage_it_goes_on_where_the_pictures_do(
    film: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound, clock, out = FeedSound(), LiveClock(), tmp_path / "door.mkv"
    runs = [connection(film, sound, clock), connection(film, sound, clock, began=BEGAN + 100, first=7)]
    write(VideoFile(out), sound, *runs)
    assert not caplog.text
    assert flashes(out)[-4:] == pytest.approx([100, 101, 102, 103], abs=0.002)
    assert tones(out)[-3:] == pytest.approx([101, 102, 103], abs=0.03)


def test_another_kind_of_sound_after_an_outage_is_in_the_next_file(
    film: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound, clock = FeedSound(), LiveClock()
    other = clap(tmp_path / "in.mp4", "aac", 44100)
    runs = [connection(film, sound, clock), connection(other, sound, clock, began=BEGAN + 5)]
    write(SegmentedVideo(tmp_path / "door.mp4", 7), sound, *runs)
    first, second = segments(tmp_path)
    assert tones(first)[-1] == pytest.approx(3, abs=0.03)
    assert tones(second)[-1] == pytest.approx(flashes(second)[-1], abs=0.03)
    assert "rtsp://door came back with sound of another kind, left out until the next file" in caplog.text


@pytest.mark.parametrize("delay", [(0.0, 0.03, 0.012), (0.0, *[0.2] * 24)])
def test_pictures_that_are_late_now_and_then_do_not_move_it(
    film: Path, delay: tuple[float, ...], tmp_path: Path
) -> None:
    sound, out = FeedSound(), tmp_path / "door.mp4"
    write(VideoFile(out), sound, connection(film, sound, LiveClock(), delay=delay))
    assert np.ptp(np.diff(sounds(out)[0].times)) < 1e-4


def test_sound_before_a_better_estimate_of_the_delay_is_moved_and_none_is_heard_twice(
    film: Path, tmp_path: Path
) -> None:
    sound, out = FeedSound(), tmp_path / "door.mp4"
    write(VideoFile(out), sound, connection(film, sound, LiveClock(), delay=[0.3] * 30 + [0.1] * 1000))
    steps = np.diff(sounds(out)[0].times)
    assert np.sum(np.abs(steps - 1024 / 48000) > 1e-3) == 1
    assert steps.min() > 0.01
    assert len(sounds(out)[0].packets) == pytest.approx(len(sounds(film)[0].packets) - 0.2 * 48000 / 1024, abs=3)


@pytest.mark.parametrize("ahead", [-30000.0, 30000.0])
def test_sound_with_a_clock_of_its_own_is_heard_when_it_comes(film: Path, ahead: float, tmp_path: Path) -> None:
    sound, out = FeedSound(), tmp_path / "door.mkv"
    write(VideoFile(out), sound, connection(film, sound, LiveClock(), sound_ahead=ahead))
    assert tones(out)[1:] == pytest.approx([1, 2, 3], abs=0.05)


def test_a_microphone_that_falls_silent_when_a_film_begins_holds_up_no_picture(film: Path, tmp_path: Path) -> None:
    sound, clock, out = FeedSound(), LiveClock(), tmp_path / "door.mp4"
    sink, size = VideoFile(out), []
    sink.open(SourceInfo("rtsp://door", (64, 48), "live", Fraction(RATE), sound=sound))
    for began in (0, 4):
        for frame in connection(film, sound, clock, began=BEGAN + began, is_silent=began > 0):
            if frame.pts > 3:  # sound was heard until just before
                sink.write(frame, NOTHING)
                size.append((tmp_path / "door.part.mp4").stat().st_size)
            if frame.pts > 3.02:
                sound.put = lambda _: None  # type: ignore[method-assign]
    sink.close(Outcome.COMPLETE)
    assert len(read(out).times) == len(size)
    assert len(sounds(out)[0].packets) < 8


def test_a_source_without_sound_is_not_waited_for_and_one_with_it_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    sound, now = FeedSound(), [7.0]
    monkeypatch.setattr(live_original.time, "monotonic", lambda: now[0])
    original = LiveOriginal("rtsp://door", sound)
    assert not original.waits_from(Fraction(0))
    sound.is_expected = True
    assert original.waits_from(Fraction(0))
    now[0] += 0.9
    assert original.waits_from(Fraction(0))
    now[0] += 0.2
    assert not original.waits_from(Fraction(0))
    now[0] -= 1
    assert original.waits_from(Fraction(0))
    sound.put(Piece(b"", Fraction(0), Fraction(0), b""))
    assert not original.waits_from(Fraction(0))
    original.close()


def test_a_sink_that_takes_none_keeps_the_latest_and_one_that_has_left_gets_none() -> None:
    sound = FeedSound()
    one, other = sound.listen(), sound.listen()
    for number in range(MOST_PIECES + 5):
        sound.put(Piece(b"", Fraction(number), Fraction(1), b""))
    assert [one[0].begins, len(one)] == [5, MOST_PIECES]
    sound.leave(one)
    sound.leave(one)
    sound.put(Piece(b"", Fraction(-1), Fraction(1), b""))
    assert [one[-1].begins, other[-1].begins] == [MOST_PIECES + 4, -1]


def test_sound_that_cannot_be_described_is_left_out_with_a_word(
    film: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> bytes:  # as of G.726 before PyAV 19
        raise av.InvalidDataError(1, "no such codec")

    monkeypatch.setattr(hearing, "description_of", refuse)
    sound = FeedSound()
    heard = sound.listen()
    list(connection(film, sound, LiveClock()))
    assert not heard
    assert not sound.is_expected
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "the sound of rtsp://door is left out: no such codec" in caplog.text


@pytest.mark.parametrize("make", [VideoFile, partial(SegmentedVideo, seconds=1), partial(sinks.open_sink, segment=1)])
def test_a_sink_without_sound_is_silent(film: Path, make: object, tmp_path: Path) -> None:
    sound = FeedSound()
    assert callable(make)
    write(make(tmp_path / "door.mp4", sound=False), sound, connection(film, sound, LiveClock()))
    files = list(tmp_path.glob("door*.mp4"))
    assert sum(len(read(out).times) for out in files) == SECONDS * RATE
    assert not any(map(sounds, files))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--sound", "-o", "{tmp}/a.mp4"], "--sound: no address of a feed was named"),
        (["--no-sound", "-o", "{tmp}/a.mp4"], None),
        (["--no-sound", "-o", "{tmp}/a.gif"], "--no-sound: no video file is written"),
        (["synthetic:64x64@30x2", "--sound", "-o", "{tmp}/a.mp4"], "--sound: a video of several sources has no sound"),
    ],
)
def test_where_it_has_no_effect_a_warning_says_so(
    words: list[str], why: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = batched_model(tmp_path / "tiny.onnx")
    argv = ["synthetic:64x64@30x3", *(word.replace("{tmp}", str(tmp_path)) for word in words)]
    assert main([*argv, "--model", str(model), "--device", "cpu", "--quiet"]) == 0
    assert capsys.readouterr().err == (f"stream-seg: {why}, so it has no effect\n" if why else "")


@needs_rtsp()
def test_the_command_records_the_sound_of_an_rtsp_camera(tmp_path: Path) -> None:
    model = batched_model(tmp_path / "tiny.onnx")
    files = [tmp_path / name for name in ("door.mp4", "door.mkv")]
    with rtsp_camera(size="320x240", sound="too") as server:
        words = [
            f"rtsp://{server.host}/cam",
            "--sound",
            "--end",
            "1.5",
            "--score-threshold",
            "1",
            "--no-hud",
            "--model",
            str(model),
        ]
        assert main([*words, "-o", str(files[0]), "-o", str(files[1]), "--device", "cpu", "--quiet"]) == 0
    for file in files:
        with av.open(str(file)) as container:
            began = np.median(
                [clock_of(f.to_ndarray(format="bgr24")) - (f.time or 0) for f in container.decode(video=0)]
            )
        assert (tones(file)[-1] + began + 0.5) % 1 - 0.5 == pytest.approx(0, abs=0.15)
