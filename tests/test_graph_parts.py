"""The parts of the graph, each against the formula it implements, computed in numpy."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stream_seg.graph import roi
from stream_seg.graph.anchors import anchor_shapes, anchors
from stream_seg.graph.boxes import clip, decode, shorter_side
from stream_seg.graph.config import COMPACT, CspNet, Device, RoiPooling, Stage
from stream_seg.graph.dense_head import detect_densely
from stream_seg.graph.emit import Graph, Value
from stream_seg.graph.fpn import path_aggregation
from stream_seg.graph.layers import Layers
from stream_seg.graph.nms import decayed, suppress_flat, suppress_per_level
from stream_seg.graph.parameters import modern_names
from stream_seg.graph.regions import Canvas, Rois
from stream_seg.graph.roi import make_pooler
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


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_regions_are_pooled_from_the_level_of_their_size(
    device: Device, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    config = RoiPooling(canonical_side=56.0, samples=samples, box_size=3)

    def write(b: Value, i: Value, *features: Value) -> Value:
        canvas = Canvas(b.graph.value(128), b.graph.value(160), b.graph.value(np.zeros((2, 1, 4), np.float32)))
        pooler = make_pooler(features, (4, 8, 16, 32), 3, config, canvas, device)
        return pooler.pool(Rois(b, i), config.box_size).head(i.length(0))

    got = compute(write, boxes, image, *maps, rank=4)
    for row, (box, index, level) in enumerate(zip(boxes, image, levels, strict=True)):
        expected = roi_align(maps[level][index], box, 4 * 2**level, 3, config.samples)
        np.testing.assert_allclose(got[row], expected, atol=1e-5, err_msg=f"box {row}")


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_region_at_all_can_be_pooled(device: Device, samples: int) -> None:
    level = np.ones((1, 3, 8, 8), np.float32)

    def write(b: Value, i: Value, *features: Value) -> Value:
        canvas = Canvas(b.graph.value(32), b.graph.value(32), b.graph.value(np.zeros((1, 1, 4), np.float32)))
        pooler = make_pooler(features, (4,), 3, RoiPooling(samples=samples), canvas, device)
        return pooler.pool(Rois(b, i), 7).head(i.length(0))

    got = compute(write, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), level, rank=4)
    assert got.shape == (0, 3, 7, 7)


def test_places_are_the_middles_of_their_cells_and_boxes_reach_as_far_as_the_mean_distance() -> None:
    """Places of a canvas of 64x32 pixels at strides 8 and 16; the image is 40 wide, where boxes are cut."""
    config = replace(COMPACT, classes=3, backbone=CspNet(stages=(Stage(2, 1), Stage(2, 1), Stage(2, 1))))
    random = np.random.default_rng(5)
    shapes = {"conv": (128, 128, 3, 3), "classes": (2, 128, 1, 1), "distances": (44, 128, 1, 1)}
    state = {f"dense.{n}.{k}.weight": np.zeros(shape, np.float32) for n in range(2) for k, shape in shapes.items()}
    state |= {f"dense.{n}.{k}.bias": np.zeros(shape[0], np.float32) for n in range(2) for k, shape in shapes.items()}
    state["dense.0.classes.bias"][:] = [-9, 1]  # only the second class on the finer level
    state["dense.1.classes.bias"][:] = [2, -9]  # and only the first on the coarser one
    logits = random.normal(0, 2, (2, 4, 11)).astype(np.float32)
    for number in range(2):
        state[f"dense.{number}.distances.bias"][:] = logits[number].ravel()
    levels = [np.zeros((1, 128, 32 // stride, 64 // stride), np.float32) for stride in (8, 16)]
    limits = np.array([[[40, 32, 40, 32]]], np.float32)
    config = replace(config, detection=replace(config.detection, nms_iou=0.999, decay=0.0))

    def write(limits: Value, *levels: Value) -> Value:
        layers, value = Layers(limits.graph, state, slope=0.1), limits.graph.value
        canvas = Canvas(value(32), value(64), limits)
        found = detect_densely(layers, config, list(levels), canvas, value(np.array(0.5, np.float32)))
        columns = [found.scores, found.labels.cast(np.float32)]
        return limits.graph.concat([found.rois.boxes, *(one.unsqueeze(1) for one in columns)], axis=1)

    got = compute(write, limits, *levels, rank=2)
    likely = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    wanted = set()
    for number, (stride, logit) in enumerate(((8, 1), (16, 2))):
        left, top, right, bottom = (likely[number] @ np.arange(11)) * stride
        middles = [((x + 0.5) * stride, (y + 0.5) * stride) for y in range(32 // stride) for x in range(64 // stride)]
        boxes = [np.clip((x - left, y - top, x + right, y + bottom), 0, (40, 32, 40, 32)) for x, y in middles]
        real = [box.tolist() for box in boxes if min(box[2:] - box[:2]) >= 0.01]
        wanted |= {tuple(np.float32([*box, 1 / (1 + np.exp(-logit)), 2 - number]).round(2).tolist()) for box in real}
    assert {tuple(row) for row in got.round(2).tolist()} == wanted
    assert set(got[:, 5]) == {1, 2}
    np.testing.assert_allclose(got[:, 4], 1 / (1 + np.exp(-np.where(got[:, 5] == 2, 1.0, 2.0))), rtol=1e-5)


def test_a_pyramid_by_sums_goes_down_and_up_again() -> None:
    random = np.random.default_rng(3)
    maps = [random.normal(size=(1, 2, 4 * n, 8 * n)).astype(np.float32) for n in (4, 2, 1)]
    weights = [random.normal(size=(3, 2, 1, 1)).astype(np.float32) for _ in maps]
    state = {f"backbone.lateral.{n}.weight": weight for n, weight in enumerate(weights)}

    def doubled(x: Floats) -> Floats:
        height, width = x.shape[2:]
        return np.stack([[cv2.resize(one, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR) for one in x[0]]])

    def halved(x: Floats) -> Floats:
        return x.reshape(1, 3, x.shape[2] // 2, 2, x.shape[3] // 2, 2).mean((3, 5))

    fine, middle, coarse = (np.einsum("oi,nihw->nohw", w[:, :, 0, 0], x) for w, x in zip(weights, maps, strict=True))
    down = middle + doubled(coarse)
    first = fine + doubled(down)
    second = down + halved(first)
    wanted = first, second, coarse + halved(second)
    for level, expected in enumerate(wanted):
        got = compute(
            lambda *x, level=level: path_aggregation(Layers(x[0].graph, state), list(x))[level], *maps, rank=4
        )
        np.testing.assert_allclose(got, expected, atol=1e-5)


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
