"""ONNX Runtime sessions: opening a model file on a device, and running it on one thread or several.

Every refusal is a sentence: nothing of ONNX Runtime's own log reaches the user, because whatever it would report
is either raised from here or harmless.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from stream_seg.errors import ModelError, UsageError
from stream_seg.segmenters.by_shape import SessionsByShape
from stream_seg.segmenters.device import SILENT, NoCuda, cause, cores, cuda_options, parse_device
from stream_seg.segmenters.model_file import check_model, no_graph

Array = NDArray[np.generic]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]
"""Inputs by name in, outputs by name out."""

Provider = str | tuple[str, dict[str, str]]
"""ONNX Runtime's name of an execution provider, perhaps with options."""


LIGHT_BYTES = 32_000_000
"""Models up to this size run several images at once on a CPU, one thread each. Heavier ones fill the cores with a
single image just as well, and would need their working memory once per image."""

MOST_WORKERS = 8
"""Threads a light model can use: beyond it, they wait for memory and for each other."""

MOST_THREADS = 32
"""Threads a heavy model can use."""

CUDA_BATCHES = (1, 2, 4, 8)
"""Images per run on CUDA, filled up with empty ones: few shapes, for each is planned. Beyond the last, a GPU gains
little and the wait grows."""

MOST_SHAPES = 8
"""Sessions of a model on CUDA: two canvases, each with all sizes of batches. Of a light one, which may look twice at
what is large, twice as many."""

_ORT_ERRORS: tuple[type[Exception], ...] = (
    *(kind for kind in vars(ort_errors).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    UnicodeDecodeError,
)
"""Its own have no base in common, and new versions have new ones."""

_NO_MEMORY = "(?i)out of memory|failed to allocate|bad.alloc|ALLOC_FAILED|smaller than requested"

_NO_GRAPH = r"Protobuf parsing failed|No graph was found|does not have a graph"

_REFUSALS = (
    (r"IR version: (\d+)", "was written for a newer ONNX (IR version {0}): update onnxruntime"),
    (r"Opset (\d+) is under development", "was written for a newer ONNX (opset {0}): update onnxruntime"),
    (r"error: (\S+?)\(-?\d+\) is not a registered|No Op registered for (\S+)", "uses the unknown operator {0}"),
    (r"Failed to find kernel for (\S+)|implementation for (\S+)", "uses the operator {0}, which onnxruntime lacks"),
    (_NO_MEMORY, "finds too little memory on the device: free some, or use another device"),
)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One declared input or output: ONNX Runtime's type (without "tensor()"), dimensions as numbers or names."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        # A damaged or hostile name must not break the line it is reported in.
        name = self.name if self.name.isprintable() else repr(self.name)
        return f"{name} {self.type}[{','.join('?' if d is None else str(d) for d in self.shape)}]"


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model declares: `inputs`, `optional` inputs (those with a default), `outputs`, and its metadata."""

    inputs: Mapping[str, Tensor]
    optional: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    metadata: Mapping[str, str]

    def __str__(self) -> str:
        return f"inputs {_listed(self.inputs)}; outputs {_listed(self.outputs)}"


class _NoMemory(ModelError):
    """A run failed for want of memory."""


_alive: weakref.WeakSet[onnxruntime.InferenceSession] = weakref.WeakSet()


def _keep_for_ever() -> None:
    """Have no session end in a forked process: it would wait for its threads, which are in the other process alone."""
    for session in _alive:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_for_ever)


class SessionsOnCores:
    """Sessions of a model on a CPU: with all `threads`, and where they `share` the work, one with a single thread."""

    def __init__(self, load: Callable[[int], onnxruntime.InferenceSession], threads: int, *, share: bool) -> None:
        if not share or threads == 1:
            self._wide = self._narrow = load(threads)
        else:
            with ThreadPoolExecutor(1, "stream-seg-load") as beside:  # half a second of work on one thread for either
                narrow = beside.submit(load, 1)
                self._wide, self._narrow = load(threads), narrow.result()
        self.concurrency = 1 if self._narrow is self._wide else threads
        self._running = 0
        self._counting = threading.Lock()

    def any(self) -> onnxruntime.InferenceSession:
        """One of them, to ask."""
        return self._wide

    def ways(self) -> list[onnxruntime.InferenceSession]:
        """Those that `lend` chooses from."""
        return [self._wide] if self._narrow is self._wide else [self._wide, self._narrow]

    @contextmanager
    def lend(self, _feeds: Mapping[str, Array]) -> Iterator[onnxruntime.InferenceSession]:
        """The session for a run: with all threads where it is alone."""
        with self._counting:
            session = self._narrow if self._running else self._wide
            self._running += 1
        try:
            yield session
        finally:
            with self._counting:
                self._running -= 1

    def give_back(self) -> bool:
        """None of them can be done without."""
        return False


class Session:
    """A model on a device. `threads` (default: the physical cores) bounds the CPU threads in use.

    On a CPU a run that is alone gets all threads, for the lowest latency. Runs at the same time, up to `concurrency`,
    get one thread each: a batch is no faster than its images one by one, and threads that share an image wait for each
    other (`scripts/bench_threads.py`). A heavy model fills all threads by itself, so its `concurrency` is 1.

    On CUDA each shape of inputs has a session of its own, and runs should have one of the sizes in `batches`.
    """

    def __init__(self, path: Path, device: str, threads: int | None = None) -> None:
        """`device`: cpu or cuda:N, of which `device.choose` says that it can be had.

        Raise `ModelError` for a file that is no usable model, `DeviceError` where the device fails after all.
        """
        is_light = check_model(path) <= LIGHT_BYTES
        self.path = path
        self.device = device
        self._threads = min(threads or cores(), MOST_WORKERS if is_light else MOST_THREADS)
        self.batches: tuple[int, ...] = (1,)
        self.provider = "CPUExecutionProvider"
        self._sessions: SessionsOnCores | SessionsByShape | None
        if device == "cpu":
            self._sessions = SessionsOnCores(self._on_cpu, self._threads, share=is_light)
        else:
            self.batches, self.provider = CUDA_BATCHES, "CUDAExecutionProvider"
            most = 2 * MOST_SHAPES if is_light else MOST_SHAPES
            self._sessions = SessionsByShape(partial(self._on_cuda, parse_device(device)[1]), most)
        self.signature = _signature(path, self._sessions.any())
        self.concurrency = self._sessions.concurrency

    def filled(self, images: int) -> int:
        """How many images, some of them empty, a run with so many should have."""
        return next((size for size in self.batches if size >= images), images)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name for inputs by name. Any number of threads. Raises `ModelError` when the model fails."""
        sessions = self._open()
        try:
            with sessions.lend(feeds) as session:
                return self._run(session, feeds)
        except _NoMemory:
            if not sessions.give_back():
                raise
        with sessions.lend(feeds) as session:
            return self._run(session, feeds)

    def close(self) -> None:
        """Let go of the memory on the device, once no run is under way any more. Any thread, any number of times."""
        self._sessions = None

    @property
    def ways(self) -> list[Run]:
        """What `run` chooses from, for warming up: on all threads, and on one."""
        return [partial(self._run, session) for session in self._open().ways()] or [self.run]

    def _open(self) -> SessionsOnCores | SessionsByShape:
        sessions = self._sessions  # once: another thread may close it meanwhile
        if sessions is None:
            raise UsageError(f"the segmenter of {self.path.name} is closed: call it inside its with block")
        return sessions

    def _run(self, session: onnxruntime.InferenceSession, feeds: Mapping[str, Array]) -> dict[str, Array]:
        names = list(self.signature.outputs)
        try:
            return dict(zip(names, session.run(names, feeds), strict=True))
        except _ORT_ERRORS as error:
            failed = f"the model {self.path.name} failed on {self.device}"
            if re.search(_NO_MEMORY, str(error)):
                raise _NoMemory(f"{failed}: out of memory; try --batch-size 1 or another device") from error
            raise ModelError(f"{failed}: {cause(str(error))}") from error

    def _on_cpu(self, threads: int) -> onnxruntime.InferenceSession:
        return _load(self.path, _options(threads), ["CPUExecutionProvider"])

    def _on_cuda(self, index: int) -> onnxruntime.InferenceSession:
        providers: list[Provider] = [("CUDAExecutionProvider", cuda_options(index)), "CPUExecutionProvider"]
        session = _load(self.path, _options(self._threads), providers)
        if "CUDAExecutionProvider" not in session.get_providers():
            raise NoCuda("onnxruntime could not start it")
        return session


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = threads
    # Threads that spin while they wait for each other use half as much CPU time again, which decoder and encoder need
    # (scripts/bench_threads.py, docs/performance.md).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _load(
    path: Path, options: onnxruntime.SessionOptions, providers: Sequence[Provider]
) -> onnxruntime.InferenceSession:
    onnxruntime.set_default_logger_severity(SILENT)
    try:
        # Its Python layer would print, and fall back to the CPU, when a provider fails, now or in any later run.
        session = onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
        _alive.add(session)
        return session
    except _ORT_ERRORS as error:
        if re.search(_NO_GRAPH, str(error)):
            raise no_graph(path) from error
        raise ModelError(f"the model {path} {_refusal(str(error))}") from error


def _refusal(message: str) -> str:
    for pattern, sentence in _REFUSALS:
        match = re.search(pattern, message)
        if match:
            return sentence.format(*filter(None, match.groups()))
    return f"cannot be loaded: {cause(message)}"


def _signature(path: Path, session: onnxruntime.InferenceSession) -> Signature:
    try:
        return Signature(
            _tensors(session.get_inputs()),
            _tensors(session.get_overridable_initializers()),
            _tensors(session.get_outputs()),
            dict(session.get_modelmeta().custom_metadata_map),
        )
    except UnicodeDecodeError as error:
        raise ModelError(f"the model {path} is damaged: fetch it again") from error


def _tensors(declared: Iterable[onnxruntime.NodeArg]) -> dict[str, Tensor]:
    return {
        node.name: Tensor(node.name, re.sub(r"^tensor\((.*)\)$", r"\1", node.type), tuple(node.shape))
        for node in declared
    }


def _listed(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(map(str, tensors.values()))
