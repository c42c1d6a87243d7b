"""Shows two feeds side by side in a window until told to stop, as the pipeline would; prints what ended it.

Arguments: the kind of feeds ("live" or "video"), and how many frames of each at most.
"""

from __future__ import annotations

import sys
import time
from fractions import Fraction

from stream_seg.frame import Frame
from stream_seg.protocols import Outcome
from stream_seg.sinks import Window
from stream_seg.tiles import Tiles
from tests.sink_films import NOTHING, image


def main(kind: str, count: int) -> None:
    wall = Tiles(["rtsp://cam/1", "b"], [Window("sink test")], kind="live" if kind == "live" else "video")
    wall.open()
    stopped = False
    for index in range(count):
        for feed in range(2):
            frame = Frame(image(index, (320, 240)), index, Fraction(index, 25), 0.0)
            wall.show(feed, wall.draw(feed, frame, NOTHING, None))
            while wall.holds() and not wall.wants_stop():
                pass
        if index == 1:
            print("shown 0", flush=True)
        if kind == "live":
            time.sleep(min(0.02, wall.tick()))
        stopped = wall.wants_stop()
        if stopped:
            break
    wall.close(Outcome.STOPPED)
    print("stopped" if stopped else "ended", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
