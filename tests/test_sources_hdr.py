"""High dynamic range: films and photos in HLG and PQ, made from light by the formulas of ITU-R BT.2100, as BT.709."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from stream_seg.frame import Image
from stream_seg.sources import open_source
from tests.source_files import RATE

PQ, HLG, SDR = 16, 18, 14
"""ITU-T H.273 transfer characteristics; the last is that of BT.2020 with 10 bits."""

BT2020, P3 = 9, 12
"""Primaries there."""

TO_PRIMARIES = {
    BT2020: np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]),
    P3: np.array([[0.8225, 0.1775, 0.0], [0.0332, 0.9668, 0.0], [0.0171, 0.0724, 0.9105]]),
}
"""From BT.709, linear light (ITU-R BT.2087 and SMPTE EG 432-1)."""

LUMINANCE = {BT2020: np.array([0.2627, 0.6780, 0.0593]), P3: np.array([0.2290, 0.6917, 0.0793])}

PATCH = 16
TOLERANCE = 3
"""10-bit YCbCr and the steps of the table, in 8 bits."""

OUTERMOST = 40
"""How far from nothing the other channels of a pure red, green or blue may be, at the edge of BT.709: twelve hundredths
of the signal are a hundredth of the light."""

GREYS = (0, 1, 5, 20, 50, 90, 203, 400, 1000)
"""cd/m²."""

both = pytest.mark.parametrize("transfer", [HLG, PQ], ids=["hlg", "pq"])


def signal_of(light: NDArray[np.float64], transfer: int, primaries: int) -> NDArray[np.float64]:
    """Return the signal that shows (N, 3) linear RGB in cd/m², by the inverse EOTF of PQ or that of an HLG display."""
    if transfer == PQ:
        powered = (light / 10000) ** (2610 / 16384)
        shown: NDArray[np.float64] = ((3424 / 4096 + 2413 / 128 * powered) / (1 + 2392 / 128 * powered)) ** (2523 / 32)
        return shown
    luminance = np.maximum(light @ LUMINANCE[primaries], 1e-9)[:, None] / 1000
    scene = light / 1000 * luminance ** ((1 - 1.2) / 1.2)
    bright = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)


def write_light(
    path: Path,
    light: Sequence[Sequence[float]],
    transfer: int,
    *,
    primaries: int = BT2020,
    full: bool = False,
    turn: float = 0,
    codec: str = "libx265",
    tag: int | None = None,
) -> Path:
    """Write a picture of patches side by side, each of such linear BT.709 light in cd/m²; 10 bits, BT.2020 matrix.

    It says that its transfer is that, or `tag`.
    """
    red, green, blue = signal_of(np.array(light) @ TO_PRIMARIES[primaries].T, transfer, primaries).T
    luma = 0.2627 * red + 0.6780 * green + 0.0593 * blue
    codes = np.stack([luma, (blue - luma) / 1.8814, (red - luma) / 1.4746])
    scale, offset = ((1023, 1023, 1023), (0, 512, 512)) if full else ((876, 896, 896), (64, 512, 512))
    patches = np.round(codes * np.array(scale)[:, None] + np.array(offset)[:, None]).clip(0, 1023).astype(np.uint16)
    picture = av.VideoFrame(PATCH * len(light), 4 * PATCH, "yuv420p10le")
    picture.pts, picture.time_base = 0, Fraction(1, RATE)
    for plane, row in zip(picture.planes, patches, strict=True):
        samples = np.frombuffer(plane, np.uint16).reshape(plane.height, -1)  # type: ignore[call-overload]
        samples[:, : plane.width] = np.repeat(row, PATCH * plane.width // picture.width)
    calm = "pools=1:bframes=0:keyint=1:log-level=none"  # with B-frames, a lone picture gets no time
    options = {
        "libx265": {"x265-params": f"lossless=1:{calm}"},
        "libx264": {"qp": "0"},
        "libsvtav1": {"crf": "5", "preset": "8"},
    }[codec]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, picture.format.name
        if turn:
            stream.set_display_rotation(turn, False, False)
        context = stream.codec_context
        context.color_trc = transfer if tag is None else tag
        context.color_primaries, context.colorspace = primaries, 9
        context.color_range = 2 if full else 1
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def image_of(path: Path) -> Image:
    with open_source(path) as source:
        return next(iter(source)).image


def patches_of(image: Image) -> NDArray[np.int_]:
    """The (N, 3) RGB in the middle of the patches."""
    return image[PATCH, PATCH // 2 :: PATCH, ::-1].astype(int)


def sdr_signal(light: Sequence[float]) -> NDArray[np.float64]:
    """What shows this on a display whose white has 203 cd/m² (ITU-R BT.1886), in 8 bits."""
    return np.array((np.array(light) / 203) ** (1 / 2.4) * 255)


@both
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
def test_greys_stay_grey_and_in_order_and_reference_white_is_nine_tenths(
    tmp_path: Path, transfer: int, full: bool
) -> None:
    path = write_light(tmp_path / "grey.mp4", [[step] * 3 for step in GREYS], transfer, full=full)
    seen = patches_of(image_of(path))
    assert np.ptp(seen, axis=1).max() <= 1
    assert (np.diff(seen[:, 1]) > 0).all()
    levels = dict(zip(GREYS, seen[:, 1].tolist(), strict=True))
    assert levels[0] == 0
    assert [levels[step] for step in GREYS if step < 100] == pytest.approx(
        [float(sdr_signal([step])[0]) for step in GREYS if step < 100], abs=TOLERANCE
    )
    assert levels[203] == pytest.approx(0.9 * 255, abs=TOLERANCE)
    assert levels[1000] >= 254


@both
@pytest.mark.parametrize("primaries", [BT2020, P3], ids=["bt2020", "p3"])
def test_colours_of_bt709_come_back(tmp_path: Path, transfer: int, primaries: int) -> None:
    colours = [(72, 40, 28), (60, 30, 10), (20, 60, 25), (15, 30, 80), (80, 70, 12), (40, 15, 45)]
    seen = patches_of(image_of(write_light(tmp_path / "colours.mov", colours, transfer, primaries=primaries)))
    assert np.abs(seen - [sdr_signal(colour) for colour in colours]).max() <= TOLERANCE
    pure = np.eye(3) * 80
    seen = patches_of(image_of(write_light(tmp_path / "pure.mov", pure.tolist(), transfer, primaries=primaries)))
    assert np.diag(seen) == pytest.approx(sdr_signal([80] * 3), abs=TOLERANCE)
    assert seen[~np.eye(3, dtype=bool)].max() <= OUTERMOST


@both
def test_bright_colours_keep_their_hue(tmp_path: Path, transfer: int) -> None:
    dim, bright = patches_of(image_of(write_light(tmp_path / "skin.mkv", [(72, 40, 28), (360, 200, 140)], transfer)))
    assert bright / bright.max() == pytest.approx(dim / dim.max(), abs=0.02)
    assert dim.max() < bright.max() < 255


def test_a_film_of_a_phone_held_upright_is_turned(tmp_path: Path) -> None:
    light = [[5] * 3, [50] * 3, [203] * 3]
    image = image_of(write_light(tmp_path / "phone.mov", light, HLG, turn=-90))
    lying = image_of(write_light(tmp_path / "lying.mov", light, HLG))
    assert image.shape == (3 * PATCH, 4 * PATCH, 3)
    assert np.array_equal(image, np.rot90(lying, -1))
    assert image.flags.c_contiguous


@both
def test_a_photo_is_no_other_than_a_film(tmp_path: Path, transfer: int) -> None:
    light = [[step] * 3 for step in (20, 50, 203, 700)]
    path = write_light(tmp_path / "photo.avif", light, transfer, codec="libsvtav1")
    film = write_light(tmp_path / "film.mp4", light, transfer)
    assert np.abs(patches_of(image_of(path)) - patches_of(image_of(film))).max() <= 2 * TOLERANCE


@both
def test_transparent_pixels_are_black_here_too(tmp_path: Path, transfer: int) -> None:
    picture = np.full((48, 64, 4), 0x8000, np.uint16)
    picture[:, :32, 3], picture[:, 32:, 3] = 0, 0xFFFF
    path = tmp_path / "clear.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gbrap16le"
        stream.codec_context.color_trc, stream.codec_context.color_primaries = transfer, BT2020
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgba64le").reformat(format="gbrap16le")))
        container.mux(stream.encode(None))
    image = image_of(path)
    assert not image[:, :32].any()
    shown = 1000 * (0.25 / 3) ** 1.2 if transfer == HLG else 92.25
    assert np.abs(image[:, 32:] - sdr_signal([shown])).max() <= TOLERANCE


def test_what_is_no_hdr_is_read_as_ever_also_behind_it(tmp_path: Path) -> None:
    """Programmes and their announcements, glued together: the transfer of each picture counts."""
    light = [[step] * 3 for step in GREYS]
    parts = [
        write_light(tmp_path / f"{number}.h264", light, transfer, tag=tag, codec="libx264")
        for number, (transfer, tag) in enumerate([(HLG, HLG), (HLG, SDR), (PQ, PQ), (HLG, HLG)])
    ]
    path = tmp_path / "glued.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with open_source(path) as source:
        first, plain, pq, last = (patches_of(frame.image) for frame in source)
    assert np.array_equal(first, last)
    assert np.abs(first - pq).max() <= TOLERANCE
    signal = signal_of(np.array(light, float), HLG, BT2020) * 255
    assert np.abs(plain - signal).max() <= TOLERANCE
