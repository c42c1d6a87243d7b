"""Owns text on pictures: filled labels that stay inside the frame and out of each other's way."""

from __future__ import annotations

import re
import unicodedata
from collections import OrderedDict

import cv2
import numpy as np

from stream_seg.frame import Image
from stream_seg.render.palette import Colour, ink

Rect = tuple[int, int, int, int]
"""x1, y1, x2, y2 in whole pixels, x2 and y2 exclusive."""

_DARK: Colour = (32, 28, 24)
FACE = cv2.FONT_HERSHEY_SIMPLEX
_TALLEST, _DEEPEST = "Éd", "gjp"  # every label gets their height, so that a row of labels is even
_PLAIN = str.maketrans({"·": "|", "\N{EN DASH}": "-", "\N{EM DASH}": "-", "\N{RIGHT SINGLE QUOTATION MARK}": "'"})

_LEFTWARD = r"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\U00010800-\U00010fff\U0001e800-\U0001efff]"
_LEFTWARD_RUN = re.compile(rf"[(\[{{]*{_LEFTWARD}(?:[\W\d_]*{_LEFTWARD})*[)\]}}]*")
"""Letters of scripts that are written from right to left, as Hebrew and Arabic, with what stands between them."""

_CLUSTER = re.compile(r"\d+(?:[.,:/]\d+)*|.", re.DOTALL)  # numbers are written from left to right there, too
_MIRRORED = str.maketrans("()[]{}<>", ")(][}{><")

_MOST = 1024
"""Labels that are remembered: a dozen colours times the scores seen; about 10 kB each at 1080p."""
_MOST_BYTES = 40_000_000
"""They take no more than this together: as many fit at 4K, while one on a photo of 100 megapixels takes 0.3 MB."""


class Labels:
    """Makes labels and puts them on one picture after another, remembering how they look."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int, Colour, int], Image] = OrderedDict()
        self._known_bytes = 0
        self._taken: list[Rect] = []
        self._choices: dict[int, int] = {}
        self._choices_before: dict[int, int] = {}

    def start(self, reserved: Rect) -> None:
        """Begin a new picture, in which the area `reserved` is to be left free."""
        self._taken = [reserved]
        self._choices, self._choices_before = {}, self._choices

    def keep_free(self, area: Rect) -> None:
        """Have no label that comes later cover `area`, where there is room elsewhere."""
        self._taken.append(area)

    def draw(self, image: Image, text: str, box: Rect, height: int, colour: Colour, number: int | None = None) -> None:
        """Write `text` in letters `height` pixels high on a field of `colour`, at the best free place around `box`.

        The middle of a text that is wider than the picture is left out. The label of a `number` stays on its side of
        the box in the next picture until there is ample room on a better one, for boxes tremble.
        """
        patch = self._label(text, height, colour, image.shape[1])
        place, choice = self._place(patch, box, image, self._choices_before.get(number, 0) if number is not None else 0)
        if number is not None:
            self._choices[number] = choice
        self._put(image, patch, place)

    def draw_below(
        self, image: Image, text: str, start: tuple[int, int], sides: tuple[int, int], height: int, colour: Colour
    ) -> None:
        """Write `text` with its upper left corner at `start`, or below what is there already.

        What would reach beyond the right one of its `sides`, x of left and right, begins further left, within them.
        """
        patch = self._label(text, height, colour, image.shape[1])
        x = max(sides[0], min(start[0], sides[1] - patch.shape[1]))
        self._put(image, patch, self._below(_clamp(x, start[1], patch.shape[1], patch.shape[0], image), image))

    def _label(self, text: str, height: int, colour: Colour, widest: int) -> Image:
        """As the function `_label` makes it, from memory if it was wanted not long ago."""
        wanted = text, height, colour, widest
        if (patch := self._known.get(wanted)) is not None:
            self._known.move_to_end(wanted)
            return patch
        patch = self._known[wanted] = _label(*wanted)
        self._known_bytes += patch.nbytes
        while len(self._known) > _MOST or self._known_bytes > _MOST_BYTES:
            self._known_bytes -= self._known.popitem(last=False)[1].nbytes
        return patch

    def _put(self, image: Image, patch: Image, place: Rect) -> None:
        """Copy `patch` to its place; what does not fit the frame is left out."""
        area = image[place[1] : place[3], place[0] : place[2]]
        area[:] = patch[: area.shape[0], : area.shape[1]]
        self._taken.append(place)

    def _place(self, patch: Image, box: Rect, image: Image, before: int) -> tuple[Rect, int]:
        """The first place around `box` that no label has taken, or one further down; and which place it is.

        Those that are better than the one `before` must be free by a margin.
        """
        height, width = patch.shape[:2]
        corners = (
            (box[0], box[1] - height),
            (box[0], box[1]),
            (box[2] - width, box[1] - height),
            (box[0], box[3]),
            (box[2] - width, box[1]),
            (box[0], box[3] - height),
        )
        for choice, (x, y) in enumerate(corners):
            place = _clamp(x, y, width, height, image)
            if self._blocking(place if choice >= before else _widened(place, height // 2)) is None:
                return place, choice
        return self._below(_clamp(*corners[0], width, height, image), image), len(corners)

    def _below(self, place: Rect, image: Image) -> Rect:
        """The first free place straight below `place`, if there is one."""
        for _ in self._taken:
            blocking = self._blocking(place)
            if blocking is None:
                break
            below = _clamp(place[0], blocking[3], place[2] - place[0], place[3] - place[1], image)
            if below == place:  # at the bottom
                break
            place = below
        return place

    def _blocking(self, place: Rect) -> Rect | None:
        """What has taken some of `place`, if anything has."""
        x1, y1, x2, y2 = place
        for taken in self._taken:  # all written out, because labels are many and each asks about each
            if x1 < taken[2] and taken[0] < x2 and y1 < taken[3] and taken[1] < y2:
                return taken
        return None


class Plate:
    """One line on a dark plate in the top-left corner of `image`; nothing for an empty text."""

    def __init__(self, image: Image, text: str, height: int) -> None:
        patch = _patch(text, height, _DARK) if text else np.zeros((0, 0, 3), np.uint8)
        self._under = image[: patch.shape[0], : patch.shape[1]]
        self._patch = patch[: self._under.shape[0], : self._under.shape[1]]
        self.area: Rect = (0, 0, self._under.shape[1], self._under.shape[0])

    def draw(self) -> None:
        """Draw it over what is in the picture by now."""
        if self._under.size:
            cv2.addWeighted(self._under, 0.2, self._patch, 0.8, 0, dst=self._under)


def shortened(text: str, height: int, width: int) -> str:
    """The text, its middle left out if need be to be at most `width` pixels wide in letters `height` pixels high."""
    for kept in range(len(text), 1, -1):
        short = text if kept == len(text) else f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"
        if text_width(short, height) <= width:
            return short
    return text[:1]


def text_width(text: str, height: int) -> int:
    """How many pixels wide a text is in letters `height` pixels high."""
    thickness, scale = pen(height)
    return int(cv2.getTextSize(writable(text), FACE, scale, thickness)[0][0])


def pen(height: int) -> tuple[int, float]:
    """OpenCV's thickness and scale of letters `height` pixels high."""
    thickness = 1 if height < 18 else max(2, round(height / 14))
    return thickness, cv2.getFontScaleFromHeight(FACE, height, thickness)


def _label(text: str, height: int, colour: Colour, widest: int) -> Image:
    """As `_patch`, with the middle of `text` left out where it is wider than `widest` pixels."""
    return _patch(shortened(text, height, widest - 2 * _margin(height)), height, colour)


def _margin(height: int) -> int:
    return max(2, round(height * 0.3))


def _patch(text: str, height: int, colour: Colour) -> Image:
    """A field of `colour` with `text` on it."""
    text = writable(text)
    thickness, scale = pen(height)
    width = cv2.getTextSize(text, FACE, scale, thickness)[0][0]
    ascent = cv2.getTextSize(_TALLEST, FACE, scale, thickness)[0][1]
    descent = cv2.getTextSize(_DEEPEST, FACE, scale, thickness)[1]
    margin = _margin(height)
    patch = np.empty((ascent + descent + margin, width + 2 * margin, 3), np.uint8)
    patch[:] = colour
    origin = (margin, ascent + margin // 2)
    cv2.putText(patch, text, origin, FACE, scale, ink(colour), thickness, cv2.LINE_AA)
    return patch


def writable(text: str) -> str:
    """What OpenCV's font can show: since 5 nearly everything, before that ASCII (accents dropped, '?' for the rest).

    It sets an accent that is a character of its own behind its letter, and all letters from left to right: those of
    other scripts come in the order in which they are seen.
    """
    if int(cv2.__version__.split(".")[0]) >= 5:
        return _LEFTWARD_RUN.sub(_as_seen, unicodedata.normalize("NFC", text))
    plain = (c for c in unicodedata.normalize("NFKD", text.translate(_PLAIN)) if not unicodedata.combining(c))
    return "".join(plain).encode("ascii", "replace").decode()


def _as_seen(run: re.Match[str]) -> str:
    """A run of letters that are written from right to left, the one furthest left first."""
    clusters: list[str] = []
    for cluster in _CLUSTER.findall(run[0]):
        if clusters and unicodedata.combining(cluster[0]):
            clusters[-1] += cluster
        else:
            clusters.append(cluster.translate(_MIRRORED))
    return "".join(reversed(clusters))


def _clamp(x: int, y: int, width: int, height: int, image: Image) -> Rect:
    x = max(0, min(x, image.shape[1] - width))
    y = max(0, min(y, image.shape[0] - height))
    return x, y, x + width, y + height


def _widened(area: Rect, margin: int) -> Rect:
    return area[0] - margin, area[1] - margin, area[2] + margin, area[3] + margin
