"""A run with a window and a film, whose X server is killed on its way; prints the error that `run` raises.

Arguments: whether "before" the window opens or once it has "shown" a picture, the server's process, and the film. It is
killed from here, for Qt ends the program where it waits for events meanwhile.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence

from stream_seg.detections import Detections
from stream_seg.errors import DisplayError
from stream_seg.frame import Frame, Image
from stream_seg.pipeline import Pipeline
from stream_seg.sinks import Window, open_sink
from stream_seg.sinks.display import display_is_gone
from stream_seg.sources import open_source
from tests.sink_films import NOTHING


class Nothing:
    """Finds nothing."""

    max_batch = 1
    class_names = ()

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        return [NOTHING for _ in images]

    def close(self) -> None:
        pass


class Losing(Window):
    """Loses its display before or after it has shown its third frame."""

    def write(self, frame: Frame, detections: Detections) -> None:
        if sys.argv[1] == "before" or frame.index == 2:
            os.kill(int(sys.argv[2]), signal.SIGKILL)
            while not display_is_gone():
                time.sleep(0.01)
        super().write(frame, detections)


def main(film: str) -> int:
    source = open_source("synthetic:320x240@25x1000")
    try:
        Pipeline(source, Nothing(), sinks=[Losing("sink test", paced=False), open_sink(film)]).run()
    except DisplayError as error:
        print(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[3]))
