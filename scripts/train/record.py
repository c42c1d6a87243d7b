"""What is kept of a run: log.jsonl, a line of numbers every few steps, and curves.png, drawn from it."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from stream_seg.errors import StreamSegError

Number = float | int | str


class Log:
    """Sums losses on the device, and reads and writes their means every few steps."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sums: dict[str, Tensor] = {}
        self._steps = 0

    def add(self, values: dict[str, Tensor]) -> None:
        self._steps += 1
        for name, value in values.items():
            detached = value.detach().float()
            self._sums[name] = self._sums[name] + detached if name in self._sums else detached

    def means(self) -> dict[str, float]:
        """Of all that was added since the last call: one wait for the device."""
        if not self._steps:
            return {}
        values = torch.stack(list(self._sums.values())).div(self._steps).tolist()
        found = dict(zip(self._sums, values, strict=True))
        self._sums, self._steps = {}, 0
        return found

    def write(self, record: dict[str, Number]) -> None:
        """Values that are no numbers, as where no object has an outline, are left out."""
        known = {key: value for key, value in record.items() if value == value}  # which NaN is not
        rounded = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in known.items()}
        with self._path.open("a") as file:
            file.write(json.dumps(rounded) + "\n")

    def forget_after(self, step: int) -> None:
        """Leave out what a run wrote since it was saved at `step`, where it was killed: it is trained anew."""
        kept = [json.dumps(record) + "\n" for record in read_log(self._path) if record["step"] <= step]
        if self._path.exists() and "".join(kept) != self._path.read_text():
            part = self._path.with_name(f"{self._path.name}.part")
            part.write_text("".join(kept))
            part.replace(self._path)


def read_log(path: Path) -> list[dict[str, Number]]:
    """What `Log.write` wrote; a line that was cut off, by a full disk or a kill, is passed over."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return records


def find_pyplot() -> ModuleType:
    """matplotlib's, for files. Raises StreamSegError where it, or what it needs, is not there."""
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise StreamSegError(f"training needs matplotlib ({error}); run: pip install 'stream-seg[train]'") from error
    return pyplot


def draw_curves(log: Path, picture: Path) -> None:
    """Losses on the left, average precision on the right."""
    pyplot = find_pyplot()
    records = read_log(log)
    steps, scores = ([one for one in records if key in one] for key in ("loss", "box_ap"))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
    drawn = ("loss", "class", "box", "distance", "mask", "dice")
    for name in (one for one in drawn if steps and one in steps[0]):
        left.plot([one["step"] for one in steps], [one.get(name, math.nan) for one in steps], label=name)
    left.set(yscale="log", xlabel="step", title="losses")
    for name in ("box_ap", "box_ap50", "mask_ap", "mask_ap50"):
        right.plot(
            [one["step"] for one in scores],
            [one.get(name, math.nan) for one in scores],
            "o-",
            label=name.replace("_", " "),
        )
    right.set(xlabel="step", title="validation, mean of classes (%)")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    figure.tight_layout()
    figure.savefig(picture, dpi=90)
    pyplot.close(figure)
