"""Measures a segmenter's accuracy on annotated pictures: COCO's average precision of boxes and masks, what is right of
the objects that a user is shown and how many are found, and its speed.

Scoring is pycocotools' (the extra `eval`), at most 100 detections per picture and class. Only classes that both the
model and the annotations know are scored, matched by name, so that a model of 20 classes can be judged on 80.
"""

from __future__ import annotations

import json
import math
import re
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from stream_seg.columns import columns, padded
from stream_seg.detections import Detections
from stream_seg.errors import SourceError, UsageError
from stream_seg.frame import Image
from stream_seg.geometry import mask_roi
from stream_seg.ground_truth import GroundTruth, index, quiet, read_ground_truth
from stream_seg.protocols import Segmenter
from stream_seg.segmenters.onnx_segmenter import DEFAULT_THRESHOLD
from stream_seg.sources.images import decoded

if TYPE_CHECKING:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval, _ImageEvaluationResult

SCORE_THRESHOLD = 0.05
"""Load the segmenter with this one: average precision counts doubtful detections too."""

Progress = Callable[[int, int], None]
"""Called with (done, total) images."""

_ALIASES = {"aeroplane": "airplane", "motorbike": "motorcycle", "sofa": "couch", "tvmonitor": "tv"}


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Average precision of one class, or the mean of several, in per cent: over IoU 0.50 to 0.95, and at 0.50.

    `objects` is how many there were to find, crowds not counted. Masks have the figures NaN where no object has an
    outline. Of the boxes above the score that detections are shown from, `precision` per cent are right (IoU 0.50; NaN
    where none is shown), and `recall` per cent of the objects are among them.
    """

    name: str
    objects: int
    box_ap: float
    box_ap50: float
    mask_ap: float
    mask_ap50: float
    precision: float
    recall: float

    def __str__(self) -> str:
        """The average precisions in a line."""
        masks = f"mask AP {self.mask_ap:.1f}, AP50 {self.mask_ap50:.1f}"
        return f"{masks}; box AP {self.box_ap:.1f}, AP50 {self.box_ap50:.1f} ({self.name})"


@dataclass(frozen=True, slots=True)
class Shown:
    """The boxes with a score above `score_threshold`, of all classes together; see `Accuracy` for the per cents."""

    score_threshold: float
    boxes: int
    precision: float
    recall: float


@dataclass(frozen=True, slots=True)
class Result:
    """What `evaluate` found. `fps` is images per second through the segmenter alone, without reading and scoring.

    `classes` are those that occur in the images. `unknown_to_model` are annotated classes that the model has no name
    for, `not_annotated` classes of the model that the annotations lack; neither is scored.
    """

    mean: Accuracy
    classes: tuple[Accuracy, ...]
    shown: Shown
    images: int
    fps: float
    unknown_to_model: tuple[str, ...]
    not_annotated: tuple[str, ...]

    def to_json(self) -> str:
        """The same as JSON, keys as the attributes; null for a figure that there is none of."""
        strict = json.loads(json.dumps(asdict(self)), parse_constant=lambda _: None)
        return json.dumps(strict, indent=2)

    def __str__(self) -> str:
        """A plain-text table, and what was left out."""
        return "\n".join([*_table([*self.classes, self.mean]), "", *self._notes()])

    def _notes(self) -> Iterator[str]:
        shown = self.shown
        right = f", right {shown.precision:.1f} % (IoU 0.50)" if shown.boxes else ""
        above = f"above a score of {shown.score_threshold:g}"
        yield f"{above}: boxes {shown.boxes}{right}, objects found {shown.recall:.1f} %"
        yield f"{self.images} images, {self.fps:.1f} per second"
        if self.unknown_to_model:
            yield f"not scored, unknown to the model: {', '.join(self.unknown_to_model)}"
        if self.not_annotated:
            yield f"not scored, not annotated: {', '.join(self.not_annotated)}"


@dataclass(frozen=True, slots=True)
class _Matching:
    """Which class of the model is which annotated category, by their ids; and the names that found no partner."""

    category_of: Mapping[int, int]
    names: Mapping[int, str]
    unknown_to_model: tuple[str, ...]
    not_annotated: tuple[str, ...]


class _Picture(TypedDict):
    """What is read of an image's entry in the annotations."""

    id: int
    file_name: str
    width: int
    height: int
    upright: NotRequired[bool]


def evaluate(
    segmenter: Segmenter,
    images_dir: str | Path,
    annotations: str | Path,
    *,
    shown_above: float = DEFAULT_THRESHOLD,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run `segmenter` over the images of a COCO instances file and score what it finds.

    `images_dir` is the folder that the file's `file_name`s start from. `shown_above` is the score that a user would see
    detections from. `limit` takes only the first images, by id. Load the segmenter with `SCORE_THRESHOLD`. Raises
    `SourceError` for annotations or images that are missing or damaged, `UsageError` where model and annotations have
    no class in common, `StreamSegError` where pycocotools is missing.
    """
    images_dir, annotations = Path(images_dir), Path(annotations)
    truth, matching, pictures = _prepared(segmenter.class_names, annotations, limit)
    rows, seconds = _detect_all(segmenter, pictures, images_dir, matching, progress or _silent)
    ids = [picture["id"] for picture in pictures]
    mean, classes, shown = _score(truth, rows, ids, matching, shown_above)
    fps = len(pictures) / seconds
    return Result(mean, classes, shown, len(pictures), fps, matching.unknown_to_model, matching.not_annotated)


def _silent(done: int, total: int) -> None:
    """Progress that nobody watches."""


def check(class_names: Sequence[str], images_dir: Path, annotations: Path) -> None:
    """Raise, without a model, what `evaluate` would of annotations and images that are wrong or not there."""
    _, _, pictures = _prepared(class_names, annotations)
    for picture in pictures:
        if not (images_dir / picture["file_name"]).exists():
            raise SourceError(f"the annotated image {images_dir / picture['file_name']} is not there")
    for picture in pictures:
        read_picture(images_dir, picture)


def _prepared(
    class_names: Sequence[str], annotations: Path, limit: int | None = None
) -> tuple[GroundTruth, _Matching, list[_Picture]]:
    """What the pictures show, which of its classes are scored, and the pictures, in which there is one to be found."""
    truth = read_ground_truth(annotations)
    matching = _match(class_names, truth.boxes, annotations)
    by_id = cast("Mapping[int, _Picture]", truth.boxes.imgs)
    pictures = [by_id[i] for i in sorted(by_id)[:limit]]
    if not pictures:
        raise SourceError(f"there are no images to score in {annotations}")
    objects = _count(truth.boxes, [picture["id"] for picture in pictures])
    if not any(objects[category] for category in matching.names):
        raise SourceError(
            f"{annotations}: none of the images shows an annotated object of a class that the model knows"
        )
    return truth, matching, pictures


def _match(class_names: Sequence[str], truth: COCO, annotations: Path) -> _Matching:
    names = {category["id"]: category["name"] for category in truth.dataset["categories"]}
    partner = _partners(class_names, names.values())
    known = {name: i for i, name in names.items()}
    category_of = {k: known[partner[name]] for k, name in enumerate(class_names) if name in partner}
    if not category_of:
        raise UsageError(
            f"the model and {annotations} have no class in common: it knows {_some(class_names)}; "
            f"annotated are {_some(list(names.values()))}"
        )
    scored = set(category_of.values())
    return _Matching(
        category_of=category_of,
        names={i: name for i, name in names.items() if i in scored},
        unknown_to_model=tuple(name for i, name in names.items() if i not in scored),
        not_annotated=tuple(name for k, name in enumerate(class_names) if k not in category_of),
    )


def _partners(ours: Iterable[str], theirs: Iterable[str]) -> dict[str, str]:
    """Which annotated name each of the model's is: the same one, or else the only one that differs in spelling alone.

    Where several of a side are spelt alike, nothing says which is meant, and a wrong guess would pass for a bad model.
    """
    left, right = set(ours), set(theirs)
    same = left & right
    mine, annotated = _by_key(left - same), _by_key(right - same)
    alike = {
        names[0]: annotated[key][0]
        for key, names in mine.items()
        if len(names) == 1 and len(annotated.get(key, ())) == 1
    }
    return {name: name for name in same} | alike


def _by_key(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_key(name), []).append(name)
    return found


def _key(name: str) -> str:
    """What is left of a class name when case, spaces, hyphens inside and Pascal VOC's other words are taken away.

    Other signs tell classes apart (1.5 mm and 15 mm, C and C++), as do the vowels that many scripts write as marks.
    """
    bare = unicodedata.normalize("NFC", re.sub(r"[\s_]|(?<=\S)-(?=\S)", "", name.casefold()))
    return _ALIASES.get(bare, bare)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


class _Row(TypedDict):
    """One detection as pycocotools wants it."""

    id: int
    image_id: int
    category_id: int
    score: float
    bbox: list[float]
    area: float
    iscrowd: int
    segmentation: dict[str, object]


def _detect_all(
    segmenter: Segmenter, pictures: Sequence[_Picture], folder: Path, matching: _Matching, progress: Progress
) -> tuple[list[_Row], float]:
    """Every detection of a class that is scored, and the seconds spent in the segmenter."""
    rows: list[_Row] = []
    segmenter([read_picture(folder, pictures[0])])  # warm-up
    seconds = 0.0
    for start in range(0, len(pictures), segmenter.max_batch):
        batch = pictures[start : start + segmenter.max_batch]
        images = [read_picture(folder, picture) for picture in batch]
        begun = time.perf_counter()
        found = segmenter(images)
        seconds += time.perf_counter() - begun
        for picture, detections in zip(batch, found, strict=True):
            rows += _rows(detections, picture, matching, len(rows))
        progress(start + len(batch), len(pictures))
    return rows, seconds


def read_picture(folder: Path, picture: Mapping[str, Any]) -> Image:
    """The pixels (H, W, 3) BGR of an entry of `images`, as its annotations are. Raises `SourceError`."""
    size = picture["height"], picture["width"]
    return read_annotated(folder / picture["file_name"], size, upright=picture.get("upright", False))


def read_annotated(path: Path, size: tuple[int, int], *, upright: bool = False) -> Image:
    """The pixels (H, W, 3) BGR as annotated: as they are stored, or `upright`, as a camera may have noted in the file.

    What is transparent is on black, as a user's pictures come to the model.

    Raises `SourceError` for a file that cannot be read, or is not of the `size` (height, width) of its annotations.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"the annotated image {path} cannot be read: {error.strerror}") from error
    image = decoded(data, upright=upright)
    if not upright and (image is None or image.shape[:2] != size) and _is_so_upright(data, size):
        raise SourceError(
            f"{path} is {size[1]}x{size[0]}, as its annotations are for, only when it is turned as the camera noted: "
            'if it was annotated as viewers show it, say "upright": true in the entry of each such image'
        )
    if image is None:
        raise SourceError(f"the annotated image {path} is damaged, too large or of an unknown format")
    if image.shape[:2] != size:
        raise SourceError(
            f"{path} is {image.shape[1]}x{image.shape[0]}, its annotations are for "
            f"{size[1]}x{size[0]}: give the images that were annotated"
        )
    return image


def _is_so_upright(data: bytes, size: tuple[int, int]) -> bool:
    """Whether a file is of the `size` (height, width) when it is turned as a camera may have noted in it."""
    image = decoded(data)
    return image is not None and image.shape[:2] == size


def _rows(detections: Detections, picture: _Picture, matching: _Matching, seen: int) -> list[_Row]:
    detections = detections.finite()  # pycocotools takes what has no place for right, with any object
    mine = np.flatnonzero(np.isin(detections.class_ids, list(matching.category_of)))
    return [_row(detections, int(i), picture, matching, seen + k + 1) for k, i in enumerate(mine)]


def _row(detections: Detections, i: int, picture: _Picture, matching: _Matching, number: int) -> _Row:
    x1, y1, x2, y2 = (float(edge) for edge in detections.boxes[i])
    return _Row(
        id=number,
        image_id=picture["id"],
        category_id=matching.category_of[int(detections.class_ids[i])],
        score=float(detections.scores[i]),
        bbox=[x1, y1, x2 - x1, y2 - y1],
        area=(x2 - x1) * (y2 - y1),
        iscrowd=0,
        segmentation=encoded(detections.boxes[i], detections.masks[i], (picture["height"], picture["width"])),
    )


def encoded(box: NDArray[np.float32], mask: NDArray[np.float32], size: tuple[int, int]) -> dict[str, Any]:
    """One detection's mask at full (height, width) `size` as COCO's compressed run lengths; `counts` are bytes."""
    from pycocotools import mask as coco_mask

    whole = np.zeros(size, np.uint8, order="F")
    rows, columns, bitmask = mask_roi(box, mask, size[::-1])
    whole[rows, columns] = bitmask
    return dict(coco_mask.encode(whole))


def _score(
    truth: GroundTruth, rows: list[_Row], ids: list[int], matching: _Matching, shown_above: float
) -> tuple[Accuracy, tuple[Accuracy, ...], Shown]:
    found = index({**truth.boxes.dataset, "annotations": rows})
    category_ids = sorted(matching.names)
    boxes = _judge(truth, found, ids, category_ids, "bbox")
    masks = _judge(truth, found, ids, category_ids, "segm")
    objects = _count(truth.boxes, ids)
    shown, right = _count_shown(boxes, shown_above)
    classes = tuple(
        Accuracy(
            matching.names[c],
            objects[c],
            *box,
            *mask,
            precision=_per_cent(right[c], shown[c]),
            recall=_per_cent(right[c], objects[c]),
        )
        for c, box, mask in zip(category_ids, _average_precisions(boxes), _average_precisions(masks), strict=True)
        if not math.isnan(box[0])
    )
    mean = _mean(classes)
    recall = _per_cent(right.total(), mean.objects)
    return mean, classes, Shown(shown_above, shown.total(), _per_cent(right.total(), shown.total()), recall)


def _judge(
    truth: GroundTruth, found: COCO, ids: list[int], category_ids: list[int], kind: Literal["bbox", "segm"]
) -> COCOeval:
    from pycocotools.cocoeval import COCOeval

    judge = COCOeval(truth.boxes if kind == "bbox" else truth.masks, found, kind)
    judge.params.imgIds = ids
    judge.params.catIds = category_ids
    with quiet():
        judge.evaluate()
        _forgive(judge.evalImgs, truth)
        judge.accumulate()
    return judge


def _average_precisions(judge: COCOeval) -> list[tuple[float, float]]:
    """(AP, AP50) of each category, in per cent; NaN where there was nothing to find."""
    # Axes: IoU threshold, recall, category, object size (0: any), most detections (-1: 100).
    precision = judge.eval["precision"][:, :, :, 0, -1]
    return [(_average(precision[:, :, k]), _average(precision[:1, :, k])) for k in range(precision.shape[2])]


def _count_shown(judge: COCOeval, shown_above: float) -> tuple[Counter[int], Counter[int]]:
    """How many detections of each category score above `shown_above`, and how many of them match an object, IoU 0.50.

    What lies in a crowd or may be an object that nobody annotated counts for neither. Objects go to detections by
    falling score, so that those below `shown_above` take nothing from those above.
    """
    shown, right = Counter[int](), Counter[int]()
    any_size = judge.params.areaRng[0]
    for match in judge.evalImgs:
        if match and match["aRng"] == any_size:
            counts = (np.array(match["dtScores"]) > shown_above) & ~np.array(match["dtIgnore"][0], bool)
            shown[match["category_id"]] += int(counts.sum())
            right[match["category_id"]] += int((counts & (np.array(match["dtMatches"][0]) > 0)).sum())
    return shown, right


def _per_cent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else math.nan


def _forgive(matches: Sequence[_ImageEvaluationResult], truth: GroundTruth) -> None:
    """Take no detection for wrong that may be an object which nobody annotated, as LVIS does (Gupta 2019)."""
    for match in matches:
        # None where there was neither an object nor a detection.
        if match and not truth.is_exhaustive(match["image_id"], match["category_id"]):
            match["dtIgnore"] = np.maximum(match["dtIgnore"], match["dtMatches"] == 0)


def _average(precision: NDArray[np.float64]) -> float:
    """pycocotools writes -1 where a class has no objects."""
    return float(precision.mean()) * 100 if (precision > -1).all() else math.nan


def _count(truth: COCO, ids: Sequence[int]) -> Counter[int]:
    annotations = truth.loadAnns(truth.getAnnIds(imgIds=ids, iscrowd=False))
    return Counter(annotation["category_id"] for annotation in annotations)


def _mean(classes: Sequence[Accuracy]) -> Accuracy:
    columns = zip(
        *((c.box_ap, c.box_ap50, c.mask_ap, c.mask_ap50, c.precision, c.recall) for c in classes), strict=True
    )
    return Accuracy(f"mean of {len(classes)}", sum(c.objects for c in classes), *map(_mean_of_known, columns))


def _mean_of_known(figures: Sequence[float]) -> float:
    known = [figure for figure in figures if not math.isnan(figure)]
    return sum(known) / len(known) if known else math.nan


def _table(lines: Sequence[Accuracy]) -> list[str]:
    width = max(len("class"), *(columns(line.name) for line in lines))
    heading = f"{'class':<{width}}  objects  box AP   AP50  mask AP   AP50  precision  recall"
    return [heading, *(_line(accuracy, width) for accuracy in lines)]


def _line(accuracy: Accuracy, width: int) -> str:
    boxes = f"{accuracy.box_ap:>6.1f} {accuracy.box_ap50:>6.1f}"
    masks = f"{accuracy.mask_ap:>7.1f} {accuracy.mask_ap50:>6.1f}"
    shown = f"{accuracy.precision:>9.1f} {accuracy.recall:>7.1f}"
    return f"{padded(accuracy.name, width)}  {accuracy.objects:>7}  {boxes}  {masks}  {shown}"
