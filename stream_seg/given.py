"""Owns what the library makes of what it is given: what is easily taken for a part of a pipeline, a number or a name is
refused in plain words.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import cast

import numpy as np

from stream_seg.errors import UsageError
from stream_seg.frame import Frame
from stream_seg.protocols import Sink, Source

_SINK_METHODS = ("open", "write", "ended", "close", "wants_stop", "holds")


def refuse_no_source(given: object) -> None:
    """Raise `UsageError` for what is easily taken for a source: the name of one, images, a generator."""
    if isinstance(given, str | int | Path):
        name = given if isinstance(given, int) else str(given)
        raise UsageError(f"a pipeline takes sources, not their names: open_source({name!r}) opens one")
    if isinstance(given, np.ndarray):
        raise UsageError(
            "a pipeline takes sources, not images: stream_seg.sources.ListSource([image, ...]) is one; or do without a "
            "pipeline, segmenter([image, ...])"
        )
    if not hasattr(type(given), "__enter__"):
        raise UsageError(
            f"a pipeline takes a source, as open_source opens it, or a list of Feeds, got {_kind(given)}; "
            "one of your own has what stream_seg.protocols.Source has"
        )


def _kind(given: object) -> str:
    """What something is, in a word or two."""
    return f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__


def refuse_shared(sources: Sequence[Source]) -> None:
    """Raise `UsageError` where feeds have a source in common: each would get some of its frames."""
    if len(set(map(id, sources))) < len(sources):
        raise UsageError("a source is read once, by one Feed, and one was given to several: open it for each")


def refuse_shared_sinks(sinks: Sequence[Sink]) -> None:
    """Raise `UsageError` where a sink that is `of_one_feed` is there twice.

    Others, which only look at what comes, may get the frames of several sources.
    """
    own = [sink for sink in sinks if getattr(sink, "of_one_feed", False)]
    for place, sink in enumerate(own):
        if any(sink is other for other in own[:place]):
            which = f"that of {sink.path}" if hasattr(sink, "path") else "one"
            raise UsageError(
                f"{type(sink).__name__} is opened once, by one Feed, and {which} was given twice: "
                "open one for each, with a name or address of its own"
            )


def refuse_no_segmenter(given: object) -> None:
    """Raise `UsageError` for what is easily taken for a segmenter: the name of a model, a function, a source."""
    if isinstance(given, str | Path):
        raise UsageError(f"a pipeline takes a segmenter, not its name: load_segmenter({str(given)!r}) opens one")
    if callable(given) and not hasattr(given, "max_batch"):
        raise UsageError(
            "a pipeline takes a segmenter, which has class_names and max_batch: "
            "stream_seg.segmenters.FunctionSegmenter(function, class_names) makes one of a function"
        )
    if not callable(given):
        raise UsageError(f"a pipeline takes a source and a segmenter, as load_segmenter opens it, got {_kind(given)}")


def each_sink(given: Iterable[Sink]) -> tuple[Sink, ...]:
    """The sinks. Raise `UsageError` for what is easily taken for them: names, functions, or one that is in no list."""
    if hasattr(given, "write") or not isinstance(given, Iterable):
        raise UsageError("sinks are given as a list, also an only one: sinks=[sink]")
    sinks = (given,) if isinstance(given, str | Path) else tuple(given)  # a generator is used up by the first look
    for sink in sinks:
        if isinstance(sink, str | Path):
            raise UsageError(f"a pipeline takes sinks, not their names: open_sink({str(sink)!r}) opens one")
        lacking = [name for name in _SINK_METHODS if not callable(getattr(sink, name, None))]
        if isinstance(sink, type) or lacking:
            lack = f" without {', '.join(lacking)}" if lacking else ""
            raise UsageError(
                f"a pipeline takes sinks, got {_kind(sink)}{lack}: one of your own is an object of a subclass of "
                "stream_seg.protocols.Sink, which has what you leave out"
            )
    return cast("tuple[Sink, ...]", sinks)


def refuse_no_step(name: str, given: object) -> None:
    """Raise `UsageError` for what is easily taken for a follower or renderer, as `name` says: a class, a name."""
    if given is None or (callable(given) and not isinstance(given, type)):
        return
    hint = ""
    if isinstance(given, type):
        hint = f": {name}={given.__name__}() makes one of it"
    elif isinstance(given, str) and name == "renderer":
        hint = f": renderer=Renderer({given!r}) draws a view"
    raise UsageError(f"a {name} is called with a frame and its detections, got {_kind(given)}{hint}")


def picture_of(drawn: object) -> Frame:
    """What a renderer returned. Raise `TypeError` for what is no frame: None would pass for nothing to be drawn."""
    if not isinstance(drawn, Frame):
        raise TypeError(f"a renderer returns a Frame, frame.with_image(image), got {type(drawn).__name__}")
    return drawn


def is_whole(given: object, allowed: range) -> bool:
    """Whether it is a whole number of these, also one of NumPy's: 2.0 is one for Python, but not for what counts."""
    return isinstance(given, int | np.integer) and not isinstance(given, bool) and int(given) in allowed


def check_count(name: str, given: object, least: int = 1) -> None:
    """Raise `UsageError` for what is no whole number of at least `least`."""
    if not is_whole(given, range(least, sys.maxsize)):
        raise UsageError(f"{name} must be a whole number of at least {least}, got {given!r}")


def check_seconds(name: str, given: object) -> None:
    """Raise `UsageError` for what is no number, or one that is not more than 0, or endless."""
    if not isinstance(given, Real) or not 0 < float(given) < math.inf:
        raise UsageError(f"{name} must be more than 0 seconds, got {given!r}")


def refuse_no_path(what: str, given: object) -> None:
    """Raise `UsageError` for what is neither text nor a path, as `what` says."""
    if not isinstance(given, str | PathLike):
        raise UsageError(f"{what} is given by its name, a str or Path, not {given!r}")
