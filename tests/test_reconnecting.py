"""Watched and Reconnecting with sources that do what is asked of them: time-outs, back-off, clocks, threads."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

import pytest

from stream_seg.addresses import backoff
from stream_seg.addresses.backoff import delay_before
from stream_seg.channel import Channel
from stream_seg.errors import Reason, SourceError
from stream_seg.frame import Frame
from stream_seg.protocols import Source
from stream_seg.sources import Clip, Reconnecting, Synthetic, Watched, clip, reconnecting, watched
from tests.source_contract import check_contract
from tests.source_counts import descriptors, readers, readers_end, until
from tests.source_files import SIZE
from tests.source_flaky import Connection, Flaky, frame, frames, hanging
from tests.source_viewer import Viewer


@pytest.fixture(autouse=True)
def hardly_any_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(backoff, "LONGEST_DELAY", 0.02)


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What ends all hanging reads, at the latest when the test is over; until then nobody waits for them for long."""
    monkeypatch.setattr(watched, "JOIN_SECONDS", 0.1)
    event = threading.Event()
    yield event
    event.set()
    assert readers_end()


# Watched


def test_a_watched_source_keeps_the_contract() -> None:
    check_contract(lambda: Watched(Synthetic((64, 48), Fraction(25), 10)))
    check_contract(lambda: Watched(Synthetic((64, 48), Fraction(200), None, live=True)))


def test_an_answer_that_does_not_come_is_a_time_out(release: threading.Event) -> None:
    class Mute(Connection):
        def _open(self) -> None:
            release.wait()

    mute = Mute(frames(1), None)
    watched = Watched(mute, open_timeout=0.1)
    with pytest.raises(SourceError, match=r"door did not answer within 0\.1 s") as caught:
        watched.__enter__()
    assert caught.value.reason is Reason.TIMEOUT
    assert watched.hangs
    release.set()
    assert until(lambda: not watched.hangs)
    assert mute.released


def test_a_read_that_hangs_is_a_stall_and_its_thread_ends_when_it_returns(release: threading.Event) -> None:
    source = Flaky(hanging(release))()
    with Watched(source, stall_timeout=0.1) as watched:
        taken = iter(watched)
        next(taken)
        with pytest.raises(SourceError, match=r"door sent no new frame for 0\.1 s") as caught:
            next(taken)
        assert caught.value.reason is Reason.STALLED
    assert watched.hangs
    release.set()
    assert until(lambda: not watched.hangs)


def test_a_reader_that_hangs_is_waited_for_once_however_often_it_is_left(
    release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    source = Watched(Flaky(hanging(release))())
    with source:
        join = source._reader.join
        monkeypatch.setattr(source._reader, "join", lambda seconds: (waits.append(seconds), join(seconds)))
    source.__exit__(None, None, None)
    assert source.hangs
    assert 0.05 < waits[0] <= 0.1
    assert waits[1:] == [0.0]


def test_the_processor_time_of_all_readers_adds_up() -> None:
    def working(_: Connection) -> Iterator[Frame]:
        while time.thread_time() < 0.05:
            pass
        yield frame(0)

    before = time.process_time()
    with Clip(Reconnecting(Flaky(working))) as source:
        assert len(list(itertools.islice(source, 3))) == 3
    assert 0.15 <= source.worked <= time.process_time() - before


def test_a_wait_for_a_frame_ends_at_once_when_it_is_closed(release: threading.Event) -> None:
    with Watched(Flaky(hanging(release))(), stall_timeout=20) as watched:
        taken = iter(watched)
        next(taken)
        threading.Timer(0.05, watched.close).start()
        began = time.monotonic()
        assert list(taken) == []
        assert time.monotonic() - began < 2


def test_a_live_source_is_never_held_up_and_the_newest_frames_count() -> None:
    with Watched(Flaky(frames(50, every=0.001))()) as watched:
        taken = iter(watched)
        next(taken)
        assert until(lambda: not watched.hangs)  # all 50 were taken from it, though nobody took them here
        rest = [taken.index for taken in taken]
    assert rest[-1] == 49
    assert len(rest) + 1 + watched.dropped == 50
    assert len(rest) < 5


def test_a_slow_consumer_of_a_recording_loses_nothing_and_is_no_stall() -> None:
    with Watched(Flaky(frames(8), kind="video")(), stall_timeout=0.2) as watched:
        numbers = []
        for taken in watched:
            if taken.index in (1, 4):
                time.sleep(0.3)
            numbers.append(taken.index)
    assert numbers == list(range(8))


def test_time_for_which_the_process_was_stopped_is_no_stall_of_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits has waited long enough when it goes on, before the reader could bring anything."""
    waited: list[float | None] = []
    take = Channel.take

    def stopped(channel: Channel[Frame], limit: int, timeout: float | None = None) -> list[Frame]:
        waited.append(timeout)
        return [] if len(waited) == 3 else take(channel, limit, timeout)

    with Watched(Flaky(frames(8), kind="video")(), stall_timeout=5) as watched:
        monkeypatch.setattr(Channel, "take", stopped)
        assert [taken.index for taken in watched] == list(range(8))
    assert len(waited) > 8


def test_time_spent_elsewhere_counts_as_waiting_for_a_live_source(release: threading.Event) -> None:
    with Watched(Flaky(hanging(release))(), stall_timeout=0.3) as watched:
        taken = iter(watched)
        next(taken)
        time.sleep(0.35)
        began = time.monotonic()
        with pytest.raises(SourceError, match="sent no new frame"):
            next(taken)
        assert time.monotonic() - began < 0.2


def test_the_hand_over_takes_a_small_part_of_a_frame_period() -> None:
    with Watched(Synthetic((64, 48), Fraction(100), 40, live=True)) as watched:
        delays = sorted(time.monotonic() - taken.captured_at for taken in watched)
    assert delays[len(delays) // 2] < 0.005


def test_what_goes_wrong_in_the_reader_is_raised_by_the_iteration() -> None:
    def broken(_: Connection) -> Iterator[Frame]:
        yield frame(0)
        raise ZeroDivisionError

    with Watched(Flaky(broken)()) as watched, pytest.raises(ZeroDivisionError):
        list(watched)


# Reconnecting


def test_a_reconnecting_source_keeps_the_contract() -> None:
    check_contract(lambda: Reconnecting(lambda _: Synthetic((64, 48), Fraction(200), None, live=True)))
    check_contract(lambda: Reconnecting(Flaky(Reason.REFUSED, frames(3), frames(500))))


def test_the_delay_doubles_up_to_half_a_minute_and_is_shortened_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    delays = [delay_before(tries, Reason.REFUSED, 0.0) for tries in range(9)]
    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert delay_before(10**6, Reason.REFUSED, 1.0) == 15
    assert delay_before(0, Reason.REFUSED, 1.0) == 0.25
    assert delay_before(0, Reason.AUTHENTICATION, 0.0) == 30


def test_frames_go_on_through_outages_with_one_clock_and_growing_numbers() -> None:
    flaky = Flaky(frames(4), frames(5, then=Reason.STALLED), Reason.REFUSED, frames(10**6, size=(32, 24)))
    with Reconnecting(flaky) as source:
        taken = list(itertools.islice(source, 20))
        assert source.info.size == SIZE
        assert (source.info.kind, source.name) == ("live", "door")
    assert all(before.index < after.index for before, after in pairwise(taken))
    assert all(before.pts < after.pts for before, after in pairwise(taken))
    assert taken[0].pts == 0
    assert taken[-1].size == (32, 24)
    assert all(abs(float(f.pts) - (f.captured_at - taken[0].captured_at)) < 1e-3 for f in taken)
    assert len(flaky.made) == 4
    assert all(connection.released for connection in flaky.made)


def test_a_live_playlist_that_was_closed_is_not_seen_again_as_a_recording() -> None:
    made: list[Connection] = []

    def make(_: float) -> Connection:
        made.append(Connection(frames(3), None, "video" if made else "live"))
        return made[-1]

    with Reconnecting(make, attempts=2) as source:
        taken = iter(source)
        assert [next(taken).index for _ in range(3)] == [0, 1, 2]
        with pytest.raises(SourceError, match=r"door ended the stream \(tried again 2 times\)"):
            next(taken)
        assert source.availability.outage is not None
    assert len(made) == 3
    assert all(connection.released for connection in made)


def test_a_source_that_cannot_be_made_leaves_the_figures_as_they_are() -> None:
    made = 0

    def make(_: float) -> Connection:
        nonlocal made
        made += 1
        if 2 <= made <= 4:
            raise SourceError("cannot read passwords")
        connection = Connection(frames(2), None)
        connection.damaged = 3
        return connection

    with Reconnecting(make) as source:
        damaged = [source.damaged for _ in itertools.islice(source, 4)]
    assert made == 5
    assert damaged == [3, 3, 6, 6]


def test_availability_tells_of_each_outage() -> None:
    source = Reconnecting(Flaky(Reason.REFUSED, Reason.TIMEOUT, frames(3, then=Reason.CODEC), frames(10**6)))
    with Viewer(source) as viewer:
        assert viewer.sees(8)
        availability = source.availability
        assert availability.outage is None
        assert availability.counts == {Reason.REFUSED: 1, Reason.CODEC: 1}
        assert availability.seconds_away > 0.02


def test_an_outage_tells_of_its_tries_and_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "LONGEST_DELAY", 30.0)
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.01)
    with Viewer(Reconnecting(Flaky(Reason.REFUSED, Reason.AUTHENTICATION))) as viewer:
        assert viewer.away(Reason.AUTHENTICATION)
        outage = viewer.availability.outage
        assert outage is not None
        assert outage.attempts == 1
        assert 10 < (outage.retry_at or 0) - time.monotonic() <= 30
        began = time.monotonic()
    assert time.monotonic() - began < 1  # leaving does not wait for the try


def test_the_log_says_each_reason_once_and_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    acts = (Reason.TIMEOUT, Reason.REFUSED, Reason.REFUSED, Reason.TIMEOUT, frames(2), Reason.REFUSED, frames(10**6))
    with caplog.at_level(logging.INFO, "stream_seg"), Reconnecting(Flaky(*acts)) as source:
        taken = iter(source)
        list(itertools.islice(taken, 3))
        source.close()
        assert not list(taken)
    assert all(float(message.split()[-2]) < 60 for message in caplog.messages if "is back" in message)
    said = [message.partition(" in 0.")[0].partition(" after ")[0] for message in caplog.messages]
    assert said == [
        "door is timeout; sorry (timeout; trying again",
        "door is refused; sorry (refused; trying again",
        "door is back",
        "door ended the stream (ended; trying again",
        "door is refused; sorry (refused; trying again",
        "door is back",
    ]


def test_tries_in_a_row_are_counted_and_the_last_failure_raised() -> None:
    flaky = Flaky(frames(2), Reason.STALLED, Reason.REFUSED)
    refusal = r"door is refused; sorry \(tried again 3 times\)"
    with Reconnecting(flaky, attempts=3) as source, pytest.raises(SourceError, match=refusal) as caught:
        list(source)
    assert caught.value.reason is Reason.REFUSED
    assert len(flaky.made) == 1 + 3


def test_frames_for_a_while_begin_the_count_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnecting, "STEADY_SECONDS", 0.0)
    flaky = Flaky(*[frames(6, every=0)] * 3, Reason.REFUSED)
    taken: list[int] = []

    def take_slowly(source: Reconnecting) -> None:
        for one in source:
            taken.append(one.index)
            time.sleep(0.003)

    with Reconnecting(flaky, attempts=1) as source, pytest.raises(SourceError, match="once"):
        take_slowly(source)
    assert len(flaky.made) == 3 + 1
    assert taken == sorted(set(taken))
    assert source.dropped > 0
    assert len(taken) + source.dropped == 3 * 6


def test_connections_that_bring_hardly_a_frame_are_tries_in_a_row() -> None:
    flaky = Flaky(frames(1))
    with Reconnecting(flaky, attempts=3) as source, pytest.raises(SourceError, match="ended the stream"):
        list(source)
    assert len(flaky.made) == 4


def test_no_tries_mean_errors_and_ends_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SourceError, match=r"door is refused; sorry$"):
        Reconnecting(Flaky(Reason.REFUSED), attempts=0).__enter__()
    with caplog.at_level(logging.INFO, "stream_seg"), Reconnecting(Flaky(frames(3)), attempts=0) as source:
        assert len(list(source)) == 3
        assert caplog.messages == ["door ended the stream"]
    with caplog.at_level(logging.INFO, "stream_seg"), Reconnecting(Flaky(frames(10**6)), attempts=0) as source:
        taken = iter(source)
        next(taken)
        source.close()
        assert not list(taken)
    assert len(caplog.messages) == 1
    with Reconnecting(Flaky(frames(3, then=Reason.STALLED)), attempts=0) as source, pytest.raises(SourceError):
        list(source)


def test_a_source_that_has_to_be_there_at_the_start_is_not_waited_for() -> None:
    flaky = Flaky(Reason.NOT_FOUND, frames(3))
    with pytest.raises(SourceError, match=r"door is not found; sorry$"):
        Reconnecting(flaky, at_start=False).__enter__()
    assert len(flaky.made) == 1
    with Reconnecting(Flaky(frames(2), Reason.NOT_FOUND, frames(9)), at_start=False) as source:
        assert len(list(itertools.islice(source, 5))) == 5


def test_a_recording_is_passed_through_and_never_opened_again() -> None:
    flaky = Flaky(frames(6), kind="video")
    with Reconnecting(flaky) as source:
        taken = list(source)
    assert [f.pts for f in taken] == [Fraction(number, 25) for number in range(6)]
    assert len(flaky.made) == 1
    flaky = Flaky(frames(2, then=Reason.STALLED), kind="video")
    with Reconnecting(flaky) as source, pytest.raises(SourceError, match="stalled"):
        list(source)
    assert not source.availability.counts


def test_a_recording_that_was_waited_for_is_no_longer_away_once_it_comes() -> None:
    with Reconnecting(Flaky(Reason.REFUSED, frames(6), kind="video")) as source:
        assert source.availability.outage is not None
        assert [source.availability.outage for _ in source] == [None] * 6
    assert source.availability.counts == {Reason.REFUSED: 1}


def test_a_camera_that_was_there_before_stays_unplugged_rather_than_missing() -> None:
    acts = (frames(2, then=Reason.UNPLUGGED), Reason.NOT_FOUND)
    with Viewer(Reconnecting(Flaky(*acts))) as viewer:
        assert until(lambda: (viewer.availability.outage or 0) and viewer.availability.outage.attempts > 2)
        assert viewer.reason is Reason.UNPLUGGED
    with Viewer(Reconnecting(Flaky(frames(2, then=Reason.STALLED), Reason.NOT_FOUND))) as viewer:
        assert viewer.away(Reason.NOT_FOUND)


@pytest.mark.parametrize("at", ["start", "later"])
def test_closing_ends_the_wait_for_the_next_try(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_DELAY", 30.0)
    monkeypatch.setattr(backoff, "LONGEST_DELAY", 30.0)
    flaky = Flaky(Reason.REFUSED) if at == "start" else Flaky(frames(2, then=Reason.STALLED))
    with Viewer(Reconnecting(flaky)) as viewer:
        assert until(lambda: viewer.reason is not None)
        began = time.monotonic()
        viewer.source.close()
        assert viewer.ended()
        assert time.monotonic() - began < 2
        assert len(flaky.made) == 1
        if at == "start":
            assert str(viewer.error) == "door was closed before it answered"
            viewer.error = None


@pytest.mark.parametrize("at", ["start", "later"])
def test_closing_ends_a_try_under_way_without_a_word(at: str, caplog: pytest.LogCaptureFixture) -> None:
    trying = threading.Event()
    made: list[Connection] = []

    class Mute(Connection):
        def _open(self) -> None:
            trying.set()
            self.wait(60)
            raise SourceError("door does not answer")

    def make(_: float) -> Connection:
        made.append((Mute if made or at == "start" else Connection)(frames(2), None))
        return made[-1]

    with Viewer(Reconnecting(make, attempts=1)) as viewer:
        assert trying.wait(10)
        outage, said = viewer.availability.outage, list(caplog.messages)
        assert (outage is not None) == (at == "later")
        assert outage is None or outage.retry_at is None
        viewer.source.close()
        assert viewer.ended()
        assert (viewer.error is None) == (at == "later")
        viewer.error = None
    assert caplog.messages == said
    assert isinstance(made.pop(), Mute)
    assert len(made) == (at == "later")


def test_a_hung_reader_is_left_behind_but_never_more_than_two(release: threading.Event) -> None:
    flaky = Flaky(hanging(release))
    with Viewer(Reconnecting(flaky, open_timeout=0.05, stall_timeout=0.05)) as viewer:
        assert until(lambda: len(readers()) == 2)
        assert not until(lambda: len(flaky.made) > 2, 0.4)
        assert len(readers()) == 2
        assert viewer.reason is Reason.STALLED
        release.set()
        assert until(lambda: len(flaky.made) > 4)


def test_a_hung_reader_counts_once_however_often_the_next_source_cannot_be_made(release: threading.Event) -> None:
    flaky = Flaky(hanging(release), frames(10**6))
    refused = 0

    def make(patience: float) -> Source:
        nonlocal refused
        if flaky.made and refused < 3:
            refused += 1
            raise SourceError("cannot read passwords")
        return flaky(patience)

    with Viewer(Reconnecting(make, open_timeout=0.05, stall_timeout=0.05)) as viewer:
        assert viewer.sees(3)
    assert refused == 3


def test_a_hung_reader_that_returns_soon_is_waited_for(release: threading.Event) -> None:
    flaky = Flaky(hanging(release), frames(10**6))
    with Viewer(Reconnecting(flaky, open_timeout=20, stall_timeout=0.05)) as viewer:
        assert viewer.away(Reason.STALLED)
        assert not until(lambda: len(flaky.made) > 1, 0.3)
        release.set()
        assert viewer.sees(3)
        assert len(readers()) == 1


def test_a_try_that_is_not_answered_costs_little_but_a_slow_source_gets_its_time() -> None:
    acts = [frames(2), Reason.REFUSED, Reason.TIMEOUT, Reason.TIMEOUT, Reason.TIMEOUT, frames(2), Reason.ENDED]
    flaky = Flaky(*acts, frames(10**6))
    source = Reconnecting(flaky)
    with Viewer(source) as viewer:
        assert until(lambda: len(flaky.made) == 8 or viewer.error is not None)
        assert viewer.sees(5)
    assert flaky.patience == [10, 3, 3, 6, 10, 10, 3, 3]
    source._unanswered = 10**6  # a camera that is away for a year
    assert source._patience() == 10


def test_the_first_try_that_is_not_answered_is_followed_by_the_next_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[tuple[int, Reason]] = []

    def noted(tries: int, reason: Reason, _drawn: float) -> float:
        counted.append((tries, reason))
        return 0.0

    monkeypatch.setattr(reconnecting, "delay_before", noted)
    reasons = [Reason.REFUSED] * 3 + [Reason.TIMEOUT] * 2 + [Reason.REFUSED]
    with Viewer(Reconnecting(Flaky(*reasons, frames(10**6)))) as viewer:
        assert viewer.sees(5)
    assert [tries for tries, _ in counted] == [0, 1, 2, 0, 1, 5]
    assert [reason for _, reason in counted] == reasons


def test_a_source_that_took_long_to_answer_may_take_thrice_as_long_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow(Connection):
        def _open(self) -> None:
            time.sleep(0.05)
            super()._open()

    given: list[float] = []

    def make(patience: float) -> Connection:
        given.append(patience)
        return Slow(frames(2), None)

    monkeypatch.setattr(reconnecting, "FIRST_PATIENCE", 0.01)
    with Viewer(Reconnecting(make, open_timeout=20)):
        assert until(lambda: len(given) > 1)
    assert given[0] == 20
    assert 0.15 <= given[1] < 20


def test_the_last_of_counted_tries_gets_all_the_time_there_is() -> None:
    flaky = Flaky(frames(2), Reason.TIMEOUT)
    with Viewer(Reconnecting(flaky, attempts=2)) as viewer:
        assert viewer.ended()
        viewer.error = None
    assert flaky.patience == [10, 3, 10]


def test_hundreds_of_outages_leave_no_thread_and_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_DELAY", 0.0)
    before = descriptors(), threading.active_count()
    flaky = Flaky(*[frames(2, every=0.0), Reason.REFUSED] * 150, frames(10**6))
    with Viewer(Reconnecting(flaky)) as viewer:
        assert until(lambda: len(flaky.made) > 300 or viewer.error is not None, 30)
        assert viewer.sees(5)
        assert len(readers()) == 1
    assert readers_end()
    assert (descriptors(), threading.active_count()) == before


def test_what_is_no_failure_of_the_source_ends_everything() -> None:
    def broken(_: Connection) -> Iterator[Frame]:
        yield frame(0)
        raise ZeroDivisionError

    with Reconnecting(Flaky(broken)) as source, pytest.raises(ZeroDivisionError):
        list(source)


def test_a_part_of_a_source_tells_of_the_outages_of_the_whole() -> None:
    whole = Reconnecting(Flaky(frames(2), frames(100)))
    with Clip(whole, max_frames=4) as part:
        assert len(list(part)) == 4
        assert part.availability is whole.availability
        assert part.availability.counts == {Reason.ENDED: 1}
        assert (part.name, part.dropped) == ("door", whole.dropped)
    assert Clip(Synthetic((16, 16))).availability is None


def test_a_part_of_a_camera_ends_in_time_even_if_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip, "WAIT_SECONDS", 0.1)
    began = time.monotonic()
    with Clip(Reconnecting(Flaky(frames(3), Reason.REFUSED)), end=Fraction(1, 10)) as part:
        assert [one.index for one in part] == [0, 1, 2]
    assert 0.2 <= time.monotonic() - began < 5


def test_a_part_of_a_camera_that_ends_sooner_leaves_no_alarm() -> None:
    with Clip(Reconnecting(Flaky(frames(100))), end=Fraction(3600), max_frames=2) as part:
        assert len(list(part)) == 2
