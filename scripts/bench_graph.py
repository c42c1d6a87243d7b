"""Compares the speed of our graphs with other ways to run the same network, interleaved in one process.

    python scripts/bench_graph.py compact [--beside OLD.onnx]   fp32 against int8, in the project's own environment
    python scripts/bench_graph.py r50-fpn [--size 640x480]      needs torch and torchvision: see scripts/oracle

r50-fpn (or r50-fpn-v2) gets random weights that find objects, and is run by our graph, by torchvision eager, by
torchvision's own ONNX export, and by OpenVINO from our graph where that is installed. Each round runs every one once,
so that a busy neighbour disturbs all alike; medians and ratios to our graph are printed. All must find the same
objects.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

sys.path.insert(0, str(Path(__file__).parent / "oracle"))

ROOT = Path(__file__).parent.parent
Run = Callable[[], int]
"""Does the work once and returns how many objects it found."""


def session(path: Path, threads: int, profile: bool = False) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.enable_profiling = profile
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def our_feed(width: int, height: int, threshold: float, pictures: np.ndarray | None = None) -> dict[str, np.ndarray]:
    images = _photo(width, height) if pictures is None else pictures
    sizes = np.array([[height, width]], np.float32)
    return {"images": images, "sizes": sizes, "score_threshold": np.array(threshold, np.float32)}


def runner(path: Path, feed: dict[str, np.ndarray], threads: int) -> Run:
    """One of our graphs in ONNX Runtime."""
    ours = session(path, threads)
    return lambda: len(ours.run(["masks", "scores"], feed)[1])


def compact(width: int, height: int, threads: int, beside: Path | None) -> dict[str, Run]:
    """The embedded network in float32 and int8, and perhaps another file of its kind, on a photo."""
    feed = our_feed(width, height, 0.4)
    folder = ROOT / "models" / "compact"
    files = {name: folder / f"{name}.onnx" for name in ("fp32", "int8")} | ({beside.name: beside} if beside else {})
    return {name: runner(path, feed, threads) for name, path in files.items()}


def torchvision(name: str, width: int, height: int, threads: int, threshold: float, folder: Path) -> dict[str, Run]:
    """A ResNet-50 network in all the ways there are."""
    import reference
    import torch

    from stream_seg.graph import export_graph

    torch.set_num_threads(threads)
    model = reference.make_model(name)
    model.roi_heads.score_thresh = threshold
    torch.save(model.state_dict(), folder / "weights.pth")
    export_graph(folder / "weights.pth", folder / "ours.onnx", architecture=name)
    pictures = reference.scenes(1, height, width, seed=1)
    feed = our_feed(width, height, threshold, pictures)
    # Its own resizing must do nothing, so that all get the same pixels.
    model.transform.min_size, model.transform.max_size = (min(width, height),), max(width, height)
    pixels = torch.from_numpy(pictures[0]).permute(2, 0, 1).float() / 255
    runs = {"ours": runner(folder / "ours.onnx", feed, threads)}
    runs["torchvision export"] = _export(model, pixels, folder / "theirs.onnx", threads)
    runs["torchvision eager"] = torch.inference_mode()(lambda: len(model([pixels])[0]["scores"]))
    try:
        runs["ours in OpenVINO"] = _openvino(folder / "ours.onnx", feed, threads)
    except ImportError:
        print("OpenVINO is not installed: left out")
    return runs


def _export(model: Module, pixels: Tensor, target: Path, threads: int) -> Run:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"image": {1: "H", 2: "W"}}
        names = ["boxes", "labels", "scores", "masks"]
        torch.onnx.export(
            model, ([pixels],), target, opset_version=17, dynamo=False, input_names=["image"], output_names=names,
            dynamic_axes=axes,
        )  # fmt: skip
    theirs = session(target, threads)
    image = pixels.numpy()
    return lambda: len(theirs.run(["masks", "scores"], {"image": image})[1])


def _openvino(path: Path, feed: dict[str, np.ndarray], threads: int) -> Run:
    import onnx
    import openvino

    # OpenVINO takes an input with a default for a constant, so the threshold goes there.
    model = onnx.load(path)
    (default,) = (tensor for tensor in model.graph.initializer if tensor.name == "score_threshold")
    default.CopyFrom(onnx.numpy_helper.from_array(feed["score_threshold"], default.name))
    path = path.with_name("openvino.onnx")
    onnx.save(model, path)
    feed = {name: value for name, value in feed.items() if name != default.name}
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    return lambda: len(compiled(feed)["scores"])


def _photo(width: int, height: int) -> np.ndarray:
    """scikit-image's astronaut, letterboxed."""
    import cv2
    from skimage import data

    side = min(width, height)
    canvas = np.zeros((1, height, width, 3), np.uint8)
    astronaut = data.astronaut()  # type: ignore[no-untyped-call]
    canvas[0, :side, :side] = cv2.resize(astronaut, (side, side), interpolation=cv2.INTER_AREA)
    return canvas


def measure(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run in each round; the first round warms up and is thrown away.

    In another order each time, so that none always comes after the largest.
    """
    found = {name: run() for name, run in runs.items()}
    print("objects:", ", ".join(f"{name} {count}" for name, count in found.items()))
    times: dict[str, list[float]] = {name: [] for name in runs}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(runs), len(runs)):
            start = time.perf_counter()
            runs[name]()
            times[name].append(time.perf_counter() - start)
    return times


def report(times: dict[str, list[float]]) -> None:
    """Medians in ms, and how many times slower than the first each is, as the median of the ratios within a round."""
    first = next(iter(times.values()))
    print(f"{'':22} {'median ms':>10} {'fastest ms':>10} {'times the first':>16}")
    for name, values in times.items():
        ratio = statistics.median(value / base for value, base in zip(values, first, strict=True))
        print(f"{name:22} {statistics.median(values) * 1e3:10.1f} {min(values) * 1e3:10.1f} {ratio:16.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["compact", "r50-fpn", "r50-fpn-v2"])
    parser.add_argument("--size", help="canvas WxH (default: 320x256 for compact, else 640x480)")
    parser.add_argument("--beside", type=Path, help="with compact: another graph, such as an earlier int8.onnx")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threshold", type=float, default=0.7, help="for the random weights: sets how many objects")
    options = parser.parse_args()
    is_compact = options.model == "compact"
    width, height = map(int, (options.size or ("320x256" if is_compact else "640x480")).split("x"))
    with tempfile.TemporaryDirectory() as folder:
        if is_compact:
            runs = compact(width, height, options.threads, options.beside)
        else:
            runs = torchvision(options.model, width, height, options.threads, options.threshold, Path(folder))
        print(f"{options.model} at {width}x{height}, {options.threads} threads, ONNX Runtime {onnxruntime.__version__}")
        report(measure(runs, options.rounds))


if __name__ == "__main__":
    main()
