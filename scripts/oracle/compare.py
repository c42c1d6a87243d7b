"""Compares our graphs with torchvision's eager models: every detection must match, whatever the batch.

    python scripts/oracle/compare.py [--model r50-fpn r50-fpn-v2] [--size 256x192] [--device cuda] [--precision fp32]

Needs torch and torchvision (see torchvision_cpu.py for a CPU build) beside the package itself with its `export` extra.
Prints one line per case and exits with 1 if one differs by more than the tolerances.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import reference
import torch
from numpy.typing import NDArray
from reference import Found
from torchvision.models.detection import MaskRCNN

from stream_seg.graph import export_graph

BOX_PIXELS, SCORE, MASK = 0.1, 5e-3, 1e-2
"""Rounding differs between the two programs, and deep networks with random weights amplify it."""


@dataclass
class Difference:
    """Detections compared, and the largest differences of those that match."""

    expected: int = 0
    unmatched: int = 0
    box: float = 0.0
    score: float = 0.0
    mask: float = 0.0

    @property
    def is_small(self) -> bool:
        return not self.unmatched and self.box <= BOX_PIXELS and self.score <= SCORE and self.mask <= MASK

    def __str__(self) -> str:
        worst = f"box {self.box:.1e} px, score {self.score:.1e}, mask {self.mask:.1e}"
        return f"{self.expected - self.unmatched}/{self.expected} match, {worst}"


class Ours:
    """Our graph in ONNX Runtime."""

    def __init__(self, path: Path, device: str) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
        self._session = onnxruntime.InferenceSession(path, options, providers=[provider])
        assert self._session.get_providers()[0] == provider

    def detect(self, images: NDArray[np.uint8], sizes: NDArray[np.float32], threshold: float) -> list[Found]:
        feed = {"images": images, "sizes": sizes, "score_threshold": np.array(threshold, np.float32)}
        image, boxes, labels, scores, masks = self._session.run(None, feed)
        of = [image == i for i in range(len(images))]
        return [Found(boxes[rows], labels[rows], scores[rows], masks[rows]) for rows in of]


def difference(expected: list[Found], got: list[Found]) -> Difference:
    """Pair each expected detection with the nearest one of its label; what is left over on either side is unmatched."""
    result = Difference()
    for one, other in zip(expected, got, strict=True):
        result.expected += len(one.scores)
        result.unmatched += max(0, len(other.scores) - len(one.scores))
        free = np.ones(len(other.scores), bool)
        for box, label, score, mask in zip(one.boxes, one.labels, one.scores, one.masks, strict=True):
            apart = np.abs(other.boxes - box).max(1, initial=0) + np.abs(other.scores - score)
            apart = np.where(free & (other.labels == label), apart, np.inf)
            best = int(apart.argmin()) if len(apart) else -1
            if best < 0 or apart[best] > 1:
                result.unmatched += 1
                continue
            free[best] = False
            result.box = max(result.box, float(np.abs(other.boxes[best] - box).max()))
            result.score = max(result.score, abs(float(other.scores[best] - score)))
            result.mask = max(result.mask, float(np.abs(other.masks[best] - mask).max()))
    return result


def compare(name: str, width: int, height: int, device: str, precision: str) -> bool:
    """Run all cases for one architecture."""
    model = reference.make_model(name).to(device)
    with tempfile.TemporaryDirectory() as folder:
        weights, graph = Path(folder) / "weights.pth", Path(folder) / "model.onnx"
        torch.save(model.state_dict(), weights)
        export_graph(weights, graph, architecture=name, device=device, precision=precision)  # type: ignore[arg-type]
        ours = Ours(graph, device)
    sound = [_case(model, ours, name, *case) for case in _cases(width, height)]
    return all(sound)


def _cases(width: int, height: int) -> list[tuple[str, NDArray[np.uint8], NDArray[np.float32], float]]:
    """Name, canvases, sizes and threshold. In each at least one image fills the canvas, as torchvision expects."""
    pictures = reference.scenes(8, height, width)
    full = np.tile(np.array([height, width], np.float32), (8, 1))
    mixed = full[:4] * np.array([[1, 1], [0.75, 1], [1, 0.6], [0.5, 0.7]], np.float32) // 1
    return [
        ("batches 1, 2, 4, 8", pictures, full, 0.5),
        ("mixed sizes", pictures[:4], mixed, 0.4),
        ("nothing found", pictures[:2], full[:2], 0.9999999),
        ("all that fit", pictures[:2], full[:2], 0.01),
    ]


def _case(
    model: MaskRCNN,
    ours: Ours,
    name: str,
    title: str,
    pictures: NDArray[np.uint8],
    sizes: NDArray[np.float32],
    threshold: float,
) -> bool:
    model.roi_heads.score_thresh = threshold
    expected = reference.detect(model, pictures, sizes)
    counts = [count for count in (1, 2, 4, 8) if count <= len(pictures)]
    sound = True
    for count in counts:
        batch = ours.detect(pictures[:count], sizes[:count], threshold)
        worst = difference(expected[:count], batch)
        sound &= worst.is_small
        print(f"{name:11} {title:19} batch {count} against eager:   {worst}", flush=True)
    single = [ours.detect(pictures[i : i + 1], sizes[i : i + 1], threshold)[0] for i in range(count)]
    worst = difference(single, batch)
    print(f"{name:11} {title:19} batch {count} against singles: {worst}", flush=True)
    return sound and worst.is_small


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["r50-fpn", "r50-fpn-v2"])
    parser.add_argument("--size", default="256x192", help="canvas, WxH, multiples of 32")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "fp16"])
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    same = [compare(name, width, height, options.device, options.precision) for name in options.model]
    print("equal within the tolerances" if all(same) else "DIFFERENT")
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
