"""Decoder: the pictures of one opened container, in order, with their times; all that files, pipes and URLs share."""

from __future__ import annotations

import errno
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import cast

import av
from av.container import Flags as ContainerFlags
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from stream_seg.errors import Reason, SourceError, StreamSegError
from stream_seg.feed_sound import FeedSound
from stream_seg.frame import Frame, Image, Kind, SourceInfo
from stream_seg.pyav import exact, size_of
from stream_seg.sources.access_units import AccessUnits
from stream_seg.sources.container import frame_rate, timeline_of, video_stream
from stream_seg.sources.hearing import Hearing, hearing_of
from stream_seg.sources.length import duration_of, is_cut_off, promised_end
from stream_seg.sources.packets import Packets, is_last
from stream_seg.sources.picture import Orientation, PictureConverter
from stream_seg.sources.turns import Turn

logger = logging.getLogger(__name__)

SEEK_BACK = (1, 5, 20)
"""Seconds before the wanted time to try in turn, then all is read. Never 0: an index may name a key frame that is shown
later, and MPEG streams give the first pictures after a seek wrong times."""

SETTLED = Fraction(1, 2)
"""Seconds before the wanted time by which pictures must come after a seek: the first may have wrong times."""

UNINDEXED = frozenset({"mpegts", "mpeg"})
"""The formats without an index, in which FFmpeg looks for a time as if it were there once. They are also those that are
glued together, and then hold it several times."""

MOST_FAILED_READS = 100
"""Damaged reads in a row after which a container is taken to have no more."""

MOST_INSIDE = 64
"""Packets whose pictures may still be inside a codec: one for each thread, of which FFmpeg starts 16 at most by itself,
and those held back until it is their turn to be shown."""

SHARED_PIXELS = 1920 * 1080
"""How large the pictures of a camera are whose slices are worth sharing among threads. Threads cost a feed of 640x360 a
sixth more to decode, and most cameras send one slice, with which the others just wait."""

SMALL_PIXELS = 640 * 480
"""How large the pictures of a camera are that are decoded in turn: those of 32 of them at 30 fps keep one core busy."""

LATE_INDEX = (
    "; an .mp4 or .mov with its index at its end cannot be read from a pipe: name the file instead, or make it with "
    "ffmpeg -movflags +faststart"
)

UNPARSED = cast(int, ContainerFlags.no_parse.value)
"""With which a container is opened that is to be joined."""

JOINED_CODECS = frozenset({"h264", "hevc", "mpeg4", "mpeg1video", "mpeg2video", "h263"})
"""What FFmpeg hands on as RTP carries it, in pieces; pictures of other codecs come whole."""


class Decoder:
    """The video track of a container, which `open_` opens, again where the beginning can be had in no other way.

    Iterate to get `(time, picture)`, every picture once, in presentation order, those still inside the codec at the end
    included; `image` gives the pixels of a picture. `damaged` counts what could not be read and was left out.
    `stopping` is asked before each packet, and ends the iteration. A container that `is_live` is decoded without the
    delay that threads working on several pictures at once bring, and what is heard from it goes to `sound`, once
    `hearing` is told when its pictures came. What is sent of one that `is_lossless` also arrives, so that reads within
    a picture need no watch. `threads` decode, 0 for as many as suit. Close it on the thread that used it.

    Raises `SourceError` when there is no video in the container, not one picture can be decoded, it is encrypted, or
    `stopping` ends it before the first picture.
    """

    def __init__(
        self,
        open_: Callable[[], InputContainer],
        name: str,
        *,
        stopping: Callable[[], bool] = lambda: False,
        is_live: Callable[[InputContainer], bool] = lambda _: False,
        is_lossless: bool = False,
        sound: FeedSound | None = None,
        threads: int = 0,
    ) -> None:
        self._open = open_
        self.name = name
        self._stopping = stopping
        self._is_live = is_live
        self._is_lossless = is_lossless
        self._sound = sound
        self._threads = threads
        self._begin()

    def _begin(self) -> None:
        """Open the container and decode its first picture, which tells size and orientation."""
        self._container = self._open()
        try:
            self.live = self._is_live(self._container)
            self._stream = video_stream(self._container, self.name)
            self.hearing = self._heard()
            self._share_work()
            self._units = access_units(self._container, self._stream) if self.live else None
            self._has_no_times = self.format == "avi" and self._stream.codec_context.name == "h264"
            self._timeline = timeline_of(self._container, self._stream, live=self.live)
            self.damaged = 0
            self._hung_up: av.FFmpegError | None = None
            self._pictures = _Peekable(self._decoded(self._packets()))
            self._describe(self._pictures.peek())
        except BaseException:
            self._container.close()
            raise

    def _heard(self) -> Hearing | None:
        """Have sound read with the pictures, if it is wanted; to be called before the first packet."""
        if self._sound is None or not self.live:
            return None
        return hearing_of(self._container, self._stream, self._sound, self.name)

    def _share_work(self) -> None:
        """Say how many threads decode; to be called before the first packet."""
        context = self._stream.codec_context
        context.thread_type = "SLICE" if self.live else "AUTO"
        context.thread_count = self._threads
        if self.live and 0 < context.width * context.height < SHARED_PIXELS:  # 0 where no key frame has come yet
            context.thread_count = 1
        self._turn = Turn()
        self._is_small = context.width * context.height <= SMALL_PIXELS

    def _describe(self, first: VideoFrame | None) -> None:
        if first is None and self._stopping():
            raise SourceError(f"{self.name} was closed before its first picture")
        if first is None and self.live and not self.damaged:
            raise SourceError(f"{self.name} ended the stream before its first picture", Reason.ENDED)
        if first is None:
            is_piped_mp4 = self._container.file is not None and "mp4" in self.format
            why = LATE_INDEX if is_piped_mp4 else "; is it damaged?"
            raise SourceError(
                f"{self.name} holds a video track but not one picture that can be decoded{why}", Reason.CODEC
            )
        self._orientation = Orientation.of(first)
        self._stored_size = first.width, first.height
        self._pixels = PictureConverter(self._stored_size, self._orientation)

    @property
    def format(self) -> str:
        """FFmpeg's name of the container's format."""
        return self._container.format.name

    def close(self) -> None:
        """Close the container. Any number of times."""
        # They would keep the decoder, and its threads, until the garbage is collected.
        self._pictures = _Peekable(iter(()))
        self._container.close()

    def __iter__(self) -> Iterator[tuple[Fraction, VideoFrame]]:
        pts, picture = Fraction(0), None
        for picture in self._pictures:
            pts = self._timeline.next(*self._stamps(picture))
            yield pts, picture
        shown = Fraction(0) if picture is None else (picture.duration or 0) * (exact(picture.time_base) or Fraction(0))
        self._report(pts + shown)

    def _stamps(self, picture: VideoFrame) -> tuple[int | None, int | None]:
        """When a picture is shown and when decoded, as stored; none where the next one shows that to be damaged."""
        shown = self._stamp(picture)
        if not self.live and shown is not None and self._timeline.leaps(shown):
            following = self._pictures.peek()
            stamp = None if following is None else self._stamp(following)
            if stamp is not None and self._timeline.strays(shown, stamp):
                return None, None
        return shown, picture.dts

    def _stamp(self, picture: VideoFrame) -> int | None:
        """When a picture is shown, as stored; of H.264 in .avi files, which say only in which order it is decoded, when
        it comes out of the codec: FFmpeg guesses the other from that as if none were shown later than it is decoded.
        """
        return picture.dts if self._has_no_times else picture.pts

    def image(self, picture: VideoFrame) -> Image:
        """Return the pixels of a picture, upright, (H, W, 3) uint8 BGR."""
        return self._pixels(picture)

    def deferred(self, picture: VideoFrame) -> Callable[[], Image]:
        """Return what gives the pixels of a picture when they are wanted, on any thread, also once this is closed."""
        return partial(self._pixels, picture)

    def info(self, kind: Kind, path: Path | None = None) -> SourceInfo:
        """Describe the whole recording."""
        rate = frame_rate(self._stream, live=self.live)
        duration = duration_of(self._container, self._stream, self._timeline) if kind == "video" else None
        return SourceInfo(
            name=self.name,
            size=self._orientation.size(*self._stored_size),
            kind=kind,
            frame_rate=rate,
            frame_count=self._stream.frames or (round(duration * rate) if duration and rate else None),
            duration=duration,
            time_base=self._timeline.unit,
            path=path,
        )

    def seek(self, start: Fraction) -> None:
        """Go on from the last picture that allows decoding whatever is shown from `start` seconds on."""
        first = self._first()
        if first is None or self._timeline.at(first) >= start:
            return
        way = self._way_to(start) if self.format in UNINDEXED else (start, math.inf)
        if way is not None and any(self._enter(*way, back) for back in SEEK_BACK):
            return
        self._container.close()
        self._begin()

    def _way_to(self, start: Fraction) -> tuple[Fraction, float] | None:
        """Return where the way to `start` ends, there or earlier, as a time and a byte; None where times jump back."""
        known, last, reached, end = self.damaged, -math.inf, Fraction(0), math.inf
        for packet in self._packets():
            if packet.dts is None:
                continue
            if self._timeline.jumps(last, packet.dts):
                return None
            last, reached = packet.dts, self._timeline.at(packet.dts)
            if reached >= start:
                end = packet.pos or math.inf
                break
        self.damaged = known  # it is all read again
        return min(start, reached), end

    def _enter(self, start: Fraction, end: float, back: int) -> bool:
        """Seek to `back` seconds before `start`; whether pictures begin before that, packets before the byte `end`."""
        packets = self._packets()
        try:
            self._container.seek(self._timeline.ticks(start - back), stream=self._stream)
            # Pictures begin with a key frame, which may be that of the next recording where several are glued.
            packet = next((packet for packet in packets if packet.is_keyframe), None)
        except av.FFmpegError:  # some demuxers find out only by reading that their server sends all or nothing
            return False
        if packet is None or (packet.pos or 0) > end:
            return False
        self._pictures = _Peekable(self._decoded(itertools.chain([packet], packets)))
        first = self._first()
        if first is None or self._timeline.at(first) > start - SETTLED:
            return False
        self._timeline.restart(first)
        return True

    def _first(self) -> int | None:
        """When the next picture is shown, as stored; None where there is none, or it does not say."""
        picture = self._pictures.peek()
        return None if picture is None else self._stamp(picture)

    def _decoded(self, packets: Iterator[Packet[VideoStream]]) -> Iterator[VideoFrame]:
        try:
            yield from self._decoded_by_turns(packets)
        finally:
            self._turn.leave()

    def _decoded_by_turns(self, packets: Iterator[Packet[VideoStream]]) -> Iterator[VideoFrame]:
        inside: deque[int] = deque(maxlen=MOST_INSIDE)
        shown: int | None = None
        known = self.damaged
        for packet in self._whole(packets):
            if packet.pts is not None and not packet.is_discard:
                inside.append(packet.pts)
            pictures: list[VideoFrame] = []
            try:
                pictures = self._stream.decode(packet)
            except av.FFmpegError as error:
                self._skip(error)
            if pictures:
                self._turn.leave()  # who takes them may wait
                shown, known = pictures[-1].pts, self.damaged
                # The second field of a picture may come as a packet of its own, with a time half a picture later.
                late = self._timeline.step * 3 // 4 if pictures[-1].interlaced_frame else 0
                # In .avi files H.264 has its pictures in another order than their times.
                seen = {picture.pts for picture in pictures}
                inside = deque(
                    (pts for pts in inside if shown is not None and pts > shown + late and pts not in seen), MOST_INSIDE
                )
            yield from pictures
            if is_last(packet) and inside and self._threads != 1 and not self.live:
                yield from self._left_inside(inside, shown, known)

    def _left_inside(self, left: Collection[int], shown: int | None, known: int) -> Iterator[VideoFrame]:
        """The pictures with these time stamps, read again. `shown` is that before them, up to it `known` were damaged.

        Of a codec that threads share a damaged packet is known of some packets later, at the end when it is asked for
        what it still holds. PyAV then asks no further, mostly without a word, and all that comes after would be lost.
        """
        lost, settled = set(left), 0
        try:
            if self._timeline.jumped:
                raise SourceError("its time stamps jump back, and may stand for several pictures")
            with closing(Decoder(self._open, self.name, stopping=self._stopping, threads=1)) as again:
                again.seek(self._timeline.at(min(left) if shown is None else shown))
                for picture in again._pictures:
                    if picture.pts == shown:
                        settled = again.damaged
                    elif picture.pts in left:
                        lost.discard(picture.pts)
                        yield picture
                self.damaged = known + again.damaged - settled
        except (StreamSegError, av.FFmpegError) as error:  # a pipe is over; a server has gone
            self.damaged = max(self.damaged, known + len(lost))
            if lost:
                logger.warning("%s: its last %d pictures were lost, for one of them is damaged", self.name, len(lost))
            logger.debug("cannot read the end of %s again: %s", self.name, error)

    def _whole(self, packets: Iterator[Packet[VideoStream]]) -> Iterator[Packet[VideoStream]]:
        """The packets, or of a stream that comes in pieces, those joined into pictures."""
        if self._units is None:
            yield from packets
            return
        for packet in packets:
            # An empty packet asks the codec for the pictures inside it, which is how the stream ends.
            joined = self._units.add(bytes(packet), packet.pts) if packet.size else self._units.flush()
            for data, pts in joined:
                yield packet_of(data, pts, packet)
            if not packet.size:
                yield packet

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        failed = 0
        hearing = self.hearing
        packets = Packets(self._container, self._stream, [] if hearing is None else [hearing.track])
        read = packets.next if self._units is None else partial(self._read, packets, self._units)
        while failed < MOST_FAILED_READS and not self._stopping():  # asked first: once closed, reading would crash
            try:
                packet = read()
            except (av.InvalidDataError, av.PatchWelcomeError) as error:  # the latter of what makes no sense to FFmpeg
                self._skip(error)
                failed += 1
                continue
            except av.FFmpegError as error:
                if self.live or error.errno != errno.EIO or size_of(self._container):
                    raise
                # How FFmpeg calls the end of what an HTTP server sends without saying how long it is.
                self._hung_up = error
                packet = Packet()
            if packet is None:
                return
            failed = 0
            if hearing is not None and packet.stream_index == hearing.track.index:
                if not self._stopping():  # it may have been left behind, and another reads by now
                    hearing.hear(packet, time.monotonic())
                continue
            if not self.live and packet.has_sidedata("encryption_info"):  # a decoder calls it damaged
                raise SourceError(f"{self.name} is encrypted, as what is rented or streamed is", Reason.CODEC)
            if packet.size or is_last(packet):  # the codec takes any empty one for the end
                yield cast("Packet[VideoStream]", packet)
            if self._hung_up is not None:
                return

    def _read(self, packets: Packets, units: AccessUnits) -> Packet[Stream] | None:
        """Read without a watch on the time, and with the turn held, only what follows within a picture."""
        if units.goes_on and self._is_lossless:
            return packets.next()
        self._turn.leave()
        packet = packets.next_waiting()
        if self._is_small:
            self._turn.take()
        return packet

    def _skip(self, error: av.FFmpegError) -> None:
        self.damaged += 1
        logger.debug("left out a damaged packet of %s: %s", self.name, error.strerror)

    def _report(self, end: Fraction) -> None:
        """Say once what was wrong with the recording, `end` being that of its last picture. Raises `av.FFmpegError`."""
        # Once closed, there are no tracks to ask.
        promised = None if self._stopping() else promised_end(self._container, self._stream, self._timeline)
        if promised is not None and is_cut_off(end, promised, frame_rate(self._stream, live=self.live)):
            if self._hung_up is not None:
                raise self._hung_up
            logger.warning("%s is cut off: it ends at %.1f s of %.1f s", self.name, float(end), float(promised))
        if self.damaged:
            logger.warning("%s: %d damaged packets were left out", self.name, self.damaged)
        if self._timeline.repaired:
            logger.debug("%s: %d time stamps were repaired", self.name, self._timeline.repaired)


class _Peekable:
    """Pictures, the next of which can be seen before it is taken."""

    def __init__(self, pictures: Iterator[VideoFrame]) -> None:
        self._pictures = pictures
        self._next: VideoFrame | None = None

    def __iter__(self) -> Iterator[VideoFrame]:
        while (picture := self.peek()) is not None:
            self._next = None
            yield picture

    def peek(self) -> VideoFrame | None:
        """Return the next picture, None at the end."""
        if self._next is None:
            self._next = next(self._pictures, None)
        return self._next


def access_units(container: InputContainer, stream: VideoStream) -> AccessUnits | None:
    """Return what joins a stream that was opened without FFmpeg's parsers; None, and the parsers, where it cannot."""
    if not container.flags & UNPARSED:
        return None
    if stream.codec_context.name in JOINED_CODECS:
        return AccessUnits(stream.codec_context.name)
    container.flags &= ~UNPARSED
    return None


def packet_of(data: bytes, pts: int | None, like: Packet[VideoStream]) -> Packet[VideoStream]:
    """Return a packet with other data, behind which there are zeros: decoders look a little beyond the end."""
    packet = cast("Packet[VideoStream]", Packet(len(data)))  # of bytes it would be made without them
    packet.update(data)
    packet.pts = packet.dts = pts
    packet.time_base = like.time_base
    return packet


def recorded_frames(decoder: Decoder, start: Fraction, stopping: Callable[[], bool]) -> Iterator[Frame]:
    """Frames shown from `start` on, until the recording ends or `stopping`; earlier ones cost no conversion."""
    index = itertools.count()
    pts = None
    for pts, picture in decoder:
        if stopping():
            return
        if pts >= start:
            yield Frame(decoder.image(picture), next(index), pts, time.monotonic())
    if pts is not None and pts < start:
        raise over_before(start, decoder.name, pts)


def over_before(start: Fraction, name: str, last: Fraction) -> SourceError:
    """Say that a recording has its `last` picture before it is to start, both in seconds."""
    return SourceError(f"{name} has its last picture at {float(last):.3f} s; it cannot start at {float(start):g} s")
