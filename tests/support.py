"""What tests share: skips that cannot hide, and tolerances with their reasons."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec

import pytest


def requires(*programs: str) -> pytest.MarkDecorator:
    """Mark a test that needs executables a machine may lack; with `--no-skips`, as in CI, it then fails."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.needs(missing=missing)


Options = ParamSpec("Options")
MakesFile = Callable[Concatenate[Path, Options], Path]


def made_once(make: MakesFile[Options]) -> MakesFile[Options]:
    """A function that makes a file: asked for the same again, it copies what it has made, which encodes nothing."""
    made: dict[tuple[str, str], bytes] = {}

    @wraps(make)
    def copied(path: Path, *args: Options.args, **options: Options.kwargs) -> Path:
        asked = path.suffix, repr((args, sorted(options.items())))
        if asked in made:
            path.write_bytes(made[asked])
        else:
            made[asked] = make(path, *args, **options).read_bytes()
        return path

    return copied


needs_limits = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit on the size of files")


@contextlib.contextmanager
def file_limit(length: int) -> Iterator[None]:
    """No file can become longer than so many bytes, as on a disk that is nearly full."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, limits[1]))  # Python ignores the signal that tells of it
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
