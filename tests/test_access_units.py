"""Pictures of a camera's stream: whole, in order, at their last byte; and never wrong for long."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from fractions import Fraction
from typing import cast

import av
import numpy as np
import pytest

from stream_seg.sources.access_units import SURE_AFTER, AccessUnits
from stream_seg.sources.decoding import packet_of

PADDING = 64
"""FFmpeg's AV_INPUT_BUFFER_PADDING_SIZE."""

FRAGMENT = 1200
"""Bytes that fill a packet."""


def encoded(codec: str, count: int, slices: int) -> list[bytes]:
    """Pictures of noise, each as one access unit with so many slices."""
    context = av.CodecContext.create({"h264": "libx264", "hevc": "libx265"}[codec], "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = 160, 384, "yuv420p"
    context.time_base, context.framerate = Fraction(1, 30), Fraction(30)
    parameters = {
        "h264": ("x264-params", f"keyint=10:scenecut=0:threads=1:sliced-threads=0:slices={slices}"),
        "hevc": ("x265-params", f"keyint=10:no-scenecut=1:log-level=none:pools=1:slices={slices}"),
    }
    context.options = dict([("preset", "ultrafast"), ("tune", "zerolatency"), parameters[codec]])
    noise = np.random.default_rng(1)
    units = []
    for number in range(count):
        picture = av.VideoFrame.from_ndarray(noise.integers(0, 255, (384, 160, 3), np.uint8), "bgr24")
        picture.pts = number
        units += [bytes(packet) for packet in context.encode(picture.reformat(format="yuv420p"))]
    return units + [bytes(packet) for packet in context.encode(None)]


def packets_of(unit: bytes) -> Iterator[bytes]:
    """The unit as FFmpeg hands out RTP packets: slices in fragments, of which only the first has a header."""
    for nal in unit.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]:
        data = b"\0\0\0\1" + nal
        first = FRAGMENT + 5
        yield data[:first]
        yield from (data[at : at + FRAGMENT] for at in range(first, len(data), FRAGMENT))


def joined(unit: bytes) -> bytes:
    return b"".join(packets_of(unit))


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("slices", [1, 3])
def test_each_picture_is_handed_out_whole_with_its_last_packet(codec: str, slices: int) -> None:
    units = encoded(codec, 25, slices)
    joiner = AccessUnits(codec)
    early = 0
    for pts, unit in enumerate(units):
        results = [joiner.add(packet, pts) for packet in packets_of(unit)]
        handed_out = [found for result in results for found in result]
        if pts < SURE_AFTER:
            assert handed_out == ([(joined(units[pts - 1]), pts - 1)] if pts else [])
        elif results[-1] == [(joined(unit), pts)]:
            early += 1
        else:
            assert (joined(unit), pts) not in handed_out
    assert early >= len(units) - SURE_AFTER - 3  # a last fragment may happen to be a full one
    assert len(units) == 25


def test_what_is_handed_out_can_be_decoded() -> None:
    joiner = AccessUnits("h264")
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    whole = [
        found
        for pts, unit in enumerate(encoded("h264", 20, 2))
        for p in packets_of(unit)
        for found in joiner.add(p, pts)
    ]
    whole += joiner.flush()
    assert [pts for _, pts in whole] == list(range(20))
    pictures = []
    for data, pts in whole:
        packet = av.Packet(data)
        packet.pts = pts
        pictures += decoder.decode(packet)
    pictures += decoder.decode(None)
    assert [picture.pts for picture in pictures] == list(range(20))


def test_a_varying_number_of_slices_is_waited_for() -> None:
    joiner = AccessUnits("h264")
    units = [unit for pair in zip(encoded("h264", 12, 1), encoded("h264", 12, 2), strict=True) for unit in pair]
    for pts, unit in enumerate(units):
        results = [found for packet in packets_of(unit) for found in joiner.add(packet, pts)]
        assert results == ([(joined(units[pts - 1]), pts - 1)] if pts else [])


def test_after_one_wrong_guess_every_picture_is_waited_for() -> None:
    joiner = AccessUnits("h264")
    units = encoded("h264", 12, 1) + encoded("h264", 30, 2)
    handed_out = [joiner.add(packet, pts) for pts, unit in enumerate(units) for packet in packets_of(unit)]
    assert max(map(len, handed_out)) == 1
    pictures = [found for result in handed_out for found in result] + joiner.flush()
    assert [pts for _, pts in pictures] == list(range(len(units)))
    wrong = [pts for data, pts in pictures if data != joined(units[pts or 0])]
    assert wrong == [12]
    late = joiner.add(b"\0\0\0\1\x41" + bytes(10), 99)
    assert late == []


def test_nothing_is_lost_where_time_stamps_are_missing() -> None:
    joiner = AccessUnits("h264")
    data = encoded("h264", 3, 1)
    assert not any(joiner.add(packet, None) for unit in data for packet in packets_of(unit))
    ((rest, pts),) = joiner.flush()
    assert (rest, pts) == (b"".join(map(joined, data)), None)
    assert joiner.flush() == []


def test_of_another_codec_the_next_time_stamp_is_waited_for_and_never_without_a_watch() -> None:
    joiner = AccessUnits("mpeg4")
    for pts in range(2 * SURE_AFTER):
        results = [joiner.add(piece, pts) for piece in (b"\0\0\1\xb6" + bytes(96), b"rest")]
        assert results == [[(b"\0\0\1\xb6" + bytes(96) + b"rest", pts - 1)] if pts else [], []]
        assert not joiner.goes_on


def test_behind_a_joined_picture_there_are_zeros_for_decoders_that_look_beyond_its_end() -> None:
    memory = b"picture" + b"\xff" * PADDING
    like = cast("av.Packet[av.VideoStream]", av.Packet(1))
    like.time_base = Fraction(1, 90000)
    packet = packet_of(cast(bytes, memoryview(memory)[:7]), 0, like)
    assert ctypes.string_at(packet.buffer_ptr, 7 + PADDING) == b"picture" + bytes(PADDING)


def test_more_is_on_its_way_after_a_full_fragment_and_once_the_number_of_slices_is_known() -> None:
    joiner = AccessUnits("h264")
    for pts, unit in enumerate(encoded("h264", SURE_AFTER + 2, 1)):
        packets = [*packets_of(unit)]
        for packet in packets[:-1]:
            joiner.add(packet, pts)
            full = len(packet) >= FRAGMENT
            assert joiner.goes_on or not (full or pts > SURE_AFTER)
        joiner.add(packets[-1], pts)
        assert not joiner.goes_on
