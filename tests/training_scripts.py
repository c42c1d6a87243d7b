"""The scripts of scripts/train in the process of the tests, which saves them from loading PyTorch again each time."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import cv2
import pytest

FOLDER = Path(__file__).parents[1] / "scripts" / "train"


def needing(*packages: str, seconds: int = 120) -> list[pytest.MarkDecorator]:
    """Marks of tests that are skipped where one of these packages is missing, and may take so long each."""
    return [
        pytest.mark.needs(missing=[package for package in packages if find_spec(package) is None]),
        pytest.mark.filterwarnings("ignore"),  # of other people's imports
        pytest.mark.timeout(seconds),
    ]


@contextlib.contextmanager
def importable() -> Iterator[None]:
    """Their modules can be imported by name, as when one of them is run; forgotten afterwards."""
    others = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path[:] = [folder for folder in sys.path if not folder.startswith(str(FOLDER.parent))]
    for name in set(sys.modules) - others:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent in (FOLDER, FOLDER.parent):
            sys.modules.pop(name)


def run(script: str, *arguments: str | Path) -> str:
    """What a script, given by its module's name, prints when it is called with these arguments; it must succeed."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, settings_kept(), contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
        importlib.import_module(script).main()
    return printed.getvalue()


@contextlib.contextmanager
def settings_kept() -> Iterator[None]:
    """PyTorch on one thread; what the scripts set for a process that ends with them is put back."""
    import torch

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    places = [(cudnn, "benchmark"), (cudnn, "allow_tf32"), (matmul, "allow_tf32")]
    settings = [(place, name, getattr(place, name)) for place, name in places]
    threads, opencv_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)  # on small pictures, threads wait for each other longer than they work
    try:
        with torch.random.fork_rng():
            yield
    finally:
        cv2.setNumThreads(opencv_threads)
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
        for place, name, value in settings:
            setattr(place, name, value)
