"""Where weights come from and go to: safetensors to start from and to export, a checkpoint to resume from."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import architecture as a
import torch
from model import Net
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from stream_seg.errors import ModelError, OutputError
from stream_seg.graph.parameters import CLASS_EMBEDDING

State = dict[str, Tensor]

BUILT_IN = Path(__file__).parents[2] / "models" / "compact" / "weights.safetensors"
_SCORES = "dense.0.classes.bias"
_PER_CLASS = {f"dense.{level}.classes.{kind}": 0 for level in range(len(a.STRIDES)) for kind in ("weight", "bias")}
_PER_CLASS[CLASS_EMBEDDING] = 1
"""Parameters with rows for each class, and whether they have one for the background before those."""
_BEGIN_ANEW = "begin anew with another --out, and --weights where there are some of this run"


def read_weights(path: Path) -> tuple[State, tuple[str, ...]]:
    """A state_dict in float32 and its class names, without the background. Raises ModelError."""
    if path.is_dir():
        raise ModelError(f"{path} is a folder: name the weights in it, as {path / 'weights.safetensors'} of a run")
    try:
        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118  it is no mapping
            named = (file.metadata() or {}).get("classes", "")
    except (OSError, SafetensorError) as error:
        raise ModelError(f"the weights {path} cannot be read: {error}") from error
    count, classes = len(state.get(_SCORES, [])), _names(named)
    if not count:
        raise ModelError(f"the weights {path} are not of the compact network: they have no {_SCORES}")
    if len(classes) != count:
        raise ModelError(f"the weights {path} have {count} classes, but {len(classes)} names")
    return state, classes


def write_weights(path: Path, state: State, classes: tuple[str, ...]) -> None:
    """Write whole or not at all. Raises OutputError."""
    tensors = {key: value.detach().float().cpu().contiguous() for key, value in state.items()}
    # As JSON, for names may have commas.
    said = {"classes": json.dumps(["background", *classes], ensure_ascii=False)}
    with _whole(path) as file:
        file.write(save(tensors, said))


def write_run(folder: Path, state: State, classes: tuple[str, ...], run: dict[str, Any]) -> None:
    """Make a folder like a run's, for evaluate.py and export.py. Raises OutputError."""
    try:
        folder.mkdir(parents=True)
        write_weights(folder / "weights.safetensors", state, classes)
        write_notes(folder, run)
    except OSError as error:
        raise OutputError(f"cannot make {folder}: {error.strerror}; name a folder that is not there yet") from error


def write_notes(folder: Path, run: dict[str, Any]) -> None:
    """Write what is noted of a run, whole or not at all. Raises OutputError."""
    with _whole(folder / "run.json") as file:
        file.write(json.dumps(run, indent=2, default=str).encode())


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """A file that replaces `path` at the end: being killed while writing, or a full disk, leaves the previous one."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; what was there before is intact") from error
    finally:  # also of an interruption
        part.unlink(missing_ok=True)


def _names(text: str) -> tuple[str, ...]:
    """Of metadata, without the background: a JSON list, or with commas."""
    return tuple(json.loads(text) if text.startswith("[") else text.split(","))[1:]


def start_from(path: Path, classes: tuple[str, ...], frozen: int) -> Net:
    """A network for `classes` with the weights of a file; new classes get a new predictor. Raises ModelError."""
    state, known = read_weights(path)
    net = Net(classes, frozen)
    if classes != known and state.keys() == net.state_dict().keys():
        for key in _PER_CLASS:
            state[key] = _adapted(key, state, known, net)
    if differs := first_difference(state, net.state_dict()):
        raise ModelError(f"the weights {path} are not of the compact network: {differs} differs")
    net.load_state_dict(state)
    return net


def first_difference(state: State, wanted: State) -> str:
    """A parameter that one of them lacks or that has another shape; empty where there is none."""
    lacking = state.keys() ^ wanted.keys()
    return min(lacking or [key for key in wanted if wanted[key].shape != state[key].shape], default="")


def _adapted(key: str, state: State, known: tuple[str, ...], net: Net) -> Tensor:
    """The parameter for other classes: rows of the same name are kept.

    A new class is as unlikely as a network says that has seen nothing, so that it is learned from its own pictures; it
    is outlined as what has no name.
    """
    fresh, first = net.state_dict()[key], _PER_CLASS[key]
    rows, old = (one.clone().view(len(one), -1) for one in (fresh, state[key]))
    if first:
        rows[:] = old[0]
    for place, name in enumerate(net.classes, first):
        if name in known:
            rows[place] = old[known.index(name) + first]
    return rows.view(fresh.shape)


def read_checkpoint(path: Path, holds: Iterable[str]) -> dict[str, Any]:
    """What `write_checkpoint` wrote, which `holds` at least this. Raises ModelError."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"the checkpoint {path} cannot be read: {error.strerror}") from error
    except Exception as error:  # PyTorch raises many kinds, with pages of advice
        raise ModelError(f"the checkpoint {path} is damaged, or of another program; {_BEGIN_ANEW}") from error
    if not isinstance(found, dict) or not found.keys() >= set(holds):
        raise ModelError(f"the checkpoint {path} is of another program; {_BEGIN_ANEW}")
    return found


def write_checkpoint(path: Path, content: dict[str, object]) -> None:
    """Write whole or not at all. Raises OutputError."""
    saved = io.BytesIO()  # of a file, torch does not say why it could not be written
    torch.save(content, saved)
    with _whole(path) as file:
        file.write(saved.getbuffer())
