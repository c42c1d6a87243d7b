"""Average precision of trained weights, in PyTorch; of an exported file `stream-seg eval` says it.

python scripts/train/evaluate.py RUN/weights.safetensors DATA [--val val.json] [--sizes 320,416,640]
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import torch
from commands import carry_out, device, long_sides
from segmenter import NetSegmenter
from tqdm import tqdm
from weights import read_weights, start_from

from stream_seg.cli.arguments import whole
from stream_seg.errors import OutputError
from stream_seg.evaluate import Result, evaluate
from stream_seg.sinks.part import write_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", type=Path, help="folder that the annotations and their file names start from")
    parser.add_argument("--val", default="val.json", help="annotations, from DATA (default: %(default)s)")
    parser.add_argument("--images", type=Path, help="where the file names start from (default: DATA)")
    parser.add_argument(
        "--sizes", type=long_sides, default="320", help="long sides, e.g. 320,416,640 (default: %(default)s)"
    )
    parser.add_argument("--limit", type=whole, help="only the first N pictures")
    parser.add_argument("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="write the results as JSON, by size")
    args = parser.parse_args()
    carry_out("evaluate", partial(_evaluate_all, args))


def _evaluate_all(args: argparse.Namespace) -> None:
    if args.out and (args.out.is_dir() or not args.out.parent.is_dir()):
        raise OutputError(f"cannot write {args.out}: name a file in a folder that is there")
    results = {size: _evaluate(args, size) for size in args.sizes}
    if args.out:
        by_size = {size: json.loads(result.to_json()) for size, result in results.items()}
        write_text(args.out, json.dumps(by_size, indent=2))


def _evaluate(args: argparse.Namespace, size: int) -> Result:
    torch.set_flush_denormal(True)
    _, classes = read_weights(args.weights)
    net = start_from(args.weights, classes, frozen=-1).to(args.device, memory_format=torch.channels_last)
    with tqdm(desc=f"long side {size}", unit=" pictures", leave=False) as bar:
        result = evaluate(
            NetSegmenter(net, size),
            args.images or args.data,
            args.data / args.val,
            limit=args.limit,
            progress=lambda done, _total: bar.update(done - bar.n) and None,
        )
    print(f"long side {size}\n{result}\n")
    return result


if __name__ == "__main__":
    main()
