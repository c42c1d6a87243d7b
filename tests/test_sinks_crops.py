"""One picture of each object: which look is kept, when it is written, what it is called, and what is never replaced."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream_seg.cli import main
from stream_seg.detections import Detections
from stream_seg.errors import OutputError, UsageError
from stream_seg.frame import Frame, Image, SourceInfo
from stream_seg.pipeline import Pipeline
from stream_seg.protocols import Outcome
from stream_seg.segmenters import FunctionSegmenter
from stream_seg.sinks import Crops, ListSink, crops
from stream_seg.sinks.part import PartFile, Target
from stream_seg.sources import ListSource, open_source
from stream_seg.steady import Steady
from tests.source_files import films_and_a_photo
from tests.test_cli import failure

SIZE = (320, 240)
FILM = SourceInfo("a film", SIZE, "video")
CAMERA = SourceInfo("a camera", SIZE, "live")
NAMES = ("person", "dog", "traffic light")

Box = tuple[float, float, float, float]


def found(*objects: tuple[int, Box], score: float = 0.8, names: Sequence[int] = (0, 1, 2)) -> Detections:
    """What has these numbers and boxes."""
    count = len(objects)
    return Detections(
        np.array([box for _, box in objects], np.float32).reshape(-1, 4),
        np.full(count, score, np.float32),
        np.array(names[:count], np.int64),
        np.ones((count, 4, 4), np.float32),
        NAMES,
        np.array([number for number, _ in objects], np.int64),
    )


def grey(level: int) -> Image:
    return np.full((SIZE[1], SIZE[0], 3), level, np.uint8)


def shown(level: int, seconds: float) -> Frame:
    """A frame by whose brightness it is known again."""
    return Frame(grey(level), 0, Fraction(seconds), time.monotonic())


def opened(folder: Path, about: SourceInfo = FILM, *, overwrite: bool = False, source: str | None = None) -> Crops:
    sink = Crops(folder / "crops", overwrite=overwrite, source=source)
    sink.open(about)
    return sink


def written(folder: Path) -> dict[str, tuple[int, tuple[int, int]]]:
    """The brightness and (width, height) of each crop, by its name."""
    pictures = {}
    for path in sorted((folder / "crops").rglob("*.jpg")):
        image = cv2.imread(str(path))
        assert image is not None
        name = path.relative_to(folder / "crops").as_posix()
        pictures[name] = round(float(image.mean())), (image.shape[1], image.shape[0])
    return pictures


def test_of_each_object_the_frame_is_kept_in_which_it_is_largest_with_a_margin(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.write(shown(10, 0), found((7, (100, 50, 140, 90)), (9, (200, 100, 260, 160))))
    sink.write(shown(60, 0.1), found((7, (100, 50, 200, 150)), (9, (200, 100, 230, 160))))
    sink.write(shown(90, 0.2), found((7, (100, 50, 150, 150))))
    assert sink.result is None
    sink.close(Outcome.COMPLETE)
    assert written(tmp_path) == {"dog-9.jpg": (10, (66, 66)), "person-7.jpg": (60, (110, 110))}
    assert sink.result == tmp_path / "crops"
    sink.close(Outcome.FAILED)


def test_a_score_counts_as_much_as_the_size(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.write(shown(10, 0), found((1, (100, 50, 140, 90)), score=0.9))
    sink.write(shown(60, 0.1), found((1, (100, 50, 144, 90)), score=0.5))
    sink.close(Outcome.COMPLETE)
    assert written(tmp_path)["person-1.jpg"][0] == 10


@pytest.mark.parametrize(("cut", "kept"), [((0, 50, 100, 150), 10), ((0, 0, 319, 239), 60)])
def test_what_the_border_cuts_off_is_kept_only_where_it_is_far_larger(cut: Box, kept: int, tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.write(shown(10, 0), found((1, (100, 50, 160, 110))))
    sink.write(shown(60, 0.1), found((1, cut)))
    sink.close(Outcome.COMPLETE)
    assert written(tmp_path)["person-1.jpg"][0] == kept


def test_a_look_that_is_hardly_better_is_not_copied(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.write(shown(10, 0), found((1, (100, 50, 200, 150))))
    sink.write(shown(60, 0.1), found((1, (100, 50, 205, 150))))
    sink.close(Outcome.STOPPED)
    assert written(tmp_path)["person-1.jpg"][0] == 10


def test_an_object_is_written_when_it_is_gone_and_again_if_it_comes_back_nearer(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.write(shown(10, 0), found((1, (100, 50, 140, 90)), (2, (200, 100, 260, 160))))
    sink.write(shown(20, 2), found((2, (200, 100, 260, 160)), names=[1]))
    assert written(tmp_path) == {}
    sink.write(shown(30, 4), found((2, (200, 100, 260, 160)), names=[1]))
    assert list(written(tmp_path)) == ["person-1.jpg"]
    sink.write(shown(40, 5), found((1, (100, 50, 130, 90))))
    sink.write(shown(50, 9), found())
    assert {name: look[0] for name, look in written(tmp_path).items()} == {"person-1.jpg": 10, "dog-2.jpg": 10}
    sink.write(shown(60, 10), found((1, (100, 50, 180, 130))))
    sink.close(Outcome.FAILED)
    assert {name: look[0] for name, look in written(tmp_path).items()} == {"person-1.jpg": 60, "dog-2.jpg": 10}


@pytest.mark.parametrize("overwrite", [False, True])
def test_objects_of_another_run_of_a_sink_are_others(overwrite: bool, tmp_path: Path) -> None:
    sink = Crops(tmp_path / "crops", overwrite=overwrite)
    for level, size in ((10, 60), (20, 40), (30, 80)):
        sink.open(FILM)
        sink.write(shown(level, 0), found((1, (100, 50, 100 + size, 50 + size))))
        sink.close(Outcome.COMPLETE)
    levels = {name: look[0] for name, look in written(tmp_path).items()}
    each = {"person-1.jpg": 10, "person-1-2.jpg": 20, "person-1-3.jpg": 30}
    assert levels == ({"person-1.jpg": 30} if overwrite else each)


def test_what_is_gone_is_written_though_what_came_before_it_stays(tmp_path: Path) -> None:
    sink, stays = opened(tmp_path), (1, (100.0, 50.0, 140.0, 90.0))
    sink.write(shown(10, 0), found(stays, (2, (200, 100, 260, 160))))
    for second in range(1, 5):
        sink.write(shown(20, second), found(stays))
    assert list(written(tmp_path)) == ["dog-2.jpg"]
    sink.close(Outcome.COMPLETE)


def test_better_looks_take_the_place_of_worse_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crops, "MOST_BYTES", 60_000)  # the last two have 110 x 110 and 66 x 66 pixels
    sink = opened(tmp_path)
    for side in range(20, 101, 5):
        sink.write(shown(10, side / 100), found((1, (100, 50, 100 + side, 50 + side)), (2, (200, 100, 260, 160))))
    assert written(tmp_path) == {}
    sink.close(Outcome.COMPLETE)
    assert written(tmp_path) == {"dog-2.jpg": (10, (66, 66)), "person-1.jpg": (10, (110, 110))}


def test_images_of_another_run_of_a_sink_have_the_same_names_again(tmp_path: Path) -> None:
    photo = Frame(grey(10), 0, Fraction(0), 0.0, "photo.jpg", is_still=True)
    sink = Crops(tmp_path / "crops", overwrite=True)
    for _ in range(2):
        sink.open(SourceInfo("photos", SIZE, "images"))
        names = replace(found((1, (100, 50, 140, 90)), (2, (200, 100, 260, 160))), class_names=("Dog", "dog", "cat"))
        sink.write(photo, names)
        sink.close(Outcome.COMPLETE)
    assert list(written(tmp_path)) == ["photo-Dog-1.jpg", "photo-dog-2.jpg"]


def test_looks_that_wait_take_no_more_memory_than_they_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crops, "MOST_BYTES", 3 * 44 * 44 * 3)
    sink = opened(tmp_path)
    for number in range(1, 7):
        sink.write(shown(number, number / 10), found((number, (100, 50, 140, 90))))
        assert sink._bytes == sum(look.image.nbytes for look in sink._pending.values() if look.image is not None)
        assert sink._bytes <= crops.MOST_BYTES
    assert list(written(tmp_path)) == ["person-1.jpg", "person-2.jpg", "person-3.jpg"]
    sink.write(shown(99, 1), found((1, (100, 50, 180, 130))))  # which alone is more than may be
    assert list(sink._pending) == [("person", 1)]
    sink.close(Outcome.COMPLETE)
    assert sink._bytes == 0
    assert {look[0] for look in written(tmp_path).values()} == {99, 2, 3, 4, 5, 6}


def test_many_in_one_frame_take_no_more_memory_than_one_look_above_what_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = 44 * 44 * 3
    monkeypatch.setattr(crops, "MOST_BYTES", 3 * one)
    sizes = []

    def noting(image: Image, box: Sequence[float], cropped: Callable[..., Image] = crops._cropped) -> Image:
        sizes.append(sink._bytes)
        return cropped(image, box)

    monkeypatch.setattr(crops, "_cropped", noting)
    sink = opened(tmp_path)
    sink.write(shown(10, 0), found(*[(number, (100, 50, 140, 90)) for number in range(1, 9)], names=[0] * 8))
    assert sizes == [0, one, 2 * one, 3 * one, 3 * one, 3 * one, 3 * one, 3 * one]
    sink.close(Outcome.COMPLETE)
    assert len(written(tmp_path)) == 8


def test_what_is_remembered_of_those_that_are_gone_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crops, "KNOWN", 2)
    sink = opened(tmp_path)
    for number in range(1, 6):
        sink.write(shown(number, 10 * number), found((number, (100, 50, 140, 90))))
    assert len(sink._written) == 2
    sink.write(shown(99, 60), found((1, (100, 50, 140, 90))))
    sink.close(Outcome.COMPLETE)
    assert written(tmp_path)["person-1.jpg"][0] == 1
    assert written(tmp_path)["person-1-2.jpg"][0] == 99  # it is not known that it is the same: nothing is replaced


def test_what_has_no_place_in_the_picture_has_no_crop(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.write(shown(10, 0), found((1, (np.nan, 0, 9, 9)), (2, (400, 10, 500, 60)), (3, (-50, -50, 30, 20))))
    sink.write(shown(10, 1), Detections.none(NAMES))
    sink.close(Outcome.COMPLETE)
    assert written(tmp_path) == {"traffic_light-3.jpg": (10, (34, 24))}


def test_objects_of_films_need_numbers(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    with pytest.raises(UsageError, match=r"give the pipeline a Steady$"):
        sink.write(shown(10, 0), replace(found((1, (0, 0, 9, 9))), ids=None))
    with pytest.raises(RuntimeError):
        Crops(tmp_path / "other").write(shown(10, 0), found())


def test_what_was_seen_is_written_also_while_a_camera_is_away_but_not_while_a_film_is_slow(tmp_path: Path) -> None:
    for about, expected in ((CAMERA, 1), (FILM, 0)):
        folder = tmp_path / about.kind
        folder.mkdir()
        sink = opened(folder, about)
        sink.wants_stop()
        for seconds_ago, count in ((2, 0), (4, expected)):
            frame = Frame(grey(10), 0, Fraction(50), time.monotonic() - seconds_ago)
            sink.write(frame, found((1, (100, 50, 140, 90))))
            assert not sink.wants_stop()
            assert len(written(folder)) == count
        sink.close(Outcome.STOPPED)
        assert len(written(folder)) == 1


def test_those_of_a_camera_have_the_time_and_its_folder_can_be_gone_on_with(tmp_path: Path) -> None:
    for level in (10, 60):
        sink = opened(tmp_path, CAMERA, overwrite=level == 60, source="door")  # replaces nothing in any case
        frame = Frame(grey(level), 0, Fraction(0), time.monotonic() - 3600)
        sink.write(frame, found((1, (100, 50, 140, 90))))
        sink.close(Outcome.STOPPED)
    names = list(written(tmp_path))
    assert len(names) == 2
    for name in names:
        match = re.fullmatch(r"door-person-1_(\d{8}-\d{6})(-2)?\.jpg", name)
        assert match
        assert 3500 < time.time() - time.mktime(time.strptime(match[1], "%Y%m%d-%H%M%S")) < 3700
    Crops(tmp_path / "crops")
    (tmp_path / "crops" / "notes.txt").touch()
    with pytest.raises(OutputError, match=r"there is something in the folder \S+ already; name another one, or pass"):
        Crops(tmp_path / "crops")


def photo_info(*names: str) -> SourceInfo:
    return SourceInfo("photos", SIZE, "images", files=tuple(map(Path, names)))


def test_of_images_each_object_is_written_at_once_and_none_has_the_name_of_another(tmp_path: Path) -> None:
    sink = opened(tmp_path, photo_info("a.jpg", "a.png", "b/a.jpg"))
    both = found((1, (10, 10, 50, 50)), (2, (60, 60, 90, 90)), (3, (100, 100, 150, 130)), names=[0, 0, 2])
    for name in ("a.jpg", "A.png", "b/a.jpg", "../c.jpg", "x" * 251 + ".jpg", "x" * 251 + ".png"):
        sink.write(Frame(grey(10), 0, Fraction(0), 0.0, name, is_still=True), both)
    names = list(written(tmp_path))
    assert len(names) == 18
    assert sum(map(str.startswith, names, ["x"] * 18)) == 6
    for stem in ("a", "A.png", "b/a", "c"):
        assert {f"{stem}-person-1.jpg", f"{stem}-person-2.jpg", f"{stem}-traffic_light-1.jpg"} <= set(names)


@pytest.mark.parametrize(
    ("files", "expected"), [(["a.jpg"], "door-person-1.jpg"), (["a.jpg", "b.jpg"], "door/a-person-1.jpg")]
)
def test_images_of_several_sources_are_told_apart(files: list[str], expected: str, tmp_path: Path) -> None:
    sink = opened(tmp_path, photo_info(*files), source="door")
    sink.write(Frame(grey(10), 0, Fraction(0), 0.0, "a.jpg", is_still=True), found((1, (10, 10, 50, 50))))
    assert list(written(tmp_path)) == [expected]


def test_what_is_there_is_replaced_only_if_that_is_asked_for_and_no_input_ever(tmp_path: Path) -> None:
    folder = tmp_path / "crops"
    folder.mkdir()
    cv2.imwrite(str(folder / "person-1.jpg"), grey(200))
    with pytest.raises(OutputError, match="there is something in the folder"):
        Crops(folder)
    sink = opened(tmp_path, overwrite=True)
    sink.write(shown(10, 0), found((1, (100, 50, 140, 90))))
    sink.close(Outcome.COMPLETE)
    assert written(tmp_path) == {"person-1.jpg": (10, (44, 44))}
    with pytest.raises(OutputError, match=r"person-1\.jpg is an image of the input; write to another folder$"):
        Crops(folder, overwrite=True, spared=[folder / "person-1.jpg"]).open(FILM)
    with pytest.raises(OutputError, match="is the folder of the input"):
        Crops(folder, overwrite=True, source_path=folder)
    linked = tmp_path / "linked.jpg"
    linked.hardlink_to(folder / "person-1.jpg")
    sink = Crops(folder, overwrite=True, spared=[linked])
    sink.open(FILM)
    sink.write(shown(60, 0), found((1, (100, 50, 140, 90))))
    with pytest.raises(OutputError, match="is an image of the input"):
        sink.close(Outcome.COMPLETE)
    assert written(tmp_path) == {"person-1.jpg": (10, (44, 44))}


def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    sink.write(shown(10, 0), found((1, (100, 50, 140, 90))))
    (tmp_path / "crops").mkdir()
    cv2.imwrite(str(tmp_path / "crops" / "person-1.jpg"), grey(200))
    sink.close(Outcome.COMPLETE)
    assert {name: look[0] for name, look in written(tmp_path).items()} == {"person-1.jpg": 200, "person-1-2.jpg": 10}


@pytest.mark.parametrize("when", ["before it is begun", "while it is written"])
def test_a_name_that_another_run_takes_in_between_is_no_failure(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = opened(tmp_path)
    folder = tmp_path / "crops"
    sink.write(shown(10, 0), found((1, (100, 50, 140, 90))))
    whole = PartFile.write, Target.__post_init__
    others = [200]

    def take(name: str) -> None:
        if name == "person-1" and others:
            cv2.imwrite(str(folder / "person-1.jpg"), grey(others.pop()))

    def check(target: Target) -> None:
        if when == "before it is begun":
            take(target.path.stem)
        whole[1](target)

    def write(part: PartFile, data: bytes) -> int:
        take(part.target.path.stem)
        return whole[0](part, data)

    monkeypatch.setattr(PartFile, "write", write)
    monkeypatch.setattr(Target, "__post_init__", check)
    sink.close(Outcome.STOPPED)
    assert {name: look[0] for name, look in written(tmp_path).items()} == {"person-1.jpg": 200, "person-1-2.jpg": 10}
    assert not list(folder.glob("*.part*"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing/crops", "the folder .*missing does not exist"),
        ("file", "it is a file; name a folder"),
        ("person.jpg", "crops are several images, and .*person.jpg is the name of one; name a folder"),
    ],
)
def test_what_can_be_no_folder_is_refused_at_once(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=words):
        Crops(tmp_path / name)


@pytest.mark.parametrize("is_there", [False, True])
def test_a_folder_without_permission_is_refused_at_once(
    *, is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "crops"
    if is_there:
        folder.mkdir()
    # Asked of the system as an ordinary user would be answered: root may write anywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != (folder if is_there else tmp_path))
    with pytest.raises(OutputError, match="no permission to write in the folder"):
        Crops(folder)


def test_a_disk_that_is_full_leaves_those_that_were_whole_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = opened(tmp_path)
    sink.write(shown(10, 0), found((1, (100, 50, 140, 90)), (2, (10, 10, 40, 40)), (3, (50, 10, 90, 40))))
    whole = PartFile.write

    def full(part: PartFile, data: bytes) -> int:
        if "dog" in part.path.name:
            raise OSError(28, "No space left on device")
        return whole(part, data)

    monkeypatch.setattr(PartFile, "write", full)
    with pytest.raises(OutputError, match=r"^cannot write \S+dog-2\.jpg: No space left on device$"):
        sink.close(Outcome.COMPLETE)
    assert list(written(tmp_path)) == ["person-1.jpg", "traffic_light-3.jpg"]
    assert not list(tmp_path.rglob("*.part*"))


def test_the_picture_is_as_it_was_taken_also_beside_what_is_drawn(tmp_path: Path) -> None:
    images = [np.full((120, 160, 3), 120, np.uint8)] * 3
    box = Detections(
        np.array([[40, 30, 100, 90]], np.float32),
        np.full(1, 0.9, np.float32),
        np.zeros(1, np.int64),
        np.ones((1, 28, 28), np.float32),
        ("person",),
    )
    kept, folder = ListSink(), tmp_path / "crops"
    segmenter = FunctionSegmenter(lambda image: box, ["person"])
    Pipeline(ListSource(images), segmenter, follower=Steady(), sinks=[kept, Crops(folder)]).run()
    assert (kept.frames[0].image != images[0]).any()
    picture = cv2.imread(str(folder / "person-1.jpg"))
    assert picture is not None
    assert np.abs(picture.astype(int) - 120).max() <= 2


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """For the command, in a folder with something to look at."""
    monkeypatch.chdir(tmp_path)
    return films_and_a_photo(tmp_path)


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["clips/a.mp4", "--crops", "c", "--view", "blurred"], 2, "--view blurred is to hide them"),
        (["clips/a.mp4", "--crops", "c", "--no-steady"], 2, "numbers, which they have none of with --no-steady"),
        (["clips/a.mp4", "--crops", ""], 2, "--crops wants the name of a folder"),
        (["clips/a.mp4", "--crops", "-"], 2, "--crops wants the name of a folder"),
        (["clips/a.mp4", "--crops", "rtsp://a/b"], 2, "--crops wants the name of a folder"),
        (["clips/a.mp4", "--crops", "c", "-o", "c/"], 2, "c was named for two outputs"),
        (["clips", "--crops", "clips/", "--overwrite"], 2, "clips/ is the folder of the films"),
        (["clips", "--crops", "c", "-o", "wall.mp4"], 3, "give each a result of its own"),
        (["clips", "--crops", "c", "-o", "{source}.mp4", "--skip-existing"], 2, "--skip-existing cannot tell"),
        (["clips/a.mp4", "--crops", "clips"], 6, "there is something in the folder clips already"),
        (["photo.png", "--crops", ".", "--overwrite"], 6, "photo.png is an image of the input"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(
    argv: list[str], code: int, words: str, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path().rglob("*"))
    status, line = failure(capsys, *argv, *options)
    assert (status, words in line) == (code, True), line
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["clips/a.mp4"], r"c/\w+-\d+\.jpg"),
        (["clips"], r"c/[ab]-\w+-\d+\.jpg"),
        (["clips", "-o", "c2/{source}.mp4"], r"c/[ab]-\w+-\d+\.jpg"),
        (["clips/a.mp4", "clips/b.mp4", "-o", "wall.mp4"], r"c/[ab]-\w+-\d+\.jpg"),
        (["photo.png", "--no-steady"], r"c/photo-\w+-\d+\.jpg"),
    ],
)
def test_the_command_writes_them_and_says_where(
    argv: list[str], expected: str, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, "--crops", "c", *options, "--score-threshold", "0.1"]) == 0
    names = [path.as_posix() for path in Path("c").iterdir()]
    assert names
    assert all(re.fullmatch(expected, name) for name in names), names
    assert re.search(r" -> (.*, )?c(, .*)?$", capsys.readouterr().out, re.MULTILINE)


def test_each_source_may_have_a_folder_of_its_own(options: list[str]) -> None:
    assert main(["clips", "--crops", "c/{source}", *options, "--score-threshold", "0.1", "--quiet"]) == 0
    assert {path.parent.as_posix() for path in Path("c").rglob("*.jpg")} == {"c/a", "c/b"}


def test_photos_from_a_folder_have_them_under_their_names(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "IMG 1.png"), grey(60))
    cv2.imwrite(str(tmp_path / "photos" / "IMG 2.png"), grey(90))
    sink = Crops(tmp_path / "crops")
    with open_source(tmp_path / "photos") as source:
        sink.open(source.info)
        for frame in source:
            sink.write(frame, found((1, (100, 50, 140, 90))))
    assert {name: look[0] for name, look in written(tmp_path).items()} == {
        "IMG 1-person-1.jpg": 60,
        "IMG 2-person-1.jpg": 90,
    }
