"""The seams of the pipeline: what a source, a segmenter, a renderer and a sink are.

Subclass them or just have the same methods. A source is used by one thread of the pipeline, and so is a segmenter that
has no `concurrency`; sinks run on the thread that calls `Pipeline.run`, because window toolkits insist on the main one.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self

from stream_seg.detections import Detections
from stream_seg.frame import Frame, Image, SourceInfo


class Source(Protocol):
    """Where frames come from. Iterated once, inside `with`, by one thread.

    The constructor refuses at once what it can without waiting (a missing file, an unknown codec); `__enter__` may
    wait for a device or a network. Both raise `SourceError`, and so does the iteration when reading breaks; it ends
    when the recording ends. `info` is valid from `__enter__` on.

    One that can be away and come back also has `availability`, a `stream_seg.availability.Availability`; one that may
    leave frames out, because newer ones come before they are taken, has `dropped`, their number until now. `damaged` is
    how many packets or files were left out because they could not be read, `worked` the seconds of processor time of
    threads of its own, and `waited` those for which the frames of a recording are held back until they are due; all are
    there also after `with`.
    """

    @property
    def info(self) -> SourceInfo: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """End the iteration soon, also a read that waits. Any thread, in any state, any number of times."""


class Segmenter(Protocol):
    """Images to detections. `max_batch` is the largest number of images one call gains from (1: gains nothing).

    One that also has `concurrency`, a number above 1, is called on that many threads at a time; one that also has
    `warm_up(size, max_batch)` has it called before the first frame, with the (width, height) of the frames. One that
    also has `shown_from`, a score, gets every other frame of a film mirrored, a view whose rows run backwards, unless
    they are more than `steady.APART` apart, and the first one both ways; it tells of what has `steady.DOUBTFUL` times
    that score.
    """

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def max_batch(self) -> int: ...

    def __call__(self, images: Sequence[Image], /) -> list[Detections]:
        """One `Detections` per image, in order, boxes in that image's pixels."""
        ...


class Follower(Protocol):
    """Makes what was found in each frame of one source into what is shown of it: `stream_seg.steady.Steady` is one.

    Called once per frame, in order, by one thread. A `UsageError` that it raises ends its source, and not the others.
    """

    def __call__(self, frame: Frame, found: Detections, /) -> Detections: ...


class Renderer(Protocol):
    """Draws detections: returns a new frame and leaves the given one alone."""

    def __call__(self, frame: Frame, detections: Detections, /) -> Frame: ...


class Outcome(enum.Enum):
    """How a run ended, told to each sink when it is closed."""

    COMPLETE = "complete"
    """The source ended by itself, or at the end it was asked for."""

    STOPPED = "stopped"
    """Somebody ended it: a key, a signal, `Pipeline.stop`."""

    FAILED = "failed"
    """A stage failed: keep what is there, but not under the name of a whole result."""


class Sink(Protocol):
    """Where rendered frames go. `open` once, `write` per frame, `close` once (also after a failed `open`).

    A subclass may leave out what it does not need. The constructor refuses at once what it can (an existing file, an
    unwritable folder, an unknown codec). All raise `OutputError`. Every method is called on the thread that calls
    `Pipeline.run`.
    """

    wants_pictures: bool = True
    """Whether the frames it gets are to be rendered; one that only counts or lists may get them as captured."""

    wants_captured: bool = False
    """Whether the frames it gets are those that were captured in any case, also beside sinks that want pictures."""

    of_one_feed: bool = False
    """Whether it may be given only once to a pipeline: what a second feed writes would take the place of the first."""

    # The methods of a protocol that have no statement are abstract to type checkers: nobody could leave them out.

    def open(self, info: SourceInfo) -> None:  # noqa: ARG002
        """Called before the first frame, with what is known of the source."""
        return

    def write(self, frame: Frame, detections: Detections) -> None:  # noqa: ARG002
        """Take one frame, rendered or as captured (above), which others have, too. Frames come in order."""
        return

    def ended(self) -> None:
        """No more frames will come, for the source has ended by itself. Called at most once, before `close`."""
        return

    def close(self, outcome: Outcome) -> None:  # noqa: ARG002
        """Finish. Whatever was written stays usable."""
        return

    def wants_stop(self) -> bool:
        """Whether the sink asks for the run to end (a key, a closed window). Called at least every 50 ms."""
        return False

    def holds(self) -> bool:
        """Whether the sink wants the next frame withheld for now: a picture is looked at, or sound on its way.

        Asked after `open`, after each frame and after `ended`, of whatever sink; returns within 50 ms.
        """
        return False


class Wall(Protocol):
    """Several feeds in one picture. `draw` is called on the render thread, the rest on the one that calls `run`.

    Feeds are told apart by their place in the pipeline, from 0.
    """

    def open(self) -> None:
        """Called before anything else, also before the first source is there."""

    def draw(self, feed: int, frame: Frame, detections: Detections, picture: Frame | None) -> Frame:
        """Return what the tile of `feed` shows of `frame`; `picture` is the frame as rendered for its own sinks."""
        ...

    def show(self, feed: int, tile: Frame) -> None:
        """Take what `draw` returned, in the order of the feed's frames."""

    def ended(self, feed: int, error: BaseException | None) -> None:
        """No more frames will come from `feed`; `error` says why if that was not its natural end."""

    def tick(self) -> float:
        """Do what is due by now; return the seconds until something is due again. Called at least every 50 ms."""
        ...

    def wants_stop(self) -> bool:
        """As of a sink."""
        ...

    def holds(self) -> bool:
        """As of a sink."""
        ...

    def close(self, outcome: Outcome) -> None:
        """As of a sink."""
