"""Shows frames in a window until told to stop, as the pipeline would; prints how many, and what ended it.

Arguments: the kind of source, or "sequence" for images that are a film, how many frames at most, "again" to do so
twice with one window, and "av-first" to import PyAV before anything else.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from fractions import Fraction

if "av-first" in sys.argv:
    import av  # noqa: F401

from stream_seg.errors import DisplayError
from stream_seg.frame import Frame, Kind, SourceInfo
from stream_seg.protocols import Outcome
from stream_seg.sinks import Window
from tests.sink_films import NOTHING, image


def shown(window: Window, count: int, seconds: float) -> Iterator[int]:
    """Yield after each frame that was taken, and wait so long for the next; ends when the window wants it."""
    for index in range(count):
        window.write(Frame(image(index, (320, 240)), index, Fraction(index, 25), 0.0), NOTHING)
        yield index
        while window.holds():
            if window.wants_stop():
                return
        if window.wants_stop():
            return
        time.sleep(seconds)


def main(kind: Kind, count: int, *, is_film: bool, runs: int) -> int:
    try:
        window = Window("sink test")
    except DisplayError as error:
        print(error)
        return error.exit_code
    for _ in range(runs):
        if window.wants_stop():  # as the pipeline asks from its beginning on
            print("stopped before it was opened")
            return 0
        window.open(SourceInfo("a film", (320, 240), kind, Fraction(25), is_film=is_film))
        last = -1
        for last in shown(window, count, 0.02 if kind == "live" else 0):
            print("shown", last, flush=True)
        print("stopped" if window.wants_stop() else "ended", flush=True)
        window.close(Outcome.STOPPED)
        window.close(Outcome.STOPPED)
    return 0


if __name__ == "__main__":
    kinds: dict[str, Kind] = {"live": "live", "images": "images", "sequence": "images"}
    given, times = sys.argv[1], 2 if "again" in sys.argv else 1
    sys.exit(main(kinds.get(given, "video"), int(sys.argv[2]), is_film=given == "sequence", runs=times))
