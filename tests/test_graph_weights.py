"""Reading weights: what PyTorch and safetensors write is read exactly; what is hostile or damaged is refused."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_seg.errors import ModelError
from stream_seg.graph.weights import read_weights

State = Mapping[str, NDArray[np.generic]]
Writer = Callable[[State], bytes]

STORAGES = {"f4": "FloatStorage", "f2": "HalfStorage", "f8": "DoubleStorage", "i8": "LongStorage", "u1": "ByteStorage"}

STATE: State = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "a.bias": np.array([-1.5, 2.25], np.float16),
    "b": np.array(7, np.int64),
    "c": np.linspace(0, 1, 5),
    "empty": np.zeros((0, 4), np.float32),
}


# ---------------------------------------------------------------- a pickle assembler: what torch.save writes, by hand


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    raw = value.to_bytes(16, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def together(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + together(*arguments) + b"R"


def dictionary(items: Mapping[str, bytes]) -> bytes:
    pairs = b"".join(text(key) + value for key, value in items.items())
    return call(name("collections", "OrderedDict")) + b"(" + pairs + b"u"


def storage(kind: str, key: str, count: int) -> bytes:
    return together(text("storage"), name("torch", kind), text(key), text("cpu"), number(count)) + b"Q"


def tensor(
    held: bytes,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None = None,
    offset: int = 0,
    gradient: bytes = b"\x89",
) -> bytes:
    if strides is None:
        strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    sizes, steps = together(*map(number, shape)), together(*map(number, strides))
    hooks = call(name("collections", "OrderedDict"))
    return call(name("torch._utils", "_rebuild_tensor_v2"), held, number(offset), sizes, steps, gradient, hooks)


def program(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


def tensors(state: State) -> dict[str, bytes]:
    return {
        key: tensor(storage(STORAGES[value.dtype.str[1:]], str(number), value.size), value.shape)
        for number, (key, value) in enumerate(state.items())
    }


def archive(
    root: bytes, data: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED, byteorder: str = "little"
) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as file:
        file.writestr("archive/data.pkl", program(root))
        file.writestr("archive/byteorder", byteorder)
        for key, value in data.items():
            file.writestr(f"archive/data/{key}", value)
        file.writestr("archive/version", "3\n")
    return target.getvalue()


def torch_zip(state: State) -> bytes:
    data = {str(number): value.tobytes() for number, value in enumerate(state.values())}
    return archive(dictionary(tensors(state)), data)


def torch_legacy(state: State) -> bytes:
    keys = [str(number) for number in range(len(state))]
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    parts = [pickle.dumps(item, 2) for item in head] + [program(dictionary(tensors(state))), pickle.dumps(keys, 2)]
    data = [struct.pack("<q", value.size) + value.tobytes() for value in state.values()]
    return b"".join(parts + data)


def safetensors(state: State) -> bytes:
    kinds = {"f4": "F32", "f2": "F16", "f8": "F64", "i8": "I64"}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for key, value in state.items():
        end = begin + value.nbytes
        header[key] = {"dtype": kinds[value.dtype.str[1:]], "shape": list(value.shape), "data_offsets": [begin, end]}
        begin = end
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + b"".join(value.tobytes() for value in state.values())


WRITERS: list[Writer] = [torch_zip, torch_legacy, safetensors]


def read(folder: Path, data: bytes) -> State:
    path = folder / "weights.pth"
    path.unlink(missing_ok=True)  # where a file is cut to nothing and written again, ext4 waits for the disk
    path.write_bytes(data)
    return read_weights(path).state


def refusal(folder: Path, data: bytes) -> str:
    """The sentence with which a file is refused: one line that names the file."""
    with pytest.raises(ModelError) as caught:
        read(folder, data)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "weights.pth" in sentence
    return sentence


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("write", WRITERS)
def test_every_array_is_read_exactly_and_floats_become_float32(write: Writer, tmp_path: Path) -> None:
    state = read(tmp_path, write(STATE))
    assert list(state) == list(STATE)
    for key, expected in STATE.items():
        assert state[key].shape == expected.shape
        assert state[key].dtype == (np.float32 if expected.dtype.kind == "f" else expected.dtype)
        np.testing.assert_array_equal(state[key], expected.astype(state[key].dtype))


def test_safetensors_may_begin_as_a_pickle_does(tmp_path: Path) -> None:
    """Their first byte is that of the length of their header, which is anything."""
    plain = safetensors({"a": STATE["a.weight"]})
    (length,) = struct.unpack("<Q", plain[:8])
    padded = plain[8 : 8 + length] + b" " * (0x180 - length)
    data = struct.pack("<Q", len(padded)) + padded + plain[8 + length :]
    assert data.startswith(b"\x80\x01")
    np.testing.assert_array_equal(read(tmp_path, data)["a"], STATE["a.weight"])


def test_the_checksum_is_that_of_the_file(tmp_path: Path) -> None:
    import hashlib

    data = torch_zip(STATE)
    (tmp_path / "w.pth").write_bytes(data)
    assert read_weights(tmp_path / "w.pth").sha256 == hashlib.sha256(data).hexdigest()


def test_views_into_a_shared_storage_keep_their_strides(tmp_path: Path) -> None:
    held = storage("FloatStorage", "0", 6)
    root = dictionary(
        {"whole": tensor(held, (2, 3)), "turned": tensor(held, (3, 2), (1, 3)), "tail": tensor(held, (2,), offset=4)}
    )
    values = np.arange(6, dtype=np.float32)
    state = read(tmp_path, archive(root, {"0": values.tobytes()}))
    np.testing.assert_array_equal(state["whole"], values.reshape(2, 3))
    np.testing.assert_array_equal(state["turned"], values.reshape(2, 3).T)
    np.testing.assert_array_equal(state["tail"], [4, 5])


def test_bfloat16_and_parameters_are_understood(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 0.15625], np.float32)
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    plain = tensor(storage("BFloat16Storage", "0", 3), (3,))
    parameter = call(
        name("torch._utils", "_rebuild_parameter"), plain, b"\x88", call(name("collections", "OrderedDict"))
    )
    state = read(tmp_path, archive(dictionary({"p": parameter}), {"0": upper.tobytes()}))
    np.testing.assert_array_equal(state["p"], values)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict", "ema"])
def test_a_training_checkpoint_is_unwrapped(wrapper: str, tmp_path: Path) -> None:
    small = {"w": np.ones(3, np.float32)}
    loss = tensor(storage("FloatStorage", "0", 3), ())
    root = dictionary({"epoch": number(3), "loss": loss, wrapper: dictionary(tensors(small)), "note": text("x")})
    np.testing.assert_array_equal(read(tmp_path, archive(root, {"0": small["w"].tobytes()}))["w"], small["w"])


def test_attributes_of_the_state_dict_are_ignored(tmp_path: Path) -> None:
    small = {"w": np.ones(3, np.float32)}
    root = dictionary(tensors(small)) + b"}(" + text("_metadata") + dictionary({}) + b"ub"
    assert list(read(tmp_path, archive(root, {"0": small["w"].tobytes()}))) == ["w"]


# ---------------------------------------------------------------- what is refused


class Runs:
    """Pickled, it is an instruction to run a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("container", ["zip", "legacy", "bare"])
def test_a_pickle_that_would_run_a_command_is_refused_and_runs_nothing(
    protocol: int, container: str, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    evil = pickle.dumps({"w": Runs(f"touch {marker}")}, protocol)
    if container == "zip":
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as file:
            file.writestr("archive/data.pkl", evil)
        data = target.getvalue()
    elif container == "legacy":
        data = (
            b"".join(pickle.dumps(item, 2) for item in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})) + evil
        )
    else:
        data = evil
    assert refusal(tmp_path, data)
    assert not marker.exists()


HOSTILE = {
    "eval": call(name("builtins", "eval"), text("1")),
    "eval inside a state_dict": dictionary({"w": call(name("builtins", "eval"), text("1"))}),
    "getattr": call(name("builtins", "getattr"), name("torch._utils", "_rebuild_tensor_v2"), text("__globals__")),
    "an attribute of an allowed function": name("torch._utils", "_rebuild_tensor_v2.__globals__"),
    "a name from the stack": text("os") + text("system") + b"\x93",
    "a dotted name from the stack": text("torch") + text("FloatStorage.__init__.__globals__") + b"\x93",
    "torch.load itself": call(name("torch", "load"), text("other.pth")),
    "another module's storage": storage("FloatStorage", "0", 1).replace(b"ctorch\n", b"ctorsh\n"),
    "NEWOBJ": name("collections", "OrderedDict") + b")\x81",
    "INST": b"(" + text("x") + b"ios\nsystem\n",
    "OBJ": b"(" + name("os", "system") + text("x") + b"o",
    "an extension code": b"\x82\x01",
    "a text persistent id": b"Pstorage\n",
    "calling a string": text("f") + b")R",
    "calling with a list": name("collections", "OrderedDict") + b"]R",
    "an OrderedDict from pairs": call(
        name("collections", "OrderedDict"), b"](" + together(text("a"), number(1)) + b"e"
    ),
    "attributes of a list": b"]}b",
    "attributes of a function": name("torch._utils", "_rebuild_tensor_v2") + b"}b",
    "a tuple as a key": b"})" + text("v") + b"s",
    "items of a string": text("x") + text("k") + text("v") + b"s",
    "appending to a dict": b"}" + text("x") + b"a",
    "a persistent id that is none": text("storage") + b"Q",
    "a storage of negative size": storage("FloatStorage", "0", -1),
    "a storage called by a number": together(
        text("storage"), name("torch", "FloatStorage"), number(0), text("cpu"), number(1)
    )
    + b"Q",
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
def test_anything_but_tensors_is_refused(value: bytes, tmp_path: Path) -> None:
    refusal(tmp_path, archive(value, {"0": b"\0" * 64}))


def test_a_whole_model_is_refused_with_what_to_do(tmp_path: Path) -> None:
    said = refusal(tmp_path, archive(call(name("ultralytics.nn.tasks", "SegmentationModel"), text("x")), {}))
    assert "'ultralytics.nn.tasks.SegmentationModel'" in said
    assert "exported to ONNX" in said


def test_a_key_nested_deep_cannot_exhaust_the_stack(tmp_path: Path) -> None:
    deep = b"}" + b")" + b"\x85" * 200_000 + text("v") + b"s"
    assert "tuple" in refusal(tmp_path, archive(deep, {}))


def test_a_checkpoint_that_wraps_itself_ends(tmp_path: Path) -> None:
    itself = b"}q\x00" + text("model") + b"h\x00s"
    assert "no tensors" in refusal(tmp_path, archive(itself, {}))


def test_a_list_that_holds_itself_ends(tmp_path: Path) -> None:
    data = b"".join(pickle.dumps(item, 2) for item in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    itself = program(b"}" + text("loop") + b"]q\x00h\x00as")
    refusal(tmp_path, data + itself + pickle.dumps([], 2))


HELD = storage("FloatStorage", "0", 4)
WRONG_TENSORS = {
    "larger than its storage": tensor(HELD, (5,)),
    "huge": tensor(HELD, (2**40, 2**40)),
    "repeated by a stride of 0": tensor(HELD, (2**30,), (0,)),
    "a stride that leaves the storage": tensor(HELD, (2,), (4,)),
    "an offset beyond the end": tensor(HELD, (1,), offset=4),
    "a negative offset": tensor(HELD, (1,), offset=-1),
    "a negative size": tensor(HELD, (-1,)),
    "a negative stride": tensor(HELD, (2,), (-1,)),
    "more strides than sizes": tensor(HELD, (2,), (1, 1)),
    "a hundred dimensions": tensor(HELD, (1,) * 100),
    "of no storage": tensor(text("0"), (1,)),
    "of a storage that claims more than there is": tensor(storage("FloatStorage", "0", 2**60), (2,)),
    "of a storage that is not in the file": tensor(storage("FloatStorage", "1", 4), (4,)),
    "of a storage outside the folder": tensor(storage("FloatStorage", "../../secret", 4), (4,)),
}


@pytest.mark.parametrize("value", WRONG_TENSORS.values(), ids=WRONG_TENSORS.keys())
def test_a_tensor_that_is_not_in_the_file_is_refused(value: bytes, tmp_path: Path) -> None:
    refusal(tmp_path, archive(dictionary({"w": value}), {"0": np.zeros(4, np.float32).tobytes()}))


def test_a_storage_with_two_sizes_is_refused(tmp_path: Path) -> None:
    root = dictionary(
        {"a": tensor(storage("FloatStorage", "0", 4), (4,)), "b": tensor(storage("FloatStorage", "0", 9), (9,))}
    )
    refusal(tmp_path, archive(root, {"0": np.zeros(4, np.float32).tobytes()}))


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    root = dictionary({"w": tensor(storage("FloatStorage", "0", 10**7), (10**7,))})
    bomb = archive(root, {"0": bytes(4 * 10**7)}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 10**6
    assert "compressed" in refusal(tmp_path, bomb)


def test_big_endian_weights_are_refused(tmp_path: Path) -> None:
    root = dictionary(tensors({"w": np.ones(1, np.float32)}))
    assert "big-endian" in refusal(tmp_path, archive(root, {"0": bytes(4)}, byteorder="big"))


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_cut_off_anywhere_is_refused(write: Writer, tmp_path: Path) -> None:
    data = write(STATE)
    for length in [*range(0, len(data) - 1, max(1, len(data) // 60)), len(data) - 1]:
        refusal(tmp_path, data[:length])


@pytest.mark.parametrize("write", WRITERS)
def test_flipped_bits_are_refused_or_harmless(write: Writer, tmp_path: Path) -> None:
    data, random = write(STATE), np.random.default_rng(5)
    for _ in range(150):
        damaged = bytearray(data)
        for place in random.integers(0, len(data), 3):
            damaged[place] ^= 1 << random.integers(0, 8)
        with contextlib.suppress(ModelError):
            read(tmp_path, bytes(damaged))


SAFETENSORS_HEADERS = {
    "not JSON": b"{nonsense",
    "a list": b'{"w": [1, 2]}',
    "an unknown type": b'{"w": {"dtype": "F128", "shape": [1], "data_offsets": [0, 4]}}',
    "offsets beyond the file": b'{"w": {"dtype": "F32", "shape": [100], "data_offsets": [0, 400]}}',
    "negative offsets": b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
    "another size than its shape": b'{"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
    "a shape of fractions": b'{"w": {"dtype": "F32", "shape": [0.5, 2], "data_offsets": [0, 4]}}',
    "nested a hundred thousand deep": b'{"w":' + b"[" * 100_000,
}


@pytest.mark.parametrize("header", SAFETENSORS_HEADERS.values(), ids=SAFETENSORS_HEADERS.keys())
def test_a_safetensors_header_that_makes_no_sense_is_refused(header: bytes, tmp_path: Path) -> None:
    refusal(tmp_path, struct.pack("<Q", len(header)) + header + bytes(16))


@pytest.mark.parametrize("data", [b"", b"<!DOCTYPE html>", b"version https://git-lfs.github.com/spec/v1", bytes(100)])
def test_what_is_not_weights_is_refused(data: bytes, tmp_path: Path) -> None:
    refusal(tmp_path, data)


def test_a_file_larger_than_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def larger(_path: Path) -> bytes:
        raise MemoryError

    monkeypatch.setattr(Path, "read_bytes", larger)
    with pytest.raises(ModelError, match=r"weights\.pth: there is not enough memory"):
        read_weights(tmp_path / "weights.pth")


def test_a_missing_file_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read the weights .*none\.pth"):
        read_weights(tmp_path / "none.pth")
