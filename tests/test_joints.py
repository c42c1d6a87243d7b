"""Joints: where recordings that were glued together begin, and on which side of a joint sound belongs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from stream_seg.sinks.joints import Joints


@dataclass
class Piece:
    """A packet with what counts here of one."""

    stream_index: int
    pts: int | None
    dts: int | None
    pos: int | None
    size: int = 1


def picture(pos: int, dts: float | None, pts: float | None = None) -> Piece:
    """Of stream 0, whose times are milliseconds; given in seconds."""
    shown = dts if pts is None else pts
    return Piece(0, None if shown is None else round(shown * 1000), None if dts is None else round(dts * 1000), pos)


def sound(pos: int, time: float) -> Piece:
    """Of stream 1, whose times are half milliseconds; given in seconds."""
    return Piece(1, round(time * 2000), round(time * 2000), pos)


def joined(pieces: Iterable[Piece]) -> tuple[list[float], list[float], float | None]:
    """Times of pictures and of sound, in seconds, and where sound was left out; ten pictures a second."""
    pictures: Any = SimpleNamespace(index=0, time_base=Fraction(1, 1000), average_rate=Fraction(10))
    heard: Any = SimpleNamespace(index=1, time_base=Fraction(1, 2000))
    joints, given = Joints([pictures, heard], pictures), list(pieces)
    passed: Any = given
    times: tuple[list[float], list[float]] = [], []
    for time, packet in joints.joined(passed):
        times[packet.stream_index].append(float(time * joints.unit))
    return *times, joints.left_at


@pytest.mark.parametrize(
    ("pictures", "times"),
    [
        ([(5, 5), (5.1, 5.1), (3.6, 3.6), (3.7, 3.7)], [5, 5.1, 5.2, 5.3]),  # back by more than a second
        ([(5, 5), (None, 5.1), (0, 0), (0.1, 0.1)], [5, 5.1, 5.2, 5.3]),  # behind one of which little is known
        ([(5, 5), (5.1, 5.3), (5.2, 5.1), (0, 0), (0.1, 0.1)], [5, 5.3, 5.1, 5.4, 5.5]),  # behind the latest
        ([(5, 5), (5.1, 5.1), (4.9, 4.9), (5, 5)], [5, 5.1, 4.9, 5]),  # back by less
    ],
)
def test_what_jumps_back_comes_a_frame_after_the_latest_picture(
    pictures: list[tuple[float | None, float]], times: list[float]
) -> None:
    assert joined(picture(10 * i, dts, pts) for i, (dts, pts) in enumerate(pictures))[0] == times


@pytest.mark.parametrize(
    ("order", "times"),
    [
        ([0, 0.1, 100, 0.3, 0.4], [0, 0.1, 0.3, 0.4]),  # one damaged
        ([0, 100, 1.1, 1.2], [0, 1.1, 1.2]),  # in a pause of a little more than a second
        ([0, 1.1, 1.15, 1.2], [0, 1.1, 1.15, 1.2]),  # such a pause itself
        ([0, 50, 40, 40.1], [0, 50, 50.1, 50.2]),  # nor is one that others go on behind
    ],
)
def test_a_damaged_time_is_none_and_a_pause_is_no_damage(order: list[float], times: list[float]) -> None:
    assert joined(picture(10 * i, dts) for i, dts in enumerate(order))[0] == times


def test_a_picture_is_never_shown_long_after_it_is_decoded() -> None:
    assert joined([picture(0, 0), picture(10, 0.1, 90), picture(20, 0.2)])[0] == [0, 0.1, 0.2]


@pytest.mark.parametrize(
    ("pos", "time", "expected"),
    [
        (15, 0.1, 2.1),  # between the two pictures at the joint: nearer to the second
        (15, 1.4, 1.4),  # to the first
        (5, 0.1, 0.1),  # before both, and read late
        (25, 0.1, 2.1),
    ],
)
def test_the_first_sound_at_a_joint_belongs_to_the_nearer_picture(pos: int, time: float, expected: float) -> None:
    pictures = [picture(0, 1.8), picture(10, 1.9), picture(20, 0), picture(30, 0.1)]
    assert joined([*pictures[:2], sound(pos, time), *pictures[2:]])[1] == [expected]


def test_sound_that_steps_back_a_little_is_kept_and_by_more_than_a_second_from_the_latest_left_out() -> None:
    heard = [sound(pos, time) for pos, time in ((1, 2), (2, 2.1), (3, 1.9), (4, 1.5), (5, 1), (6, 2.2))]
    assert joined([picture(0, 2), *heard, picture(9, 2.1)])[1:] == ([2, 2.1, 1.9, 1.5, 2.2], 1)
