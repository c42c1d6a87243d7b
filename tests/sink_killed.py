"""Writes videos in processes that are killed meanwhile, as a power cut or the system would do it.

Arguments: a folder, and a recording whose sound the files "sounding" take, beside the files "silent". The processes are
forks of this one, which has imported what they need and started no thread.
"""

from __future__ import annotations

import os
import signal
import sys
from fractions import Fraction
from pathlib import Path

from stream_seg.sinks import VideoFile
from tests.sink_films import NOTHING, frames, info

RATE, COUNT = 25, 50
CODECS = {"mp4": "h264", "mov": "h264", "mkv": "h264", "webm": "vp9", "gif": "gif"}


def main(folder: Path, recording: Path) -> None:
    for name, sound in (("silent", None), ("sounding", recording)):
        for suffix, codec in CODECS.items():
            child = os.fork()
            if not child:
                return write_until_killed(folder / f"{name}.{suffix}", codec, sound)
            os.waitpid(child, 0)
    return None


def write_until_killed(path: Path, codec: str, sound: Path | None) -> None:
    times = [Fraction(i, RATE) for i in range(COUNT)]
    sink = VideoFile(path, codec=codec)
    sink.open(info(times, rate=Fraction(RATE), time_base=Fraction(1, 90000), path=sound))
    for frame in frames(times):
        sink.write(frame, NOTHING)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
