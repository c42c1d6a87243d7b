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

_SAMPLED = 180
"""How many rows, or columns if there are fewer, are asked whether the palette has their colours."""

_STRAYS = np.array([[32.0, 2e-3], [80.0, 5e-5]])
"""Distances from the nearest colour of the palette, in levels of B, G and R, and the share of pixels that may be
farther away, beyond that in its own picture: many may be of another shade, but few of another colour."""

_BITS = 3
"""Colours are looked up without so many of their lowest bits."""

_PLACING = "dither=bayer:bayer_scale=3:diff_mode=rectangle"
"""Dots in order, and no work but around what has changed."""

_SIDE = 16
"""A palette is a picture of 16x16."""

_TICK = Fraction(1, 100)


class Paletted:
    """Converts images to pal8 pictures of one size. Images of another size are fitted inside, between black bars."""

    def __init__(self, size: tuple[int, int]) -> None:
        """`size` is (width, height) of the images, and of the pictures."""
        self.size = size
        self._shown: NDArray[np.uint8] | None = None  # (H, W, 4), BGRA
        self._step = max(1, min(size) // _SAMPLED)
        self._distances = np.zeros((0, 0, 0), np.float32)  # [b, g, r] from the nearest colour of the palette
        self._lacking = np.zeros(len(_STRAYS))  # the shares of its own picture's pixels
        self._user: _User | None = None

    def __call__(self, image: Image) -> av.VideoFrame:
        shown = self._update(np.asarray(cv2.cvtColor(fit(image, self.size), cv2.COLOR_BGR2BGRA), np.uint8))
        if self._user is None or (self._lack(shown) > self._lacking + _STRAYS[:, 1]).any():
            palette = _palette_of(shown)
            entries = palette.to_ndarray(format="bgra").reshape(-1, 4)
            self._distances = _distances_from(entries[entries[:, 3] > 0, :3].astype(np.float32))
            self._lacking = self._lack(shown)
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

    def _lack(self, image: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The shares of pixels whose colours the palette lacks, by either distance."""
        b, g, r = cv2.split(image[:: self._step, :: self._step, :3] >> _BITS)
        distances = self._distances[b, g, r]
        return np.array([np.mean(distances > limit) for limit in _STRAYS[:, 0]])


class _User:
    """A palette in use."""

    def __init__(self, size: tuple[int, int], palette: av.VideoFrame) -> None:
        self._graph = Graph()  # which its filters do not keep alive
        self._input = _add_input(self._graph, size)
        colours = _add_input(self._graph, (_SIDE, _SIDE))
        user = self._graph.add("paletteuse", _PLACING)
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


def _distances_from(colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far all colours are from the nearest of these, (N, 3): a cube of B, G and R in steps of 2**_BITS levels."""
    levels = np.arange(2 ** (_BITS - 1), 256, 2**_BITS, dtype=np.float32)
    b, g, r = ((levels[:, None] - colours[:, channel]) ** 2 for channel in range(3))
    plane = g[:, None] + r  # (G, R, N)
    return np.asarray(np.sqrt(np.stack([(plane + one).min(2) for one in b])), np.float32)


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
