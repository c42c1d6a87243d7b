"""Sessions of one model, each for inputs of one shape.

ONNX Runtime has cuDNN plan a convolution whenever its input is of another shape than in the run before, and remembers
no plan but the last: about a millisecond for each layer (https://github.com/microsoft/onnxruntime/issues/23006). Frames
come in batches of several sizes and on several canvases, in turn, so that one session would plan all the time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from stream_seg.errors import StreamSegError

Shapes = tuple[tuple[int, ...], ...]


class SessionsByShape:
    """Sessions that `load` opens when a new shape needs one, at most `most`; any number of threads."""

    concurrency = 1

    def __init__(self, load: Callable[[], onnxruntime.InferenceSession], most: int) -> None:
        """Opens the first, so that a model that cannot be had fails here."""
        self._load = load
        self._most = most
        self._unused = [load()]
        self._of: OrderedDict[Shapes, onnxruntime.InferenceSession] = OrderedDict()
        self._lock = threading.Lock()

    def any(self) -> onnxruntime.InferenceSession:
        """One of them, to ask."""
        return [*self._unused, *self._of.values()][0]

    def ways(self) -> list[onnxruntime.InferenceSession]:
        """None by itself: which one is chosen depends on the inputs."""
        return []

    @contextmanager
    def lend(self, feeds: Mapping[str, NDArray[np.generic]]) -> Iterator[onnxruntime.InferenceSession]:
        """The session for inputs of these shapes."""
        shapes = tuple(array.shape for array in feeds.values())
        with self._lock:
            if shapes not in self._of:
                self._of[shapes] = self._another()
            self._of.move_to_end(shapes)
            session = self._of[shapes]
        yield session

    def give_back(self) -> bool:
        """Close all but one, for their memory; it does the work of all from now on. False where there is but one."""
        with self._lock:
            if len(self._of) < 2:
                return False
            self._most = 1
            shapes, session = self._of.popitem()
            self._of.clear()
            self._of[shapes] = session
            return True

    def _another(self) -> onnxruntime.InferenceSession:
        """A new one, or that of the shape that was not seen for longest: it plans anew, which beats not to run."""
        if self._unused:
            return self._unused.pop()
        if len(self._of) < self._most:
            try:
                return self._load()
            except StreamSegError:  # the device has no memory for one more
                self._most = len(self._of)
        return self._of.popitem(last=False)[1]
