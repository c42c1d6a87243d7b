"""Fixtures every test gets: no thread of ours survives, skips cannot hide, the built-in model is loaded once."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnxruntime
import pytest
from hypothesis import settings

from stream_seg.segmenters import session

BUILT_IN = Path(__file__).parents[1] / "models" / "compact"

LONGEST = ("window", "graph_export", "sinks_distant", "graph", "segmenters", "sources_network", "sinks_video", "cli")
"""Files that take longest, after those with a longer timeout."""

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")  # on a busy machine, anything takes longer now and then

# Many tests start the program, and each process would compile it again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="fail, instead of skip, where programs are missing")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file without a test of its own for `-m alone`: it would take a third of the time that those take."""
    only_alone = config.getoption("markexpr") == "alone" and collection_path.suffix == ".py"
    return True if only_alone and "mark.alone" not in collection_path.read_text(encoding="utf-8") else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that none is left over when the other processes have ended."""
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}

    def place(item: pytest.Item) -> tuple[float, int]:
        timeout = max([mark.args[0] for mark in item.parent.iter_markers("timeout")], default=0)
        return -timeout, places.get(item.path.stem, len(places))

    items.sort(key=place)


def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = [name for mark in item.iter_markers("needs") for name in mark.kwargs["missing"]]
    if missing:
        report = pytest.fail if item.config.getoption("--no-skips") else pytest.skip
        report(f"needs {', '.join(missing)}")


@pytest.fixture(scope="session", autouse=True)
def what_was_set_aside_is_looked_at_in_the_end() -> Iterator[None]:
    """For what is left open in cycles of objects that nobody holds any more; what pytest does then tells of it."""
    yield
    gc.unfreeze()


@pytest.fixture(scope="module", autouse=True)
def what_is_there_already_is_set_aside() -> None:
    """Collections of garbage skip the modules of all files and of PyTorch: each would take most of its time for them.

    What the tests before have left is collected first, and so told of as it was, by what it left open.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_thread_survives() -> Iterator[None]:
    """Fail a test that leaves a thread of ours behind."""
    yield
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("stream-seg")]
    assert left == []


@pytest.fixture
def in_a_terminal() -> Iterator[None]:
    """No signal is ignored, as those of terminals are by what runs under nohup or in the background."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    ignored = [one for one in numbers if signal.getsignal(one) == signal.SIG_IGN]
    for one in ignored:
        signal.signal(one, signal.default_int_handler if one == signal.SIGINT else signal.SIG_DFL)
    yield
    for one in ignored:
        signal.signal(one, signal.SIG_IGN)


@pytest.fixture(scope="session", autouse=True)
def sessions_of_the_built_in_model_are_shared() -> Iterator[None]:
    """Load its files once for each way to run them, not in each test: ONNX Runtime's sessions keep nothing of a run."""
    load, loaded = session._load, {}

    def shared(
        path: Path, options: onnxruntime.SessionOptions, providers: Sequence[session.Provider]
    ) -> onnxruntime.InferenceSession:
        if path.resolve().parent != BUILT_IN:
            return load(path, options, providers)
        way = path.name, options.intra_op_num_threads, str(providers)
        if way not in loaded:
            loaded[way] = load(path, options, providers)
        return loaded[way]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "_load", shared)
        yield
