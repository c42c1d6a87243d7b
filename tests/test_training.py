"""Training from end to end on made-up pictures, as a user does it: train, stop, resume, evaluate, export, run.

What is stopped by a signal and has processes of its own runs as a process; the rest in that of the tests. The processes
that train together are started first, and work while the other tests do.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream_seg import load_segmenter
from stream_seg.cli import main
from stream_seg.graph.labels import COMPACT_LABELS
from tests.support import file_limit
from tests.training_scripts import FOLDER, importable, run
from tests.training_shapes import CATEGORIES, draw, write_shapes

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "safetensors", "matplotlib")
BUILT_IN = ROOT / "models" / "compact" / "weights.safetensors"
STEPS = 36

pytestmark = [
    pytest.mark.needs(missing=[package for package in PACKAGES if find_spec(package) is None]),
    pytest.mark.timeout(400),  # the first test waits for a run of training
]


def options(data: Path, out: Path, *more: str) -> list[str]:
    """Those of train.py for a small run."""
    small = ["--threads", "1", "--workers", "0", "--batch", "2", "--sizes", "160", "--size", "160", "--log-every", "3"]
    brief = ["--steps", str(STEPS), "--rate", "2e-3", "--warmup", "5", "--average", "0.9", "--validations", "1"]
    return [str(data), "--out", str(out), *small, *brief, *more]


def started(program: Path, *arguments: str) -> subprocess.Popen[str]:
    """A process, to be waited for and not killed: others of its team would be left waiting for it."""
    command = [sys.executable, str(program), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.fixture(scope="module", autouse=True)
def scripts() -> Iterator[None]:
    with importable():
        yield


@pytest.fixture(scope="module", autouse=True)
def exchange() -> Iterator[subprocess.Popen[str]]:
    """Two processes that share weights and gradients."""
    with started(ROOT / "tests" / "training_team_program.py") as running:
        yield running
        running.communicate()


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shapes, and a photo in which none is annotated.

    It is so large that OpenCV would use threads to cache it, which are not there in the processes that make batches.
    """
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, train=40, val=8)
    document = json.loads((folder / "train.json").read_text())
    photo = cv2.resize(cv2.imread(str(ROOT / "samples" / "photo.jpg")), (1400, 1050))
    cv2.imwrite(str(folder / "photo.png"), photo)
    image = {"id": 99, "file_name": "photo.png", "width": 1400, "height": 1050, "exhaustive": [], "source": "photos"}
    document["images"].append(image)
    (folder / "train.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module", autouse=True)
def interrupted(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A run of two processes, each with one more that makes its batches, to be stopped after its first steps."""
    out = tmp_path_factory.mktemp("run") / "run"
    several = ["--processes", "2", "--workers", "1"]
    with started(FOLDER / "train.py", *options(shapes, out, *several)) as running:
        yield running, out
        running.communicate()


@pytest.fixture(scope="module")
def trained(shapes: Path, interrupted: tuple[subprocess.Popen[str], Path]) -> Path:
    """A run that was stopped after its first steps and resumed, by one process."""
    first, out = interrupted
    while first.poll() is None and not (out / "log.jsonl").exists():
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGTERM)  # all its processes, as a service manager or a terminal does
    printed, errors = first.communicate(timeout=60)
    assert first.returncode == 0, errors
    assert "41 pictures, 3 classes: box, ball, tent" in printed
    crowds = Counter(one.get("iscrowd", 0) for one in json.loads((shapes / "train.json").read_text())["annotations"])
    assert f"{crowds[1]} of {crowds.total()} annotations are iscrowd: regions to ignore" in printed
    before = json.loads((out / "run.json").read_text())
    assert 0 < before["steps"] < STEPS
    assert before["objects"] == crowds[0]
    with contextlib.redirect_stderr(io.StringIO()) as told:
        assert f"{STEPS} steps" in run("train", *options(shapes, out, "--resume"))
    shares = [int(share) for share in re.findall(r"(\d+)%\|", told.getvalue())]
    assert shares[0] == round(100 * before["steps"] / STEPS)  # the bar goes on where it stopped
    assert shares[-1] == 100
    return out


@pytest.fixture(scope="module")
def exported(trained: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "shapes"
    measured = ["--data", shapes, "--sizes", "160", "--licence", "CC0-1.0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("card"), "ROUNDS", 1)  # how fast it is here, nobody wants to know
        said = run("export", trained, folder, "--calibrate", shapes / "val" / "[01].png", *measured)
    assert re.search(r"^int8, long side 160: mask AP [\d.]+, AP50 [\d.]+; box AP .* \(mean of 3\)$", said, re.MULTILINE)
    return folder


def test_a_preview_that_cannot_be_written_is_refused_before_the_work(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("preview", "nowhere/preview.png"):
        with pytest.raises(SystemExit) as ended:
            run("preview", shapes, "--out", tmp_path / name)
        assert ended.value.code == 6
        assert f"cannot write {tmp_path / name}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["export", "{run}", "{new}", "--calibrate", "nowhere.mp4"], 3, "nowhere.mp4"),
        (["export", "{run}", "{new}", "--calibrate", "{data}/val", "--data", "{data}", "--val", "x.json"], 3, "x.json"),
        (["export", "{run}", "{new}", "--calibrate", "{data}/val", "--sizes", "0"], 2, "'0' should be pixels, such as"),
        (["evaluate", "{run}/weights.safetensors", "{data}", "--sizes", "320,"], 2, "'320,' should be pixels, such as"),
        (["evaluate", "{run}/weights.safetensors", "{data}", "--out", "{new}/ap.json"], 6, "a folder that is there"),
        (["outline", "{data}", "--out", "{new}", "--weights", "x.safetensors"], 4, "x.safetensors cannot be read"),
        (
            ["train", "{data}", "--out", "{data}/val.json/new", "--steps", "1"],
            6,
            "new: Not a directory; give another --out",
        ),
    ],
)
def test_what_a_command_cannot_do_it_says_before_it_writes_anything(
    trained: Path,
    shapes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    code: int,
    said: str,
) -> None:
    places = {"run": trained, "data": shapes, "new": tmp_path / "new"}
    with pytest.raises(SystemExit) as ended:
        run(*(word.format(**places) for word in command))
    assert (ended.value.code, list(tmp_path.iterdir())) == (code, [])
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_ctrl_c_ends_a_command_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        importlib.import_module("commands").carry_out("preview", interrupted)
    assert (ended.value.code, capsys.readouterr().err) == (130, "preview: stopped\n")


@pytest.mark.usefixtures("in_a_terminal")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_other_signals_end_a_command_as_ctrl_c_does(
    number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before, cleaned = signal.getsignal(number), []

    def interrupted() -> None:
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append(True)

    with pytest.raises(SystemExit) as ended:
        importlib.import_module("commands").carry_out("preview", interrupted)
    assert (ended.value.code, capsys.readouterr().err, cleaned) == (code, "preview: stopped\n", [True])
    assert signal.getsignal(number) == before


def test_what_cannot_be_written_ends_a_command_with_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with file_limit(10), pytest.raises(SystemExit) as ended:
        importlib.import_module("commands").carry_out("train", lambda: (tmp_path / "log").write_text("x" * 99) and None)
    assert (ended.value.code, capsys.readouterr().err) == (6, "train: File too large\n")
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("commands").carry_out("train", lambda: (tmp_path / "no" / "log").touch())
    assert capsys.readouterr().err == f"train: {tmp_path}/no/log: No such file or directory\n"


def test_a_run_is_resumed_with_its_own_classes_and_parts(
    trained: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    shutil.copyfile(trained / "last.pt", tmp_path / "run" / "last.pt")
    document = json.loads((shapes / "train.json").read_text())
    document["categories"][0]["name"] = "crate"
    (tmp_path / "train.json").write_text(json.dumps(document))
    again = options(shapes, tmp_path / "run", "--resume", "--validations", "0", "--cache", str(trained / "cache"))
    for more, said in (
        (["--train", str(tmp_path / "train.json")], "the run is of the classes box, ball, tent, not box, crate, tent"),
        (["--only", "masks"], "the run trains other parts of the network: give --only and --freeze as before"),
    ):
        with pytest.raises(SystemExit) as ended:
            run("train", *again, *more)
        assert ended.value.code == 2
        assert said in capsys.readouterr().err


def test_pictures_to_validate_on_may_lie_elsewhere(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, code in ((tmp_path / "nowhere", 3), (shapes, None)):
        argv = ["--val-images", str(place), "--freeze", "9"] if code is None else ["--val-images", str(place)]
        with pytest.raises(SystemExit) as ended:
            run("train", *options(shapes, tmp_path / "run", *argv))
        assert (ended.value.code, "is not there" in capsys.readouterr().err) == ((3, True) if code else (2, False))


def test_annotations_that_cannot_be_validated_on_stop_no_run_half_way(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads((shapes / "val.json").read_text())
    document["categories"] = [{**category, "name": f"a {category['name']}"} for category in document["categories"]]
    (tmp_path / "val.json").write_text(json.dumps(document))
    with pytest.raises(SystemExit) as ended:
        run("train", *options(shapes, tmp_path / "run", "--val", str(tmp_path / "val.json")))
    assert ended.value.code == 2
    assert "have no class in common" in capsys.readouterr().err
    assert not (tmp_path / "run" / "last.pt").exists()


def test_annotations_that_teach_nothing_are_refused_before_pictures_are_decoded(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads((shapes / "train.json").read_text())
    boxes = [{key: value for key, value in one.items() if key != "segmentation"} for one in document["annotations"]]
    for objects, more, said in (
        ([], [], "has no object to learn: look whether its annotations have the image_id of its images"),
        ([one | {"iscrowd": 1} for one in document["annotations"]], [], "has no object to learn"),
        (boxes, ["--only", "masks"], "has an outline, and --only masks learns from nothing else: outline.py draws"),
    ):
        (tmp_path / "train.json").write_text(json.dumps(document | {"annotations": objects}))
        with pytest.raises(SystemExit) as ended:
            run("train", *options(shapes, tmp_path / "run", "--train", str(tmp_path / "train.json"), *more))
        assert ended.value.code == 3
        assert said in capsys.readouterr().err
        assert not list((tmp_path / "run").iterdir())


def test_a_model_card_is_not_written_over(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README.md").write_text("where it fails")
    with pytest.raises(SystemExit) as ended:
        run("export", trained, tmp_path, "--calibrate", ROOT / "samples" / "photo.jpg")
    assert ended.value.code == 6
    assert "README.md is there already, with what its author knows: name a folder that" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("README.md", "where it fails")]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only: a device that is always full")
def test_an_export_into_the_run_itself_or_onto_a_full_disk_says_which_it_is(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weights.safetensors").symlink_to("/dev/full")
    for folder, said in ((trained, "is RUN itself: name another"), (tmp_path, ": No space left on device")):
        with pytest.raises(SystemExit) as ended:
            run("export", trained, folder, "--calibrate", ROOT / "samples" / "photo.jpg")
        assert ended.value.code == 6
        assert said in capsys.readouterr().err
    assert (trained / "weights.safetensors").stat().st_size


def test_shares_of_a_source_that_there_is_not_are_refused_before_pictures_are_decoded(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run("train", *options(shapes, tmp_path / "run", "--shares", "nobody=0.5"))
    assert ended.value.code == 3
    assert "train: shares must name sources of the images" in capsys.readouterr().err
    assert not list((tmp_path / "run").iterdir())


def test_the_loss_falls_and_the_run_is_recorded(trained: Path) -> None:
    records = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    steps = [record for record in records if "loss" in record]
    assert [record["step"] for record in steps] == sorted({record["step"] for record in steps})
    assert steps[-1]["step"] == STEPS
    assert steps[-1]["loss"] < 0.8 * steps[0]["loss"]
    assert records[-1]["mask_ap50"] > 60
    assert cv2.imread(str(trained / "curves.png")) is not None
    told = json.loads((trained / "run.json").read_text())
    assert {(one["source"], one["licence"], one["pictures"]) for one in told["sources"]} == {
        ("made up", "public domain", 30),
        ("balls only", "public domain", 10),
        ("photos", "", 1),
    }


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw none: those of `trained` are looked at, and each takes as long as some steps of training."""
    monkeypatch.setattr(importlib.import_module("trainer"), "draw_curves", lambda *_: None)


@pytest.mark.usefixtures("no_curves")
def test_a_seed_gives_the_same_run_again(trained: Path, shapes: Path, tmp_path: Path) -> None:
    import torch

    brief = ["--steps", "2", "--log-every", "1", "--validations", "0", "--cache", str(trained / "cache")]
    for out, seed in (("first", "5"), ("again", "5"), ("other", "6")):
        torch.rand(1)  # as another process would begin elsewhere
        run("train", *options(shapes, tmp_path / out, *brief, "--seed", seed))
    first, again, other = (losses_of(tmp_path / out) for out in ("first", "again", "other"))
    assert len(first) == 2
    assert first == again
    assert first != other


@pytest.mark.usefixtures("no_curves")
def test_a_run_that_is_resumed_began_with_what_it_did(trained: Path, shapes: Path, tmp_path: Path) -> None:
    mine, out = shutil.copyfile(BUILT_IN, tmp_path / "mine.safetensors"), tmp_path / "run"
    brief = ["--validations", "0", "--cache", str(trained / "cache"), "--stop-after", "0.0001"]
    for more in (["--weights", str(mine)], ["--resume"]):
        run("train", *options(shapes, out, *brief, *more))
        assert json.loads((out / "run.json").read_text())["options"]["weights"] == str(mine)


@pytest.mark.usefixtures("no_curves")
def test_what_is_noted_of_a_run_is_that_of_the_weights_beside_it(
    trained: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = importlib.import_module("train")
    make_loader = train._loader

    def killed(*arguments: object) -> Iterator[object]:
        batches = iter(make_loader(*arguments))
        yield next(batches)
        yield next(batches)
        raise RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. ")

    monkeypatch.setattr(train, "_loader", killed)
    brief = ["--validations", "0", "--cache", str(trained / "cache")]
    with pytest.raises(SystemExit):
        run("train", *options(shapes, tmp_path / "run", *brief))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["steps"] == 2


def losses_of(folder: Path) -> list[float]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
@pytest.mark.usefixtures("no_curves")
def test_of_the_built_in_model_outlines_alone_are_trained(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    cv2.imwrite(str(tmp_path / "grey.png"), np.full((120, 160, 3), 127, np.uint8))
    image = {"id": 1, "file_name": "grey.png", "width": 160, "height": 120}
    box = [[10, 10, 90, 10, 90, 90, 10, 90]]
    one = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [10, 10, 80, 80], "segmentation": box}
    categories = [{"id": number, "name": name} for number, name in enumerate(COMPACT_LABELS[1:], 1)]
    document = {"images": [image], "annotations": [one], "categories": categories}
    (tmp_path / "train.json").write_text(json.dumps(document))
    only = ["--validations", "0", "--only", "masks", "--log-every", "1", "--stop-after", "0.0001"]
    run("train", *options(tmp_path, tmp_path / "run", *only))
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [(one["step"], one["skipped"]) for one in records] == [(1, 0)]
    old, new = load_file(BUILT_IN), load_file(tmp_path / "run" / "weights.safetensors")
    changed = {key for key in old if not np.array_equal(old[key], new[key])}
    assert changed
    assert all(key.startswith("roi_heads.mask_") for key in changed)


def test_processes_that_train_together_have_the_same_weights_and_the_mean_of_their_gradients(
    exchange: subprocess.Popen[str],
) -> None:
    printed, errors = exchange.communicate(timeout=120)
    assert (exchange.returncode, errors) == (0, "")
    told = sorted(json.loads(line) for line in printed.splitlines())
    assert told == [[rank, [7.0, 7.0], [1.0, 2.0], [1.5], [0.25], True] for rank in (0, 1)]


def test_evaluation_prints_the_precision_of_each_class(trained: Path, shapes: Path, tmp_path: Path) -> None:
    said = run("evaluate", trained / "weights.safetensors", shapes, "--sizes", "160", "--out", tmp_path / "ap.json")
    assert all(name in said for name in ("long side 160", "ball", "box", "tent", "mean of 3"))
    assert json.loads((tmp_path / "ap.json").read_text())["160"]["mean"]["mask_ap50"] > 60


def test_the_exported_folder_is_whole_and_its_card_tells_what_was_measured(exported: Path) -> None:
    files = {path.name for path in exported.iterdir()}
    assert files == {"fp32.onnx", "int8.onnx", "weights.safetensors", "README.md"}
    assert (exported / "int8.onnx").stat().st_size < 0.35 * (exported / "fp32.onnx").stat().st_size
    card = (exported / "README.md").read_text()
    assert "It finds: box, ball, tent. Licence of the weights: CC0-1.0." in card
    assert "| balls only | public domain | 10 |" in card
    assert "| int8, long side 160 | mean of 3 |" in card


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_exported_file_finds_shapes_it_has_not_seen(precision: str, exported: Path) -> None:
    rng, right, wanted = random.Random(9), 0, 0
    with load_segmenter(exported / f"{precision}.onnx", device="cpu", long_side=160) as segmenter:
        assert segmenter.class_names == ("box", "ball", "tent")
        for _ in range(6):
            picture, truth = draw(rng)
            (found,) = segmenter([picture])
            for one in truth:
                x, y, width, height = one["bbox"]
                near = np.abs(found.boxes - (x, y, x + width, y + height)).max(1) < 12
                names = [name for name, is_near in zip(found.names, near, strict=True) if is_near]
                right += bool(names) and CATEGORIES[names[0]] == one["category_id"]
                wanted += 1
    assert right >= 0.7 * wanted


def test_the_command_runs_the_exported_file(exported: Path, tmp_path: Path) -> None:
    picture, out = tmp_path / "shapes.png", tmp_path / "found.png"
    cv2.imwrite(str(picture), draw(random.Random(3))[0])
    assert main([str(picture), "-o", str(out), "--model", str(exported / "int8.onnx"), "--size", "160"]) == 0
    assert cv2.imread(str(out)) is not None
