"""Makes a model folder of trained weights: fp32.onnx, int8.onnx, weights.safetensors and README.md, the model card.

    python scripts/train/export.py RUN models/mine --calibrate PHOTOS [--data DATA --val val.json]

Needs no PyTorch. Afterwards `stream-seg VIDEO --model models/mine/int8.onnx` runs it; on CUDA use fp32.onnx. With
annotations to validate on, the card says average precision at three sizes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import onnx
from card import Facts, measure_speed, write_card
from commands import carry_out, long_sides, read_run

from stream_seg import load_segmenter
from stream_seg.cli.export import calibration_frames
from stream_seg.errors import ModelError, OutputError
from stream_seg.evaluate import SCORE_THRESHOLD, Result, check, evaluate
from stream_seg.graph import MaskRCNN, export_graph
from stream_seg.graph.build import build_graph
from stream_seg.graph.labels import parse_labels
from stream_seg.graph.parameters import modern_names
from stream_seg.graph.precision import Feed, compare, make_feeds, quantise
from stream_seg.graph.weights import read_weights


def main() -> None:
    carry_out("export", partial(_export, _parser().parse_args()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder that train.py made")
    parser.add_argument("model", type=Path, help="folder to make")
    parser.add_argument(
        "--calibrate", required=True, help="a folder of pictures or a video like those to come, for int8"
    )
    parser.add_argument("--data", type=Path, help="folder of annotations to measure the accuracy on")
    parser.add_argument("--val", default="val.json", help="annotations, from DATA (default: %(default)s)")
    parser.add_argument("--images", type=Path, help="where the file names start from (default: DATA)")
    parser.add_argument(
        "--sizes", type=long_sides, default="320,416,640", help="long sides to measure at (default: %(default)s)"
    )
    parser.add_argument("--licence", default="unknown", help="of the weights, for the files' metadata and the card")
    return parser


def _export(args: argparse.Namespace) -> None:
    if (card := args.model / "README.md").exists():  # written last, so that a folder half made can be made again
        raise OutputError(f"{card} is there already, with what its author knows: name a folder that is not there yet")
    weights = args.run / "weights.safetensors"
    classes, run = read_classes(weights), read_run(args.run / "run.json")
    feeds = make_feeds(calibration_frames(args.calibrate), ())
    if args.data:
        check(classes, args.images or args.data, args.data / args.val)
    with _writing_to(args.model):
        args.model.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights, args.model / "weights.safetensors")
    fp32, int8 = args.model / "fp32.onnx", args.model / "int8.onnx"
    # In the form for CUDA, where fp32 is used. Names of classes are those in the weights.
    exported = export_graph(weights, fp32, licence=args.licence, device="cuda")
    quantised = _int8(onnx.load(fp32), exported.config, feeds, weights)
    with _writing_to(args.model):
        onnx.save(quantised, int8)
    accuracy = _accuracy(args, fp32, int8) if args.data else {}
    speed = measure_speed(fp32, int8)
    with _writing_to(args.model):
        write_card(args.model, Facts(run, classes, accuracy, speed, args.licence))
    print(f"{args.model}: {', '.join(sorted(path.name for path in args.model.iterdir()))}")


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    """Raise OutputError where what is done inside meets a full disk, a folder that is RUN itself, or the like."""
    try:
        yield
    except shutil.SameFileError as error:
        raise OutputError(f"{folder} is RUN itself: name another folder for the model") from error
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}") from error


def _int8(fp32: onnx.ModelProto, config: MaskRCNN, feeds: list[Feed], weights: Path) -> onnx.ModelProto:
    """The quantised graph for a CPU.

    It looks once into each cell of a region, which accuracy does not tell from 2x2 times, and computes no empty ones.
    """
    config = replace(config, even=False, pooling=replace(config.pooling, samples=1))
    model = build_graph(config, modern_names(read_weights(weights).state))
    model = quantise(model, feeds, lambda _done, _total: None)
    print(f"int8 beside fp32: {compare(fp32, model, feeds)}")
    said = {entry.key: entry.value for entry in fp32.metadata_props}
    of_int8 = {"precision": "int8", "device": "cpu", "config": json.dumps(asdict(config))}
    onnx.helper.set_model_props(model, said | of_int8)
    return model


def read_classes(weights: Path) -> tuple[str, ...]:
    """The class names that train.py noted in a safetensors file, without the background. Raises ModelError."""
    try:
        with weights.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        return parse_labels(header["__metadata__"]["classes"])[1:]
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise ModelError(f"{weights} is not what train.py writes: {error!r}") from error


def _accuracy(args: argparse.Namespace, *files: Path) -> dict[tuple[str, int], Result]:
    """By file and long side."""
    found = {}
    for file in files:
        for size in args.sizes:
            with load_segmenter(file, device="cpu", score_threshold=SCORE_THRESHOLD, long_side=size) as segmenter:
                found[file.stem, size] = evaluate(segmenter, args.images or args.data, args.data / args.val)
            print(f"{file.stem}, long side {size}: {found[file.stem, size].mean}")
    return found


if __name__ == "__main__":
    main()
