"""Names of models, where they lie, and what an ONNX file says of itself."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from skimage import data

from stream_seg import catalog
from stream_seg.catalog import ENTRIES, Device, Download, Entry
from stream_seg.cli.export import build_graph
from stream_seg.errors import ModelError
from stream_seg.graph import ARCHITECTURES
from stream_seg.locking import Purpose, locked
from stream_seg.segmenters import load_segmenter
from tests.misbehaving_server import MisbehavingServer, whole

DATA = b"graph" * 1000
WEIGHTS = b"weights" * 1000


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MisbehavingServer]:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with MisbehavingServer() as running:
        running.behave("/zoo.onnx", whole(DATA))
        running.behave("/weights.pth", whole(WEIGHTS))
        yield running


def test_the_accuracy_of_the_built_in_model_is_that_of_its_card() -> None:
    card = (Path(__file__).parents[1] / "models" / "compact" / "README.md").read_text()
    (row,) = re.findall(r"\| int8, long side 416 \|.*", card)
    _, _, _, masks, _, boxes, _ = (cell.split("/")[0].strip() for cell in row.split("|"))
    compact = next(entry for entry in catalog.ENTRIES if entry.name == "compact")
    assert (compact.mask_ap, compact.box_ap) == (float(masks), float(boxes))


def entries(server: MisbehavingServer) -> tuple[Entry, ...]:
    def published(file: str, data: bytes) -> Download:
        return Download(file, (server.url(f"/{file}"),), hashlib.sha256(data).hexdigest(), len(data))

    return (
        Entry("compact", "built in", 20, "", "Apache-2.0", None, None),
        Entry("zoo", "finished", 80, "", "MIT", 33.7, None, published("zoo.onnx", DATA)),
        Entry("r50", "to be built", 80, "", "BSD", 37.9, 34.6, published("weights.pth", WEIGHTS), "resnet"),
    )


def build(weights: Path, architecture: str, device: Device, out: Path) -> None:
    out.write_bytes(weights.read_bytes() + architecture.encode() + device.encode())


@pytest.mark.parametrize(("device", "file"), [("cpu", "int8.onnx"), ("cuda", "fp32.onnx")])
def test_the_built_in_model_is_found_for_each_device(device: catalog.Device, file: str) -> None:
    assert catalog.locate("compact", device=device, offline=True).name == file


def test_the_built_in_model_of_a_checkout_or_wheel_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (tmp_path / "stream_seg", tmp_path):
        file = place / "models" / "compact" / "int8.onnx"
        file.parent.mkdir(parents=True)
        file.write_bytes(DATA)
        monkeypatch.setattr(catalog, "_PACKAGE", tmp_path / "stream_seg")
        assert catalog.locate("compact") == file
        file.unlink()
    with pytest.raises(ModelError, match="missing from this installation"):
        catalog.locate("compact")


def test_a_path_that_exists_is_itself(tmp_path: Path) -> None:
    file = tmp_path / "mine.onnx"
    file.write_bytes(DATA)
    assert catalog.locate(file) == file
    assert catalog.locate(str(file)) == file


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("compct", "no model 'compct' .did you mean 'compact'[?].; known: compact, r50-fpn, "),
        ("xyzzy", "no model 'xyzzy'; known: compact, "),
        ("nowhere/model.onnx", "the model file nowhere/model.onnx does not exist"),
        ("model.onnx", "the model file model.onnx does not exist"),
        (".", "[.] is a folder; name the model file in it"),
        ("", "no model ''; known: compact, "),
    ],
)
def test_unknown_models_are_refused_in_a_sentence(name: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        catalog.locate(name)


def test_a_name_is_pulled_on_first_use_and_found_afterwards(server: MisbehavingServer, tmp_path: Path) -> None:
    for _ in range(2):
        path = catalog.locate("zoo", model_dir=tmp_path / "new" / "folder", entries=entries(server))
        assert path.read_bytes() == DATA
    assert len(server.requests) == 1


def test_a_file_of_the_wrong_length_is_not_taken_for_the_model(server: MisbehavingServer, tmp_path: Path) -> None:
    (tmp_path / "zoo.onnx").write_bytes(DATA[:-1])
    assert catalog.locate("zoo", model_dir=tmp_path, entries=entries(server)).read_bytes() == DATA


def test_offline_nothing_is_asked_of_the_network(server: MisbehavingServer, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'zoo' is not on disk; run: stream-seg models pull zoo"):
        catalog.locate("zoo", model_dir=tmp_path, offline=True, entries=entries(server))
    with pytest.raises(ModelError, match="run: stream-seg models pull r50"):
        catalog.weights("r50", model_dir=tmp_path, offline=True, entries=entries(server))
    assert server.requests == []
    catalog.pull("zoo", model_dir=tmp_path, entries=entries(server))
    assert catalog.locate("zoo", model_dir=tmp_path, offline=True, entries=entries(server)).read_bytes() == DATA


def test_weights_are_built_into_a_graph_once(server: MisbehavingServer, tmp_path: Path) -> None:
    for _ in range(2):
        path = catalog.locate("r50", model_dir=tmp_path, build=build, entries=entries(server))
    assert path == tmp_path / "r50.onnx"
    assert path.read_bytes() == WEIGHTS + b"resnetcpu"
    other = catalog.locate("r50", device="cuda", model_dir=tmp_path, build=build, entries=entries(server))
    assert other.read_bytes() == WEIGHTS + b"resnetcuda"
    assert len(server.requests) == 1
    assert catalog.locate("r50", model_dir=tmp_path, entries=entries(server)) == path


def test_weights_on_disk_are_built_offline_too(server: MisbehavingServer, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(WEIGHTS)
    known = entries(server)
    with pytest.raises(ModelError, match="'r50' is not on disk; run: stream-seg models pull r50 --device cpu"):
        catalog.locate("r50", model_dir=tmp_path, offline=True, entries=known)
    path = catalog.locate("r50", model_dir=tmp_path, offline=True, build=build, entries=known)
    assert path.read_bytes() == WEIGHTS + b"resnetcpu"
    (tmp_path / "weights.pth").write_bytes(WEIGHTS[:-1])
    with pytest.raises(ModelError, match="'r50' is not on disk; run: stream-seg models pull r50 --device cuda"):
        catalog.locate("r50", device="cuda", model_dir=tmp_path, offline=True, build=build, entries=known)
    assert server.requests == []


def test_weights_are_not_fetched_again_for_a_graph_that_is_there(server: MisbehavingServer, tmp_path: Path) -> None:
    known = entries(server)
    graph = catalog.pull("r50", model_dir=tmp_path, build=build, entries=known)
    (tmp_path / "weights.pth").unlink()
    assert catalog.pull("r50", model_dir=tmp_path, build=build, entries=known) == graph
    assert catalog.pull("r50", model_dir=tmp_path, entries=known) == graph
    assert len(server.requests) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == [".r50.lock", "r50.onnx"]


def test_every_architecture_of_the_catalogue_can_be_built() -> None:
    known = {config.name for config in ARCHITECTURES}
    assert {entry.architecture for entry in ENTRIES if entry.architecture} <= known


def test_weights_that_were_pulled_become_a_model_that_runs(server: MisbehavingServer, tmp_path: Path) -> None:
    weights = catalog.weights("compact")[0].read_bytes()
    server.behave("/real.safetensors", whole(weights))
    published = Download(
        "real.safetensors", (server.url("/real.safetensors"),), hashlib.sha256(weights).hexdigest(), len(weights)
    )
    known = (Entry("real", "", 20, "", "", None, None, published, "compact"),)
    path = catalog.locate("real", model_dir=tmp_path, build=build_graph, entries=known)
    with load_segmenter(path, device="cpu") as segmenter:
        (found,) = segmenter([cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR).astype(np.uint8)])
    assert "person" in found.names


def test_a_model_that_nobody_can_build_here_says_how_to_get_it(server: MisbehavingServer, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="built from its weights first; run: stream-seg models pull r50"):
        catalog.locate("r50", model_dir=tmp_path, entries=entries(server))


def test_a_build_that_fails_leaves_the_weights_and_no_graph(server: MisbehavingServer, tmp_path: Path) -> None:
    def fail(weights: Path, architecture: str, device: Device, out: Path) -> None:
        out.write_bytes(b"half")
        raise ModelError("the weights are not those of a resnet")

    with pytest.raises(ModelError, match="not those of a resnet"):
        catalog.pull("r50", model_dir=tmp_path, build=fail, entries=entries(server))
    assert sorted(file.name for file in tmp_path.iterdir()) == [".r50.lock", "weights.pth"]


def test_a_build_that_cannot_write_says_so(server: MisbehavingServer, tmp_path: Path) -> None:
    def full(weights: Path, architecture: str, device: Device, out: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ModelError, match=r"cannot write .*r50.onnx: No space left on device"):
        catalog.pull("r50", model_dir=tmp_path, build=full, entries=entries(server))


def test_weights_come_with_their_architecture(server: MisbehavingServer, tmp_path: Path) -> None:
    path, architecture = catalog.weights("r50", model_dir=tmp_path, entries=entries(server))
    assert (path.read_bytes(), architecture) == (WEIGHTS, "resnet")
    path, architecture = catalog.weights("compact")
    assert (path.name, architecture) == ("weights.safetensors", "compact")
    with pytest.raises(ModelError, match="'zoo' is published as a finished graph"):
        catalog.weights("zoo", model_dir=tmp_path, entries=entries(server))


def test_weights_that_are_there_need_no_folder_that_can_be_written(server: MisbehavingServer, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(WEIGHTS)
    (tmp_path / ".r50.lock").mkdir()  # in the way of the lock, also of a superuser's
    path, _ = catalog.weights("r50", model_dir=tmp_path, offline=True, entries=entries(server))
    assert path.read_bytes() == WEIGHTS


def test_what_was_pulled_can_be_removed(server: MisbehavingServer, tmp_path: Path) -> None:
    known = entries(server)
    graph = catalog.pull("r50", model_dir=tmp_path, build=build, entries=known)
    (tmp_path / "weights.pth.part").write_bytes(b"half")
    gone = catalog.remove("r50", model_dir=tmp_path, entries=known)
    assert gone == [graph, tmp_path / "weights.pth", tmp_path / "weights.pth.part"]
    assert not any(file.exists() for file in gone)


@pytest.mark.parametrize(
    ("name", "said"),
    [("compact", "part of the package"), ("zoo", "nothing to remove"), ("zo", "did you mean 'zoo'")],
)
def test_what_cannot_be_removed_is_said(server: MisbehavingServer, tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        catalog.remove(name, model_dir=tmp_path / "absent", entries=entries(server))


def test_a_folder_that_cannot_be_made_is_said(server: MisbehavingServer, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(ModelError, match=r"cannot make the model folder .*choose another with --model-dir"):
        catalog.pull("zoo", model_dir=file / "models", entries=entries(server))


def test_a_lock_that_cannot_be_had_is_given_up(tmp_path: Path) -> None:
    lock, purpose = tmp_path / ".lock", Purpose("at work", "--model-dir", ModelError)
    held = pytest.raises(ModelError, match="another process has been holding")
    with locked(lock, purpose), held, locked(lock, purpose, wait=0):
        pytest.fail("two hold the lock")
    with locked(lock, purpose, wait=0):
        pass
    with pytest.raises(ModelError, match="--model-dir"), locked(tmp_path / "absent" / ".lock", purpose):
        pass


def test_the_list_says_what_is_on_disk(server: MisbehavingServer, tmp_path: Path) -> None:
    known = entries(server)
    catalog.pull("zoo", model_dir=tmp_path, entries=known)
    rows = catalog.list_models(tmp_path, known)
    assert [(row.name, row.on_disk) for row in rows] == [("compact", True), ("zoo", True), ("r50", False)]
    assert rows[2].megabytes == round(len(WEIGHTS) / 1e6, 1)


@pytest.mark.parametrize(
    ("file", "content", "on_disk"),
    [
        ("weights.pth", WEIGHTS, True),
        ("weights.pth", WEIGHTS[:-1], False),
        ("r50.onnx", b"graph", True),
        ("r50-cuda.onnx", b"graph", True),
    ],
)
def test_a_model_is_on_disk_as_weights_or_as_the_graph_built_from_them(
    server: MisbehavingServer, tmp_path: Path, file: str, content: bytes, on_disk: bool
) -> None:
    (tmp_path / file).write_bytes(content)
    assert [row.on_disk for row in catalog.list_models(tmp_path, entries(server))] == [True, False, on_disk]


def test_the_table_is_aligned_and_complete(tmp_path: Path) -> None:
    lines = catalog.table(catalog.list_models(tmp_path)).splitlines()
    assert [line.split()[0] for line in lines[1:6]] == [entry.name for entry in ENTRIES]
    assert "37.9     34.6" in lines[2]
    assert {line.index(entry.licence) for line, entry in zip(lines[1:6], ENTRIES, strict=True)} == {
        lines[0].index("licence")
    }
    assert "151 of its images" in lines[-1]


def test_every_published_file_is_pinned_and_fetched_with_tls() -> None:
    downloads = [entry.download for entry in ENTRIES if entry.download]
    assert len({download.sha256 for download in downloads}) == len(downloads) == 4
    for download in downloads:
        assert len(bytes.fromhex(download.sha256)) == 32
        assert download.size > 40e6
        assert all(url.startswith("https://") for url in download.mirrors)
        assert all(url.endswith(download.file) for url in download.mirrors)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the XDG convention")
def test_models_live_where_the_platform_keeps_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert catalog.default_model_dir() == tmp_path / "stream-seg" / "models"
    monkeypatch.setenv("HOME", str(tmp_path))
    for ignored in ("", "relative/cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert catalog.default_model_dir() == tmp_path / ".cache" / "stream-seg" / "models"
    with pytest.raises(ModelError, match="models pull r50-fpn"):
        catalog.path("r50-fpn")


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    node = helper.make_node("Add", ["a", "b"], ["c"])
    a = helper.make_tensor_value_info("a", TensorProto.FLOAT, ["batch", 3])
    b = helper.make_tensor_value_info("b", TensorProto.FLOAT, [3])
    c = helper.make_tensor_value_info("c", TensorProto.FLOAT, ["batch", 3])
    half = helper.make_tensor("b", TensorProto.FLOAT, [3], [0.5] * 3)
    graph = helper.make_graph([node], "tiny", [a, b], [c], initializer=[half])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="maker", producer_version="1.2", ir_version=8)
    helper.set_model_props(model, {"labels": "person,dog", "licence": "MIT"})
    onnx.save(model, tmp_path / "tiny.onnx")
    return tmp_path / "tiny.onnx"


def test_info_tells_what_a_file_says_of_itself(onnx_file: Path) -> None:
    found = catalog.info(onnx_file)
    assert found.opsets == {"": 17, "ai.onnx.ml": 3}
    assert found.producer == "maker 1.2"
    assert [str(tensor) for tensor in found.inputs] == [
        "a: tensor(float) [batch, 3]",
        "b: tensor(float) [3] (optional)",
    ]
    assert [str(tensor) for tensor in found.outputs] == ["c: tensor(float) [batch, 3]"]
    assert found.metadata == {"labels": "person,dog", "licence": "MIT"}
    text = str(found).splitlines()
    assert "opset     ai.onnx 17, ai.onnx.ml 3" in text
    assert "metadata  labels = person,dog" in text


def test_of_the_configuration_of_a_network_only_the_beginning_is_shown_but_all_its_classes(onnx_file: Path) -> None:
    found = catalog.info(onnx_file)
    names = ",".join(f"class {number}" for number in range(80))
    text = str(replace(found, metadata={"config": "{" + 500 * "a" + "}", "labels": names}))
    assert f"metadata  config = {{{59 * 'a'}... (502 characters)\n" in text
    assert text.endswith(f"labels = {names}")
    assert "config = {}" in str(replace(found, metadata={"config": "{}"}))


@pytest.mark.parametrize("keep", [0, 1, 20, 60, -1])
def test_truncated_models_are_refused_in_one_line(onnx_file: Path, keep: int) -> None:
    onnx_file.write_bytes(onnx_file.read_bytes()[:keep])
    with pytest.raises(ModelError) as caught:
        catalog.info(onnx_file)
    assert str(onnx_file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("body", [b"<html>not a model</html>", b"version https://git-lfs", bytes(99), b"\xff" * 99])
def test_files_that_are_no_models_are_refused_in_one_line(tmp_path: Path, body: bytes) -> None:
    file = tmp_path / "page.onnx"
    file.write_bytes(body)
    with pytest.raises(ModelError, match="ONNX") as caught:
        catalog.info(file)
    assert "\n" not in str(caught.value)


def test_info_of_an_empty_file_says_that_it_is_empty(tmp_path: Path) -> None:
    file = tmp_path / "empty.onnx"
    file.touch()
    with pytest.raises(ModelError, match=r"empty\.onnx is no ONNX file, .*: it is empty$"):
        catalog.info(file)


def test_info_of_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        catalog.info(tmp_path / "absent.onnx")
