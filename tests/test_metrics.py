"""Rates, quantiles and summaries, with a clock the test turns."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stream_seg.metrics import STAGES, Histogram, Metrics, RateMeter


class Turned:
    """A clock that stands until the test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("rate", [1.0, 7.5, 30.0, 240.0])
def test_a_steady_rate_is_exact_then_decays(rate: float) -> None:
    clock = Turned()
    meter = RateMeter(window=5.0, clock=clock)
    for _ in range(int(10 * rate)):
        meter.tick()
        clock.now += 1 / rate
    assert meter.per_second == pytest.approx(rate)
    clock.now += 6
    assert meter.per_second == 0.0


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95, 0.99, 1.0])
def test_a_quantile_is_within_one_percent(share: float) -> None:
    durations = np.random.default_rng(3).lognormal(-3, 1, 20_000)
    histogram = Histogram()
    for seconds in durations:
        histogram.add(float(seconds))
    exact = float(np.quantile(durations, share, method="inverted_cdf"))
    assert histogram.quantile(share) == pytest.approx(exact, rel=0.011)


def test_durations_out_of_range_are_counted_at_the_ends() -> None:
    histogram = Histogram()
    for seconds in (0.0, -1.0, 1e9):
        histogram.add(seconds)
    assert histogram.count == 3
    assert histogram.quantile(1.0) == pytest.approx(1e4, rel=0.05)


def test_no_duration_has_no_quantile() -> None:
    assert Histogram().quantile(0.5) is None


def test_a_summary_adds_up() -> None:
    clock = Turned()
    metrics = Metrics(clock)
    metrics.start()
    for _ in range(10):
        captured_at = clock.now
        for name, seconds in zip(("capture", "render", "deliver"), (0.01, 0.02, 0.02), strict=True):
            with metrics.stages[name]:
                clock.now += seconds
        clock.now += 0.05
        metrics.captured += 1
        metrics.batch_segmented(1, 3, 0.05)
        metrics.frame_delivered(captured_at)
    summary = metrics.summary()
    assert (summary.captured, summary.delivered, summary.dropped, summary.objects) == (10, 10, 0, 30)
    assert summary.seconds == pytest.approx(1.0)
    assert summary.fps == pytest.approx(10.0)
    assert summary.busy == pytest.approx(dict(zip(STAGES, (0.1, 0.5, 0.2, 0.2), strict=True)))
    assert summary.limited_by == "segment"
    assert summary.latency_p50 == pytest.approx(0.1, rel=0.011)
    assert metrics.latency == pytest.approx(0.1)
    assert json.loads(json.dumps(summary.as_dict()))["mean_batch"] == 1.0


def test_a_live_source_that_is_kept_up_with_is_the_limit() -> None:
    metrics = Metrics(Turned())
    metrics.source_is_live()
    assert metrics.summary().limited_by == "source"
    metrics.captured, metrics.dropped = 100, 3
    metrics.stages["render"].busy = 1.0
    metrics.start()
    assert metrics.summary().limited_by != "source"


def test_a_run_without_frames_has_no_figures() -> None:
    summary = Metrics().summary()
    assert summary.fps == 0.0
    assert summary.latency_p99 is None
