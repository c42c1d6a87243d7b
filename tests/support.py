"""What tests share: skips that cannot hide, and tolerances with their reasons."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator

import pytest


def requires(*programs: str) -> pytest.MarkDecorator:
    """Mark a test that needs executables a machine may lack; with `--no-skips`, as in CI, it then fails."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.needs(missing=missing)


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
