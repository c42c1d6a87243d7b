"""Writes frames to a video file and is then killed, as a power cut or the system would do it.

Arguments: the file, the codec, frames per second, how many frames, and a recording to take sound from or "".
"""

from __future__ import annotations

import os
import signal
import sys
from fractions import Fraction
from pathlib import Path

from stream_seg.sinks import VideoFile
from tests.sink_films import NOTHING, frames, info


def main(path: str, codec: str, rate: int, count: int, sound: str) -> None:
    times = [Fraction(i, rate) for i in range(count)]
    sink = VideoFile(path, codec=codec)
    sink.open(info(times, rate=Fraction(rate), time_base=Fraction(1, 90000), path=Path(sound) if sound else None))
    for frame in frames(times):
        sink.write(frame, NOTHING)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
