"""Every sink keeps the same promises; then what is particular to images and to choosing a sink."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream_seg.detections import Detections
from stream_seg.errors import OutputError, UsageError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.protocols import Outcome, Sink
from stream_seg.sinks import (
    CocoFile,
    CsvFile,
    Heatmap,
    ImageFile,
    ImageFolder,
    ListSink,
    NumberedImages,
    ObjectsFile,
    SegmentedObjects,
    SegmentedVideo,
    VideoFile,
    open_sink,
)
from stream_seg.sinks.part import PartFile, Target, write_text
from stream_seg.sources import open_source
from tests.sink_films import CFR, NOTHING, deliver, frames, image, info
from tests.support import file_limit, needs_limits

ABOUT = SourceInfo("a film", (64, 48), "video")

SINKS: dict[str, tuple[Callable[[Path], Sink], int]] = {
    "mp4": (lambda folder: VideoFile(folder / "a.mp4"), 5),
    "mov": (lambda folder: VideoFile(folder / "a.mov"), 5),
    "mkv": (lambda folder: VideoFile(folder / "a.mkv"), 5),
    "webm": (lambda folder: VideoFile(folder / "a.webm"), 5),
    "gif": (lambda folder: VideoFile(folder / "a.gif"), 5),
    "hevc": (lambda folder: VideoFile(folder / "a.mp4", codec="hevc"), 5),
    "av1": (lambda folder: VideoFile(folder / "a.mp4", codec="av1"), 5),
    "segments": (lambda folder: SegmentedVideo(folder / "a.mp4", 60), 5),
    "png": (lambda folder: ImageFile(folder / "a.png"), 1),
    "numbered": (lambda folder: NumberedImages(folder / "a_%03d.jpg"), 5),
    "folder": (lambda folder: ImageFolder(folder / "a"), 5),
    "objects": (lambda folder: ObjectsFile(folder / "a.jsonl"), 5),
    "coco": (lambda folder: CocoFile(folder / "a.json"), 5),
    "csv": (lambda folder: CsvFile(folder / "a.csv"), 5),
    "segments of objects": (lambda folder: SegmentedObjects(folder / "a.jsonl", 60), 5),
    "heatmap": (lambda folder: Heatmap(folder / "a.png"), 5),
    "list": (lambda folder: ListSink(), 5),
}


@pytest.fixture(params=SINKS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Callable[[], Sink], int]:
    """A maker of sinks, and how many frames one takes."""
    maker, count = SINKS[request.param]
    return (lambda: maker(tmp_path)), count


def whole_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and ".part" not in path.name]


@pytest.mark.parametrize("outcome", [Outcome.COMPLETE, Outcome.STOPPED])
def test_what_was_written_has_its_name_once_the_sink_is_closed(
    make: tuple[Callable[[], Sink], int], outcome: Outcome, tmp_path: Path
) -> None:
    sink = make[0]()
    deliver(sink, ABOUT, frames(CFR[: make[1]]), outcome)
    assert not list(tmp_path.rglob("*.part*"))
    if not isinstance(sink, ListSink):
        assert whole_files(tmp_path)
        result = getattr(sink, "result", None)
        assert result is not None
        assert result.parent == tmp_path
    assert getattr(sink, "kept", None) is None


def test_a_failed_run_leaves_no_video_under_its_own_name(make: tuple[Callable[[], Sink], int], tmp_path: Path) -> None:
    sink = make[0]()
    deliver(sink, ABOUT, frames(CFR[: make[1]]), Outcome.FAILED)
    if isinstance(sink, VideoFile | SegmentedVideo):
        assert not whole_files(tmp_path)
        assert sink.kept is not None
        assert sink.kept.exists()


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_sink_that_was_never_opened_can_be_closed(
    make: tuple[Callable[[], Sink], int], outcome: Outcome, tmp_path: Path
) -> None:
    make[0]().close(outcome)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("outcome", list(Outcome))
def test_no_frames_leave_nothing_behind(make: tuple[Callable[[], Sink], int], outcome: Outcome, tmp_path: Path) -> None:
    deliver(make[0](), ABOUT, [], outcome)
    assert not list(tmp_path.iterdir())


def test_a_sink_can_be_closed_twice(make: tuple[Callable[[], Sink], int], tmp_path: Path) -> None:
    sink = make[0]()
    deliver(sink, ABOUT, frames(CFR[: make[1]]))
    before = sorted(tmp_path.rglob("*"))
    sink.close(Outcome.FAILED)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_sink_neither_stops_nor_holds_a_run_by_itself(make: tuple[Callable[[], Sink], int]) -> None:
    sink = make[0]()
    assert not sink.wants_stop()
    assert not sink.holds()


def test_the_list_keeps_what_it_was_given() -> None:
    sink = ListSink()
    shown = frames(CFR[:3])
    deliver(sink, ABOUT, shown, Outcome.STOPPED)
    assert (sink.info, sink.frames, sink.detections) == (ABOUT, shown, [NOTHING] * 3)
    assert sink.outcome is Outcome.STOPPED


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.mp4", VideoFile),
        ("A.MKV", VideoFile),
        ("a.gif", VideoFile),
        ("a.png", ImageFile),
        ("a.JPEG", ImageFile),
        ("a_%d.webp", NumberedImages),
        ("a.jsonl", ObjectsFile),
        ("a.json", CocoFile),
        ("a.csv", CsvFile),
        ("folder", ImageFolder),
        ("folder.d/", ImageFolder),
        ("folder.mp4/", ImageFolder),
    ],
)
def test_the_name_says_what_is_written(name: str, kind: type[Sink], tmp_path: Path) -> None:
    assert type(open_sink(f"{tmp_path}/{name}")) is kind


def test_an_existing_folder_is_one_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").mkdir()
    assert type(open_sink(tmp_path / "a.mp4")) is ImageFolder


@pytest.mark.parametrize(
    ("name", "message"), [("a.mp5", "did you mean '.mp4'"), ("a.apng", "'.apng' is not understood"), ("a.avi", ".mkv")]
)
def test_an_unknown_suffix_is_refused_with_those_that_are_known(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=message):
        open_sink(tmp_path / name)


def test_a_folder_may_be_called_like_a_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shot:").mkdir()
    monkeypatch.chdir(tmp_path)
    assert type(open_sink("shot:/a.mp4")) is VideoFile


def test_a_codec_for_an_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is for videos"):
        open_sink(tmp_path / "a.png", codec="h264")


def test_an_empty_name_is_not_taken_for_the_current_folder() -> None:
    with pytest.raises(UsageError, match=r"^the name of an output is empty; the current folder is written \.$"):
        open_sink("")


@pytest.mark.parametrize("given", [None, 0, b"a.mp4", ["a.mp4"]])
def test_what_is_no_name_is_no_output(given: object) -> None:
    with pytest.raises(UsageError, match=r"^an output is given by its name, a str or Path, not "):
        open_sink(given)  # type: ignore[arg-type]


def test_a_codec_has_a_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a codec is given by its name, as in 'h264', not 5"):
        open_sink(tmp_path / "a.mp4", codec=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_an_image_comes_back_as_it_was_shown(suffix: str, tmp_path: Path) -> None:
    shown = frames(CFR[:1])
    deliver(open_sink(tmp_path / f"a{suffix}"), ABOUT, shown)
    back = cv2.imread(str(tmp_path / f"a{suffix}"))
    assert back is not None
    assert np.abs(back.astype(int) - shown[0].image).mean() < (0.01 if suffix == ".png" else 3)


def cat_on_black() -> tuple[Frame, Detections]:
    """A cat that is half black, and a word in the corner."""
    cat = Detections(
        np.array([[40, 20, 60, 40], [np.nan, 0, 1, 1]], np.float32),
        np.array([0.9, 0.8], np.float32),
        np.zeros(2, np.int64),
        np.ones((2, 28, 28), np.float32),
        ("cat",),
    )
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[20:40, 40:50] = 90, 140, 200
    picture[:6, :9] = 25
    return Frame(picture, 0, Fraction(0), 0.0), cat


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a_%d.png", "a/"])
def test_a_cutout_is_transparent_where_no_object_is(name: str, tmp_path: Path) -> None:
    shown, cat = cat_on_black()
    sink = open_sink(f"{tmp_path}/{name}", transparent=True)
    sink.open(ABOUT)
    sink.write(shown, cat)
    sink.close(Outcome.COMPLETE)
    (file,) = whole_files(tmp_path)
    back = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    assert back is not None
    expected = np.zeros((48, 64), np.uint8)
    expected[20:40, 40:60] = expected[:6, :9] = 255
    assert (back[..., 3] == expected).all()
    difference = np.abs(back[..., :3].astype(int) - shown.image)[expected > 0]
    assert difference.mean() < (8 if name == "a.webp" else 0.01)


def test_what_knows_no_transparency_and_what_is_not_asked_for_it_has_none(tmp_path: Path) -> None:
    shown, cat = cat_on_black()
    for sink in open_sink(tmp_path / "a.jpg", transparent=True), open_sink(tmp_path / "a.png"):
        sink.open(ABOUT)
        sink.write(shown, cat)
        sink.close(Outcome.COMPLETE)
    for file in whole_files(tmp_path):
        back = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        assert back is not None
        assert back.shape == (48, 64, 3)
        assert back[44, 50].max() == 0


def test_one_image_cannot_hold_a_film(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"one image, and a film has more.*a_%05d.png"):
        deliver(ImageFile(tmp_path / "a.png"), info(), [])
    with pytest.raises(OutputError, match="one image"):
        deliver(ImageFile(tmp_path / "a.png"), ABOUT, frames(CFR[:2]))


@pytest.mark.parametrize(("start", "end"), [("0.035", None), ("0.025", "0.035")])
def test_one_image_can_hold_a_part_of_a_film_that_has_one_frame(start: str, end: str | None, tmp_path: Path) -> None:
    """Of how many frames a part has, a recording tells but an estimate: two, for these."""
    times = [Fraction(i, 100) for i in range(5)]
    deliver(VideoFile(tmp_path / "a.mp4"), info(times, rate=Fraction(100), time_base=Fraction(1, 100)), frames(times))
    with open_source(tmp_path / "a.mp4", start=Fraction(start), end=None if end is None else Fraction(end)) as source:
        shown = list(source)
        assert (source.info.frame_count, len(shown)) == (2, 1)
        deliver(ImageFile(tmp_path / "a.png"), source.info, shown)
    assert (tmp_path / "a.png").exists()


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("estimate", [None, 1, 2])
def test_one_image_of_a_part_that_has_more_frames_is_not_written(
    estimate: int | None, outcome: Outcome, tmp_path: Path
) -> None:
    sink = ImageFile(tmp_path / "a.png")
    with pytest.raises(OutputError, match="one image, and a film has more"):
        deliver(sink, dataclasses.replace(info(), start=Fraction(1), frame_count=estimate), frames(CFR[:2]))
    sink.close(outcome)
    assert not list(tmp_path.iterdir())


def test_images_in_a_folder_keep_their_names(tmp_path: Path) -> None:
    names = ["b.jpg", "scan.bmp", "scan.tif", "../../outside.webp", "deep/c.png"]
    shown = [Frame(image(i), i, Fraction(i), 0.0, name) for i, name in enumerate(names)]
    deliver(ImageFolder(tmp_path / "out"), SourceInfo("images", (64, 48), "images"), shown)
    written = sorted(str(path.relative_to(tmp_path / "out")) for path in whole_files(tmp_path))
    assert written == ["b.jpg", "deep/c.png", "outside.webp", "scan.png", "scan.tif.png"]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("folder", ["", "deep"])
def test_no_image_in_a_folder_takes_the_name_of_another(folder: str, order: int, tmp_path: Path) -> None:
    names = ["a.bmp", "a.bmp.png", "a.PNG", "b.png.bmp", "b.bmp", "b.tif"][::order]
    (tmp_path / "in" / folder).mkdir(parents=True)
    paths = [tmp_path / "in" / folder / name for name in names]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), np.full((8, 8, 3), 20 * number, np.uint8))
    others = [tmp_path / "in" / "beside.png"] if folder else []  # so that names tell the folder
    for path in others:
        cv2.imwrite(str(path), np.full((8, 8, 3), 200, np.uint8))
    with open_source([*paths, *others]) as source:
        deliver(ImageFolder(tmp_path / "out"), source.info, list(source))
    first, second = ("b.bmp", "b.tif")[::order]
    results = {
        "a.bmp": "a.bmp.png.png",
        "a.bmp.png": "a.bmp.png",
        "a.PNG": "a.PNG",
        "b.png.bmp": "b.png.png",
        first: "b.png",
        second: f"{second}.png",
    }
    written = {path.name: int(cv2.imread(str(path))[0, 0, 0]) for path in (tmp_path / "out" / folder).iterdir()}
    assert written == {results[name]: 20 * number for number, name in enumerate(names)}


def test_frames_in_a_folder_are_named_by_their_index(tmp_path: Path) -> None:
    deliver(ImageFolder(tmp_path / "out"), ABOUT, frames(CFR[:2]))
    assert sorted(path.name for path in whole_files(tmp_path)) == ["000000.png", "000001.png"]


@pytest.mark.parametrize("name", ["a.mp4", "a.png", "a_%03d.png", "a.jsonl", "a.json", "out"])
def test_what_exists_is_kept_unless_it_may_be_overwritten(name: str, tmp_path: Path) -> None:
    deliver(open_sink(tmp_path / name), ABOUT, frames(CFR[:1]))
    before = {path: path.stat().st_mtime_ns for path in whole_files(tmp_path)}
    with pytest.raises(OutputError, match="already"):
        open_sink(tmp_path / name)
    assert {path: path.stat().st_mtime_ns for path in whole_files(tmp_path)} == before
    deliver(open_sink(tmp_path / name, overwrite=True), ABOUT, frames(CFR[:1]))
    assert set(whole_files(tmp_path)) == set(before)


@pytest.mark.parametrize("name", ["a.mp4", "a.png", "a.jsonl", "a.json"])
@pytest.mark.parametrize("link", ["same", "symlink", "hardlink", "roundabout"])
def test_the_input_is_never_overwritten(name: str, link: str, tmp_path: Path) -> None:
    source, other = tmp_path / "in" / name, tmp_path / name
    source.parent.mkdir()
    source.write_bytes(b"precious")
    if link == "symlink":
        other.symlink_to(source)
    elif link == "hardlink":
        other.hardlink_to(source)
    elif link == "roundabout":
        other = tmp_path / "in" / ".." / "in" / name
    else:
        other = source
    with pytest.raises(OutputError, match="is the input itself"):
        open_sink(other, overwrite=True, source_path=source)
    with pytest.raises(OutputError, match="is the input itself"):
        deliver(open_sink(other, overwrite=True), info(CFR[:1], path=source), frames(CFR[:1]))
    assert source.read_bytes() == b"precious"


@pytest.mark.parametrize(("spec", "output"), [
    ("*.png", ""),
    ("**/*.png", ""),
    ("img_%d.png", ""),
    ("img_3.png", ""),
    ("", "img_%d.png"),
    ("img_%d.png", "img_%d.png"),
    ("*.png", "img_3.png"),
    ("*.png", "../link/"),
    ("*.png", "../linked/"),
])  # fmt: skip
def test_no_image_of_the_input_is_overwritten(spec: str, output: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for path in (folder, tmp_path / "linked"):
        path.mkdir()
    for number in (3, 4):
        cv2.imwrite(str(folder / f"img_{number}.png"), image(number))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "linked" / "img_3.png").symlink_to(folder / "img_3.png")
    with open_source(f"{folder}/{spec}", max_frames=1) as source:
        sink = open_sink(f"{folder}/{output}", overwrite=True)
        with pytest.raises(OutputError, match=r"img_3\.png is an image of the input; write to another folder$"):
            deliver(sink, source.info, [frame.with_image(image(9)) for frame in source])
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_images_may_go_beside_those_of_the_input(tmp_path: Path) -> None:
    for number, name in enumerate(("a.bmp", "b.png")):
        cv2.imwrite(str(tmp_path / name), image(number))
    for spec, output in (("a.bmp", ""), ("*.bmp", ""), ("b.png", "c.png"), ("", "out_%d.png")):
        with open_source(f"{tmp_path}/{spec}") as source:
            deliver(open_sink(f"{tmp_path}/{output}", overwrite=True), source.info, list(source))
    assert {path.name for path in tmp_path.iterdir()} >= {"a.bmp", "a.png", "b.png", "c.png", "out_0.png"}


def test_the_folder_of_the_input_is_not_written_into(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="folder of the input"):
        open_sink(tmp_path, overwrite=True, source_path=tmp_path)


@pytest.mark.parametrize("name", ["a.mp4", "a.png", "a_%03d.png", "a.jsonl", "a.json", "out/"])
def test_a_missing_folder_is_refused_at_once(name: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        open_sink(f"{tmp_path}/missing/{name}")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permission bits")
@pytest.mark.parametrize("name", ["a.mp4", "a.png", "a_%03d.png", "a.jsonl", "a.json"])
def test_a_folder_without_permission_is_refused_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Asked of the system as an ordinary user would be answered: root may write anywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(OutputError, match="no permission to write in the folder"):
        open_sink(tmp_path / name)


def test_an_image_too_large_for_its_kind_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    wide = Frame(np.zeros((2, 17000, 3), np.uint8), 0, Fraction(0), 0.0)
    with pytest.raises(OutputError, match=r"17000x2 cannot be stored as \.webp"):
        deliver(ImageFile(tmp_path / "a.webp"), ABOUT, [wide])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.mp4", "a.jsonl"])
def test_a_sink_that_is_used_again_is_refused_before_its_run_and_not_after_it(tmp_path: Path, name: str) -> None:
    sink = open_sink(tmp_path / name)
    deliver(sink, ABOUT, frames(CFR[:3]))
    whole = (tmp_path / name).read_bytes()
    with pytest.raises(OutputError, match=r"exists already; pass --overwrite"):
        sink.open(ABOUT)
    sink.close(Outcome.FAILED)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == whole
    again = open_sink(tmp_path / name, overwrite=True)
    for _ in range(2):
        deliver(again, ABOUT, frames(CFR[:2]))
    assert (tmp_path / name).read_bytes() != whole


@pytest.mark.parametrize("name", ["a.png", "folder/"])
def test_images_of_a_sink_that_is_used_again_are_those_of_another_run(tmp_path: Path, name: str) -> None:
    photo = dataclasses.replace(frames(CFR[:1])[0], name="b.png")
    sink, again = (open_sink(f"{tmp_path}/{kind}{name}", overwrite=kind == "new") for kind in ("", "new"))
    deliver(sink, ABOUT, [photo])
    with pytest.raises(OutputError, match=r"exists already; pass --overwrite"):
        deliver(sink, ABOUT, [photo])
    for _ in range(2):
        deliver(again, ABOUT, [photo])
    assert len([path for path in tmp_path.rglob("*.png") if path.is_file()]) == 2


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    sink = VideoFile(tmp_path / "a.mp4")
    sink.open(ABOUT)
    for frame in frames(CFR[:3]):
        sink.write(frame, NOTHING)
    (tmp_path / "a.mp4").write_bytes(b"somebody else's")
    with pytest.raises(OutputError, match=r"appeared while it was being written; the result is in .*a\.part\.mp4"):
        sink.close(Outcome.COMPLETE)
    assert (tmp_path / "a.mp4").read_bytes() == b"somebody else's"
    assert sink.kept == (tmp_path / "a.part.mp4").resolve()


@pytest.mark.parametrize("is_taken", [False, True])
def test_where_a_file_system_knows_no_links_a_file_that_appears_meanwhile_is_not_replaced_either(
    is_taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As FAT, on sticks and cards."""

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    sink = ObjectsFile(tmp_path / "a.jsonl")
    sink.open(ABOUT)
    sink.write(frames(CFR[:1])[0], NOTHING)
    if is_taken:
        (tmp_path / "a.jsonl").write_bytes(b"somebody else's")
        with pytest.raises(OutputError, match="appeared while it was being written"):
            sink.close(Outcome.COMPLETE)
        assert (tmp_path / "a.jsonl").read_bytes() == b"somebody else's"
    else:
        sink.close(Outcome.COMPLETE)
    assert sink.result is not None
    assert sink.result.read_bytes().startswith(b'{"frame":0,')
    assert len(list(tmp_path.iterdir())) == 1 + is_taken


@pytest.mark.parametrize(("name", "sink"), [("a.mp4", VideoFile), ("a.jsonl", ObjectsFile)])
def test_a_file_whose_folder_was_deleted_meanwhile_is_not_said_to_be_there(
    name: str, sink: type[VideoFile | ObjectsFile], tmp_path: Path
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    file = sink(folder / name)
    file.open(ABOUT)
    for frame in frames(CFR[:3]):
        file.write(frame, NOTHING)
    shutil.rmtree(folder)
    with pytest.raises(OutputError, match="it was deleted while it was being written"):
        file.close(Outcome.COMPLETE)
    assert file.result is None
    assert getattr(file, "kept", None) is None


@pytest.mark.parametrize(("name", "sink"), [("a.mp4", VideoFile), ("a.jsonl", ObjectsFile)])
def test_what_is_left_of_a_failed_run_is_not_said_to_be_where_it_was_deleted(
    name: str, sink: type[VideoFile | ObjectsFile], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    file = sink(folder / name)
    file.open(ABOUT)
    for frame in frames(CFR):
        file.write(frame, NOTHING)
    shutil.rmtree(folder)
    file.close(Outcome.FAILED)
    assert caplog.messages == [
        f"{(folder / name).resolve().with_stem('a.part')} was deleted while it was being written"
    ]
    assert file.result is None


@pytest.mark.parametrize(("name", "sink"), [("a.mp4", VideoFile), ("a.jsonl", ObjectsFile)])
def test_an_old_partial_file_is_left_alone_and_told_of(
    name: str, sink: type[VideoFile | ObjectsFile], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = tmp_path / name.replace(".", ".part.")
    old.write_bytes(b"of an earlier run")
    deliver(sink(tmp_path / name), ABOUT, frames(CFR[:3]))
    assert old.read_bytes() == b"of an earlier run"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, old.name])
    second = old.name.replace("part", "part-2")
    (line,) = caplog.messages
    assert line == (
        f"{old} is left of a run that failed or was killed; what this run writes is {second} until it is whole"
    )


def test_of_partial_files_those_are_told_apart_that_are_left_and_that_are_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = Target(tmp_path / "a.jsonl")
    first = PartFile(target)
    assert caplog.messages == []
    second, third = PartFile(target), PartFile(target)
    if sys.platform != "win32":
        assert caplog.messages[0] == (
            f"{first.path} is being written by another run; what this run writes is a.part-2.jsonl until it is whole"
        )
    caplog.clear()
    second.close()
    third.close()
    PartFile(target).close()
    first.close()
    (line,) = caplog.messages
    if sys.platform != "win32":
        assert line.startswith(f"{second.path} (and 1 more) is left of a run that failed or was killed; what this run")
    assert "what this run writes is a.part-4.jsonl" in line


def test_a_partial_name_that_is_taken_by_what_cannot_be_read_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.part.jsonl").mkdir()
    PartFile(Target(tmp_path / "a.jsonl")).close()
    assert "a.part-2.jsonl" in caplog.text


@pytest.mark.parametrize(
    "name", ["a" * 251 + ".png", "\N{CJK UNIFIED IDEOGRAPH-5199}" * 83 + ".jpg"], ids=["letters", "bytes"]
)
def test_a_name_as_long_as_names_may_be_is_written(name: str, tmp_path: Path) -> None:
    """Under a partial name that is no longer; browsers cut names of images off at this length."""
    deliver(ImageFile(tmp_path / name), SourceInfo("images", (64, 48), "images"), frames(CFR[:1]))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("a.png")
    with pytest.raises(OutputError, match="symbolic links"):
        open_sink(tmp_path / "a.png")


def test_a_linked_file_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "real.mp4").write_bytes(b"old")
    (tmp_path / "a.mp4").symlink_to("disk/real.mp4")
    sink = VideoFile(tmp_path / "a.mp4", overwrite=True)
    sink.open(ABOUT)
    assert (tmp_path / "disk" / "a.part.mp4").exists()  # from elsewhere it could not be renamed
    for frame in frames(CFR[:3]):
        sink.write(frame, NOTHING)
    sink.close(Outcome.COMPLETE)
    assert (tmp_path / "a.mp4").is_symlink()
    assert (tmp_path / "disk" / "real.mp4").stat().st_size > 500
    assert len(list(tmp_path.rglob("*.mp4"))) == 2


def test_a_file_with_nothing_but_its_header_is_empty(tmp_path: Path) -> None:
    part = PartFile(Target(tmp_path / "a.mkv"))
    part.write(b"header")
    part.begin()
    part.checkpoint()
    assert part.is_empty()
    part.write(b"sound")
    part.checkpoint()
    assert not part.is_empty()
    part.discard()


def test_what_a_disk_takes_in_parts_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    part = PartFile(Target(tmp_path / "a.jsonl"))
    part.write(bytes(range(100)))
    monkeypatch.undo()
    part.publish()
    assert (tmp_path / "a.jsonl").read_bytes() == bytes(range(100))


def test_a_folder_filled_by_a_camera_takes_no_memory_for_each_frame(tmp_path: Path) -> None:
    sink = ImageFolder(tmp_path / "out")
    sink.open(SourceInfo("a camera", (4, 4), "live"))
    picture, held = np.zeros((4, 4, 3), np.uint8), []
    tracemalloc.start()
    try:
        for index in range(401):
            sink.write(Frame(picture, index, Fraction(index, 25), 0.0), NOTHING)
            if index % 200 == 0:
                held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[2] - held[1] < 20_000  # a path takes half a kilobyte
    assert len(list((tmp_path / "out").iterdir())) == 401


@needs_limits
def test_a_text_that_cannot_be_written_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    write_text(path, "of before")
    with file_limit(10), pytest.raises(OutputError, match=r"cannot write .*found\.json: File too large"):
        write_text(path, "x" * 99)
    assert path.read_text() == "of before"
    write_text(path, "anew")
    assert (path.read_text(), list(tmp_path.iterdir())) == ("anew", [path])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only: a device that is always full")
def test_a_text_goes_to_what_is_no_file_and_to_what_is_printed_to(tmp_path: Path) -> None:
    said = "import sys; from stream_seg.sinks.part import write_text; from pathlib import Path; "
    call = [sys.executable, "-c", f"{said}write_text(Path(sys.argv[1]), 'it'); print(' and more')"]
    assert subprocess.check_output([*call, "/dev/stdout"], text=True) == "it and more\n"
    with (tmp_path / "printed").open("a") as printed:
        subprocess.run([*call, "/dev/stdout"], stdout=printed, check=True)
    assert (tmp_path / "printed").read_text() == "it and more\n"
    ended = subprocess.run([*call, "/dev/full"], capture_output=True, text=True, check=False)
    assert "OutputError: cannot write /dev/full: No space left on device" in ended.stderr
    assert Path("/dev/full").is_char_device()
