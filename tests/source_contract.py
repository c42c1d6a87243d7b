"""What every source keeps to, as one check that runs in any process."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from itertools import pairwise

from stream_seg.frame import Frame, SourceInfo
from stream_seg.protocols import Source

READ_AHEAD = 4
"""Frames that may still come after `close`: those already inside a reader."""


def check_contract(make: Callable[[], Source]) -> None:
    """Fail with AssertionError unless what `make` returns is a good source of at least five frames."""
    check_frames(make())
    check_close_in_the_middle(make())
    check_close_by_another_thread(make())
    check_end_of_the_with_block(make())
    check_close_before_it_is_opened(make())
    check_no_thread_is_left()


def check_frames(source: Source) -> None:
    with source:
        frames = list(itertools.islice(source, 5))
        check_info(source.info, frames)
    numbers = [frame.index for frame in frames]
    if source.info.is_live:  # those that nobody took in time are left out
        assert all(before < after for before, after in pairwise(numbers))
    else:
        assert numbers == [0, 1, 2, 3, 4]
    assert all(before.pts < after.pts for before, after in pairwise(frames))
    assert all(before.captured_at <= after.captured_at for before, after in pairwise(frames))
    assert all(frame.image.flags.c_contiguous and frame.image.flags.writeable for frame in frames)


def check_info(info: SourceInfo, frames: list[Frame]) -> None:
    assert info.name
    assert info.kind in ("video", "live", "images")
    assert all((frame.pts / info.time_base).denominator == 1 for frame in frames)
    assert all(frame.pts >= info.start for frame in frames)
    assert info.frame_rate is None or 0 < info.frame_rate <= 1000
    assert info.frame_count is None or info.frame_count >= len(frames)
    if info.kind == "images":
        assert all(frame.name for frame in frames)
    else:
        assert {frame.size for frame in frames} == {info.size}
        assert {frame.name for frame in frames} == {None}


def check_close_in_the_middle(source: Source) -> None:
    with source:
        frames = iter(source)
        next(frames)
        source.close()  # type: ignore[attr-defined]
        source.close()  # type: ignore[attr-defined]
        assert len(list(frames)) <= READ_AHEAD
    source.close()  # type: ignore[attr-defined]


def check_end_of_the_with_block(source: Source) -> None:
    with source:
        frames = iter(source)
        next(frames)
    assert len(list(frames)) <= READ_AHEAD


def check_close_by_another_thread(source: Source) -> None:
    with source:
        closer = threading.Thread(target=source.close)  # type: ignore[attr-defined]
        frames = iter(source)
        next(frames)
        closer.start()
        closer.join()
        assert len(list(frames)) <= READ_AHEAD


def check_close_before_it_is_opened(source: Source) -> None:
    source.close()  # type: ignore[attr-defined]
    source.close()  # type: ignore[attr-defined]


def check_no_thread_is_left() -> None:
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("stream-seg")] == []
