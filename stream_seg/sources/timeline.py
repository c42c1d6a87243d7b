"""Timeline: the time stamps a container gives its frames, made strictly increasing."""

from __future__ import annotations

import logging
from fractions import Fraction
from math import gcd, lcm

from stream_seg.errors import UsageError

logger = logging.getLogger(__name__)

UNKNOWN_RATE = Fraction(25)
"""Only for spacing the frames of a file that has neither time stamps nor a frame rate (a raw bitstream)."""

LARGEST_RATE = 1000
"""A declared frame rate above this is a clock (90000), not a rate."""

LARGEST_DENOMINATOR = 2**31 - 1
"""What FFmpeg, and so every encoder, can count a time base in."""


FASTEST = 10_000
"""Frames per second that can be asked for."""

FINEST = 100_000
"""The largest denominator of a rate asked for, with which those up to `FASTEST` fit an encoder's time base."""


def known_rate(rate: Fraction | None) -> Fraction | None:
    """Return the declared frame rate if it can be one, else None (0, absent, or a clock rate such as 90000)."""
    return rate if rate and 0 < rate <= LARGEST_RATE else None


def meant_rate(name: str, rate: Fraction) -> Fraction:
    """Return the frame rate that a decimal number means: 24000/1001 for 23.976024, else nearly what it says.

    Three decimals as in 29.97 stay as they are. Raises `UsageError` for a rate that is 0, almost 0, or too high.
    """
    television = Fraction(1000 * round(rate * 1001 / 1000), 1001)
    is_television = abs(rate - television) < television / 2_000_000  # 29.97 is twice as far off
    meant = television if is_television else rate.limit_denominator(FINEST)
    if not 0 < meant <= FASTEST:
        raise UsageError(f"{name} must be more than 0: {1 / FINEST:.5f} to {FASTEST} a second, got {float(rate):g}")
    return meant


class Timeline:
    """Exact presentation times in seconds, strictly increasing, from ticks that may be missing or run backwards.

    `tick` is the unit of the stream's time stamps, `origin` the time that becomes 0, both in seconds. `rate` spaces
    frames that have no time stamp, by `step` ticks. What is repaired:

    * no time stamp, or one that is not after the frame before: the decode time, if that is after it;
    * else, for a missing one, a frame's duration later; for a repeated one, half of that, so that the next is right;
    * a jump backwards of more than a second (recordings glued together): all that follows is moved to go on from here.

    Of one that is damaged only the next tells: whoever has that asks `strays` before, and calls it missing.
    """

    def __init__(self, tick: Fraction, origin: Fraction, rate: Fraction | None) -> None:
        self._tick = tick
        self._origin = origin
        self.step = max(1, round(1 / ((rate or UNKNOWN_RATE) * tick)))
        self._second = round(1 / tick)
        self._shift = 0
        self._last = -(-origin // tick) - 1
        self._started = False
        self.repaired = 0

    @property
    def unit(self) -> Fraction:
        """A unit that every time returned is a whole multiple of."""
        tick, origin = self._tick, self._origin
        return Fraction(gcd(tick.numerator, origin.numerator), lcm(tick.denominator, origin.denominator))

    @property
    def jumped(self) -> bool:
        """Whether time stamps jumped back, so that one may stand for several pictures."""
        return self._shift != 0

    def jumps(self, before: float, ticks: float) -> bool:
        """Whether a raw time stamp lies so far before the last one that another recording begins."""
        return before - ticks > self._second

    def leaps(self, ticks: int) -> bool:
        """Whether a raw time stamp lies more than a second from the last frame, before or after it."""
        return self._started and abs(ticks + self._shift - self._last) > self._second

    def strays(self, ticks: int, following: int) -> bool:
        """Whether a raw time stamp leaps, and the one that comes after it goes on from the last frame as if it did not.

        So does one of which a bit was flipped on its way, as in broadcasts. Three that come in order may be far apart.
        """
        stamp, after = ticks + self._shift, following + self._shift
        is_in_order = self._last < stamp <= after
        return self.leaps(ticks) and not is_in_order and 0 < after - self._last <= self._second + 2 * self.step

    def at(self, ticks: int) -> Fraction:
        """Return the time of a raw time stamp, in seconds since the origin."""
        return ticks * self._tick - self._origin

    def ticks(self, seconds: Fraction) -> int:
        """Return the last raw time stamp at or before `seconds`."""
        return int((seconds + self._origin) // self._tick)

    def restart(self, ticks: int) -> None:
        """Go on from a frame with this raw time stamp, after a seek."""
        self._last, self._shift = ticks - 1, 0

    def next(self, pts: int | None, dts: int | None) -> Fraction:
        """Return the presentation time of the next frame in seconds."""
        self._last = self._increasing(pts, dts)
        self._started = True
        return self.at(self._last)

    def _increasing(self, pts: int | None, dts: int | None) -> int:
        for stamp in (pts, dts):
            if stamp is not None and stamp + self._shift > self._last:
                return stamp + self._shift
        self.repaired += 1
        if pts is None:
            return self._last + (self.step if self._started else 1)
        if self.jumps(self._last, pts + self._shift):
            self._shift = self._last + self.step - pts
            logger.debug("time stamps jump back to %.3f s; going on without the jump", float(self.at(pts)))
            return self._last + self.step
        return self._last + max(1, self.step // 2)


def exact_origin(start: Fraction | None, starts: list[Fraction], tick: Fraction) -> Fraction:
    """Return the time that becomes 0: the container's start, exactly, as something `tick` shares a small unit with.

    `start` is the container's, rounded to microseconds by FFmpeg; `starts` are those of its streams, one of which is
    the exact value. With an unlucky pair of units the origin is rounded down to a whole tick.
    """
    if start is None:
        return Fraction(0)
    exact = min(starts, key=lambda time: abs(time - start), default=start)
    origin = exact if abs(exact - start) <= Fraction(1, 10**6) else start
    if lcm(origin.denominator, tick.denominator) > LARGEST_DENOMINATOR:
        return origin // tick * tick
    return origin
