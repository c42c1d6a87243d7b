"""What PyAV gives, in the same form whatever its version."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import cast

import pytest
from av.container import InputContainer

from stream_seg.pyav import exact, legible, size_of


def test_a_number_that_is_known_is_a_fraction_and_no_other_is_one() -> None:
    assert exact(Fraction(30000, 1001)) == Fraction(30000, 1001)
    rational = SimpleNamespace(numerator=1, denominator=90000)
    assert exact(rational) == Fraction(1, 90000)
    assert isinstance(exact(rational), Fraction)
    for unknown in (None, Fraction(0), SimpleNamespace(numerator=0, denominator=0)):
        assert exact(unknown) is None
    assert exact(SimpleNamespace(numerator=1, denominator=0)) is None


@pytest.mark.parametrize(("told", "size"), [(None, 0), (-78, 0), (0, 0), (1 << 33, 1 << 33)])
def test_a_size_that_is_not_known_is_none(told: int | None, size: int) -> None:
    assert size_of(cast(InputContainer, SimpleNamespace(size=told))) == size


def test_a_text_in_an_old_alphabet_can_be_printed() -> None:
    assert legible("caf\udce9 é") == "caf\ufffd é"
