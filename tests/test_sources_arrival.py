"""When a picture was taken, told from its time stamp and its arrival; all clocks are made up."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_seg.sources.arrival import CaptureTimes
from stream_seg.sources.clock import CLOCK, LiveClock

PERIOD = 0.04
OFFSET = 1234.5
"""What the sender's clock differs from ours."""


def lateness(times: CaptureTimes, stamps: list[float], arrivals: list[float]) -> list[float]:
    return [arrived - times.taken_at(stamp, arrived) for stamp, arrived in zip(stamps, arrivals, strict=True)]


def test_a_steady_stream_is_never_late() -> None:
    stamps = [number * PERIOD for number in range(500)]
    late = lateness(CaptureTimes(), stamps, [OFFSET + stamp for stamp in stamps])
    assert max(late) < 1e-9


def test_a_backlog_is_as_old_as_it_is_and_what_follows_is_new() -> None:
    stamps = [number * PERIOD for number in range(200)]
    held = [max(stamp, 6.0) if 3 <= stamp < 6 else stamp for stamp in stamps]
    late = lateness(CaptureTimes(), stamps, [OFFSET + moment for moment in held])
    expected = [moment - stamp for moment, stamp in zip(held, stamps, strict=True)]
    assert late == pytest.approx(expected, abs=1e-9)
    assert max(late) == pytest.approx(3, abs=0.05)


def test_jitter_of_the_network_is_delay_of_the_late_ones() -> None:
    stamps = [number * PERIOD for number in range(400)]
    delays = np.random.default_rng(0).uniform(0, 0.02, 400)
    late = lateness(CaptureTimes(), stamps, [OFFSET + s + d for s, d in zip(stamps, delays, strict=True)])
    assert late[50:] == pytest.approx(delays[50:], abs=0.002)


@pytest.mark.parametrize("drift", [-0.001, 0.001])
def test_a_clock_that_drifts_is_forgiven(drift: float) -> None:
    stamps = [number * PERIOD for number in range(5000)]
    late = lateness(CaptureTimes(10.0), stamps, [OFFSET + stamp * (1 + drift) for stamp in stamps])
    assert max(late) < 0.0101  # what it drifts in the window


@pytest.mark.parametrize("jump", [-3600.0, -0.5, 0.7, 3600.0])
def test_a_clock_that_jumps_makes_nothing_late(jump: float) -> None:
    moments = [number * PERIOD for number in range(200)]
    stamps = [moment + (jump if moment > 4 else 0) for moment in moments]
    late = lateness(CaptureTimes(), stamps, [OFFSET + moment for moment in moments])
    assert max(late) < 1e-9


def test_a_network_that_is_slower_from_now_on_is_forgiven_after_the_window() -> None:
    stamps = [number * PERIOD for number in range(1000)]
    late = lateness(CaptureTimes(10.0), stamps, [OFFSET + stamp + (0.3 if stamp > 10 else 0) for stamp in stamps])
    assert late[int(15 / PERIOD)] == pytest.approx(0.3)
    assert max(late[int(20.1 / PERIOD) :]) < 1e-9


def test_later_than_the_window_is_another_clock() -> None:
    assert lateness(CaptureTimes(10.0), [0.0, 1.0, 1.04], [0.0, 12.0, 12.04]) == pytest.approx([0, 0, 0])


def test_pictures_without_a_time_stamp_are_taken_when_they_arrive() -> None:
    times = CaptureTimes()
    assert [times.taken_at(None, moment) for moment in (5.0, 5.5)] == [5.0, 5.5]


@settings(max_examples=100)
@given(st.lists(st.tuples(st.none() | st.floats(-1e6, 1e6), st.floats(0, 30)), max_size=60))
def test_whatever_comes_times_never_run_backwards_nor_ahead(pictures: list[tuple[float | None, float]]) -> None:
    times, now, taken = CaptureTimes(), 100.0, []
    for stamp, wait in pictures:
        now += wait
        taken.append(times.taken_at(stamp, now))
        assert now - 10.001 <= taken[-1] <= now
    assert all(before <= after for before, after in pairwise(taken))


def test_live_times_grow_though_two_frames_were_captured_at_once() -> None:
    clock = LiveClock()
    assert [clock.pts(at) * CLOCK for at in (5.0, 5.0, 4.0, 6.0)] == [0, 1, 2, 90000]
