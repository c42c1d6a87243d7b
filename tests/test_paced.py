"""A recording beside cameras: every frame, none before its time; what is live passes as it comes."""

from __future__ import annotations

import threading
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream_seg.frame import Kind
from stream_seg.sources import ListSource, open_source
from stream_seg.sources.paced import Paced

IMAGES = [np.full((2, 2, 3), number, np.uint8) for number in range(6)]


class Turned:
    """A clock, and the waits that turn it."""

    def __init__(self) -> None:
        self.now = 50.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return False


def paced(kind: Kind, clock: Turned, monkeypatch: pytest.MonkeyPatch) -> Paced:
    source = Paced(ListSource(IMAGES, rate=Fraction(10), kind=kind), clock)
    monkeypatch.setattr(source._stopping, "wait", clock.wait)
    return source


def test_each_frame_is_handed_out_when_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Turned()
    with paced("video", clock, monkeypatch) as source:
        moments = [(frame.index, round(clock.now - 50, 6), frame.captured_at == clock.now) for frame in source]
        assert source.waited == pytest.approx(0.5)
    assert moments == [(number, number / 10, True) for number in range(6)]


def test_a_recording_that_falls_behind_goes_on_from_there_without_a_rush(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Turned()
    seen = []
    with paced("video", clock, monkeypatch) as source:
        for frame in source:
            seen.append(frame.index)
            if frame.index == 2:
                clock.now += 3  # the model was busy
    assert seen == list(range(6))
    assert clock.waits[4:] == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize("kind", ["live", "images"])
def test_what_is_no_recording_passes_as_it_comes(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Turned()
    with paced(kind, clock, monkeypatch) as source:
        assert [frame.index for frame in source] == list(range(6))
    assert clock.waits == []


def test_numbered_images_are_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, pixels in enumerate(IMAGES):
        cv2.imwrite(str(tmp_path / f"{number}.png"), pixels)
    clock = Turned()
    source = Paced(open_source(tmp_path / "%d.png", sequence_rate=10), clock)
    monkeypatch.setattr(source._stopping, "wait", clock.wait)
    with source:
        assert [(frame.index, round(clock.now - 50, 6)) for frame in source] == [(n, n / 10) for n in range(6)]


def test_closing_ends_the_wait_for_the_next_frame() -> None:
    source = Paced(ListSource(IMAGES, rate=Fraction(1, 60)))
    with source:
        frames = iter(source)
        assert next(frames).index == 0
        threading.Timer(0.05, source.close).start()
        assert next(frames, None) is None
