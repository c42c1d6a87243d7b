"""What can be told of a model file without loading it: that it is ONNX at all, whole, and keeps its weights at home.

ONNX Runtime 1.23 reads external weights from wherever the file says, and no version says "web page" of one. So
the file is looked at here first, for the names of external files (https://onnx.ai/onnx/repo-docs/ExternalData.html).
"""

from __future__ import annotations

import mmap
import re
import shlex
import zipfile
from collections.abc import Iterator
from pathlib import Path

from stream_seg.catalog.protobuf import fields
from stream_seg.errors import ModelError

_RUN = "and stream-seg runs ONNX graphs"
_ULTRALYTICS = f"an Ultralytics checkpoint, {_RUN}: yolo export model={{model}} format=onnx makes one"
_PYTORCH = (
    f"PyTorch weights, {_RUN}: stream-seg export {{model}} -o model.onnx makes one of Mask R-CNN weights, "
    "yolo export model={model} format=onnx of Ultralytics'"
)
_SAFETENSORS = f"safetensors weights, {_RUN}: stream-seg export {{model}} -o model.onnx makes one of Mask R-CNN weights"
_PROGRAM = f"a PyTorch program, {_RUN}: export what it was made of to ONNX"
_TENSORRT = f"a TensorRT engine, {_RUN}: export the weights it was made of with format=onnx"
_LITE = f"a TensorFlow Lite model, {_RUN}: export what it was made of to ONNX"
_TENSORFLOW = f"a TensorFlow graph, {_RUN}: python -m tf2onnx.convert makes one (docs/models.md)"
_ARCHIVE = "an archive: unpack it, and name the ONNX graph in it"

_BY_CONTENT = (
    (rb"\s*<\?xml.*<net ", f"an OpenVINO model, {_RUN}: export what it was made of to ONNX"),
    (rb"\s*<(!doctype|html|\?xml)", "a web page: the download went wrong, fetch it again"),
    (rb"version https://git-lfs", "a Git LFS pointer, not the model itself: run git lfs pull"),
    (rb"(PK\x03\x04.*data\.pkl|\x80[\x02-\x05]).*ultralytics", _ULTRALYTICS),
    (rb"PK\x03\x04.*data\.pkl|\x80[\x02-\x05]", _PYTORCH),
    (rb"PK\x03\x04", _ARCHIVE),
    (rb".{7}\x00\{\"", _SAFETENSORS),
    (rb".{4}TFL3", _LITE),
)
_BY_SUFFIX = {
    ".pt": _PYTORCH,
    ".pth": _PYTORCH,
    ".safetensors": _SAFETENSORS,
    ".engine": _TENSORRT,
    ".plan": _TENSORRT,
    ".trt": _TENSORRT,
    ".tflite": _LITE,
    ".pb": _TENSORFLOW,
}
"""What a file is that can be told by its name alone: that it is no ONNX is all that its content says."""

_HEAD = 4096
"""Bytes in which a checkpoint names the package that its model is of."""

# Where tensors are found: message -> field number -> the message inside, from onnx.proto.
_INSIDE = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_KEY, _VALUE = 1, 2
_DEEPEST = 64


def check_model(path: Path) -> int:
    """Return the bytes of a model with its external weights; raise `ModelError` for what cannot be used."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            _refuse_other_kinds(path, head)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                locations = set(_locations(data, "model", 0, len(data), 0))
        size = path.stat().st_size + sum(_weights(path, location).stat().st_size for location in locations)
    except OSError as error:
        raise ModelError(f"the model {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise no_graph(path) from error
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ModelError(f"the model {path} has a name that is not UTF-8: rename it, or its folder") from error
    return size


def no_graph(path: Path) -> ModelError:
    """The error to raise for a file whose content is no ONNX graph: by its name it may be another kind of model."""
    what = _BY_SUFFIX.get(path.suffix.lower())
    if what is not None:
        return _is_another_kind(path, what)
    return ModelError(f"the model {path} is no ONNX model, or is cut short or damaged: fetch it again")


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    if not head:
        raise ModelError(f"the model {path} is empty: fetch it again")
    for pattern, what in _BY_CONTENT:
        if re.match(pattern, head, re.IGNORECASE | re.DOTALL):
            raise _is_another_kind(path, _PROGRAM if what is _ARCHIVE and _holds_program(path) else what)


def _holds_program(path: Path) -> bool:
    """Whether an archive is of `torch.jit.save` or `torch.export.save`, which put the weights in front."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(("/data.pkl", "/archive_format")) for name in archive.namelist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):  # damaged
        return False


def _is_another_kind(path: Path, what: str) -> ModelError:
    return ModelError(f"{path} is {what.format(model=shlex.quote(str(path)))}")


def _weights(model: Path, location: str) -> Path:
    """The file of external weights, in the model's folder or below; links of a download cache are followed."""
    file = (model.parent / location).resolve()
    homes = (model.parent.resolve(), model.resolve().parent)
    if not any(file.is_relative_to(home) for home in homes):
        raise ModelError(f"the model {model} keeps weights outside its own folder ({location!r}), which is not allowed")
    if not file.is_file():
        raise ModelError(f"the model {model} needs its weights file {location!r} beside it, which is missing")
    return file


def _locations(data: mmap.mmap, message: str, start: int, end: int, depth: int) -> Iterator[str]:
    """The `location` of every tensor kept in another file. Raise `ValueError` for bytes that are no protobuf."""
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    for field, place in fields(data, start, end):
        inside = _INSIDE[message].get(field)
        if inside is None or not isinstance(place, slice):
            continue
        if inside == "entry":
            parts = fields(data, place.start, place.stop)
            entry = {number: data[part] for number, part in parts if isinstance(part, slice)}
            if entry.get(_KEY) == b"location":
                yield entry.get(_VALUE, b"").decode()
        else:
            yield from _locations(data, inside, place.start, place.stop, depth + 1)
