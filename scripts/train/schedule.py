"""How far a training run has come, in steps or in minutes, and the learning rate that goes with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

PAUSE = 5.0
"""A step that takes so many times longer than the slowest lately was a pause of the machine: it uses up no minutes."""
FADING = 0.99
"""How much of the slowest step is remembered at the next: the largest of the `--sizes` may be seldom drawn."""
FLOOR = 0.02
"""The cosine ends at this share of the peak."""


@dataclass
class Schedule:
    """A warm-up and a cosine over `steps` steps or, if that is None, over `minutes` of training time.

    `step`, `seconds` and `warm_from` (where the warm-up began) go into checkpoints.
    """

    steps: int | None
    minutes: float
    warmup: int
    step: int = 0
    seconds: float = 0.0
    warm_from: int = 0
    _slowest: float = 0.0

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        done = self.step / self.steps if self.steps else self.seconds / (60 * self.minutes)
        return min(1.0, done)

    @property
    def rate(self) -> float:
        """The share of the peak learning rate that the next step uses."""
        warm = min(1.0, (self.step - self.warm_from + 1) / max(1, self.warmup))
        return warm * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * self.progress)))

    def advance(self, seconds: float) -> None:
        """One step was made, and took so long."""
        slowest = self._slowest or seconds
        longest = PAUSE * slowest
        # Also after a pause, which may be none: of pictures much larger, or on a machine that is busy from now on.
        self._slowest = max(FADING * slowest, min(seconds, longest))
        self.step += 1
        self.seconds += slowest if seconds > longest else seconds
