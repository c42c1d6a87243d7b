"""The intake: newest frame of what is live, every frame of what is recorded, fair turns, bounded room."""

from __future__ import annotations

import threading
import time
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from stream_seg import intake
from stream_seg.channel import ChannelClosed, EndOfStream
from stream_seg.frame import Frame
from stream_seg.intake import LATE, REPLACED, Intake, Taken
from tests.source_counts import until

IMAGE = np.zeros((2, 2, 3), np.uint8)


def frame(index: int, *, pts: Fraction | None = None, captured_at: float = 0.0) -> Frame:
    return Frame(IMAGE, index, Fraction(index) if pts is None else pts, captured_at)


class Desk:
    """An intake with a clock that stands and its drops counted."""

    def __init__(
        self, *live: bool, depth: int = 4, max_age: float | None = None, level: bool = False, room: int = 100
    ) -> None:
        self.drops: Counter[tuple[int, str]] = Counter()
        self.now = 0.0
        self.intake = Intake(
            len(live), depth=depth, dropped=self._drop, max_age=max_age, level=level, clock=lambda: self.now
        )
        self.intake.room = self.intake.live_room = room
        for number, is_live in enumerate(live):
            self.intake.opened(number, live=is_live)

    def _drop(self, feed: int, cause: str) -> None:
        self.drops[feed, cause] += 1

    def put(self, feed: int, *frames: Frame) -> None:
        for one in frames:
            self.intake.put(feed, one)

    def take(self, limit: int = 1) -> list[tuple[int, int]]:
        """What can be had without waiting."""
        if not self.intake._can_take():
            return []
        return [(feed, one.index) for feed, one in self.intake.take(limit).frames]


def test_a_feed_ends_when_as_many_frames_as_are_wanted_have_been_taken_and_drops_do_not_count() -> None:
    desk = Desk(True, True, max_age=1.0)
    desk.intake.opened(0, live=True, most=2)
    desk.put(0, *map(frame, range(5)))
    assert desk.take() == [(0, 4)]
    desk.put(0, frame(5, captured_at=-2.0))
    desk.put(1, frame(0))
    assert desk.take(2) == [(1, 0)]
    assert not desk.intake.has_enough(0)
    desk.put(0, frame(6))
    taken = desk.intake.take(1)
    assert ([one.index for _, one in taken.frames], taken.ended) == ([6], [0])
    assert desk.intake.has_enough(0)
    with pytest.raises(ChannelClosed):
        desk.put(0, frame(7))
    assert desk.drops == {(0, REPLACED): 4, (0, LATE): 1}
    desk.put(1, frame(1))
    assert desk.take() == [(1, 1)]


def test_a_feed_that_has_fewer_frames_than_are_wanted_ends_as_well() -> None:
    desk = Desk(False)
    desk.intake.opened(0, live=False, most=5)
    desk.put(0, frame(0), frame(1))
    desk.intake.end(0)
    assert [desk.intake.take(1).ended for _ in range(2)] == [[], [0]]
    none = Intake(1, depth=4, dropped=lambda feed, cause: None, in_turns=True)
    none.end(0)  # it could not be opened
    assert none.take(1).ended == [0]


def test_of_a_live_feed_the_newest_frame_waits_and_the_others_are_counted() -> None:
    desk = Desk(True, True)
    desk.put(0, *map(frame, range(5)))
    desk.put(1, frame(0))
    assert sorted(desk.take(8)) == [(0, 4), (1, 0)]
    assert desk.drops == {(0, REPLACED): 4}


def test_a_recorded_feed_waits_for_room_and_loses_nothing() -> None:
    desk = Desk(False, depth=2)
    writer = threading.Thread(target=desk.put, args=(0, *map(frame, range(20))))
    writer.start()
    assert until(lambda: len(desk.intake._feeds[0].waiting) == 2)
    time.sleep(0.01)
    assert len(desk.intake._feeds[0].waiting) == 2
    taken = [index for _ in range(20) for _, one in desk.intake.take(1).frames for index in [one.index]]
    writer.join()
    assert taken == list(range(20))
    assert not desk.drops


def test_turns_are_fair_and_nobody_waits_for_an_empty_feed() -> None:
    desk = Desk(True, False, True)
    served: Counter[int] = Counter()
    for number in range(30):
        if len(desk.intake._feeds[1].waiting) < 4:
            desk.put(1, frame(number))
        if number % 2:
            desk.put(2, frame(number))
        for feed, _ in desk.take():
            served[feed] += 1
    assert served[0] == 0
    assert served[1] == 15
    assert served[2] == 15


def test_a_batch_holds_one_frame_of_each_live_feed() -> None:
    desk = Desk(*[True] * 5)
    for feed in range(5):
        desk.put(feed, frame(0), frame(1))
    assert desk.take(3) == [(0, 1), (1, 1), (2, 1)]
    desk.put(0, frame(2))
    assert desk.take(8) == [(3, 1), (4, 1), (0, 2)]


def test_recordings_alone_are_taken_in_the_order_of_their_times() -> None:
    desk = Desk(False, False)
    desk.put(0, *[frame(i, pts=Fraction(i, 25)) for i in range(4)])
    desk.put(1, *[frame(i, pts=Fraction(i, 50)) for i in range(4)])
    assert desk.take(8) == [(0, 0), (1, 0), (1, 1), (0, 1), (1, 2), (1, 3), (0, 2), (0, 3)]


def test_with_a_live_feed_no_more_frames_are_handed_out_than_there_is_room_for() -> None:
    desk = Desk(True, False, room=2)
    desk.put(0, frame(0))
    desk.put(1, frame(0), frame(1))
    assert len(desk.take(8)) == 2
    desk.put(0, frame(1))
    assert desk.take(8) == []
    desk.put(0, frame(2))
    desk.intake.delivered()
    assert desk.take(8) == [(0, 2)]  # its turn was before the other's
    desk.intake.delivered()
    assert desk.take(8) == [(1, 1)]


def test_recordings_have_more_room_than_cameras() -> None:
    desk = Desk(False)
    desk.intake.room, desk.intake.live_room = 3, 1
    desk.put(0, *map(frame, range(4)))
    assert desk.take(8) == [(0, 0), (0, 1), (0, 2)]
    assert desk.take(8) == []
    desk.intake.delivered()
    assert desk.take(8) == [(0, 3)]


def test_recordings_that_are_to_stay_level_wait_for_the_slowest() -> None:
    desk = Desk(False, False, level=True)
    desk.put(0, frame(0), frame(1), frame(2))
    assert desk.take(8) == []
    desk.put(1, frame(0))
    desk.now = 10 * intake.PATIENCE_SECONDS
    assert desk.take(8) == [(0, 0), (1, 0)]
    assert desk.take(8) == []  # counted from its last turn
    desk.put(1, frame(1))
    assert desk.take(8) == [(0, 1), (1, 1)]
    desk.intake.end(1)
    assert desk.take(8) == [(0, 2)]


def test_a_recording_that_hangs_is_not_waited_for_and_cameras_never_are() -> None:
    desk = Desk(False, False, level=True)
    desk.put(0, frame(0))
    desk.now = intake.PATIENCE_SECONDS
    assert desk.take(8) == [(0, 0)]
    desk = Desk(False, True, level=True)
    desk.put(0, frame(0))
    assert desk.take(8) == [(0, 0)]


def test_a_waiting_take_gives_a_recording_up_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "PATIENCE_SECONDS", 0.05)
    waiting = Intake(2, depth=4, dropped=lambda feed, cause: None, level=True)
    taken: list[Taken] = []
    taker = threading.Thread(target=lambda: taken.append(waiting.take(1)), daemon=True)
    taker.start()
    waiting.put(0, frame(0))
    taker.join(5)
    assert [number for one in taken for number, _ in one.frames] == [0]


def test_a_live_frame_that_is_too_old_is_left_out_and_a_recorded_one_never() -> None:
    desk = Desk(True, False, max_age=0.5)
    desk.put(0, frame(0, captured_at=0.0))
    desk.put(1, frame(0, captured_at=0.0))
    desk.now = 0.6
    assert desk.take(8) == [(1, 0)]
    assert desk.drops == {(0, LATE): 1}
    desk.put(0, frame(1, captured_at=0.1))
    assert desk.take(8) == [(0, 1)]


def test_the_end_of_a_feed_comes_after_its_last_frame_and_the_end_of_all_after_that() -> None:
    desk = Desk(False, False)
    desk.put(0, frame(0))
    desk.intake.end(0)
    first = desk.intake.take(1)
    assert ([feed for feed, _ in first.frames], first.ended) == ([0], [0])
    desk.intake.end(1)
    assert desk.intake.take(1).ended == [1]
    with pytest.raises(EndOfStream):
        desk.intake.take(1)


def test_close_hands_out_what_is_inside_and_cancel_does_not() -> None:
    for end, indices in (("close", [0, 1]), ("cancel", [])):
        desk = Desk(False, depth=2)
        desk.put(0, frame(0), frame(1))
        threading.Timer(0.02, getattr(desk.intake, end)).start()
        for late in (2, 3):  # one that waits for room, and one that comes afterwards
            with pytest.raises(ChannelClosed):
                desk.put(0, frame(late))
        assert [one.index for _, one in desk.intake.take(8).frames] == indices


def test_the_first_frame_can_be_looked_at_before_it_is_taken() -> None:
    desk = Desk(True)
    desk.put(0, frame(7))
    assert desk.intake.first().index == 7
    assert desk.take() == [(0, 7)]
    two = Desk(True, True)
    two.intake.end(0)
    threading.Timer(0.02, two.put, (1, frame(8))).start()
    assert two.intake.first().index == 8  # for which the end of the other is none
    threading.Timer(0.02, desk.intake.end, (0,)).start()
    with pytest.raises(EndOfStream):
        desk.intake.first()


def test_in_turns_those_are_looked_at_that_have_begun_and_are_not_over_and_the_end_is_that_of_all() -> None:
    intake = Intake(5, depth=4, dropped=lambda feed, cause: None, in_turns=True)
    looked_at = [[*intake._playing()]]
    intake.end(0)  # it could not be opened
    for number in (1, 2):
        intake.opened(number, live=False)
        intake.put(number, frame(0))
        intake.end(number)
    looked_at.append([*intake._playing()])
    taken = intake.take(1)
    assert ([feed for feed, _ in taken.frames], taken.ended) == ([1], [0, 1])
    looked_at.append([*intake._playing()])
    intake.close()
    intake.opened(3, live=False)
    taken = intake.take(1)
    assert ([feed for feed, _ in taken.frames], taken.ended) == ([2], [2, 3, 4])
    with pytest.raises(EndOfStream):
        intake.take(1)
    assert looked_at == [[], [0, 1, 2], [2]]
