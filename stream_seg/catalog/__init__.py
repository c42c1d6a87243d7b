"""Named models: which there are, where they lie on this machine, and how they get there.

    compact             part of the package
    r50-fpn, -v2        torchvision's weights; the ONNX graph is built from them after the download
    zoo-r50-fpn, -int8  ONNX files, used as they are published

Downloads go to one folder per user (`default_model_dir`) unless another is named. A file there that has the published
length was verified when it came and is not hashed again.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from stream_seg.catalog.downloads import PATIENCE, Download, Patience, Progress, fetch
from stream_seg.catalog.entries import ENTRIES, Device, Entry
from stream_seg.catalog.onnxfile import ModelInfo, TensorInfo, info
from stream_seg.errors import ModelError, did_you_mean
from stream_seg.locking import Purpose, locked

__all__ = [
    "ENTRIES",
    "Build",
    "Device",
    "Download",
    "Entry",
    "ModelInfo",
    "ModelRow",
    "Patience",
    "Progress",
    "TensorInfo",
    "default_model_dir",
    "info",
    "is_file",
    "list_models",
    "locate",
    "path",
    "pull",
    "remove",
    "table",
    "weights",
]

Build = Callable[[Path, str, Device, Path], None]
"""Makes an ONNX graph: (weights file, architecture, device it is for, file to write). Raises `ModelError`."""

_PACKAGE = Path(__file__).parents[1]
_FETCHING = Purpose("fetching the same model", "--model-dir", ModelError)


def default_model_dir() -> Path:
    """Where downloaded models are kept unless a folder is named: the platform's place for caches."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or _home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = _home() / "Library" / "Caches"
    else:
        named = Path(os.environ.get("XDG_CACHE_HOME", ""))
        base = named if named.is_absolute() else _home() / ".cache"  # the XDG specification ignores relative ones
    return base / "stream-seg" / "models"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        raise ModelError("there is no home folder to keep models in; name a folder with --model-dir") from error


def locate(
    name_or_path: str | Path,
    *,
    device: Device = "cpu",
    model_dir: Path | None = None,
    offline: bool = False,
    progress: Progress | None = None,
    build: Build | None = None,
    entries: tuple[Entry, ...] = ENTRIES,
) -> Path:
    """The ONNX file of a model: of a path that exists, itself; of a name, where it lies, after pulling it if need be.

    `device` chooses between the files of `compact` (int8 for a CPU, fp32 for CUDA). `offline` forbids the network: what
    `build` makes of weights on disk is had all the same. Raises `ModelError` for an unknown name, a missing file, a
    model that is not on disk while `offline`, and whatever `pull` raises.
    """
    if is_file(Path(name_or_path)):
        return Path(name_or_path)
    entry = _find(str(name_or_path), entries)
    if offline and entry.download is not None:
        folder = model_dir or default_model_dir()
        can_build = build is not None and _weights_on_disk(entry, folder)
        if not (can_build or _graph_on_disk(entry, folder, device)):
            raise ModelError(f"the model '{entry.name}' is not on disk; run: {_pull_command(entry, device, model_dir)}")
    return pull(entry.name, device=device, model_dir=model_dir, progress=progress, build=build, entries=entries)


def path(name: str, *, device: Device = "cpu", model_dir: Path | None = None) -> Path:
    """Where a model lies on disk. Raises `ModelError` for an unknown name and for one that is not there."""
    return locate(name, device=device, model_dir=model_dir, offline=True)


def pull(
    name: str,
    *,
    device: Device = "cpu",
    model_dir: Path | None = None,
    progress: Progress | None = None,
    build: Build | None = None,
    patience: Patience = PATIENCE,
    entries: tuple[Entry, ...] = ENTRIES,
) -> Path:
    """Make sure a model is on disk, downloading and building what is missing; return its ONNX file.

    Weights are not missing where the graph that is built from them is there.

    Several processes may pull the same model at once: one works, the others wait for it. `build` is needed for models
    whose graph is built here, for `device`. Raises `ModelError` as `downloads.fetch` does.
    """
    entry = _find(name, entries)
    if entry.download is None:
        return _embedded("int8.onnx" if device == "cpu" else "fp32.onnx")
    folder = model_dir or default_model_dir()
    graph = folder / entry.graph_file(device)
    if _graph_on_disk(entry, folder, device):
        return graph
    if entry.architecture is not None and build is None:
        raise ModelError(
            f"'{name}' has to be built from its weights first; run: {_pull_command(entry, device, model_dir)}"
        )
    with locked(_lock_file(entry, _usable(folder)), _FETCHING):
        if not _graph_on_disk(entry, folder, device):  # another process may have made it in the meantime
            published = _fetched(entry.download, folder, progress, patience)
            if entry.architecture is not None and build is not None:
                _build(entry.architecture, device, published, graph, build)
    return graph


def weights(
    name: str,
    *,
    model_dir: Path | None = None,
    offline: bool = False,
    progress: Progress | None = None,
    entries: tuple[Entry, ...] = ENTRIES,
) -> tuple[Path, str]:
    """The weights a graph can be built from, downloaded if need be, and their architecture: for `stream-seg export`.

    Raises `ModelError` for a model that is published as a finished graph only, and as `locate` does.
    """
    entry = _find(name, entries)
    if entry.download is None:
        return _embedded("weights.safetensors"), entry.name
    if entry.architecture is None:
        raise ModelError(f"'{name}' is published as a finished graph: there are no weights to build from")
    folder = model_dir or default_model_dir()
    if _whole(entry.download, folder):
        return folder / entry.download.file, entry.architecture  # without the lock: the folder may be read-only
    if offline:
        raise ModelError(f"the weights of '{name}' are not on disk; run: {_pull_command(entry, 'cpu', model_dir)}")
    with locked(_lock_file(entry, _usable(folder)), _FETCHING):
        return _fetched(entry.download, folder, progress, PATIENCE), entry.architecture


def remove(name: str, *, model_dir: Path | None = None, entries: tuple[Entry, ...] = ENTRIES) -> list[Path]:
    """Delete a model's files, half-finished ones too; return what was deleted.

    Raises `ModelError` for an unknown name, for `compact`, for a model that is not there and for files that cannot go.
    """
    entry = _find(name, entries)
    if entry.download is None:
        raise ModelError(f"'{name}' is part of the package and cannot be removed")
    folder = model_dir or default_model_dir()
    names = dict.fromkeys((entry.graph_file("cpu"), entry.graph_file("cuda"), entry.download.file))
    found = [file for stem in names for file in (folder / stem, folder / f"{stem}.part") if is_file(file)]
    if not found:
        raise ModelError(f"the model '{name}' is not on disk: there is nothing to remove in {folder}")
    with locked(_lock_file(entry, folder), _FETCHING):
        try:
            for file in found:
                file.unlink(missing_ok=True)
        except OSError as error:
            raise ModelError(f"cannot remove {file}: {error.strerror}") from error
    return found


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One line of `stream-seg models`. `megabytes` is what is (or would be) downloaded, AP is in per cent."""

    name: str
    megabytes: float
    classes: int
    box_ap: float | None
    mask_ap: float | None
    licence: str
    on_disk: bool
    size: str
    description: str


def list_models(model_dir: Path | None = None, entries: tuple[Entry, ...] = ENTRIES) -> list[ModelRow]:
    """Every named model, and whether it could be used right now without a network: on the device that its graph was
    built for, or after building it from weights that are there.
    """
    folder = model_dir or default_model_dir()
    return [_row(entry, folder) for entry in entries]


def _row(entry: Entry, folder: Path) -> ModelRow:
    size = _embedded("int8.onnx").stat().st_size if entry.download is None else entry.download.size
    graphs = (_graph_on_disk(entry, folder, device) for device in get_args(Device))
    on_disk = entry.download is None or _weights_on_disk(entry, folder) or any(graphs)
    return ModelRow(
        entry.name,
        round(size / 1e6, 1),
        entry.classes,
        entry.box_ap,
        entry.mask_ap,
        entry.licence,
        on_disk,
        entry.size,
        entry.description,
    )


def table(rows: list[ModelRow]) -> str:
    """The rows as aligned plain text with a heading, and a note on what the accuracies are."""
    cells = [("name", "MB", "classes", "box AP", "mask AP", "input", "licence", "on disk", "what it is")]
    cells += [
        (
            row.name,
            f"{row.megabytes:.1f}",
            str(row.classes),
            _number(row.box_ap),
            _number(row.mask_ap),
            row.size,
            row.licence,
            "yes" if row.on_disk else "no",
            row.description,
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(_aligned(text, i, widths[i]) for i, text in enumerate(line)).rstrip() for line in cells]
    return "\n".join([*lines, "", _ACCURACY_NOTE])


_ACCURACY_NOTE = (
    "AP is COCO's (IoU 0.50 to 0.95), in per cent: on val2017 as published; for compact on 151 of its images and "
    "20 of its classes."
)
_NUMERIC_COLUMNS = range(1, 5)


def _aligned(text: str, column: int, width: int) -> str:
    return text.rjust(width) if column in _NUMERIC_COLUMNS else text.ljust(width)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def is_file(file: Path) -> bool:
    """Whether a file is there. Raises `ModelError` for a name too long or a folder that may not be looked into."""
    try:
        return file.is_file()
    except OSError as error:
        raise ModelError(f"cannot read the model {file}: {error.strerror}") from error


def _pull_command(entry: Entry, device: Device, model_dir: Path | None) -> str:
    """What brings a model here; a graph that is built is one for the device."""
    built = f" --device {device}" if entry.architecture else ""
    place = f" --model-dir {shlex.quote(str(model_dir))}" if model_dir else ""
    return f"stream-seg models pull {entry.name}{built}{place}"


def _find(name: str, entries: tuple[Entry, ...]) -> Entry:
    for entry in entries:
        if entry.name == name:
            return entry
    names = [entry.name for entry in entries]
    if name and Path(name).is_dir():
        raise ModelError(f"{name} is a folder; name the model file in it, or one of: {', '.join(names)}")
    if Path(name).suffix or len(Path(name).parts) > 1:
        raise ModelError(f"the model file {name} does not exist")
    raise ModelError(f"there is no model '{name}'{did_you_mean(name, names)}; known: {', '.join(names)}")


def _embedded(file: str) -> Path:
    """A file of the default model: inside the installed package, or beside it in a checkout."""
    for folder in (_PACKAGE / "models" / "compact", _PACKAGE.parent / "models" / "compact"):
        if (folder / file).is_file():
            return folder / file
    raise ModelError(f"the built-in model's {file} is missing from this installation; install stream-seg again")


def _usable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"cannot make the model folder {folder}: {error.strerror}; choose another with --model-dir"
        ) from error
    return folder


def _lock_file(entry: Entry, folder: Path) -> Path:
    return folder / f".{entry.name}.lock"


def _whole(download: Download, folder: Path) -> bool:
    file = folder / download.file
    return is_file(file) and file.stat().st_size == download.size


def _graph_on_disk(entry: Entry, folder: Path, device: Device) -> bool:
    if entry.architecture is None and entry.download is not None:
        return _whole(entry.download, folder)
    return is_file(folder / entry.graph_file(device))


def _weights_on_disk(entry: Entry, folder: Path) -> bool:
    """Whether the graph of a model could be built here without a network."""
    return entry.architecture is not None and entry.download is not None and _whole(entry.download, folder)


def _fetched(download: Download, folder: Path, progress: Progress | None, patience: Patience) -> Path:
    """The published file, downloaded unless it is there already. To be called under the model's lock."""
    return folder / download.file if _whole(download, folder) else fetch(download, folder, progress, patience)


def _build(architecture: str, device: Device, published: Path, target: Path, build: Build) -> None:
    unfinished = target.with_name(f"{target.name}.part")
    try:
        build(published, architecture, device, unfinished)
        unfinished.replace(target)
    except OSError as error:
        raise ModelError(f"cannot write {target}: {error.strerror or error}; choose another --model-dir") from error
    finally:
        unfinished.unlink(missing_ok=True)
