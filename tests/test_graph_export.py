"""Exporting: weights file in, whole model file out, refusals in words."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import re
import signal
import struct
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from skimage import data

from stream_seg.catalog import ENTRIES
from stream_seg.cli import main
from stream_seg.errors import ModelError, OutputError, StreamSegError, UsageError
from stream_seg.frame import Image
from stream_seg.graph import COMPACT, R50_FPN, R50_FPN_V2, Exported, MaskRCNN, export_graph
from stream_seg.graph.build import build_graph
from stream_seg.graph.labels import known_labels
from stream_seg.graph.parameters import State, check, expected, recognise
from stream_seg.graph.precision import Agreement
from stream_seg.graph.published import licence_of
from stream_seg.segmenters import load_segmenter
from tests.test_graph import MODEL, TINY_V1, TINY_V2, random_state

COMPACT_WEIGHTS = MODEL / "weights.safetensors"


def write_weights(path: Path, state: Mapping[str, NDArray[np.generic]], classes: str | None = None) -> Path:
    header: dict[str, object] = {} if classes is None else {"__metadata__": {"classes": classes}}
    body = b""
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
    done = export_graph(COMPACT_WEIGHTS, target, size=(400, 300), progress=lambda *step: steps.append(step))
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
    assert json.loads(said["config"])["classes"] == len(done.labels) == 81
    assert done.size == target.stat().st_size
    assert [step for step, _, _ in steps] == ["read weights", "build graph", "write", "write"]
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("size", "photos"), [(None, 640), ((320, 192), 320), ((1024, 576), 1024)])
def test_photos_are_seen_in_the_size_that_was_asked_for(
    size: tuple[int, int] | None, photos: int, tmp_path: Path
) -> None:
    done = export_graph(COMPACT_WEIGHTS, tmp_path / "compact.onnx", size=size)
    with load_segmenter(done.path, device="cpu", images="stills") as segmenter:
        assert f", {photos} px" in segmenter.description
        assert segmenter.description.endswith("and mirrored")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("option", "said"), [([], r".*m\.onnx: compact fp32, 80 classes, \d+\.\d MB\n"), (["--quiet"], "")]
)
def test_the_command_tells_of_the_file_unless_it_is_to_be_quiet(
    option: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "m.onnx"
    assert main(["export", str(COMPACT_WEIGHTS), "-o", str(target), *option]) == 0
    assert re.fullmatch(said, capsys.readouterr().out)
    assert target.is_file()


@pytest.mark.parametrize("config", [TINY_V1, TINY_V2], ids=["v1", "v2"])
def test_the_network_is_recognised_and_classes_without_known_names_get_numbers(
    config: MaskRCNN, tmp_path: Path
) -> None:
    weights = write_weights(tmp_path / "w.safetensors", random_state(config))
    done = export_graph(weights, tmp_path / "m.onnx", device="cuda")
    assert done.config.name == config.name
    assert done.labels == ("background", "class 1", "class 2", "class 3")
    assert (done.nodes, done.agreement) == (len(onnx.load(done.path).graph.node), None)


def compact_with(classes: int) -> State:
    """Weights of the compact network for another number of classes."""
    random, config = np.random.default_rng(0), replace(COMPACT, classes=classes)
    return {key: random.normal(0, 0.01, shape).astype(np.float32) for key, shape in expected(config)}


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        ("background,cat, dog,cow", ("cat", "dog", "cow")),
        ('["background", "cat", "bottle, plastic", "\u732b"]', ("cat", "bottle, plastic", "\u732b")),
        ('["cat", "dog", "cow"]', ("cat", "dog", "cow")),
    ],
)
def test_names_in_the_weights_become_those_of_the_model(classes: str, names: tuple[str, ...], tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "w.safetensors", random_state(TINY_V1), classes)
    done = export_graph(weights, tmp_path / "m.onnx")
    assert done.labels == ("background", *names)
    with load_segmenter(done.path, device="cpu", threads=1) as segmenter:
        assert segmenter.class_names == names


@pytest.mark.parametrize("mine", [("a", "b", "c"), ("a", "bottle, plastic", "c")])
def test_names_that_are_given_are_those_of_the_model_whatever_the_weights_say(
    mine: tuple[str, ...], tmp_path: Path
) -> None:
    weights = write_weights(tmp_path / "w.safetensors", random_state(TINY_V1), "background,cat, dog,cow")
    given = export_graph(weights, tmp_path / "m.onnx", labels=mine)
    assert given.labels == ("background", *mine)
    with load_segmenter(given.path, device="cpu", threads=1) as segmenter:
        assert segmenter.class_names == mine


def test_weights_may_have_a_name_that_is_not_utf_8(weights: Path, tmp_path: Path) -> None:
    odd = weights.rename(tmp_path / "caf\udce9.safetensors")  # Latin-1, as old disks have it
    done = export_graph(odd, tmp_path / "m.onnx", labels=["a", "b", "c"])  # without, it would be named in a warning
    assert metadata(done.path)["source"] == "caf\ufffd.safetensors"


@pytest.mark.filterwarnings("ignore")
def test_paths_may_be_strings(weights: Path, tmp_path: Path) -> None:
    done = export_graph(str(weights), str(tmp_path / "model.onnx"))
    assert (done.path, metadata(done.path)["source"]) == (tmp_path / "model.onnx", weights.name)


def test_a_number_of_classes_is_no_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """20 classes are those of the built-in model in its own weights alone, however many others have 20."""
    weights = write_weights(tmp_path / "w.safetensors", compact_with(21))
    done = export_graph(weights, tmp_path / "m.onnx")
    assert done.labels == ("background", *(f"class {i}" for i in range(1, 21)))
    assert caplog.messages == [f"{weights}: what its 20 classes are called is not known: give --labels FILE"]


@pytest.mark.parametrize("classes", ["background,cat", "80", "[1, 2, 3]", "[" * 100_000, '"a"', ""])
def test_metadata_that_does_not_name_the_classes_is_passed_over(classes: str, tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "w.safetensors", random_state(TINY_V1), classes)
    assert export_graph(weights, tmp_path / "m.onnx").labels == ("background", "class 1", "class 2", "class 3")


def test_the_lists_that_are_known_belong_to_certain_networks() -> None:
    assert known_labels(COMPACT, built_in=True)[:2] == ("background", "person")
    assert len(known_labels(COMPACT, built_in=True)) == COMPACT.classes
    for ours in (R50_FPN, R50_FPN_V2):
        assert known_labels(ours, built_in=False)[90] == "toothbrush"
    for others in (COMPACT, replace(COMPACT, classes=91), replace(R50_FPN, classes=21)):
        assert known_labels(others, built_in=False) == ()


def test_a_licence_is_stated_of_weights_that_are_known_alone(weights: Path, tmp_path: Path) -> None:
    for given, stated in ((None, "unknown"), ("CC0-1.0", "CC0-1.0")):
        said = metadata(export_graph(weights, tmp_path / "m.onnx", licence=given).path)
        assert said["licence"] == json.loads(said["config"])["licence"] == stated
    assert licence_of(hashlib.sha256(COMPACT_WEIGHTS.read_bytes()).hexdigest()) == "Apache-2.0"
    for entry in ENTRIES:
        if entry.download and entry.architecture:
            assert licence_of(entry.download.sha256) == entry.licence


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
    pooled = by_name["backbone/MaxPool"]
    assert "Linear" not in by_name[pooled.input[0]].op_type
    for name, quantised in (("stem", False), ("stages.0.enter", True), ("stages.3.blocks.2.second", True)):
        assert ("DequantizeLinear" in by_name[f"backbone/{name}/Conv"].input[1]) is quantised, name
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(int8.path, options, providers=["CPUExecutionProvider"])
    feed = {"images": np.zeros((2, 64, 96, 3), np.uint8), "sizes": np.full((2, 2), 64, np.float32)}
    assert [value.shape for value in session.run(None, feed)] == [(0,), (0, 4), (0,), (0,), (0, 28, 28)]


def test_what_was_not_found_has_no_mean() -> None:
    assert str(Agreement(3, 2, 0, 1, math.nan, math.nan)) == "0 of 2 objects found again, 1 more, in 3 frames"
    assert str(Agreement(3, 0, 0, 0, math.nan, math.nan)).startswith("nothing was found in the 3 frames")


def test_a_temporary_folder_that_cannot_be_used_is_said(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    frames = [np.zeros((64, 64, 3), np.uint8)]
    with pytest.raises(OutputError, match=r"cannot make int8 in .*gone: No such file.* TMPDIR$"):
        export_graph(weights, tmp_path / "m.onnx", precision="int8", calibration=frames)


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


def test_the_number_of_proposals_is_chosen_where_there_are_some(weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    export_graph(weights, target, proposals=50)
    assert json.loads(metadata(target)["config"])["proposals"]["count"] == 50
    with pytest.raises(UsageError, match="compact finds objects without proposals"):
        export_graph(COMPACT_WEIGHTS, tmp_path / "other.onnx", proposals=50)
    assert not (tmp_path / "other.onnx").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"architecture": "r50-fpn-v2"}, "weights of r50-fpn, not of r50-fpn-v2"),
        ({"precision": "int8", "calibration": []}, "there were none"),
    ],
)
def test_options_that_do_not_fit_the_weights_are_refused(
    options: dict[str, Any], sentence: str, weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=sentence):
        export_graph(weights, tmp_path / "m.onnx", **options)
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(
    ("calibration", "got"),
    [(["a.jpg"], "got str"), ([None], "got NoneType"), (np.zeros((48, 64, 3), np.uint8), r"got \(64, 3\) uint8")],
    ids=["path", "unread", "only one"],
)
def test_what_is_no_image_is_refused_to_calibrate_on(
    calibration: Sequence[Image], got: str, weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"^image must be .*{got}$"):
        export_graph(weights, tmp_path / "m.onnx", precision="int8", calibration=calibration)


@pytest.mark.parametrize(
    ("labels", "count"),
    [
        (["background", "cat"], "2 labels were given"),
        (["background", "a", "b"], "3 labels were given"),
        (["background", *"abcd"], "5 labels were given"),
        ([*"abcd"], "4 labels were given without it"),
        ([*"ab"], "2 labels were given without it"),
    ],
)
def test_more_or_fewer_labels_than_the_weights_have_classes_are_a_mistake_of_the_user(
    labels: list[str], count: str, weights: Path, tmp_path: Path
) -> None:
    said = rf'tiny\.safetensors: .* 4 classes with the background, but {count}: name the other 3, .* "background"'
    with pytest.raises(UsageError, match=said):
        export_graph(weights, tmp_path / "m.onnx", labels=labels)
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
    with pytest.raises(ModelError, match="is no ResNet with bottlenecks"):
        recognise(other)


def test_weights_of_the_compact_network_of_before_are_refused_with_what_to_do() -> None:
    with pytest.raises(ModelError, match="when it had proposals: export them with the version"):
        recognise({"backbone.body.18.0.weight": np.zeros(3), "rpn.head.cls_logits.weight": np.zeros(3)})


def test_weights_without_a_class_beside_the_background_or_without_a_stage_are_refused() -> None:
    state = dict(random_state(TINY_V1))
    key = "roi_heads.box_predictor.cls_score.weight"
    with pytest.raises(ModelError, match="classes counts the background, so it must be at least 2, got 1"):
        recognise({**state, key: state[key][:1]})
    with pytest.raises(ModelError, match="lack stage 4 of the ResNet"):
        recognise({key: value for key, value in state.items() if "layer4" not in key})


def test_a_file_that_cannot_be_written_is_refused_and_leaves_nothing(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        export_graph(weights, tmp_path / "no folder" / "m.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        export_graph(weights, tmp_path / "folder.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.onnx", "tiny.safetensors"]


def test_a_name_too_long_and_a_device_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="File name too long"):
        export_graph(weights, tmp_path / ("n" * 250 + ".onnx"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="no file"):
        export_graph(weights, tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_is_followed_and_stays(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "m.onnx").symlink_to("disk/m.onnx")
    export_graph(weights, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").is_symlink()
    assert metadata(tmp_path / "disk" / "m.onnx")["source"] == "tiny.safetensors"


def test_an_interruption_leaves_no_half_file(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_graph(weights, tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.safetensors"]


@pytest.mark.usefixtures("in_a_terminal")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_no_signal_leaves_a_partial_file_of_the_command(
    number: signal.Signals, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[:100])
        signal.raise_signal(number)

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    assert main(["export", str(weights), "-o", str(tmp_path / "m.onnx"), "--quiet"]) == 128 + number
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.safetensors"]


@pytest.mark.filterwarnings("ignore")
def test_a_file_that_appears_while_the_command_works_is_not_replaced(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target, build = tmp_path / "m.onnx", build_graph

    def slow(*arguments: Any, **options: Any) -> onnx.ModelProto:  # noqa: ANN401  what build_graph takes
        target.write_text("somebody else's")
        return build(*arguments, **options)

    monkeypatch.setattr("stream_seg.graph.export.build_graph", slow)
    command = ["export", str(weights), "-o", str(target), "--quiet"]
    assert main(command) == 6
    kept = tmp_path / "m.part.onnx"
    assert f"{target} appeared while it was being written; the result is in {kept}" in capsys.readouterr().err
    assert target.read_text() == "somebody else's"
    assert metadata(kept)["source"] == "tiny.safetensors"
    kept.unlink()
    assert main([*command, "--overwrite"]) == 0
    assert metadata(target)["source"] == "tiny.safetensors"
    assert not kept.exists()


@pytest.mark.filterwarnings("ignore")
def test_what_the_command_cannot_do_is_one_line_and_leaves_nothing(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert main(["export", str(weights), "-o", str(tmp_path / "pipe"), "--overwrite", "--quiet"]) == 6
    assert "it is there already, and no file" in capsys.readouterr().err
    assert (tmp_path / "pipe").is_fifo()

    def too_large(*_arguments: object, **_options: object) -> None:
        raise MemoryError

    monkeypatch.setattr("stream_seg.graph.export.build_graph", too_large)
    assert main(["export", str(weights), "-o", str(tmp_path / "m.onnx"), "--quiet"]) == 1
    assert "stream-seg: there is not enough memory for this; end other programs" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pipe", "tiny.safetensors"]


def test_without_onnx_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("stream_seg.graph")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(StreamSegError, match=r"pip install 'stream-seg\[export\]'"):
        importlib.import_module("stream_seg.graph")
