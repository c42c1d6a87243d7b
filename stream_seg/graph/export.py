"""From a file of weights to a model file: recognises the network, builds its graph, writes it whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from stream_seg.errors import ModelError, OutputError, UsageError, did_you_mean
from stream_seg.frame import Image
from stream_seg.graph.build import build_graph
from stream_seg.graph.config import ARCHITECTURES, R50_FPN, STRIDE, Device, MaskRCNN, Precision
from stream_seg.graph.labels import format_labels, known_labels, numbered_labels, with_background
from stream_seg.graph.parameters import check, modern_names, recognise
from stream_seg.graph.precision import Agreement, compare, make_feeds, quantise
from stream_seg.graph.published import COCO_V1_SHA256, is_built_in, licence_of
from stream_seg.graph.weights import Weights, read_weights
from stream_seg.version import __version__

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many steps of it are done, and of how many."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A model file that was written. `agreement` compares int8 with float32 and is None otherwise."""

    path: Path
    config: MaskRCNN
    precision: Precision
    labels: tuple[str, ...]
    nodes: int
    size: int
    agreement: Agreement | None


def export_graph(
    weights: str | Path,
    output: str | Path,
    *,
    architecture: str | None = None,
    precision: Precision = "fp32",
    device: Device = "cpu",
    proposals: int | None = None,
    size: tuple[int, int] | None = None,
    labels: Sequence[str] | None = None,
    licence: str | None = None,
    calibration: Iterable[Image] | None = None,
    progress: Progress = lambda _step, _done, _total: None,
) -> Exported:
    """Build the graph of a `.pth` or `.safetensors` file and write it, replacing what is there.

    `architecture` is a name of ARCHITECTURES; None recognises it. `proposals` per image go to the box head. `size` is
    the (width, height) frames and photos should be resized into, rounded up to multiples of 32 and stored in the file.
    `labels` name the classes; a first one "background" may be left out. Without them the names are those in the
    weights, else those known for them, else numbers. `licence` is that of the weights; without it the one known for
    them, or "unknown". `calibration` gives images like those to come, (H, W, 3) uint8 BGR; only int8 needs them.
    `device` "cuda" writes what suits it: suppression, pooling, regions in equal numbers. Such a file runs everywhere.

    Raises UsageError for wrong options, ModelError for weights that cannot be read or do not fit, OutputError if the
    file cannot be written, ValueError for what is no image.
    """
    check_options(architecture, precision, device, proposals, size, calibration)
    weights, output = Path(weights), Path(output)
    progress("read weights", 0, 1)
    source = read_weights(weights)
    state = modern_names(source.state)
    try:
        config = _configure(recognise(state), source.sha256, architecture, proposals, size)
        check(state, config)
        names = _own_labels(source, config, weights) if labels is None else _given_labels(labels, config.classes)
    except (ModelError, UsageError) as error:
        raise type(error)(f"{weights}: {error}") from error
    even = device == "cuda" and precision != "int8"
    config = replace(config, licence=licence or licence_of(source.sha256), even=even)
    metadata = describe(config, names, precision=precision, device=device)
    metadata |= {"source": os.fsencode(weights.name).decode(errors="replace"), "source_sha256": source.sha256}
    progress("build graph", 0, 1)
    model = build_graph(config, state, half=precision == "fp16", device=device, metadata=metadata)
    agreement = None
    if precision == "int8":
        model, agreement = _quantised(model, () if calibration is None else calibration, config, progress)
    progress("write", 0, 1)
    written = _write(model, output)
    progress("write", 1, 1)
    return Exported(output, config, precision, names, len(model.graph.node), written, agreement)


def describe(config: MaskRCNN, labels: Sequence[str], *, precision: Precision, device: Device) -> dict[str, str]:
    """The metadata a model file carries, so that it can be used without knowing where it came from."""
    canvases = ",".join(f"{width}x{height}" for width, height in config.canvases)
    return {
        "labels": format_labels(tuple(labels)),
        "stride": str(STRIDE),
        "mask_size": str(2 * config.pooling.mask_size),
        "canvas": "RGB uint8 NHWC",
        "architecture": config.name,
        "precision": precision,
        "device": device,
        "licence": config.licence,
        "generator": f"stream-seg {__version__}",
        "config": json.dumps(dataclasses.asdict(config)),
        **({"canvases": canvases} if canvases else {}),
        **({"overview": str(config.overview)} if config.overview else {}),
        **({"still_size": str(config.still_size)} if config.still_size else {}),
        **({"mirrored": "yes"} if config.mirrored else {}),
    }


def check_options(
    architecture: str | None,
    precision: str,
    device: str,
    proposals: int | None,
    size: tuple[int, int] | None,
    calibration: Iterable[Image] | None,
) -> None:
    """Raise `UsageError` where `export_graph` would whatever the weights are, and so before they are at hand."""
    known = [config.name for config in ARCHITECTURES]
    if architecture is not None and architecture not in known:
        hint = did_you_mean(architecture, known)
        raise UsageError(f"there is no architecture {architecture!r}; choose from {', '.join(known)}{hint}")
    if precision not in ("fp32", "fp16", "int8"):
        raise UsageError(f"precision must be fp32, fp16 or int8, not {precision!r}")
    if device not in ("cpu", "cuda"):
        raise UsageError(f"the graph can be written for cpu or cuda, not {device!r}")
    if proposals is not None and not 1 <= proposals <= 10_000:
        raise UsageError(f"proposals must be from 1 to 10000, not {proposals}")
    if size is not None and not all(STRIDE <= side <= 8192 for side in size):
        raise UsageError(f"size must be from {STRIDE}x{STRIDE} to 8192x8192, not {size[0]}x{size[1]}")
    if precision == "int8" and calibration is None:
        raise UsageError("int8 needs frames to calibrate on: give --calibrate VIDEO_OR_FOLDER")


def _configure(
    found: MaskRCNN, sha256: str, architecture: str | None, proposals: int | None, size: tuple[int, int] | None
) -> MaskRCNN:
    """What was recognised, with what the weights cannot tell and what the user wants."""
    if architecture is not None and architecture != found.name:
        raise ModelError(f"these are the weights of {found.name}, not of {architecture}")
    if sha256 == COCO_V1_SHA256 or architecture == R50_FPN.name:
        found = replace(found, norm_eps=R50_FPN.norm_eps)
    if proposals is not None:
        if found.proposals is None:
            raise UsageError(
                f"{found.name} finds objects without proposals, so that there is no number of them to choose"
            )
        per_level = max(proposals, found.proposals.per_level)
        found = replace(found, proposals=replace(found.proposals, count=proposals, per_level=per_level))
    if size is not None:
        width, height = (-(-side // STRIDE) * STRIDE for side in size)
        found = replace(found, canvases=((width, height),), still_size=0)
    return found


def _given_labels(given: Sequence[str], classes: int) -> tuple[str, ...]:
    labels = with_background(tuple(given))
    if len(labels) != classes:
        without = "" if labels == tuple(given) else " without it"
        raise UsageError(
            f"the weights have {classes} classes with the background, but {len(given)} labels were given{without}: "
            f'name the other {classes - 1}, alone or after "background"'
        )
    return labels


def _own_labels(source: Weights, config: MaskRCNN, weights: Path) -> tuple[str, ...]:
    """The names in the weights, else those known for them; numbers, and a word about it, where there are neither."""
    own = with_background(source.labels) if source.labels else ()
    if len(own) == config.classes:
        return own
    known = known_labels(config, built_in=is_built_in(source.sha256))
    if len(known) == config.classes:
        return known
    logger.warning("%s: what its %d classes are called is not known: give --labels FILE", weights, config.classes - 1)
    return numbered_labels(config.classes)


def _quantised(
    model: onnx.ModelProto, frames: Iterable[Image], config: MaskRCNN, progress: Progress
) -> tuple[onnx.ModelProto, Agreement]:
    feeds = make_feeds(frames, config.canvases)
    int8 = quantise(model, feeds, lambda done, total: progress("calibrate", done, total))
    progress("compare with fp32", 0, 1)
    return int8, compare(model, int8, feeds)


def _write(model: onnx.ModelProto, output: Path) -> int:
    """Write under another name, then rename: a file under its own name is whole. Returns its size in bytes.

    Links are followed, and stay.
    """
    data = model.SerializeToString()
    target = output.resolve()
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if target.exists() and not target.is_file():
            raise OutputError(f"cannot write {output}: it is there already, and no file")
        part.write_bytes(data)
        part.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror}") from error
    finally:  # also of an interruption
        with suppress(OSError):
            part.unlink()
    return len(data)
