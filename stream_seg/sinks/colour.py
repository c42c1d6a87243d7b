"""Yuv420: frames of BGR pixels to the 4:2:0 pictures that video encoders take.

BT.709 for every size, limited range, and tagged so: it is what players assume of HD, what ffmpeg and browsers read
from the tags elsewhere, and it leaves the primaries of ordinary (sRGB) pictures alone. OpenCV's own conversion knows
only BT.601 and takes the colour of one pixel in four; swscale's rounds down and costs 2.7 times as much as this.
"""

from __future__ import annotations

import av
import cv2
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.plane import VideoPlane
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc
from numpy.typing import NDArray

from stream_seg.frame import Image
from stream_seg.geometry import Letterbox, between_bars, resize

BT709 = 1
"""The matrix coefficients' code in ITU-T H.273."""


def _bgr_to_yuv() -> NDArray[np.float32]:
    """BT.709 limited range (ITU-R BT.709-6, 3.2 to 3.4 and 4.6) as a (3, 4) affine map of B, G, R, 1."""
    red, blue = 0.2126, 0.0722
    luma = np.array([blue, 1 - red - blue, red])
    u = (np.array([1, 0, 0]) - luma) / (2 * (1 - blue))
    v = (np.array([0, 0, 1]) - luma) / (2 * (1 - red))
    scale = np.array([[219], [224], [224]]) / 255
    return np.hstack([np.stack([luma, u, v]) * scale, [[16], [128], [128]]]).astype(np.float32)


class Yuv420:
    """Converts images of any size to yuv420p pictures of one even size.

    An odd width or height is made even by repeating the last column or row, so that no pixel is lost. Images of
    another size are fitted inside, between black bars.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        """`size` is (width, height) of the images."""
        self.image_size = size
        self.size = size[0] + size[0] % 2, size[1] + size[1] % 2
        self._matrix = _bgr_to_yuv()
        width, height = self.size
        self._full = np.empty((height, width, 3), np.uint8)
        self._chroma = np.empty((2, height, width), np.uint8)

    def __call__(self, image: Image) -> av.VideoFrame:
        width, height = self.size
        cv2.transform(self._even(fit(image, self.image_size)), self._matrix, dst=self._full)
        # A picture of its own each time: an encoder may keep it until later.
        picture = av.VideoFrame(width, height, "yuv420p")
        luma, *quarters = (_pixels(plane) for plane in picture.planes)
        cv2.split(self._full, [luma, *self._chroma])
        for full, quarter in zip(self._chroma, quarters, strict=True):
            cv2.resize(full, (width // 2, height // 2), dst=quarter, interpolation=cv2.INTER_AREA)
        tag(picture)
        return picture

    def _even(self, image: Image) -> Image:
        right, bottom = self.size[0] - image.shape[1], self.size[1] - image.shape[0]
        if right or bottom:
            return cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE).astype(np.uint8, copy=False)
        return image


def _pixels(plane: VideoPlane) -> NDArray[np.uint8]:
    """The samples of a plane, (height, width), to be written to; without the padding of its rows."""
    samples: NDArray[np.uint8] = np.frombuffer(plane, np.uint8)  # type: ignore[call-overload]
    rows = samples.reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]


def tag(described: av.VideoFrame | VideoCodecContext) -> None:
    """Say in `described` that it is BT.709, limited range."""
    described.color_range = ColorRange.MPEG
    described.colorspace = BT709
    described.color_primaries = ColorPrimaries.BT709
    described.color_trc = ColorTrc.BT709


def fit(image: Image, size: tuple[int, int]) -> Image:
    """The image at (width, height), its proportions kept between black bars; the image itself if it has that size."""
    own = image.shape[1], image.shape[0]
    return image if own == size else between_bars(resize(image, Letterbox(own, size).valid), size)
