"""Paletted: frames of BGR pixels to the pictures of at most 256 colours that a GIF is made of.

FFmpeg's palettegen chooses the colours and its paletteuse places them. A palette is kept for as long as it fits, the
pattern of dots between two colours stays where it is, and a pixel that hardly changes does not change at all. So what
stands still does not shimmer, and takes no room in the file.
"""

from __future__ import annotations

from fractions import Fraction

import av
import cv2
import numpy as np
from av.filter import Graph
from av.filter.context import FilterContext
from numpy.typing import NDArray

from stream_seg.frame import Image
from stream_seg.sinks.colour import fit

_NOISE = 6
"""Levels of 255 by which a pixel may differ from the one that is shown and not be written anew."""

_SAMPLES = (64, 48)
"""How many pixels, across and down, are asked whether the palette has their colour."""

_APART = 32.0
"""How far a colour may be from the nearest in the palette, as a distance in levels of B, G and R."""

_STRAYS = 0.002
"""The share of pixels, beyond that of the picture a palette was made for, whose colours it may lack."""

_DITHER = "dither=bayer:bayer_scale=3"
_SIDE = 16
"""A palette is a picture of 16x16."""

_TICK = Fraction(1, 100)


class Paletted:
    """Converts images to pal8 pictures of one size. Images of another size are fitted inside, between black bars."""

    def __init__(self, size: tuple[int, int]) -> None:
        """`size` is (width, height) of the images, and of the pictures."""
        self.size = size
        self._shown: NDArray[np.uint8] | None = None  # (H, W, 4), BGRA
        self._colours = np.zeros((0, 3), np.float32)  # those of the palette
        self._lacking = 0.0  # the share of pixels that its own picture lacks the colours of
        self._user: _User | None = None

    def __call__(self, image: Image) -> av.VideoFrame:
        shown = self._update(np.asarray(cv2.cvtColor(fit(image, self.size), cv2.COLOR_BGR2BGRA), np.uint8))
        samples = cv2.resize(shown, _SAMPLES, interpolation=cv2.INTER_NEAREST).reshape(-1, 4)[:, :3].astype(np.float32)
        if self._user is None or self._lack(samples) > self._lacking + _STRAYS:
            palette = _palette_of(shown)
            entries = palette.to_ndarray(format="bgra").reshape(-1, 4)
            self._colours = entries[entries[:, 3] > 0, :3].astype(np.float32)
            self._lacking = self._lack(samples)
            self._user = _User(self.size, palette)
        return self._user.convert(shown)

    def _update(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What is shown now that this image has come: the pixels of the one before where it hardly differs."""
        if self._shown is None:
            self._shown = image
        else:
            is_same = cv2.inRange(cv2.absdiff(image, self._shown), (0, 0, 0, 0), (_NOISE,) * 4)
            cv2.copyTo(image, cv2.bitwise_not(is_same), self._shown)
        return self._shown

    def _lack(self, samples: NDArray[np.float32]) -> float:
        """The share of pixels, (N, 3), whose colours the palette lacks."""
        # |a - b|^2 = |a|^2 - 2 a.b + |b|^2
        nearest = ((self._colours**2).sum(1) - 2 * samples @ self._colours.T).min(1) + (samples**2).sum(1)
        return float(np.mean(nearest > _APART**2))


class _User:
    """A palette in use."""

    def __init__(self, size: tuple[int, int], palette: av.VideoFrame) -> None:
        self._graph = Graph()  # which its filters do not keep alive
        self._input = _add_input(self._graph, size)
        colours = _add_input(self._graph, (_SIDE, _SIDE))
        user = self._graph.add("paletteuse", _DITHER)
        self._output = self._graph.add("buffersink")
        self._input.link_to(user, 0, 0)
        colours.link_to(user, 0, 1)
        user.link_to(self._output)
        self._graph.configure()
        self._count = 0
        palette.pts, palette.time_base = 0, _TICK
        colours.push(palette)
        colours.push(None)

    def convert(self, image: NDArray[np.uint8]) -> av.VideoFrame:
        self._input.push(_picture(image, self._count))
        self._count += 1
        return _pulled(self._output)


def _palette_of(image: NDArray[np.uint8]) -> av.VideoFrame:
    """The colours for an image, (H, W, 4) BGRA, one of them transparent, as a picture of 16x16."""
    graph = Graph()
    source = _add_input(graph, (image.shape[1], image.shape[0]))
    maker, output = graph.add("palettegen"), graph.add("buffersink")
    source.link_to(maker)
    maker.link_to(output)
    graph.configure()
    source.push(_picture(image, 0))
    source.push(None)
    return _pulled(output)


def _add_input(graph: Graph, size: tuple[int, int]) -> FilterContext:
    return graph.add_buffer(width=size[0], height=size[1], format=av.VideoFormat("bgra"), time_base=_TICK)


def _picture(image: NDArray[np.uint8], number: int) -> av.VideoFrame:
    picture = av.VideoFrame.from_ndarray(image, "bgra")
    picture.pts, picture.time_base = number, _TICK
    return picture


def _pulled(output: FilterContext) -> av.VideoFrame:
    picture = output.pull()
    assert isinstance(picture, av.VideoFrame)
    return picture
