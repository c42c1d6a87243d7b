"""Writes the card of a trained model: what it is, learned from, achieves and costs; limits are left to its author."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stream_seg.evaluate import Accuracy, Result

import onnxruntime  # isort: skip  after stream_seg, which keeps it from reporting

CANVAS = (256, 320)
ROUNDS = 15


@dataclass(frozen=True, slots=True)
class Facts:
    """`run`: what train.py noted. `accuracy` by (file, long side), `speed` in milliseconds by (file, threads)."""

    run: dict[str, Any]
    classes: tuple[str, ...]
    accuracy: dict[tuple[str, int], Result]
    speed: dict[tuple[str, int], float]
    licence: str


def write_card(folder: Path, facts: Facts) -> None:
    """Write README.md."""
    parts = [_what(folder, facts), _accuracy(facts), _speed(facts), _training(facts), _limits(facts)]
    (folder / "README.md").write_text("\n\n".join(part for part in parts if part) + "\n", "utf-8")


def measure_speed(*files: Path) -> dict[tuple[str, int], float]:
    """Median milliseconds per picture of noise, the network alone, files and thread counts in turn."""
    ways = {(file.stem, threads): _session(file, threads) for file in files for threads in (1, 2)}
    pixels = np.random.default_rng(0).integers(0, 256, (1, *CANVAS, 3), np.uint8)
    feed = {"images": pixels, "sizes": np.array([CANVAS], np.float32)}
    taken: dict[tuple[str, int], list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, session in ways.items():
            start = time.perf_counter()
            session.run(None, feed)
            taken[way].append(1000 * (time.perf_counter() - start))
    return {way: statistics.median(times) for way, times in taken.items()}


def _session(file: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def _what(folder: Path, facts: Facts) -> str:
    purposes = {"int8.onnx": "for CPUs", "fp32.onnx": "for CUDA", "weights.safetensors": "to train or export again"}
    rows = [[f"`{name}`", f"{(folder / name).stat().st_size:,}", why] for name, why in purposes.items()]
    return (
        f"# {folder.name}\n\nThe compact network: body, pyramid and detector of NanoDet-g, and behind them a head "
        f"for masks of 28x28. It finds: {', '.join(facts.classes)}. Licence of the weights: {facts.licence}.\n\n"
        + _table(["file", "bytes", "what"], rows)
    )


def _accuracy(facts: Facts) -> str:
    if not facts.accuracy:
        return "## Accuracy\n\nNot measured: no annotations to validate on were given."
    rows = [
        [f"{file}, long side {size}", one.name, *(_figures(ap, ap50) for ap, ap50 in _pairs(one))]
        for (file, size), result in facts.accuracy.items()
        for one in (*result.classes, result.mean)
    ]
    pictures = next(iter(facts.accuracy.values())).images
    return (
        f"## Accuracy\n\nCOCO average precision (IoU 0.50 to 0.95) / AP50, in per cent, on {pictures} pictures that "
        "were not trained on.\n\n" + _table(["file", "class", "mask", "box"], rows)
    )


def _figures(ap: float, ap50: float) -> str:
    return "-" if math.isnan(ap50) else f"{ap:.1f} / {ap50:.1f}"  # of masks, where no object has an outline


def _pairs(one: Accuracy) -> tuple[tuple[float, float], tuple[float, float]]:
    return (one.mask_ap, one.mask_ap50), (one.box_ap, one.box_ap50)


def _speed(facts: Facts) -> str:
    rows = [[file, str(threads), f"{ms:.1f}"] for (file, threads), ms in facts.speed.items()]
    version = onnxruntime.__version__
    return (
        f"## Speed\n\nNetwork alone, canvas {CANVAS[1]}x{CANVAS[0]}, ONNX Runtime {version} on the machine that "
        "exported it; medians, measured in turn.\n\n" + _table(["file", "threads", "ms per picture"], rows)
    )


def _training(facts: Facts) -> str:
    run = facts.run
    rows = [[one["source"] or "-", one["licence"] or "-", str(one["pictures"])] for one in run["sources"]]
    return (
        f"## Training\n\n{run['steps']:,} steps in {run['minutes']:.0f} minutes on {run['pictures']:,} pictures with "
        f"{run['objects']:,} objects, from `{_short(run['options']['weights'])}`, by `scripts/train/train.py`."
        f"{_mean(run)}{_calibrated(run)}\n\n" + _table(["source of pictures", "licence", "pictures"], rows)
    )


def _mean(run: dict[str, Any]) -> str:
    """Of what the weights are the mean, where `average.py` made one."""
    parts = [f"{share:.2f} of `{_short(path)}`" for path, share in run.get("mean", [])]
    return f" The weights are a mean: {', '.join(parts)}." if parts else ""


def _calibrated(run: dict[str, Any]) -> str:
    """Of scores that `calibrate.py` has fitted."""
    return " Scores were fitted to what is right by `scripts/train/calibrate.py`." if "calibrated" in run else ""


def _short(path: str) -> str:
    """A file with its folder: most files of weights have the same name."""
    return Path(*Path(path).parts[-2:]).as_posix()


def _limits(facts: Facts) -> str:
    """What the figures say by themselves; its author knows more."""
    if not facts.accuracy:
        return ""
    result = next(iter(facts.accuracy.values()))
    known = [(one.mask_ap50, one.name) for one in result.classes if not math.isnan(one.mask_ap50)]
    kind, known = ("mask", known) if known else ("box", [(one.box_ap50, one.name) for one in result.classes])
    named = ", ".join(f"{name} ({ap50:.0f})" for ap50, name in sorted(known)[:3])
    return f"## Limits\n\nWeakest classes by {kind} AP50: {named}. Classes with few objects in training are guesses."
