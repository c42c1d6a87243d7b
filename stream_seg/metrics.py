"""What a run measures of itself: rates, latencies, busy shares, counts. The clock is an argument everywhere.

Memory stays flat however long a run lasts: latencies go into a histogram of fixed size.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from stream_seg.availability import Availability
from stream_seg.detections import Crossings

Clock = Callable[[], float]

STAGES = ("capture", "segment", "render", "deliver")
MISSED = "missed"
"""Why a live frame was dropped: its source had newer ones before anybody took it."""

RECENT = 30
"""How many frames the latency of the status line looks back on."""

KNOWN = 10_000
"""How many numbers of objects are remembered, those that were seen last, to count none twice: what comes back after so
many others were seen is another object, however it is numbered. About 2 MB."""


class RateMeter:
    """Events per second over the last `window` seconds, or of the last two where they are rarer than that.

    It falls to zero when events stop: when no two came in `window`, and none for twice as long as between the last two.
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
        while len(self._times) > 2 and self._times[0] < now - self._window:
            self._times.popleft()

    @property
    def per_second(self) -> float:
        """The present rate in events per second."""
        now, times = self._clock(), list(self._times)
        recent = [moment for moment in times if moment >= now - self._window]
        if len(recent) < 2 <= len(times) and now - times[-1] <= 2 * (times[-1] - times[-2]):
            recent = times[-2:]
        if len(recent) < 2 or recent[-1] == recent[0]:
            return 0.0
        # N ticks span N - 1 intervals.
        return (len(recent) - 1) / (recent[-1] - recent[0])


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


class Latencies:
    """Times from capture to delivery, in seconds: their quantiles over all frames, and the median of the last ones."""

    def __init__(self) -> None:
        self._all = Histogram()
        self._recent: deque[float] = deque(maxlen=RECENT)

    def add(self, seconds: float) -> None:
        """Count one frame."""
        self._all.add(seconds)
        self._recent.append(seconds)

    @property
    def recent(self) -> float | None:
        """The median of the last frames; None before the first."""
        recent = sorted(self._recent.copy())  # a copy: the delivering thread may append meanwhile
        return recent[len(recent) // 2] if recent else None

    def quantiles(self) -> tuple[float | None, float | None, float | None]:
        """p50, p95 and p99 of all frames."""
        return self._all.quantile(0.50), self._all.quantile(0.95), self._all.quantile(0.99)


class Distinct:
    """How many different objects there were of each class, by their numbers, in bounded memory (`KNOWN`)."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._known: OrderedDict[tuple[str, int], None] = OrderedDict()

    def add(self, names: Iterable[str], ids: Iterable[int]) -> None:
        """Count those of the objects in a frame, by name of class and number, that were not counted before."""
        for seen in zip(names, ids, strict=True):
            if seen in self._known:
                self._known.move_to_end(seen)
                continue
            self.counts[seen[0]] += 1
            self._known[seen] = None
            if len(self._known) > KNOWN:
                self._known.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Peak:
    """The most objects that stood in a region at one time: `most` of all classes together, `classes` of each."""

    most: int = 0
    classes: dict[str, int] = field(default_factory=dict)

    def updated(self, counts: Mapping[str, int]) -> Peak:
        """The same after another frame, in which so many of each class stand in it."""
        return Peak(max(self.most, sum(counts.values())), dict(Counter(self.classes) | Counter(counts)))


@dataclass(frozen=True, slots=True)
class FeedSummary:
    """The figures of one source in a run: those of `Summary`, and why frames were `dropped` and how often it was away.

    `unchanged` is how many frames the segmenter did not get, because they showed what the one before did.
    `damaged` is how many packets or files could not be read and were left out.
    `classes` counts the objects shown in all its frames by the names of their classes, most frequent first, `distinct`
    how many different ones these were by their numbers (`Detections.ids`), nothing where they have none. `lines` has
    for each line how many of each class crossed it, "in" and "out", `regions` for each region how many were in it at
    most, in one frame.
    `outages` counts by reason (`stream_seg.errors.Reason`), `seconds_away` is their length together; `error` is what
    ended the source for good, if anything did.
    """

    name: str
    live: bool
    captured: int
    delivered: int
    dropped: dict[str, int]
    unchanged: int
    damaged: int
    classes: dict[str, int]
    distinct: dict[str, int]
    lines: tuple[dict[str, dict[str, int]], ...]
    regions: tuple[Peak, ...]
    fps: float
    latency_p50: float | None
    latency_p95: float | None
    latency_p99: float | None
    outages: dict[str, int]
    seconds_away: float
    error: str | None


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one run; `as_dict` gives the keys of `--metrics` (docs/metrics.md).

    `seconds` from the moment the model was warm to the last delivery; `fps` is `delivered / seconds`. Latencies run
    from capture to the end of delivery, in seconds. `busy` is each stage's share of `seconds`, of several sources the
    busiest one's; a live source's capture counts processor time, for it mostly waits for the camera. `limited_by` is a
    stage, or "source" where live sources were kept up with. `mean_batch` is how many frames a call of the segmenter
    got. `objects` is how many were shown in all frames together, `classes` how many of each class, most frequent first.
    `distinct` is how many different ones of each class there were, by their numbers, of each source by itself; nothing
    where objects have none. `feeds` has the same for each source.
    """

    captured: int
    delivered: int
    dropped: int
    unchanged: int
    seconds: float
    fps: float
    latency_p50: float | None
    latency_p95: float | None
    latency_p99: float | None
    busy: dict[str, float]
    limited_by: str
    mean_batch: float
    objects: int
    classes: dict[str, int]
    distinct: dict[str, int]
    feeds: tuple[FeedSummary, ...]

    def as_dict(self) -> dict[str, object]:
        """A JSON-able dict."""
        return asdict(self)


class FeedMetrics:
    """The counters of one source. Each is written by one thread; any thread may read."""

    def __init__(self, name: str, clock: Clock = time.monotonic) -> None:
        self.name = name
        self.capture = Stage(clock)
        self.captured = 0
        self.delivered = 0
        self.dropped: Counter[str] = Counter()
        self.dropped_at_start = 0
        """Those that a live run drops before its first frame is through, however fast it is."""
        self.unchanged = 0
        self.classes: Counter[str] = Counter()
        self.distinct = Distinct()
        self.lines: Sequence[Crossings] = ()
        """Those of the newest frame that was delivered, which have the counts of all."""
        self.regions: Sequence[Peak] = ()
        self.is_live = False
        self.availability: Availability | None = None
        self.source: object = None
        """What is asked for the figures that it counts by itself: `damaged`, `worked` of a live one, else `waited`."""
        self.error: BaseException | None = None
        self.latencies = Latencies()
        self._clock = clock
        self._rate = RateMeter(clock=clock)
        self._began = 0.0
        self.last_delivery = 0.0
        self._worked_before = 0.0

    def begin(self) -> None:
        """Its source is opened now: from here counts the time of one that has waited for its turn."""
        self._began = self._clock()

    def start(self) -> None:
        """Time counts from here, and so does the work: the first frames were had while the model was loaded."""
        self._began = self._clock()
        self._worked_before = self.capture.busy + self._worked

    @property
    def busy(self) -> float:
        """The seconds that capture worked since `start`: of a live source those of its own threads, which decode, too.

        A recording's are the caller's alone, who waits meanwhile, but for those in which frames were not due yet.
        """
        return self.capture.busy + self._worked - self._worked_before

    @property
    def _worked(self) -> float:
        """What is to be added to the capturing thread's seconds."""
        return getattr(self.source, "worked", 0.0) if self.is_live else -getattr(self.source, "waited", 0.0)

    def source_is_live(self) -> None:
        """Count capture's processor time instead of its waiting. Called by the capturing thread, once it knows."""
        self.is_live = True
        self.capture.clock = time.thread_time

    def source_dropped(self, total: int) -> None:
        """Count frames that the source itself left out, because nobody took them in time; `total` of them until now."""
        self.captured += total - self.dropped[MISSED]
        self.dropped[MISSED] = total

    def frame_delivered(self, latency: float, names: Sequence[str], ids: Sequence[int] | None = None) -> None:
        """Count one frame that every sink has taken, `latency` seconds after it was captured, and what it shows."""
        if not self.delivered:
            self.dropped_at_start = self.dropped.total()
        self.delivered += 1
        self.classes.update(names)
        if ids is not None:
            self.distinct.add(names, ids)
        self.latencies.add(latency)
        self._rate.tick()

    def regions_delivered(self, occupancy: Sequence[Mapping[str, int]]) -> None:
        """Count who stands in each region in a frame that was delivered, as in `Detections.occupancy`."""
        pairs = itertools.zip_longest(self.regions, occupancy)  # another follower may pass on fewer, or more
        self.regions = tuple((peak or Peak()).updated(counts or {}) for peak, counts in pairs)

    @property
    def seconds(self) -> float:
        """From when it began, or the run did if that was later, to its last delivery."""
        return max(self.last_delivery - self._began, 0.0)

    @property
    def fps(self) -> float:
        """Frames delivered per second over the last moments."""
        return self._rate.per_second

    def status(self) -> str:
        """The status line of live pictures."""
        return _status(self.fps, self.latencies.recent, self.dropped.total())

    def summary(self, seconds: float) -> FeedSummary:
        """The figures up to now, in so many seconds. Any thread may ask, as in `Metrics.summary`."""
        p50, p95, p99 = self.latencies.quantiles()
        away = self.availability
        return FeedSummary(
            name=self.name,
            live=self.is_live,
            captured=self.captured,
            delivered=self.delivered,
            dropped={cause: count for cause, count in self.dropped.copy().items() if count},
            unchanged=self.unchanged,
            damaged=getattr(self.source, "damaged", 0),
            classes=_sorted(self.classes),
            distinct=_sorted(self.distinct.counts),
            lines=tuple({way: _sorted(names) for way, names in line.counts.items()} for line in self.lines),
            regions=tuple(Peak(peak.most, _sorted(peak.classes)) for peak in self.regions),
            fps=self.delivered / seconds if seconds else 0.0,
            latency_p50=p50,
            latency_p95=p95,
            latency_p99=p99,
            outages={} if away is None else {str(reason): count for reason, count in away.counts.copy().items()},
            seconds_away=0.0 if away is None else away.seconds_away,
            error=None if self.error is None else str(self.error) or type(self.error).__name__,
        )


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    """The same, most frequent first; others may count meanwhile."""
    return dict(Counter(counts).most_common())


def told_apart(names: Iterable[str]) -> list[str]:
    """The names of sources, `-2`, `-3` ... added where two would be the same, also but for their case."""
    found: list[str] = []
    taken: set[str] = set()
    for wanted in names:
        name, number = wanted, 1
        while name.casefold() in taken:
            number += 1
            name = f"{wanted}-{number}"
        taken.add(name.casefold())
        found.append(name)
    return found


class Metrics:
    """The counters of a running pipeline and, in `feeds`, of each of its sources."""

    def __init__(self, names: Sequence[str] = ("source",), clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self.feeds = tuple(FeedMetrics(name, clock) for name in names)
        self.stages = {name: Stage(clock) for name in STAGES if name != "capture"}
        self.batches = 0
        self.segmented = 0
        self._latencies = Latencies()
        self._rate = RateMeter(clock=clock)
        self._started: float | None = None
        self.in_turns = False
        """Whether the sources are read one after the other, by one thread: each has its rate from its turn on."""

    @property
    def captured(self) -> int:
        """Frames that came from all sources."""
        return sum(feed.captured for feed in self.feeds)

    @property
    def delivered(self) -> int:
        """Frames that every sink of theirs has taken."""
        return sum(feed.delivered for feed in self.feeds)

    @property
    def dropped(self) -> int:
        """Frames of live sources that were left out."""
        return sum(feed.dropped.total() for feed in self.feeds)

    @property
    def objects(self) -> int:
        """Objects shown in all frames of all sources together."""
        return sum(feed.classes.total() for feed in self.feeds)

    @property
    def latency(self) -> float | None:
        """The median of the last frames, in seconds from capture to delivery; None before the first."""
        return self._latencies.recent

    @property
    def is_live(self) -> bool:
        """Whether any source is live."""
        return any(feed.is_live for feed in self.feeds)

    def start(self) -> None:
        """The segmenter is warm: time counts from here."""
        self._started = self._clock()
        for feed in self.feeds:
            feed.start()

    def batch_segmented(self, frames: int, seconds: float) -> None:
        """Count one call of the segmenter, and how long it kept the stage busy."""
        self.stages["segment"].busy += seconds
        self.batches += 1
        self.segmented += frames

    def frame_delivered(
        self, feed: int, captured_at: float, names: Sequence[str], ids: Sequence[int] | None = None
    ) -> None:
        """Count one frame that every sink has taken, and the objects shown in it, by the names of their classes.

        `ids` are their numbers, where they have some.
        """
        now = self._clock()
        self._latencies.add(now - captured_at)
        self._rate.tick()
        self.feeds[feed].last_delivery = now
        self.feeds[feed].frame_delivered(now - captured_at, names, ids)

    def status(self) -> str:
        """Rate, latency and drops of all sources together."""
        return _status(self._rate.per_second, self.latency, self.dropped)

    def summary(self) -> Summary:
        """The figures up to now. Any thread may ask; what grows meanwhile is looked through as a copy."""
        last = max(feed.last_delivery for feed in self.feeds)
        seconds = 0.0 if self._started is None else max(last - self._started, 0.0)
        captured = [feed.busy for feed in self.feeds]
        work = {"capture": sum(captured) if self.in_turns else max(captured)}
        work |= {name: stage.busy for name, stage in self.stages.items()}
        busy = {name: work[name] / seconds if seconds else 0.0 for name in STAGES}
        p50, p95, p99 = self._latencies.quantiles()
        classes = sum((feed.classes.copy() for feed in self.feeds), Counter[str]())
        distinct = sum((feed.distinct.counts.copy() for feed in self.feeds), Counter[str]())
        return Summary(
            captured=self.captured,
            delivered=self.delivered,
            dropped=self.dropped,
            unchanged=sum(feed.unchanged for feed in self.feeds),
            seconds=seconds,
            fps=self.delivered / seconds if seconds else 0.0,
            latency_p50=p50,
            latency_p95=p95,
            latency_p99=p99,
            busy=busy,
            limited_by=self._limit(busy),
            mean_batch=self.segmented / self.batches if self.batches else 0.0,
            objects=classes.total(),
            classes=_sorted(classes),
            distinct=_sorted(distinct),
            feeds=tuple(feed.summary(feed.seconds if self.in_turns else seconds) for feed in self.feeds),
        )

    def _limit(self, busy: dict[str, float]) -> str:
        busiest = max(busy, key=lambda name: busy[name])
        at_start = sum(feed.dropped_at_start for feed in self.feeds)
        keeps_up = self.dropped - at_start <= (self.captured - at_start) / 50
        # What is idle for half of the time could do twice as much: frames were dropped for coming all at once, or late.
        return "source" if self.is_live and (keeps_up or busy[busiest] < 0.5) else busiest


def _status(fps: float, latency: float | None, dropped: int) -> str:
    delay = "" if latency is None else f"  {latency * 1000:.0f} ms"
    return f"{fps:.1f} fps{delay}  {dropped} dropped"
