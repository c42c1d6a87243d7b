"""Exporting: weights file in, whole model file out, refusals in words."""

from __future__ import annotations

import hashlib
import importlib
import json
import struct
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from skimage import data

from stream_seg.errors import ModelError, OutputError, StreamSegError, UsageError
from stream_seg.graph import Exported, MaskRCNN, export_graph
from stream_seg.graph.parameters import check, recognise
from tests.test_graph import MODEL, TINY_V1, TINY_V2, random_state

COMPACT_WEIGHTS = MODEL / "weights.safetensors"


def write_weights(path: Path, state: Mapping[str, NDArray[np.generic]]) -> Path:
    header, body = {}, b""
    for key, value in state.items():
        raw = value.astype(np.float32).tobytes()
        header[key] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + body)
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights of a tiny ResNet network."""
    return write_weights(tmp_path / "tiny.safetensors", random_state(TINY_V1))


def metadata(path: Path) -> dict[str, str]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return dict(session.get_modelmeta().custom_metadata_map)


@pytest.mark.filterwarnings("ignore")
def test_the_file_says_all_that_is_needed_to_use_it(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    target = tmp_path / "compact.onnx"
    done = export_graph(
        COMPACT_WEIGHTS, target, size=(400, 300), proposals=50, progress=lambda *step: steps.append(step)
    )
    said = metadata(target)
    assert said["labels"].split(",") == list(done.labels)
    assert done.labels[:2] == ("background", "person")
    assert said["canvases"] == "416x320"
    assert said["stride"] == "32"
    assert said["architecture"] == "compact"
    assert said["precision"] == "fp32"
    assert said["source"] == "weights.safetensors"
    assert said["source_sha256"] == hashlib.sha256(COMPACT_WEIGHTS.read_bytes()).hexdigest()
    assert said["licence"] == "Apache-2.0"
    assert json.loads(said["config"])["proposals"]["count"] == 50
    assert done.size == target.stat().st_size
    assert [step for step, _, _ in steps] == ["read weights", "build graph", "write", "write"]
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("config", [TINY_V1, TINY_V2], ids=["v1", "v2"])
def test_the_network_is_recognised_and_classes_without_known_names_get_numbers(
    config: MaskRCNN, tmp_path: Path
) -> None:
    weights = write_weights(tmp_path / "w.safetensors", random_state(config))
    done = export_graph(weights, tmp_path / "m.onnx", device="cuda")
    assert done.config.name == config.name
    assert done.labels == ("background", "class 1", "class 2", "class 3")
    assert (done.nodes, done.agreement) == (len(onnx.load(done.path).graph.node), None)


def test_the_normalisation_epsilon_of_0_goes_with_the_published_weights_only(weights: Path, tmp_path: Path) -> None:
    recognised = export_graph(weights, tmp_path / "a.onnx")
    named = export_graph(weights, tmp_path / "b.onnx", architecture="r50-fpn")
    assert (recognised.config.norm_eps, named.config.norm_eps) == (1e-5, 0.0)


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    frames = [data.astronaut()[:, :, ::-1].copy(), data.chelsea()[:, :, ::-1].copy()]
    target = tmp_path_factory.mktemp("int8") / "int8.onnx"
    return export_graph(COMPACT_WEIGHTS, target, precision="int8", size=(256, 256), calibration=frames)


def test_int8_is_small_and_finds_the_same_objects(int8: Exported) -> None:
    assert int8.agreement is not None
    assert int8.size < 0.35 * (MODEL / "fp32.onnx").stat().st_size
    assert (int8.agreement.frames, int8.agreement.found) == (2, int8.agreement.objects)
    assert int8.agreement.objects >= 2
    assert int8.agreement.extra <= 1
    assert int8.agreement.iou > 0.85
    assert str(int8.agreement).startswith(f"{int8.agreement.found} of {int8.agreement.objects} objects found again")


def test_int8_keeps_the_contract_of_the_file(int8: Exported) -> None:
    model = onnx.load(int8.path)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert (said["precision"], said["canvases"], "onnx.infer" in said) == ("int8", "256x256", False)
    assert [value.name for value in model.graph.input] == ["images", "sizes", "score_threshold"]
    assert {node.domain for node in model.graph.node} == {""}
    by_name = {node.name: node for node in model.graph.node}
    stem, second = by_name["backbone/0.0/Conv"], by_name["backbone/1.conv.0.0/Conv"]
    assert "DequantizeLinear" not in stem.input[1]
    assert "DequantizeLinear" in second.input[1]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(int8.path, options, providers=["CPUExecutionProvider"])
    feed = {"images": np.zeros((2, 64, 96, 3), np.uint8), "sizes": np.full((2, 2), 64, np.float32)}
    assert [value.shape for value in session.run(None, feed)] == [(0,), (0, 4), (0,), (0,), (0, 28, 28)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"architecture": "r50-fpm"}, r"no architecture 'r50-fpm'.*did you mean 'r50-fpn'"),
        ({"precision": "int4"}, "precision must be fp32, fp16 or int8"),
        ({"device": "tpu"}, "for cpu or cuda"),
        ({"proposals": 0}, "from 1 to 10000"),
        ({"size": (16, 64)}, "not 16x64"),
        ({"precision": "int8"}, "--calibrate"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_read(
    options: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=sentence):
        export_graph(tmp_path / "not there", tmp_path / "m.onnx", **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"architecture": "r50-fpn-v2"}, "weights of r50-fpn, not of r50-fpn-v2"),
        ({"labels": ["background", "cat"]}, "4 classes with the background, but 2 labels"),
        ({"labels": ["background", "a", "b,c", "d"]}, "commas"),
        ({"precision": "int8", "calibration": []}, "there were none"),
    ],
)
def test_options_that_do_not_fit_the_weights_are_refused(
    options: dict[str, Any], sentence: str, weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=sentence):
        export_graph(weights, tmp_path / "m.onnx", **options)
    assert not (tmp_path / "m.onnx").exists()


def test_weights_that_do_not_fit_are_refused_with_the_first_names() -> None:
    state = dict(random_state(TINY_V1))
    lacking = {key: value for key, value in state.items() if "layer2.1.conv" not in key}
    with pytest.raises(
        ModelError, match=r"lack 3 parameters: backbone\.body\.layer2\.1\.conv1\.weight, .*conv3\.weight$"
    ):
        check(lacking, TINY_V1)
    with pytest.raises(ModelError, match=r"have unknown 1 parameters: classifier\.weight"):
        check({**state, "classifier.weight": np.zeros(3)}, TINY_V1)
    key = "rpn.head.cls_logits.weight"
    with pytest.raises(ModelError, match=r"rpn\.head\.cls_logits\.weight \(9, 16, 1, 1\) instead of \(3, 16, 1, 1\)"):
        check({**state, key: np.zeros((9, 16, 1, 1), np.float32)}, TINY_V1)
    with pytest.raises(ModelError, match=r"infinities or NaN.*rpn\.head\.cls_logits\.weight"):
        check({**state, key: np.full((3, 16, 1, 1), np.nan, np.float32)}, TINY_V1)


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(ModelError, match=r"not the weights of a Mask R-CNN.*layer1\.weight"):
        recognise({"layer1.weight": np.zeros(3)})
    state = random_state(replace(TINY_V1))
    other = {key.replace("conv3", "conv9"): value for key, value in state.items()}
    with pytest.raises(ModelError, match="neither a ResNet with bottlenecks nor MobileNetV2"):
        recognise(other)


def test_a_file_that_cannot_be_written_is_refused_and_leaves_nothing(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        export_graph(weights, tmp_path / "no folder" / "m.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        export_graph(weights, tmp_path / "folder.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.onnx", "tiny.safetensors"]


def test_without_onnx_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("stream_seg.graph")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(StreamSegError, match=r"pip install 'stream-seg\[export\]'"):
        importlib.import_module("stream_seg.graph")
