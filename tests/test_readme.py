"""The README and the guides do what they say: commands and Python run, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stream_seg.cli import main
from stream_seg.cli.arguments import SUBCOMMANDS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(mark: str, text: str = TEXT) -> list[str]:
    """The fenced blocks behind `<!-- run: mark -->`."""
    return re.findall(rf"<!-- run: {mark} -->\n```\w+\n(.*?)```", text, re.DOTALL)


def execute(code: str) -> None:
    """Run a program, on the beginning of the clip."""
    shortened = re.sub(r'open_source\(("samples/clip\.mp4"|path)\)', r"open_source(\1, max_frames=20)", code)
    exec(shortened, {"__name__": "__main__"})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which has the samples."""
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("code", blocks("python"))
def test_its_python_runs(code: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    execute(code)
    assert re.search(r"\d+ objects|person 0\.\d+", capsys.readouterr().out)


GUIDE_TEXT = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
GUIDE = blocks("python", GUIDE_TEXT)
(EVALUATION,) = blocks("evaluation", GUIDE_TEXT)
MADE = (
    ["frame.png"],
    ["picture.png"],
    ["0_person.png", "1_cat.png"],
    ["zone.jsonl", "zone.mp4"],
    ["door.mp4"],
    ["clip.jsonl"],
    ["cat_2.jpg"],
    ["bright.png"],
    ["annotations.json"],
)


@pytest.mark.parametrize(("code", "made"), list(zip(GUIDE, MADE, strict=True)))
def test_each_program_of_the_guide_makes_what_it_says(
    code: str, made: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(code)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*made, "samples"])
    if made == ["zone.jsonl", "zone.mp4"]:
        assert capsys.readouterr().out == "{'person': 20}\n"
    if made == ["annotations.json"]:  # by which the model is right
        assert main(["eval", "--images", "samples", "--annotations", "annotations.json", "--device", "cpu"]) == 0
        assert re.search(r"mean of 2 +2( +100\.0){6}\n", capsys.readouterr().out)
        execute(EVALUATION)
        assert re.search(r"mean of 2 +2( +100\.0){6}\n", capsys.readouterr().out)


def test_its_main_job_runs_as_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The installation before it is what CI does; here only the job, shortened."""
    (command,) = blocks("main job")
    job = command.split("&&")[-1].split()
    assert job[0] == "stream-seg"
    assert main([*job[1:], "--max-frames", "20"]) == 0
    assert "20 captured, 20 delivered, 0 dropped" in capsys.readouterr().out
    assert (folder / "annotated.mp4").is_file()


def test_the_service_of_the_guide_can_begin_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (unit,) = blocks("service", (ROOT / "docs" / "live.md").read_text(encoding="utf-8"))
    (command,) = re.findall(r"^ExecStart=\S+/stream-seg (.*)$", unit, re.MULTILINE)
    (address,) = re.findall(r"rtsp://\S+", command)
    argv = command.replace(address, "synthetic:64x64@30x3").replace("/srv/door", str(tmp_path)).split()
    assert main(argv) == 0
    assert main(argv) == 0
    assert len(list(tmp_path.glob("door_*.mp4"))) == 2
    assert main([word for word in argv if word != "--overwrite"]) == 6
    assert f"{tmp_path / 'run.json'} exists already" in capsys.readouterr().err


def test_its_test_command_is_what_ci_runs() -> None:
    (command,) = blocks("tests")
    ci = (ROOT / ".ci" / "run").read_text()
    steps = [step.strip() for step in command.split("&&")]
    assert steps[-1] == "scripts/test"
    assert "scripts/test" in ci
    assert "pip install -q -e '.[dev]'" in ci
    assert "pip install -e '.[dev]'" in steps[2]


def options(capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Every option of every command, as its help has it."""
    for command in ([], *([name] for name in SUBCOMMANDS)):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
    return set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))


TF2ONNX = {"--saved-model", "--outputs"}
"""Options of tf2onnx that docs/models.md speaks of."""


def of_training() -> set[str]:
    """The options of scripts/train, which run in an environment of their own."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "scripts" / "train").glob("*.py")]
    return set(re.findall(r"\"(--[a-z][a-z-]+)\"", "".join(texts)))


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_option_it_names_exists(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = page.read_text(encoding="utf-8")
    # Other programs have options of their own: ours stand alone in backticks, or in a line that runs stream-seg.
    ours = re.findall(r"`(--[a-z][a-z-]+)", text)
    for line in re.findall(r"(?:^|`|&& )(stream-seg .*)", text, re.MULTILINE):
        ours += re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)
    assert set(ours) - TF2ONNX <= options(capsys) | of_training()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_its_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target
