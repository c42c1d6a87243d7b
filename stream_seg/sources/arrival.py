"""CaptureTimes: when a live picture was taken, as opposed to when it arrived."""

from __future__ import annotations

from collections import deque

WINDOW_SECONDS = 10.0


class CaptureTimes:
    """Estimates capture times from the time stamps of the sender and the moments of arrival, both in seconds.

    After a hiccup of the network a backlog arrives at once: pictures seconds old that look new. The sender's clock says
    how far apart they were taken, and the picture that was least delayed in the last `window` seconds counts as not
    delayed at all. The window lets a sender's clock drift, or the network be slower from some moment on. Time stamps
    that run backwards, or seem to be later than the window is long, belong to a new clock: it begins afresh.
    """

    def __init__(self, window: float = WINDOW_SECONDS) -> None:
        self._window = window
        self._least: deque[tuple[float, float]] = deque()  # (arrived, delay), both growing: the first is the smallest
        self._last_stamp = float("-inf")
        self._last_time = float("-inf")

    def taken_at(self, stamp: float | None, arrived: float) -> float:
        """Return when the picture was taken, on the clock of `arrived` and never after it; never runs backwards."""
        lateness = 0.0 if stamp is None else self._lateness(stamp, arrived)
        self._last_time = max(self._last_time, arrived - lateness)
        return self._last_time

    def _lateness(self, stamp: float, arrived: float) -> float:
        delay = arrived - stamp  # of unknown origin: only differences mean something
        if stamp <= self._last_stamp or (self._least and delay - self._least[0][1] > self._window):
            self._least.clear()
        self._last_stamp = stamp
        while self._least and self._least[-1][1] >= delay:
            self._least.pop()
        self._least.append((arrived, delay))
        while self._least[0][0] < arrived - self._window:
            self._least.popleft()
        return delay - self._least[0][1]
