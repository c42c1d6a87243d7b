"""What the dense head learns: which places learn which object, what they are told of it, and what is left alone."""

# ruff: noqa: ANN401  scripts are loaded by name, and so their types are not known here

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from tests.training_scripts import importable, needing, settings_kept

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = needing("torch", "safetensors")

MODULES = ("architecture", "boxes", "batches", "model", "assignment", "losses")
CANVAS, PLACES = (256, 288), 1512
"""Height and width, and how many places there are: 32x36 of stride 8, 16x18 of 16 and 8x9 of 32."""


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    with importable():
        loaded = {name: importlib.import_module(name) for name in MODULES}
        with settings_kept():
            yield loaded


@pytest.fixture
def places(scripts: dict[str, ModuleType]) -> Any:
    import torch

    levels = [torch.zeros(1, 1, CANVAS[0] // stride, CANVAS[1] // stride) for stride in (8, 16, 32)]
    return scripts["model"].Places.of(levels)


def targets_of(
    scripts: dict[str, ModuleType],
    objects: list[list[tuple[int, list[float]]]],
    exhaustive: list[bool] | None = None,
    confidence: float = 1.0,
) -> Any:
    """Of pictures whose objects are a label, from 1 to 3, and a box; without outlines, and with nothing to ignore."""
    import torch

    most = 1 + max(map(len, objects))  # so that there is some padding
    boxes, labels = torch.zeros(len(objects), most, 4), torch.zeros(len(objects), most, dtype=torch.int64)
    for n, row in enumerate(objects):
        for m, (label, box) in enumerate(row):
            boxes[n, m], labels[n, m] = torch.tensor(box), label
    known = torch.tensor([False, *(exhaustive or [True] * 3)]).expand(len(objects), -1)
    crops = torch.full(labels.shape, -1), torch.zeros(1, 64, 64, dtype=torch.uint8), torch.zeros(1, 4)
    ignore = torch.zeros(len(objects), CANVAS[0] // 4, CANVAS[1] // 4, dtype=torch.uint8)
    certain = torch.full(labels.shape, confidence)
    return scripts["batches"].Targets(boxes, labels, certain, *crops, known, ignore)


def predicted(
    scripts: dict[str, ModuleType], places: Any, logits: Tensor, sides: tuple[float, ...] = (2, 2, 2, 2)
) -> Any:
    """The same box at all places, whose sides are so many strides away, with these logits (B, P, classes)."""
    import torch

    distances = torch.full((*logits.shape[:2], 4, 11), -50.0)
    for side, strides in enumerate(sides):
        distances[:, :, side, math.floor(strides)] = distances[:, :, side, math.ceil(strides)] = 0.0
    return scripts["losses"].Predicted(logits, distances, places.boxes(distances))


def test_places_are_counted_row_by_row_and_level_by_level(places: Any) -> None:
    assert places.counts == [1152, 288, 72]
    assert places.middle[[0, 1, 36, 1151, 1152, 1170, 1440, PLACES - 1]].tolist() == [
        [4, 4], [12, 4], [4, 12], [284, 252], [8, 8], [8, 24], [16, 16], [272, 240],
    ]  # fmt: skip
    assert places.stride[[0, 1151, 1152, 1439, 1440], 0].tolist() == [8, 8, 16, 16, 32]


def test_generalised_overlap_is_less_the_further_boxes_are_apart(scripts: dict[str, ModuleType]) -> None:
    import torch

    one = torch.tensor([0.0, 0, 10, 10])
    others = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 10, 20, 20], [20, 0, 30, 10], [0, 0, 0, 0]])
    iou, generalised = scripts["boxes"].overlap(one, others)
    assert iou.tolist() == pytest.approx([1, 1 / 3, 0, 0, 0])
    assert generalised.tolist() == pytest.approx([1, 1 / 3, -0.5, -1 / 3, 0])


def naive(places: Any, boxes: list[list[float]], overlap: Any) -> list[int]:
    """ATSS of one picture, in words: the object of each place, or -1."""
    import torch

    squares = torch.cat([places.middle - 4 * places.stride, places.middle + 4 * places.stride], 1)
    owner, best = [-1] * len(squares), [-1.0] * len(squares)
    for number, box in enumerate(torch.tensor(boxes)):
        middle, near, start = (box[:2] + box[2:]) / 2, [], 0
        for count in places.counts:
            away = (places.middle[start : start + count] - middle).norm(dim=1)
            near += [start + int(place) for place in away.argsort(stable=True)[:9]]
            start += count
        iou = overlap(box, squares)[0]
        least = iou[near].mean() + iou[near].std()
        for place in near:
            x, y = places.middle[place].tolist()
            inside = box[0] < x < box[2] and box[1] < y < box[3]
            if inside and iou[place] >= least and iou[place] > best[place]:
                owner[place], best[place] = number, iou[place].item()
    return owner


def test_places_learn_the_objects_that_their_surroundings_show(scripts: dict[str, ModuleType], places: Any) -> None:
    import torch

    rng = torch.Generator().manual_seed(3)
    rows = []
    for _ in range(6):
        middle = torch.rand(5, 2, generator=rng) * torch.tensor([288.0, 256.0])
        half = torch.exp(1.5 + 3.4 * torch.rand(5, 2, generator=rng)) / 2 + 2
        low, high = (middle - half).clamp(min=0), (middle + half).minimum(torch.tensor([288.0, 256.0]))
        rows.append([(1, box) for box in [[1.0, 2, 280, 250], *torch.cat([low, high], 1).tolist()]])
    found = scripts["assignment"].assign(places, targets_of(scripts, rows))
    owners = found.which.masked_fill(~found.real, -1).tolist()
    assert owners == [naive(places, [box for _, box in row], scripts["boxes"].overlap) for row in rows]
    assert sum(owner >= 0 for row in owners for owner in row) > 60
    levels = torch.tensor([0, 1, 2]).repeat_interleave(torch.tensor(places.counts))
    assert set(levels.expand(6, -1)[found.real].tolist()) == {0, 1, 2}


def test_padding_is_nobodys_and_of_two_objects_a_place_learns_what_fills_it(
    scripts: dict[str, ModuleType], places: Any
) -> None:
    small, large = [80.0, 60, 110, 90], [10.0, 6, 280, 250]
    found = scripts["assignment"].assign(places, targets_of(scripts, [[], [(1, large), (2, small)]]))
    assert not found.real[0].any()
    fine, coarse = (found.real[1] & (places.stride[:, 0] == stride) for stride in (8, 32))
    assert set(found.which[1][fine].tolist()) == {1}
    assert set(found.which[1][coarse].tolist()) == {0}


def test_probabilities_that_are_right_cost_nothing_and_others_by_how_far_off_they_are(
    scripts: dict[str, ModuleType],
) -> None:
    import torch

    focal = scripts["losses"].quality_focal
    logits, wanted = torch.tensor([0.0, 0, math.log(3), -30]), torch.tensor([0.5, 1, 0, 0])
    expected = [0, 0.25 * math.log(2), 0.75**2 * math.log(4), 0]
    assert focal(logits, wanted).tolist() == pytest.approx(expected, abs=1e-6)


def test_a_distance_is_told_by_the_two_next_to_it(scripts: dict[str, ModuleType]) -> None:
    import torch

    focal = scripts["losses"].distribution_focal
    even = torch.zeros(1, 4, 11)
    assert focal(even, torch.tensor([[0.0, 2.25, 10, 7]])).item() == pytest.approx(math.log(11))
    sure = torch.full((3, 4, 11), -50.0)
    sure[0, :, 3] = sure[1, :, 10] = 0.0
    sure[2, :, 2], sure[2, :, 3] = math.log(0.75), math.log(0.25)
    found = focal(sure, torch.tensor([[3.0] * 4, [12.0] * 4, [2.25] * 4]))  # 10 is as far as can be told
    assert found.tolist() == pytest.approx([0, 0, -0.75 * math.log(0.75) - 0.25 * math.log(0.25)], abs=1e-6)


def test_what_is_right_costs_nearly_nothing_and_what_is_wrong_does(scripts: dict[str, ModuleType], places: Any) -> None:
    import torch

    box = [60.0, 44, 100, 84]  # five strides wide, and its sides are whole strides from the places in it
    targets = targets_of(scripts, [[(2, box)]])
    assigned = scripts["assignment"].assign(places, targets)
    ours = assigned.real[0].nonzero()[:, 0]
    assert len(ours) > 3
    assert (places.stride[ours] == 8).all()
    logits, distances = torch.full((1, PLACES, 3), -20.0), torch.full((1, PLACES, 4, 11), -50.0)
    logits[0, ours, 1] = 20
    for place in ours.tolist():
        (x, y), (x1, y1, x2, y2) = places.middle[place].tolist(), box
        for side, away in enumerate((x - x1, y - y1, x2 - x, y2 - y)):
            distances[0, place, side, round(away / 8)] = 0
    losses, dense = scripts["losses"], scripts["losses"].dense_losses
    right, counters = dense(losses.Predicted(logits, distances, places.boxes(distances)), places, assigned, targets)
    assert all(0 <= value.item() < 1e-4 for value in right.values())
    assert (counters["right"].item(), counters["positives"].item()) == (1, len(ours))
    wrong, counters = dense(predicted(scripts, places, logits.roll(1, 2), (9, 9, 9, 9)), places, assigned, targets)
    assert wrong["class"] > 10
    assert wrong["box"] > 0.5
    assert wrong["distance"] > 1
    assert counters["right"] == 0


def test_only_what_is_known_not_to_be_there_is_background(scripts: dict[str, ModuleType], places: Any) -> None:
    """Class 1 is annotated wherever it is, 2 and 3 are not; there is an object of class 2, and a region to ignore."""
    import torch

    targets = targets_of(scripts, [[(2, [40.0, 40, 80, 80])]], exhaustive=[True, False, False])
    targets.ignore[0, :, 36:] = 1  # from x = 144 on
    assigned = scripts["assignment"].assign(places, targets)
    logits = torch.zeros(1, PLACES, 3, requires_grad=True)
    found = predicted(scripts, places, logits, (1, 1, 1, 1))
    losses, _ = scripts["losses"].dense_losses(found, places, assigned, targets)
    losses["class"].backward()
    taught, real = logits.grad[0] != 0, assigned.real[0]
    assert not taught[:, 2].any()
    assert torch.equal(taught[:, 1], real)
    ignored = places.middle[:, 0] > 144
    assert torch.equal(taught[:, 0], ~ignored | real)
    assert ignored.any()
    assert real.any()


def test_a_place_beside_an_ignored_region_that_sees_what_is_there_is_no_background(
    scripts: dict[str, ModuleType], places: Any
) -> None:
    import torch

    targets = targets_of(scripts, [[]])
    targets.ignore[0, :, 36:] = 1  # from x = 144 on
    assigned = scripts["assignment"].assign(places, targets)
    logits = torch.zeros(1, PLACES, 3, requires_grad=True)
    found = predicted(scripts, places, logits, (0, 1, 5, 1))  # boxes reach to the right
    scripts["losses"].dense_losses(found, places, assigned, targets)[0]["class"].backward()
    fine = places.stride[:, 0] == 8
    taught = (logits.grad[0] != 0).all(1)[fine]
    assert torch.equal(taught, places.middle[fine, 0] + 5 * 8 / 2 <= 144)  # no more than half


@pytest.mark.parametrize("likely", [1.0, 0.6])
def test_a_place_is_to_say_how_well_its_box_fits_and_how_certain_its_object_is(
    likely: float, scripts: dict[str, ModuleType], places: Any
) -> None:
    import torch

    targets = targets_of(scripts, [[(2, [60.0, 44, 100, 84])]], confidence=likely)
    assigned = scripts["assignment"].assign(places, targets)
    blank = torch.full((1, PLACES, 3), -20.0)
    boxes = predicted(scripts, places, blank, (2, 2, 2, 2)).boxes
    iou, _ = scripts["boxes"].overlap(boxes, targets.boxes[:, :1])
    wanted = blank.clone()
    wanted[0, :, 1] = torch.where(assigned.real[0], torch.logit(iou[0] * likely, 1e-6), -20.0)
    found = scripts["losses"].dense_losses(predicted(scripts, places, wanted), places, assigned, targets)[0]
    assert found["class"].item() < 1e-6
    for other in (wanted - 0.5, wanted + 0.5):
        worse = scripts["losses"].dense_losses(predicted(scripts, places, other), places, assigned, targets)[0]
        assert worse["class"].item() > 1e-3


def test_objects_that_are_less_certain_teach_less_of_boxes(scripts: dict[str, ModuleType], places: Any) -> None:
    import torch

    targets = targets_of(scripts, [[(2, [60.0, 44, 100, 90])]] * 2)
    targets.confidence[1] = 0.25
    assigned = scripts["assignment"].assign(places, targets)
    distances = (
        torch.randn(PLACES, 4, 11, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1, 1).requires_grad_()
    )
    found = scripts["losses"].Predicted(torch.zeros(2, PLACES, 3), distances, places.boxes(distances))
    losses, _ = scripts["losses"].dense_losses(found, places, assigned, targets)
    for name in ("box", "distance"):
        (taught,) = torch.autograd.grad(losses[name], distances, retain_graph=True)
        assert torch.allclose(taught[1], 0.25 * taught[0])
        assert torch.equal((taught != 0).any(-1).any(-1), assigned.real)


def test_masks_are_learned_in_boxes_at_the_surest_place_of_each_object(
    scripts: dict[str, ModuleType], places: Any
) -> None:
    import torch

    targets = targets_of(scripts, [[(2, [20.0, 20, 60, 60]), (3, [90.0, 60, 150, 130])]])
    assigned = scripts["assignment"].assign(places, targets)
    torch.manual_seed(0)
    logits, boxes = torch.randn(1, PLACES, 3), torch.rand(1, PLACES, 4)
    found = scripts["losses"].Predicted(logits, torch.zeros(1, PLACES, 4, 11), boxes)
    chosen = scripts["losses"]._of_objects(found, assigned, targets)
    for row, label in ((0, 2), (1, 3)):
        own = [p for p in range(PLACES) if assigned.real[0, p] and assigned.which[0, p] == row]
        best = max(own, key=lambda place: logits[0, place, label - 1].item())
        assert torch.equal(chosen[0, row], boxes[0, best])


def of_all_sizes(scripts: dict[str, ModuleType]) -> Any:
    """Two pictures with small and large objects, with outlines that fill their boxes."""
    import torch

    rows = [
        [(1, [20.0, 20, 44, 44]), (2, [60.0, 50, 124, 120])],
        [(3, [2.0, 2, 286, 254]), (1, [100.0, 20, 130, 60])],
    ]
    targets = targets_of(scripts, rows)
    crop_row = torch.where(targets.labels > 0, torch.arange(6).view(2, 3), -1)
    crops = torch.full((6, 64, 64), 255, dtype=torch.uint8)
    return targets._replace(crop_row=crop_row, crops=crops, crop_boxes=targets.boxes.flatten(0, 1))


def test_every_parameter_that_is_trained_gets_a_gradient(scripts: dict[str, ModuleType]) -> None:
    import torch

    torch.manual_seed(0)
    net = scripts["model"].Net(("a", "b", "c"), frozen=2)
    small = of_all_sizes(scripts)
    larger = {"boxes": 2 * small.boxes, "crop_boxes": 2 * small.crop_boxes}  # masks have levels for larger ones
    targets = small._replace(**larger, ignore=small.ignore.repeat(1, 2, 2))
    x = torch.rand(2, 3, 2 * CANVAS[0], 2 * CANVAS[1]) * 2 - 1
    losses, counters = scripts["losses"].training_losses(net, x, targets, amp=False)
    assert losses.keys() == {"class", "box", "distance", "mask", "dice"}
    assert counters["positives"] > 10
    sum(losses.values()).backward()
    moved = {name for name, one in net.named_parameters() if one.grad is not None and one.grad.abs().sum() > 0}
    frozen = ("backbone.body.stem.", "backbone.body.stages.0.", "backbone.body.stages.1.")
    assert moved == {name for name, _ in net.named_parameters() if not name.startswith(frozen)}
    assert (net.roi_heads.mask_class.weight.grad[1:].abs().sum(1) > 0).all()


@pytest.mark.parametrize("amp", [False, True])
def test_losses_are_computed_without_a_look_at_any_value(amp: bool, scripts: dict[str, ModuleType]) -> None:
    """A GPU would have to be waited for; nor are there loops, whose number of steps depends on what is in pictures."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    used: list[str] = []

    class Noting(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            used.append(function.overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    torch.manual_seed(0)
    net, many, counts = scripts["model"].Net(("a", "b", "c")), of_all_sizes(scripts), []
    few = many._replace(labels=many.labels * torch.tensor([1, 0, 0]), crop_row=many.crop_row.clamp(max=1))
    for targets in (many, few):
        used.clear()
        net.zero_grad()
        with Noting():
            losses, _ = scripts["losses"].training_losses(net, torch.rand(2, 3, *CANVAS), targets, amp=amp)
            sum(losses.values()).backward()
        assert all(loss.isfinite() for loss in losses.values())
        assert not {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique"} & set(used)
        counts.append(len(used))
    assert counts[0] == counts[1] > 500


def test_pictures_without_objects_teach_what_is_not_there(scripts: dict[str, ModuleType]) -> None:
    import torch

    torch.manual_seed(0)
    net = scripts["model"].Net(("a", "b", "c"))
    for known in (True, False):
        targets = targets_of(scripts, [[]], exhaustive=[known] * 3)
        losses, _ = scripts["losses"].training_losses(net, torch.rand(1, 3, *CANVAS), targets, amp=False)
        assert all(loss.isfinite() for loss in losses.values())
        assert (losses["class"] > 0) == known
        assert sum(loss.item() for name, loss in losses.items() if name != "class") == 0


def test_objects_without_an_outline_teach_boxes_and_no_masks(scripts: dict[str, ModuleType]) -> None:
    import torch

    torch.manual_seed(0)
    net = scripts["model"].Net(("a", "b", "c"))
    targets = of_all_sizes(scripts)._replace(crop_row=torch.full((2, 3), -1))
    losses, _ = scripts["losses"].training_losses(net, torch.rand(2, 3, *CANVAS), targets, amp=False)
    assert losses["box"] > 0
    assert losses["mask"] == losses["dice"] == 0


def test_a_step_lowers_the_losses(scripts: dict[str, ModuleType]) -> None:
    import torch

    torch.manual_seed(0)
    net, targets = scripts["model"].Net(("a", "b", "c")), of_all_sizes(scripts)
    x, optimizer, totals = torch.rand(2, 3, *CANVAS) * 2 - 1, torch.optim.SGD(net.parameters(), 1e-2), []
    for _ in range(3):
        torch.manual_seed(1)  # the same regions are drawn
        losses, _ = scripts["losses"].training_losses(net, x, targets, amp=False)
        totals.append({name: loss.item() for name, loss in losses.items()})
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert sum(totals[2].values()) < sum(totals[1].values()) < sum(totals[0].values())


def test_the_stem_and_the_first_stages_stay_as_they_are_where_that_is_asked(scripts: dict[str, ModuleType]) -> None:
    parts = ["stem", "stages.0", "stages.1", "stages.2", "stages.3"]
    for frozen in range(-1, 5):
        body = scripts["model"].Net(("a",), frozen).backbone.body
        kept = [part for part in parts if not any(p.requires_grad for p in body.get_submodule(part).parameters())]
        assert kept == parts[: frozen + 1]
