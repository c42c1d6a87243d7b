"""Fixtures every test gets: no thread of ours survives, and skips cannot hide."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="fail, instead of skip, where programs are missing")


def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = [name for mark in item.iter_markers("needs") for name in mark.kwargs["missing"]]
    if missing:
        report = pytest.fail if item.config.getoption("--no-skips") else pytest.skip
        report(f"needs {', '.join(missing)}")


@pytest.fixture(autouse=True)
def no_thread_survives() -> Iterator[None]:
    """Fail a test that leaves a thread of ours behind."""
    yield
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("stream-seg")]
    assert left == []
