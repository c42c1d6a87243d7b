"""The parts of training that are PyTorch: losses that do not punish what is not annotated, boxes, predictors."""

# ruff: noqa: ANN401  scripts are loaded by name, and so their types are not known here

from __future__ import annotations

import importlib
import math
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from stream_seg import load_segmenter
from stream_seg.graph import export_graph
from stream_seg.graph.config import COMPACT, RoiPooling
from stream_seg.graph.pixels import TAPS, PixelPooler
from stream_seg.graph.rpn import Rois
from tests.small_graphs import compute
from tests.training_scripts import file_limit, importable, settings_kept

if TYPE_CHECKING:
    from torch import Tensor

    from stream_seg.graph.emit import Value

PACKAGES = ("torch", "torchvision", "safetensors")
pytestmark = [
    pytest.mark.needs(missing=[package for package in PACKAGES if find_spec(package) is None]),
    pytest.mark.filterwarnings("ignore"),  # of other people's imports
    pytest.mark.timeout(120),
]

ROOT = Path(__file__).parents[1]
MODULES = (
    "vision_ops",
    "boxes",
    "batches",
    "model",
    "losses",
    "weights",
    "segmenter",
    "pooling",
    "train",
    "rank",
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


def random_boxes(count: int) -> Tensor:
    import torch

    corners = torch.rand(2, count, 4) * 100
    corners[..., 2:] = corners[..., :2] + 5 + corners[..., 2:] / 2
    return corners


def test_background_may_be_any_class_that_is_not_annotated(scripts: dict[str, ModuleType]) -> None:
    import torch

    def loss(logits: Tensor, labels: Tensor, known: Tensor, confidence: float = 1.0) -> Tensor:
        return scripts["losses"].marginal_cross_entropy(logits, labels, known, torch.full(labels.shape, confidence))

    logits = torch.tensor([[0.0, 8.0, 0.0]])
    background, cat = torch.tensor([0]), torch.tensor([2])
    known, cats_only = torch.tensor([[False, True, True]]), torch.tensor([[False, False, True]])
    assert loss(logits, background, known).item() > 7
    assert loss(logits, background, cats_only).item() < 0.01
    assert loss(logits, cat, cats_only).item() == pytest.approx(loss(logits, cat, known).item())
    expected = torch.nn.functional.cross_entropy(logits, background).item()
    assert loss(logits, background, known).item() == pytest.approx(expected)
    # An annotation that is right three times in four: the loss is least where the class is as likely.
    for known_here in (known, torch.tensor([[False, True, False]])):
        leaning = [torch.tensor([[0.0, -20, math.log(share / (1 - share))]]) for share in (0.7, 0.75, 0.8)]
        found = [loss(logits, cat, known_here, 0.75).item() for logits in leaning]
        assert found[1] < min(found[0], found[2])


def test_batched_suppression_is_torchvisions(scripts: dict[str, ModuleType]) -> None:
    import torch
    from torchvision.ops import nms

    torch.manual_seed(0)
    boxes = random_boxes(80)
    keep = scripts["boxes"].greedy_keep(boxes, 0.5)
    for image in range(2):
        expected = nms(boxes[image], torch.arange(80, 0, -1).float(), 0.5)
        assert torch.equal(keep[image].nonzero()[:, 0], expected.sort().values)


def test_deltas_lead_back_to_the_box(scripts: dict[str, ModuleType]) -> None:
    import torch

    target, reference = random_boxes(50)
    boxes = scripts["boxes"]
    assert torch.allclose(boxes.decode(boxes.encode(target, reference), reference), target, atol=1e-3)


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


def test_regions_are_pooled_as_torchvision_pools_them_and_so_are_gradients(scripts: dict[str, ModuleType]) -> None:
    import torch
    from torchvision.ops import MultiScaleRoIAlign

    maps, boxes, image = pyramid(channels=3)
    order = image.argsort(stable=True)
    theirs = MultiScaleRoIAlign(["0", "1", "2"], 7, 2, canonical_scale=160)
    named = {str(level): one for level, one in enumerate(maps)}
    wanted = theirs(named, [boxes[image == index] for index in (0, 1)], [(256, 320)] * 2)

    def pooled(*levels: Tensor) -> Tensor:
        found: Tensor = scripts["pooling"].RegionPooler(levels, (8, 16, 32)).aligned(boxes, image, 7, 2)
        return found

    assert torch.allclose(pooled(*maps)[order], wanted, atol=1e-4)
    # Pooling is linear, so that its derivative along any direction is what it makes of that direction.
    for one in maps:
        one.requires_grad_()
    directions = [torch.randn_like(one) for one in maps]
    weight = torch.randn(60, 3, 7, 7)
    gradients = torch.autograd.grad((pooled(*maps) * weight).sum(), maps)
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    assert torch.allclose(slope, (pooled(*directions) * weight).sum(), rtol=1e-3)


def test_whole_pixels_are_those_that_the_graph_takes(scripts: dict[str, ModuleType]) -> None:
    import numpy as np

    maps, boxes, image = pyramid(channels=2)
    pooled = scripts["pooling"].RegionPooler(maps, (8, 16, 32)).whole_pixels(boxes.clamp(min=0), image, 7)
    config = RoiPooling(canonical_side=160.0, canonical_level=4)

    def write(b: Value, i: Value, *levels: Value) -> Value:
        return PixelPooler(levels, (8, 16, 32), 2, config).pool_sums(Rois(b, i), 7)

    arrays = [one.numpy() for one in (boxes.clamp(min=0), image, *maps)]
    wanted = compute(write, *arrays, rank=2).reshape(-1, 7, 7, 2).transpose(0, 3, 1, 2) / TAPS
    np.testing.assert_allclose(pooled, wanted, atol=1e-5)


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
        ignore, nowhere = torch.zeros(1, 56, 80, dtype=torch.uint8), torch.zeros_like(known)
        targets = scripts["batches"].Targets(*blank, *crops, known, ignore, nowhere)
        torch.manual_seed(0)
        losses, _ = scripts["losses"].training_losses(net, x, targets, amp=False)
        assert all(value.isfinite() for value in losses.values())
        found[exhaustive] = {name: value.item() for name, value in losses.items()}
    assert found[False]["class"] < 1e-3 < 0.05 < found[True]["class"]
    assert found[False]["named"] < 1e-3 < 0.05 < found[True]["named"]
    assert found[False]["objectness"] < found[True]["objectness"]


@pytest.mark.parametrize("likely", [1.0, 0.75])
def test_an_image_shows_what_is_labelled_and_lacks_only_what_is_known_to_be_missing(
    likely: float, scripts: dict[str, ModuleType]
) -> None:
    import torch

    labels, confidence = torch.tensor([[2, 2], [0, 0]]), torch.tensor([[0.25, likely], [1, 1]])
    known = torch.tensor([[False, True, False, True, True], [False, True, False, False, True]])
    ignored = torch.tensor([[False, False, False, True, False], [False, True, False, False, False]])
    blank = torch.zeros(2, 2, 4), labels, confidence, torch.full((2, 2), -1)
    crops = torch.zeros(1, 64, 64), torch.zeros(1, 4)
    targets = scripts["batches"].Targets(*blank, *crops, known, torch.zeros(2, 8, 8), ignored)
    logits = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]], requires_grad=True)
    scripts["losses"]._presence_loss(logits, targets).backward()
    # Missing are classes 1 and 4 of the first image, and 4 of the second; 2 is there as far as the surer one is.
    probability = logits.detach().sigmoid()
    wanted = torch.zeros(2, 4)
    wanted[0, [0, 3]], wanted[1, 3] = probability[0, [0, 3]], probability[1, 3]
    wanted[0, 1] = probability[0, 1] - likely
    weight = importlib.import_module("architecture").PRESENCE_LOSS
    assert torch.allclose(logits.grad, weight * wanted / 4)


def test_what_an_image_shows_does_not_depend_on_its_canvas(scripts: dict[str, ModuleType]) -> None:
    import torch

    torch.manual_seed(0)
    presence = scripts["model"].Presence(3).eval()
    cells = torch.rand(2, 256, 4, 5)
    large = torch.rand(2, 256, 7, 8)  # and anything beside the image
    large[:, :, :4, :5] = cells
    alone = presence(cells, [(128, 160), (97, 160)])
    assert torch.allclose(presence(large, [(128, 160), (97, 160)]), alone, atol=1e-6)
    assert (presence(cells, [(96, 160)] * 2) - alone).abs().min() > 1e-5


def test_weights_without_what_an_image_shows_are_exported_and_not_trained(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    from stream_seg.errors import ModelError

    weights, file = scripts["weights"], tmp_path / "before.safetensors"
    state, classes = weights.read_weights(weights.BUILT_IN)
    assert sum(key.startswith("presence.") for key in state) == 4
    before = {key: value for key, value in state.items() if not key.startswith(("presence.", "roi_heads.mask_class."))}
    weights.write_weights(file, before, classes)
    for wanted in (classes, ("cat", "robot")):
        with pytest.raises(ModelError, match=r"before\.safetensors are not of .* presence\.classes\.bias differs"):
            weights.start_from(file, wanted, -1)
    config = export_graph(file, tmp_path / "m.onnx").config
    presence, masks = replace(COMPACT.presence, hidden=0), replace(COMPACT.mask_head, class_embedding=False)
    assert config == replace(COMPACT, presence=presence, mask_head=masks, licence="unknown")


def test_background_that_looks_like_an_object_is_looked_at_where_the_head_puts_it(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    losses, architecture = scripts["losses"], importlib.import_module("architecture")
    monkeypatch.setattr(architecture, "DOUBTFUL", 4)
    cat = [10.0, 10, 50, 50]
    #               an object, a cat?     a cat?       a person?    nothing       a cat, moved
    boxes = torch.tensor(
        [[cat, [60.0, 60, 90, 90], [0, 60, 30, 90], [60, 0, 90, 30], [70, 0, 90, 9], [34, 10, 74, 50]]]
    )
    labels, which = torch.tensor([[2, 0, 0, 0, 0, 0]]), torch.zeros(1, 6, dtype=torch.int64)
    rois = losses.Rois(boxes, labels, which, torch.ones(1, 6, dtype=torch.bool))
    logits = torch.tensor([[0.0, 0, 9], [0, 0, 3], [0, 0, 4], [0, 8, 0], [9, 0, 0], [0, 0, 2]])
    deltas = torch.zeros(6, 3, 4)
    deltas[5, 2, 0] = -6.0  # by 0.6 of its width to the left
    known, ignore = torch.tensor([[False, False, True]]), torch.zeros(1, 25, 25, dtype=torch.uint8)
    ignore[0, 15:, :8] = 1  # the third box
    targets = scripts["batches"].Targets(
        torch.tensor([[cat]]), torch.tensor([[2]]), torch.ones(1, 1), torch.full((1, 1), -1), torch.zeros(1, 64, 64),
        torch.zeros(1, 4), known, ignore, torch.zeros_like(known),
    )  # fmt: skip
    covers = scripts["boxes"].IgnoreMap(ignore)
    found = losses._doubtful(logits, deltas.view(6, 12), rois, targets, covers, (100, 100))
    where = [boxes[0, 2].tolist(), boxes[0, 1].tolist(), cat, boxes[0, 3].tolist()]
    assert torch.allclose(found.boxes[0], torch.tensor(where), atol=1e-4)
    assert found.labels.tolist() == [[0, 0, 2, 0]]  # persons are not annotated here, so that one may be none
    assert found.real.tolist() == [[False, True, True, True]]


def test_the_graph_outlines_objects_as_the_network_in_training_does(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    import cv2
    import numpy as np
    import torch

    weights = scripts["weights"]
    net = weights.start_from(weights.BUILT_IN, weights.read_weights(weights.BUILT_IN)[1], -1)
    photo = np.asarray(cv2.imread(str(ROOT / "samples" / "photo.jpg")), np.uint8)
    segmenter = scripts["segmenter"].NetSegmenter(net, 320, 0.3)
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
        with load_segmenter(tmp_path / "model.onnx", device="cpu", long_side=320, score_threshold=0.3) as segmenter:
            (found,) = segmenter([photo])
        assert found.names == wanted.names
        np.testing.assert_allclose(found.boxes, wanted.boxes, atol=0.05)
        np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-3)
        np.testing.assert_allclose(found.masks, wanted.masks, atol=2e-3)


def test_weights_from_before_masks_knew_classes_are_trained_further(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    weights, file, key = scripts["weights"], tmp_path / "before.safetensors", "roi_heads.mask_class.weight"
    state, classes = weights.read_weights(weights.BUILT_IN)
    state.pop(key, None)
    weights.write_weights(file, state, classes)
    for wanted in (classes, ("cat", "robot")):
        vectors = weights.start_from(file, wanted, -1).state_dict()[key]
        assert (tuple(vectors.shape), vectors.abs().max()) == ((len(wanted) + 1, 96), 0)
    assert not export_graph(file, tmp_path / "m.onnx").config.mask_head.class_embedding


def test_regions_for_masks_have_the_label_of_the_object_whose_outline_they_get(scripts: dict[str, ModuleType]) -> None:
    import torch

    torch.manual_seed(0)
    losses, objects = scripts["losses"], torch.tensor([[20.0, 30, 100, 140], [60, 20, 150, 150], [5, 5, 40, 60]])
    boxes, labels, rows = (
        objects.repeat(2, 1, 1),
        torch.tensor([[3, 7, 9], [4, 0, 1]]),
        torch.tensor([[1, -1, 2], [3, -1, 4]]),
    )
    label_of_crop = torch.tensor([0, 3, 9, 4, 1])
    known, ignore = torch.ones(2, 21, dtype=torch.bool), torch.zeros(2, 40, 40, dtype=torch.uint8)
    crops, nowhere = torch.zeros(5, 64, 64, dtype=torch.uint8), torch.zeros(2, 21, dtype=torch.bool)
    targets = scripts["batches"].Targets(
        boxes, labels, torch.ones(2, 3), rows, crops, torch.zeros(5, 4), known, ignore, nowhere
    )
    which = torch.tensor([[0, 2, 1, 0, 2], [2, 0, 0, 2, 1]])
    own = labels.gather(1, which)
    positives = losses.Rois(torch.rand(2, 5, 4), own, which, own > 0)
    for chosen in (losses._choose_mask_rois(positives, positives, targets), losses._imagine_detections(targets)):
        assert chosen.real.sum() >= 4
        assert torch.equal(chosen.labels[chosen.real], label_of_crop[chosen.crop[chosen.real]])
        assert set(chosen.labels[chosen.real].tolist()) == {3, 9, 4, 1}


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
    objects, nowhere = (boxes, labels, torch.ones(2, 8), rows), torch.zeros_like(known)
    targets = batches.Targets(*objects, crops, crop_boxes, known, ignore, nowhere)
    losses, counters = scripts["losses"].mask_losses(net, torch.rand(2, 3, 160, 160), targets, amp=False)
    assert 0 < counters["positives"] <= 3  # one object, in three variants, of which some may be too far off
    sum(losses.values()).backward()
    moved = {name for name, one in net.named_parameters() if one.grad is not None and one.grad.abs().sum() > 0}
    assert moved == {name for name, _ in net.named_parameters() if name.startswith("roi_heads.mask_")}


def test_classes_of_the_same_name_keep_their_predictor(scripts: dict[str, ModuleType]) -> None:
    import torch

    weights = scripts["weights"]
    old, _ = weights.read_weights(weights.BUILT_IN)
    net = weights.start_from(weights.BUILT_IN, ("robot", "cat", "person"), -1)
    new = net.state_dict()
    cat, score, box = 10, "roi_heads.box_predictor.cls_score.weight", "roi_heads.box_predictor.bbox_pred.weight"
    assert torch.equal(new[score][[0, 2, 3]], old[score][[0, cat, 1]])
    assert torch.equal(new[box][8:12], old[box][4 * cat : 4 * cat + 4])
    assert torch.allclose(new[box][4:8], old[box].view(21, 4, -1)[1:].mean(0), atol=1e-6)
    assert new[score][1].abs().max() < 0.1
    for shown in ("presence.classes.weight", "presence.classes.bias"):
        assert torch.equal(new[shown][[1, 2]], old[shown][[cat - 1, 0]])
        assert new[shown][0].abs().max() < 0.1


def test_of_classes_of_other_names_masks_are_as_of_the_mean_of_all(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    import torch

    weights, key = scripts["weights"], "roi_heads.mask_class.weight"
    net = scripts["model"].Net(("dog", "cat"))
    torch.nn.init.normal_(net.roi_heads.mask_class.weight)
    old = net.state_dict()[key]
    weights.write_weights(tmp_path / "w.safetensors", net.state_dict(), net.classes)
    new = weights.start_from(tmp_path / "w.safetensors", ("robot", "cat"), -1).state_dict()[key]
    assert torch.allclose(new, torch.stack([old[0], (old[1] + old[2]) / 2, old[2]]))


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


def test_bfloat16_leaves_out_what_it_slows_down_and_cpus_without_it(
    scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    net, seen = scripts["model"].Net(("a",)), {}
    for name, layer in net.backbone.body.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda layer, _, y, name=name: seen.update({name: (layer, y.dtype)}))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        net.backbone.body(torch.rand(1, 3, 64, 64))
    exact = [name for name, (_, kind) in seen.items() if kind == torch.float32]
    assert exact == [name for name, (layer, _) in seen.items() if layer.groups > 1 and layer.stride == (2, 2)]
    assert exact == [f"{block}.conv.1.0" for block in (2, 4, 7, 14)]
    fast = scripts["train"]._computes_in_bfloat16
    for known, is_fast in (({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_f": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", known.copy, raising=False)
        assert fast(torch.device("cpu")) is is_fast
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert [fast(torch.device(kind)) for kind in ("cpu", "cuda")] == [False, True]


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
    scores = net.roi_heads.box_predictor.cls_score.weight
    assert scores[4].abs().max() < 0.1 < scores[0].abs().max()  # a new class, and not the background
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


def test_a_layer_is_held_at_its_rank_and_keeps_the_mean_of_what_it_says(scripts: dict[str, ModuleType]) -> None:
    import torch

    weights = scripts["weights"]
    net = weights.start_from(weights.BUILT_IN, weights.read_weights(weights.BUILT_IN)[1], -1)
    layer = net.roi_heads.box_head.fc6
    torch.manual_seed(0)
    torch.nn.init.normal_(layer.weight, std=0.01)
    x = torch.rand(200, 40) @ torch.rand(40, layer.in_features)
    limit = scripts["rank"].RankLimit(net, 8, scripts["team"].Alone())
    before = layer(x)
    limit.apply(scripts["rank"].EVERY + 1)
    assert torch.linalg.matrix_rank(layer.weight) > 8
    layer(x)
    layer(torch.rand(5, layer.in_features))  # some of the regions again: not what the projection is about
    limit.apply(scripts["rank"].EVERY)
    after = layer(x)
    assert torch.linalg.matrix_rank(layer.weight) == 8
    assert torch.allclose(after.mean(0), before.mean(0), atol=1e-3)
    # The best approximation of that rank: what the singular values beyond it leave.
    lost = torch.linalg.svdvals((before - before.mean(0)).double())[8:].square().sum()
    assert (after - before).double().square().sum().item() == pytest.approx(lost.item(), rel=1e-2)
    limit.apply(2 * scripts["rank"].EVERY)  # it is at that rank already
    assert torch.allclose(layer(x), after, atol=1e-3)
    limit.apply(2 * scripts["rank"].EVERY + 1)  # the next step
    kept = layer.weight.clone()
    layer(torch.full_like(x, float("nan")))
    limit.apply(3 * scripts["rank"].EVERY)
    assert torch.equal(layer.weight, kept)


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
        ([str(tmp_path / "new"), "--rank", "512"], "--rank 512: it must be from 1 to 511, or 0 for any"),
        ([str(tmp_path / "new"), "--freeze", "19"], "--freeze 19: the body has the blocks 0 to 18; -1 trains all"),
        ([str(tmp_path / "new"), "--rank", "-1"], "--rank -1: it must be from 1 to 511, or 0 for any"),
    ):
        monkeypatch.setattr(sys, "argv", [*asked, *more])
        with pytest.raises(SystemExit) as ended:
            scripts["train"].main()
        assert ended.value.code == 2
        assert capsys.readouterr().err == f"train: {words}\n"


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
        ("nanodet", ["--device", "cuda"], "argument --device: this PyTorch sees no device cuda: give cpu"),
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
    tuning = trainer.Tuning(
        rate=1e-4, body=1, average=0.9, mask_weight=1, rank=0, amp=False, log_every=1, save_minutes=9
    )
    schedule = scripts["schedule"].Schedule(steps=5, minutes=0, warmup=1)
    losses, team = scripts["losses"].training_losses, scripts["team"].Alone()
    return trainer.Trainer(net, tmp_path, schedule, tuning, None, losses, team)


@pytest.mark.usefixtures("in_a_terminal")
@pytest.mark.parametrize("error", [RuntimeError, ConnectionResetError, EOFError])
def test_a_signal_that_ends_the_makers_of_batches_first_ends_training_in_order(
    error: type[Exception], running: Any, tmp_path: Path
) -> None:
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
    lacking = {key: value for key, value in state.items() if not key.startswith("presence")}
    with pytest.raises(ModelError, match="another network, and cannot be gone on with: presence"):
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
