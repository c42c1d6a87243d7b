"""Pace: pictures that come in segments, spread as they were taken."""

from __future__ import annotations

import pytest

from stream_seg.sources.pace import LATEST, LONGEST_STEP, Pace


def waits(*pictures: tuple[float, float]) -> list[float]:
    """The waits of pictures given as (time, when it comes)."""
    pace = Pace()
    return [pace.wait(time, now) for time, now in pictures]


def test_what_comes_at_once_is_due_as_far_apart_as_it_was_taken() -> None:
    assert waits((3.0, 100.0), (3.2, 100.0), (3.4, 100.2), (3.6, 100.7)) == pytest.approx([0, 0.2, 0.2, 0])


def test_a_picture_that_is_a_little_late_is_caught_up_with() -> None:
    late = LATEST - 0.1
    assert waits((0.0, 100.0), (0.2, 100.2 + late), (0.4, 100.2 + late), (1.0, 100.2 + late)) == pytest.approx(
        [0, 0, 0, 0.8 - late]
    )


def test_what_follows_a_segment_that_was_late_is_as_late() -> None:
    late = LATEST + 0.1
    assert waits((0.0, 100.0), (0.2, 100.2 + late), (0.4, 100.2 + late)) == pytest.approx([0, 0, 0.2])


def test_a_leap_of_the_time_stamps_is_not_waited_for() -> None:
    leap = LONGEST_STEP + 30
    assert waits((0.0, 100.0), (leap, 100.1), (leap + 0.2, 100.1)) == pytest.approx([0, 0, 0.2])
