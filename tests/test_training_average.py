"""Means of trained weights."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.training_scripts import importable, needing, run

pytestmark = needing("torch", "safetensors")

NOTED = {"steps": 9, "minutes": 1.0, "pictures": 4, "objects": 5, "sources": [], "options": {"weights": "w"}}


@pytest.fixture(scope="module")
def weights() -> Iterator[ModuleType]:
    with importable():
        yield importlib.import_module("weights")


@pytest.fixture
def before_and_run(weights: ModuleType, tmp_path: Path) -> tuple[Path, Path]:
    """The built-in weights, and those of a run that has made all of them larger by 8."""
    state, classes = weights.read_weights(weights.BUILT_IN)
    folder = tmp_path / "run"
    folder.mkdir()
    weights.write_weights(folder / "weights.safetensors", {k: v + 8 for k, v in state.items()}, classes)
    (folder / "run.json").write_text(json.dumps(NOTED))
    return weights.BUILT_IN, folder / "weights.safetensors"


@pytest.mark.parametrize(("shares", "added"), [([], 4), (["--shares", "1,3"], 6)])
def test_a_mean_is_a_run_that_can_be_exported(
    shares: list[str], added: int, before_and_run: tuple[Path, Path], weights: ModuleType, tmp_path: Path
) -> None:
    import torch

    before, after = before_and_run
    printed = run("average", before, after, *shares, "--out", tmp_path / "mean")
    assert printed == f"{tmp_path / 'mean' / 'weights.safetensors'}: the mean of 2\n"
    (state, classes), (mean, its_classes) = map(weights.read_weights, (before, tmp_path / "mean" / after.name))
    assert its_classes == classes
    assert mean.keys() == state.keys()
    assert all(torch.allclose(mean[name], value + added, atol=1e-5) for name, value in state.items())
    noted = json.loads((tmp_path / "mean" / "run.json").read_text())
    assert noted == NOTED | {"mean": [[str(before), 1 - added / 8], [str(after), added / 8]]}
    card = importlib.import_module("card")
    for name in ("fp32.onnx", "int8.onnx"):
        (tmp_path / "mean" / name).touch()
    card.write_card(tmp_path / "mean", card.Facts(noted, classes, {}, {("int8", 1): 9.0}, "CC0-1.0"))
    parts = f"{1 - added / 8:.2f} of `compact/weights.safetensors`, {added / 8:.2f} of `run/weights.safetensors`"
    assert f"The weights are a mean: {parts}." in (tmp_path / "mean" / "README.md").read_text()


def test_what_has_no_mean_is_refused_in_one_line(
    before_and_run: tuple[Path, Path], weights: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = before_and_run
    state, classes = weights.read_weights(before)
    others, wider = tmp_path / "others.safetensors", tmp_path / "wider.safetensors"
    weights.write_weights(others, weights.start_from(before, ("a", "b"), -1).state_dict(), ("a", "b"))
    weights.write_weights(wider, state | {"backbone.body.stem.bias": state["backbone.body.stem.bias"][:3]}, classes)
    new = str(tmp_path / "mean")
    for asked, code, words in (
        ([after, "--out", new], 2, "1 files and 1 shares: give two files or more, and a share for each"),
        ([before, after, "--shares", "1", "--out", new], 2, "2 files and 1 shares: give two files or more"),
        ([others, after, "--out", new], 4, f"{after} is for other classes than {others}"),
        ([wider, after, "--out", new], 4, f"{after} is of another network than {wider}: backbone.body.stem.bias"),
        ([after, before, "--out", new], 4, "run.json is not what train.py writes"),
        ([after.parent, after, "--out", new], 4, f"{after.parent} is a folder: name the weights in it, as {after} of"),
        ([before, after, "--out", str(tmp_path)], 6, f"cannot make {tmp_path}: File exists; name a folder"),
    ):
        with pytest.raises(SystemExit) as ended:
            run("average", *map(str, asked))
        said = capsys.readouterr().err
        assert (ended.value.code, said.count("\n")) == (code, 1)
        assert said.startswith("average: ")
        assert words in said
    for damaged, words in (("[1]", "it is not a JSON object"), ('{"steps": 9}', "it has no minutes, objects, options")):
        after.with_name("run.json").write_text(damaged)
        with pytest.raises(SystemExit) as ended:
            run("average", before, after, "--out", new)
        assert ended.value.code == 4
        assert f"run.json is not what train.py writes: {words}" in capsys.readouterr().err
    assert not Path(new).exists()
    for shares in ("0,1", "x,1", "nan,1"):
        with pytest.raises(SystemExit):
            run("average", before, after, "--shares", shares, "--out", new)
        assert "should be positive numbers" in capsys.readouterr().err
