"""The graphs built from weights: the compact one equals the given file, and all keep the promises of their contract."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from skimage import data

from stream_seg.errors import ModelError
from stream_seg.graph.build import build_graph
from stream_seg.graph.config import (
    COMPACT,
    R50_FPN,
    R50_FPN_V2,
    BoxHead,
    CspNet,
    DenseHead,
    Device,
    MaskHead,
    MaskRCNN,
    Proposals,
    ResNet,
    Stage,
)
from stream_seg.graph.emit import OPSET
from stream_seg.graph.parameters import State, check, expected, modern_names, recognise
from stream_seg.graph.weights import read_weights

MODEL = Path(__file__).parent.parent / "models" / "compact"

BOX_PIXELS, SCORE, MASK = 1e-2, 1e-4, 1e-3
"""The same arithmetic in the same order, so only another kernel of another runtime may differ in the last digits."""

Outputs = dict[str, NDArray[np.generic]]

TINY_V1 = replace(
    R50_FPN,
    backbone=ResNet((1, 2, 1, 1), width=8),
    proposals=Proposals((16, 32, 64, 128, 256), per_level=40, count=30),
    classes=4,
    pyramid_channels=16,
    box_head=BoxHead(fully_connected=(24, 20)),
    mask_head=MaskHead((16, 12)),
    norm_eps=1e-5,
)
TINY_V2 = replace(
    TINY_V1,
    name=R50_FPN_V2.name,
    normed_heads=True,
    proposals=replace(TINY_V1.proposals, convolutions=2),
    box_head=BoxHead(convolutions=2, fully_connected=(24,)),
)
TINY_DENSE = replace(
    COMPACT,
    backbone=CspNet(stem_channels=6, stages=(Stage(4, 1), Stage(6, 1), Stage(8, 2), Stage(10, 1))),
    dense=DenseHead(distances=5, candidates=60),
    classes=4,
    pyramid_channels=12,
    mask_head=replace(COMPACT.mask_head, convolutions=(8, 8), dilations=(1, 2), detail=6, level_channels=8),
    pooling=replace(COMPACT.pooling, canonical_side=40.0),
)


def session(model: onnx.ModelProto | Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    source = model if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(
    model: onnxruntime.InferenceSession,
    images: NDArray[np.uint8],
    sizes: list[tuple[int, int]] | None = None,
    threshold: float | None = 0.4,
) -> Outputs:
    sizes = sizes or [images.shape[1:3]] * len(images)
    feed: Outputs = {"images": images, "sizes": np.array(sizes, np.float32)}
    if threshold is not None:
        feed["score_threshold"] = np.array(threshold, np.float32)
    names = [output.name for output in model.get_outputs()]
    return dict(zip(names, model.run(names, feed), strict=True))


def of_image(found: Outputs, index: int) -> Outputs:
    rows = found["image_index"] == index
    return {key: value[rows] for key, value in found.items() if key != "image_index"}


def assert_same(
    got: Outputs, wanted: Outputs, box: float = BOX_PIXELS, score: float = SCORE, mask: float = MASK
) -> None:
    assert got["labels"].tolist() == wanted["labels"].tolist()
    np.testing.assert_allclose(got["boxes"], wanted["boxes"], rtol=0, atol=box)
    np.testing.assert_allclose(got["scores"], wanted["scores"], rtol=0, atol=score)
    np.testing.assert_allclose(got["masks"], wanted["masks"], rtol=0, atol=mask)


GAINS = {
    "rpn.head.bbox_pred": 0.02,
    "rpn.head.cls_logits": 0.15,
    "roi_heads.box_predictor.bbox_pred": 0.05,
    "roi_heads.box_predictor.cls_score": 0.08,
    "roi_heads.mask_predictor.mask_fcn_logits": 0.2,
}
"""How much smaller than usual the predictors' weights must be, for boxes of all sizes and scores between 0 and 1."""
GAINS |= {f"dense.{level}.{name}": gain for level in range(3) for name, gain in (("classes", 0.1), ("distances", 0.3))}


def random_state(config: MaskRCNN, seed: int = 0) -> State:
    """Weights with which there is something to detect."""
    random = np.random.default_rng(seed)

    def parameter(key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        if key.endswith("running_var"):
            return random.uniform(0.5, 2, shape).astype(np.float32)
        inputs = int(np.prod(shape[1:])) if len(shape) > 1 else 100
        values = random.normal(0, 1.5 / np.sqrt(inputs), shape) * GAINS.get(key.rpartition(".")[0], 1.0)
        is_norm_gain = len(shape) == 1 and key.endswith("weight")
        return (values + is_norm_gain).astype(np.float32)

    return {key: parameter(key, shape) for key, shape in expected(config)}


@pytest.fixture(scope="module")
def state() -> State:
    return modern_names(read_weights(MODEL / "weights.safetensors").state)


@pytest.fixture(scope="module")
def compact(state: State) -> onnxruntime.InferenceSession:
    return session(build_graph(COMPACT, state))


@pytest.fixture(scope="module")
def given() -> onnxruntime.InferenceSession:
    return session(MODEL / "fp32.onnx")


@pytest.fixture(scope="module")
def photos() -> NDArray[np.uint8]:
    """Two canvases of 256: the astronaut fills hers, the cat's is 256x160 beside pixels that do not belong to it."""
    canvases = np.full((2, 256, 256, 3), 77, np.uint8)
    canvases[0] = cv2.resize(data.astronaut(), (256, 256), interpolation=cv2.INTER_AREA)
    canvases[1, :160] = cv2.resize(data.chelsea(), (256, 160), interpolation=cv2.INTER_AREA)
    return canvases


SIZES = [(256, 256), (160, 256)]


# ---------------------------------------------------------------- the compact network


def test_the_built_in_network_is_recognised_by_its_weights(state: State) -> None:
    assert recognise(state) == COMPACT


def test_the_compact_graph_finds_what_the_given_one_finds(
    compact: onnxruntime.InferenceSession, given: onnxruntime.InferenceSession, photos: NDArray[np.uint8]
) -> None:
    got, wanted = run(compact, photos, SIZES, 0.03), run(given, photos, SIZES, 0.03)
    assert len(wanted["scores"]) >= 10
    assert set(wanted["image_index"].tolist()) == {0, 1}
    assert got["image_index"].tolist() == wanted["image_index"].tolist()
    assert_same(got, wanted)


def test_the_compact_graph_equals_the_given_one_on_batches_of_noise(
    compact: onnxruntime.InferenceSession, given: onnxruntime.InferenceSession
) -> None:
    noise = cv2.resize(np.random.default_rng(3).integers(0, 256, (3 * 9, 7, 3), np.uint8), (192, 3 * 160))
    images = np.ascontiguousarray(noise.reshape(3, 160, 192, 3))
    sizes = [(160, 192), (96, 192), (133, 64)]
    got, wanted = run(compact, images, sizes, 0.002), run(given, images, sizes, 0.002)
    assert len(wanted["scores"]) >= 3
    assert_same(got, wanted)


def test_without_a_threshold_the_configured_one_holds(
    compact: onnxruntime.InferenceSession, photos: NDArray[np.uint8]
) -> None:
    default = run(compact, photos, SIZES, None)
    assert_same(default, run(compact, photos, SIZES, COMPACT.detection.score_threshold))
    assert len(default["scores"])
    assert default["scores"].min() > COMPACT.detection.score_threshold


def test_nothing_found_is_empty_arrays_of_the_right_shapes(
    compact: onnxruntime.InferenceSession, photos: NDArray[np.uint8]
) -> None:
    found = run(compact, photos, SIZES, 1.0)
    shapes = {key: value.shape for key, value in found.items()}
    assert shapes == {"image_index": (0,), "boxes": (0, 4), "labels": (0,), "scores": (0,), "masks": (0, 28, 28)}


def test_the_half_precision_graph_agrees(
    state: State, compact: onnxruntime.InferenceSession, photos: NDArray[np.uint8]
) -> None:
    model = build_graph(COMPACT, state, half=True)
    kinds = {tensor.data_type for tensor in model.graph.initializer if tensor.name.startswith("backbone.")}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert_same(run(session(model), photos, SIZES), run(compact, photos, SIZES), box=1.0, score=0.01, mask=0.05)


def test_weights_beyond_half_precision_are_refused(state: State) -> None:
    key = "roi_heads.mask_predictor.mask_fcn_logits.weight"
    with pytest.raises(ModelError, match=r"mask_fcn_logits.* go beyond half precision: use fp32"):
        build_graph(COMPACT, {**state, key: state[key] * np.float32(1e9)}, half=True)


def test_half_precision_stops_before_boxes_suppression_and_pooling(state: State) -> None:
    model = onnx.shape_inference.infer_shapes(build_graph(COMPACT, state, half=True, device="cuda"))
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    single = ("RoiAlign", "NonMaxSuppression", "TopK", "Exp", "Softmax", "Sigmoid", "Log")
    nodes = [node for node in model.graph.node if node.op_type in single]
    assert {node.op_type for node in nodes} == set(single)
    puts_in_order = [node for node in nodes if node.name in ("dense/select/TopK", "dense/decay/TopK", "score/TopK")]
    assert [kinds[node.input[0]] for node in puts_in_order] == [onnx.TensorProto.DOUBLE] * 3
    others = [node for node in nodes if node not in puts_in_order]
    assert {kinds[name] for node in others for name in node.input[:1] if name in kinds} == {onnx.TensorProto.FLOAT}


# ---------------------------------------------------------------- every network


@pytest.fixture(scope="module", params=[TINY_V1, TINY_V2, TINY_DENSE], ids=["v1", "v2", "dense"])
def tiny(request: pytest.FixtureRequest) -> tuple[MaskRCNN, State]:
    return request.param, random_state(request.param)


@pytest.fixture(scope="module")
def sessions(tiny: tuple[MaskRCNN, State]) -> dict[Device, onnxruntime.InferenceSession]:
    """The tiny network in its forms for both devices, on the CPU."""
    config, weights = tiny
    for_cuda = build_graph(replace(config, even=True), weights, device="cuda")
    return {"cpu": session(build_graph(config, weights, device="cpu")), "cuda": session(for_cuda)}


@pytest.fixture(scope="module")
def noise() -> NDArray[np.uint8]:
    """Four canvases (64, 96) of coarse noise."""
    random = np.random.default_rng(1)
    coarse = [random.integers(0, 256, (6, 8, 3), np.uint8) for _ in range(4)]
    return np.stack([np.asarray(cv2.resize(one, (96, 64)), np.uint8) for one in coarse])


MIXED = [(64, 96), (50, 96), (64, 33), (40, 40)]


@pytest.mark.parametrize("config", [TINY_V1, TINY_V2])
def test_the_sizes_of_a_network_are_read_off_its_weights(config: MaskRCNN) -> None:
    weights = random_state(config)
    found = recognise(weights)
    assert replace(found, proposals=config.proposals) == config
    assert found.proposals is not None
    assert config.proposals is not None
    assert found.proposals.convolutions == config.proposals.convolutions
    check(weights, config)


def test_the_number_of_classes_of_a_compact_network_is_read_off_its_weights() -> None:
    weights = random_state(replace(COMPACT, classes=6))
    assert recognise(weights) == replace(COMPACT, classes=6)
    check(weights, recognise(weights))


SHIPPED: dict[str, tuple[MaskRCNN, Device]] = {
    "fp32": (replace(COMPACT, even=True), "cuda"),
    "int8": (replace(COMPACT, pooling=replace(COMPACT.pooling, samples=1)), "cpu"),
}


@pytest.mark.parametrize("precision", SHIPPED)
def test_the_shipped_files_are_of_the_form_that_is_built(precision: str, state: State) -> None:
    config, device = SHIPPED[precision]
    files = onnx.load(MODEL / f"{precision}.onnx"), build_graph(config, state, device=device)
    assert [[(one.domain, one.version) for one in model.opset_import] for model in files] == [[("", OPSET)]] * 2
    # What comes with 8 bits, and what they make superfluous: bytes end at 0 as they are.
    not_compared = ("QuantizeLinear", "DequantizeLinear", "Relu")
    nodes, built = (
        [(node.name, node.op_type) for node in model.graph.node if node.op_type not in not_compared] for model in files
    )
    assert sorted(nodes) == sorted(built)
    assert [name for name, kind in nodes if kind == "Loop"] == ["mask/head/Loop"] * (precision == "fp32")


@pytest.mark.parametrize("config", [COMPACT, R50_FPN, R50_FPN_V2])
def test_without_a_threshold_every_graph_keeps_what_scores_above_a_half(config: MaskRCNN) -> None:
    assert config.detection.score_threshold == 0.5  # as the help and docs/models.md say


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_batch_gives_what_its_images_give_alone(
    sessions: dict[Device, onnxruntime.InferenceSession], noise: NDArray[np.uint8], device: Device
) -> None:
    model = sessions[device]
    together = run(model, noise, MIXED, 0.3)
    assert len(together["scores"]) >= 12
    for index in range(len(noise)):
        alone = run(model, noise[index : index + 1], MIXED[index : index + 1], 0.3)
        assert_same(of_image(together, index), of_image(alone, 0))


def test_the_forms_for_cpu_and_cuda_find_the_same(
    sessions: dict[Device, onnxruntime.InferenceSession], noise: NDArray[np.uint8]
) -> None:
    """They round differently, which random weights amplify: one in thirty may cross the threshold or lose a tie."""
    one, other = (run(sessions[device], noise, MIXED, 0.2) for device in ("cpu", "cuda"))
    near = np.abs(one["boxes"][:, None] - other["boxes"]).max(2) < 0.05
    same = near & (one["image_index"][:, None] == other["image_index"]) & (one["labels"][:, None] == other["labels"])
    assert len(one["scores"]) > 20
    assert abs(len(one["scores"]) - len(other["scores"])) <= len(one["scores"]) / 30
    assert same.any(1).sum() >= len(one["scores"]) * 29 / 30
    first, second = np.nonzero(same)
    np.testing.assert_allclose(one["scores"][first], other["scores"][second], atol=1e-3)
    np.testing.assert_allclose(one["masks"][first], other["masks"][second], atol=1e-2)


def test_convolutions_for_cuda_see_one_shape_however_much_is_found(
    tiny: tuple[MaskRCNN, State], noise: NDArray[np.uint8], tmp_path: Path
) -> None:
    """Whenever the shape is another one than the last, cuDNN plans anew: so says ONNX Runtime's profile of each run."""
    config, weights = tiny
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.log_severity_level = True, 3
    options.profile_file_prefix = str(tmp_path / "profile")
    graph = build_graph(replace(config, even=True), weights, device="cuda").SerializeToString()
    model = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    counts = {len(run(model, noise, MIXED, threshold)["scores"]) for threshold in (1.0, 0.4, 0.2)}
    assert (min(counts), len(counts)) == (0, 3)
    shapes: dict[str, set[str]] = {}
    for event in json.loads(Path(model.end_profiling()).read_text()):
        if event.get("args", {}).get("op_name") in ("Conv", "FusedConv"):
            shapes.setdefault(event["name"], set()).add(str(event["args"]["input_type_shape"]))
    assert sum(name.startswith("mask/") for name in shapes) == (10 if config.dense else 3)
    assert all(len(seen) == 1 for seen in shapes.values())


def test_what_lies_beside_an_image_does_not_matter(
    sessions: dict[Device, onnxruntime.InferenceSession], noise: NDArray[np.uint8]
) -> None:
    model, dirty = sessions["cpu"], noise.copy()
    for canvas, (height, width) in zip(dirty, MIXED, strict=True):
        canvas[height:] = 255
        canvas[:, width:] = 255
    assert_same(run(model, dirty, MIXED, 0.3), run(model, noise, MIXED, 0.3))


def test_detections_keep_the_promises_of_the_contract(tiny: tuple[MaskRCNN, State], noise: NDArray[np.uint8]) -> None:
    config, weights = tiny
    config = replace(config, detection=replace(config.detection, per_image=7))
    found = run(session(build_graph(config, weights)), noise, MIXED, 0.05)
    assert found["image_index"].tolist() == sorted(found["image_index"].tolist())
    assert found["masks"].shape == (len(found["scores"]), 28, 28)
    assert 0 <= found["masks"].min() < found["masks"].max() <= 1
    assert 1 <= found["labels"].min() <= found["labels"].max() < config.classes
    for index, (height, width) in enumerate(MIXED):
        one = of_image(found, index)
        assert 1 <= len(one["scores"]) <= 7
        assert (np.diff(one["scores"]) <= 0).all()
        assert one["scores"].min() > 0.05
        boxes = one["boxes"]
        assert (boxes >= 0).all()
        assert (boxes <= [width, height, width, height]).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


@pytest.mark.parametrize("config", [TINY_V1, TINY_V2])
def test_fewer_proposals_never_find_more(config: MaskRCNN, noise: NDArray[np.uint8]) -> None:
    assert config.proposals is not None
    few = replace(config, proposals=replace(config.proposals, count=2))
    found = run(session(build_graph(few, random_state(config))), noise, None, 0.0)
    assert set(found["image_index"].tolist()) == {0, 1, 2, 3}
    assert max(np.bincount(found["image_index"])) <= 2 * (config.classes - 1)


def test_only_the_likeliest_candidates_of_each_image_compete(noise: NDArray[np.uint8]) -> None:
    """With one, it is the best of each image, whatever the others have found; a score of 0 is above no threshold."""
    weights = random_state(TINY_DENSE)
    plain = replace(TINY_DENSE, mask_head=replace(TINY_DENSE.mask_head, scores=False))
    one = replace(plain, dense=DenseHead(distances=5, candidates=1))
    every, best = (run(session(build_graph(config, weights)), noise, MIXED, 0.0) for config in (plain, one))
    assert best["image_index"].tolist() == [0, 1, 2, 3]
    for index in range(len(noise)):
        alone, first = of_image(best, index), of_image(every, index)
        assert_same(alone, {key: value[:1] for key, value in first.items()})
        assert len(first["scores"]) > 3


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_overlaps_a_better_one_is_less_certain(noise: NDArray[np.uint8], device: Device) -> None:
    weights = random_state(TINY_V1)
    fading = replace(TINY_V1, detection=replace(TINY_V1.detection, decay=0.5))
    plain, model = (session(build_graph(config, weights, device=device)) for config in (TINY_V1, fading))
    before, after = run(plain, noise, MIXED, 0.2), run(model, noise, MIXED, 0.2)
    assert 8 <= len(after["scores"]) < len(before["scores"])
    place = {box.tobytes(): n for n, box in enumerate(before["boxes"])}
    assert len(place) == len(before["boxes"])
    same = np.array([place[box.tobytes()] for box in after["boxes"]])
    np.testing.assert_array_equal(after["labels"], before["labels"][same])
    np.testing.assert_array_equal(after["image_index"], before["image_index"][same])
    np.testing.assert_allclose(after["masks"], before["masks"][same], atol=1e-6)
    assert (after["scores"] <= before["scores"][same]).all()
    for index in range(len(MIXED)):
        image, scores = of_image(after, index), of_image(before, index)["scores"]
        assert image["scores"][0] == scores[0]  # nothing is better than the best
        assert (np.diff(image["scores"]) <= 0).all()
        assert (image["scores"] > 0.2).all()
        alone = run(model, noise[index : index + 1], MIXED[index : index + 1], 0.2)
        assert_same(image, of_image(alone, 0))
    assert run(model, noise, MIXED, 1.0)["masks"].shape == (0, 28, 28)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_detection_is_only_as_certain_as_its_mask(noise: NDArray[np.uint8], device: Device) -> None:
    weights = random_state(TINY_V1)
    scored = replace(TINY_V1, mask_head=replace(TINY_V1.mask_head, scores=True))
    plain, model = (session(build_graph(config, weights, device=device)) for config in (TINY_V1, scored))
    before, after = run(plain, noise, MIXED, 0.1), run(model, noise, MIXED, 0.1)
    inside = before["masks"] > 0.5
    certainty = np.where(inside, before["masks"], 0).sum((1, 2)) / np.maximum(1, inside.sum((1, 2)))
    scores = before["scores"] * certainty
    best = np.lexsort((-scores, before["image_index"]))
    best = best[scores[best] > 0.1]
    assert 8 <= len(best) < len(scores)
    assert (np.diff(best) < 0).any()  # their order is another one
    np.testing.assert_allclose(after["scores"], scores[best], rtol=1e-6)
    for key in ("image_index", "boxes", "labels", "masks"):
        np.testing.assert_array_equal(after[key], before[key][best])
    assert run(model, noise, MIXED, 1.0)["masks"].shape == (0, 28, 28)


def test_a_mask_is_that_of_the_class_of_its_detection(noise: NDArray[np.uint8]) -> None:
    """With the filter of one class for all classes, the graph must do what a class-agnostic one does."""
    weights = dict(random_state(TINY_V1))
    key = "roi_heads.mask_predictor.mask_fcn_logits"
    agnostic = replace(TINY_V1, mask_head=replace(TINY_V1.mask_head, class_agnostic=True))
    per_class = run(session(build_graph(TINY_V1, weights)), noise, None, 0.1)
    label = int(per_class["labels"][0])
    one = {**weights, **{f"{key}.{kind}": weights[f"{key}.{kind}"][label : label + 1] for kind in ("weight", "bias")}}
    shared = run(session(build_graph(agnostic, one)), noise, None, 0.1)
    same = per_class["labels"] == label
    assert 0 < same.sum() < len(same)
    np.testing.assert_allclose(per_class["masks"][same], shared["masks"][same], atol=1e-5)
    assert np.abs(per_class["masks"][~same] - shared["masks"][~same]).max() > 0.1


def test_every_node_has_a_name_of_its_own_under_its_part(tiny: tuple[MaskRCNN, State]) -> None:
    nodes = build_graph(*tiny).graph.node
    names = [node.name for node in nodes]
    assert len(set(names)) == len(names)
    finds = {"dense", "score"} if tiny[0].dense else {"rpn", "box"}
    assert {name.split("/")[0] for name in names} == {"prep", "backbone", "fpn", "pooled", "mask", "outputs"} | finds
    assert {node.domain for node in nodes} == {""}


def test_the_configuration_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="5 pyramid levels need as many anchor sizes"):
        replace(R50_FPN, proposals=Proposals((32, 64)))
    for both in ({"dense": DenseHead()}, {"proposals": None}):
        with pytest.raises(ValueError, match="either by proposals or by a dense head"):
            replace(R50_FPN, **both)
    with pytest.raises(ValueError, match="at least 2"):
        replace(R50_FPN, classes=1)
    with pytest.raises(ValueError, match="one mask for all classes, on a CspNet"):
        replace(R50_FPN, mask_head=MaskHead(class_agnostic=True, detail=32))
