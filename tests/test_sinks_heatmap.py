"""The picture of where objects were and for how long: what counts, how it looks, and what is never replaced."""

from __future__ import annotations

import time
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stream_seg.cli import main
from stream_seg.detections import Detections
from stream_seg.errors import OutputError
from stream_seg.frame import Frame, Image, SourceInfo
from stream_seg.pipeline import Pipeline
from stream_seg.protocols import Outcome
from stream_seg.render import heat
from stream_seg.render.labels import text_width
from stream_seg.segmenters import FunctionSegmenter
from stream_seg.sinks import Heatmap, ListSink, heatmap
from stream_seg.sources import ListSource
from tests.source_files import films_and_a_photo
from tests.test_cli import failure

SIZE = (320, 240)
FILM = SourceInfo("a film", SIZE, "video", Fraction(10))
CAMERA = SourceInfo("a camera", SIZE, "live")

Box = tuple[float, float, float, float]
LEFT, RIGHT = (40.0, 40.0, 120.0, 120.0), (200.0, 40.0, 280.0, 120.0)
Seen = Sequence[tuple[float, Sequence[Box]]]


def found(*boxes: Box, mask: NDArray[np.float32] | None = None) -> Detections:
    """What fills these boxes, or as much of each as a mask says."""
    one = np.ones((8, 8), np.float32) if mask is None else mask
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(count, 0.9, np.float32),
        np.zeros(count, np.int64),
        np.repeat(one[None], count, 0),
        ("person",),
    )


def grey(level: int, size: tuple[int, int] = SIZE) -> Image:
    return np.full((size[1], size[0], 3), level, np.uint8)


def frame(seconds: float, image: Image | None = None) -> Frame:
    return Frame(grey(100) if image is None else image, 0, Fraction(seconds), time.monotonic())


def picture(path: Path) -> NDArray[np.int64]:
    image = cv2.imread(str(path))
    assert image is not None
    return image.astype(int)


def drawn(folder: Path, seen: Seen, about: SourceInfo = FILM, outcome: Outcome = Outcome.COMPLETE) -> NDArray[np.int64]:
    """The picture of what was seen at these times."""
    sink = Heatmap(folder / "heat.png", overwrite=True)
    sink.open(about)
    for seconds, boxes in seen:
        sink.write(frame(seconds), found(*boxes))
    sink.close(outcome)
    assert sink.result == folder / "heat.png"
    return picture(sink.result)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, NDArray[np.float64]]:
    """The seconds that a picture is drawn of, once it is, in pixels of the scene."""
    kept: dict[str, NDArray[np.float64]] = {}

    def keep(scene: Image, seconds: NDArray[np.float64], watched: float) -> Image:
        kept["seconds"] = np.repeat(np.repeat(seconds, 2, 0), 2, 1)
        kept["watched"] = np.array(watched)
        return scene

    monkeypatch.setattr(heatmap, "heat_picture", keep)
    return kept


def is_grey(colour: NDArray[np.int64]) -> bool:
    return int(colour.max() - colour.min()) == 0


def test_there_are_colours_where_objects_were_and_the_dimmed_scene_elsewhere(tmp_path: Path) -> None:
    seen: Seen = [(0.1 * i, [LEFT, *([RIGHT] if i < 3 else [])]) for i in range(100)]
    image = drawn(tmp_path, seen)
    assert image.shape == (240 + 45, 320, 3)  # with the legend
    assert image[200, 160].tolist() == [50, 50, 50]
    assert is_grey(image[80, 160])
    blue, _, red = image[80, 80].tolist()
    assert red > 2 * blue, "stood there for long"
    blue, _, red = image[80, 240].tolist()
    assert blue > 2 * red, "passed by"


def test_masks_count_and_not_boxes(tmp_path: Path) -> None:
    half = np.zeros((8, 8), np.float32)
    half[:, :4] = 1
    sink = Heatmap(tmp_path / "heat.png")
    sink.open(FILM)
    sink.write(frame(0), found((80, 80, 240, 160), mask=half))
    sink.close(Outcome.COMPLETE)
    image = picture(tmp_path / "heat.png")
    assert not is_grey(image[120, 120])
    assert is_grey(image[120, 200])


def test_the_legend_has_the_colours_from_the_shortest_time_to_the_longest(tmp_path: Path) -> None:
    image = drawn(tmp_path, [(0.0, [LEFT]), (5.0, [])])
    bar = image[240 + 12, 10:-10]
    assert bar[0, 0] > 2 * bar[0, 2]
    assert bar[-1, 2] > 2 * bar[-1, 0]
    hottest, shown = bar[-1].astype(float), image[80, 80]
    assert np.abs(0.8 * hottest + 0.2 * 50 - shown).max() < 3, "opaque by four fifths, on what has a level of 50"


def test_a_run_in_which_nothing_was_seen_says_so(tmp_path: Path) -> None:
    image = drawn(tmp_path, [(0.0, []), (5.0, [])])
    assert (image[:240] == 50).all()
    assert image[240:].max() > 200
    assert not (image[240:, :, 0] > 2 * image[240:, :, 2]).any()


def test_a_frame_counts_until_the_next_and_the_last_as_long_as_the_one_before(
    tmp_path: Path, counted: dict[str, NDArray[np.float64]]
) -> None:
    drawn(tmp_path, [(0.0, [LEFT]), (0.5, []), (1.0, [LEFT]), (3.5, [RIGHT]), (4.0, [RIGHT])])
    assert counted["seconds"][80, 80] == 3.0
    assert counted["seconds"][80, 240] == 1.0
    assert counted["seconds"][80, 160] == 0
    assert counted["watched"] == 4.5


def test_an_only_frame_counts_as_long_as_frames_of_its_film_do(
    tmp_path: Path, counted: dict[str, NDArray[np.float64]]
) -> None:
    drawn(tmp_path, [(7.0, [LEFT])])
    assert counted["seconds"][80, 80] == pytest.approx(0.1)


def test_where_two_overlap_time_counts_once(tmp_path: Path, counted: dict[str, NDArray[np.float64]]) -> None:
    drawn(tmp_path, [(0.0, [LEFT, (80.0, 40.0, 160.0, 120.0)]), (1.0, [LEFT]), (2.0, [])])
    assert counted["seconds"][80, 60] == counted["seconds"][80, 100] == 2.0
    assert counted["seconds"][80, 140] == 1.0


def test_hours_in_which_a_camera_is_away_do_not_count(tmp_path: Path, counted: dict[str, NDArray[np.float64]]) -> None:
    seen: Seen = [(0.0, [LEFT]), (0.1, [LEFT]), (7200.0, [RIGHT]), (7200.1, [])]
    drawn(tmp_path, seen, CAMERA)
    assert counted["seconds"][80, 80] == pytest.approx(2.1)
    assert counted["seconds"][80, 240] == pytest.approx(0.1)
    drawn(tmp_path, seen)
    assert counted["seconds"][80, 80] == 7200


def test_frames_of_a_slow_camera_count_all_the_same(tmp_path: Path, counted: dict[str, NDArray[np.float64]]) -> None:
    drawn(tmp_path, [(5.0 * i, [LEFT]) for i in range(11)], CAMERA)
    assert counted["seconds"][80, 80] == 52, "the first one for two seconds"


def test_a_clock_that_goes_back_takes_nothing_away(tmp_path: Path, counted: dict[str, NDArray[np.float64]]) -> None:
    drawn(tmp_path, [(9.0, [LEFT]), (10.0, [LEFT]), (0.0, [LEFT]), (1.0, [])])
    assert counted["seconds"][80, 80] == 2.0


def test_what_passes_is_not_in_the_scene(tmp_path: Path) -> None:
    sink = Heatmap(tmp_path / "heat.png")
    sink.open(FILM)
    for i in range(300):
        image = grey(100)
        cv2.rectangle(image, (i, 100), (i + 30, 140), (0, 0, 255), -1)
        sink.write(frame(0.1 * i, image), found())
    sink.close(Outcome.STOPPED)
    assert (picture(tmp_path / "heat.png")[:240] == 50).all()


def test_what_is_remembered_of_the_scene_is_a_few_pictures_of_the_whole_run(tmp_path: Path) -> None:
    scene = heatmap._Scene(SIZE, (160, 120))
    times = [0.1 * i for i in range(20000)]
    for seconds in times:
        scene.add(grey(int(seconds / times[-1] * 200)), seconds)
        assert len(scene._images) <= 12
    levels = [int(image[0, 0, 0]) for image in scene._images]
    steps = [after - before for before, after in pairwise(levels)]
    assert max(steps) - min(steps) <= 1
    assert levels[0] == 0
    assert levels[-1] > 160
    assert 80 < scene.picture()[0, 0, 0] < 120


def test_frames_of_another_shape_are_fitted_between_bars(
    tmp_path: Path, counted: dict[str, NDArray[np.float64]]
) -> None:
    sink = Heatmap(tmp_path / "heat.png")
    sink.open(CAMERA)
    sink.write(frame(0), found())
    sink.write(frame(1, grey(100, (480, 960))), found((0, 0, 480, 960)))
    sink.close(Outcome.COMPLETE)
    assert np.argwhere(counted["seconds"][120] > 0)[[0, -1], 0].tolist() == [100, 219]
    assert picture(tmp_path / "heat.png").shape == (240, 320, 3)


def test_a_large_picture_is_made_smaller_and_a_tiny_one_is_one_all_the_same(tmp_path: Path) -> None:
    for size, width in (((3840, 2160), 960), ((961, 540), 960), ((2, 2), 2), ((1, 400), 1)):
        sink = Heatmap(tmp_path / "heat.png", overwrite=True)
        sink.open(FILM)
        sink.write(frame(0, grey(100, size)), found((0, 0, *size)))
        sink.close(Outcome.COMPLETE)
        image = picture(tmp_path / "heat.png")
        assert image.shape[1] == width
        height = round(size[1] * width / size[0])
        across, down = image[height // 2, :], image[:height, width // 2]
        assert np.ptp(np.concatenate([across, down]), 0).max() == 0, "covered up to its borders"


@pytest.mark.parametrize("longest", [0.02, 0.3, 1.0, 7.0, 59.0, 130.0, 5000.0, 90000.0, 3e6])
@pytest.mark.parametrize("width", [960, 320, 90])
def test_times_in_the_legend_do_not_touch_and_grow(width: int, longest: float) -> None:
    ticks = sorted(heat._ticks(10, width - 10, 10, longest))
    assert ticks[0][1] == "0 s"
    assert ticks[-1][0] == longest
    for (_, text, first), (_, _, after) in pairwise(ticks):
        assert first + text_width(text, 10) < after


def test_of_a_tiny_picture_the_longest_time_is_named_in_any_case() -> None:
    for longest in 0.03, 45, 200, 6000:
        assert longest in [seconds for seconds, *_ in heat._ticks(8, 56, 8, longest)]
    assert not heat._ticks(4, 15, 8, 6000), "it would be cut off"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (1 / 30, "0.03 s"),
        (0.34, "0.3 s"),
        (7.02, "7 s"),
        (60, "1 min"),
        (90, "90 s"),
        (150, "2.5 min"),
        (7200, "2 h"),
        (1e6, "12 d"),
    ],
)
def test_times_are_told_in_few_signs(seconds: float, text: str) -> None:
    assert heat._told(seconds) == text


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".webp"])
def test_the_suffix_says_which_kind_of_image_it_is(suffix: str, tmp_path: Path) -> None:
    sink = Heatmap(tmp_path / f"heat{suffix}")
    sink.open(FILM)
    sink.write(frame(0), found(LEFT))
    sink.close(Outcome.COMPLETE)
    begins = {".png": b"\x89PNG", ".JPG": b"\xff\xd8", ".webp": b"RIFF"}[suffix]
    assert (tmp_path / f"heat{suffix}").read_bytes().startswith(begins)


def test_photos_do_not_count(tmp_path: Path) -> None:
    sink = Heatmap(tmp_path / "heat.png")
    sink.open(SourceInfo("photos", SIZE, "images"))
    sink.write(Frame.still(grey(100)), found(LEFT))
    sink.close(Outcome.COMPLETE)
    assert sink.result is None
    assert not list(tmp_path.iterdir())


def test_after_a_failure_it_keeps_its_partial_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = Heatmap(tmp_path / "heat.png")
    sink.open(FILM)
    sink.write(frame(0), found(LEFT))
    sink.close(Outcome.FAILED)
    assert sink.result == tmp_path / "heat.part.png"
    assert list(tmp_path.iterdir()) == [sink.result]
    assert picture(sink.result).shape[1] == 320
    assert f"what was written until then is in {sink.result}" in caplog.text


def test_what_is_there_is_replaced_only_if_that_is_asked_for_and_no_input_ever(tmp_path: Path) -> None:
    path = tmp_path / "heat.png"
    sink = Heatmap(path)
    path.touch()
    with pytest.raises(OutputError, match="exists already"):
        sink.open(FILM)
    with pytest.raises(OutputError, match="exists already"):
        Heatmap(path)
    with pytest.raises(OutputError, match="is an image of the input"):
        Heatmap(path, overwrite=True).open(SourceInfo("images", SIZE, "images", files=(path,), is_film=True))
    with pytest.raises(OutputError, match="is an image of the input"):
        Heatmap(path, overwrite=True, spared=[path]).open(FILM)
    with pytest.raises(OutputError, match="is the input itself"):
        Heatmap(path, overwrite=True, source_path=path)
    with pytest.raises(OutputError, match=r"images are written as \.png"):
        Heatmap(tmp_path / "heat.mp4")
    with pytest.raises(RuntimeError):
        Heatmap(tmp_path / "other.png").write(frame(0), found())
    drawn(tmp_path, [(0.0, [LEFT])])
    assert path.stat().st_size


def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    sink = Heatmap(tmp_path / "heat.png")
    sink.open(FILM)
    sink.write(frame(0), found(LEFT))
    (tmp_path / "heat.png").write_bytes(b"another's")
    with pytest.raises(OutputError, match="appeared while it was being written"):
        sink.close(Outcome.STOPPED)
    assert (tmp_path / "heat.png").read_bytes() == b"another's"
    assert sink.result == tmp_path / "heat.part.png"


def test_another_run_of_a_sink_begins_anew(tmp_path: Path, counted: dict[str, NDArray[np.float64]]) -> None:
    sink = Heatmap(tmp_path / "heat.png", overwrite=True)
    for box in (LEFT, RIGHT):
        sink.open(FILM)
        sink.write(frame(0), found(box))
        sink.close(Outcome.COMPLETE)
    assert counted["seconds"][80, 80] == 0
    assert counted["seconds"][80, 240] > 0


def test_the_scene_is_as_it_was_taken_also_beside_what_is_drawn(tmp_path: Path) -> None:
    images = [grey(100)] * 4
    kept, path = ListSink(), tmp_path / "heat.png"
    segmenter = FunctionSegmenter(lambda image: found(LEFT), ["person"])
    Pipeline(ListSource(images), segmenter, sinks=[kept, Heatmap(path)]).run()
    assert (kept.frames[0].image != images[0]).any()
    image = picture(path)
    assert (image[:30] == 50).all(), "no name over the box"
    assert not is_grey(image[80, 80])


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """For the command, in a folder with something to look at."""
    monkeypatch.chdir(tmp_path)
    return films_and_a_photo(tmp_path)


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["clips/a.mp4", "--heatmap", "h.png", "--view", "blurred"], 2, "--view blurred is to hide who is in it"),
        (["clips/a.mp4", "--heatmap", ""], 2, "--heatmap wants the name of an image"),
        (["clips/a.mp4", "--heatmap", "-"], 2, "--heatmap wants the name of an image"),
        (["clips/a.mp4", "--heatmap", "rtsp://a/b"], 2, "--heatmap wants the name of an image"),
        (["clips/a.mp4", "--heatmap", "h.mp4"], 6, "images are written as .png"),
        (["clips/a.mp4", "--heatmap", "photo.png"], 6, "photo.png exists already"),
        (["clips/a.mp4", "--heatmap", "clips/a.mp4", "--overwrite"], 6, "clips/a.mp4 is an input"),
        (["clips/a.mp4", "--heatmap", "h.png", "-o", "./h.png"], 2, "h.png was named for two outputs"),
        (["clips/a.mp4", "clips/b.mp4", "--heatmap", "h.png"], 2, "--heatmap h.png is one image, and there are 2"),
        (["clips", "--heatmap", "h.png"], 3, "give each a result of its own"),
        (["clips", "--heatmap", "clips/{source}.png"], 2, "as in --heatmap results/{source}.png"),
        (["clips", "-o", "{source}.mp4", "--heatmap", "h.png", "--skip-existing"], 2, "and h.png is none"),
        (["photo.png", "--heatmap", "h.png"], 2, "--heatmap is for films and cameras"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(
    argv: list[str], code: int, words: str, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path().rglob("*"))
    status, line = failure(capsys, *argv, *options)
    assert (status, words in line) == (code, True), line
    assert sorted(Path().rglob("*")) == before


def test_the_command_writes_it_alone_without_a_window_and_says_where(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["clips/a.mp4", "--heatmap", "heat.png", *options]) == 0
    assert " -> heat.png" in capsys.readouterr().out
    assert picture(Path("heat.png")).size


def test_many_films_have_one_each_and_those_that_are_there_are_skipped(options: list[str]) -> None:
    argv = ["clips", "--heatmap", "heat/{source}.png", "-o", "{source}.jsonl", *options, "--quiet", "--skip-existing"]
    assert main(argv) == 0
    assert sorted(path.name for path in Path("heat").iterdir()) == ["a.png", "b.png"]
    Path("heat/b.png").unlink()
    before = [Path(name).stat().st_mtime_ns for name in ("heat/a.png", "a.jsonl", "b.jsonl")]
    assert main(argv) == 0
    assert Path("heat/b.png").exists()
    assert before == [Path(name).stat().st_mtime_ns for name in ("heat/a.png", "a.jsonl", "b.jsonl")]


def test_a_photo_beside_films_has_none_and_a_word_says_so(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["photo.png", "clips/a.mp4", "--heatmap", "h_{source}.png", "-o", "{source}.jsonl", *options]) == 0
    assert "--heatmap is for films, and photo is none: it has no effect there" in capsys.readouterr().err
    assert [path.name for path in Path().glob("h_*")] == ["h_a.png"]
