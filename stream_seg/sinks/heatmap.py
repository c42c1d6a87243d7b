"""Heatmap: a picture of where objects were over a whole run, and for how long."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from stream_seg.detections import Detections
from stream_seg.frame import Frame, Image, SourceInfo
from stream_seg.geometry import Letterbox, Placement, between_bars, mask_roi, resize_quickly
from stream_seg.protocols import Outcome, Sink
from stream_seg.render.heat import heat_picture
from stream_seg.sinks.images import refuse_suffix, replaces_input, save
from stream_seg.sinks.part import TakenError, Target, file_identity, identities

_LONG_SIDE = 960
"""Pixels of the picture, at most: enough to know the scene again, and for what is remembered of it to stay small."""

_CELL = 2
"""Pixels of the picture that a cell is wide and high in which time is counted: masks are coarser yet."""

_LONGEST_LIVE_GAP = 2.0
"""The longest that a frame of a live source counts, in seconds, unless all come so slowly: then the source was away."""

_SLOW = 3
"""How many times as long as the frame before a frame of a slow source may count."""

_DEFAULT_GAP = 1 / 30
"""How long a lone frame counts, in seconds, when nothing says so."""


class Heatmap(Sink):
    """Writes one image when the run ends: the scene, dimmed, and in colours for how long there was an object where.

    What counts is the time in which a place was covered by the mask of any object, in seconds of the source; a legend
    below the picture says what the colours stand for (`render.heat`). A frame counts until the next one, one of a live
    source for `_LONGEST_LIVE_GAP` at most unless all come so slowly. The scene is the median of some frames of the
    whole run, in which what passes is not seen. It is meant for cameras that stand still. The image has 960 pixels on
    its longer side, at most; frames of another shape than the first are fitted between bars. Photos do not count: for
    them alone nothing is written.

    PNG, JPEG or WebP by its suffix. After a failure the image keeps a partial name (`a.part.png`): `result` is where it
    is, None where there is none.

    The constructor raises `OutputError` for another suffix, an existing file without `overwrite`, the input
    (`source_path`), and a folder that is missing or cannot be written to; `open` for the same by then, and where it is
    one of the images of the input or is `spared`; `close` when writing fails.
    """

    of_one_feed = True
    wants_pictures = False
    wants_captured = True

    def __init__(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        source_path: str | Path | None = None,
        spared: Iterable[str | Path] = (),
    ) -> None:
        self.path = Path(path)
        self.result: Path | None = None
        refuse_suffix(self.path)
        self._target = Target(self.path, overwrite, source_path)
        self._spared = [Path(path) for path in spared]
        self._info: SourceInfo | None = None
        self._heat: _Heat | None = None

    def open(self, info: SourceInfo) -> None:
        self._target.refuse_input(info.path)
        self._target.refuse_taken()  # since it was made, as by a run before with the same sink
        if file_identity(self.path) in identities([*info.files, *self._spared]):
            raise replaces_input(self.path)
        self._info, self._heat, self.result = info, None, None

    def write(self, frame: Frame, detections: Detections) -> None:
        if self._info is None:
            raise RuntimeError("open the sink before writing to it")
        if frame.is_still:
            return
        if self._heat is None:
            self._heat = _Heat(frame.size, self._info)
        self._heat.add(frame, detections)

    def close(self, outcome: Outcome) -> None:
        heat, self._heat = self._heat, None
        if heat is None:
            return
        try:
            self.result = save(heat.picture(), self._target, is_whole=outcome is not Outcome.FAILED)
        except TakenError as error:
            self.result = error.kept
            raise


class _Heat:
    """For how long, in seconds, there was something where in the frames of a source, the first of which has `size`."""

    def __init__(self, size: tuple[int, int], info: SourceInfo) -> None:
        self._is_live = info.is_live
        self._gap = _DEFAULT_GAP if info.frame_rate is None else float(1 / info.frame_rate)  # the last that counted
        share = min(1.0, _LONG_SIDE / max(size))
        width, height = (max(1, round(side * share)) for side in size)
        self._size = size
        self._scene = _Scene(size, (width, height))
        self._grid = max(1, width // _CELL), max(1, height // _CELL)
        self._seconds = np.zeros(self._grid[::-1], np.float64)  # which single ones lose hundredths of after a day
        self._covered = np.zeros(self._grid[::-1], np.bool_)  # by what is in the frame that is counted
        self._watched = 0.0
        self._before: tuple[float, tuple[int, int], Detections] | None = None

    def add(self, frame: Frame, detections: Detections) -> None:
        """Take the next frame; until when the one before counts is known by now."""
        now = float(frame.pts)
        if self._before is not None:
            self._count(max(0.0, now - self._before[0]))
        self._scene.add(frame.image, self._watched)
        self._before = now, frame.size, detections

    def picture(self) -> Image:
        """What there is to see. The newest frame counts as long as the one before."""
        self._count(self._gap)
        self._before = None
        return heat_picture(self._scene.picture(), self._seconds, self._watched)

    def _count(self, seconds: float) -> None:
        """Count what is in the frame before for so long."""
        if self._before is None:
            return
        if self._is_live:
            seconds = min(seconds, max(_LONGEST_LIVE_GAP, _SLOW * self._gap))
        self._gap = seconds
        self._watched += seconds
        _, size, detections = self._before
        width, height = _inner(size, self._size, self._grid)
        place = Placement(size, (width, height), ((self._grid[0] - width) // 2, (self._grid[1] - height) // 2))
        for box, mask in zip(place.to_canvas(detections.boxes), detections.masks, strict=True):
            rows, columns, bitmask = mask_roi(box, mask, self._grid)
            self._covered[rows, columns] |= bitmask.view(np.bool_)
        if len(detections):
            np.add(self._seconds, seconds, out=self._seconds, where=self._covered)
            self._covered.fill(False)


class _Scene:
    """What a scene looks like without what passes: the median of some of its frames, the first of which has `size`.

    It is painted on a `canvas`, (width, height). The frames are evenly spaced, however long it is watched: when there
    are `_MOST`, every other one is forgotten, and from then on there is twice as long between two.
    """

    _MOST = 12
    _FIRST_STEP = 0.2  # seconds

    def __init__(self, size: tuple[int, int], canvas: tuple[int, int]) -> None:
        self._size, self._canvas = size, canvas
        self._images: list[Image] = []
        self._step = self._FIRST_STEP
        self._due = 0.0

    def add(self, image: Image, seconds: float) -> None:
        """Look at an image that comes after the scene was watched for so many `seconds`."""
        if seconds < self._due:
            return
        if len(self._images) == self._MOST:
            del self._images[1::2]
            self._step *= 2
        self._due = seconds + self._step
        inner = _inner((image.shape[1], image.shape[0]), self._size, self._canvas)
        self._images.append(between_bars(resize_quickly(image, inner), self._canvas))

    def picture(self) -> Image:
        """What it looks like, (height, width, 3); of an even number of frames the brighter ones in the middle count."""
        images, middle = np.stack(self._images), len(self._images) // 2
        images.partition(middle, axis=0)
        return np.asarray(images[middle], np.uint8)


def _inner(size: tuple[int, int], first: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    """How large a frame of `size` is on a canvas that was made for frames like the `first`."""
    return canvas if size == first else Letterbox(size, canvas).valid
