"""Mirror images as other looks: photos both ways, every other frame of films, and that what is found is where it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream_seg.agreement import agreed
from stream_seg.cli import main
from stream_seg.detections import Detections
from stream_seg.frame import Frame, Image
from stream_seg.geometry import Letterbox, is_mirrored, mask_roi, mirrored, mirrored_back, paste, resize
from stream_seg.pipeline import Feed, Pipeline
from stream_seg.segmenters import FunctionSegmenter, ModelSegmenter, load_segmenter
from stream_seg.segmenters.looks import Alternating, BothWays, Sliced
from stream_seg.sinks import ListSink
from stream_seg.sources import ListSource
from stream_seg.steady import DOUBTFUL, Steady
from tests.tiny_models import LABELS, batched_model

ROOT = Path(__file__).parent.parent
PHOTO = ROOT / "samples" / "photo.jpg"
NAMES = ("thing", "other")
SIZE = (64, 48)
HERE = (4.0, 10.0, 20.0, 40.0)
BACK = (44.0, 10.0, 60.0, 40.0)
"""The same in the mirror image."""
Box = tuple[float, float, float, float]


def found(*objects: tuple[Box, float], class_id: int = 0, cells: int = 4) -> Detections:
    """Of (box, score); masks are there on the left alone."""
    masks = np.zeros((len(objects), cells, cells), np.float32)
    masks[:, :, : cells // 2] = 1
    boxes = np.array([box for box, _ in objects], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score in objects], np.float32)
    return Detections(boxes, scores, np.full(len(objects), class_id, np.int64), masks, NAMES)


def picture(left: int = 0) -> Image:
    """Dark, and bright on the left, where `left` is its blue."""
    image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    image[10:40, 4:20] = 255
    image[:, :, 0] = left
    return image


class Bright(ModelSegmenter):
    """Finds what is bright, `surer` where that is on the left, and keeps what it saw."""

    class_names = NAMES
    max_batch = 4

    def __init__(self, surer: float = 0.0) -> None:
        self.seen: list[Image] = []
        self._surer = surer

    def __call__(self, images: Sequence[Image]) -> list[Detections]:
        self.seen += [image.copy() for image in images]
        return [self._find(image) for image in images]

    def _find(self, image: Image) -> Detections:
        rows, columns = np.nonzero(image[:, :, 2] > 128)
        if not rows.size:
            return found()
        box = (float(columns.min()), float(rows.min()), columns.max() + 1.0, rows.max() + 1.0)
        return found((box, 0.5 + (self._surer if box[0] < 32 else 0)))


class TestImages:
    def test_what_is_found_in_the_mirror_image_is_where_it_is(self) -> None:
        back = mirrored_back(found((BACK, 0.9), ((0.0, 0.0, 64.0, 48.0), 0.8)), SIZE[0])
        assert back.boxes.tolist() == [list(HERE), [0, 0, *SIZE]]
        rows, columns, mask = mask_roi(back.boxes[0], back.masks[0], SIZE)
        assert mask[15, 9:15].all()
        assert not mask[:, :7].any()
        assert (columns.start, columns.stop, rows.start, rows.stop) == (4, 20, 10, 40)

    def test_views_that_are_no_mirror_images_pass_for_none(self) -> None:
        image = np.zeros((48, 64, 3), np.uint8)
        assert is_mirrored(mirrored(image))
        turned = (np.asarray(np.rot90(image, times), np.uint8) for times in range(4))
        assert not any(map(is_mirrored, (*turned, image[::-1], image[:, :, ::-1], image[:, ::2])))
        assert not is_mirrored(mirrored(mirrored(image)))

    @pytest.mark.parametrize("size", [(64, 48), (30, 22), (13, 48), (150, 100)])
    def test_a_mirror_image_is_scaled_as_one_that_was_copied(self, size: tuple[int, int]) -> None:
        image = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
        copied = np.ascontiguousarray(image[:, ::-1])
        for averaging in (True, False):
            both = (resize(one, size, averaging=averaging) for one in (mirrored(image), copied))
            assert np.abs(np.subtract(*both, dtype=np.int16)).max() <= 1
        canvases = np.ones((2, 64, 64, 3), np.uint8)
        for one, canvas in zip((mirrored(image), copied), canvases, strict=True):
            Letterbox((64, 48), (64, 64)).apply(one, canvas)
        assert (canvases[0] == canvases[1]).all()


class TestPlaces:
    def test_a_mirror_image_is_shifted_in_its_canvas_by_less_than_a_step_of_the_grid(self, tmp_path: Path) -> None:
        """Of 416x208 in 416x256, 24 pixels down: boxes from the top to its end, over what is above it, from the middle
        of both on.
        """
        fractions = np.array([[0, 0, 1, 1], [0, 0, 1, 23 / 232], [0, 0.5, 0.5, 1]], np.float32)
        masks = np.zeros((3, 28, 28), np.float32)
        masks[0, 14:] = masks[2] = 1
        model = batched_model(tmp_path / "a.onnx", masks=masks, fractions=fractions)
        image = np.full((208, 416, 3), 255, np.uint8)
        with load_segmenter(model, device="cpu") as segmenter:
            straight, turned = segmenter([image, mirrored(image)])
        assert straight.boxes[0].tolist() == [0, 0, 416, 208]
        assert straight.boxes[1:].tolist() == [pytest.approx([0, 0, 416, 23 / 232 * 208]), [0, 104, 208, 208]]
        assert turned.boxes.tolist() == [[0, 0, 416, 208], [0, 92, 208, 208]]  # what is in no image is none
        assert turned.names == ["red", "blue"]
        grey = [48 / 232 * colour / 255 for colour in (124, 104)]  # around it is the mean of the network's training
        assert turned.scores == pytest.approx([208 / 232 + each for each in grey], abs=0.003)
        first_rows = [int(np.flatnonzero(paste(one, (416, 208))[0].any(1))[0]) for one in (straight, turned)]
        assert first_rows == [pytest.approx(104, abs=4), pytest.approx(92, abs=4)]


class TestAgreed:
    def test_both_looks_say_how_likely_a_thing_is_and_where(self) -> None:
        seen = found((HERE, 0.9))
        other = found(((4.0, 10.0, 24.0, 40.0), 0.3))
        other.masks[:] = 0.5
        one = agreed(seen, other, 0.5)
        assert one.masks[0, 0] == pytest.approx([0.875, 0.875, 0.125, 0.125])
        assert one.scores == pytest.approx([0.6 + 0.15 * 0.6 * 0.4])
        assert one.boxes.tolist() == [pytest.approx([4, 10, 21, 40])]
        assert seen.boxes.tolist() == [list(HERE)]  # which it was given, and left alone
        assert len(agreed(found((HERE, 0.9)), found((HERE, 0.2)), 0.5)) == 1

    def test_what_one_look_misses_counts_half_whichever_it_is(self) -> None:
        seen, surely = found((HERE, 0.8)), found((HERE, 0.99))
        for looks in ((seen, found()), (found(), seen)):
            assert len(agreed(*looks, 0.5)) == 0
            assert agreed(*looks, 0.3).scores == pytest.approx([0.4])
            assert len(agreed(*looks, 0.4)) == 0  # which it is not above
        assert len(agreed(surely, found((HERE, 0.99), class_id=1), 0.49)) == 2
        assert len(agreed(seen, found((BACK, 0.8)), 0.5)) == 0
        assert len(agreed(found(), found(), 0.0)) == 0
        assert agreed(seen, found(cells=8), 0.3).masks.shape == (1, 4, 4)  # as its model made them

    def test_the_likeliest_comes_first_with_its_own_mask(self) -> None:
        one = found((HERE, 0.7), ((30.0, 0.0, 40.0, 10.0), 0.6))
        other = found(((30.0, 0.0, 40.0, 10.0), 0.9), (BACK, 0.85), (HERE, 0.4), cells=8)
        other.masks[1] = 0.25
        other.class_ids[1] = one.class_ids[0] + 1
        both = agreed(one, other, 0.3)
        assert both.class_ids.tolist() == [0, 0, 1]
        assert both.boxes.tolist() == [[30, 0, 40, 10], list(HERE), list(BACK)]
        assert both.masks.shape == (3, 8, 8)
        assert (both.masks[2] == 0.25).all()
        assert (both.masks[:2, :, :4] == 1).all()

    def test_scores_stay_below_one(self) -> None:
        assert agreed(found((HERE, 1.0)), found((HERE, 1.0)), 0.5).scores.tolist() == [1]
        assert len(agreed(found((HERE, 0.0)), found((HERE, 0.0)), 0.0)) == 0

    def test_looks_of_a_segmenter_of_ones_own_may_differ_in_kind(self) -> None:
        """Masks of bytes, boxes and scores of whole numbers, and no names where nothing was found, are valid, too."""
        seen = found((HERE, 0.9))
        nothing = Detections.none(())
        for one, other in ((seen, nothing), (nothing, seen)):
            (alone,) = agreed(one, other, 0.35)
            assert (alone.names, alone.scores.tolist()) == (["thing"], [pytest.approx(0.45)])
        whole = Detections(
            np.array([HERE], int), np.ones(1, int), np.zeros(1, int), np.ones((1, 4, 4), np.uint8), NAMES
        )
        both = agreed(whole, seen, 0.35)
        assert both.boxes.tolist() == [list(HERE)]
        assert both.scores.tolist() == [pytest.approx(0.95 + 0.15 * 0.95 * 0.05)]
        assert both.masks[0, 0].tolist() == pytest.approx([1, 1, 1 / 1.9, 1 / 1.9])
        assert agreed(whole, whole, 0.35).masks.tolist() == whole.masks.tolist()


class TestPhotos:
    def test_each_is_looked_at_as_it_is_and_mirrored(self) -> None:
        inner = Bright(surer=0.4)
        pictures = [picture(left) for left in (0, 50, 100)]
        results = BothWays(inner, 0.5)(pictures)
        assert [result.boxes.tolist() for result in results] == [[list(HERE)]] * 3
        assert results[0].scores == pytest.approx([0.7 + 0.15 * 0.7 * 0.3])
        for image, seen, turned in zip(pictures, inner.seen[::2], inner.seen[1::2], strict=True):
            assert (seen == image).all()
            assert (turned == image[:, ::-1]).all()

    @pytest.mark.parametrize("slices", [None, (2, 1)])
    @pytest.mark.parametrize("size", [(100, 60), (77, 33), (20, 20), (1, 1), (2000, 20)])
    def test_what_both_looks_find_is_where_it_is(self, size: tuple[int, int], slices: tuple[int, int] | None) -> None:
        inner = Bright() if slices is None else Sliced(Bright(), *slices)
        for x, y in ((0, 0), (size[0] - 1, size[1] - 1), (size[0] // 3, size[1] // 2)):
            image = np.zeros((size[1], size[0], 3), np.uint8)
            image[y, x] = 255
            (seen,) = BothWays(inner, 0.3)([image])
            assert seen.boxes.tolist() == [[x, y, x + 1, y + 1]]

    def test_masks_are_turned_back(self) -> None:
        class Outlining(Bright):
            def _find(self, image: Image) -> Detections:
                mask = (image[None, :, :, 0] > 128).astype(np.float32)
                return replace(found(((0, 0, image.shape[1], image.shape[0]), 0.9)), masks=mask)

        image = np.zeros((30, 40, 3), np.uint8)
        image[5:20, 3:9] = image[15:20, 3:30] = 255
        (seen,) = BothWays(Outlining(), 0.5)([image])
        assert (paste(seen, (40, 30))[0] == (image[:, :, 0] > 0)).all()

    def test_a_batch_is_as_many_images_as_their_looks_fill(self) -> None:
        for most, both in ((1, 1), (8, 4)):
            assert BothWays(FunctionSegmenter(Bright()._find, NAMES, max_batch=most), 0.5).max_batch == both

    def test_the_model_says_whether_and_how_large(self, tmp_path: Path) -> None:
        says = {"labels": LABELS, "mirrored": "yes", "still_size": "128", "long_side": "96"}
        model, silent = (
            batched_model(tmp_path / name, metadata=metadata)
            for name, metadata in (("a.onnx", says), ("b.onnx", {"labels": LABELS, "long_side": "96"}))
        )
        for path, images, mirror, kind, side in (
            (model, "stills", None, BothWays, "128"),
            (model, "stills", False, None, "128"),
            (model, "films", None, Alternating, "96"),
            (model, "films", True, BothWays, "96"),
            (model, "films", False, None, "96"),
            (model, None, None, None, "96"),
            (model, None, True, BothWays, "96"),
            (silent, "stills", None, None, "96"),
            (silent, "films", None, None, "96"),
            (silent, "stills", True, BothWays, "96"),
        ):
            with load_segmenter(path, device="cpu", images=images, mirror=mirror) as segmenter:  # type: ignore[arg-type]
                assert isinstance(segmenter, kind or ModelSegmenter)
                assert isinstance(segmenter, BothWays | Alternating) == (kind is not None)
                assert f"{side} px" in segmenter.description
                assert segmenter.shown_from == (0.5 if kind is Alternating else None)
        with load_segmenter(model, device="cpu", images="stills", long_side=64) as segmenter:
            assert "64 px" in segmenter.description
        silent = batched_model(tmp_path / "c.onnx", metadata={"labels": LABELS, "canvases": "160x96,96x160"})
        with load_segmenter(silent, device="cpu", images="stills") as segmenter:
            assert "160 px" in segmenter.description

    def test_a_graph_of_one_size_takes_photos_in_it_and_says_nothing_of_another(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        says = {"labels": LABELS, "still_size": "640"}
        model = batched_model(tmp_path / "a.onnx", images=["N", 96, 128, 3], metadata=says)
        with load_segmenter(model, device="cpu", images="stills") as segmenter:
            assert "128 px" in segmenter.description
        assert not caplog.messages

    def test_looks_tell_of_what_the_other_may_find_likelier(self, tmp_path: Path) -> None:
        """The tiny network's scores are how bright a colour is, here in either look, for the image fills its canvas."""
        model = batched_model(tmp_path / "a.onnx", metadata={"labels": LABELS, "mirrored": "yes"})
        image = np.full((72, 104, 3), (0.48 * 255, 0.3 * 255, 0.99 * 255), np.uint8)  # blue is where it was
        for images, names in (("films", ["red", "blue"]), ("stills", ["blue"]), (None, ["red"])):
            with load_segmenter(model, device="cpu", score_threshold=0.5, images=images) as segmenter:  # type: ignore[arg-type]
                assert segmenter([image])[0].names == names
                assert segmenter.shown_from == (0.5 if images == "films" else None)

    def test_the_built_in_model_sees_no_ghost_in_the_sample(self) -> None:
        image = cv2.imread(str(PHOTO))
        assert image is not None
        names = []
        for mirror in (False, None):
            with load_segmenter("compact", device="cpu", images="stills", mirror=mirror) as segmenter:
                names.append(segmenter([np.asarray(image, np.uint8)])[0].names)
        assert sorted(names[0]) == ["cat", "mouse", "person"]  # the helmet
        assert sorted(names[1]) == ["cat", "person"]

    def test_the_command_does_so_unless_told_otherwise(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for number, (options, ghost) in enumerate((([], ""), (["--no-mirror"], ", mouse 1"), (["--size", "416"], ""))):
            argv = [str(PHOTO), "-o", str(tmp_path / f"{number}.png"), "--device", "cpu", *options]
            assert main(argv) == 0
            assert f"objects (person 1, cat 1{ghost})" in capsys.readouterr().out


class TestFilms:
    def test_every_other_frame_is_mirrored_and_what_is_found_is_where_it_is(self) -> None:
        inner, kept = Bright(), ListSink()
        Pipeline(ListSource([picture(i) for i in range(7)]), Alternating(inner, 0.5), sinks=[kept], batch_size=3).run()
        turned = [bool(image[20, 50, 2]) for image in sorted(inner.seen, key=lambda image: int(image[0, 0, 0]))]
        assert turned == [False, True, True, False, True, False, True, False]  # the first one both ways
        assert [one.boxes.tolist() for one in kept.detections] == [[list(HERE)]] * 7
        assert kept.detections[0].scores == pytest.approx([0.5 + 0.15 * 0.5 * 0.5])
        left = [one.masks[0, 0].tolist() for one in kept.detections]
        assert left == [[0.5] * 4] + [[0, 0, 1, 1], [1, 1, 0, 0]] * 3  # it finds masks on the left

    @pytest.mark.parametrize(("batch_size", "sources"), [(1, 1), (3, 1), (None, 3), (2, 3)])
    def test_a_first_frame_makes_no_call_larger(self, batch_size: int | None, sources: int) -> None:
        inner = Bright()
        calls: list[int] = []

        class Counting(Alternating):
            def __call__(self, images: Sequence[Image]) -> list[Detections]:
                calls.append(len(images))
                return super().__call__(images)

        feeds = [Feed(ListSource([picture(number)] * 4), name=str(number)) for number in range(sources)]
        Pipeline(feeds, Counting(inner, 0.5), batch_size=batch_size).run()
        assert sum(calls) == 5 * sources
        assert max(calls) <= (batch_size or inner.max_batch)

    def test_each_source_by_turns_of_its_own(self) -> None:
        inner = Bright()
        feeds = [Feed(ListSource([picture(left)] * 4), name=str(left)) for left in (10, 20, 30)]
        Pipeline(feeds, Alternating(inner, 0.5)).run()
        for left in (10, 20, 30):
            seen = [image for image in inner.seen if image[0, 0, 0] == left]
            assert sorted(bool(image[20, 50, 2]) for image in seen) == [False, False, True, True, True]

    def test_images_of_their_own_are_looked_at_as_they_are(self, tmp_path: Path) -> None:
        inner = Bright()
        frames = [Frame.still(picture(i)) for i in range(3)]
        Pipeline(Given(frames), Alternating(inner, 0.5)).run()
        assert not any(image[20, 50, 2] for image in inner.seen)

    def test_frames_that_are_not_looked_at_take_no_turn(self) -> None:
        inner = Bright()
        summary = Pipeline(ListSource([picture()] * 70), Alternating(inner, 0.5), on_change=True).run()
        assert summary.unchanged == 70 - len(inner.seen[1:]) > 60
        turned = [bool(image[20, 50, 2]) for image in inner.seen]
        assert turned == [False, True, True, False, True, False, True]  # the last two a second after the ones before

    def test_frames_far_apart_which_are_shown_by_themselves_are_looked_at_as_they_are(self) -> None:
        inner, seconds = Bright(), [0, 0.25, 0.51, 0.6, 0.7, 0.8, 1.1, 0.0, 0.1, 0.1]
        frames = [Frame(picture(), number, Fraction(at), 0.0) for number, at in enumerate(seconds)]
        Pipeline(Given(frames), Alternating(inner, 0.5)).run()
        turned = [number for number, image in enumerate(inner.seen[1:]) if image[20, 50, 2]]
        assert turned == [0, 1, 3, 5, 8]

    def test_others_get_frames_as_they_are(self) -> None:
        inner = Bright()
        Pipeline(ListSource([picture()] * 4), inner).run()
        assert not any(image[20, 50, 2] for image in inner.seen)

    @pytest.mark.parametrize("start", ["0", "5.6"])
    def test_the_sample_shows_no_ghost(self, start: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A photo that is a keyboard in the first frames, and a helmet that is a mouse in later ones."""
        argv = [str(ROOT / "samples" / "clip.mp4"), "-o", str(tmp_path / "a.jsonl"), "--overwrite", "--device", "cpu"]
        argv += ["--start", start, "--max-frames", "30"]
        ghosts = []
        for options in ([], ["--no-mirror"]):
            assert main([*argv, *options]) == 0
            shown = (tmp_path / "a.jsonl").read_text()
            assert shown.count('"person"') == shown.count('"cat"') == 30
            ghosts.append(sum(shown.count(f'"{name}"') for name in ("mouse", "keyboard", "laptop")))
        assert ghosts[0] == 0 < ghosts[1]


class TestSteady:
    """What is shown of a film whose frames are mirrored by turns."""

    def film(self, *looks: Detections, threshold: float | None = 0.5) -> list[Detections]:
        steady, image = Steady(shown_from=threshold), picture()
        return [steady(Frame(image, i, Fraction(i, 30), 0.0), look) for i, look in enumerate(looks)]

    def test_what_only_every_other_frame_sees_goes(self) -> None:
        ghost, nothing = found((HERE, 0.8)), found()
        shown = self.film(nothing, *[ghost, nothing] * 10)
        assert [len(one) for one in shown[3:]] == [0] * 18
        assert [len(one) for one in self.film(nothing, *[ghost, nothing] * 10, threshold=None)[4:]] == [1] * 17

    def test_what_is_doubtful_in_every_other_frame_stays(self) -> None:
        sure, doubtful = found((HERE, 0.7)), found((HERE, 0.5 * DOUBTFUL + 0.01))
        assert [len(one) for one in self.film(*[sure, doubtful] * 10)] == [1] * 20
        assert self.film(sure, found((HERE, 0.5)))[1].scores == pytest.approx([0.6])  # the mean of the first looks
        assert [len(one) for one in self.film(*[doubtful] * 20)] == [0] * 20

    def test_what_is_shown_does_not_flicker_at_the_threshold(self) -> None:
        sure = found((HERE, 0.7))
        around = [found((HERE, score)) for score in (0.44, 0.52, 0.45, 0.5, 0.46)] * 6
        assert [len(one) for one in self.film(sure, *around)] == [1] * 31
        assert [len(one) for one in self.film(found(), *around)] == [0] * 31

    def test_boxes_and_masks_that_are_pushed_away_by_turns_stay_between(self) -> None:
        wide, narrow = ((4.0, 10.0, 22.0, 40.0), 0.9), ((4.0, 10.0, 20.0, 40.0), 0.9)
        shown = self.film(*[found(wide), found(narrow)] * 10)
        edges = [float(one.boxes[0, 2]) for one in shown[4:]]
        assert 20.5 < min(edges) <= max(edges) < 21.5
        alone = [float(one.boxes[0, 2]) for one in self.film(*[found(wide), found(narrow)] * 10, threshold=None)[4:]]
        assert max(np.abs(np.diff(edges))) * 4 < max(np.abs(np.diff(alone)))

    def test_an_image_of_its_own_is_shown_from_the_score_on(self) -> None:
        steady = Steady(shown_from=0.5)
        one = steady(Frame.still(picture()), found((HERE, 0.5), (BACK, 0.55)))
        assert one.boxes.tolist() == [list(BACK)]


class Given:
    """A source of frames as they are given."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._frames = frames
        self._list = ListSource([frame.image for frame in frames])
        self.info = self._list.info

    def __enter__(self) -> Given:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._frames)

    def close(self) -> None:
        return
