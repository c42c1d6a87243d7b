"""Pace: when frames are due, those of films and those that come in segments."""

from __future__ import annotations

from fractions import Fraction

import pytest

from stream_seg.pace import Pace
from stream_seg.sources.network import LATEST_SEGMENT, LONGEST_STEP


def waits(*pictures: tuple[float, float]) -> list[float]:
    """The waits of pictures of a live playlist, given as (time, when it comes)."""
    pace = Pace(latest=LATEST_SEGMENT, longest_step=LONGEST_STEP)
    return [pace.wait(time, now) for time, now in pictures]


def test_what_comes_at_once_is_due_as_far_apart_as_it_was_taken() -> None:
    assert waits((3.0, 100.0), (3.2, 100.0), (3.4, 100.2), (3.6, 100.7)) == pytest.approx([0, 0.2, 0.2, 0])


def test_a_picture_that_is_a_little_late_is_caught_up_with() -> None:
    late = LATEST_SEGMENT - 0.1
    assert waits((0.0, 100.0), (0.2, 100.2 + late), (0.4, 100.2 + late), (1.0, 100.2 + late)) == pytest.approx(
        [0, 0, 0, 0.8 - late]
    )


def test_what_follows_a_segment_that_was_late_is_as_late() -> None:
    late = LATEST_SEGMENT + 0.1
    assert waits((0.0, 100.0), (0.2, 100.2 + late), (0.4, 100.2 + late)) == pytest.approx([0, 0, 0.2])


def test_a_leap_of_the_time_stamps_is_not_waited_for() -> None:
    leap = LONGEST_STEP + 30
    assert waits((0.0, 100.0), (leap, 100.1), (leap + 0.2, 100.1)) == pytest.approx([0, 0, 0.2])


def test_frames_are_due_at_their_own_pace() -> None:
    pace = Pace()
    assert pace.wait(Fraction(7), 100.0) == 0  # the first one, whatever its time
    assert pace.wait(Fraction(704, 100), 100.03) == pytest.approx(0.01)
    assert pace.wait(Fraction(704, 100), 100.0401) == 0


def test_small_delays_do_not_add_up() -> None:
    pace, now = Pace(), 100.0
    for index in range(250):
        pts = Fraction(index, 25)
        now += pace.wait(pts, now) + 0.003  # whoever waits, wakes a little late
        assert pace.wait(pts, now) == 0
    assert now - 100 == pytest.approx(249 / 25, abs=0.007)


def test_after_a_delay_a_film_goes_on_at_its_own_pace_and_does_not_race() -> None:
    pace = Pace()
    assert pace.wait(0, 100.0) == 0
    assert pace.wait(Fraction(1, 25), 105.0) == 0
    assert pace.wait(Fraction(2, 25), 105.0) == pytest.approx(0.04)


def test_a_film_waits_for_a_frame_that_lasts_long() -> None:
    pace = Pace()
    assert [pace.wait(0, 100.0), pace.wait(60, 100.0)] == [0, pytest.approx(60)]
