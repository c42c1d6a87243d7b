"""The parts of training that need no PyTorch: annotations, the cache, views, samples, the schedule."""

# ruff: noqa: ANN401  scripts are loaded by name, and so their types are not known here

from __future__ import annotations

import importlib
import json
import math
import random
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from stream_seg.errors import ModelError, OutputError, SourceError
from stream_seg.evaluate import Accuracy, Result, Shown
from stream_seg.graph import COMPACT
from stream_seg.graph.config import STRIDE as CANVAS_STRIDE
from stream_seg.graph.config import CspNet
from stream_seg.graph.labels import COMPACT_LABELS
from stream_seg.locking import Purpose, locked
from tests.support import file_limit
from tests.test_sources_images import with_orientation
from tests.training_scripts import importable
from tests.training_shapes import SIDES, write_shapes

# pycocotools' own.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ROOT = Path(__file__).parents[1]
MODULES = ("architecture", "annotations", "cache", "views", "augment", "schedule", "export", "card", "commands")


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    with importable():
        yield {name: importlib.import_module(name) for name in MODULES}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, train=24, val=2)
    return folder


@pytest.fixture(scope="module")
def training_set(scripts: dict[str, ModuleType], shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    annotations = scripts["annotations"].read_annotations(shapes / "train.json", shapes)
    cache = tmp_path_factory.mktemp("cache")
    scripts["cache"].build_cache(annotations, cache, workers=2)
    return scripts["cache"].TrainingSet(annotations, cache, {})


def test_training_and_the_graph_builder_agree_on_the_network(scripts: dict[str, ModuleType]) -> None:
    a, body = scripts["architecture"], COMPACT.backbone
    assert isinstance(body, CspNet)
    assert (body.stem_channels, body.slope, body.strides) == (a.STEM_CHANNELS, a.SLOPE, a.STRIDES)
    assert tuple((stage.channels, stage.blocks) for stage in body.stages) == a.STAGES
    assert (body.fine_channels, 2 * a.FINE_STRIDE) == (a.FINE_CHANNELS, a.STRIDES[0])
    assert (COMPACT.pixels.mean, COMPACT.pixels.deviation) == (a.PIXEL_MEAN, a.PIXEL_DEVIATION)
    assert COMPACT.pyramid_channels == a.PYRAMID_CHANNELS
    dense = COMPACT.dense
    assert dense is not None
    assert (dense.distances, dense.candidates) == (a.DISTANCES, a.CANDIDATES)
    pool = COMPACT.pooling
    assert (pool.canonical_side, pool.canonical_level) == (a.CANONICAL_SIDE, a.CANONICAL_LEVEL)
    assert (pool.mask_size, pool.samples) == (a.MASK_CELLS, a.POOL_SAMPLES)
    head = COMPACT.mask_head
    assert (head.convolutions, head.dilations, head.detail) == (a.MASK_CHANNELS, a.MASK_DILATIONS, a.DETAIL_CHANNELS)
    assert head.level_channels == a.MASK_LEVEL_CHANNELS
    assert head.scores
    assert head.class_embedding
    kept = COMPACT.detection
    assert (kept.nms_iou, kept.decay) == (a.DETECTION_NMS_IOU, a.DETECTION_DECAY)
    assert (kept.per_image, kept.min_side) == (a.DETECTIONS, a.LEAST_SIDE)
    assert CANVAS_STRIDE == a.CANVAS_STRIDE


def test_what_is_beside_a_picture_is_nothing_to_the_network(scripts: dict[str, ModuleType]) -> None:
    """In graphs that is 0 once it is normalised; bytes come near it."""
    a, views = scripts["architecture"], scripts["views"]
    view = views.View(1, 1, 10, 10)
    canvas = views.warp_image(np.full((20, 20, 3), 250, np.uint8), view, (64, 64))
    normalised = (canvas - np.array(a.PIXEL_MEAN)) / a.PIXEL_DEVIATION
    outside = np.ones((64, 64), np.bool_)
    outside[9:31, 9:31] = False
    assert np.abs(normalised[outside]).max() < 0.01
    assert normalised[15, 15].min() > 1


def test_annotations_are_read_with_what_is_missing_in_them(scripts: dict[str, ModuleType], shapes: Path) -> None:
    found = scripts["annotations"].read_annotations(shapes / "train.json", shapes)
    assert found.classes == ("box", "ball", "tent")  # by category id
    assert found.pictures[0].exhaustive.tolist() == [False, False, True, False]
    assert found.pictures[1].exhaustive.tolist() == [False, True, True, True]
    assert found.pictures[5].objects.crowd.tolist() == [True, False]
    for k in (1, 6, 2, 7):  # without a segmentation, and with mask_valid false
        assert [outline is None for outline in found.pictures[k].objects.outlines] == [True, False]


@pytest.mark.parametrize(
    "licences", [None, 5, [None], ["CC0"], {"id": 1, "name": "CC0"}, [{"id": [1]}, {"id": 1, "name": None}]]
)
def test_licences_may_be_anything(
    licences: object, scripts: dict[str, ModuleType], shapes: Path, tmp_path: Path
) -> None:
    document = json.loads((shapes / "val.json").read_text()) | {"licenses": licences}
    (tmp_path / "val.json").write_text(json.dumps(document))
    found = scripts["annotations"].read_annotations(tmp_path / "val.json", shapes)
    assert {picture.licence for picture in found.pictures} == {""}


@pytest.mark.parametrize("number", [1, "1", [1]])
def test_a_picture_without_a_source_has_a_licence_by_whatever_it_is_told_apart(
    number: object, scripts: dict[str, ModuleType], shapes: Path, tmp_path: Path
) -> None:
    document = json.loads((shapes / "val.json").read_text()) | {"licenses": [{"id": number, "name": ["CC0"]}]}
    for image in document["images"]:
        image |= {"license": number, "source": None}
    (tmp_path / "val.json").write_text(json.dumps(document))
    found = scripts["annotations"].read_annotations(tmp_path / "val.json", shapes)
    assert {(picture.source, picture.licence) for picture in found.pictures} == {("", "['CC0']")}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda document: document.pop("categories"), r"not a COCO instances file: it has no list 'categories'"),
        (lambda document: document["images"].clear(), r"no categories or no images"),
        (lambda document: document["annotations"][0].pop("bbox"), r"an entry of its 'annotations' has no 'bbox'"),
        (
            lambda document: document["annotations"][0].update(bbox=[float("nan"), 5, 9, 9]),
            r"the bbox \[NaN, 5, 9, 9\]",
        ),
        (lambda document: document["images"].append(document["images"][1]), r"two of its 'images' have the id \d+: "),
        (
            lambda document: document["categories"][0].update(name=document["categories"][1]["name"]),
            r"'categories' have the name \"box\": ",
        ),
        (lambda document: document["images"][0].update(exhaustive=[99]), r"lacks 99"),
        (
            lambda document: document["annotations"][0].update(category_id=98),
            r"it lacks 98 among its 'categories', which an entry refers to",
        ),
    ],
)
def test_annotations_of_another_kind_are_refused_by_name(
    change: Callable[[Any], None], sentence: str, scripts: dict[str, ModuleType], shapes: Path, tmp_path: Path
) -> None:
    document = json.loads((shapes / "val.json").read_text())
    change(document)
    (tmp_path / "bad.json").write_text(json.dumps(document))
    with pytest.raises(SourceError, match=rf"bad\.json.*{sentence}"):
        scripts["annotations"].read_annotations(tmp_path / "bad.json", shapes)
    with pytest.raises(SourceError, match=r"none\.json cannot be read"):
        scripts["annotations"].read_annotations(tmp_path / "none.json", shapes)


def test_a_picture_that_is_missing_or_of_another_size_is_named(
    scripts: dict[str, ModuleType], shapes: Path, tmp_path: Path
) -> None:
    annotations = scripts["annotations"].read_annotations(shapes / "val.json", tmp_path)
    with pytest.raises(SourceError, match=r"0\.png cannot be read: No such file"):
        scripts["cache"].build_cache(annotations, tmp_path / "cache", workers=1)
    (tmp_path / "val").mkdir()
    cv2.imwrite(str(tmp_path / "val" / "0.png"), np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(SourceError, match=r"0\.png is 10x10, its annotations are for 160x128"):
        scripts["cache"].build_cache(annotations, tmp_path / "cache", workers=1)


def test_a_picture_is_turned_as_it_was_annotated(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    pixels = np.add.outer(np.arange(24), np.arange(64)).astype(np.uint8)[..., None].repeat(3, 2) * 2
    (tmp_path / "a.jpg").write_bytes(with_orientation(cv2.imencode(".jpg", pixels)[1].tobytes(), 3))
    image = {"id": 1, "file_name": "a.jpg", "width": 64, "height": 24}
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 20, 20]}
    read: list[Any] = []
    for upright in (False, True):
        document = {"images": [{**image, "upright": upright}], "annotations": [entry]}
        (tmp_path / "train.json").write_text(json.dumps({**document, "categories": [{"id": 1, "name": "a"}]}))
        annotations = scripts["annotations"].read_annotations(tmp_path / "train.json", tmp_path)
        scripts["cache"].build_cache(annotations, tmp_path / "cache", workers=1)
        read.append(scripts["cache"].TrainingSet(annotations, tmp_path / "cache", {}).image(0).astype(int))
    assert np.abs(read[0] - read[1][::-1, ::-1]).max() <= 2 < np.abs(read[0] - read[1]).max()


def test_the_cache_holds_pixels_and_outlines_and_is_made_once(
    training_set: Any, scripts: dict[str, ModuleType], shapes: Path, tmp_path: Path
) -> None:
    annotations = scripts["annotations"].read_annotations(shapes / "train.json", shapes)
    scripts["cache"].build_cache(annotations, tmp_path, workers=1)
    made = (tmp_path / "images.bin").stat().st_mtime_ns
    scripts["cache"].build_cache(annotations, tmp_path, workers=1)
    assert (tmp_path / "images.bin").stat().st_mtime_ns == made
    picture = cv2.cvtColor(cv2.imread(str(shapes / "train" / "3.png")), cv2.COLOR_BGR2RGB)
    assert np.array_equal(training_set.image(3), picture)
    objects = training_set.objects[3]
    for box, row in zip(objects.boxes, objects.masks, strict=True):
        mask = training_set.mask(row)
        x, y, width, height = cv2.boundingRect(mask.pixels)
        assert np.abs(box - (mask.x + x, mask.y + y, mask.x + x + width, mask.y + y + height)).max() <= 1


def test_a_cache_that_is_made_anew_leaves_that_of_a_run_alone(
    training_set: Any, scripts: dict[str, ModuleType], shapes: Path, tmp_path: Path
) -> None:
    """A file that got shorter would end whoever has mapped it with SIGBUS."""
    cache, read = scripts["cache"], scripts["annotations"].read_annotations
    cache.build_cache(read(shapes / "train.json", shapes), tmp_path, workers=1)
    running = cache.TrainingSet(read(shapes / "train.json", shapes), tmp_path, {})
    cache.build_cache(read(shapes / "val.json", shapes), tmp_path, workers=1)
    assert np.array_equal(running.image(23), training_set.image(23))
    assert len(cache.TrainingSet(read(shapes / "val.json", shapes), tmp_path, {}).rows) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"images.bin", "masks.bin", "index.npz", ".lock"}


def test_runs_that_start_together_make_a_cache_once(
    scripts: dict[str, ModuleType], shapes: Path, tmp_path: Path
) -> None:
    cache, folder = scripts["cache"], tmp_path / "shared"
    annotations = scripts["annotations"].read_annotations(shapes / "val.json", shapes)
    cache.build_cache(annotations, tmp_path / "made", workers=1)
    folder.mkdir()
    second = threading.Thread(target=cache.build_cache, args=(annotations, folder, 1))
    with locked(folder / ".lock", Purpose("a test", "--cache", OutputError)):
        second.start()
        second.join(0.3)
        assert (second.is_alive(), [path.name for path in folder.iterdir()]) == (True, [".lock"])
        for name in ("images.bin", "masks.bin", "index.npz"):
            (tmp_path / "made" / name).rename(folder / name)
        made = (folder / "images.bin").stat().st_ino
    second.join()
    assert (folder / "images.bin").stat().st_ino == made


def test_a_cache_that_another_run_has_replaced_is_refused_before_it_is_trained_from(
    scripts: dict[str, ModuleType], shapes: Path, tmp_path: Path
) -> None:
    cache, read = scripts["cache"], scripts["annotations"].read_annotations
    ours = read(shapes / "val.json", shapes)
    document = json.loads((shapes / "val.json").read_text())
    for one in document["annotations"]:
        one["segmentation"] = [[0, 0, 9, 0, 9, 9]]
    (tmp_path / "others.json").write_text(json.dumps(document))
    for each in (ours, read(tmp_path / "others.json", shapes)):
        cache.build_cache(each, tmp_path / "shared", workers=1)
    with pytest.raises(OutputError, match=r"another run has replaced .*shared.*give each its own --cache"):
        cache.TrainingSet(ours, tmp_path / "shared", {})


def test_a_cache_that_cannot_be_written_is_said(scripts: dict[str, ModuleType], shapes: Path, tmp_path: Path) -> None:
    annotations = scripts["annotations"].read_annotations(shapes / "val.json", shapes)
    (tmp_path / "file").touch()
    for folder, reason in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "x", "Not a directory")):
        with pytest.raises(
            OutputError, match=rf"cannot write the decoded pictures to .*: {reason}; give another --cache"
        ):
            scripts["cache"].build_cache(annotations, folder, workers=1)
    with file_limit(10_000), pytest.raises(OutputError, match=r"full: File too large; give another --cache"):
        scripts["cache"].build_cache(annotations, tmp_path / "full", workers=1)
    assert [path.name for path in (tmp_path / "full").iterdir()] == [".lock"]


def test_a_cache_is_that_of_its_pictures_by_whatever_path_and_a_broken_one_is_none(
    scripts: dict[str, ModuleType], shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, read = scripts["cache"], scripts["annotations"].read_annotations
    folder, made = tmp_path / "data", tmp_path / "cache"
    shutil.copytree(shapes, folder)
    cache.build_cache(read(folder / "val.json", folder), made, workers=1)
    before = (made / "images.bin").stat().st_ino
    monkeypatch.chdir(tmp_path)
    cache.build_cache(read(Path("data/val.json"), Path("data")), made, workers=1)
    assert (made / "images.bin").stat().st_ino == before
    cv2.imwrite(str(folder / "val" / "1.png"), np.full((128, 160, 3), 7, np.uint8))
    cache.build_cache(read(folder / "val.json", folder), made, workers=1)
    assert (cache.TrainingSet(read(folder / "val.json", folder), made, {}).image(1) == 7).all()
    index = made / "index.npz"
    for cut in (200, 0):
        index.write_bytes(index.read_bytes()[:cut])
        cache.build_cache(read(folder / "val.json", folder), made, workers=1)
        assert len(cache.TrainingSet(read(folder / "val.json", folder), made, {}).rows) == 2


def test_outlines_that_enclose_nothing_are_none_and_those_of_another_size_are_refused(
    scripts: dict[str, ModuleType], shapes: Path, tmp_path: Path
) -> None:
    document = json.loads((shapes / "val.json").read_text())
    document["images"] = document["images"][:1]
    first = document["images"][0]["id"]
    box = {"image_id": first, "category_id": 3, "bbox": [20, 20, 60, 60]}
    whole = [20, 20, 80, 20, 80, 80, 20, 80]
    outlines = ([[20, 20, 80, 80]], [[]], [whole, [1, 1, 2, 2]])
    document["annotations"] = [{**box, "id": i, "segmentation": outline} for i, outline in enumerate(outlines)]
    document["annotations"].append({**box, "id": 9, "image_id": 777, "segmentation": [whole]})  # of no picture here
    (tmp_path / "val.json").write_text(json.dumps(document))
    cache, read = scripts["cache"], scripts["annotations"].read_annotations
    cache.build_cache(read(tmp_path / "val.json", shapes), tmp_path / "cache", workers=1)
    found = cache.TrainingSet(read(tmp_path / "val.json", shapes), tmp_path / "cache", {})
    assert [row[0] >= 0 for row in found.objects[0].masks] == [False, False, True]
    document["annotations"][0]["segmentation"] = {"size": [10, 10], "counts": [100]}
    (tmp_path / "val.json").write_text(json.dumps(document))
    with pytest.raises(SourceError, match=r"\.png: a segmentation has the size \[10, 10\] in an image of \[128, 160\]"):
        cache.build_cache(read(tmp_path / "val.json", shapes), tmp_path / "cache", workers=1)
    for damaged, said in (
        ([[4, 4]], r"a segmentation cannot be read: \[\[4, 4\]\]"),
        ({"size": [128, 160], "counts": [205, 10]}, "a segmentation add up to 215 pixels, and not to the 20480"),
    ):
        document["annotations"][0]["segmentation"] = damaged
        (tmp_path / "val.json").write_text(json.dumps(document))
        with pytest.raises(SourceError, match=rf"\.png: .*{said}"):
            cache.build_cache(read(tmp_path / "val.json", shapes), tmp_path / "cache", workers=1)


def test_large_pictures_are_shrunk_with_their_annotations(
    scripts: dict[str, ModuleType], shapes: Path, tmp_path: Path
) -> None:
    document = json.loads((shapes / "val.json").read_text())
    document["images"] = [{"id": 0, "file_name": "big.png", "width": 1280, "height": 960}]
    corners = [256, 128, 768, 128, 768, 512, 256, 512]
    document["annotations"] = [
        {"id": 1, "image_id": 0, "category_id": 3, "bbox": [256, 128, 512, 384], "segmentation": [corners]}
    ]
    (tmp_path / "big.json").write_text(json.dumps(document))
    cv2.imwrite(str(tmp_path / "big.png"), np.zeros((960, 1280, 3), np.uint8))
    annotations = scripts["annotations"].read_annotations(tmp_path / "big.json", tmp_path)
    scripts["cache"].build_cache(annotations, tmp_path / "cache", workers=1)
    found = scripts["cache"].TrainingSet(annotations, tmp_path / "cache", {})
    assert found.image(0).shape == (480, 640, 3)
    assert found.objects[0].boxes.tolist() == [[128, 64, 384, 256]]
    assert found.mask(found.objects[0].masks[0]).pixels.shape == (192 + 2, 256 + 2)


def test_rare_classes_are_drawn_more_often_and_shares_are_kept(scripts: dict[str, ModuleType], shapes: Path) -> None:
    annotations = scripts["annotations"].read_annotations(shapes / "train.json", shapes)
    weights = scripts["cache"].sampling_weights(annotations, {"balls only": 0.5})
    partial = np.array([picture.source == "balls only" for picture in annotations.pictures])
    assert weights[partial].sum() == pytest.approx(0.5)
    assert weights.sum() == pytest.approx(1)
    with pytest.raises(SourceError, match="shares must name sources"):
        scripts["cache"].sampling_weights(annotations, {"nobody": 0.5})
    with pytest.raises(SourceError, match="with these shares no picture is drawn"):
        scripts["cache"].sampling_weights(annotations, {"balls only": 0, "made up": 0})


def test_labels_follow_the_picture_through_views_pasting_and_mosaics(
    training_set: Any, scripts: dict[str, ModuleType]
) -> None:
    """Where a sample says that a shape is, its colour must be, and the mask must have the box's extent."""
    augment = scripts["augment"]
    colours = {1: (70, 200, 60), 2: (220, 60, 40), 3: (40, 120, 220)}
    checked = 0
    for seed, how in enumerate((augment.Augmentation(), augment.Augmentation(paste=1), augment.Augmentation(mosaic=1))):
        sampler = augment.Sampler(training_set, how, random.Random(seed))
        for index in range(len(training_set.rows)):
            sample = sampler.make(index, (256, 320))
            for item in sample.instances:
                assert item.box[0] >= 0
                assert item.box[2] <= 320
                if item.crop is not None:
                    checked += 1
                    _check_instance(sample, item, colours[item.label], scripts["views"], scripts["cache"])
    assert checked > 60


def _check_instance(sample: Any, item: Any, colour: tuple[int, ...], views: ModuleType, cache: ModuleType) -> None:
    (x1, y1, x2, y2), side = item.window, item.crop.shape[0]
    view = views.View((x2 - x1) / side, (y2 - y1) / side, x1, y1)
    mask = views.warp_mask(cache.MaskCrop(item.crop, 0, 0), view, np.array([0, 0, 320, 256]), (256, 320)) > 127
    inner = cv2.erode(mask.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0  # edges are blurred
    assert not inner.any() or np.mean(np.abs(sample.image.astype(int) - colour).max(2)[inner] < 40) > 0.97
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    slack = 2 + 0.05 * (item.box[2:] - item.box[:2]).max()
    assert np.abs(item.box - (x, y, x + width, y + height)).max() < slack


def test_what_cannot_be_learned_from_is_ignored(training_set: Any, scripts: dict[str, ModuleType]) -> None:
    augment = scripts["augment"]
    plain = augment.Augmentation(scales=(1, 1), paste=0, mosaic=0)
    sample = augment.Sampler(training_set, plain, random.Random(0)).make(5, (SIDES[1] * 2, SIDES[0] * 2))
    assert len(sample.instances) == 1
    assert sample.ignore.any()
    assert sample.ignore.shape == (SIDES[1] // 2, SIDES[0] // 2)


def test_a_mosaic_knows_only_what_all_its_parts_know(training_set: Any, scripts: dict[str, ModuleType]) -> None:
    augment = scripts["augment"]
    sampler = augment.Sampler(training_set, augment.Augmentation(paste=0, mosaic=0), random.Random(0))
    parts = [sampler.make(index, (64, 96)) for index in (1, 0, 2, 3)]
    whole = augment.mosaic(parts)
    assert whole.image.shape == (128, 192, 3)
    assert whole.exhaustive.tolist() == [False, False, True, False]
    assert len(whole.instances) == sum(len(part.instances) for part in parts)


def test_the_schedule_warms_up_ends_near_zero_and_ignores_pauses(scripts: dict[str, ModuleType]) -> None:
    schedule = scripts["schedule"].Schedule(steps=None, minutes=1, warmup=4)
    rates = []
    while schedule.progress < 1:
        rates.append(schedule.rate)
        schedule.advance(400.0 if schedule.step == 20 else 1.0)
    assert schedule.step == 60
    assert rates[:2] == pytest.approx([0.25, 0.5], rel=0.01)
    assert max(rates) == rates[3]
    assert rates[-1] < 0.03
    by_steps = scripts["schedule"].Schedule(steps=3, minutes=0, warmup=0)
    for _ in range(3):
        by_steps.advance(1.0)
    assert by_steps.progress == 1


@pytest.mark.parametrize("pattern", [[1, 16], [16, 1], [1] * 19 + [16]])
def test_minutes_count_steps_of_much_larger_pictures(scripts: dict[str, ModuleType], pattern: list[float]) -> None:
    schedule, passed = scripts["schedule"].Schedule(steps=None, minutes=60, warmup=0), 0.0
    while schedule.progress < 1:
        passed += pattern[schedule.step % len(pattern)]
        schedule.advance(pattern[schedule.step % len(pattern)])
    assert passed / 60 == pytest.approx(60, rel=0.05)


def test_minutes_count_steps_of_a_machine_that_became_slower(scripts: dict[str, ModuleType]) -> None:
    schedule, passed = scripts["schedule"].Schedule(steps=None, minutes=60, warmup=0), 0.0
    while schedule.progress < 1:
        seconds = 1.0 if passed < 600 else 20.0
        passed += seconds
        schedule.advance(seconds)
    assert passed / 60 == pytest.approx(60, rel=0.05)


def test_class_names_come_with_the_weights(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    built_in = ROOT / "models" / "compact" / "weights.safetensors"
    assert list(scripts["export"].read_classes(built_in)) == COMPACT_LABELS[1:]
    (tmp_path / "weights.safetensors").write_bytes(b"junk")
    with pytest.raises(ModelError, match=r"weights\.safetensors is not what train\.py writes"):
        scripts["export"].read_classes(tmp_path / "weights.safetensors")


def test_a_card_of_classes_without_outlines_tells_of_boxes(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    none = math.nan
    classes = [
        Accuracy(name, 5, ap, ap, none, none, none, none) for name, ap in (("a", 40.0), ("b", 10.0), ("c", 30.0))
    ]
    mean = Accuracy("mean of 3", 15, 26.7, 26.7, none, none, none, none)
    result = Result(mean, tuple(classes), Shown(0.5, 0, none, 0.0), 9, 1.0, (), ())
    run = {"sources": [], "steps": 1, "minutes": 1, "pictures": 1, "objects": 1, "options": {"weights": "w"}}
    for name in ("int8.onnx", "fp32.onnx", "weights.safetensors"):
        (tmp_path / name).touch()
    scripts["card"].write_card(
        tmp_path, scripts["card"].Facts(run, ("a", "b", "c"), {("int8", 320): result}, {}, "unknown")
    )
    card = (tmp_path / "README.md").read_text()
    assert "| int8, long side 320 | b | - | 10.0 / 10.0 |" in card
    assert "Weakest classes by box AP50: b (10), c (30), a (40)." in card


@pytest.mark.parametrize(
    ("begun", "named"), [("/a/models/compact/weights.safetensors", "compact/weights.safetensors"), ("w", "w")]
)
def test_a_card_says_what_a_run_began_with_and_that_its_scores_were_fitted(
    begun: str, named: str, scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    run = {"sources": [], "steps": 1, "minutes": 1, "pictures": 1, "objects": 1, "options": {"weights": begun}}
    for name in ("int8.onnx", "fp32.onnx", "weights.safetensors"):
        (tmp_path / name).touch()
    cards = []
    for noted in (run, run | {"calibrated": "RUN/weights.safetensors"}):
        scripts["card"].write_card(tmp_path, scripts["card"].Facts(noted, ("a",), {}, {}, "unknown"))
        cards.append((tmp_path / "README.md").read_text())
    assert all(f"from `{named}`, by `scripts/train/train.py`." in card for card in cards)
    fitted = "Scores were fitted to what is right by `scripts/train/calibrate.py`."
    assert [fitted in card for card in cards] == [False, True]


@pytest.mark.needs(missing=[tool for tool in ("tar", "awk") if shutil.which(tool) is None])
def test_a_folder_is_packed_in_parts_with_what_its_links_lead_to(tmp_path: Path) -> None:
    data, elsewhere, out = (tmp_path / name for name in ("data", "elsewhere", "parts"))
    data.mkdir()
    elsewhere.mkdir()
    for name in ("a b.png", "c.png"):
        (elsewhere / name).write_bytes(bytes(600_000))
    (data / "-h.png").write_bytes(b"mine")
    (data / "photos").symlink_to(elsewhere)
    (data / "d.png").symlink_to(elsewhere / "c.png")
    subprocess.run([ROOT / "scripts" / "train" / "pack_parts.sh", data, out, "1"], check=True, capture_output=True)
    parts = sorted(out.rglob("pack.tar"))
    assert len(parts) == 3
    assert max(part.stat().st_size for part in parts) <= 2**20
    for part in parts:
        with tarfile.open(part) as packed:
            packed.extractall(tmp_path / "there", filter="data")
    found = {path.relative_to(tmp_path / "there").as_posix() for path in (tmp_path / "there").rglob("*.png")}
    assert found == {"-h.png", "d.png", "photos/a b.png", "photos/c.png"}
    assert not (tmp_path / "there" / "d.png").is_symlink()
