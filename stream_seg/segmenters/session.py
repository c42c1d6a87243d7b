"""ONNX Runtime sessions: opening a model file on a device, and running it on one thread or several.

Every refusal is a sentence: nothing of ONNX Runtime's own log reaches the user, because whatever it would report
is either raised from here or harmless.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from stream_seg.errors import ModelError
from stream_seg.segmenters.device import NoCuda, cores, parse_device, require_cuda
from stream_seg.segmenters.model_file import check_model

logger = logging.getLogger(__name__)

Array = NDArray[np.generic]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]
"""Inputs by name in, outputs by name out."""

Provider = str | tuple[str, dict[str, str]]
"""ONNX Runtime's name of an execution provider, perhaps with options."""


SILENT = 4
"""ONNX Runtime's "fatal": its lower levels repeat what the exceptions say."""

LIGHT_BYTES = 32_000_000
"""Models up to this size run several images at once on a CPU, one thread each. Heavier ones fill the cores with a
single image just as well, and would need their working memory once per image."""

MOST_WORKERS = 8
"""Threads a light model can use: beyond it, they wait for memory and for each other."""

MOST_THREADS = 32
"""Threads a heavy model can use."""

CUDA_BATCH = 8
"""Images per run on CUDA; beyond it a GPU gains little and the wait grows."""

_ORT_ERRORS = (
    ort_errors.EPFail,
    ort_errors.EngineError,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    RuntimeError,
    UnicodeDecodeError,
)

_REFUSALS = (
    (r"Protobuf parsing failed|No graph was found", "is no ONNX model, or is cut short or damaged: fetch it again"),
    (r"IR version: (\d+)", "was written for a newer ONNX (IR version {0}): update onnxruntime"),
    (r"Opset (\d+) is under development", "was written for a newer ONNX (opset {0}): update onnxruntime"),
    (r"error: (\S+?)\(-?\d+\) is not a registered|No Op registered for (\S+)", "uses the unknown operator {0}"),
    (r"Failed to find kernel for (\S+)|implementation for (\S+)", "uses the operator {0}, which onnxruntime lacks"),
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


class Session:
    """A model on a device. `threads` (default: the physical cores) bounds the CPU threads in use.

    On a CPU a run that is alone gets all threads, for the lowest latency. Runs at the same time, up to `concurrency`,
    get one thread each: a batch is no faster than its images one by one, and threads that share an image wait for each
    other (`scripts/bench_threads.py`). A heavy model fills all threads by itself, so its `concurrency` is 1.
    """

    def __init__(self, path: Path, device: str = "auto", threads: int | None = None) -> None:
        """Raise `ModelError` for a file that is no usable model, `DeviceError` for a device that cannot be had."""
        self._light = check_model(path) <= LIGHT_BYTES
        self.path = path
        self._threads = min(threads or cores(), MOST_WORKERS if self._light else MOST_THREADS)
        self.provider, self.device, self._wide, self._narrow = self._open(device)
        self.signature = _signature(path, self._wide)
        self.concurrency = 1 if self._narrow is self._wide else self._threads
        self.batch_limit = 1 if self.device == "cpu" else CUDA_BATCH
        self._running = 0
        self._counting = threading.Lock()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name for inputs by name. Any number of threads. Raises `ModelError` when the model fails."""
        with self._counting:
            session = self._narrow if self._running else self._wide
            self._running += 1
        try:
            return self._run(session, feeds)
        finally:
            with self._counting:
                self._running -= 1

    @property
    def ways(self) -> list[Run]:
        """What `run` chooses from, for warming up: on all threads, and on one."""
        sessions = [self._wide] if self._narrow is self._wide else [self._wide, self._narrow]
        return [partial(self._run, session) for session in sessions]

    def _run(self, session: onnxruntime.InferenceSession, feeds: Mapping[str, Array]) -> dict[str, Array]:
        names = list(self.signature.outputs)
        try:
            return dict(zip(names, session.run(names, feeds), strict=True))
        except _ORT_ERRORS as error:
            raise ModelError(f"the model {self.path.name} failed on {self.device}: {_failure(str(error))}") from error

    def _open(self, device: str) -> tuple[str, str, onnxruntime.InferenceSession, onnxruntime.InferenceSession]:
        """Provider, device, and the sessions for runs that are alone and for runs at the same time."""
        kind, index = parse_device(device)
        if kind == "cpu":
            return "CPUExecutionProvider", "cpu", *self._on_cpu()
        try:
            require_cuda(index)
            session = self._on_cuda(index)
        except NoCuda as error:
            if kind == "cuda":
                raise
            logger.info("device auto: chose the CPU, because %s", error.reason)
            return "CPUExecutionProvider", "cpu", *self._on_cpu()
        if kind == "auto":
            logger.info("device auto: chose cuda:%d, the first CUDA device", index)
        return "CUDAExecutionProvider", f"cuda:{index}", session, session

    def _on_cpu(self) -> tuple[onnxruntime.InferenceSession, onnxruntime.InferenceSession]:
        def load(threads: int) -> onnxruntime.InferenceSession:
            return _load(self.path, _options(threads), ["CPUExecutionProvider"])

        if not self._light or self._threads == 1:
            session = load(self._threads)
            return session, session
        with ThreadPoolExecutor(1, "stream-seg-load") as beside:  # half a second of work on one thread for either
            narrow = beside.submit(load, 1)
            return load(self._threads), narrow.result()

    def _on_cuda(self, index: int) -> onnxruntime.InferenceSession:
        providers: list[Provider] = [("CUDAExecutionProvider", cuda_options(index)), "CPUExecutionProvider"]
        session = _load(self.path, _options(self._threads), providers)
        if "CUDAExecutionProvider" not in session.get_providers():
            raise NoCuda("onnxruntime could not start it")
        return session


def cuda_options(index: int) -> dict[str, str]:
    """CUDA provider options: no exhaustive search of convolutions (it takes up to a second per new input shape)."""
    return {
        "device_id": str(index),
        "cudnn_conv_algo_search": "HEURISTIC",
        "cudnn_conv_use_max_workspace": "1",
        # Buffers grow by what is asked, not to the next power of two: shapes are few, and GPUs are shared.
        "arena_extend_strategy": "kSameAsRequested",
    }


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
        return onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
    except _ORT_ERRORS as error:
        raise ModelError(f"the model {path} {_refusal(str(error))}") from error


def _refusal(message: str) -> str:
    for pattern, sentence in _REFUSALS:
        match = re.search(pattern, message)
        if match:
            return sentence.format(*[Path(group).name for group in match.groups() if group])
    return f"cannot be loaded: {_plain(message)}"


def _failure(message: str) -> str:
    if re.search("out of memory|Failed to allocate", message, re.IGNORECASE):
        return "out of memory; try --batch-size 1 or another device"
    return _plain(message)


def _plain(message: str) -> str:
    """ONNX Runtime's message without its prefix and source positions, in one line."""
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : |/onnxruntime_src/\S+", "", message)
    return " ".join(text.split())[:300]


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
