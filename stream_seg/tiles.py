"""Owns the picture that several feeds share: a tile for each, with its name and, while it shows nothing, the reason."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np
from numpy.typing import NDArray

from stream_seg.availability import Availability, Outage
from stream_seg.detections import Detections
from stream_seg.errors import Reason, SourceError
from stream_seg.frame import Frame, Image, Kind, SourceInfo
from stream_seg.geometry import Letterbox, Placement, between_bars, edges_within, part_within, resize_quickly
from stream_seg.protocols import Outcome, Sink, Wall
from stream_seg.render import Renderer, Style, View
from stream_seg.render.labels import shortened
from stream_seg.render.notice import announce, caption, dimmed

LARGEST = (1920, 1080)
"""What the picture of several feeds fits into, (width, height)."""

ALONE = (1280, 720)
"""The size of the picture of an only feed that has sent none yet."""

LEAST_SECONDS = Fraction(1, 30)
"""The least time between two pictures of several feeds while any of them is live."""

MOST_SECONDS = Fraction(1)
"""The longest time between two pictures of live feeds, so that a recording keeps its clock when nothing moves."""

LEAST_RECORDED_SECONDS = Fraction(1, 60)
"""The least time between two pictures of several recordings, on the average."""

_AHEAD = 2 * LEAST_RECORDED_SECONDS
"""How much earlier than that one may come: the frames of recordings that are out of step bunch together."""

_END_SHOWS_AFTER = Fraction(1, 2)
"""Seconds until a tile says that its feed has ended: when a run is stopped, all end one after another."""

_LIVE_TICK = Fraction(1, 90000)
_RECORDED_TICK = Fraction(1, 5_760_000)
"""A unit in which the times of common recordings are whole; their own are known only after the sinks are open."""

_NAME_SHARE = 0.6
"""How much of a tile's width its name may take, beside its status."""

_LEAST_LETTERS = 12
"""Height in pixels: on most screens a window shows the whole at two thirds of its size."""

_NOWHERE = -1.0, -1.0, -1.0, -1.0
"""The ends of a line that is not in the picture, which would else be in the bars; others keep their numbers."""

_CONNECTING = ("connecting",)
_NOTHING = Detections.none(())


class Tiles(Wall):
    """Shows feeds side by side in `sinks`: a window, video files.

    `names` are shown, so they must be safe to print. `hud` gives the status of a feed, shown beside its name; it is
    called on the render thread. `availabilities` say which feeds are away; `clock` is theirs, in seconds.

    With kind "live" there is a picture when something has changed, but at most 30 a second, and at least one; their
    times are the clock's since `open`. Else times are those of the frames: a picture for each new one, once all frames
    of that time are there, but at most 60 a second on the average. The last picture always gets through, as soon as all
    feeds have ended, so that a window may show it for a while. A picture of nothing but stills is a still itself.
    `start` is the time that the recordings begin with.

    An only feed is shown at its own size, each frame at once, without its name. `size` is that of its pictures, (width,
    height), where it is known by now: what is said before the first of them is as large, for a stream keeps the size
    with which it begins.
    """

    def __init__(
        self,
        names: Sequence[str],
        sinks: Sequence[Sink],
        *,
        kind: Kind = "live",
        start: Fraction = Fraction(0),
        view: View = "both",
        ids: bool = False,
        trails: float | None = None,
        hud: Callable[[int], str] | None = None,
        availabilities: Sequence[Availability | None] | None = None,
        size: tuple[int, int] = ALONE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sinks = sinks
        self._hud = hud
        self._availabilities = availabilities or [None] * len(names)
        self._clock = clock
        self._is_only = len(names) == 1
        self._grid = Grid(1, 1, size) if self._is_only else Grid.of(len(names))
        least = 1 if self._is_only else _LEAST_LETTERS
        letters = Style.of(self._grid.tile, least).letters
        room = round(self._grid.tile[0] * _NAME_SHARE)
        self._names = [""] if self._is_only else [shortened(name, letters, room) for name in names]
        self._renderers = [
            Renderer(view, hud=partial(self._label, feed), least_letters=least, ids=ids, trails=trails)
            for feed in range(len(names))
        ]
        self._tiles = [_Tile(self._grid.tile, name, letters) for name in self._names]
        self._info = SourceInfo(
            name=names[0] if self._is_only else "wall",
            size=self._grid.size,
            kind=kind,
            time_base=_LIVE_TICK if kind == "live" else _RECORDED_TICK,
            start=start,
        )
        self._going_on = set(range(len(names)))
        self._times = _LiveTimes(Fraction(0) if self._is_only else LEAST_SECONDS, clock)
        self._limit = _Limit()
        self._over: dict[int, tuple[Fraction, tuple[str, ...]]] = {}
        self._canvas = np.zeros((self._grid.size[1], self._grid.size[0], 3), np.uint8)
        self._newest: Frame | None = None
        self._pending: Fraction | None = None
        self._changed = True
        self._is_open = False
        self._written = 0

    def open(self) -> None:
        """Open the sinks; of live feeds, there is a picture from the beginning on."""
        for sink in self._sinks:
            sink.open(self._info)
        self._is_open = True
        self._times.begin()
        self.tick()

    def draw(self, feed: int, frame: Frame, detections: Detections, picture: Frame | None) -> Frame:
        """Return the frame with its detections at the size of a tile; that of an only feed as large as it is."""
        if not self._is_only:
            return self._renderers[feed](*fitted(frame, detections, self._grid.tile))
        return picture if picture is not None else self._renderers[feed](frame, detections)

    def show(self, feed: int, tile: Frame) -> None:
        if not (self._info.is_live or self._is_only):
            self._advance(tile.pts)
        self._tiles[feed].put(tile)
        self._newest = tile
        self._changed = True
        if self._is_only and not self._info.is_live:
            self._write(tile.pts)
        self.tick()

    def ended(self, feed: int, error: BaseException | None) -> None:
        if error is not None or not self._tiles[feed].is_still:  # an image is to be looked at, not to be over
            self._over[feed] = self._now(), _ending(error)
        self._going_on.discard(feed)
        if not (self._going_on or self._info.is_live):
            self._flush()
            for sink in self._sinks:
                sink.ended()

    def tick(self) -> float:
        """Write a picture of live feeds if one is due; return the seconds until one may be."""
        if not self._info.is_live:
            return float(MOST_SECONDS)
        self._say()
        if not self._times.wait(self._changed):
            self._write(self._times.next())
        return self._times.wait(self._changed)

    def wants_stop(self) -> bool:
        # A list: every sink is asked, for asking is also how a window handles its events.
        return any([sink.wants_stop() for sink in self._sinks])  # noqa: C419

    def holds(self) -> bool:
        """As of a sink, but never of live feeds: a window that is paused must not stop what is recorded."""
        return not self._info.is_live and any([sink.holds() for sink in self._sinks])  # noqa: C419

    def close(self, outcome: Outcome) -> None:
        """Write the last picture and close every sink; raises the first failure."""
        errors: list[BaseException] = []
        try:
            if self._is_open:
                self._flush()
            self._is_open = False
        except BaseException as error:  # the sinks must be closed nevertheless
            errors.append(error)
        of_sinks = Outcome.FAILED if errors else outcome
        for sink in self._sinks:
            try:
                sink.close(of_sinks)
            except BaseException as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _label(self, feed: int) -> str:
        status = "" if self._hud is None else self._hud(feed)
        return f"{self._names[feed]}  {status}".strip()

    def _now(self) -> Fraction:
        """Seconds, of the clock or of the recordings."""
        return self._times.now() if self._info.is_live else self._pending or Fraction(0)

    def _advance(self, pts: Fraction) -> None:
        """A frame of a recording comes at `pts`: if that is later than the others, the picture with them is whole."""
        if self._pending is None:
            self._pending = pts
        elif pts > self._pending:
            if self._limit.allows(self._pending):
                self._write(self._pending)
            self._pending = pts
            self._say()

    def _flush(self) -> None:
        """Write the picture that waits for its time, or for more frames of its own."""
        if self._changed and self._newest is not None:
            self._write(self._times.next() if self._info.is_live else self._now())

    def _say(self) -> None:
        """Say in the tiles of feeds that are away why."""
        for feed, tile in enumerate(self._tiles):
            lines = self._reason(feed)
            if lines and tile.say(lines):
                self._changed = True

    def _reason(self, feed: int) -> tuple[str, ...]:
        """Why a feed has no picture, as lines; nothing when it has, or may have one in a moment."""
        if feed in self._over:
            since, lines = self._over[feed]
            return lines if self._now() - since >= _END_SHOWS_AFTER else ()
        availability = self._availabilities[feed]
        outage = None if availability is None else availability.outage
        return () if outage is None else _away(outage, self._clock())

    def _write(self, pts: Fraction) -> None:
        image = self._tiles[0].image if self._is_only else self._compose()
        captured_at = self._clock() if self._newest is None else self._newest.captured_at
        if self._is_only and self._newest is not None:
            frame = dataclasses.replace(self._newest, pixels=image, pts=pts)
        else:
            is_still = not self._info.is_live and all(tile.is_still for tile in self._tiles)
            frame = Frame(image, self._written, pts, captured_at, is_still=is_still)
        self._written += 1
        self._changed = False
        for sink in self._sinks:
            sink.write(frame, _NOTHING)

    def _compose(self) -> Image:
        """A picture of its own, for a sink may keep it."""
        for feed, tile in enumerate(self._tiles):
            if tile.is_new:
                self._canvas[self._grid.area(feed)] = tile.image
                tile.is_new = False
        return self._canvas.copy()


class WallIfLive(Sink):
    """A window, page or address for the pictures of one source, which may turn out to be live only once it is open.

    A live one goes through a wall of its own, so that outages are told over its last picture; a recording or images
    are passed on to `sink` as they come. `name` is safe to print, `availability` the source's.
    """

    def __init__(self, sink: Sink, name: str, availability: Availability | None) -> None:
        self._sink = sink
        self._name = name
        self._availability = availability
        self._wall: Tiles | None = None

    def open(self, info: SourceInfo) -> None:
        if info.is_live:
            self._wall = Tiles([self._name], [self._sink], availabilities=[self._availability], size=info.size)
            self._wall.open()
        else:
            self._sink.open(info)

    def write(self, frame: Frame, detections: Detections) -> None:
        if self._wall is not None:
            self._wall.show(0, frame)
        else:
            self._sink.write(frame, detections)

    def close(self, outcome: Outcome) -> None:
        (self._wall or self._sink).close(outcome)

    def wants_stop(self) -> bool:
        """As of the sink; being asked, it also says why a live source is away."""
        if self._wall is not None:
            self._wall.tick()
        return (self._wall or self._sink).wants_stop()

    def holds(self) -> bool:
        return (self._wall or self._sink).holds()


@dataclass(frozen=True, slots=True)
class Grid:
    """Where tiles are: `columns` x `rows` of `tile` (width, height), all even, filled row by row from the top left."""

    columns: int
    rows: int
    tile: tuple[int, int]

    @classmethod
    def of(cls, count: int) -> Grid:
        """The grid whose tiles, in proportions of 16:9, are largest; among equals the one with fewest empty tiles."""
        grids = (cls._with(columns, count) for columns in range(1, count + 1))
        return max(grids, key=lambda grid: (grid.tile, -grid.columns * grid.rows, grid.columns))

    @classmethod
    def _with(cls, columns: int, count: int) -> Grid:
        rows = math.ceil(count / columns)
        width = min(LARGEST[0] // columns, LARGEST[1] // rows * 16 // 9) // 2 * 2
        return cls(columns, rows, (width, width * 9 // 16 // 2 * 2))

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the whole."""
        return self.columns * self.tile[0], self.rows * self.tile[1]

    def area(self, number: int) -> tuple[slice, slice]:
        """Rows and columns of pixels of the tile `number`, from 0."""
        row, column = divmod(number, self.columns)
        width, height = self.tile
        return slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width)


class _Tile:
    """What is to be seen of one feed: `image`, whether it `is_new`, and whether the last picture `is_still`."""

    def __init__(self, size: tuple[int, int], name: str, letters: int) -> None:
        self._name = name
        self._letters = letters
        self._dimmed: Image | None = np.zeros((size[1], size[0], 3), np.uint8)
        self._lines: tuple[str, ...] = ()
        self.image = self._dimmed
        self.is_new = True
        self.is_still = False
        self.say(_CONNECTING)

    def put(self, picture: Frame) -> None:
        """Show a picture."""
        self.image = picture.image
        self.is_new = True
        self.is_still = picture.is_still
        self._dimmed = None
        self._lines = ()

    def say(self, lines: tuple[str, ...]) -> bool:
        """Write `lines` over the last picture until the next one; return whether they are new."""
        if lines == self._lines:
            return False
        if self._dimmed is None:
            self._dimmed = dimmed(self.image)
        self._lines = lines
        self.image = self._dimmed.copy()
        if self._name:
            caption(self.image, self._name, self._letters)
        announce(self.image, lines)
        self.is_new = True
        return True


class _LiveTimes:
    """When pictures of live feeds are due, and their times: seconds since `begin`, always growing."""

    def __init__(self, least: Fraction, clock: Callable[[], float]) -> None:
        self._least = least
        self._clock = clock
        self._began = 0.0
        self._last: Fraction | None = None
        self._due = Fraction(0)

    def begin(self) -> None:
        self._began = self._clock()

    def now(self) -> Fraction:
        return round((self._clock() - self._began) / _LIVE_TICK) * _LIVE_TICK

    def next(self) -> Fraction:
        """The time of a picture that is written now."""
        now = self.now()
        # From when it was due, lest the delays add up; from now after a pause.
        self._due = (self._due if now - self._due < self._least else now) + self._least
        self._last = now if self._last is None else max(now, self._last + _LIVE_TICK)
        return self._last

    def wait(self, changed: bool) -> float:
        """Seconds until a picture is due, with something new in it or without; 0 if it is."""
        if self._last is None:
            return 0.0
        due = self._due if changed else self._last + MOST_SECONDS
        return max(0.0, float(due - self.now()))


class _Limit:
    """Lets `LEAST_RECORDED_SECONDS` pass between two pictures, on the average."""

    def __init__(self) -> None:
        self._due: Fraction | None = None

    def allows(self, pts: Fraction) -> bool:
        """Whether the picture of `pts` may come, which then counts. Times must grow."""
        if self._due is not None and pts < self._due - _AHEAD:
            return False
        self._due = max(self._due or pts, pts) + LEAST_RECORDED_SECONDS
        return True


def fitted(frame: Frame, detections: Detections, size: tuple[int, int]) -> tuple[Frame, Detections]:
    """Return both scaled to `size` (width, height), the frame in the middle between black bars if need be."""
    width, height = Letterbox(frame.size, size).valid
    place = Placement(frame.size, (width, height), ((size[0] - width) // 2, (size[1] - height) // 2))
    image = between_bars(resize_quickly(frame.image, (width, height)), size)
    boxes = place.to_canvas(detections.boxes)
    # Lines and the edges of regions are cut off where the picture ends: beyond it are the bars.
    lines = []
    for line in detections.lines:
        seen = part_within(line.start, line.end, frame.size)
        ends = _NOWHERE if seen is None else place.to_canvas(np.array((*seen[0], *seen[1]), np.float32)).tolist()
        x1, y1, x2, y2 = ends
        lines.append(dataclasses.replace(line, start=(x1, y1), end=(x2, y2)))
    regions: list[NDArray[np.float32]] = []
    for corners in detections.regions:
        scaled = (corners * np.divide(place.inner, frame.size)).astype(np.float32)
        regions.append((edges_within(scaled, place.inner) + np.array(place.corner)).astype(np.float32))
    detections = dataclasses.replace(detections, boxes=boxes, lines=tuple(lines), regions=tuple(regions))
    return frame.with_image(image), detections


def _ending(error: BaseException | None) -> tuple[str, ...]:
    """How a feed ended, as lines. Never the message of an error: it may be long, and says more than a screen should."""
    if error is None:
        return ("ended",)
    if isinstance(error, SourceError) and error.reason is not Reason.OTHER:
        return ("failed", error.reason)
    return ("failed",)


def _away(outage: Outage, now: float) -> tuple[str, ...]:
    """Since when a feed has been away, and when it is tried again, as lines."""
    due = 0 if outage.retry_at is None else math.ceil(outage.retry_at - now)
    retry = f"in {_span(due)}" if due > 0 else "now"
    return f"no picture: {outage.reason}", f"for {_span(max(0, int(now - outage.began)))}, trying again {retry}"


def _span(seconds: int) -> str:
    """A time in at most two units: 12 s, 3 min 20 s, 5 h 2 min, 2 d 7 h."""
    for unit, length, part, share in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= length:
            rest = seconds % length // share
            return f"{seconds // length} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{seconds} s"
