"""Checks stream-seg on a GPU in one call: what ships, where nodes run, whether they equal torchvision, how fast it is.

    python scripts/gpu_check.py [--out results.json]            needs CUDA, torch and torchvision
    python scripts/gpu_check.py --device cpu --quick            the same on a small scale, to try the script

First what ships (gpu_shipped.py): the built-in model must find on the GPU what it finds on the CPU, and calls of mixed
sizes must cost what the same calls cost one by one. Then r50-fpn and r50-fpn-v2, in fp32 and fp16, with random weights
that are made on the spot (scripts/oracle/reference.py), so nothing is downloaded: the operators that matter must run on
CUDA; detections must match torchvision eager; and frames per second are measured for several sizes and batches, beside
eager in the same process. A part that fails does not stop the others, and what is known is written at once. Exits with
1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
import onnxruntime

sys.path.insert(0, str(Path(__file__).parent / "oracle"))

import gpu_shipped
import reference
import torch
from compare import difference
from reference import Found
from torchvision.models.detection import MaskRCNN

from stream_seg.errors import DeviceError, OutputError
from stream_seg.graph import export_graph
from stream_seg.graph.config import Device, Precision
from stream_seg.segmenters.device import choose, cuda_options

MUST_RUN_ON_CUDA = {
    "Conv", "Gemm", "MatMul", "MaxPool", "Resize", "RoiAlign", "NonMaxSuppression", "TopK", "Softmax", "Sigmoid",
    "Relu", "GatherND", "ScatterND", "NonZero", "DepthToSpace", "FusedConv", "Transpose", "CumSum", "Exp",
}  # fmt: skip
"""What is left are shapes and index arithmetic of a few elements, which ONNX Runtime keeps on the host on purpose."""

SECONDS = 2.0
TARGET = 4.0
"""Per image: eager fp32 at batch 1 over fp16 at batch 8."""


T = TypeVar("T")


@dataclass
class Speed:
    """One row of the table; fps counts images. `error` says why there is no number."""

    model: str
    runner: str
    size: str
    batch: int
    fps: float | None = None
    objects: float | None = None
    error: str | None = None


@dataclass
class Results:
    """Everything that was found out."""

    machine: dict[str, str]
    out: Path | None
    shipped: dict[str, Any] = field(default_factory=dict)
    placement: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    equality: dict[str, str] = field(default_factory=dict)
    speeds: list[Speed] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def save(self) -> None:
        """Write all that is known: a machine that is lent may be gone in a minute."""
        if self.out is not None:
            known = {key: value for key, value in asdict(self).items() if key != "out"}
            self.out.write_text(json.dumps(known, indent=1), encoding="utf-8")

    def attempt(self, title: str, part: Callable[[], T]) -> T | None:
        """What a part gives; None, and a failure, where it raises: the others are still worth having."""
        result = None
        try:
            result = part()
        except Exception as error:
            traceback.print_exc()
            self.failures.append(f"{title}: {said(error)}")
        self.save()
        return result


def said(error: Exception) -> str:
    """What it is, and the first line of its message, if it has one."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


@dataclass(frozen=True)
class Scale:
    """How much is done."""

    sizes: tuple[tuple[int, int], ...]
    batches: tuple[int, ...]
    compared: tuple[int, int]


FULL = Scale(((1344, 800), (640, 480)), (1, 2, 4, 8, 16, 32), (640, 480))
QUICK = Scale(((128, 96),), (1, 2), (128, 96))


def session(
    path: Path, device: str, *, exact: bool = False, profile: Path | None = None
) -> onnxruntime.InferenceSession:
    """A session on the device and nowhere else; `exact` forbids TF32, `profile` is a folder for one.

    Raises DeviceError where ONNX Runtime would take the CPU instead.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile / "profile")
    if device == "cpu":
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    settings = cuda_options(0) | {"use_tf32": "0" if exact else "1"}
    # Without its fallback: a session that fails would go on, on the CPU, in this run and in those to come.
    providers = [("CUDAExecutionProvider", settings)]
    made = onnxruntime.InferenceSession(path, options, providers=providers, enable_fallback=0)
    if made.get_providers()[0] != "CUDAExecutionProvider":
        raise DeviceError("ONNX Runtime cannot use CUDA here: install onnxruntime-gpu[cuda,cudnn]")
    return made


def detect(ours: onnxruntime.InferenceSession, images: np.ndarray, threshold: float) -> list[Found]:
    sizes = np.tile(np.array(images.shape[1:3], np.float32), (len(images), 1))
    feed = {"images": images, "sizes": sizes, "score_threshold": np.array(threshold, np.float32)}
    image, *rest = ours.run(["image_index", "boxes", "labels", "scores", "masks"], feed)
    return [Found(*(values[image == i] for values in rest)) for i in range(len(images))]


def full_sizes(images: np.ndarray) -> np.ndarray:
    return np.tile(np.array(images.shape[1:3], np.float32), (len(images), 1))


def threshold_for(model: MaskRCNN, images: np.ndarray, objects: int = 15) -> float:
    """The score at which there are about so many objects per image, as in street scenes."""
    model.roi_heads.score_thresh = 0.05
    found = reference.detect(model, images, full_sizes(images))
    scores = np.sort(np.concatenate([one.scores for one in found]))[::-1]
    # Between two scores, so that rounding does not decide.
    place = min(objects * len(images), len(scores) - 2)
    return float((scores[place] + scores[place + 1]) / 2)


def check_placement(name: str, path: Path, device: str, images: np.ndarray, results: Results) -> None:
    """Count nodes by provider, from a profile; heavy ones on the host are failures."""
    with tempfile.TemporaryDirectory() as folder:
        profiled = session(path, device, profile=Path(folder))
        detect(profiled, images, 0.05)
        events = json.loads(Path(profiled.end_profiling()).read_text(encoding="utf-8"))
    counts: dict[str, Counter[str]] = {}
    for event in events:
        arguments = event.get("args", {})
        if event.get("cat") == "Node" and "provider" in arguments:
            counts.setdefault(arguments["provider"], Counter())[arguments["op_name"]] += 1
    results.placement[name] = {provider: dict(counter.most_common()) for provider, counter in counts.items()}
    for provider, counter in counts.items():
        print(f"  {provider}: {sum(counter.values())} nodes, {dict(counter.most_common(6))}")
    astray = MUST_RUN_ON_CUDA & set(counts.get("CPUExecutionProvider", ()))
    if device == "cuda" and astray:
        results.failures.append(f"{name}: on the host instead of the GPU: {', '.join(sorted(astray))}")


def check_equality(
    name: str, precision: str, path: Path, device: str, model: MaskRCNN, images: np.ndarray, results: Results
) -> None:
    """fp32 must match in every detection; of fp16, nine in ten."""
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    threshold = threshold_for(model, images)
    model.roi_heads.score_thresh = threshold
    expected = reference.detect(model, images, full_sizes(images))
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32
    ours = session(path, device, exact=True)
    together = detect(ours, images, threshold)
    alone = [detect(ours, images[i : i + 1], threshold)[0] for i in range(len(images))]
    worst, split = difference(expected, together), difference(together, alone)
    results.equality[f"{name} {precision}"] = f"against eager {worst}; batch against singles {split}"
    print(f"  {precision} against eager:             {worst}")
    print(f"  {precision} batch against single runs: {split}")
    near = worst.is_small if precision == "fp32" else worst.unmatched <= 0.1 * worst.expected
    if not near or (precision == "fp32" and not split.is_small):
        results.failures.append(f"{name} {precision} differs: {results.equality[f'{name} {precision}']}")


def measure(row: Speed, run: Callable[[], list[Found]], results: Results, shortest: float) -> None:
    """Median over at least three runs and `shortest` seconds, after two that warm up."""
    try:
        found = [run() for _ in range(2)][-1]
        times: list[float] = []
        while len(times) < 3 or sum(times) < shortest:
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        row.fps = row.batch / median(times)
        row.objects = sum(len(one.scores) for one in found) / len(found)
    except Exception as error:  # out of memory, most likely: the other rows are still worth having
        row.error = said(error)[:200]
    results.speeds.append(row)
    results.save()
    shown = f"{row.fps:8.1f} fps {row.objects:6.1f} objects" if row.fps is not None else f"failed: {row.error}"
    print(f"  {row.runner:20} {row.size:>9} batch {row.batch:2} {shown}", flush=True)


def check_speed(
    name: str,
    paths: Mapping[Precision, Path],
    device: str,
    model: MaskRCNN,
    scale: Scale,
    shortest: float,
    results: Results,
) -> None:
    """All rows of one architecture; frames go in and detections come out as numpy arrays, as in the pipeline."""

    def rows_of(precision: Precision, path: Path, pictures: np.ndarray, size: str) -> None:
        ours = session(path, device)
        for batch in scale.batches:
            row = Speed(name, f"ours {precision}", size, batch)
            measure(row, partial(detect, ours, pictures[:batch], threshold), results, shortest)

    for width, height in scale.sizes:
        pictures = reference.scenes(max(scale.batches), height, width, seed=3)
        threshold = threshold_for(model, pictures[:1])
        model.roi_heads.score_thresh = threshold
        size = f"{width}x{height}"
        for batch in (1, min(8, max(scale.batches))):
            images = pictures[:batch]
            row = Speed(name, "torchvision eager", size, batch)
            measure(row, partial(reference.detect, model, images, full_sizes(images)), results, shortest)
        for precision, path in paths.items():
            results.attempt(f"{name} {precision} at {size}", partial(rows_of, precision, path, pictures, size))


def check_target(name: str, results: Results, device: str) -> None:
    """fp16 at batch 8 against eager fp32 at batch 1, per image."""
    rows = {(row.size, row.runner, row.batch): row.fps for row in results.speeds if row.model == name and row.fps}
    for size in dict.fromkeys(row.size for row in results.speeds):
        eager, ours = rows.get((size, "torchvision eager", 1)), rows.get((size, "ours fp16", 8))
        if eager and ours:
            print(f"  {size}: fp16 at batch 8 is {ours / eager:.1f} times eager fp32 at batch 1 (target {TARGET})")
            if device == "cuda" and ours / eager < TARGET:
                results.failures.append(f"{name} {size}: {ours / eager:.1f} times eager, target {TARGET}")


def check_shipped(device: str, shortest: float, results: Results) -> None:
    """The built-in model and the command, as users have them."""
    images = gpu_shipped.frames(64 if device == "cuda" else 4)

    def note(title: str, part: Callable[[], T]) -> T | None:
        results.shipped[title] = told = results.attempt(f"built-in model, {title}", part)
        print(f"  {title}: {told}", flush=True)
        results.save()
        return told

    placed = reference.scenes(2, 256, 416, seed=3)
    file = gpu_shipped.MODELS / "fp32.onnx"
    results.attempt("nodes", lambda: check_placement("compact fp32", file, device, placed, results))
    for long_side, size in ((None, ""), (640, " at 640")):  # the larger one is looked at twice
        told = note(f"fp32 beside the CPU{size}", partial(gpu_shipped.agreement, device, images, long_side))
        if told and (told["found"] < 0.95 * told["expected"] or told["more"] > 0.05 * told["expected"]):
            results.failures.append(f"the built-in model finds something else on {device}{size}: {told}")
        told = note(f"milliseconds{size}", partial(gpu_shipped.calls, device, images, shortest, long_side))
        if told and device == "cuda":
            apart = (2 * told["1 images, median"] + 3 * told["4 images, median"] + 3 * told["8 images, median"]) / 31
            if told["an image in calls of 1 to 8"] > 2 * apart:
                results.failures.append(
                    f"calls of mixed sizes{size} cost more than they should ({apart:.2f} ms an image): {told}"
                )
    note("a recording", lambda: gpu_shipped.recording(device, 1))
    note("four recordings", lambda: gpu_shipped.recording(device, 4))
    if device == "cuda":
        used = note("MiB in use", lambda: gpu_shipped.memory(device, images, shortest))
        if used and used[-1] > 1.1 * used[len(used) // 2]:
            results.failures.append(f"the memory in use keeps growing: {used}")


def check_network(name: str, device: Device, scale: Scale, shortest: float, folder: Path, results: Results) -> None:
    """One of torchvision's networks with random weights."""
    model = reference.make_model(name).to(device)
    weights = folder / f"{name}.pth"
    torch.save(model.state_dict(), weights)
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    paths = {precision: folder / f"{name}-{precision}.onnx" for precision in precisions}
    width, height = scale.compared
    images = reference.scenes(4 if scale is FULL else 2, height, width, seed=7)
    for precision, path in list(paths.items()):
        title = f"{name} {precision}"
        write = partial(export_graph, weights, path, architecture=name, device=device, precision=precision)
        if results.attempt(f"{title}, written", write) is None:
            del paths[precision]
            continue
        results.attempt(f"{title}, nodes", partial(check_placement, title, path, device, images[:2], results))
        check = partial(check_equality, name, precision, path, device, model, images, results)
        results.attempt(f"{title}, equality", check)
    results.attempt(f"{name}, speed", lambda: check_speed(name, paths, device, model, scale, shortest, results))
    check_target(name, results, device)


def machine(device: str) -> dict[str, str]:
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    return {"device": name, "torch": torch.__version__, "onnxruntime": onnxruntime.__version__}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--quick", action="store_true", help="small pictures, few batches, short measurements")
    parser.add_argument("--model", nargs="*", default=["r50-fpn", "r50-fpn-v2"])
    parser.add_argument("--out", type=Path, help="write everything as JSON here")
    options = parser.parse_args()
    if options.device == "cuda":
        try:
            choose("cuda")
            if not torch.cuda.is_available():
                raise DeviceError(f"PyTorch {torch.__version__} sees no CUDA device: install its build for CUDA")
        except DeviceError as error:
            parser.exit(error.exit_code, f"gpu_check: {error}\n")
    scale, shortest = (QUICK, 0.0) if options.quick else (FULL, SECONDS)
    results = Results(machine(options.device), options.out)
    try:
        results.save()  # so that it fails now, if it does, and not when something is known
    except OSError as error:
        parser.exit(OutputError.exit_code, f"gpu_check: cannot write {options.out}: {error.strerror}\n")
    print(results.machine)
    print("what ships", flush=True)
    results.attempt("what ships", lambda: check_shipped(options.device, shortest, results))
    with tempfile.TemporaryDirectory() as folder:
        for name in options.model:
            print(name, flush=True)
            check = partial(check_network, name, options.device, scale, shortest, Path(folder), results)
            results.attempt(name, check)
    print("\n".join(results.failures) or "all checks passed")
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
