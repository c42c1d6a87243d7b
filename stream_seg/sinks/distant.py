"""Distant: the sound of a recording at an address, read ahead by a thread of its own."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

from stream_seg.channel import Channel, ChannelClosed, EndOfStream
from stream_seg.errors import SourceError
from stream_seg.frame import Reopening
from stream_seg.sinks.original import Sound
from stream_seg.sinks.recorded import LOOK_AHEAD_SECONDS, Recorded

logger = logging.getLogger(__name__)

AHEAD = 256
"""Packets of sound that are read ahead: 5 s of AAC."""

POLL_SECONDS = 0.04
"""How long is waited for sound at a time, for who asks wants an answer within 50 ms."""

GRACE_SECONDS = 1.0
"""How much longer than a read may take is waited for what it brings, so that its own reason is told."""

HURRY_SECONDS = 0.5
"""How long the end of a run that was stopped waits for sound, in all."""

LONGEST_STEP = 0.5
"""Seconds that count of those between two looks: the process may have been stopped (Ctrl-Z)."""

JOIN_SECONDS = 0.5
"""How long closing waits for the reader; FFmpeg sits in a read until data or its timeout comes."""


class Distant(Recorded):
    """As a `Recorded`, of a recording at an address: opened, read and closed by a daemon thread.

    What sinks want next is mostly there. Where it is not, `waits_from` and `waits_for` say so, and what is asked for
    nevertheless is waited for. When nothing comes for longer than the recording's timeouts, the rest of the sound is
    left out with a warning. Whoever was told to wait and does not is in a hurry, as the pipeline is once it is stopped.
    """

    def __init__(self, source: Reopening, start: Fraction, end: Fraction | None, *, sound: bool = True) -> None:
        self._open_timeout = source.open_timeout
        self._stall_timeout = source.stall_timeout
        self._reads_ahead = source.is_ahead
        self._is_ahead: Callable[[], bool] = lambda: False
        self._sounds: Channel[Sound] = Channel(AHEAD)
        self._is_open = False
        self._is_over = False  # nothing more comes from the reader
        self._silent: Fraction | float = Fraction(-1)  # `silent_until` as of what was taken
        self._told_to_wait = False
        self._waited = 0.0
        self._looked = time.monotonic()
        self._deadline: float | None = None
        self._has_arrived = False  # anything, since `_looked`
        self._closing = threading.Event()
        self._reader = threading.Thread(target=self._run, name=f"stream-seg-sound {source.name}", daemon=True)
        super().__init__(source, start, end, sound=sound)

    def tracks_from(self, start: Fraction) -> dict[int, tuple[AudioStream, Sound]]:
        self._wait(lambda: self._knows_tracks(start))
        return super().tracks_from(start)

    def is_there(self) -> bool:
        self._wait(lambda: self._is_open)
        return self._is_open

    def waits_from(self, start: Fraction) -> bool:
        return self._waits(lambda: self._is_open and self._knows_tracks(start))

    def waits_for(self, time: Fraction) -> bool:
        return self._waits(lambda: self._knows_until(time))

    def wait_for(self, time: Fraction | float) -> None:
        self._wait(lambda: self._knows_until(time))

    def wait_for_picture(self, time: Fraction) -> None:
        self._wait(lambda: self.picture_seen > time)

    def hurry(self) -> None:
        if self._deadline is None:
            self._deadline = time.monotonic() + HURRY_SECONDS

    def close(self) -> None:
        self._is_over = True
        self._closing.set()
        self._sounds.cancel()
        self._reader.join(JOIN_SECONDS)

    def _begun(self) -> Iterator[Sound]:
        self._reader.start()
        return iter(())  # `next` takes what is there

    def _knows_until(self, time: Fraction | float) -> bool:
        """Whether later sound was read, or pictures so much later that there is none."""
        return bool(self._ahead and self._ahead[-1].time >= time) or self._silent > time + LOOK_AHEAD_SECONDS

    def _knows_tracks(self, start: Fraction) -> bool:
        sounding = {item.packet.stream_index for item in self._ahead if item.time >= start}
        return len(sounding) == len(self._tracks) or self._knows_until(start + LOOK_AHEAD_SECONDS)

    def _waits(self, is_enough: Callable[[], bool]) -> bool:
        self._told_to_wait = self._is_to_come(is_enough)
        return self._told_to_wait

    def _wait(self, is_enough: Callable[[], bool]) -> None:
        if self._told_to_wait:
            self.hurry()
        while self._is_to_come(is_enough):
            pass

    def _is_to_come(self, is_enough: Callable[[], bool]) -> bool:
        """Take what was read unless there is enough; whether there is not and more may come."""
        for wait in (0.0, POLL_SECONDS):
            if self._is_over or is_enough():
                break
            # Both before that is taken which came before it.
            silent, is_ahead = self.silent_until, self._is_ahead()
            self._take(wait)
            self._silent = silent
            if is_ahead:  # nothing comes by waiting
                return False
        lacks = not (self._is_over or is_enough())
        if not lacks:
            self._waited = 0.0
        return lacks

    def _take(self, wait: float) -> None:
        """Take what was read, or find that there is no more or will be none."""
        try:
            items = self._sounds.take(AHEAD, wait)
        except EndOfStream:
            self._is_over = True
            return
        self._ahead.extend(items)
        before, self._looked = self._looked, time.monotonic()
        if self._deadline is not None and self._looked > self._deadline:
            self._is_over = True
        elif items or self._has_arrived:
            self._waited, self._has_arrived = 0.0, False
        else:
            self._waited += min(LONGEST_STEP, self._looked - before)
            if self._waited > self._patience():
                self._leave_out(self._silence())
                self._is_over = True

    def _patience(self) -> float:
        return GRACE_SECONDS + (self._stall_timeout if self._is_open else self._open_timeout)

    def _silence(self) -> str:
        if self._is_open:
            return f"the server sent nothing for {self._stall_timeout:g} s"
        return f"the server did not answer within {self._open_timeout:g} s"

    def _leave_out(self, why: str | None) -> None:
        """Say that, and why, there is no sound or no more, unless nobody wants it any longer."""
        if not self._is_over:
            what = "the rest of the sound" if self._is_open else "the sound"
            logger.warning("%s of %s is left out: %s", what, self.name, why)

    def _run(self) -> None:
        """Body of the reading thread. Who else uses what is open has closed this before it closes that."""
        try:
            self._open()
            self._is_open = True
            for sound in self._read():
                self._sounds.put(sound)
        except ChannelClosed:
            pass
        except SourceError as error:
            self._leave_out(str(error))
        except (av.FFmpegError, OSError) as error:
            self._broke_off(error)
        finally:
            self._sounds.close()
            self._closing.wait()
            if self._is_open:
                self._input.close()

    def _use(self, container: InputContainer) -> None:
        super()._use(container)
        self._is_ahead = partial(self._reads_ahead, container)
        # Reading goes on while sinks look at the tracks, and may change them.
        copies = av.open(io.BytesIO(), "w", format="null")
        self._tracks = {index: _copied(track, copies) for index, track in self._tracks.items()}
        self._has_arrived = True

    def _demux(self) -> Iterator[Packet[Stream]]:
        for packet in super()._demux():
            if self._is_over:  # where there is no sound for long, nothing is put that would tell
                raise ChannelClosed
            self._has_arrived = True
            yield packet

    def _broke_off(self, error: av.FFmpegError | OSError) -> None:
        self._leave_out(self._silence() if isinstance(error, av.ExitError) else error.strerror)


def _copied(track: AudioStream, copies: OutputContainer) -> AudioStream:
    """All that there is to know of a track, which nobody changes."""
    if track.codec_context is None:
        return track
    copy = copies.add_stream_from_template(track)
    copy.metadata.update(track.metadata)
    copy.disposition = track.disposition
    return copy
