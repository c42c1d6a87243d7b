"""A program with parts of its own, as users write it who check their types: mypy reads this file, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from stream_seg import Detections, Feed, Frame, Pipeline, SourceInfo
from stream_seg.protocols import Outcome, Sink
from stream_seg.segmenters import FunctionSegmenter

NAMES = ("cat", "dog")


class Grey:
    def __init__(self, count: int) -> None:
        self.info = SourceInfo("grey", (8, 6), "video")
        self.count = count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.count):
            yield Frame.at(np.full((6, 8, 3), 90, np.uint8), index / 25, index)

    def close(self) -> None:
        self.count = 0


class Everywhere:
    class_names = NAMES
    max_batch = 1

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        return [both(picture) for picture in pictures]


class Written(Sink):
    """Has one method, as in docs/python.md."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def write(self, frame: Frame, found: Detections) -> None:
        for one in found:
            self.names += one.names


class Ended(Sink):
    """Has another."""

    def __init__(self) -> None:
        self.outcome: Outcome | None = None

    def close(self, outcome: Outcome) -> None:
        self.outcome = outcome


def both(picture: NDArray[np.uint8]) -> Detections:
    boxes = np.array([[0, 0, picture.shape[1], picture.shape[0]]] * 2, np.float32)
    return Detections(boxes, np.array([0.9, 0.8], np.float32), np.array([0, 1]), np.ones((2, 4, 4), np.float32), NAMES)


def dogs(shot: Frame, things: Detections) -> Detections:
    return things[np.array(things.names) == "dog"]


def darker(shot: Frame, things: Detections) -> Frame:
    return shot.with_image(shot.image // 2)


def test_parts_of_ones_own_need_no_more_than_the_documents_say() -> None:
    written, ended = Written(), Ended()
    segmenter = FunctionSegmenter(both, NAMES)
    summary = Pipeline(Grey(2), segmenter, sinks=[written, ended], follower=dogs, renderer=darker).run()
    assert (summary.delivered, written.names, ended.outcome) == (2, ["dog", "dog"], Outcome.COMPLETE)
    feeds = [Feed(Grey(3), [written], follower=dogs, renderer=darker), Feed(Grey(1))]
    assert Pipeline(feeds, Everywhere()).run().delivered == 4


def test_detections_are_selected_by_what_selects_from_an_array() -> None:
    found = both(np.zeros((6, 8, 3), np.uint8))
    places = np.argsort(found.scores)
    selected = [found[0], found[places[1]], found[[0]], found[places[1:]], found[:1], found[found.scores > 0.85]]
    assert [one.names for one in selected] == 6 * [["cat"]]
    assert [one.names for one in found] == [["cat"], ["dog"]]
