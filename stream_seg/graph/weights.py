"""Reads weights from .pth and .safetensors files, without PyTorch and without executing what they contain.

Three containers are understood: PyTorch's zip file (since 1.6), its older sequence of pickles, and safetensors.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_seg.errors import ModelError
from stream_seg.graph import pickled
from stream_seg.graph.labels import parse_labels
from stream_seg.graph.parameters import State

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First pickle of PyTorch's older files."""

_WRAPPERS = ("state_dict", "model", "model_state_dict", "ema")
"""Where training checkpoints keep the state_dict."""
_MOST_WRAPPERS = 4
"""Dictionaries inside each other; a hostile one holds itself."""

_SAFETENSORS_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "bfloat16",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
_MAX_HEADER = 100_000_000


@dataclass(frozen=True, slots=True)
class Weights:
    """A state_dict: arrays by parameter name, and the SHA-256 of the file it was read from.

    `labels` are the names of its classes, background first, where the file has them (`classes` in the metadata of
    safetensors, which `scripts/train` writes).
    """

    state: State
    sha256: str
    labels: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Weights({len(self.state)} arrays, sha256 {self.sha256[:8]})"


def read_weights(path: Path) -> Weights:
    """Read a state_dict. Half-precision floats become float32.

    Raises ModelError, in one sentence that names the file, if it cannot be read or is not just tensors.
    """
    try:
        data = path.read_bytes()
        reader = _reader(data)
        state = reader(data)
    except OSError as error:
        raise ModelError(f"cannot read the weights {path}: {error.strerror}") from error
    except MemoryError as error:
        raise ModelError(f"cannot read the weights {path}: there is not enough memory for them") from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    return Weights(state, hashlib.sha256(data).hexdigest(), _labels(data) if reader is _read_safetensors else ())


def _reader(data: bytes) -> Callable[[bytes], State]:
    """The container, by its first bytes: file names lie."""
    if data.startswith(b"PK\x03\x04"):
        return _read_zip
    # First: the length of a header, which they begin with, may itself begin as a pickle does. PyTorch's pickles have a
    # magic number where this looks.
    if data[8:9] == b"{":
        return _read_safetensors
    if data[:1] == b"\x80":
        return _read_legacy
    raise ModelError("these are not weights: neither a PyTorch file nor safetensors")


def _read_zip(data: bytes) -> State:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read_archive(archive)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise ModelError(f"the file is damaged or cut off ({error})") from error


def _read_archive(archive: zipfile.ZipFile) -> State:
    entries = {entry.filename: entry for entry in archive.infolist()}
    index = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(index) != 1:
        raise ModelError("this zip file is not a PyTorch checkpoint: it has no data.pkl")
    folder = index[0].removesuffix("data.pkl")

    def content(name: str) -> bytes:
        if name not in entries:
            raise ModelError(f"the file is incomplete: it lacks {name[:80]!r}")
        # PyTorch never compresses, and so an entry cannot unpack to more than the file holds.
        if entries[name].compress_type != zipfile.ZIP_STORED or entries[name].file_size > entries[name].compress_size:
            raise ModelError("refused: the file is compressed, which PyTorch never does")
        return archive.read(name)

    if f"{folder}byteorder" in entries and content(f"{folder}byteorder").strip() != b"little":
        raise ModelError("the weights were written on a big-endian machine, which is not supported")
    root = pickled.load(io.BytesIO(content(index[0])))
    return _arrays(root, lambda storage: content(f"{folder}data/{storage.key}"))


def _read_legacy(data: bytes) -> State:
    """Pickles of a magic number, a version, facts of the machine, the state_dict, the keys; then the data."""
    stream = io.BytesIO(data)
    if pickled.load(stream) != _LEGACY_MAGIC:
        raise ModelError("this pickle is not a PyTorch checkpoint")
    _version, machine, root, keys = (pickled.load(stream) for _ in range(4))
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ModelError("the weights were written on a big-endian machine, which is not supported")
    storages = {storage.key: storage for storage in _storages(root)}
    stored: dict[str, bytes] = {}
    for key in keys if isinstance(keys, list) else []:
        if key not in storages:
            raise ModelError("the weights hold data that no tensor refers to")
        if stream.read(8) != storages[key].count.to_bytes(8, "little"):
            raise ModelError("the file is damaged or cut off: it has not as much data as its tensors")
        stored[key] = stream.read(_byte_count(storages[key]))

    def content(storage: pickled.Storage) -> bytes:
        if storage.key not in stored:
            raise ModelError("the file is incomplete: the data of a tensor is missing")
        return stored[storage.key]

    return _arrays(root, content)


def _read_safetensors(data: bytes) -> State:
    """https://huggingface.co/docs/safetensors: length of the header, a header in JSON, the data."""
    length = int.from_bytes(data[:8], "little")
    if length > min(_MAX_HEADER, len(data) - 8):
        raise ModelError("the file is damaged or cut off: its header is longer than the file")
    try:
        header = json.loads(data[8 : 8 + length])
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        body = memoryview(data)[8 + length :]
        return {name: _safetensor(name, entry, body) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"the header of these safetensors makes no sense ({type(error).__name__}: {error})") from error


def _labels(data: bytes) -> tuple[str, ...]:
    """Names of classes in the metadata of safetensors whose header was read before."""
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__")
    named = metadata.get("classes") if isinstance(metadata, dict) else None
    return parse_labels(named) if isinstance(named, str) else ()


def _safetensor(name: str, entry: Mapping[str, Any], body: memoryview) -> NDArray[np.generic]:
    shape, (begin, end) = entry["shape"], entry["data_offsets"]
    element = _SAFETENSORS_TYPES[entry["dtype"]]
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ModelError(f"the tensor {name[:80]!r} has a shape or offsets that make no sense")
    if end > len(body):
        raise ModelError(f"the file is damaged or cut off: the tensor {name[:80]!r} ends beyond it")
    if end - begin != math.prod(shape) * _width(element):
        raise ModelError(f"the tensor {name[:80]!r} has another size than its shape says")
    return _elements(body[begin:end], element).reshape(shape)


def _arrays(root: object, content: Callable[[pickled.Storage], bytes]) -> State:
    """The tensors of a state_dict with their data, each storage read once."""
    storages: dict[str, NDArray[np.generic]] = {}
    result = {}
    for name, tensor in _state_dict(root).items():
        storage = tensor.storage
        if storage.key not in storages:
            raw = content(storage)
            if len(raw) != _byte_count(storage):
                raise ModelError(f"the file is damaged or cut off: the data of {name[:80]!r} has the wrong size")
            storages[storage.key] = _elements(raw, storage.element)
        result[name] = _view(storages[storage.key], tensor)
    return result


def _view(elements: NDArray[np.generic], tensor: pickled.Tensor) -> NDArray[np.generic]:
    """The array that a tensor is; its bounds were checked against the number of elements its storage declares."""
    if len(elements) < tensor.storage.count:
        raise ModelError("the weights declare one storage with two sizes")
    strides = tuple(stride * elements.itemsize for stride in tensor.strides)
    view = np.lib.stride_tricks.as_strided(elements[tensor.offset :], tensor.shape, strides, writeable=False)
    return np.ascontiguousarray(view).reshape(tensor.shape)


def _state_dict(root: object) -> dict[str, pickled.Tensor]:
    """The dictionary of tensors, which a training checkpoint wraps in another one, perhaps beside other tensors."""
    for _ in range(_MOST_WRAPPERS):
        if isinstance(root, dict):
            root = next((root[name] for name in _WRAPPERS if isinstance(root.get(name), dict)), root)
    if not isinstance(root, dict):
        raise ModelError(f"the weights are a {type(root).__name__}, not a state_dict")
    tensors = {
        name: value for name, value in root.items() if isinstance(value, pickled.Tensor) and isinstance(name, str)
    }
    if not tensors:
        raise ModelError("the weights hold no tensors")
    return tensors


def _storages(root: object) -> list[pickled.Storage]:
    """Every storage that is referred to, also by tensors outside the state_dict (those of an optimizer)."""
    found, waiting, seen = [], [root], set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, pickled.Tensor):
            found.append(item.storage)
        elif isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            waiting.extend(item.values() if isinstance(item, dict) else item)
    return found


def _byte_count(storage: pickled.Storage) -> int:
    return storage.count * _width(storage.element)


def _width(element: str) -> int:
    return 2 if element == "bfloat16" else np.dtype(element).itemsize


def _elements(raw: bytes | memoryview, element: str) -> NDArray[np.generic]:
    """One-dimensional array of the elements; half precision as float32, which the layers are computed from."""
    if element == "bfloat16":
        # The upper half of a float32.
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    values = np.frombuffer(raw, element)
    return values.astype(np.float32) if values.dtype.kind == "f" else values
