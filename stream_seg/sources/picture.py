"""Decoded frames to pixels: colours, alpha, size and orientation."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self, cast

import cv2
import numpy as np
from av.sidedata.sidedata import SideData, SideDataContainer, Type
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter

from stream_seg.frame import Image
from stream_seg.geometry import Letterbox, between_bars
from stream_seg.sources.tone_mapping import HDR_TRANSFERS, ToneMapper

UNDERSTOOD_MATRICES = frozenset({1, 4, 5, 6, 7, 9})
"""ITU-T H.273 matrix coefficients that swscale converts as tagged: BT.709, FCC, BT.601 (twice), SMPTE 240M, BT.2020."""

CONSTANT_LUMINANCE_2020 = 10

FORMATS = "bgr24", "bgra"
HDR_FORMATS = "gbrpf32le", "gbrapf32le"
"""What frames become, without and with alpha; those of high dynamic range on the way to the others."""


@dataclass(frozen=True, slots=True)
class Orientation:
    """How stored pixels are turned for display: transposed first, then mirrored left-right and top-bottom."""

    transpose: bool = False
    mirror: bool = False
    flip: bool = False

    @classmethod
    def of(cls, frame: VideoFrame) -> Self:
        """Read the display matrix of a decoded frame (ISO/IEC 14496-12, 8.3.2); the nearest quarter turn counts."""
        try:
            # Not `frame.side_data`: the frame would keep it, and it the frame, and so a picture of each connection of a
            # camera until the collector of such circles thinks it worth its time, which takes it half an hour.
            side_data = cast(Callable[[VideoFrame], Mapping[Type, SideData]], SideDataContainer)(frame)
            matrix = np.frombuffer(bytes(side_data[Type.DISPLAYMATRIX]), np.int32)
        except KeyError:
            return cls()
        except ValueError:  # side data of a kind this PyAV has no name for hides the rest; flips are lost then
            angle = math.radians(frame.rotation)
            matrix = np.round(np.array([math.cos(angle), -math.sin(angle), 0, math.sin(angle), math.cos(angle)]))
        a, b, c, d = (int(matrix[i]) for i in (0, 1, 3, 4))
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, a < 0, d < 0)
        return cls(True, c < 0, b < 0)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) after turning."""
        return (height, width) if self.transpose else (width, height)

    def apply(self, image: Image) -> Image:
        """Return the picture as it is to be seen; the same array when there is nothing to turn."""
        turned = cv2.transpose(image) if self.transpose else image
        if self.mirror or self.flip:
            turned = cv2.flip(turned, -1 if self.mirror and self.flip else int(self.mirror))
        return cast(Image, turned)


class PictureConverter:
    """Turns decoded frames into BGR images of one size, shown upright.

    Colours follow the matrix and range a frame is tagged with; an untagged one is BT.709 from 720p on and BT.601 below,
    as players guess. High dynamic range (HLG, PQ) is tone-mapped to BT.709. Pixels stay as stored: a sample aspect
    ratio other than 1:1 is not stretched. Transparent pixels are laid on black. `size` is (width, height) as stored,
    before turning; a frame of another size is scaled to it, one of other proportions between black bars. Threads that
    call it at once wait for each other.
    """

    def __init__(self, size: tuple[int, int], orientation: Orientation, *, untagged: Colorspace | None = None) -> None:
        self._width, self._height = size
        self._orientation = orientation
        self._untagged = guessed_matrix(*size) if untagged is None else untagged
        self._reformatter = VideoReformatter()
        self._tone_mapper = ToneMapper()
        self._converting = threading.Lock()

    def __call__(self, frame: VideoFrame) -> Image:
        """Return (H, W, 3) uint8 BGR."""
        alpha = has_alpha(frame.format)
        width, height = self._fitted(frame.width, frame.height)
        with self._converting:
            hdr = frame.color_trc in HDR_TRANSFERS  # here, for who converts the same frame hides it meanwhile
            picture = self._reformatter.reformat(
                frame,
                width,
                height,
                (HDR_FORMATS if hdr else FORMATS)[alpha],
                src_colorspace=self._matrix(frame, Colorspace.BT2020 if hdr else self._untagged),
                threads=1,  # more would only wait: one picture is too small to share
            )
            pixels = self._tone_mapper(picture) if hdr else cast(Image, picture.to_ndarray())
        image = on_black(pixels) if alpha else np.ascontiguousarray(pixels)
        return self._orientation.apply(between_bars(image, (self._width, self._height)))

    def _fitted(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) at which a frame of this size goes inside; a pixel more where that fills all."""
        own = self._width, self._height
        if (width, height) == own:
            return own
        inner = Letterbox((width, height), own).valid
        return own if max(own[0] - inner[0], own[1] - inner[1]) <= 1 else inner

    @staticmethod
    def _matrix(frame: VideoFrame, untagged: Colorspace) -> Colorspace | None:
        if frame.format.is_rgb or frame.colorspace in UNDERSTOOD_MATRICES:
            return None
        return Colorspace.BT2020 if frame.colorspace == CONSTANT_LUMINANCE_2020 else untagged


def guessed_matrix(width: int, height: int) -> Colorspace:
    """Return the matrix an untagged video of this size was most likely made with."""
    return Colorspace.ITU709 if width >= 1280 or height > 576 else Colorspace.ITU601


def has_alpha(pixel_format: VideoFormat) -> bool:
    """Whether pictures of this format carry transparency."""
    return any(component.is_alpha for component in pixel_format.components)


def on_black(pixels: Image) -> Image:
    """Lay a (H, W, 4) BGRA picture on black: what a transparent pixel hides must not be seen, or segmented."""
    alpha = pixels[:, :, 3]
    opaque = cv2.cvtColor(pixels, cv2.COLOR_BGRA2BGR)
    if int(alpha.min()) == 255:
        return cast(Image, opaque)
    return cast(Image, cv2.multiply(opaque, cv2.merge([alpha] * 3), scale=1 / 255))
