"""What the commands of this folder share: how they end, options that are lists, and what is noted of a run."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stopping import interrupted_by_all

from stream_seg.cli.arguments import natural
from stream_seg.cli.signals import Interrupted
from stream_seg.errors import DeviceError, ModelError, OutputError, StreamSegError, UsageError

NOTED = frozenset({"steps", "minutes", "pictures", "objects", "sources", "options"})
"""What the model card tells of a run."""
LARGEST_SEED = 10**15
"""What workers make of it is a thousand times as large, and has to fit 64 bits."""


def carry_out(name: str, command: Callable[[], None], stopped: str = "stopped") -> None:
    """Run a command; what goes wrong is one line and an exit code, and so are signals, of which `stopped` tells."""
    try:
        with interrupted_by_all():
            command()
    except StreamSegError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:  # of what is written all along, such as a log
        place = f"{error.filename}: " if error.filename else ""
        print(f"{name}: {place}{error.strerror or error}", file=sys.stderr)
        sys.exit(OutputError.exit_code)
    except RuntimeError as error:
        if not (told := out_of_memory(error)):
            raise
        print(f"{name}: {told}; free some, or give another --device", file=sys.stderr)
        sys.exit(DeviceError.exit_code)
    except KeyboardInterrupt:
        print(f"{name}: {stopped}", file=sys.stderr)
        sys.exit(130)
    except Interrupted as interrupted:
        print(f"{name}: {stopped}", file=sys.stderr)
        sys.exit(interrupted.exit_code)


def out_of_memory(error: RuntimeError) -> str:
    """What PyTorch says of a device that has too little memory, without its advice; empty of any other error."""
    first, *_ = str(error).splitlines() or [""]
    return ". ".join(first.split(". ")[:3]) if "out of memory" in first else ""


def data_parser(description: str | None) -> argparse.ArgumentParser:
    """Of a command about annotated pictures: with DATA, --train and --images."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--train", default="train.json", help="annotations, from DATA (default: %(default)s)")
    parser.add_argument("--images", type=Path, help="where the file names start from (default: DATA)")
    return parser


def refuse_existing(path: Path) -> None:
    """Raise UsageError where a command would write over something."""
    if path.exists():
        raise UsageError(f"{path} is there already: give another --out")


def long_sides(text: str) -> list[int]:
    """Pixels, of an option such as 320,416,640."""
    try:
        sides = [int(part) for part in text.split(",")]
    except ValueError:
        sides = []
    if not sides or min(sides) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} should be pixels, such as 320 or 320,416,640")
    return sides


def positive(text: str) -> float:
    """A number of more than 0."""
    found = _numbers(text)
    if len(found) != 1 or not found[0] > 0:
        raise argparse.ArgumentTypeError(f"{text!r} should be a number of more than 0")
    return found[0]


def share(text: str) -> float:
    """A number from 0 to 1."""
    found = _numbers(text)
    if len(found) != 1 or not 0 <= found[0] <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} should be a number from 0 to 1")
    return found[0]


def shares(text: str) -> dict[str, float]:
    """How much of each source, a number from 0 to 1, of an option such as mine=0.7,other=0.3."""
    pairs = [part.rpartition("=") for part in text.split(",")]
    found = {name: share(number) for name, separator, number in pairs if separator}
    if len(found) < len(pairs):
        raise argparse.ArgumentTypeError(f"{text!r} should name each source once, such as mine=0.7,other=0.3")
    return found


def seed(text: str) -> int:
    """A whole number from 0 to `LARGEST_SEED`."""
    found = natural(text)
    if found > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} should be at most {LARGEST_SEED}")
    return found


def scales(text: str) -> tuple[float, float]:
    """The smallest and the largest of an option such as 0.5,2."""
    found = _numbers(text)
    if len(found) != 2 or not 0 < found[0] <= found[1]:
        raise argparse.ArgumentTypeError(f"{text!r} should be the smallest and the largest scale, such as 0.5,2")
    return found[0], found[1]


def _numbers(text: str) -> list[float]:
    """Those that are separated by commas; none where one of them is no finite number."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        return []
    return found if all(map(math.isfinite, found)) else []


def device(text: str) -> str:
    """Of an option: one that this PyTorch has."""
    import torch

    try:
        named = torch.device(text)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no device of PyTorch: give cpu, cuda or cuda:N") from error
    if named.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"training is for cpu and cuda, not {text}")
    if named.type == "cuda" and (named.index or 0) >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(f"this PyTorch sees no device {text}: give cpu")
    return text


def read_run(path: Path) -> dict[str, Any]:
    """What train.py noted of a run. Raises ModelError."""
    try:
        run = json.loads(path.read_text())
        if not isinstance(run, dict):
            raise ValueError("it is not a JSON object")
        if lacking := sorted(NOTED - run.keys()):
            raise ValueError(f"it has no {', '.join(lacking)}")
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not what train.py writes: {error}") from error
    return run
