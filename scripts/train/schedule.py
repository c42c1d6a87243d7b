"""How far a training run has come, in steps or in minutes, and the learning rate that goes with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

PAUSE = 5.0
"""A step that takes so many times longer than usual was a pause of the machine: it does not use up minutes."""
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
    _usual: float = 0.0

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
        if self._usual and seconds > PAUSE * self._usual:
            seconds = self._usual
        self._usual = 0.9 * self._usual + 0.1 * seconds if self._usual else seconds
        self.step += 1
        self.seconds += seconds
