"""Encoder: which encoder writes which codec into which container, and how it is set.

The settings were chosen by measurement on a busy 720p picture (docs/performance.md): the encoder shares the cores with
inference, so each is at the fast end of its scale. They look ahead at no frames, because what an encoder holds back is
lost when the process is killed.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
from av.codec.codec import UnknownCodecError
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from stream_seg.errors import OutputError, UsageError, did_you_mean
from stream_seg.sinks import colour

GIF = ".gif"

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", GIF: "gif"}
"""File suffix to the name FFmpeg gives its format."""

CODECS = {"h264": "libx264", "hevc": "libx265", "h265": "libx265", "av1": "libsvtav1", "vp9": "libvpx-vp9"}
"""What users call a codec to the encoder used for it."""

KEY_FRAME_SECONDS = 1
"""The longest time between two key frames: how finely a player can seek."""

_THREADS = min(os.cpu_count() or 1, 4)

_OPTIONS = {
    # "ultrafast" with arithmetic coding: a sixth smaller for hardly more time (deblocking costs a fifth more and gains
    # nothing here). Slices rather than frame threads: as fast, and no frame waits in the encoder.
    "libx264": {
        "preset": "ultrafast",
        "crf": "23",
        "forced-idr": "1",
        "x264-params": "cabac=1:sliced-threads=1",
    },
    "libx265": {
        "preset": "ultrafast",
        "crf": "26",
        "forced-idr": "1",
        "x265-params": f"log-level=error:pools={_THREADS}:frame-threads=1:bframes=0:rc-lookahead=0:no-scenecut=1",
    },
    "libsvtav1": {"preset": "11", "crf": "36", "svtav1-params": f"pred-struct=1:lp={_THREADS}"},
    "libvpx-vp9": {
        "deadline": "realtime",
        "cpu-used": "8",
        "crf": "34",
        "b": "0",
        "row-mt": "1",
        "lag-in-frames": "0",
        "tile-columns": "2",
    },
}


_AT_ONCE = {"libx264": {"x264-params": _OPTIONS["libx264"]["x264-params"] + ":force-cfr=1"}}
"""For what is sent: else x264 waits for the next frame, to know how long one lasts."""

_REFUSED = {"mov": frozenset({"libsvtav1", "libvpx-vp9"})}
"""What FFmpeg lists as supported, and then refuses to write the header of."""

_SVT_NARROW, _SVT_LONG = 26, 64
"""SVT-AV1 hangs on pictures with less on one side and more on the other: on 200x24, not on 200x26 nor on 64x24."""

SENT = ("h264", "hevc")
"""The codecs that servers and players take from an address."""

_TRIAL_SIZE = (640, 480)

_TICKS = {"matroska": Fraction(1, 1000), "webm": Fraction(1, 1000), "gif": Fraction(1, 100)}
"""What a container counts times in, in seconds, if it has but one unit."""

_LONGEST_TICKS = 2**30
"""How long one picture may last: MP4 has 32 bits for it, which a camera that is away overnight would overflow."""

_FINEST_MADE = 20_000
"""Ticks per second up to which MP4's muxer makes a coarse time base finer: it doubles it until there are 10,000."""

_SQUARE = frozenset({"vp8", "vp9", "av1"})
"""Codecs whose encoders tell nothing of the shape of pixels."""

_RATELESS = ("libx264", "libvpx-vp9")
"""Encoders that can do without a frame rate."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """An encoder chosen for a file name. Raises `OutputError` when the suffix, the codec or the pair is unknown.

    `codec` is one of `CODECS`, the name of an FFmpeg encoder (`h264_nvenc`), or None: VP9 in WebM, H.264 elsewhere; a
    GIF has but its own. What is no file but sent to an address has its `container`, as FFmpeg calls the format, said.
    """

    path: Path
    codec: str | None = None
    container: str = ""
    name: str = field(init=False)

    def __post_init__(self) -> None:
        container = self.container or CONTAINERS.get(self.path.suffix.lower())
        if container is None:
            raise OutputError(
                f"cannot write {self.path}: '{self.path.suffix}' is no kind of video this can write; "
                f"use one of {', '.join(CONTAINERS)}{did_you_mean(self.path.suffix, CONTAINERS)}"
            )
        codec = self.codec or {"webm": "vp9", "gif": "gif"}.get(container, "h264")
        if not isinstance(codec, str):
            raise UsageError(f"a codec is given by its name, as in 'h264', not {codec!r}")
        object.__setattr__(self, "container", container)
        object.__setattr__(self, "name", CODECS.get(codec.lower(), codec.lower()))
        self._check(codec)

    @property
    def _is_file(self) -> bool:
        return self.container in CONTAINERS.values()

    def _check(self, codec: str) -> None:
        try:
            is_video = av.Codec(self.name, "w").type == "video"
        except UnknownCodecError:
            is_video = False
        if not is_video:
            raise OutputError(
                f"there is no video codec '{codec}' here; use one of {', '.join(CODECS)}{did_you_mean(codec, CODECS)}"
            )
        if self._is_file:
            self._check_held(codec)
        elif av.Codec(self.name, "w").canonical_name not in SENT:
            raise OutputError(f"cannot send {codec} to an address; use --codec {' or '.join(SENT)}")
        if self.name not in _OPTIONS:  # an encoder of some device, which may not be there
            with av.open(io.BytesIO(), "w", format=self.container) as container:
                self.add_to(container, _TRIAL_SIZE, Fraction(1, 30), Fraction(30))

    def _check_held(self, codec: str) -> None:
        with av.open(io.BytesIO(), "w", format=self.container) as container:
            supported = container.supported_codecs - _REFUSED.get(self.container, frozenset())
        if self.name not in supported:
            fitting = [name for name, encoder in CODECS.items() if encoder in supported]
            way = f"use --codec {' or '.join(fitting)}" if fitting else "leave --codec out"
            raise OutputError(f"a {self.path.suffix} file cannot hold {codec}; {way}, or use another suffix")

    @property
    def is_gif(self) -> bool:
        """Whether it is an animated image of 256 colours at a time, without sound and with times in hundredths."""
        return self.container == "gif"

    def tick(self, time_base: Fraction) -> Fraction:
        """What a file counts times in that are multiples of `time_base`, in seconds."""
        return _TICKS.get(self.container, time_base)

    @property
    def least_ticks(self) -> int:
        """How many ticks a picture lasts at least: of a GIF, browsers show what lasts less for a tenth of a second."""
        return 2 if self.is_gif else 1

    def longest_ticks(self, tick: Fraction) -> int:
        """How many ticks a picture may last, each of `tick` seconds."""
        return 2**16 - 1 if self.is_gif else max(1, int(_LONGEST_TICKS / max(Fraction(1), _FINEST_MADE * tick)))

    @property
    def tells_aspect(self) -> bool:
        """Whether pixels that are not square can be told: only by the codec where PyAV gives the container no word.

        Of what a GIF has for it, browsers and most programs take no notice.
        """
        by_codec = av.Codec(self.name, "w").canonical_name not in _SQUARE
        return not self.is_gif and (by_codec or self.container not in ("matroska", "webm"))

    def add_to(
        self,
        container: av.container.OutputContainer,
        size: tuple[int, int],
        time_base: Fraction,
        rate: Fraction | None,
        aspect: Fraction | None = None,
    ) -> VideoStream:
        """Add a stream with this encoder, open. Raises `OutputError` when the encoder cannot be opened.

        `rate` is the declared frame rate in 1/s; None leaves it out of the file, whose frames then have only times.
        `aspect` is the width of a pixel over its height where it is not square.
        """
        # Encoders want a rate to plan with even where the times decide.
        planned = (rate or Fraction(30)).limit_denominator(10**6)
        options = _OPTIONS.get(self.name, {}) | ({} if self._is_file else _AT_ONCE.get(self.name, {}))
        stream = container.add_stream(self.name, rate=planned, options=options)
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        stream.time_base = time_base
        context.time_base = time_base
        context.width, context.height = size
        context.pix_fmt = "pal8" if self.is_gif else "yuv420p"
        context.gop_size = max(1, round(planned * KEY_FRAME_SECONDS))
        context.max_b_frames = 0
        context.thread_count = _THREADS
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        if not self.is_gif:
            colour.tag(context)
        if self.name in ("libx265", "hevc_nvenc", "hevc_videotoolbox") and self.container in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # the tag Apple's players insist on
        if rate is None and self.name in _RATELESS and self.container in ("matroska", "webm"):
            self._leave_rate_out(context)
        try:
            if self.name == "libsvtav1" and min(size) < _SVT_NARROW and max(size) > _SVT_LONG:
                raise ValueError("it would hang")
            with _quiet():
                context.open()
        except (av.FFmpegError, ValueError) as error:
            raise OutputError(
                f"the encoder {self.name} cannot be opened for {size[0]}x{size[1]} ({_reason(error)}); "
                "choose another --codec"
            ) from error
        return stream

    def _leave_rate_out(self, context: VideoCodecContext) -> None:
        """Keep the planned rate out of Matroska, the one container that would state it as if it were declared."""
        context.framerate = Fraction(0)
        if self.name == "libx264":  # which then takes the time base for the rate, and would claim the highest level
            context.options = {
                **context.options,
                "level": "4.2" if context.width * context.height <= 2228224 else "5.2",
            }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep SVT-AV1 from describing itself on standard error; it can be told in no other way."""
    before = os.environ.get("SVT_LOG")
    os.environ["SVT_LOG"] = "1"  # errors only
    try:
        yield
    finally:
        if before is None:
            del os.environ["SVT_LOG"]
        else:
            os.environ["SVT_LOG"] = before


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, av.FFmpegError) and error.strerror else str(error)
