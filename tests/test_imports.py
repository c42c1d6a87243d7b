"""Imports go one way, and importing the package has no side effect that hurts."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

import stream_seg

PACKAGE = Path(stream_seg.__file__).parent

ROOMS: tuple[tuple[str, ...], ...] = (
    ("coco", "columns", "errors", "heap", "opencv", "version"),
    (
        "availability",
        "channel",
        "detections",
        "feed_sound",
        "frame",
        "intake",
        "locking",
        "metrics",
        "protocols",
        "pyav",
    ),
    (
        "agreement",
        "geometry",
        "given",
        "line",
        "motion",
        "naming",
        "pace",
        "region",
        "render",
        "steady",
        "tracks",
        "unchanged",
    ),
    ("addresses", "catalog", "ground_truth"),
    ("sources", "segmenters", "sinks"),
    ("pipeline", "tiles", "evaluate"),
    ("cli", "__main__"),
)
"""From the lowest to the highest. A room may import from lower rooms and from itself; those of one line, but for the
second and third, never from each other."""

MAY_IMPORT_SIDEWAYS = {1, 2}

HEAVY = {"cv2", "av", "onnxruntime", "tqdm"}
ALLOWED = {
    "coco": set(),
    "columns": set(),
    "errors": set(),
    "heap": set(),
    "opencv": {"cv2"},
    "version": set(),
    "frame": set(),
    "detections": set(),
    "availability": set(),
    "channel": set(),
    "intake": set(),
    "locking": set(),
    "metrics": set(),
    "protocols": set(),
    "pipeline": set(),
    "pyav": {"av"},
    "addresses": {"av"},
    "agreement": set(),
    "geometry": {"cv2"},
    "given": set(),
    "line": set(),
    "motion": {"cv2"},
    "naming": set(),
    "pace": set(),
    "region": {"cv2"},
    "render": {"cv2"},
    "catalog": {"onnxruntime"},
    "sources": {"cv2", "av"},
    "segmenters": {"onnxruntime"},
    "sinks": {"cv2", "av"},
    "evaluate": {"cv2"},
    "feed_sound": set(),
    "ground_truth": set(),
    "steady": set(),
    "unchanged": {"cv2"},
    "tiles": set(),
    "tracks": {"av"},
    "cli": {"tqdm"},
    "graph": {"onnxruntime"},
}
"""Which of the heavy packages a room may use."""


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def nodes(path: Path) -> list[ast.AST]:
    """All there is in a module."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def imports(path: Path) -> set[str]:
    """Every module `path` imports, inside functions too, `from stream_seg import x` as stream_seg.x."""
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found.add(node.module or "")
            if node.module == "stream_seg":
                found.update(f"stream_seg.{alias.name}" for alias in node.names)
    return found


def level(room: str) -> int:
    return next(i for i, rooms in enumerate(ROOMS) if room in rooms)


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def test_there_are_modules_to_walk_and_each_has_a_room() -> None:
    assert len(MODULES) > 20
    assert {room_of(path) for path in MODULES} == {name for rooms in ROOMS for name in rooms} | {"graph"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_below(path: Path) -> None:
    room = room_of(path)
    internal = {name.split(".")[1] for name in imports(path) if name.startswith("stream_seg.")}
    internal -= {"__version__", room}
    if room == "graph":
        assert internal <= {"coco", "errors", "frame", "geometry", "version"}
        return
    if room in ("cli", "__main__"):
        return
    for other in internal:
        assert other != "graph", "only the command line and scripts reach graph"
        here, there = level(room), level(other)
        assert there < here or (there == here and here in MAY_IMPORT_SIDEWAYS), f"{room} imports {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_uses_only_the_packages_of_its_room(path: Path) -> None:
    used = {name.split(".")[0] for name in imports(path)} & HEAVY
    assert used <= ALLOWED.get(room_of(path), set())


def test_nothing_but_the_command_line_prints() -> None:
    for path in MODULES:
        calls = [node for node in nodes(path) if isinstance(node, ast.Call)]
        printing = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in ("print", "exit")]
        assert not printing or room_of(path) == "cli", path


def test_the_command_is_ready_to_be_interrupted_before_anything_heavy_is_loaded() -> None:
    heavy = ("cv2", "av", "onnxruntime", "numpy", "tqdm", "logging", "typing")
    code = f"import sys, stream_seg.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_importing_the_package_brings_nothing_that_only_building_needs() -> None:
    code = (
        "import sys; from stream_seg import *; "
        "print([m for m in ('onnx', 'torch', 'pycocotools', 'paho') if m in sys.modules], 'av' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[] True"


def test_onnx_runtime_keeps_no_identifier_and_reports_nothing(tmp_path: Path) -> None:
    """It would write both into the home folder before it sends anything."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(PACKAGE.parent)}
    code = "import os, stream_seg.segmenters; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), list(tmp_path.iterdir()), done.stderr) == ("1", [], "")


def test_whoever_wants_onnx_runtime_to_report_may_say_so() -> None:
    code = "import os, stream_seg; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "0"


def test_every_public_name_exists() -> None:
    assert all(hasattr(stream_seg, name) for name in stream_seg.__all__)


def test_public_names_are_listed_before_they_are_imported() -> None:
    code = "import sys, stream_seg; print(set(stream_seg.__all__) <= set(dir(stream_seg)), 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "True False"


def test_the_build_backend_knows_a_list_of_licence_files() -> None:
    """As `license-files` is since PEP 639; hatchling 1.25 wants a table there."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))
    assert isinstance(project["project"]["license-files"], list)
    (backend,) = project["build-system"]["requires"]
    assert tuple(map(int, backend.removeprefix("hatchling>=").split("."))) >= (1, 26)
