"""The parts of the graph, each against the formula it implements, computed in numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_seg.graph import roi
from stream_seg.graph.anchors import anchor_shapes, anchors
from stream_seg.graph.boxes import clip, decode, shorter_side
from stream_seg.graph.config import COMPACT, Device, Presence, RoiPooling
from stream_seg.graph.emit import Graph, Value
from stream_seg.graph.layers import Layers
from stream_seg.graph.nms import decayed, suppress_flat, suppress_per_level
from stream_seg.graph.parameters import modern_names
from stream_seg.graph.pixels import TAPS, PixelPooler
from stream_seg.graph.presence import prior
from stream_seg.graph.roi import make_pooler
from stream_seg.graph.rpn import Canvas, Rois
from tests.small_graphs import compute

Floats = NDArray[np.float32]


def random_boxes(random: np.random.Generator, shape: tuple[int, ...], side: float = 100) -> Floats:
    corners = random.uniform(0, side * 0.8, (*shape, 2))
    return np.concatenate([corners, corners + random.uniform(2, side * 0.5, (*shape, 2))], -1).astype(np.float32)


def test_anchors_lie_on_the_grid_and_have_the_area_and_shape_asked_for() -> None:
    shapes = anchor_shapes(32, (0.5, 1.0, 2.0))
    np.testing.assert_array_equal(shapes, [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]])
    level = np.zeros((1, 1, 13, 21), np.float32)
    height, width = np.array(800, np.int64), np.array(1344, np.int64)
    got = compute(lambda level, h, w: anchors(level, shapes, h, w), level, height, width, rank=2)
    y, x = np.mgrid[0:13, 0:21].reshape(2, -1, 1) * np.array([61, 64])[:, None, None]
    expected = np.stack([x, y, x, y], -1).reshape(-1, 1, 4) + shapes
    np.testing.assert_array_equal(got, expected.reshape(-1, 4))


def test_decoding_is_the_inverse_of_encoding() -> None:
    random = np.random.default_rng(0)
    reference, target = random_boxes(random, (40,)), random_boxes(random, (40,))
    coder = np.array([10, 10, 5, 5], np.float32)

    def centre_and_size(boxes: Floats) -> tuple[Floats, Floats]:
        return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]

    (rc, rs), (tc, ts) = centre_and_size(reference), centre_and_size(target)
    deltas = (np.concatenate([(tc - rc) / rs, np.log(ts / rs)], 1) * coder).astype(np.float32)
    got = compute(lambda d, r: decode(d, r, (10, 10, 5, 5)), deltas, reference, rank=2)
    np.testing.assert_allclose(got, target, atol=1e-3)


def test_no_delta_can_make_a_box_infinite() -> None:
    reference = np.array([[10, 10, 20, 30]], np.float32)
    got = compute(decode, np.array([[0, 0, 1e9, 80]], np.float32), reference, rank=2)
    np.testing.assert_allclose(got, [[15 - 312.5, 20 - 625, 15 + 312.5, 20 + 625]], rtol=1e-5)


def test_boxes_are_cut_at_the_image_and_measured() -> None:
    boxes = np.array([[[-5, 3, 50, 90], [10, 10, 12, 40]]], np.float32)
    limits = np.array([[[40, 60, 40, 60]]], np.float32)
    cut = compute(clip, boxes, limits, rank=3)
    np.testing.assert_array_equal(cut, [[[0, 3, 40, 60], [10, 10, 12, 40]]])
    np.testing.assert_array_equal(compute(shorter_side, cut, rank=2), [[40, 2]])


def overlap(a: Floats, b: Floats) -> float:
    common = float(np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)))
    return common / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common)


def greedy(boxes: Floats, scores: Floats, iou: float) -> list[int]:
    """Non-maximum suppression as it is defined."""
    kept: list[int] = []
    for index in np.argsort(-scores):
        if all(overlap(boxes[index], boxes[other]) <= iou for other in kept):
            kept.append(int(index))
    return kept


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_suppression_stays_within_image_and_level(device: Device) -> None:
    random = np.random.default_rng(4)
    boxes, scores = random_boxes(random, (3, 60)), random.uniform(0.1, 1, (3, 60)).astype(np.float32)
    scores[:, ::7] = -1
    levels = np.repeat(np.arange(3), 20)
    limits = np.full((3, 1, 4), 140, np.float32)
    got = compute(
        lambda b, s, lv, lim: suppress_per_level(b, s, lv, 3, lim, 0.3, device), boxes, scores, levels, limits, rank=2
    )
    for image in range(3):
        left: set[int] = set()
        for level in range(3):
            members = np.flatnonzero((levels == level) & (scores[image] > 0))
            left |= {int(members[k]) for k in greedy(boxes[image][members], scores[image][members], 0.3)}
        assert set(np.flatnonzero(got[image] > 0)) == left
        assert 9 < len(left) < 50
        np.testing.assert_array_equal(got[image][sorted(left)], scores[image][sorted(left)])


def test_flat_suppression_keeps_cells_apart_and_orders_by_score() -> None:
    random = np.random.default_rng(8)
    boxes, scores = random_boxes(random, (80,)), random.permutation(80).astype(np.float32) / 80
    columns, rows = random.integers(0, 2, (2, 80))
    limits = np.full((2, 1, 4), 140, np.float32)
    got = compute(
        lambda b, s, c, r, lim: suppress_flat(b, s, c, r, lim, 0.3),
        *(boxes, scores, columns, rows, limits),
        rank=1,
        dtype=np.int64,
    )
    left: list[int] = []
    for cell in range(4):
        members = np.flatnonzero((columns * 2 + rows == cell) & (scores > 0))
        left += [int(members[k]) for k in greedy(boxes[members], scores[members], 0.3)]
    assert got.tolist() == sorted(left, key=lambda k: -scores[k])


def test_scores_fall_where_a_better_box_of_the_cell_overlaps() -> None:
    random = np.random.default_rng(11)
    boxes, scores = random_boxes(random, (40,)), np.sort(random.uniform(0.1, 1, 40))[::-1].astype(np.float32)
    cells = random.integers(0, 3, 40)
    got = compute(lambda b, s, c: decayed(b, s, c, 0.5), boxes, scores, cells, rank=1)
    covered: list[float] = []
    expected = []
    for n in range(40):
        overlaps = {k: overlap(boxes[k], boxes[n]) for k in range(n) if cells[k] == cells[n]}
        factors = [np.exp((covered[k] ** 2 - own**2) / 0.5) for k, own in overlaps.items()]
        covered.append(max(overlaps.values(), default=0.0))
        expected.append(scores[n] * min([1.0, *factors]))
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    assert 10 < (got < 0.99 * scores).sum() < 35


def test_scores_of_no_boxes_and_of_boxes_without_area_stay_finite() -> None:
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    assert compute(lambda b, s, c: decayed(b, s, c, 0.5), *nothing, rank=1).shape == (0,)
    points = np.zeros((3, 4), np.float32), np.array([0.9, 0.8, 0.7], np.float32), np.zeros(3, np.int64)
    np.testing.assert_array_equal(compute(lambda b, s, c: decayed(b, s, c, 0.5), *points, rank=1), points[1])


def roi_align(level: Floats, box: Floats, stride: int, size: int, samples: int) -> Floats:
    """RoIAlign of one box on one map (C, H, W), point by point, as the paper and torchvision define it."""
    _, height, width = level.shape
    x1, y1, x2, y2 = box / stride
    step_x, step_y = max(x2 - x1, 1) / size / samples, max(y2 - y1, 1) / size / samples
    points = np.zeros((level.shape[0], size * samples, size * samples), np.float64)
    for i in range(size * samples):
        for j in range(size * samples):
            y, x = y1 + (i + 0.5) * step_y, x1 + (j + 0.5) * step_x
            if y > height or x > width:
                continue
            y, x = min(y, height - 1), min(x, width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            v, u = y - top, x - left
            upper = level[:, top, left] * (1 - u) + level[:, top, right] * u
            lower = level[:, bottom, left] * (1 - u) + level[:, bottom, right] * u
            points[:, i, j] = upper * (1 - v) + lower * v
    return points.reshape(len(level), size, samples, size, samples).mean((2, 4)).astype(np.float32)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_regions_are_pooled_from_the_level_of_their_size(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roi, "_GATHERED_BYTES", 4000)
    random = np.random.default_rng(2)
    maps = [random.normal(size=(2, 3, 128 // s, 160 // s)).astype(np.float32) for s in (4, 8, 16, 32)]
    small, large = (
        [[3, 5, 20, 25], [40, 40, 41, 41], [150, 120, 160, 128], [158, 127, 160, 128]],
        [[0, 0, 160, 128], [10, 20, 90, 110]],
    )
    boxes = np.array([*small, *large, [100, 90, 159, 128], [5, 5, 61, 61]], np.float32)
    image = np.array([0, 1, 0, 1, 1, 1, 0, 0])
    levels = [0, 0, 0, 0, 3, 2, 1, 2]
    config = RoiPooling(canonical_side=56.0, box_size=3)

    def write(b: Value, i: Value, *features: Value) -> Value:
        pooler = make_pooler(features, (4, 8, 16, 32), 3, config, device)
        return pooler.pool(Rois(b, i), config.box_size).head(i.length(0))

    got = compute(write, boxes, image, *maps, rank=4)
    for row, (box, index, level) in enumerate(zip(boxes, image, levels, strict=True)):
        expected = roi_align(maps[level][index], box, 4 * 2**level, 3, config.samples)
        np.testing.assert_allclose(got[row], expected, atol=1e-5, err_msg=f"box {row}")


def test_whole_pixels_give_what_bilinear_interpolation_gives_an_eighth_of_a_pixel_away() -> None:
    """On planes that rise by 1 per pixel along x, and by 1 per pixel along y, a shift is a difference of values."""
    maps = [np.stack(np.mgrid[0 : 128 // s, 0 : 160 // s])[None].astype(np.float32).repeat(2, 0) for s in (8, 16)]
    maps = [level + np.arange(2, dtype=np.float32)[:, None, None, None] * 100 for level in maps]
    boxes = np.array([[3, 5, 20, 25], [8, 8, 9, 9], [0, 0, 160, 128], [51, 33, 160, 127]], np.float32)
    image, levels = np.array([0, 1, 1, 0]), [0, 0, 1, 1]
    config = RoiPooling(canonical_side=100.0, box_size=3)

    def write(b: Value, i: Value, *features: Value) -> Value:
        return PixelPooler(features, (8, 16), 2, config).pool_sums(Rois(b, i), config.box_size)

    got = compute(write, boxes, image, *maps, rank=2).reshape(-1, 3, 3, 2).transpose(0, 3, 1, 2) / TAPS
    for row, (box, index, level) in enumerate(zip(boxes, image, levels, strict=True)):
        expected = roi_align(maps[level][index], box, 8 * 2**level, 3, 1)
        np.testing.assert_allclose(got[row], expected, atol=1 / 8 + 1e-4, err_msg=f"box {row}")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_region_at_all_can_be_pooled(device: Device) -> None:
    level = np.ones((1, 3, 8, 8), np.float32)

    def write(b: Value, i: Value, *features: Value) -> Value:
        return make_pooler(features, (4,), 3, RoiPooling(), device).pool(Rois(b, i), 7).head(i.length(0))

    got = compute(write, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), level, rank=4)
    assert got.shape == (0, 3, 7, 7)


@pytest.mark.parametrize("half", [False, True])
def test_what_an_image_shows_is_judged_from_its_cells_alone(half: bool) -> None:
    random = np.random.default_rng(0)
    shapes = {"hidden": (5, 2 * 3), "classes": (2, 5)}
    state = {f"presence.{name}.weight": random.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    state |= {
        f"presence.{name}.bias": random.normal(0, 1, shape[0]).astype(np.float32) for name, shape in shapes.items()
    }
    cells = random.uniform(0, 6, (3, 3, 4, 5)).astype(np.float16 if half else np.float32)
    # Canvases of 160x128: one image fills its own, one is of 65x32 pixels, three cells and one, one of none.
    limits = np.array([[[160, 128, 160, 128]], [[65, 32, 65, 32]], [[0, 0, 0, 0]]], np.float32)
    config = replace(COMPACT, classes=3, presence=Presence(hidden=5, weight=0.7))

    def write(cells: Value, limits: Value) -> Value:
        layers = Layers(cells.graph, state, norm_eps=1e-5, half=half)
        height, width = (cells.graph.value(np.array(side, np.int64)) for side in (128, 160))
        return prior(layers, config, cells, Canvas(height, width, limits))

    got = compute(write, cells, limits, rank=2)
    for image, (rows, columns) in enumerate([(4, 5), (1, 3), (0, 0)]):
        seen = cells[image, :, :rows, :columns].astype(np.float32)
        pooled = np.concatenate([seen.mean((1, 2)), seen.max((1, 2))]) if rows else np.zeros(6)
        # Sums instead of `@`, which once warned of an invalid value on a busy machine, where all are finite.
        hidden = np.maximum((state["presence.hidden.weight"] * pooled).sum(1) + state["presence.hidden.bias"], 0)
        logits = (state["presence.classes.weight"] * hidden).sum(1) + state["presence.classes.bias"]
        wanted = -0.7 * np.logaddexp(0, -logits)
        np.testing.assert_allclose(got[image], [0, *wanted], rtol=1e-2 if half else 1e-5, atol=1e-7)


def test_the_results_of_a_loop_are_stacked_and_see_what_is_outside() -> None:
    x = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    got = compute(lambda v: v.graph.loop(v.length(0), lambda trip: v.gather(trip) * v.gather(0)), x, rank=2)
    np.testing.assert_array_equal(got, x * x[0])


def test_a_normalisation_folded_into_a_convolution_changes_nothing() -> None:
    random = np.random.default_rng(6)
    weight = random.normal(size=(5, 3, 1, 1)).astype(np.float32)
    norm = {
        name: random.uniform(0.5, 2, 5).astype(np.float32) for name in ("weight", "bias", "running_mean", "running_var")
    }
    state = {"a.b.0.weight": weight, **{f"a.b.1.{name}": value for name, value in norm.items()}}
    x = random.normal(size=(2, 3, 4, 4)).astype(np.float32)
    got = compute(lambda v: Layers(v.graph, state, norm_eps=0.1).block(v, "a.b", "relu"), x, rank=4)
    y = np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], x)
    gain, bias, mean, variance = (value[:, None, None] for value in norm.values())
    np.testing.assert_allclose(got, np.maximum((y - mean) / np.sqrt(variance + 0.1) * gain + bias, 0), atol=1e-5)


def test_a_weight_used_twice_is_written_once() -> None:
    graph = Graph()
    state = {"a.b.weight": np.ones((2, 3), np.float32), "a.b.bias": np.zeros(2, np.float32)}
    x = graph.input("x", np.float32, [1, 3])
    layers = Layers(graph, state, norm_eps=0.0)
    graph.output("y", layers.linear(x, "a.b") + layers.linear(x, "a.b"), np.float32, [1, 2])
    model = graph.model("twice", "test", {"k": "v"})
    assert sorted(tensor.name for tensor in model.graph.initializer) == ["a.b.bias", "a.b.weight"]
    assert [node.name for node in model.graph.node] == ["b/Gemm", "b/Gemm_1", "Add", "outputs/y"]
    assert {entry.key: entry.value for entry in model.metadata_props} == {"k": "v"}


def test_names_of_older_files_become_those_of_today() -> None:
    old = (
        "backbone.fpn.inner_blocks.2.weight",
        "backbone.fpn.layer_blocks.0.bias",
        "rpn.head.conv.weight",
        "roi_heads.mask_head.mask_fcn1.weight",
        "roi_heads.mask_head.mask_fcn4.bias",
        "roi_heads.mask_predictor.mask_fcn_logits.weight",
        "backbone.body.bn1.num_batches_tracked",
        "rpn.head.conv.0.0.bias",
    )
    assert list(modern_names({key: np.zeros(1) for key in old})) == [
        "backbone.fpn.inner_blocks.2.0.weight",
        "backbone.fpn.layer_blocks.0.0.bias",
        "rpn.head.conv.0.0.weight",
        "roi_heads.mask_head.0.0.weight",
        "roi_heads.mask_head.3.0.bias",
        "roi_heads.mask_predictor.mask_fcn_logits.weight",
        "rpn.head.conv.0.0.bias",
    ]
