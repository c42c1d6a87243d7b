"""Files that are no usable model: each refused in one line, before or by ONNX Runtime, which stays silent."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from stream_seg.errors import ModelError
from stream_seg.segmenters import load_segmenter, session
from stream_seg.segmenters.model_file import check_model
from tests.tiny_models import batched_model, external_model, identity_model

NO_MEMORY = "finds too little memory on the device: free some, or use another device"


def refusal(model: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_segmenter(model, device="cpu")
    assert "\n" not in str(caught.value)
    assert str(model) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "a web page"),
        (b"<html><head>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 5\n", "a Git LFS pointer"),
        (b"\x80\x02}q\x00.", "PyTorch weights"),
        (b'\x40\x00\x00\x00\x00\x00\x00\x00{"weight": {}}', "safetensors weights"),
        (b"\x1c\x00\x00\x00TFL3\x00\x00", "a TensorFlow Lite model"),
        (b'<?xml version="1.0"?>\n<net name="Model0" version="11">', "an OpenVINO model"),
        (b"PK\x03\x04\x14\x00\x00\x00\x08\x00model.onnx", "an archive: unpack it"),
        (b"just some text, nothing more", "no ONNX model, or is cut short or damaged"),
        (b"\x08", "no ONNX model, or is cut short or damaged"),
        (b"\xff" * 40, "no ONNX model, or is cut short or damaged"),
        (b"\x08\x07", "no ONNX model, or is cut short or damaged"),
    ],
)
def test_bytes_that_are_no_model_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    assert words in refusal(tmp_path / "model.onnx")


def test_a_zipped_checkpoint_is_named(tmp_path: Path) -> None:
    model = _checkpoint(tmp_path / "my weights.pth", "collections\nOrderedDict\n")
    said = refusal(model)
    assert f"stream-seg export '{model}' -o model.onnx makes one of Mask R-CNN weights" in said
    assert f"yolo export model='{model}' format=onnx of Ultralytics'" in said


def test_a_checkpoint_of_ultralytics_is_named_with_what_exports_it(tmp_path: Path) -> None:
    module = "ultralytics.nn.tasks\nSegmentationModel\n"
    zipped = _checkpoint(tmp_path / "best.pt", module)
    (tmp_path / "legacy.pt").write_bytes(b"\x80\x02}q\x00c" + module.encode())
    for model in (zipped, tmp_path / "legacy.pt"):
        said = refusal(model)
        assert said.startswith(f"{model} is an Ultralytics checkpoint")
        assert said.endswith(f": yolo export model={model} format=onnx makes one")


@pytest.mark.parametrize("last", ["data.pkl", "archive_format"])
def test_a_program_of_pytorch_is_no_archive_to_unpack(tmp_path: Path, last: str) -> None:
    model = tmp_path / "best.torchscript"
    with zipfile.ZipFile(model, "w") as archive:
        for name, content in (("data/0", bytes(10_000)), (last, b"pt2"), ("byteorder", b"little")):
            archive.writestr(f"best/{name}", content)
    assert "is a PyTorch program, and stream-seg runs ONNX graphs: export what it was made of" in refusal(model)


def _checkpoint(path: Path, pickled: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{path.stem}/data.pkl", b"\x80\x02}q\x00c" + pickled.encode())
    return path


@pytest.mark.parametrize("content", [b"\xff" * 40, b"\x0a\x04\x0a\x02ab"])  # no protobuf, and one that is no ONNX
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("best.pt", "PyTorch weights, and stream-seg runs ONNX graphs"),
        ("best.PTH", "PyTorch weights"),
        ("best.engine", "a TensorRT engine"),
        ("best.tflite", "a TensorFlow Lite model"),
        ("frozen.pb", "a TensorFlow graph"),
        ("model.safetensors", "safetensors weights"),
        ("model.onnx", "no ONNX model, or is cut short or damaged"),
    ],
)
def test_what_cannot_be_read_is_told_by_its_name(tmp_path: Path, content: bytes, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert words in refusal(tmp_path / name)


def test_a_model_is_one_by_any_name(tmp_path: Path) -> None:
    load_segmenter(batched_model(tmp_path / "graph.pt"), device="cpu", threads=1).close()


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none.onnx")
    assert "is a folder" in refusal(tmp_path)


def test_a_name_that_onnx_runtime_cannot_open_is_refused(tmp_path: Path) -> None:
    whole = batched_model(tmp_path / "whole.onnx")
    (tmp_path / "caf\udce9").mkdir()
    for model in (tmp_path / "caf\udce9.onnx", tmp_path / "caf\udce9" / "m.onnx"):  # Latin-1, as old disks have it
        model.write_bytes(whole.read_bytes())
        assert "has a name that is not UTF-8: rename it" in refusal(model)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read: Is a directory"):
        check_model(tmp_path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_model_is_refused(tmp_path: Path, part: float) -> None:
    whole = batched_model(tmp_path / "whole.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: int(len(whole) * part)])
    assert "cut short" in refusal(tmp_path / "cut.onnx")


def test_flipped_bits_end_in_a_refusal_or_a_load_but_never_in_another_error(tmp_path: Path) -> None:
    whole = batched_model(tmp_path / "whole.onnx").read_bytes()
    flipped = tmp_path / "flipped.onnx"
    messages = []
    for place in range(0, len(whole), len(whole) // 60):
        flipped.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            load_segmenter(flipped, device="cpu", threads=1).close()
        except ModelError as error:
            messages.append(str(error))
    assert messages
    assert "\n" not in "".join(messages)


def test_graphs_nested_without_end_are_refused(tmp_path: Path) -> None:
    graph = b""
    for _ in range(200):  # graph > node > attribute > graph > ...
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            graph = tag + _varint(len(graph)) + graph
    (tmp_path / "deep.onnx").write_bytes(b"\x3a" + _varint(len(graph)) + graph)
    assert "damaged" in refusal(tmp_path / "deep.onnx")


def test_weights_in_another_file_are_found_and_counted(tmp_path: Path) -> None:
    model = external_model(tmp_path / "model.onnx", "weights/w.bin")
    (tmp_path / "weights").mkdir()
    np.ones(2, np.float32).tofile(tmp_path / "weights" / "w.bin")
    assert check_model(model) == model.stat().st_size + 8


def test_a_download_cache_that_links_model_and_weights_is_followed(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    external_model(blobs / "0a", "w.bin")
    np.ones(2, np.float32).tofile(blobs / "0b")
    (snapshot / "model.onnx").symlink_to(blobs / "0a")
    (snapshot / "w.bin").symlink_to(blobs / "0b")
    assert check_model(snapshot / "model.onnx") > 8


def test_missing_weights_are_named(tmp_path: Path) -> None:
    assert "needs its weights file 'gone.bin'" in refusal(external_model(tmp_path / "model.onnx", "gone.bin"))


@pytest.mark.parametrize("location", ["a\0b", "n" * 300])
def test_weights_under_a_name_that_no_file_has_are_refused(tmp_path: Path, location: str) -> None:
    assert "model.onnx" in refusal(external_model(tmp_path / "model.onnx", location))


@pytest.mark.parametrize("location", ["../secret.bin", "{outside}", "sub/../../secret.bin", "link.bin"])
def test_weights_outside_the_folder_of_the_model_are_refused(tmp_path: Path, location: str) -> None:
    outside = tmp_path / "secret.bin"
    np.ones(2, np.float32).tofile(outside)
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "link.bin").symlink_to(outside)
    model = external_model(folder / "model.onnx", location.format(outside=outside))
    assert "outside its own folder" in refusal(model)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"operator": "Sorcery"}, "unknown operator Sorcery"),
        ({"operator": "Spell", "domain": "my.magic"}, "unknown operator my.magic:Spell"),
        ({"opset": 99}, "newer ONNX (opset 99): update onnxruntime"),
    ],
)
def test_what_onnx_runtime_does_not_know_is_named(tmp_path: Path, options: dict[str, str], words: str) -> None:
    assert words in refusal(identity_model(tmp_path / "model.onnx", **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("No Op registered for Spell with domain_version of 17", "uses the unknown operator Spell"),
        ("Fatal error: my.magic:Spell(-1) is not a registered function/op", "uses the unknown operator my.magic:Spell"),
        ("Could not find an implementation for Trilu(14) node", "uses the operator Trilu(14), which onnxruntime lacks"),
        ("Failed to find kernel for QMoE(1) (node:'')", "uses the operator QMoE(1), which onnxruntime lacks"),
        ("Exception during initialization: std::bad_alloc", NO_MEMORY),
        ("Exception during initialization: bad allocation", NO_MEMORY),
        ("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 1", NO_MEMORY),
        ("Available memory of 0 is smaller than requested bytes of 1024", NO_MEMORY),
        ("CUDA failure 2: out of memory ; GPU=0", NO_MEMORY),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0", NO_MEMORY),
        ("something else\nin two lines", "cannot be loaded: something else in two lines"),
    ],
)
def test_what_onnx_runtime_says_is_told_in_a_sentence(message: str, said: str) -> None:
    assert session._refusal(message) == said


def test_an_unknown_family_is_told_with_its_inputs_and_outputs(tmp_path: Path) -> None:
    message = refusal(identity_model(tmp_path / "model.onnx"))
    assert "inputs x float[2]; outputs y float[2]" in message
    assert "stream-seg's own graphs" in message


def test_a_name_that_would_break_the_line_is_escaped(tmp_path: Path) -> None:
    assert r"'x\n\x1b[2J' float" in refusal(identity_model(tmp_path / "model.onnx", name="x\n\x1b[2J"))


def test_onnx_runtime_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_segmenter(batched_model(tmp_path / "fine.onnx"), device="cpu").close()
    refusal(identity_model(tmp_path / "model.onnx", operator="Sorcery"))
    assert capfd.readouterr() == ("", "")


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
