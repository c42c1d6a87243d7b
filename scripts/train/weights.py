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
_SCORES = "roi_heads.box_predictor.cls_score"
_PER_CLASS = {
    f"{_SCORES}.weight": 1,
    f"{_SCORES}.bias": 1,
    "roi_heads.box_predictor.bbox_pred.weight": 1,
    "roi_heads.box_predictor.bbox_pred.bias": 1,
    "presence.classes.weight": 0,
    "presence.classes.bias": 0,
    CLASS_EMBEDDING: 1,
}
"""Parameters with rows for each class, and whether they have some for the background before those."""
_BEGIN_ANEW = "begin anew with another --out, and --weights where there are some of this run"
_LIKE_OTHERS = ("roi_heads.box_predictor.bbox_pred", CLASS_EMBEDDING)
"""What a new class is like in the mean, until it is known better: refinement of boxes, outlines."""


def read_weights(path: Path) -> tuple[State, tuple[str, ...]]:
    """A state_dict in float32 and its class names, without the background. Raises ModelError."""
    try:
        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118  it is no mapping
            named = (file.metadata() or {}).get("classes", "")
    except (OSError, SafetensorError) as error:
        raise ModelError(f"the weights {path} cannot be read: {error}") from error
    count = len(state.get(f"{_SCORES}.bias", [])) - 1
    classes = _names(named) if named else a.DEFAULT_CLASSES
    if count < 0:
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
    """Of metadata, without the background: a JSON list, or with commas, as those of the built-in weights are."""
    return tuple(json.loads(text) if text.startswith("[") else text.split(","))[1:]


def start_from(path: Path, classes: tuple[str, ...], frozen: int) -> Net:
    """A network for `classes` with the weights of a file; new classes get a new predictor. Raises ModelError.

    Masks of weights without an embedding of the classes are the same for all, until they are trained.
    """
    state, known = read_weights(path)
    net = Net(classes, frozen)
    state.setdefault(CLASS_EMBEDDING, torch.zeros(len(known) + 1, a.PYRAMID_CHANNELS))
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

    Scores of new classes start from almost nothing, so that they are learned from their own pictures.
    """
    fresh, first = net.state_dict()[key], _PER_CLASS[key]
    rows = fresh.view(len(net.classes) + first, -1).clone()
    old = state[key].view(len(known) + first, -1)
    if key.startswith(_LIKE_OTHERS):
        rows[:] = old[1:].mean(0)
    rows[:first] = old[:first]
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
