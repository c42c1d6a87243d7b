"""Videos and images made on the spot, whose pictures carry their number so that a test can read it back."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np

from stream_seg.frame import Frame, Image
from tests.support import made_once
from tests.tiny_models import batched_model

SIZE = (64, 48)
"""(width, height) of the pictures."""

BITS = 8
RATE = 25

UNSPECIFIED = 2
"""The ITU-T H.273 code of a matrix that is not told."""


def numbered(number: int, size: tuple[int, int] = SIZE) -> Image:
    """Return a grey picture with `number` as eight white or black blocks, lowest bit left, over its whole height."""
    width, height = size
    image = np.full((height, width, 3), 128, np.uint8)
    block = width // BITS
    for bit in range(BITS):
        image[: height // 2, bit * block : (bit + 1) * block] = 255 * (number >> bit & 1)
    return image


def number_of(image: Image) -> int:
    """Read back the number of a picture; any size, any codec."""
    height, width = image.shape[:2]
    block = width // BITS
    row = image[height // 4]
    return sum((int(row[bit * block + block // 2].mean()) > 127) << bit for bit in range(BITS))


def numbers_of(frames: Sequence[Frame]) -> list[int]:
    return [number_of(frame.image) for frame in frames]


@made_once
def write_video(
    path: Path,
    count: int = 30,
    *,
    size: tuple[int, int] = SIZE,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    pts: Sequence[int] | None = None,
    sound: bool = False,
    turn: tuple[float, bool, bool] | None = None,
    container_format: str | None = None,
) -> Path:
    """Write numbered pictures; `pts` are ticks of 1/1000 s, `turn` is (degrees counterclockwise, hflip, vflip)."""
    tick = Fraction(1, 1000) if pts is not None else Fraction(1, RATE)
    with av.open(str(path), "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=RATE, options={"g": "10", "bf": "2"} if options is None else options)
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = tick
        if turn is not None:
            stream.set_display_rotation(*turn)
        if sound:
            add_sound(container, count / RATE)
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(numbered(index, size), "bgr24")
            frame.pts, frame.time_base = index if pts is None else pts[index], tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_tiled_photo(
    path: Path,
    shape: tuple[int, int] = (1, 2),
    *,
    size: tuple[int, int] | None = None,
    kind: bytes = b"grid",
    edits: Sequence[bytes] = (),
) -> Path:
    """Write a HEIC photo as phones do: HEVC tiles, and an item that says how they lie (ISO/IEC 23008-12).

    The tiles are numbered pictures in rows and columns, `shape`; of what they show, `size` (width, height) is the
    photo. `edits` are the boxes of what is done to it then.
    """
    tiles = shape[0] * shape[1]
    calm = {"x265-params": "log-level=none:pools=1:bframes=0:keyint=1"}  # with them, a lone picture gets no time
    with av.open(str(write_video(path.with_suffix(".mp4"), tiles, codec="libx265", options=calm))) as container:
        (stream,) = container.streams.video
        codec = stream.codec_context.extradata or b""
        data = [bytes(packet) for packet in container.demux(stream) if packet.size]
    ids = range(2, 2 + tiles)
    width, height = size or (shape[1] * SIZE[0], shape[0] * SIZE[1])
    head = box(b"ftyp", b"heic", bytes(4), b"mif1heic")

    def described(at: int) -> bytes:
        """All about the items: 1 is the photo, whose grid lies here, the others are the tiles, from `at` on."""
        starts = [at + sum(map(len, data[:tile])) for tile in range(tiles)]
        places = [(1, 1, 0, 1, 0, 8), *((ids[n], 0, 0, 1, starts[n], len(data[n])) for n in range(tiles))]
        kinds = [(1, kind), *((number, b"hvc1") for number in ids)]
        properties = box(b"ipco", box(b"hvcC", codec), box(b"ispe", bytes(4), struct.pack(">2I", *SIZE)), *edits)
        of_photo = struct.pack(">HB", 1, len(edits)) + bytes(range(3, 3 + len(edits)))
        of_tiles = [struct.pack(">H3B", number, 2, 0x81, 2) for number in ids]
        return box(
            b"meta",
            bytes(4),
            box(b"hdlr", bytes(8), b"pict", bytes(13)),
            box(b"pitm", bytes(4), struct.pack(">H", 1)),
            box(
                b"iloc", struct.pack(">I2BH", 1 << 24, 0x44, 0, 1 + tiles), *(struct.pack(">4H2I", *p) for p in places)
            ),
            box(
                b"iinf",
                bytes(4),
                struct.pack(">H", 1 + tiles),
                *(box(b"infe", struct.pack(">I2H4sx", 2 << 24, number, 0, kind)) for number, kind in kinds),
            ),
            box(b"iref", bytes(4), box(b"dimg", struct.pack(f">{2 + tiles}H", 1, tiles, *ids))),
            box(b"iprp", properties, box(b"ipma", bytes(4), struct.pack(">I", 1 + tiles), of_photo, *of_tiles)),
            box(b"idat", struct.pack(">4B2H", 0, 0, shape[0] - 1, shape[1] - 1, width, height)),
        )

    start = len(head) + len(described(0)) + 8
    path.write_bytes(head + described(start) + box(b"mdat", *data))
    return path


def box(kind: bytes, *parts: bytes) -> bytes:
    """A box of an ISO base media file."""
    content = b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + kind + content


def add_sound(container: av.container.OutputContainer, seconds: float, cover: Image | None = None) -> None:
    """Mux a track of quiet noise, and a cover picture if given."""
    stream = container.add_stream("aac", rate=48000)
    noise = np.random.default_rng(0).normal(0, 0.01, (1, round(48000 * seconds))).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(noise, "fltp", "mono")
    frame.sample_rate, frame.pts = 48000, 0
    if cover is not None:
        add_cover(container, cover)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def add_cover(container: av.container.OutputContainer, cover: Image) -> None:
    """Mux a picture as the cover of what else is in the container."""
    stream = container.add_stream("png", rate=1)
    stream.height, stream.width = cover.shape[:2]
    stream.pix_fmt = "rgb24"
    stream.disposition = av.stream.Disposition.attached_pic
    container.start_encoding()
    container.mux(stream.encode(av.VideoFrame.from_ndarray(cover, "bgr24")))
    container.mux(stream.encode(None))


def write_sound(path: Path, *, cover: Image | None = None) -> Path:
    """Write a sound file, with a cover picture if given."""
    with av.open(str(path), "w", format="mp4" if cover is not None else None) as container:
        add_sound(container, 0.5, cover)
    return path


def write_colour(
    path: Path, bgr: tuple[int, int, int], *, matrix: int, full: bool, size: tuple[int, int] = SIZE, tagged: bool = True
) -> Path:
    """Write one picture of one colour, lossless, converted by the ITU-T H.273 formula with `matrix` (1, 6 or 9)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"qp": "0"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv444p"
        stream.codec_context.colorspace = matrix if tagged else UNSPECIFIED
        stream.codec_context.color_range = 2 if full else 1
        planes = np.empty((3, size[1], size[0]), np.uint8)
        planes[:] = np.array(luma_chroma(bgr, matrix, full))[:, None, None]
        container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, "yuv444p")))
        container.mux(stream.encode(None))
    return path


def luma_chroma(bgr: tuple[int, int, int], matrix: int, full: bool) -> tuple[int, int, int]:
    """Return 8-bit (Y, Cb, Cr) of a colour, by ITU-T H.273, equations for Kr and Kb and both ranges."""
    red, blue = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
    b, g, r = (value / 255 for value in bgr)
    luma = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - luma) / (2 * (1 - blue)), (r - luma) / (2 * (1 - red))
    scale, offset, chroma = (255, 0, 255) if full else (219, 16, 224)
    return round(offset + scale * luma), round(128 + chroma * cb), round(128 + chroma * cr)


def jpeg(number: int, size: tuple[int, int] = SIZE) -> bytes:
    """Return a numbered picture as a JPEG file."""
    return cast(bytes, cv2.imencode(".jpg", numbered(number, size))[1].tobytes())


def matroska(count: int = 10) -> bytes:
    """Return a small video as bytes that can be read without seeking."""
    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"g": "10"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for index in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(index), "bgr24")))
        container.mux(stream.encode(None))
    return out.getvalue()


def films_and_a_photo(folder: Path) -> list[str]:
    """Write clips/a.mp4, clips/b.mp4 and photo.png, and return options that name a model which is loaded at once."""
    (folder / "clips").mkdir()
    for name in ("a", "b"):
        write_video(folder / "clips" / f"{name}.mp4", count=6)
    cv2.imwrite(str(folder / "photo.png"), np.full((SIZE[1], SIZE[0], 3), 120, np.uint8))
    return ["--model", str(batched_model(folder / "tiny.onnx")), "--device", "cpu"]
