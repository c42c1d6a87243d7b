"""The parts of training that are PyTorch: losses that do not punish what is not annotated, boxes, predictors."""

# ruff: noqa: ANN401  scripts are loaded by name, and so their types are not known here

from __future__ import annotations

import importlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from stream_seg import load_segmenter
from stream_seg.graph import export_graph
from stream_seg.graph.config import RoiPooling
from stream_seg.graph.regions import Canvas, Rois
from stream_seg.graph.roi import make_pooler
from tests.small_graphs import compute
from tests.support import file_limit
from tests.training_scripts import importable, needing, settings_kept

if TYPE_CHECKING:
    from torch import Tensor

    from stream_seg.graph.emit import Value

pytestmark = needing("torch", "safetensors")

ROOT = Path(__file__).parents[1]
MODULES = (
    "boxes",
    "batches",
    "model",
    "losses",
    "weights",
    "segmenter",
    "pooling",
    "train",
    "team",
    "trainer",
    "schedule",
    "stopping",
)


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    with importable():
        loaded = {name: importlib.import_module(name) for name in MODULES}
        with settings_kept():
            yield loaded


def test_of_boxes_that_overlap_the_first_of_each_label_remains(scripts: dict[str, ModuleType]) -> None:
    """One after the other; chains of those that suppress each other are longer than a few."""
    import torch

    boxes = scripts["boxes"]
    row = torch.arange(40.0)[:, None] * torch.tensor([2.0, 0, 2, 0]) + torch.tensor([0.0, 0, 10, 10])
    corners = torch.rand(200, 4, generator=torch.Generator().manual_seed(0)) * 100
    corners[:, 2:] = corners[:, :2] + 5 + corners[:, 2:] / 2
    both, labels = torch.cat([row, corners]), torch.cat([torch.ones(40), torch.arange(200) % 3]).long()
    kept: list[int] = []
    for n, (box, label) in enumerate(zip(both, labels, strict=True)):
        rivals = [k for k in kept if labels[k] == label]
        if not rivals or boxes.overlap(both[rivals], box)[0].max() <= 0.5:
            kept.append(n)
    assert boxes.greedy_keep(both, labels, 0.5).nonzero()[:, 0].tolist() == kept
    assert sum(n < 40 for n in kept) == 20
    assert boxes.greedy_keep(both[:0], labels[:0], 0.5).shape == (0,)


def test_a_box_is_ignored_when_most_of_it_is(scripts: dict[str, ModuleType]) -> None:
    import torch

    ignore = torch.zeros(1, 20, 20)
    ignore[0, 5:10, 5:10] = 1  # pixels 20 to 40
    covers = scripts["boxes"].IgnoreMap(ignore).covers
    boxes = torch.tensor([[[20.0, 20, 40, 40], [20, 20, 40, 56], [20, 20, 40, 64], [60, 60, 70, 70]]])
    assert covers(boxes).tolist() == [[True, True, False, False]]


def pyramid(channels: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Maps of strides 8, 16 and 32 of two canvases, boxes of all sizes, some beyond the edges, and their images."""
    import torch

    torch.manual_seed(0)
    maps = [torch.randn(2, channels, 32 // step, 40 // step) for step in (1, 2, 4)]
    middle, side = torch.rand(60, 2) * torch.tensor([340.0, 270.0]) - 10, (torch.rand(60, 2) * 5).exp()
    return maps, torch.cat([middle - side / 2, middle + side / 2], 1), torch.arange(60) % 2


def test_regions_are_pooled_as_in_graphs_and_so_are_gradients(scripts: dict[str, ModuleType]) -> None:
    import torch

    maps, boxes, image = pyramid(channels=3)
    config = RoiPooling(canonical_side=160.0)

    def write(b: Value, i: Value, *levels: Value) -> Value:  # by ONNX Runtime's operator
        canvas = Canvas(b.graph.value(256), b.graph.value(320), b)
        return make_pooler(levels, (8, 16, 32), 3, config, canvas, "cuda").pool(Rois(b, i), 7)

    wanted = torch.from_numpy(compute(write, *(one.numpy() for one in (boxes, image, *maps)), rank=4))

    def pooled(*levels: Tensor) -> Tensor:
        found: Tensor = scripts["pooling"].RegionPooler(levels, (8, 16, 32)).aligned(boxes, image, 7, 2)
        return found

    assert torch.allclose(pooled(*maps), wanted, atol=1e-4)
    # Pooling is linear, so that its derivative along any direction is what it makes of that direction.
    for one in maps:
        one.requires_grad_()
    directions = [torch.randn_like(one) for one in maps]
    weight = torch.randn(60, 3, 7, 7)
    gradients = torch.autograd.grad((pooled(*maps) * weight).sum(), maps)
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    assert torch.allclose(slope, (pooled(*directions) * weight).sum(), rtol=1e-3)


WAITING = (
    "aten::lift_fresh",  # what was made of Python's numbers, and is copied to the device
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::equal",
    "aten::masked_select",
    "aten::repeat_interleave.Tensor",
)
"""Operators that make the host wait for a GPU; so do copies between devices, which a CPU alone does not show."""


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("kind", ["training_losses", "mask_losses"])
def test_a_step_makes_no_gpu_wait(scripts: dict[str, ModuleType], kind: str, amp: bool) -> None:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    called: list[str] = []

    class Noted(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            masked = func.name() == "aten::index.Tensor" and any(
                one is not None and one.dtype == torch.bool for one in args[1]
            )
            called.append("nonzero, of a mask" if masked else func.name())
            return func(*args, **(kwargs or {}))

    torch.manual_seed(0)
    net, sides = scripts["model"].Net(("a", "b")), torch.tensor([[[10.0, 10, 90, 80]] * 8] * 2)
    labels, crops = torch.ones(2, 8, dtype=torch.int64), torch.full((1, 64, 64), 255, dtype=torch.uint8)
    known, ignore = torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 24, 32, dtype=torch.uint8)
    of_crops = torch.zeros_like(labels), crops, sides[0, :1]
    targets = scripts["batches"].Targets(sides, labels, torch.ones(2, 8), *of_crops, known, ignore)
    x = torch.rand(2, 3, 96, 128)
    with Noted():
        losses, _ = getattr(scripts["losses"], kind)(net, x, targets, amp=amp)
        torch.stack(list(losses.values())).sum().backward()
    assert "aten::_embedding_bag" in called or "aten::_embedding_bag_forward_only" in called
    assert not {*WAITING, "nonzero, of a mask"} & set(called)


def test_unlabelled_objects_cost_nothing_and_labelled_ones_do(scripts: dict[str, ModuleType]) -> None:
    """The same confident detections: punished as background only where the class is said to be exhaustive."""
    import torch

    classes = scripts["weights"].read_weights(scripts["weights"].BUILT_IN)[1]
    net = scripts["weights"].start_from(scripts["weights"].BUILT_IN, classes, -1)
    import cv2

    photo = cv2.resize(cv2.imread(str(ROOT / "samples" / "photo.jpg")), (320, 224))[:, :, ::-1].copy()
    x = scripts["batches"].to_input(torch.from_numpy(photo)[None])
    found = {}
    for exhaustive in (True, False):
        known = torch.full((1, len(classes) + 1), exhaustive)
        known[:, 0] = False
        labels, certain = torch.zeros(1, 8, dtype=torch.int64), torch.ones(1, 8)
        blank = torch.zeros(1, 8, 4), labels, certain, torch.full((1, 8), -1)
        crops = torch.zeros(1, 64, 64, dtype=torch.uint8), torch.zeros(1, 4)
        targets = scripts["batches"].Targets(*blank, *crops, known, torch.zeros(1, 56, 80, dtype=torch.uint8))
        torch.manual_seed(0)
        losses, _ = scripts["losses"].training_losses(net, x, targets, amp=False)
        assert all(value.isfinite() for value in losses.values())
        found[exhaustive] = {name: value.item() for name, value in losses.items()}
    assert found[False]["class"] < 1e-3 < 0.05 < found[True]["class"]


def test_the_graph_outlines_objects_as_the_network_in_training_does(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    import cv2
    import numpy as np
    import torch

    weights = scripts["weights"]
    net = weights.start_from(weights.BUILT_IN, weights.read_weights(weights.BUILT_IN)[1], -1)
    photo = np.asarray(cv2.imread(str(ROOT / "samples" / "photo.jpg")), np.uint8)
    segmenter = scripts["segmenter"].NetSegmenter(net, 416, 0.4)
    (before,) = segmenter([photo])
    torch.manual_seed(0)
    torch.nn.init.normal_(net.roi_heads.mask_class.weight, std=2.0)
    (wanted,) = segmenter([photo])
    assert len(set(wanted.names)) > 1
    for name in set(wanted.names):  # what a class adds shows
        mask, same = (found.masks[found.names.index(name)] for found in (wanted, before))
        assert np.abs(mask - same).max() > 0.1
    file = tmp_path / "w.safetensors"
    weights.write_weights(file, net.state_dict(), net.classes)
    for device in ("cpu", "cuda"):
        export_graph(file, tmp_path / "model.onnx", device=device)
        with load_segmenter(tmp_path / "model.onnx", device="cpu", long_side=416, score_threshold=0.4) as segmenter:
            (found,) = segmenter([photo])
        assert found.names == wanted.names
        np.testing.assert_allclose(found.boxes, wanted.boxes, atol=0.05)
        np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-3)
        np.testing.assert_allclose(found.masks, wanted.masks, atol=2e-3)


def test_regions_for_masks_have_the_label_of_the_object_whose_outline_they_get_or_none(
    scripts: dict[str, ModuleType],
) -> None:
    import torch

    torch.manual_seed(0)
    losses, objects = scripts["losses"], torch.tensor([[20.0, 30, 100, 140], [60, 20, 150, 150], [5, 5, 40, 60]])
    boxes, labels, rows = (
        objects.repeat(2, 1, 1),
        torch.tensor([[3, 7, 9], [4, 0, 1]]),
        torch.tensor([[1, -1, 2], [3, -1, 4]]),
    )
    label_of_crop, box_of_crop = torch.tensor([0, 3, 9, 4, 1]), objects[[1, 0, 2, 0, 2]]
    known, ignore = torch.ones(2, 21, dtype=torch.bool), torch.zeros(2, 40, 40, dtype=torch.uint8)
    crops = torch.zeros(5, 64, 64, dtype=torch.uint8), torch.zeros(5, 4)
    targets = scripts["batches"].Targets(boxes, labels, torch.ones(2, 3), rows, *crops, known, ignore)
    nearly, elsewhere = boxes + 0.25, boxes + 200
    for predicted, least, most in ((None, 0, 0), (nearly, 0.2, 0.8), (elsewhere, 0, 0)):
        draws = [losses._choose_mask_rois(targets, 6, predicted) for _ in range(40)]
        for chosen in draws:
            assert 4 <= chosen.real.sum() <= 12
            own = label_of_crop[chosen.crop]
            assert ((chosen.labels == own) | (chosen.labels == 0))[chosen.real].all()
            assert torch.equal(chosen.image[chosen.real], (chosen.crop[chosen.real] > 2).long())
        real, labels_of, crop, placed = (
            torch.cat([getattr(one, name) for one in draws]) for name in ("real", "labels", "crop", "boxes")
        )
        assert set(labels_of[real].tolist()) == {0, 3, 9, 4, 1}
        assert (labels_of[real] == 0).float().mean().item() == pytest.approx(0.25, abs=0.08)
        as_predicted = ((placed - box_of_crop[crop] - 0.25).abs().max(1).values < 1e-4)[real].float().mean()
        assert least <= as_predicted <= most
        near, _ = scripts["boxes"].overlap(placed, box_of_crop[crop])
        assert (near[real] >= 0.5).all()


def test_when_only_masks_are_trained_nothing_else_is(scripts: dict[str, ModuleType]) -> None:
    import torch

    weights, batches = scripts["weights"], scripts["batches"]
    net = weights.start_from(weights.BUILT_IN, weights.read_weights(weights.BUILT_IN)[1], -1)
    scripts["model"].freeze_all_but_masks(net)
    torch.manual_seed(0)
    boxes, labels = torch.zeros(2, 8, 4), torch.zeros(2, 8, dtype=torch.int64)
    boxes[0, 0], labels[0, 0] = torch.tensor([20.0, 30, 100, 140]), 1
    rows = torch.where(labels > 0, 1, -1)
    crops = torch.full((2, 64, 64), 255, dtype=torch.uint8)
    crop_boxes = torch.stack([torch.zeros(4), boxes[0, 0]])
    known, ignore = torch.ones(2, 21, dtype=torch.bool), torch.zeros(2, 40, 40, dtype=torch.uint8)
    targets = batches.Targets(boxes, labels, torch.ones(2, 8), rows, crops, crop_boxes, known, ignore)
    losses, counters = scripts["losses"].mask_losses(net, torch.rand(2, 3, 160, 160), targets, amp=False)
    assert 0 < counters["positives"] <= 3  # one object, in three variants, of which some may be too far off
    sum(losses.values()).backward()
    moved = {name for name, one in net.named_parameters() if one.grad is not None and one.grad.abs().sum() > 0}
    coarser = ("roi_heads.mask_levels.1.", "roi_heads.mask_levels.2.")  # which one small object is not pooled from
    masks = {name for name, _ in net.named_parameters() if name.startswith("roi_heads.mask_")}
    assert moved == {name for name in masks if not name.startswith(coarser)}
    assert {name for name, one in net.named_parameters() if one.requires_grad} == masks


def test_classes_of_the_same_name_keep_their_predictor_and_others_are_unlikely(scripts: dict[str, ModuleType]) -> None:
    import torch

    weights = scripts["weights"]
    old, known = weights.read_weights(weights.BUILT_IN)
    new = weights.start_from(weights.BUILT_IN, ("robot", "cat", "person"), -1).state_dict()
    cat, person = known.index("cat"), known.index("person")
    for level in range(3):
        weight, bias = (f"dense.{level}.classes.{kind}" for kind in ("weight", "bias"))
        for key in (weight, bias):
            assert torch.equal(new[key][[1, 2]], old[key][[cat, person]])
        assert 0 < new[weight][0].abs().max() < 0.1
        assert new[bias][0].sigmoid().item() == pytest.approx(0.01)
    others = [key for key in old if ".classes." not in key and "mask_class" not in key]
    assert all(torch.equal(new[key], old[key]) for key in others)


def test_classes_of_other_names_are_outlined_as_what_has_no_name(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    import torch

    weights, key = scripts["weights"], "roi_heads.mask_class.weight"
    net = scripts["model"].Net(("dog", "cat"))
    torch.nn.init.normal_(net.roi_heads.mask_class.weight)
    old = net.state_dict()[key]
    weights.write_weights(tmp_path / "w.safetensors", net.state_dict(), net.classes)
    new = weights.start_from(tmp_path / "w.safetensors", ("robot", "cat"), -1).state_dict()[key]
    assert torch.equal(new, old[[0, 0, 2]])


def test_weights_are_written_with_their_classes(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    from stream_seg.errors import ModelError

    weights = scripts["weights"]
    net = weights.start_from(weights.BUILT_IN, ("a", "b"), -1)
    weights.write_weights(tmp_path / "w.safetensors", net.state_dict(), net.classes)
    state, classes = weights.read_weights(tmp_path / "w.safetensors")
    assert classes == ("a", "b")
    assert state.keys() == net.state_dict().keys()
    with pytest.raises(ModelError, match="cannot be read"):
        weights.read_weights(tmp_path / "none.safetensors")


def test_bfloat16_is_for_what_computes_in_it(scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    fast = scripts["train"]._computes_in_bfloat16
    for known, is_fast in (({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_f": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", known.copy, raising=False)
        assert fast(torch.device("cpu")) is is_fast
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not fast(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _: True)  # which all emulate
    for generation, is_fast in ((7, False), (8, True), (9, True)):
        properties = SimpleNamespace(major=generation)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _, known=properties: known)
        assert fast(torch.device("cuda")) is is_fast


@pytest.mark.parametrize(("device", "chosen"), [("cuda:1", ["cuda:1"]), ("cuda", []), ("cpu", [])])
def test_the_device_that_is_named_is_that_of_the_process(
    scripts: dict[str, ModuleType], device: str, chosen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    told: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda named: told.append(str(named)))
    with settings_kept():
        scripts["train"]._set_up_torch(torch.device(device), 1)
    assert told == chosen


def test_a_full_disk_is_said_and_leaves_what_was_saved_before(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    import torch

    from stream_seg.errors import OutputError

    weights = scripts["weights"]
    for name, write in (
        ("w.safetensors", lambda path, value: weights.write_weights(path, {"x": value}, ("a",))),
        ("last.pt", lambda path, value: weights.write_checkpoint(path, {"x": value})),
    ):
        write(tmp_path / name, torch.ones(10))
        before = (tmp_path / name).read_bytes()
        with file_limit(20_000), pytest.raises(OutputError, match=rf"{name}: File too large; what .* before is intact"):
            write(tmp_path / name, torch.ones(10_000))
        assert (tmp_path / name).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "w.safetensors"]


def test_classes_may_have_any_name(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    weights, names, file = (
        scripts["weights"],
        ("bottle, plastic", "猫", 'x"y', "background"),
        tmp_path / "mine.safetensors",
    )
    net = weights.start_from(weights.BUILT_IN, names, -1)
    assert net.dense[0].classes.weight[3].abs().max() < 0.1  # a new class of that name
    weights.write_weights(file, net.state_dict(), names)
    assert weights.read_weights(file)[1] == names
    assert importlib.import_module("export").read_classes(file) == names
    assert export_graph(file, tmp_path / "mine.onnx").labels == ("background", *names)


def test_the_log_survives_what_is_no_number_and_a_line_that_was_cut(tmp_path: Path) -> None:
    record, file = importlib.import_module("record"), tmp_path / "log.jsonl"
    log = record.Log(file)
    log.write({"step": 1, "loss": 2.0, "mask": 0.5})
    log.write({"step": 2, "box_ap": 30.0, "box_ap50": 50.0, "mask_ap": float("nan"), "mask_ap50": float("nan")})
    with file.open("a") as cut:
        cut.write('{"step": 3, "lo')
    assert record.read_log(file) == [
        {"step": 1, "loss": 2.0, "mask": 0.5},
        {"step": 2, "box_ap": 30.0, "box_ap50": 50.0},
    ]
    record.draw_curves(file, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_weights_of_something_else_are_named(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from stream_seg.errors import ModelError

    save_file({"x": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"w\.safetensors are not of the compact network"):
        scripts["weights"].read_weights(tmp_path / "w.safetensors")


def test_a_run_that_cannot_be_is_refused_in_one_line(
    scripts: dict[str, ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "last.pt").write_bytes(b"")
    asked = ["train.py", str(tmp_path), "--steps", "1", "--device", "cpu", "--out"]
    for more, words in (
        ([str(run)], f"{run} holds a run already: give --resume to go on with it, or another --out"),
        ([str(tmp_path / "new"), "--resume"], f"there is nothing to resume in {tmp_path / 'new'}: it has no last.pt"),
        ([str(tmp_path / "new"), "--processes", "0"], "--processes 0: several are for --device cpu, one for each core"),
        ([str(tmp_path / "new"), "--freeze", "5"], "--freeze 5: the body has a stem and 4 stages; -1 trains all"),
        ([str(tmp_path / "new"), "--freeze", "-2"], "--freeze -2: the body has a stem and 4 stages; -1 trains all"),
    ):
        monkeypatch.setattr(sys, "argv", [*asked, *more])
        with pytest.raises(SystemExit) as ended:
            scripts["train"].main()
        assert ended.value.code == 2
        assert capsys.readouterr().err == f"train: {words}\n"


def test_what_a_run_would_lack_when_it_is_saved_is_said_before_it_begins(
    scripts: dict[str, ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(sys, "argv", ["train.py", str(tmp_path), "--steps", "1", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as ended:
        scripts["train"].main()
    assert (ended.value.code, list(tmp_path.iterdir())) == (1, [])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train: training needs matplotlib (")
    assert line.endswith("; run: pip install 'stream-seg[train]'")


@pytest.mark.parametrize(
    ("script", "option", "words"),
    [
        ("train", ["--steps", "0"], "argument --steps: '0' is no whole number of at least 1"),
        ("train", ["--minutes", "0"], "argument --minutes: '0' should be a number of more than 0"),
        ("train", ["--minutes", "nan"], "argument --minutes: 'nan' should be a number of more than 0"),
        ("train", ["--batch", "0"], "argument --batch: '0' is no whole number of at least 1"),
        ("train", ["--log-every", "0"], "argument --log-every: '0' is no whole number of at least 1"),
        ("train", ["--paste", "15"], "argument --paste: '15' should be a number from 0 to 1"),
        ("train", ["--scales", "1"], "argument --scales: '1' should be the smallest and the largest scale, such as"),
        ("train", ["--scales", "2,0.5"], "argument --scales: '2,0.5' should be the smallest and the largest scale"),
        (
            "train",
            ["--seed", "2000000000000000"],
            "argument --seed: '2000000000000000' should be at most 1000000000000000",
        ),
        ("train", ["--seed", "-1"], "argument --seed: '-1' is no whole number of at least 0"),
        ("train", ["--shares", "x=nan"], "argument --shares: 'nan' should be a number from 0 to 1"),
        ("train", ["--shares", "x=-1"], "argument --shares: '-1' should be a number from 0 to 1"),
        ("train", ["--shares", "x"], "argument --shares: 'x' should name each source once, such as mine=0.7,other=0.3"),
        ("train", ["--shares", "x=0.1,x=0.2"], "argument --shares: 'x=0.1,x=0.2' should name each source once"),
        ("train", ["--device", "cuda"], "argument --device: this PyTorch sees no device cuda: give cpu"),
        ("train", ["--device", "gpu"], "argument --device: 'gpu' is no device of PyTorch: give cpu, cuda or cuda:N"),
        ("train", ["--device", "meta"], "argument --device: training is for cpu and cuda, not meta"),
        ("evaluate", ["--device", "cuda:1"], "argument --device: this PyTorch sees no device cuda:1: give cpu"),
        ("outline", ["--device", "cuda"], "argument --device: this PyTorch sees no device cuda: give cpu"),
    ],
)
def test_options_that_no_command_can_follow_are_refused(
    script: str, option: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *option])
    with importable(), pytest.raises(SystemExit) as ended:
        importlib.import_module(script).main()
    assert ended.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("is_portrait", [False, True])
def test_canvases_have_sides_that_the_network_can_halve(scripts: dict[str, ModuleType], *, is_portrait: bool) -> None:
    sizes = [scripts["batches"].canvas_size(side, is_portrait=is_portrait) for side in (1, 300, 320, 321)]
    expected = [(32, 32), (256, 320), (256, 320), (256, 352)]
    assert sizes == [size[::-1] if is_portrait else size for size in expected]


@pytest.fixture
def running(scripts: dict[str, ModuleType], tmp_path: Path) -> Any:
    """A trainer of the built-in network that has five steps to go."""
    weights, trainer = scripts["weights"], scripts["trainer"]
    net = weights.start_from(weights.BUILT_IN, weights.read_weights(weights.BUILT_IN)[1], 3)
    tuning = trainer.Tuning(rate=1e-4, body=1, average=0.9, mask_weight=1, amp=False, log_every=1, save_minutes=9)
    schedule = scripts["schedule"].Schedule(steps=5, minutes=0, warmup=1)
    losses, team = scripts["losses"].training_losses, scripts["team"].Alone()
    return trainer.Trainer(net, tmp_path, schedule, tuning, None, losses, team, lambda: None)


def test_body_and_pyramid_learn_slowly_and_vectors_of_classes_fast(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    trainer, net = scripts["trainer"], scripts["model"].Net(("a",), frozen=1)
    tuning = trainer.Tuning(rate=2e-3, body=0.25, average=0.9, mask_weight=1, amp=False, log_every=1, save_minutes=9)
    losses, team = scripts["losses"].training_losses, scripts["team"].Alone()
    schedule = scripts["schedule"].Schedule(steps=5, minutes=0, warmup=1)
    groups = trainer.Trainer(net, tmp_path, schedule, tuning, None, losses, team, lambda: None).optimizer.param_groups
    peaks = {id(one): group["peak"] for group in groups for one in group["params"]}
    found = {name: peaks.get(id(one), 0.0) for name, one in net.named_parameters()}
    kept = ("backbone.body.stem.", "backbone.body.stages.0.")
    for name, peak in found.items():
        slow, fast = name.startswith("backbone."), name == "roi_heads.mask_class.weight"
        assert peak == (0.0 if name.startswith(kept) else 5e-4 if slow else 2e-2 if fast else 2e-3), name


@pytest.mark.usefixtures("in_a_terminal")
@pytest.mark.parametrize("error", [RuntimeError, ConnectionResetError, EOFError])
def test_a_signal_that_ends_the_makers_of_batches_first_ends_training_in_order(
    error: type[Exception],
    running: Any,
    scripts: dict[str, ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scripts["trainer"], "NOTICE", 0)

    def batches(*signals: signal.Signals) -> Iterator[None]:
        for number in signals:
            signal.raise_signal(number)
        raise error
        yield

    for signals in ((signal.SIGTERM,), (signal.SIGHUP, signal.SIGHUP)):  # which comes from the shell, too
        running.run(batches(*signals), None)
        (tmp_path / "last.pt").unlink()
    with pytest.raises(error):
        running.run(batches(), None)


def test_what_was_trained_is_saved_when_a_maker_of_batches_is_killed(
    running: Any, scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    def killed() -> Iterator[None]:
        raise RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. ")
        yield

    with pytest.raises(
        scripts["team"].TeamError, match=r"is killed by signal: Killed\. What was trained is saved: go on"
    ):
        running.run(killed(), None)
    assert (tmp_path / "last.pt").exists()


@pytest.mark.parametrize("error", [ConnectionResetError, EOFError])
def test_what_was_trained_is_saved_when_a_maker_of_batches_is_killed_as_it_hands_one_over(
    error: type[Exception], running: Any, scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    def notice(_number: int, _frame: object) -> None:  # as PyTorch does, of the signal that a process has ended
        raise RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. ")

    def killed() -> Iterator[None]:
        telling.start()
        raise error
        yield

    telling = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
    before = signal.signal(signal.SIGUSR1, notice)
    try:
        with pytest.raises(scripts["team"].TeamError, match=r"is killed by signal: Killed\. What was trained is saved"):
            running.run(killed(), None)
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        telling.join()
        signal.signal(signal.SIGUSR1, before)
    assert (tmp_path / "last.pt").exists()


NO_MEMORY = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 7.79 GiB of which 1.20 GiB is free. "
    "Including non-PyTorch memory, this process has 6.50 GiB memory in use. See documentation for Memory Management"
)
"""As PyTorch says it, in short."""


def test_what_was_trained_is_saved_when_the_device_has_too_little_memory(
    running: Any, scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from stream_seg.errors import DeviceError

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError(NO_MEMORY)

    monkeypatch.setattr(running, "_losses", fail)
    batch = torch.zeros(1, 32, 32, 3, dtype=torch.uint8), scripts["batches"].Targets(*[torch.zeros(1)] * 8)
    with pytest.raises(DeviceError, match=r"of which 1\.20 GiB is free\. What was trained is saved: .*smaller --batch"):
        running.run(iter([batch]), None)
    assert (tmp_path / "last.pt").exists()
    assert (tmp_path / "weights.safetensors").exists()


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize("script", ["evaluate", "outline"])
def test_a_device_with_too_little_memory_is_said_in_one_line(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    def fail(error: RuntimeError) -> None:
        raise error

    carry_out = importlib.import_module("commands").carry_out
    short = "CUDA error: out of memory"
    for error, words in (
        (torch.OutOfMemoryError(NO_MEMORY), NO_MEMORY.partition(" is free")[0] + " is free"),
        (torch.AcceleratorError(f"{short}\nSearch for `cudaErrorMemoryAllocation' in"), short),
    ):
        with pytest.raises(SystemExit) as ended:
            carry_out(script, partial(fail, error))
        assert ended.value.code == 5
        assert capsys.readouterr().err == f"{script}: {words}; free some, or give another --device\n"
    with pytest.raises(RuntimeError, match="something else"):
        carry_out(script, partial(fail, RuntimeError("something else")))


def test_a_signal_does_not_keep_a_finished_run_from_being_saved(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[bool] = []

    def save() -> None:
        signal.raise_signal(signal.SIGINT)
        saved.append(True)

    monkeypatch.setattr(running, "save", save)
    running.schedule.step = running.schedule.steps
    running.run(iter(()), None)
    assert saved == [True]


def test_a_run_that_was_killed_forgets_what_it_wrote_since_it_was_saved(running: Any, tmp_path: Path) -> None:
    lines = ['{"step": 3, "loss": 2.5}\n', '{"step": 5, "loss": 2.0}\n', '{"step": 6, "loss": 1.5}\n{"step"']
    (tmp_path / "log.jsonl").write_text("".join(lines))
    running.schedule.step = running.schedule.steps
    running.run(iter(()), None)
    assert (tmp_path / "log.jsonl").read_text() == "".join(lines[:2])


def test_what_is_no_checkpoint_of_a_run_is_said_in_one_line(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    import torch

    from stream_seg.errors import ModelError

    weights, saved, last = scripts["weights"], scripts["trainer"].SAVED, tmp_path / "last.pt"
    weights.write_checkpoint(last, dict.fromkeys(saved, 1))
    assert weights.read_checkpoint(last, saved).keys() == set(saved)
    whole = last.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"hello", pickle.dumps(tmp_path)):
        last.write_bytes(content)
        with pytest.raises(ModelError, match=r"last\.pt is damaged, or of another program; begin anew"):
            weights.read_checkpoint(last, saved)
    for other in ([1], {"model": 1}):
        torch.save(other, last)
        with pytest.raises(ModelError, match=r"last\.pt is of another program; begin anew"):
            weights.read_checkpoint(last, saved)


def test_a_checkpoint_of_another_network_is_refused(running: Any) -> None:
    from stream_seg.errors import ModelError

    state = running.net.state_dict()
    lacking = {key: value for key, value in state.items() if not key.startswith("dense.1")}
    with pytest.raises(ModelError, match=r"another network, and cannot be gone on with: dense\.1"):
        running.resume({"model": lacking, "average": state})


def test_what_is_interrupted_while_it_is_written_leaves_what_was_there(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_part: Path, _target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    (tmp_path / "last.pt").write_text("before")
    with pytest.raises(KeyboardInterrupt):
        scripts["weights"].write_checkpoint(tmp_path / "last.pt", {})
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("last.pt", "before")]


@pytest.mark.usefixtures("in_a_terminal")
def test_those_that_train_together_leave_signals_to_the_first_from_their_first_moment_on(
    scripts: dict[str, ModuleType],
) -> None:
    asks = "import signal; print([signal.getsignal(one) == signal.SIG_IGN for one in (1, 2, 15)])"
    command = [sys.executable, "-S", "-c", asks]
    before = [signal.getsignal(one) for one in (1, 2, 15)]
    with scripts["stopping"].ignored():
        assert subprocess.check_output(command, text=True) == "[True, True, True]\n"
    assert subprocess.check_output(command, text=True) == "[False, False, False]\n"
    assert [signal.getsignal(one) for one in (1, 2, 15)] == before


def test_one_that_ends_before_training_begins_is_not_waited_for(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    team = scripts["team"]
    with pytest.raises(team.TeamError, match="another of the 2 processes has ended before training began"):
        team.Together(0, 2, tmp_path / "meeting", [SimpleNamespace(is_alive=lambda: False)])
