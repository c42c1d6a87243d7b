"""Reads what an ONNX file says of itself: inputs, outputs, opset, producer, metadata."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

from stream_seg.catalog.protobuf import fields
from stream_seg.errors import ModelError

# Field numbers of ModelProto and OperatorSetIdProto: onnx/onnx.proto.
_PRODUCER_VERSION = 3
_OPSET_IMPORT = 8
_OPSET_DOMAIN = 1
_OPSET_VERSION = 2

CONFIG_LETTERS = 60
"""How much of a network's configuration, which is for programs, people are shown."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output: its name, element type, and shape (a name or None stands for a free axis).

    ONNX Runtime makes up a name, `unk__...`, for an axis without one.
    """

    name: str
    type: str
    shape: tuple[int | str | None, ...]
    optional: bool = False

    def __str__(self) -> str:
        axes = ", ".join("?" if axis is None or str(axis).startswith("unk__") else str(axis) for axis in self.shape)
        return f"{self.name}: {self.type} [{axes}]{' (optional)' if self.optional else ''}"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What an ONNX file says of itself. `opsets` maps operator domains ("" is ONNX's own) to versions."""

    path: Path
    bytes: int
    opsets: dict[str, int]
    producer: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    metadata: dict[str, str]

    def __str__(self) -> str:
        """Several lines of plain text."""
        opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in self.opsets.items())
        lines = [
            f"file      {self.path}",
            f"size      {self.bytes / 1e6:.1f} MB",
            f"opset     {opsets}",
            f"producer  {self.producer or 'unknown'}",
        ]
        lines += _labelled("inputs", [str(tensor) for tensor in self.inputs])
        lines += _labelled("outputs", [str(tensor) for tensor in self.outputs])
        lines += _labelled("metadata", [f"{key} = {_shortened(key, value)}" for key, value in self.metadata.items()])
        return "\n".join(lines)


def _shortened(key: str, value: str) -> str:
    """What is shown of a value of the metadata; of a network's whole configuration no more than its beginning."""
    if key != "config" or len(value) <= CONFIG_LETTERS:
        return value
    return f"{value[:CONFIG_LETTERS]}... ({len(value)} characters)"


def _labelled(label: str, values: list[str]) -> list[str]:
    return [f"{label if i == 0 else '':<10}{value}" for i, value in enumerate(values)]


def info(path: Path) -> ModelInfo:
    """Describe the ONNX file `path`; it is loaded, so that a damaged one is found out. Raises `ModelError`."""
    opsets, producer_version = _read_header(path)
    import onnxruntime as ort  # here: listing models must not wait for it

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own classes share no other base
        raise ModelError(f"{path} is damaged or no model ONNX Runtime can load: {_first_line(error)}") from error
    said = session.get_modelmeta()
    optional = [
        TensorInfo(a.name, a.type, tuple(a.shape), optional=True) for a in session.get_overridable_initializers()
    ]
    return ModelInfo(
        path=path,
        bytes=path.stat().st_size,
        opsets=opsets,
        producer=f"{said.producer_name} {producer_version}".strip(),
        inputs=(*(TensorInfo(a.name, a.type, tuple(a.shape)) for a in session.get_inputs()), *optional),
        outputs=tuple(TensorInfo(a.name, a.type, tuple(a.shape)) for a in session.get_outputs()),
        metadata=dict(sorted(said.custom_metadata_map.items())),
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _read_header(path: Path) -> tuple[dict[str, int], str]:
    """Opset versions and producer version, which ONNX Runtime does not tell; skips over the graph unread."""
    opsets: dict[str, int] = {}
    producer_version = ""
    try:
        if not path.stat().st_size:  # which cannot be mapped
            raise ValueError("it is empty")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for field, place in fields(data, 0, len(data)):
                if isinstance(place, slice) and field == _PRODUCER_VERSION:
                    producer_version = data[place].decode(errors="replace")
                elif isinstance(place, slice) and field == _OPSET_IMPORT:
                    opsets.update([_opset(data[place])])
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{path} is no ONNX file, or a damaged one: {error}") from error
    return opsets, producer_version


def _opset(message: bytes) -> tuple[str, int]:
    domain, version = "", 0
    for field, value in fields(message, 0, len(message)):
        if field == _OPSET_DOMAIN and isinstance(value, slice):
            domain = message[value].decode(errors="replace")
        elif field == _OPSET_VERSION and isinstance(value, int):
            version = value
    return domain, version
