"""Original: what of a source goes into annotated videos untouched: its sound, title and pixel aspect.

`Recorded` is that of a recording, `LiveOriginal` that of a feed.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from av.audio.stream import AudioStream
from av.packet import Packet

from stream_seg.frame import Frame

logger = logging.getLogger(__name__)


class Sound(NamedTuple):
    """A packet, and when it begins."""

    time: Fraction
    packet: Packet[AudioStream]


class Original:
    """The sound of a source, for one film after another; all times are seconds after the beginning of the source.

    Sound that cannot be had is left out with a warning: it must not cost the pictures.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.picture_seen: Fraction | float = Fraction(-1)
        """When the latest picture begins that reading has come to."""
        self._from: Fraction | float = -math.inf
        self._ahead: deque[Sound] = deque()
        self._reasons: set[str] = set()

    @property
    def title(self) -> str | None:
        """What the source is called in its own metadata."""
        return None

    def pixel_aspect(self, size: tuple[int, int]) -> Fraction | None:  # noqa: ARG002
        """The width of a pixel over its height in frames of this size, None when square or unknown."""
        return None

    def see(self, frame: Frame) -> None:
        """Note a frame of the source; to be called before anything is asked for that lies in a film."""

    def tracks_from(self, start: Fraction) -> dict[int, tuple[AudioStream, Sound]]:
        """Let go what begins before `start`; return the tracks that have sound soon after it, and their first.

        They are listed by their `stream_index`. The header of the output would wait for those that have none.
        """
        raise NotImplementedError

    def next(self) -> Sound | None:
        """Return the next sound, None when there is no more, or of a live source none yet."""
        while (item := self._ahead.popleft() if self._ahead else self._read_next()) is not None:
            if item.time >= self._from:
                break
        return item

    def _read_next(self) -> Sound | None:
        raise NotImplementedError

    def pass_over(self, until: Fraction) -> None:
        """Let go the sound that begins before `until`, as far as it was read: it is in no film."""
        while (item := self.next()) is not None:
            if item.time >= until:
                self.put_back([item])
                return

    def put_back(self, items: Sequence[Sound]) -> None:
        """Have `next` return these again, in this order."""
        self._ahead.extendleft(reversed(items))

    def warn(self, why: str) -> None:
        """Warn once, not for each of the films."""
        if why not in self._reasons:
            self._reasons.add(why)
            logger.warning("%s", why)

    def is_there(self) -> bool:
        """Whether the source could be opened; to be asked before all else, and waits until that is known."""
        return True

    def waits_from(self, start: Fraction) -> bool:  # noqa: ARG002  a file on this machine is there
        """Whether `tracks_from` would wait, or the wait is worth it. Returns within 50 ms."""
        return False

    def waits_for(self, time: Fraction) -> bool:  # noqa: ARG002
        """Whether `wait_for` would wait. Returns within 50 ms."""
        return False

    def wait_for(self, time: Fraction | float) -> None:
        """Wait until `next` knows the sound before `time`."""

    def wait_for_picture(self, time: Fraction) -> None:
        """Wait until a picture after `time` was seen, or `next` knows all the sound."""

    def is_late(self) -> bool:
        """Whether `next`, which has returned None, may yet return sound from before the latest picture."""
        return False

    def fork(self) -> Original:
        """Return another that goes on from here by itself, for a film that ends while the next one begins.

        Only of sound that may be late.
        """
        raise NotImplementedError

    def hurry(self) -> None:
        """Have it wait for hardly anything from now on: the run is to end."""

    def close(self) -> None:
        """Let go of what is read. Any number of times."""
