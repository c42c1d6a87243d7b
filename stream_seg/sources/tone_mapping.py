"""Tone mapping: pictures of high dynamic range (HLG and PQ, ITU-R BT.2100) as ordinary BT.709 ones.

What a reference display of 1000 cd/m² shows is brought into the range of an ordinary one, whose white is the reference
white of 203 cd/m² (ITU-R BT.2408): what is darker than 88 cd/m² stays as it is, and what is brighter is compressed
smoothly (ITU-R BT.2390-11, 5.4.1, EETF), so that reference white comes to nine tenths of the signal and highlights keep
their drawing. The brightest of red, green and blue decides, and all three shrink alike, which keeps the hue. Colours
outside BT.709 are clipped. PQ that is brighter than 1000 cd/m² is taken as that.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import cast

import cv2
import numpy as np
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorPrimaries, ColorTrc
from numpy.typing import NDArray

from stream_seg.frame import Image

HDR_TRANSFERS = frozenset({int(ColorTrc.SMPTE2084), int(ColorTrc.ARIB_STD_B67)})
"""ITU-T H.273 transfer characteristics of high dynamic range: PQ and HLG."""

PEAK = 1000.0
REFERENCE_WHITE = 203.0
"""Both in cd/m²."""

LEVEL = 6
"""Of the table, which has LEVEL ** 2 points along each axis and is a square of LEVEL ** 3 pixels."""

CHROMATICITIES = {
    int(ColorPrimaries.BT709): ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06)),
    int(ColorPrimaries.BT2020): ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046)),
    int(ColorPrimaries.SMPTE432): ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
}
"""(x, y) of red, green and blue; white is D65 in all. What is tagged otherwise, or not, is BT.2020."""

D65 = 0.3127, 0.329

_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
"""Of PQ: ITU-R BT.2100-2, table 4."""


class ToneMapper:
    """Turns pictures in `gbrpf32le`, or with alpha in `gbrapf32le`, of HLG or PQ as tagged, into pixels of BT.709.

    To be called by one thread at a time.
    """

    def __init__(self) -> None:
        self._prepared_for: tuple[str, int, int, int, int] | None = None

    def __call__(self, picture: VideoFrame) -> Image:
        """Return (H, W, 3) uint8 BGR, or (H, W, 4) BGRA."""
        kind = picture.format.name, picture.width, picture.height, picture.color_trc, picture.color_primaries
        if kind != self._prepared_for:
            self._prepare(*kind)
            self._prepared_for = kind
        self._in.push(picture)
        green, blue, red, *alpha = map(_samples, cast(VideoFrame, self._out.pull()).planes)
        return cast(Image, cv2.convertScaleAbs(cv2.merge([blue, green, red, *alpha]), alpha=255))

    def _prepare(self, pixel_format: str, width: int, height: int, transfer: int, primaries: int) -> None:
        self._graph = graph = Graph()
        graph.threads = 1
        form, tick = VideoFormat(pixel_format), Fraction(1)
        self._in = graph.add_buffer(width=width, height=height, format=form, time_base=tick)
        in_order = graph.add("setpts", "N")  # of a feed, times may jump back
        points = graph.add_buffer(width=LEVEL**3, height=LEVEL**3, format=form, time_base=tick)
        lookup = graph.add("haldclut", "clut=first")
        self._out = graph.add("buffersink")
        self._in.link_to(in_order)
        in_order.link_to(lookup, 0, 0)
        points.link_to(lookup, 0, 1)
        lookup.link_to(self._out)
        graph.configure()
        values = _table_picture(transfer, primaries, pixel_format)
        values.pts, values.time_base = 0, tick
        points.push(values)
        points.push(None)


def _samples(plane: VideoPlane) -> NDArray[np.float32]:
    """The samples of a plane, (height, width), to be written to; without the padding of its rows."""
    samples: NDArray[np.float32] = np.frombuffer(plane, np.float32)  # type: ignore[call-overload]
    return samples.reshape(-1, plane.line_size // samples.itemsize)[: plane.height, : plane.width]


def _table_picture(transfer: int, primaries: int, pixel_format: str) -> VideoFrame:
    """The table as `haldclut` takes it. In floats, for of planes of integers it takes the colours in a wrong order."""
    red, green, blue = table(transfer, primaries).T
    picture = VideoFrame(LEVEL**3, LEVEL**3, pixel_format)
    for plane, values in zip(picture.planes, (green, blue, red, np.ones_like(red)), strict=False):
        _samples(plane)[:] = values.reshape(LEVEL**3, LEVEL**3)
    return picture


@lru_cache
def table(transfer: int, primaries: int) -> NDArray[np.float64]:
    """Return what `sdr` does to LEVEL ** 2 steps of red, which change fastest, green and blue, (LEVEL ** 6, 3) RGB."""
    steps = np.linspace(0, 1, LEVEL**2)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    return sdr(np.stack([red.ravel(), green.ravel(), blue.ravel()], axis=1), transfer, primaries)


def sdr(signal: NDArray[np.float64], transfer: int, primaries: int) -> NDArray[np.float64]:
    """Return the BT.709 signal, 0 to 1, that shows what an HLG or PQ one shows, (N, 3) R'G'B' both."""
    to_xyz = _rgb_to_xyz(primaries)
    shown = _pq_eotf(signal) if transfer == ColorTrc.SMPTE2084 else _hlg_eotf(signal, to_xyz[1])
    rgb = shown @ (np.linalg.inv(_rgb_to_xyz(ColorPrimaries.BT709)) @ to_xyz).T
    brightest = np.maximum(rgb.max(axis=1, keepdims=True), 1e-6)
    mapped = np.clip(rgb * (_compressed(brightest) / brightest) / REFERENCE_WHITE, 0, 1)
    return cast("NDArray[np.float64]", mapped ** (1 / 2.4))  # ITU-R BT.1886


def _rgb_to_xyz(primaries: int) -> NDArray[np.float64]:
    """The (3, 3) matrix of linear light (SMPTE RP 177), white of luminance 1."""
    of_each = CHROMATICITIES.get(primaries, CHROMATICITIES[ColorPrimaries.BT2020])
    columns, white = (np.array([[x / y, 1, (1 - x - y) / y] for x, y in points]).T for points in (of_each, [D65]))
    return columns * np.linalg.solve(columns, white).T


def _hlg_eotf(signal: NDArray[np.float64], luminance: NDArray[np.float64]) -> NDArray[np.float64]:
    """ITU-R BT.2100-2, table 5: inverse OETF, and the OOTF of a display of PEAK without ambient light; cd/m²."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return PEAK * (scene @ luminance)[:, None] ** (1.2 - 1) * scene


def _pq_eotf(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """ITU-R BT.2100-2, table 4; cd/m²."""
    powered = signal ** (1 / _M2)
    return 10000 * (np.maximum(powered - _C1, 0) / (_C2 - _C3 * powered)) ** (1 / _M1)


def _pq_inverse(light: NDArray[np.float64] | float) -> NDArray[np.float64]:
    powered = (np.asarray(light) / 10000) ** _M1
    return ((_C1 + _C2 * powered) / (1 + _C3 * powered)) ** _M2


def _compressed(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """ITU-R BT.2390-11, 5.4.1: up to PEAK into up to REFERENCE_WHITE, in PQ; cd/m²."""
    peak = _pq_inverse(PEAK)
    brightness = _pq_inverse(np.minimum(light, PEAK)) / peak
    most = _pq_inverse(REFERENCE_WHITE) / peak
    knee = 1.5 * most - 0.5
    t = np.maximum(brightness - knee, 0) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * most
    return _pq_eotf(np.where(brightness < knee, brightness, spline) * peak)
