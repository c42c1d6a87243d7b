"""Averages trained weights: the mean of those before and after a run is often better than either (Wortsman 2022).

    python scripts/train/average.py BEFORE.safetensors RUN/weights.safetensors --shares 0.25,0.75 --out MEAN

MEAN is a folder like a run's, for evaluate.py and export.py: what is noted of it is what RUN, the last one, has noted.
Weights that were not trained one from the other, or from the same, have no mean that is worth anything.
"""

from __future__ import annotations

import argparse
import math
from functools import partial
from pathlib import Path

from commands import carry_out, read_run
from weights import first_difference, read_weights, write_run

from stream_seg.errors import ModelError, UsageError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, nargs="+", help="safetensors files, that of a run last")
    parser.add_argument("--shares", type=_shares, help="how much of each, e.g. 0.25,0.75 (default: as much of each)")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    args = parser.parse_args()
    carry_out("average", partial(_average, args.weights, args.shares or [1.0] * len(args.weights), args.out))


def _shares(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < one < math.inf for one in found):
        raise argparse.ArgumentTypeError(f"{text!r} should be positive numbers, such as 0.25,0.75")
    return found


def _average(files: list[Path], shares: list[float], out: Path) -> None:
    if len(files) < 2 or len(files) != len(shares):
        raise UsageError(f"{len(files)} files and {len(shares)} shares: give two files or more, and a share for each")
    run = read_run(files[-1].with_name("run.json"))
    parts = [share / sum(shares) for share in shares]
    mean, classes = read_weights(files[0])
    mean = {name: parts[0] * value.double() for name, value in mean.items()}
    for file, part in zip(files[1:], parts[1:], strict=True):
        state, its_classes = read_weights(file)
        if its_classes != classes:
            raise ModelError(f"{file} is for other classes than {files[0]}")
        if differs := first_difference(state, mean):
            raise ModelError(f"{file} is of another network than {files[0]}: {differs} differs")
        for name, value in state.items():
            mean[name] += part * value
    run["mean"] = [[str(file), part] for file, part in zip(files, parts, strict=True)]
    write_run(out, mean, classes, run)
    print(f"{out / 'weights.safetensors'}: the mean of {len(files)}")


if __name__ == "__main__":
    main()
