"""Screen: what is to be seen on an X11 display, or in a part of it."""

from __future__ import annotations

import functools
import itertools
import logging
import math
import os
import re
import sys
import time
from collections.abc import Iterator
from fractions import Fraction

from stream_seg.addresses.failures import words_of
from stream_seg.errors import Reason, SourceError, UsageError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.sources.clock import CLOCK, LiveClock
from stream_seg.sources.container import no_answer
from stream_seg.sources.network import OPEN_TIMEOUT, stalled
from stream_seg.sources.stoppable import Stoppable
from stream_seg.sources.x11 import X11, Part, RequestError

logger = logging.getLogger(__name__)

DEFAULT_RATE = Fraction(30)

_SPEC = re.compile(r"screen(?::(\d{1,5})x(\d{1,5})(?:\+(\d{1,5})\+(\d{1,5}))?)?")


class Screen(Stoppable):
    """Pictures of the screen of $DISPLAY, or of the `part` (x, y, width, height) of it in pixels, without the pointer.

    There are `fps` of them a second, with times from the clock, beginning with 0. Those that come too late to be taken,
    as while the process is stopped, are left out. The server is given `timeout` seconds to answer.

    Raises `UsageError` for a part that is none, and `SourceError` where there is no X11 display; inside `with` also for
    one that cannot be reached, has no such part or goes away.
    """

    def __init__(
        self, part: Part | None = None, *, fps: float | Fraction = DEFAULT_RATE, timeout: float = OPEN_TIMEOUT
    ) -> None:
        if part is not None and (min(part) < 0 or min(part[2:]) < 1):
            raise UsageError(f"a part of a screen is x, y, width and height from its upper left corner, got {part}")
        super().__init__("screen" if part is None else f"screen {_words(part)}")
        self._display = display_name()
        self._part = part
        self._rate = Fraction(fps)
        self._timeout = timeout
        self._server: X11 | None = None

    def __iter__(self) -> Iterator[Frame]:
        if self._server is None:
            raise RuntimeError("the source is not open; use it in a with block")
        clock = LiveClock()
        due = time.monotonic()
        for index in itertools.count():
            if self._stopping.wait(max(0.0, due - time.monotonic())):
                return
            captured_at = time.monotonic()
            due = max(due + float(1 / self._rate), captured_at)
            try:
                image = self._server.image(self._seen)
            except TimeoutError:
                raise stalled(self.name, self._timeout) from None
            except OSError:
                raise SourceError(
                    f"{self.name} sends no more pictures: the display {self._display} has gone away", Reason.UNPLUGGED
                ) from None
            except RequestError as error:
                raise SourceError(
                    f"{self.name} cannot be seen any more ({error}); is the screen smaller now?", Reason.NOT_FOUND
                ) from None
            yield Frame(image, index, clock.pts(captured_at), captured_at)

    def _open(self) -> None:
        try:
            self._server = X11(self._display, self._timeout)
        except TimeoutError:
            raise no_answer(self.name, self._timeout) from None
        except (OSError, RequestError, NotImplementedError) as error:
            why = words_of(error) if isinstance(error, OSError) else str(error)
            raise SourceError(
                f"cannot capture the {self.name}: the display {self._display} (DISPLAY) cannot be read: {why}",
                _reason_of(error),
            ) from None
        width, height = self._server.size
        x, y, *size = self._seen = self._part or (0, 0, width, height)
        if x + size[0] > width or y + size[1] > height:
            raise SourceError(
                f"cannot capture the {self.name}: it reaches beyond the screen, which is {width}x{height}",
                Reason.NOT_FOUND,
            )
        self._info = SourceInfo(self.name, (size[0], size[1]), "live", self._rate, time_base=Fraction(1, CLOCK))

    def _release(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


def is_screen(spec: str | int) -> bool:
    """Whether a source is asked for by this name."""
    return str(spec) == "screen" or str(spec).startswith("screen:")


def parse_screen(spec: str) -> Part | None:
    """The part of the screen that `screen[:WxH[+X+Y]]` names, None for all of it. Raises `UsageError` for others."""
    match = _SPEC.fullmatch(spec)
    width, height, x, y = (int(number or 0) for number in match.groups()) if match else (0, 0, 0, 0)
    if match is None or (match[1] and not (width and height)):
        raise UsageError(
            f"'{spec.partition(':')[2]}' is no part of a screen; write WIDTHxHEIGHT+X+Y, as in 1280x720+100+50"
        )
    return (x, y, width, height) if width else None


def display_name() -> str:
    """What $DISPLAY says. Raises `SourceError` where that is nothing, or X11 is not what draws the screen."""
    if sys.platform in ("win32", "darwin"):
        raise SourceError("cannot capture the screen: that is for X11, on Linux, alone", Reason.NOT_FOUND)
    name, on_wayland = os.environ.get("DISPLAY"), bool(os.environ.get("WAYLAND_DISPLAY"))
    if not name:
        why = (
            "; this is a Wayland session, and only X11 can be captured"
            if on_wayland
            else "; write DISPLAY=:0 for this machine's"
        )
        raise SourceError(f"cannot capture the screen: there is no display (DISPLAY not set){why}", Reason.NOT_FOUND)
    if on_wayland:
        _warn_of_wayland()
    return name


@functools.cache  # once, and not with each reconnection
def _warn_of_wayland() -> None:
    logger.warning("this is a Wayland session: on its screen only windows of X11 programs are seen, the rest is black")


def grab_rate(most: Fraction | None, stall_timeout: float) -> Fraction:
    """How many pictures a second to capture where `most` are used, by default `DEFAULT_RATE`.

    So many, or a multiple: seconds apart, they would be taken for stalled.
    """
    rate = DEFAULT_RATE if most is None else most
    return rate * max(1, math.ceil(2 / (stall_timeout * float(rate))))


def _reason_of(error: Exception) -> Reason:
    if isinstance(error, NotImplementedError):
        return Reason.CODEC
    return Reason.REFUSED if isinstance(error, PermissionError | ConnectionRefusedError) else Reason.NOT_FOUND


def _words(part: Part) -> str:
    x, y, width, height = part
    return f"{width}x{height}+{x}+{y}"
