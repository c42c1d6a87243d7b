"""What the user sees while a command works: log lines, progress bars, what was found in each image."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from tqdm import tqdm

from stream_seg.cli.output import tell_beside_bars
from stream_seg.columns import legible, legible_name
from stream_seg.detections import Detections
from stream_seg.frame import Frame, SourceInfo
from stream_seg.metrics import Metrics
from stream_seg.protocols import Outcome, Sink

logger = logging.getLogger(__name__)

LINE_SECONDS = 60.0
"""How often the figures are logged where there is no bar to show them."""


class Bar(tqdm):  # type: ignore[type-arg]  # generic in its stubs only
    """A progress bar on standard error that iterates nothing and has no thread."""

    monitor_interval = 0

    def reach(self, done: int, total: int | None) -> None:
        """Draw so much of a whole, whose size may be told only now."""
        self.total = total
        self.update(done - self.n)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # a full disk or a reader that has gone: a run of days must not end for a line
            # Through tqdm, so that a line does not tear the bar.
            tqdm.write(f"stream-seg: {legible(self.format(record))}", file=sys.stderr)


def set_up_logging(*, quiet: bool, verbose: bool) -> None:
    """Send the package's log to standard error: notes by default, warnings if quiet, all if verbose."""
    package = logging.getLogger("stream_seg")
    package.handlers = [_Handler()]
    package.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)
    package.propagate = False


class Progress(Sink):
    """A progress bar over all sources: with an ETA for recordings, with the present rate and drops for live ones.

    Of `films` that come one after the other it tells which it is, and its length is that of all from the beginning on.
    Where no terminal shows it, a line of the log (`--verbose`) tells the figures every minute, also of those without a
    frame.
    """

    wants_pictures = False

    def __init__(
        self, metrics: Metrics, films: Sequence[SourceInfo] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._metrics = metrics
        self._films = films
        self._turn = 0
        self._clock = clock
        self._told: float | None = None  # when the run had begun, or the last line was due
        self._told_frames = 0
        self._bar: Bar | None = None
        self._left = len(metrics.feeds)

    def open(self, info: SourceInfo) -> None:
        if self._bar is None:
            # disable=None: no bar where standard error is not a terminal.
            self._bar = Bar(total=0, unit="frame", disable=None, smoothing=0.1, dynamic_ncols=True)
        if self._films:
            self._begin_film(self._bar, info)
            return
        total = self._bar.total
        self._bar.total = None if total is None or info.frame_count is None else total + info.frame_count

    def _begin_film(self, bar: Bar, info: SourceInfo) -> None:
        """Those before it had as many frames as came, whatever they promised."""
        while self._films[self._turn].name != info.name:  # one that cannot be read
            self._turn += 1
        self._turn += 1
        counts = [info.frame_count, *(film.frame_count for film in self._films[self._turn :])]
        bar.total = None if None in counts else bar.n + sum(count or 0 for count in counts)
        bar.set_description_str(f"{self._turn} of {len(self._films)}", refresh=False)

    def write(self, frame: Frame, detections: Detections) -> None:  # noqa: ARG002  it counts
        if self._bar is not None:
            if self._metrics.is_live:
                self._bar.set_postfix_str(self._metrics.status(), refresh=False)
            self._bar.update()

    def wants_stop(self) -> bool:
        """Never; it is asked often, though, which is when a minute is over."""
        now = self._clock()
        if self._told is None:  # not before: loading the model may have taken minutes
            self._told = now
        seconds = now - self._told
        if seconds >= LINE_SECONDS:
            if self._bar is None or self._bar.disable:
                self._log(seconds)
            self._told = now
            self._told_frames = self._metrics.delivered
        return False

    def _log(self, seconds: float) -> None:
        metrics = self._metrics
        frames = metrics.delivered - self._told_frames
        delay = f"; latency {metrics.latency * 1000:.0f} ms" if frames and metrics.latency is not None else ""
        counts = f"{metrics.captured} captured, {metrics.delivered} delivered, {metrics.dropped} dropped"
        rate = f"{frames / seconds:.1f} fps over {seconds:.0f} s"
        logger.debug("%s%s; in all %s; %d objects", rate, delay, counts, metrics.objects)

    def close(self, outcome: Outcome) -> None:  # noqa: ARG002  the bar ends alike
        self._left -= 1
        if self._bar is not None and not self._left:
            self._bar.close()


class Listing(Sink):
    """Prints what was found in each image, one line each; says nothing of video."""

    wants_pictures = False

    def write(self, frame: Frame, detections: Detections) -> None:
        if frame.name is not None:
            found = ", ".join(f"{n} {s:.2f}" for n, s in zip(detections.names, detections.scores, strict=True))
            tell_beside_bars(f"{legible_name(frame.name)}: {found or 'nothing found'}")


@contextmanager
def download_bar(*, quiet: bool) -> Iterator[Callable[[int, int | None], None]]:
    """A function that draws how much of a download is there; nothing is drawn before its first call."""
    bars: list[Bar] = []

    def progress(done: int, total: int | None) -> None:
        if not bars:
            bars.append(Bar(unit="B", unit_scale=True, unit_divisor=1000, disable=True if quiet else None))
        bars[0].reach(done, total)

    try:
        yield progress
    finally:
        for bar in bars:
            bar.close()
