"""Writes frames that do not compress to a video file on a system that allows files of so many bytes and no more.

Arguments: the file, the bytes. Prints the error, then what is kept.
"""

from __future__ import annotations

import resource
import signal
import sys

from stream_seg.errors import OutputError
from stream_seg.frame import Frame
from stream_seg.protocols import Outcome
from stream_seg.sinks import VideoFile
from tests.sink_films import CFR, NOTHING, info, noise


def main(path: str, limit: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error, as of a full disk, rather than the end of the process
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sink = VideoFile(path)
    sink.open(info(size=(160, 120)))
    try:
        for index, pts in enumerate(CFR):
            sink.write(Frame(noise(index, (160, 120)), index, pts, 0.0), NOTHING)
        sink.close(Outcome.COMPLETE)
    except OutputError as error:
        sink.close(Outcome.FAILED)
        print(error)
        print(sink.kept)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
