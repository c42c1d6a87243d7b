"""What the tests of sinks share: frames, recordings made on the fly, and what is read back of a file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

from stream_seg.detections import Detections
from stream_seg.frame import Frame, Image, SourceInfo
from stream_seg.protocols import Outcome, Sink
from stream_seg.pyav import exact
from stream_seg.sources import open_source
from tests.support import made_once

NOTHING = Detections.none(("person", "dog"))
SOMETHING = Detections(
    np.array([[4, 6, 34, 40]], np.float32),
    np.ones(1, np.float32),
    np.zeros(1, np.int64),
    np.ones((1, 28, 28), np.float32),
    ("person",),
)

RING = np.full((28, 28), 0.9, np.float32)
RING[10:18, 8:20] = 0.1

TWO = Detections(
    np.array([[4, 6, 34, 40], [30.04, 2, 60, 47.96]], np.float32),
    np.array([0.91234, 0.5], np.float32),
    np.array([1, 0]),
    np.stack([RING, np.full((28, 28), 0.9, np.float32)]),
    ("person", "dog"),
)

BROKEN = TWO[np.array([0, 1, 1, 0, 1])]
"""As a broken model gives them: two have no place, the next has no score, and the last no pixel."""
BROKEN.boxes[1:3] = [[np.nan, 2, 60, 40], [0, 0, np.inf, 40]]
BROKEN.scores[3] = np.nan
BROKEN.masks[4] = 0.1

CFR = tuple(Fraction(i * 1001, 30000) for i in range(40))
VFR = tuple(
    Fraction(ticks, 90000)
    for ticks in np.cumsum([0, 3000, 9000, 3003, 1500, 20000, 3000, 2999, *[3600, 2999, 7001] * 9]).tolist()
)


def image(index: int, size: tuple[int, int] = (64, 48)) -> Image:
    """A picture that differs from one index to the next."""
    width, height = size
    out = np.empty((height, width, 3), np.uint8)
    out[:, :, 0] = np.linspace(0, 255, width)
    out[:, :, 1] = np.linspace(0, 255, height)[:, None]
    out[:, :, 2] = index * 20 % 256
    return out


def noise(index: int, size: tuple[int, int]) -> Image:
    """A picture that does not compress."""
    return np.random.default_rng(index).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def frames(times: Sequence[Fraction], size: tuple[int, int] = (64, 48)) -> list[Frame]:
    return [Frame(image(i, size), i, pts, 0.0) for i, pts in enumerate(times)]


def info(
    times: Sequence[Fraction] = CFR,
    *,
    size: tuple[int, int] = (64, 48),
    rate: Fraction | None = Fraction(30000, 1001),
    time_base: Fraction = Fraction(1, 30000),
    path: Path | None = None,
    duration: Fraction | None = None,
) -> SourceInfo:
    return SourceInfo("a film", size, "video", rate, len(times), duration=duration, time_base=time_base, path=path)


def deliver(sink: Sink, about: SourceInfo, shown: Iterable[Frame], outcome: Outcome = Outcome.COMPLETE) -> None:
    """Run a sink as the pipeline does."""
    sink.open(about)
    for frame in shown:
        sink.write(frame, NOTHING)
    sink.close(outcome)


def seen_in(
    sink: Sink, about: SourceInfo, shown: Sequence[Frame], seen: Sequence[int], outcome: Outcome = Outcome.COMPLETE
) -> None:
    """Run a sink over frames of which those at the places `seen` show something."""
    sink.open(about)
    for place, frame in enumerate(shown):
        sink.write(frame, SOMETHING if place in seen else NOTHING)
    sink.close(outcome)


def write_all(sink: Sink, count: int = 40, found: Detections = TWO) -> None:
    """Open a sink, and write the first of the frames at `CFR`, which show this."""
    sink.open(info())
    for frame in frames(CFR[:count]):
        sink.write(frame, found)


def segments(folder: Path, stem: str = "door") -> list[Path]:
    """The finished segments in the order in which they began, which names do not tell of those of one second."""
    found = [path for path in folder.glob(f"{stem}_*") if ".part" not in path.name]
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, len(path.name), path.name))


@dataclass(frozen=True)
class Film:
    """What a video file holds: the time of each picture, the first picture (BGR), its length in seconds."""

    times: list[Fraction]
    picture: Image
    duration: Fraction
    rate: Fraction | None


def read(path: Path) -> Film:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        shown = list(container.decode(stream))
        picture = shown[0].to_ndarray(format="bgr24").astype(np.uint8)
        length = Fraction(container.duration or 0, av.time_base)
        times = [frame.pts * frame.time_base for frame in shown if frame.pts is not None and frame.time_base]
        return Film(times, picture, length, exact(stream.average_rate))


@dataclass(frozen=True)
class Sound:
    """The packets of one sound track, the second each begins at, and the name of the codec."""

    packets: list[bytes]
    times: list[float]
    codec: str
    language: str | None


def sounds(path: Path) -> list[Sound]:
    """All sound tracks of a file."""
    found = []
    for index in range(_sound_tracks(path)):
        with av.open(str(path)) as container:
            stream = container.streams.audio[index]
            packets = [packet for packet in container.demux(stream) if packet.size]
            times = [float((packet.pts or 0) * packet.time_base) for packet in packets]
            codec = stream.codec_context.codec.canonical_name
            found.append(Sound([bytes(packet) for packet in packets], times, codec, stream.language))
    return found


def _sound_tracks(path: Path) -> int:
    with av.open(str(path)) as container:
        return len(container.streams.audio)


def copied(tracks: Sequence[Stream], output: OutputContainer) -> Iterator[Packet[Stream]]:
    """The packets of tracks, of one recording after the other, to be muxed into `output`, which gets such tracks."""
    copies = {track: output.add_stream_from_template(track) for track in tracks}
    recordings = [cast(InputContainer, one) for one in dict.fromkeys(track.container for track in tracks)]

    def packets() -> Iterator[Packet[Stream]]:
        for recording in recordings:
            for packet in recording.demux([track for track in tracks if track.container is recording]):
                if packet.size:
                    packet.stream = copies[packet.stream]
                    yield packet

    return packets()


@made_once
def record(
    path: Path,
    sound: str = "aac",
    seconds: float = 2,
    tracks: int = 1,
    rate: int = 25,
    *,
    title: str | None = None,
    layout: str = "mono",
    aspect: Fraction | None = None,
) -> Path:
    """Make a recording of 64x48 pictures with sound of a tone; `sound` is an FFmpeg encoder."""
    with av.open(str(path), "w") as container:
        if title is not None:
            container.metadata["title"] = title
        video = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        if aspect is not None:
            video.codec_context.sample_aspect_ratio = aspect
        audio = [container.add_stream(sound, rate=48000, layout=layout) for _ in range(tracks)]
        for stream, language in zip(audio, ("deu", "eng"), strict=False):
            stream.metadata["language"] = language
        for second in range(0, round(seconds * 10)):
            for index in range(rate * second // 10, rate * (second + 1) // 10):
                picture = av.VideoFrame.from_ndarray(image(index), "bgr24")
                picture.pts, picture.time_base = index, Fraction(1, rate)
                container.mux(video.encode(picture))
            for stream in audio:
                samples = np.arange(4800 * second, 4800 * (second + 1))
                wave = (np.sin(samples * 0.06) * 8000).astype(np.int16)[None]
                heard = av.AudioFrame.from_ndarray(wave, "s16", "mono")
                heard.sample_rate, heard.pts, heard.time_base = 48000, 4800 * second, Fraction(1, 48000)
                container.mux(stream.encode(heard))
        for stream in (video, *audio):
            container.mux(stream.encode(None))
    return path


def taken(spec: str | Path, **options: float) -> tuple[SourceInfo, list[Frame]]:
    """What there is to know of a recording, and its frames."""
    with open_source(spec, **options) as source:  # type: ignore[arg-type]
        return source.info, list(source)


def recording(path: Path) -> tuple[SourceInfo, list[Frame]]:
    """What the source of recordings tells of a file, and its frames."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        begin = Fraction(container.start_time or 0, av.time_base)
        shown = [
            Frame(picture.to_ndarray(format="bgr24").astype(np.uint8), i, picture.pts * picture.time_base - begin, 0.0)
            for i, picture in enumerate(container.decode(stream))
            if picture.pts is not None and picture.time_base is not None
        ]
        length = Fraction(container.duration or 0, av.time_base)
        about = SourceInfo(
            path.name,
            shown[0].size,
            "video",
            exact(stream.average_rate),
            len(shown),
            length,
            exact(stream.time_base) or Fraction(1, 1000),
            path,
        )
    return about, shown


def recorded_by_a_process(*args: str) -> str:
    """What `sink_segments_program` printed, which records in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.sink_segments_program", *args],
        capture_output=True, text=True, timeout=50, check=False, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout
