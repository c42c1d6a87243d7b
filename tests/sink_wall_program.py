"""Shows two feeds side by side in a window until told to stop, as the pipeline would; prints what ended it.

Arguments: the kind of feeds ("live", "video" or "photos"), and how many frames of each at most. Of photos each picture
is announced, as soon as it is shown.
"""

from __future__ import annotations

import sys
import time
from fractions import Fraction

from stream_seg.detections import Detections
from stream_seg.frame import Frame
from stream_seg.protocols import Outcome
from stream_seg.sinks import Window
from stream_seg.tiles import Tiles
from tests.sink_films import NOTHING, image


class Announcing(Window):
    """Prints which picture it shows."""

    def write(self, frame: Frame, detections: Detections) -> None:
        super().write(frame, detections)
        print(f"shown {frame.index}", flush=True)


def main(kind: str, count: int) -> None:
    photos = kind == "photos"
    window = Announcing("sink test") if photos else Window("sink test")
    wall = Tiles(["rtsp://cam/1", "b"], [window], kind="live" if kind == "live" else "video")
    wall.open()
    stopped = False
    for index in range(count):
        for feed in range(2):
            frame = Frame(image(index, (320, 240)), index, Fraction(index, 25), 0.0, is_still=photos)
            wall.show(feed, wall.draw(feed, frame, NOTHING, None))
            while wall.holds() and not wall.wants_stop():
                pass
        if index == 1 and not photos:
            print("shown 0", flush=True)
        if kind == "live":
            time.sleep(min(0.02, wall.tick()))
        stopped = wall.wants_stop()
        if stopped:
            break
    for feed in range(2):
        wall.ended(feed, None)
    while wall.holds() and not wall.wants_stop():
        pass
    wall.close(Outcome.STOPPED)
    print("stopped" if stopped else "ended", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
