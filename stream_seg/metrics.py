"""What a run measures of itself: rates, latencies, busy shares, counts. The clock is an argument everywhere.

Memory stays flat however long a run lasts: latencies go into a histogram of fixed size.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass

Clock = Callable[[], float]

STAGES = ("capture", "segment", "render", "deliver")
RECENT = 30
"""How many frames the latency of the status line looks back on."""


class RateMeter:
    """Events per second over the last `window` seconds; falls to zero when events stop.

    One thread ticks; any thread may read.
    """

    def __init__(self, window: float = 2.0, clock: Clock = time.monotonic) -> None:
        self._window = window
        self._clock = clock
        self._times: deque[float] = deque()

    def tick(self) -> None:
        """Count one event, now."""
        now = self._clock()
        self._times.append(now)
        while self._times[0] < now - self._window:
            self._times.popleft()

    @property
    def per_second(self) -> float:
        """The present rate in events per second."""
        oldest = self._clock() - self._window
        times = [moment for moment in tuple(self._times) if moment >= oldest]
        if len(times) < 2 or times[-1] == times[0]:
            return 0.0
        # N ticks span N - 1 intervals.
        return (len(times) - 1) / (times[-1] - times[0])


class Histogram:
    """Quantiles of positive durations to within 1 %, from 10 microseconds to about 3 hours, in fixed memory."""

    _SMALLEST = 1e-5
    _GROWTH = math.log(1.02)
    _BUCKETS = 1 + math.ceil(math.log(1e4 / _SMALLEST) / _GROWTH)

    def __init__(self) -> None:
        self._counts = [0] * self._BUCKETS
        self.count = 0

    def add(self, seconds: float) -> None:
        """Count one duration in seconds."""
        bucket = int(math.log(max(seconds, self._SMALLEST) / self._SMALLEST) / self._GROWTH)
        self._counts[min(bucket, self._BUCKETS - 1)] += 1
        self.count += 1

    def quantile(self, share: float) -> float | None:
        """The duration in seconds that `share` (0..1) of all stay below or at; None before the first."""
        if not self.count:
            return None
        rank = max(1, math.ceil(share * self.count))
        bucket = next(i for i, seen in enumerate(itertools.accumulate(self._counts)) if seen >= rank)
        # The middle of the bucket, in the logarithm.
        return self._SMALLEST * math.exp((bucket + 0.5) * self._GROWTH)


class Stage:
    """How long one stage has worked, as opposed to waited. A context manager round each piece of work."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.busy = 0.0
        self._since = 0.0

    def __enter__(self) -> None:
        self._since = self.clock()

    def __exit__(self, *_: object) -> None:
        self.busy += self.clock() - self._since


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one run; `as_dict` gives the keys of `--metrics` (docs/metrics.md).

    `seconds` from the moment the model was warm to the last delivery; `fps` is `delivered / seconds`. Latencies run
    from capture to the end of delivery, in seconds. `busy` is each stage's share of `seconds`; a live source's capture
    counts processor time, for it mostly waits for the camera. `limited_by` is a stage, or "source" where a live source
    was kept up with. `mean_batch` is how many frames a call of the segmenter got.
    """

    captured: int
    delivered: int
    dropped: int
    seconds: float
    fps: float
    latency_p50: float | None
    latency_p95: float | None
    latency_p99: float | None
    busy: dict[str, float]
    limited_by: str
    mean_batch: float
    objects: int

    def as_dict(self) -> dict[str, object]:
        """A JSON-able dict."""
        return asdict(self)


class Metrics:
    """The counters of a running pipeline. Each is written by one thread; any thread may read."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self.stages = {name: Stage(clock) for name in STAGES}
        self.captured = 0
        self.dropped = 0
        self.delivered = 0
        self.batches = 0
        self.segmented = 0
        self.objects = 0
        self.is_live = False
        self._latencies = Histogram()
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._rate = RateMeter(clock=clock)
        self._started: float | None = None
        self._last = 0.0

    def source_is_live(self) -> None:
        """Count capture's processor time instead of its waiting. Called by the capturing thread, once it knows."""
        self.is_live = True
        self.stages["capture"].clock = time.thread_time

    def start(self) -> None:
        """The segmenter is warm: time counts from here."""
        self._started = self._clock()

    def batch_segmented(self, frames: int, objects: int, seconds: float) -> None:
        """Count one call of the segmenter, and how long it kept the stage busy."""
        self.stages["segment"].busy += seconds
        self.batches += 1
        self.segmented += frames
        self.objects += objects

    def frame_delivered(self, captured_at: float) -> None:
        """Count one frame that every sink has taken."""
        now = self._clock()
        self.delivered += 1
        self._last = now
        self._latencies.add(now - captured_at)
        self._recent.append(now - captured_at)
        self._rate.tick()

    @property
    def fps(self) -> float:
        """Frames delivered per second over the last moments."""
        return self._rate.per_second

    @property
    def latency(self) -> float | None:
        """The median latency of the last frames in seconds, capture to delivery."""
        recent = sorted(self._recent.copy())  # a copy: the delivering thread may append meanwhile
        return recent[len(recent) // 2] if recent else None

    def status(self) -> str:
        """The status line of live pictures."""
        latency = self.latency
        delay = "" if latency is None else f"  {latency * 1000:.0f} ms"
        return f"{self.fps:.1f} fps{delay}  {self.dropped} dropped"

    def summary(self) -> Summary:
        """The figures up to now."""
        seconds = max(self._last - self._started, 0.0) if self._started is not None else 0.0
        busy = {name: stage.busy / seconds if seconds else 0.0 for name, stage in self.stages.items()}
        return Summary(
            captured=self.captured,
            delivered=self.delivered,
            dropped=self.dropped,
            seconds=seconds,
            fps=self.delivered / seconds if seconds else 0.0,
            latency_p50=self._latencies.quantile(0.50),
            latency_p95=self._latencies.quantile(0.95),
            latency_p99=self._latencies.quantile(0.99),
            busy=busy,
            limited_by=self._limit(busy),
            mean_batch=self.segmented / self.batches if self.batches else 0.0,
            objects=self.objects,
        )

    def _limit(self, busy: dict[str, float]) -> str:
        # A live run drops some frames while it starts; it keeps up if it drops hardly any.
        if self.is_live and self.dropped <= self.captured / 50:
            return "source"
        return max(busy, key=lambda name: busy[name])
