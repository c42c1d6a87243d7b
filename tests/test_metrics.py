"""Rates, quantiles and summaries, with a clock the test turns."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from stream_seg.availability import Availability
from stream_seg.cli.report import text
from stream_seg.detections import Detections
from stream_seg.errors import Reason
from stream_seg.frame import Frame, SourceInfo
from stream_seg.metrics import KNOWN, RECENT, STAGES, FeedMetrics, Histogram, Latencies, Metrics, Peak, RateMeter
from stream_seg.pipeline import Pipeline
from stream_seg.segmenters.function import FunctionSegmenter
from stream_seg.sources import ListSource, open_source
from stream_seg.steady import Steady
from tests.source_counts import until


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


@pytest.mark.parametrize("seconds", [1.1, 1.9, 2.5, 40.0])
def test_a_rate_below_one_in_a_window_is_told_until_events_stop(seconds: float) -> None:
    clock = Turned()
    meter = RateMeter(window=2.0, clock=clock)
    for _ in range(5):
        meter.tick()
        clock.now += seconds
    assert meter.per_second == pytest.approx(1 / seconds)  # as the status line asks, before the next tick
    clock.now += 0.9 * seconds
    assert meter.per_second == pytest.approx(1 / seconds)
    clock.now += 0.2 * seconds
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
    metrics = Metrics(clock=clock)
    metrics.start()
    feed = metrics.feeds[0]
    for _ in range(10):
        captured_at = clock.now
        stages = (feed.capture, metrics.stages["render"], metrics.stages["deliver"])
        for stage, seconds in zip(stages, (0.01, 0.02, 0.02), strict=True):
            with stage:
                clock.now += seconds
        clock.now += 0.05
        feed.captured += 1
        metrics.batch_segmented(1, 0.05)
        metrics.frame_delivered(0, captured_at, ["cat", "dog", "dog"])
    summary = metrics.summary()
    assert (summary.captured, summary.delivered, summary.dropped, summary.objects) == (10, 10, 0, 30)
    assert list(summary.classes.items()) == [("dog", 20), ("cat", 10)]
    assert summary.seconds == pytest.approx(1.0)
    assert summary.fps == pytest.approx(10.0)
    assert summary.busy == pytest.approx(dict(zip(STAGES, (0.1, 0.5, 0.2, 0.2), strict=True)))
    assert summary.limited_by == "segment"
    assert summary.latency_p50 == pytest.approx(0.1, rel=0.011)
    assert feed.latencies.recent == pytest.approx(0.1)
    assert json.loads(json.dumps(summary.as_dict()))["mean_batch"] == 1.0
    assert metrics.status() == feed.status() == "10.0 fps  100 ms  0 dropped"


def test_work_before_the_model_was_warm_does_not_count() -> None:
    clock = Turned()
    metrics = Metrics(clock=clock)
    with metrics.feeds[0].capture:
        clock.now += 7
    metrics.start()
    with metrics.feeds[0].capture:
        clock.now += 1
    clock.now += 3
    metrics.frame_delivered(0, clock.now, [])
    assert metrics.summary().busy["capture"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("at_start", "dropped", "busy", "limit"),
    [(0, 0, 0.9, "source"), (20, 2, 0.9, "source"), (0, 3, 0.9, "render"), (0, 3, 0.4, "source")],
)
def test_a_live_source_that_is_kept_up_with_is_the_limit(at_start: int, dropped: int, busy: float, limit: str) -> None:
    clock = Turned()
    metrics = Metrics(["camera", "film"], clock)
    metrics.start()
    feed = metrics.feeds[0]
    feed.source_is_live()
    assert metrics.summary().limited_by == "source"
    feed.captured = feed.dropped["replaced"] = at_start
    for frame in range(100):
        clock.now += 0.1
        feed.captured += 1
        if 0 < frame <= dropped:
            feed.dropped["late"] += 1
        else:
            metrics.frame_delivered(0, clock.now, [])
    metrics.stages["render"].busy = 10 * busy
    assert metrics.summary().limited_by == limit


def measured(source: object) -> tuple[Turned, Metrics, FeedMetrics]:
    """A clock that is turned by hand, and the figures of a run with this source."""
    clock = Turned()
    metrics = Metrics(clock=clock)
    metrics.feeds[0].source = source
    return clock, metrics, metrics.feeds[0]


def test_a_live_source_that_decodes_by_itself_is_busy_since_the_start() -> None:
    class Camera:
        worked = 7.0
        damaged = 0

    clock, metrics, feed = measured(camera := Camera())
    feed.source_is_live()
    metrics.start()
    with feed.capture:  # which waits
        clock.now += 10
    camera.worked, camera.damaged = 9.0, 3
    metrics.frame_delivered(0, clock.now, [])
    assert metrics.summary().busy["capture"] == pytest.approx(0.2, abs=0.01)
    assert metrics.summary().feeds[0].damaged == 3


def test_the_own_threads_of_a_recording_are_waited_for_and_count_once() -> None:
    class Download:
        worked = 0.0

    clock, metrics, feed = measured(download := Download())
    metrics.start()
    with feed.capture:
        clock.now += 1
        download.worked += 1
    clock.now += 1
    metrics.frame_delivered(0, clock.now, [])
    assert metrics.summary().busy["capture"] == pytest.approx(0.5)


def test_waiting_until_a_frame_of_a_recording_is_due_is_no_work() -> None:
    class Paced:
        waited = 3.0

    clock, metrics, feed = measured(source := Paced())
    metrics.start()
    with feed.capture:
        clock.now += 8
        source.waited += 6
    metrics.frame_delivered(0, clock.now, [])
    assert metrics.summary().busy["capture"] == pytest.approx(0.25)


def test_a_pipeline_asks_its_source_what_it_worked_and_left_out() -> None:
    class Camera(ListSource):
        worked = 0.0
        damaged = 2
        dropped = 3

        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                yield frame
                assert until(lambda: pipeline.metrics.batches > 0)  # which is after the start
                self.worked += 5

    camera = Camera([np.zeros((8, 8, 3), np.uint8)] * 2, kind="live")
    pipeline = Pipeline(camera, FunctionSegmenter(lambda _: Detections.none(("x",)), ("x",)))
    summary = pipeline.run()
    assert summary.busy["capture"] * summary.seconds == pytest.approx(10, abs=1)
    assert (summary.feeds[0].damaged, summary.feeds[0].dropped["missed"]) == (2, 3)


def test_the_latency_of_the_moment_is_that_of_the_last_frames() -> None:
    latencies = Latencies()
    for seconds in [9.0] * 100 + [0.3, 0.1, 0.2] * (RECENT // 3):
        latencies.add(seconds)
    assert latencies.recent == 0.2


def test_a_run_without_frames_has_no_figures() -> None:
    same_moment = RateMeter(clock=Turned())
    same_moment.tick()
    same_moment.tick()
    assert same_moment.per_second == 0
    metrics = Metrics()
    metrics.start()
    summary = metrics.summary()
    assert (summary.seconds, summary.fps) == (0, 0)
    assert summary.latency_p99 is None


def test_each_source_has_figures_of_its_own_that_add_up() -> None:
    clock = Turned()
    metrics = Metrics(["door", "yard"], clock)
    away = Availability(clock)
    metrics.feeds[1].availability = away
    metrics.start()
    for feed, latency in ((0, 0.1), (1, 0.3), (1, 0.3)):
        metrics.feeds[feed].captured += 1
        clock.now += 1
        metrics.frame_delivered(feed, clock.now - latency, ["cat", "dog"][feed:])
    metrics.feeds[1].captured += 2
    metrics.feeds[1].dropped["late"] += 2
    metrics.feeds[1].source_dropped(3)
    metrics.feeds[1].source_dropped(3)
    away.lost(Reason.STALLED)
    clock.now += 4
    away.back()
    away.lost(Reason.REFUSED)
    metrics.feeds[0].error = TimeoutError()
    metrics.feeds[0].source_dropped(0)
    summary = metrics.summary()
    door, yard = summary.feeds
    assert (door.error, yard.error) == ("TimeoutError", None)
    assert (summary.captured, summary.delivered, summary.dropped) == (8, 3, 5)
    assert (door.name, door.captured, door.delivered, door.dropped, door.outages) == ("door", 1, 1, {}, {})
    assert (yard.captured, yard.delivered, yard.dropped) == (7, 2, {"late": 2, "missed": 3})
    assert (door.classes, yard.classes) == ({"cat": 1, "dog": 1}, {"dog": 2})
    assert (summary.objects, summary.classes) == (4, {"dog": 3, "cat": 1})
    assert yard.latency_p50 == pytest.approx(0.3, rel=0.011)
    assert (yard.outages, yard.seconds_away) == ({"stalled": 1, "refused": 1}, pytest.approx(4))
    assert yard.fps == pytest.approx(2 / 3)
    assert json.loads(json.dumps(summary.as_dict()))["feeds"][1]["outages"] == {"stalled": 1, "refused": 1}


def test_of_sources_in_turns_each_has_its_rate_from_its_own_turn_on_and_their_capture_adds_up() -> None:
    clock = Turned()
    metrics = Metrics(["first", "second"], clock)
    metrics.in_turns = True
    metrics.start()
    for number, feed in enumerate(metrics.feeds):
        feed.begin()
        with feed.capture:
            clock.now += 4
        metrics.frame_delivered(number, clock.now, [])
    summary = metrics.summary()
    assert [feed.fps for feed in summary.feeds] == [pytest.approx(1 / 4)] * 2
    assert summary.fps == pytest.approx(2 / 8)
    assert summary.busy["capture"] == pytest.approx(1)
    metrics.in_turns = False  # at the same time: the busiest one's
    assert metrics.summary().busy["capture"] == pytest.approx(1 / 2)


def test_the_summary_for_people_names_the_most_frequent_classes() -> None:
    metrics = Metrics()
    info, segmenter = SourceInfo("a.mp4", (64, 48), "video"), FunctionSegmenter(lambda image: Detections.none(()), ())
    assert "dropped; 0 objects\n" in text([info], segmenter, metrics.summary(), [])
    metrics.frame_delivered(0, 0.0, ["cat", *"abcdef", "cat", "dog", "dog", "dog"])
    assert "dropped; 11 objects (dog 3, cat 2, a 1, b 1, c 1, d 1, ...)\n" in text(
        [info], segmenter, metrics.summary(), []
    )


def test_an_object_that_stays_is_one_and_each_source_has_numbers_of_its_own() -> None:
    metrics = Metrics(["door", "yard", "photos"])
    for _ in range(3):
        metrics.frame_delivered(0, 0.0, ["person", "cat", "person"], [1, 2, 4])
        metrics.frame_delivered(1, 0.0, ["person"], [1])
    metrics.frame_delivered(0, 0.0, [], [])
    metrics.frame_delivered(0, 0.0, ["cat"], [3])
    summary = metrics.summary()
    door, yard, photos = summary.feeds
    assert (door.distinct, yard.distinct, photos.distinct) == ({"person": 2, "cat": 2}, {"person": 1}, {})
    assert (summary.distinct, summary.objects) == ({"person": 3, "cat": 2}, 13)
    infos = [SourceInfo("a.mp4", (64, 48), "video")] * 3
    segmenter = FunctionSegmenter(lambda image: Detections.none(()), ())
    assert "0 dropped\n  objects  5 different (person 3, cat 2), shown 13 times\n" in text(
        infos, segmenter, summary, []
    )
    metrics.frame_delivered(2, 0.0, ["dog"])  # which nobody follows, so that nobody knows how many there were
    assert "0 dropped; 14 objects (person 9, cat 4, dog 1)\n" in text(infos, segmenter, metrics.summary(), [])


def test_the_summary_of_photos_tells_how_many_and_in_what_time_but_no_latency() -> None:
    clock = Turned()
    metrics = Metrics(["first", "second"], clock)
    metrics.start()
    first, second = (SourceInfo(name, (64, 48), "images") for name in ("a.png", "photos"))
    segmenter = FunctionSegmenter(lambda image: Detections.none(()), ())
    metrics.feeds[0].captured += 1
    clock.now += 0.25
    metrics.frame_delivered(0, 0.0, ["cat"])
    metrics.feeds[1].source = SimpleNamespace(damaged=2)
    summary = metrics.summary()
    one = text([first], segmenter, replace(summary, feeds=summary.feeds[:1]), ["b.png"]).splitlines()
    assert one[:3] == ["a.png (64x48) -> b.png", "  images   1; 1 object (cat 1)", "  speed    0.25 s"]
    assert len(one) == 4  # and the model
    metrics.feeds[1].captured += 2
    metrics.frame_delivered(1, 0.0, ["dog"])
    several = text([first, second], segmenter, metrics.summary(), ["b.png"])
    assert "\n  images   2 of 3, 2 left out; 2 objects (cat 1, dog 1)\n  speed    0.25 s, 8.0 a second\n" in several
    assert several.endswith("\n  first    1 of 1 images\n  second   1 of 2 images")
    film = SourceInfo("img_%04d.png", (64, 48), "images", is_film=True)
    assert "frames   3 captured" in text([first, film], segmenter, metrics.summary(), [])


def test_the_most_in_a_region_at_one_time_is_not_the_sum_of_the_most_of_each_class() -> None:
    metrics = Metrics(["door", "yard"])
    door, yard = metrics.feeds
    assert door.summary(1.0).regions == ()
    for counts in ({"cat": 3}, {"cat": 1, "dog": 4}, {}, {"dog": 1}):
        door.regions_delivered([counts, {}])
    yard.regions_delivered([{"cat": 1}])
    yard.regions_delivered([])
    summary = metrics.summary()
    assert summary.feeds[0].regions == (Peak(5, {"dog": 4, "cat": 3}), Peak(0, {}))
    infos = [SourceInfo(f"{feed.name}.mp4", (64, 48), "video") for feed in metrics.feeds]
    segmenter = FunctionSegmenter(lambda image: Detections.none(()), ())
    one = text(infos[:1], segmenter, replace(summary, feeds=summary.feeds[:1]), [])
    assert "\n  region 1 at most 5 at once (dog 4, cat 3)\n  region 2 at most 0 at once\n  speed " in one
    several = text(infos, segmenter, summary, [])
    assert several.endswith(
        " ms; region 1 at most 5 at once (dog 4, cat 3); region 2 at most 0 at once\n"
        "  yard     0.0 fps; 0 of 0 frames; latency -/-/- ms; region at most 1 at once (cat 1)"
    )


def test_one_object_is_not_called_objects() -> None:
    metrics = Metrics()
    metrics.frame_delivered(0, 0.0, ["cat"])
    segmenter = FunctionSegmenter(lambda image: Detections.none(()), ())
    assert "; 1 object (cat 1)\n" in text([None], segmenter, metrics.summary(), [])


def test_numbers_are_remembered_from_when_they_were_seen_last_and_not_for_ever() -> None:
    feed = Metrics().feeds[0]
    for number in range(2, KNOWN + 100):
        feed.frame_delivered(0.0, ["car", "person"], [1, number])  # a parked car
    assert feed.distinct.counts == {"car": 1, "person": KNOWN + 98}
    assert len(feed.distinct._known) == KNOWN
    feed.frame_delivered(0.0, ["person"], [KNOWN + 99])
    assert feed.distinct.counts["person"] == KNOWN + 98


def test_a_pipeline_counts_what_its_follower_numbers_and_photos_have_no_numbers(tmp_path: Path) -> None:
    box, mask = np.array([[1, 1, 7, 7]], np.float32), np.ones((1, 7, 7), np.float32)
    one = Detections(box, np.ones(1, np.float32), np.zeros(1, np.int64), mask, ("cat",))
    segmenter = FunctionSegmenter(lambda _: one, ("cat",))
    images = [np.zeros((8, 8, 3), np.uint8)] * 5
    film = Pipeline(ListSource(images), segmenter, follower=Steady()).run()
    assert (film.objects, film.distinct) == (5, {"cat": 1})
    assert Pipeline(ListSource(images), segmenter).run().distinct == {}
    for number, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    photos = Pipeline(open_source(str(tmp_path)), segmenter, follower=Steady()).run()
    assert (photos.objects, photos.distinct) == (5, {})


def test_a_summary_can_be_had_while_others_count() -> None:
    metrics = Metrics()
    names = [f"class {number}" for number in range(6_000)]

    def count() -> None:
        for number, name in enumerate(names):
            metrics.frame_delivered(0, 0.0, [name], [number])

    counting = threading.Thread(target=count)
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        counting.start()
        while counting.is_alive():
            assert metrics.summary().objects <= len(names)
    finally:
        sys.setswitchinterval(usual)
        counting.join()
    assert metrics.summary().distinct == dict.fromkeys(names, 1)


def test_an_outage_counts_its_first_reason_and_every_failed_try() -> None:
    clock = Turned()
    away = Availability(clock)
    away.lost(Reason.STALLED, retry_at=101)
    away.trying()
    assert away.outage is not None
    assert away.outage.retry_at is None
    clock.now += 3
    away.lost(Reason.REFUSED, retry_at=105)
    assert away.outage.reason is Reason.REFUSED
    assert (away.outage.attempts, away.outage.began, away.outage.retry_at) == (1, 100.0, 105)
    assert away.counts == {Reason.STALLED: 1}
    assert away.seconds_away == 3
    away.back()
    clock.now += 3
    assert away.outage is None
    assert away.seconds_away == 3
