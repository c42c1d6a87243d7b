"""Memory of long runs: two heaps, trimmed now and then, and nothing at all where the C library has no such thing."""

from __future__ import annotations

import sys

import pytest

from stream_seg import heap
from stream_seg.cli import memory
from stream_seg.cli.memory import TRIM_SECONDS, Trimmer


def test_it_trims_when_it_is_time_and_never_stops_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now, trims = [100.0], []
    monkeypatch.setattr(memory, "trim", lambda: trims.append(now[0]))
    trimmer = Trimmer(lambda: now[0])
    for _ in range(5):
        assert trimmer.wants_stop() is False
        now[0] += TRIM_SECONDS / 2
    assert trims == [100 + TRIM_SECONDS, 100 + 2 * TRIM_SECONDS]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_the_functions_it_needs_are_those_of_the_c_library() -> None:
    trim = heap._of_glibc("malloc_trim")
    assert trim is None or trim(0) in (0, 1)
    assert heap._of_glibc("no_such_function") is None
    heap.limit_heaps()
    heap.trim()


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert heap._of_glibc("malloc_trim") is None
    heap.limit_heaps()
    heap.trim()
    assert Trimmer(lambda: 1e9).wants_stop() is False
