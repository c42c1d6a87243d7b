"""What the check for GPUs does where something fails there, as can be seen on a CPU."""

# ruff: noqa: ANN401  the script is loaded by name, and so its types are not known here

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from stream_seg.errors import DeviceError
from tests.training_scripts import needing

pytestmark = needing("torch", "torchvision")

ROOT = Path(__file__).parents[1]
FP32 = ROOT / "models" / "compact" / "fp32.onnx"


@pytest.fixture(scope="module")
def check() -> Iterator[Any]:
    before, others = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(ROOT / "scripts"))
    yield importlib.import_module("gpu_check")
    sys.path[:] = before
    for name in set(sys.modules) - others:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(ROOT / "scripts")):
            sys.modules.pop(name)


def fails(*_: object, **__: object) -> None:
    raise MemoryError


def test_a_part_that_fails_is_one_line_and_not_the_end(check: Any, tmp_path: Path) -> None:
    results = check.Results({}, tmp_path / "found.json")
    assert results.attempt("this", fails) is None
    assert results.attempt("that", lambda: 7) == 7
    check.measure(check.Speed("m", "ours", "64x64", 1), fails, results, 0.0)
    known = json.loads((tmp_path / "found.json").read_text())
    assert known["failures"] == ["this: MemoryError"]
    assert known["speeds"][0]["error"] == "MemoryError"


def test_a_session_never_goes_on_with_the_cpu(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where CUDA cannot be had, which ends one part, nor in a run that fails."""
    given: list[dict[str, Any]] = []

    class Session:
        def __init__(self, *_: object, **options: Any) -> None:
            given.append(options)

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    results = check.Results({}, None)
    results.attempt("nodes", lambda: check.session(FP32, "cuda"))
    assert results.failures == [
        "nodes: DeviceError: ONNX Runtime cannot use CUDA here: install onnxruntime-gpu[cuda,cudnn]"
    ]
    assert given[0]["enable_fallback"] == 0


def test_what_fails_of_a_network_does_not_keep_the_rest_from_being_checked(
    check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that cannot be written, and another that cannot be opened when speed is measured."""
    import torch

    class Model(torch.nn.Linear):
        roi_heads = torch.nn.Module()

    def export(*_: object, precision: str, **__: object) -> str:
        if precision == "fp16":
            raise DeviceError("none of that")
        return precision

    monkeypatch.setattr(check.reference, "make_model", lambda _: Model(2, 2))
    monkeypatch.setattr(check.reference, "detect", lambda _model, images, _sizes: [empty(check)] * len(images))
    monkeypatch.setattr(check, "export_graph", export)
    monkeypatch.setattr(check, "threshold_for", lambda *_: 0.5)
    for name in ("check_placement", "check_equality", "session"):
        monkeypatch.setattr(check, name, fails)
    results = check.Results({}, None)
    check.check_network("r50-fpn", "cpu", check.QUICK, 0.0, tmp_path, results)
    assert results.failures == [
        "r50-fpn fp32, nodes: MemoryError",
        "r50-fpn fp32, equality: MemoryError",
        "r50-fpn fp16, written: DeviceError: none of that",
        "r50-fpn fp32 at 128x96: MemoryError",
    ]
    assert [row.fps is not None for row in results.speeds] == [True, True]


def empty(check: Any) -> Any:
    return check.Found(*(np.zeros((0, *tail), np.float32) for tail in ((4,), (), (), (28, 28))))


def test_what_cannot_be_is_said_before_the_work(
    check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    monkeypatch.setattr(check, "choose", lambda _: "cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for options, code, words in (
        (["--device", "cuda"], 5, "sees no CUDA device: install its build for CUDA"),
        (["--device", "cpu", "--out", str(tmp_path / "no" / "x.json")], 6, "x.json: No such file or directory"),
    ):
        monkeypatch.setattr(sys, "argv", ["gpu_check.py", *options])
        with pytest.raises(SystemExit) as ended:
            check.main()
        assert ended.value.code == code
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("gpu_check: ")
        assert line.endswith(words)
