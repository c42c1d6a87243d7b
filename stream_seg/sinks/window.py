"""Window: rendered frames on the screen."""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction

import cv2

from stream_seg.detections import Detections
from stream_seg.errors import DisplayError
from stream_seg.frame import Frame, Image, SourceInfo
from stream_seg.pace import Pace
from stream_seg.protocols import Outcome, Sink
from stream_seg.sinks.display import display_is_gone, require_display

_ESCAPE, _SPACE = 27, 32

_MODIFIERS = (*range(0xFFE1, 0xFFEF), 0xFE03, 0xFF7F)
"""Keysyms of X11: Shift, Control, Alt and the like, AltGr, Num Lock. Pressed alone they are no key."""

_SCREEN_SHARE = Fraction(4, 5)
"""How much of the screen a window may take at first."""

_ASSUMED_SCREEN = (1600, 900)

_PUMP_SECONDS = 0.01
"""The least time between two looks at the window's events: each costs a millisecond."""

_WAIT_SECONDS = 0.05
"""The longest that `holds` waits."""


class Window(Sink):
    """Shows frames in a window of the desktop: q, Esc or its close button end the run, space pauses.

    A paused window of a live source shows nothing newer, and holds up nothing else that its frames are for. With
    `paced`, a recording is not shown faster than it was taken. Images (`SourceInfo.kind` "images") and stills stay
    until a key is pressed, also the last one, unless the images are a film. The window lives on the thread that makes
    calls to it, which on macOS must be the main thread. `clock` gives seconds.

    Raises `DisplayError` from the constructor when no window can be opened. A display that goes away ends the run, too:
    `close` raises it then, when everything else can be finished.
    """

    def __init__(
        self, title: str = "stream-seg", *, paced: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._title = title
        self._clock = clock
        self._wants_pace = paced
        self._pace: Pace | None = None
        self._screen = require_display() or _ASSUMED_SCREEN
        self._shows_images = False
        self._is_live = False
        self._start()

    def _start(self) -> None:
        """Begin without a window: a sink may be given to one run after the other."""
        self._image_size: tuple[int, int] | None = None
        self._waiting: Frame | None = None
        self._shows_still = False
        self._looking = False
        self._paused = False
        self._ended = False
        self._is_open = False
        self._is_lost = False
        self._pumped_at = -1.0

    def __str__(self) -> str:
        return "a window"

    def open(self, info: SourceInfo) -> None:
        self._shows_images = info.has_stills
        self._is_live = info.is_live
        self._pace = Pace() if self._wants_pace and info.has_pace else None

    def write(self, frame: Frame, detections: Detections) -> None:  # noqa: ARG002  the pictures show them
        """Show the frame, or keep it until it is due."""
        if self._ended:
            return
        self._looking = self._shows_still = self._shows_images or frame.is_still
        self._waiting = frame
        self._show_if_due()

    def wants_stop(self) -> bool:
        """Whether q or Esc was pressed or the window closed."""
        if self._is_open and self._clock() - self._pumped_at >= _PUMP_SECONDS:
            self._pump(0.001)
        return self._ended

    def holds(self) -> bool:
        """Whether a frame is not due yet, an image is being looked at, or the window of a recording is paused."""
        if self._is_busy():
            self._pump(min(_WAIT_SECONDS, self._time_to_wait()))
            self._show_if_due()
        return self._is_busy()

    def close(self, outcome: Outcome) -> None:  # noqa: ARG002  the window goes either way
        is_lost, was_open = self._has_lost_display(), self._is_open
        self._start()  # now, for the next run asks whether to stop before it opens its sinks
        if is_lost:
            raise DisplayError("the window was lost: its display has gone away; run with --no-show")
        if was_open:
            _destroy(self._title)

    def _is_busy(self) -> bool:
        if self._ended or self._is_live:
            return False
        return self._paused or self._looking or self._waiting is not None

    def _time_to_wait(self) -> float:
        if self._waiting is None or self._pace is None or self._paused:
            return _WAIT_SECONDS
        return self._pace.wait(self._waiting.pts, self._clock())

    def _show_if_due(self) -> None:
        frame = self._waiting
        if frame is None or self._paused or self._ended:
            return
        if self._pace is None or not self._pace.wait(frame.pts, self._clock()):
            self._waiting = None
            self._show(frame.image)

    def _has_lost_display(self) -> bool:
        """Whether the display has gone, which is the end; nothing must be asked of OpenCV then."""
        if self._is_open and not self._is_lost and display_is_gone():
            self._ended = self._is_lost = True
        return self._is_lost

    def _show(self, image: Image) -> None:
        size = image.shape[1], image.shape[0]
        if not self._is_open:
            if display_is_gone():
                raise DisplayError("no window can be opened: the display has gone away; run with --no-show")
            _create(self._title)
            self._is_open = True
        if size != self._image_size:
            self._image_size = size
            cv2.resizeWindow(self._title, *fitting(size, self._screen))
        cv2.imshow(self._title, image)

    def _pump(self, seconds: float) -> None:
        """Let the window draw itself and react, for so long or until a key is pressed."""
        if not self._is_open:  # not shown yet, so nothing to react to
            time.sleep(seconds)
            return
        if self._has_lost_display():
            return
        # Not `waitKey`, which cuts keysyms to a byte: the left arrow would be a Q. What is above are states (GTK).
        key = cv2.waitKeyEx(max(1, round(seconds * 1000)))
        key = -1 if key < 0 or key & 0xFFFF in _MODIFIERS else key & 0xFFFF
        self._pumped_at = self._clock()
        if key in (_ESCAPE, ord("q"), ord("Q")) or not _is_visible(self._title):
            self._ended = True
        elif key >= 0:
            self._pressed(key)

    def _pressed(self, key: int) -> None:
        if self._shows_still:
            self._looking = False
        elif key == _SPACE:
            self._paused = not self._paused
            if self._pace is not None:
                self._pace = Pace()  # the next frame is due at once


def fitting(size: tuple[int, int], screen: tuple[int, int]) -> tuple[int, int]:
    """The (width, height) at which an image fits the screen, its proportions kept; its own if that fits."""
    scale = min(Fraction(1), *(screen[i] * _SCREEN_SHARE / size[i] for i in (0, 1)))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _create(title: str) -> None:
    try:
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
    except cv2.error as error:
        raise DisplayError(f"no window can be opened: {error.err}; run with --no-show") from error


def _destroy(title: str) -> None:
    if _is_visible(title):
        cv2.destroyWindow(title)
        cv2.waitKey(1)  # without events to handle, some desktops leave it standing


def _is_visible(title: str) -> bool:
    try:
        return cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1
    except cv2.error:  # what OpenCV does once the last window is closed
        return False
