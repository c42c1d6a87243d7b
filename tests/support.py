"""What tests share: skips that cannot hide, and tolerances with their reasons."""

from __future__ import annotations

import shutil

import pytest


def requires(*programs: str) -> pytest.MarkDecorator:
    """Mark a test that needs executables a machine may lack; with `--no-skips`, as in CI, it then fails."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.needs(missing=missing)
