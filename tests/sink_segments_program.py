"""Records in segments until something happens to the process.

Arguments: the file, seconds per segment, how many frames (25 a second), and "killed", as by the system, or "full": from
the second segment on pictures that do not compress, on a system that allows files of 100 kB and no more. With one more,
the seconds before it, it is one event of so many seconds, which the 101st frame begins. Prints the error, if there is
one.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from fractions import Fraction

from stream_seg.errors import OutputError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.protocols import Outcome
from stream_seg.sinks import SegmentedVideo
from tests.sink_films import NOTHING, SOMETHING, image, noise

SIZE = (160, 120)
LIMIT = 100_000


def main(path: str, seconds: float, count: int, end: str, before: float | None = None) -> None:
    if end == "full":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    sink = SegmentedVideo(path, seconds) if before is None else SegmentedVideo(path, events=seconds, before=before)
    sink.open(SourceInfo("camera", SIZE, "live"))
    try:
        for index in range(count):
            busy = end == "full" and index >= seconds * 25
            picture = noise(index, SIZE) if busy else image(index, SIZE)
            sink.write(Frame(picture, index, Fraction(index, 25), 0.0), SOMETHING if index == 100 else NOTHING)
    except OutputError as error:
        sink.close(Outcome.FAILED)
        print(error)
        return
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4], *map(float, sys.argv[5:]))
