"""What is seen of a run while it goes on: a bar in a terminal, a line a minute elsewhere."""

from __future__ import annotations

import dataclasses
import logging
import sys

import pytest

from stream_seg.cli.console import LINE_SECONDS, Progress
from stream_seg.metrics import Metrics
from stream_seg.protocols import Outcome
from tests.sink_films import CFR, NOTHING, frames, info


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What --verbose prints."""
    caplog.set_level(logging.DEBUG, "stream_seg")
    return caplog


def test_without_a_terminal_a_line_a_minute_tells_the_figures(log: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    metrics = Metrics(["door", "yard"], clock=lambda: now[0])
    progress = Progress(metrics, clock=lambda: now[0])
    now[0] += 3 * LINE_SECONDS  # the model was downloaded
    assert progress.wants_stop() is False
    assert log.messages == []
    now[0] += LINE_SECONDS  # nothing has come yet, and nothing is open
    assert progress.wants_stop() is False
    assert log.messages.pop() == "0.0 fps over 60 s; in all 0 captured, 0 delivered, 0 dropped; 0 objects"
    log.clear()
    progress.open(info())
    for number, frame in enumerate(frames(CFR[:30])):
        metrics.feeds[number % 2].captured += 1
        progress.write(frame, NOTHING)
        metrics.frame_delivered(number % 2, now[0] - 0.04, ["person", "dog"])
        assert progress.wants_stop() is False
    metrics.feeds[0].captured += 1
    metrics.feeds[0].dropped["late"] += 1
    assert log.messages == []
    now[0] += 2 * LINE_SECONDS  # as after Ctrl-Z
    progress.wants_stop()
    progress.wants_stop()
    line = "over 120 s; latency 40 ms; in all 31 captured, 30 delivered, 1 dropped; 60 objects"
    assert log.messages == [f"0.2 fps {line}"]
    log.clear()
    now[0] += LINE_SECONDS  # without a frame there is no latency
    progress.wants_stop()
    assert log.messages == ["0.0 fps over 60 s; in all 31 captured, 30 delivered, 1 dropped; 60 objects"]
    progress.close(Outcome.COMPLETE)
    progress.close(Outcome.COMPLETE)


def test_in_a_terminal_there_is_a_bar_instead(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    now = [100.0]
    progress = Progress(Metrics(), clock=lambda: now[0])
    progress.open(info())
    assert progress.wants_stop() is False
    now[0] += LINE_SECONDS
    assert progress.wants_stop() is False
    assert log.messages == []
    progress.close(Outcome.COMPLETE)


def test_of_films_in_turns_a_bar_tells_which_it_is_and_how_much_there_is_of_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    counts = {"a": 9, "b": 0, "c": 6, "d": 5}
    films = [dataclasses.replace(info(), name=name, frame_count=count) for name, count in counts.items()]
    progress = Progress(Metrics(list(counts)), films)

    def do(film: int, count: int) -> str:
        progress.open(films[film])
        for frame in frames(CFR[:count]):
            progress.write(frame, NOTHING)
        assert progress._bar is not None
        progress._bar.refresh()
        progress.close(Outcome.COMPLETE)
        return capsys.readouterr().err.split("\r")[-1]

    first, third = do(0, 7), do(2, 6)  # two frames less than were promised; of the second none, it cannot be read
    assert first.startswith("1 of 4: ")
    assert " 7/20 " in first
    assert third.startswith("3 of 4: ")
    assert " 13/18 " in third
    films[3] = dataclasses.replace(films[3], frame_count=None)
    assert do(3, 2).startswith("4 of 4: 15frame")
    progress.close(Outcome.FAILED)
