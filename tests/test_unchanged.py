"""Frames that show what the one before did: which these are, and that what was found before is shown in them."""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream_seg.cli import main
from stream_seg.detections import Detections
from stream_seg.frame import Frame, Image
from stream_seg.metrics import Metrics
from stream_seg.pipeline import Feed, Pipeline
from stream_seg.protocols import Follower
from stream_seg.segmenters import FunctionSegmenter
from stream_seg.sinks import ListSink, VideoFile
from stream_seg.sources import ListSource
from stream_seg.steady import OFTEN, SURE, Steady
from stream_seg.unchanged import AGAIN, Unchanged
from tests.test_cli import failure

SIZE = (640, 360)
NAMES = ("thing",)
SEEN = [False] * OFTEN
"""Of frames from a change on: these are not unchanged."""
HERE = (100.0, 100.0, 200.0, 200.0)


def scene(size: tuple[int, int] = SIZE) -> Image:
    """A picture with edges, light and dark."""
    rows, columns = np.indices((size[1], size[0]))
    return np.repeat(((rows // 40 + columns // 40) % 4 * 60 + 20)[..., None], 3, axis=2).astype(np.uint8)


def at(image: Image, seconds: float) -> Frame:
    return Frame(image, 0, Fraction(seconds), time.monotonic())


def noisy(image: Image, seed: int) -> Image:
    """As a camera takes it, and as it is once it was coded."""
    taken = np.clip(image + np.random.default_rng(seed).normal(0, 5, image.shape), 0, 255).astype(np.uint8)
    _, packed = cv2.imencode(".jpg", taken, [cv2.IMWRITE_JPEG_QUALITY, 60])
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)


def with_object(image: Image, x: int, side: int = 20, lighter: int = 40) -> Image:
    image = image.copy()
    image[150 : 150 + side, x : x + side] = np.clip(image[150 : 150 + side, x : x + side].astype(int) + lighter, 0, 255)
    return image


def box(score: float = 0.9) -> Detections:
    grid = np.ones((1, 4, 4), np.float32)
    return Detections(np.array([HERE], np.float32), np.array([score], np.float32), np.zeros(1, np.int64), grid, NAMES)


class TestUnchanged:
    def test_noise_changes_nothing(self) -> None:
        unchanged = Unchanged()
        assert [unchanged(at(noisy(scene(), seed), seed / 30)) for seed in range(12)] == SEEN + [True] * 8

    @pytest.mark.parametrize("lighter", [40, -40])
    def test_what_comes_moves_and_goes_is_seen(self, lighter: int) -> None:
        images = [scene(), *(with_object(scene(), x, lighter=lighter) for x in (300, 310)), scene()]
        unchanged = Unchanged()
        found = [unchanged(at(image, i / 30)) for i, image in enumerate(image for image in images for _ in range(6))]
        assert found == [*SEEN, True, True] * 4

    def test_each_change_is_followed_for_as_many_frames(self) -> None:
        tones = [50, 50, 90, 90, 90, 90, 90, 90, 50, 90]
        unchanged = Unchanged()
        images = [np.full((90, 160, 3), tone, np.uint8) for tone in tones]
        found = [unchanged(at(image, i / 30)) for i, image in enumerate(images)]
        assert found == [False, False, *SEEN, True, True, False, False]

    def test_what_changes_slowly_is_seen_once_it_differs_from_what_was_looked_at(self) -> None:
        unchanged = Unchanged()
        found = [unchanged(at(scene() + np.uint8(i), i / 1000)) for i in range(36)]
        assert [i for i, one in enumerate(found) if not one] == [0, 1, 2, 3, 16, 17, 18, 19, 32, 33, 34, 35]

    def test_it_is_looked_at_again_after_a_while_and_where_time_or_size_is_another(self) -> None:
        unchanged = Unchanged()
        assert [unchanged(at(scene(), 0)) for _ in SEEN] == SEEN
        times = (0, AGAIN / 2, AGAIN - 0.01, AGAIN, AGAIN + 0.5, 0.2)
        assert [unchanged(at(scene(), t)) for t in times] == [True, True, True, False, True, False]
        assert not unchanged(at(scene((360, 640)), 0.3))

    @pytest.mark.parametrize("size", [(1, 1), (3, 2), (2000, 4), (161, 90)])
    def test_pictures_of_any_shape_are_compared(self, size: tuple[int, int]) -> None:
        unchanged = Unchanged()
        images = [np.full((size[1], size[0], 3), tone, np.uint8) for tone in (50, 50, 50, 50, 50, 90)]
        assert [unchanged(at(image, i / 30)) for i, image in enumerate(images)] == [*SEEN, True, False]

    def test_images_of_their_own_are_all_looked_at(self) -> None:
        unchanged = Unchanged()
        assert not any(unchanged(Frame.still(scene())) for _ in range(OFTEN + 2))


class Finding:
    """Finds a box whose score is the brightness of the picture, on two threads, the first call the slowest."""

    class_names = NAMES
    max_batch = 2
    concurrency = 2

    def __init__(self) -> None:
        self.seen: list[int] = []
        self._lock = threading.Lock()

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        with self._lock:
            self.seen += [int(image[0, 0, 0]) for image in images]
            first = len(self.seen) == len(images)
        if first:
            time.sleep(0.05)
        return [box(int(image[0, 0, 0]) / 255) for image in images]


def film(tones: Sequence[int]) -> ListSource:
    return ListSource([np.full((48, 64, 3), tone, np.uint8) for tone in tones], rate=30)


def test_the_model_gets_changed_frames_alone_and_all_have_what_was_found_last() -> None:
    films = [*[40] * 6, *[120] * 5, 40, *[200] * 6], [80, *[160] * 7]
    kept, segmenter, metrics = [ListSink(), ListSink()], Finding(), Metrics(["a", "b"])
    feeds = [Feed(film(tones), [sink], name=name) for tones, sink, name in zip(films, kept, "ab", strict=True)]
    summary = Pipeline(feeds, segmenter, on_change=True, metrics=metrics).run()
    assert sorted(segmenter.seen) == [*[40] * 5, 80, *[120] * 4, *[160] * 4, *[200] * 4]
    for tones, sink in zip(films, kept, strict=True):
        scores = [float(found.scores[0]) for found in sink.detections]
        assert scores == pytest.approx([tone / 255 for tone in tones])
        places = [place for _, same in itertools.groupby(tones) for place, _ in enumerate(same)]
        assert [frame.is_unchanged for frame in sink.frames] == [place >= OFTEN for place in places]
    assert (summary.delivered, summary.unchanged, summary.mean_batch >= 1) == (26, 8, True)
    assert [feed.unchanged for feed in summary.feeds] == [5, 3]


class Halving(ListSink):
    """Has boxes in pixels of pictures of its own, half as large."""

    def write(self, frame: Frame, detections: Detections) -> None:
        detections.boxes[:] /= 2
        super().write(frame, detections)


@pytest.mark.parametrize("follower", [None, Steady()])
def test_who_changes_what_was_found_in_a_frame_changes_it_in_no_other(follower: Follower | None) -> None:
    kept = Halving()
    segmenter = Finding()
    summary = Pipeline(film([200] * 8), segmenter, sinks=[kept], follower=follower, on_change=True, batch_size=1).run()
    assert (summary.unchanged, summary.mean_batch) == (4, 1)
    assert [found.boxes.ravel().tolist() for found in kept.detections] == [[edge / 2 for edge in HERE]] * 8


class Replayed(ListSource):
    """Frames that another pipeline has delivered, from one on that it had not looked at."""

    def __iter__(self) -> Iterator[Frame]:
        yield from (dataclasses.replace(frame, is_unchanged=True) for frame in super().__iter__())


@pytest.mark.parametrize(("on_change", "seen"), [(False, 6), (True, OFTEN)])
def test_what_another_pipeline_did_not_look_at_is_looked_at(on_change: bool, seen: int) -> None:
    source = Replayed([np.full((48, 64, 3), 200, np.uint8)] * 6, rate=30)
    kept, segmenter = ListSink(), Finding()
    summary = Pipeline(source, segmenter, sinks=[kept], on_change=on_change).run()
    assert (len(segmenter.seen), summary.unchanged) == (seen, 6 - seen)
    assert [len(found) for found in kept.detections] == [1] * 6
    assert [frame.is_unchanged for frame in kept.frames] == [place >= seen for place in range(6)]


def test_without_being_asked_for_the_model_gets_all() -> None:
    segmenter = Finding()
    assert Pipeline(film([40] * 5), segmenter).run().unchanged == 0
    assert segmenter.seen == [40] * 5


class TestSteady:
    def test_what_was_found_once_does_not_count_twice(self) -> None:
        steady, unsure = Steady(), box(SURE - 0.1)
        steady(at(scene(), 0), Detections.none(NAMES))
        for i in range(1, OFTEN):
            assert len(steady(at(scene(), i / 10), unsure)) == 0
            for later in (Fraction(0), Fraction(1, 30)):
                repeated = Frame(scene(), 0, Fraction(i, 10) + later, 0.0, is_unchanged=True)
                assert len(steady(repeated, unsure)) == 0
        assert len(steady(at(scene(), OFTEN / 10), unsure)) == 1

    def test_what_is_shown_stays_as_it_is_however_long_nothing_changes(self) -> None:
        steady = Steady()
        shown = [steady(at(scene(), 0), box(0.9))]
        later = [Frame(scene(), i, Fraction(i, 30), 0.0, is_unchanged=True) for i in range(1, 60)]
        shown += [steady(frame, box(0.9)) for frame in later]
        assert {tuple(found.boxes.ravel().tolist()) for found in shown} == {HERE}
        assert [found.ids.tolist() for found in shown if found.ids is not None] == [[1]] * 60
        assert shown[-1].ids is not None
        shown[-1].boxes[:] = shown[-1].ids[:] = 0  # what is passed on is the caller's
        again = steady(later[-1], box(0.9))
        assert (again.boxes.ravel().tolist(), again.ids) == (list(HERE), [1])
        assert steady(at(scene(), 2), box(0.9)).ids == [1]
        steady(Frame(scene(), 0, Fraction(5, 2), 0.0, is_unchanged=True), box(0.9))
        assert steady(at(scene(), 2.6), Detections.none(NAMES)).ids == [1]  # it was there a moment before

    def test_a_frame_that_nothing_was_shown_before_has_what_was_found(self) -> None:
        """As those that another pipeline has delivered begin."""
        steady, repeated = Steady(), Frame(scene(), 0, Fraction(0), 0.0, is_unchanged=True)
        assert len(steady(repeated, box(0.9))) == 1


def test_a_camera_that_sees_the_same_lets_the_model_rest(tmp_path: Path) -> None:
    still, out, figures = tmp_path / "still.mp4", tmp_path / "out.jsonl", tmp_path / "run.json"
    taken = [noisy(scene(), seed) for seed in range(20)]
    Pipeline(
        ListSource(taken), FunctionSegmenter(lambda _: Detections.none(NAMES), NAMES), sinks=[VideoFile(still)]
    ).run()
    command = [str(still), "-o", str(out), "--metrics", str(figures), "--device", "cpu", "--on-change"]
    assert main(command) == 0
    run = json.loads(figures.read_text())
    assert (run["delivered"], run["unchanged"], run["sources"][0]["unchanged"]) == (20, 16, 16)
    assert len(out.read_text().splitlines()) == 20


def test_who_is_to_be_hidden_must_not_be_seen_late(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out.mp4")
    code, line = failure(capsys, "synthetic:64x48@30x2", "-o", out, "--view", "blurred", "--on-change")
    assert (code, line.split(";")[0]) == (
        2,
        "stream-seg: --on-change may see too late who has come, and --view blurred is to hide them at once",
    )


def test_photos_are_told_to_be_no_film(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), scene())
    assert main([str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png"), "--on-change", "--device", "cpu"]) == 0
    assert "--on-change is for films, of which none was named: it has no effect" in capsys.readouterr().err
