"""Passes a stream on to an address: the program that `Publisher` runs as a process of its own.

FFmpeg's servers may be waited for with Python's lock held, by which the whole run would stand still; and a process can
be left behind. Its first line on standard input is what to send where, as JSON; the stream follows, as FLV. It writes
a line once something was sent, and where that fails FFmpeg's number of the error. It needs nothing of stream-seg.

Whoever started it ends it when a server takes nothing. For where that was killed, it also ends by itself then.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import signal
import sys
from collections.abc import Iterator

import av

SENT = "sent"


def main() -> int:
    """Forward until standard input ends. Returns 1 when that failed, and 0 else."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # systemd sends it to all of a service: what waits is still sent
    with io.FileIO(0, closefd=False) as words:  # not buffered, so that no more than the line is taken
        order = json.loads(words.readline())
    try:
        forward(order["url"], order["format"], order["options"], order["patience"])
    except (av.FFmpegError, OSError) as error:
        _say(str(error.errno))
        return 1
    return 0


def _say(word: str) -> None:
    os.write(1, f"{word}\n".encode())


def forward(url: str, container: str, options: dict[str, str], patience: float) -> None:
    """Send the video on standard input. Raises FFmpeg's errors; ends the process where `patience` seconds do not do."""
    # What there is to know of a stream stands in its header: nothing is to be waited for.
    probing = {"probesize": "32", "analyzeduration": "0"}
    with av.open("pipe:0", format="flv", options=probing) as taken:
        (source,) = taken.streams.video
        sent = av.open(url, "w", format=container, options=options)  # connects when the first packet is sent
        try:
            stream = sent.add_stream_from_template(source)
            is_first = True
            for packet in taken.demux(source):
                if packet.dts is None:
                    continue
                packet.stream = stream
                with _within(patience):
                    sent.mux(packet)
                if is_first:
                    _say(SENT)
                    is_first = False
        finally:
            with _within(patience):
                sent.close()


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """End the process if the block takes longer, with a thread that needs no lock of Python's."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    sys.exit(main())
