"""What is seen of a run while it goes on: a bar in a terminal, a line a minute elsewhere."""

from __future__ import annotations

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
