"""When what is not there, or has gone, is tried again."""

from __future__ import annotations

from stream_seg.errors import Reason

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0

STEADY_SECONDS = 5.0
"""How long a connection must have held before the next failure counts as the first in a row."""


def delay_before(tries: int, reason: Reason, drawn: float) -> float:
    """Return the seconds to wait after so many tries in a row, shortened by up to half as `drawn` (0 to 1) says."""
    doubled = FIRST_DELAY * 2.0 ** min(tries, 16)
    return (LONGEST_DELAY if reason is Reason.AUTHENTICATION else min(doubled, LONGEST_DELAY)) * (1 - drawn / 2)
