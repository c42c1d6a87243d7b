"""The end of a run: a short summary for people, the same as JSON for programs (docs/metrics.md)."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from stream_seg.errors import OutputError
from stream_seg.frame import SourceInfo
from stream_seg.metrics import STAGES, Summary
from stream_seg.protocols import Segmenter

PACKAGES = ("stream-seg", "onnxruntime-gpu", "onnxruntime", "opencv-python", "av", "numpy")


class Report:
    """Writes the figures of one run to `path` (nowhere if None)."""

    def __init__(self, path: Path | None, outputs: Sequence[str]) -> None:
        self._path = path
        self._outputs = list(outputs)

    def write(
        self,
        info: SourceInfo | None,
        segmenter: Segmenter,
        summary: Summary,
        *,
        outcome: str,
        error: BaseException | None = None,
    ) -> None:
        """Write the JSON file. Raises `OutputError` when that fails."""
        if self._path is None:
            return
        figures = {
            "outcome": outcome,
            "error": None if error is None else str(error) or type(error).__name__,
            "source": None if info is None else describe_source(info),
            "outputs": self._outputs,
            "model": describe_segmenter(segmenter),
            **summary.as_dict(),
            "versions": versions(),
            "machine": machine(),
        }
        try:
            self._path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        except OSError as failure:
            raise OutputError(f"the figures could not be written to '{self._path}': {failure.strerror}") from failure


def text(info: SourceInfo, segmenter: Segmenter, summary: Summary, outputs: Sequence[str]) -> str:
    """The summary of a run in five lines."""
    model = describe_segmenter(segmenter)
    written = ", ".join(outputs) or "nothing was written"
    latency = [summary.latency_p50, summary.latency_p95, summary.latency_p99]
    delays = "/".join("-" if seconds is None else f"{seconds * 1000:.0f}" for seconds in latency)
    busy = ", ".join(f"{name} {summary.busy[name]:.0%}" for name in STAGES)
    return "\n".join(
        (
            f"{info.name} ({info.size[0]}x{info.size[1]}) -> {written}",
            f"  frames   {summary.captured} captured, {summary.delivered} delivered, {summary.dropped} dropped; "
            f"{summary.objects} objects",
            f"  speed    {summary.fps:.1f} fps over {summary.seconds:.1f} s; latency p50/p95/p99 {delays} ms",
            f"  busy     {busy}; limited by {summary.limited_by}",
            f"  model    {model['name']} on {model['provider']}",
        )
    )


def describe_source(info: SourceInfo) -> dict[str, object]:
    """Name, size and kind of an opened source."""
    return {
        "name": info.name,
        "kind": info.kind,
        "width": info.size[0],
        "height": info.size[1],
        "frame_rate": None if info.frame_rate is None else float(info.frame_rate),
        "duration": None if info.duration is None else float(info.duration),
    }


def describe_segmenter(segmenter: Segmenter) -> dict[str, object]:
    """Name and provider of a segmenter; a user's own may have neither."""
    return {
        "name": getattr(segmenter, "model_name", type(segmenter).__name__),
        "provider": getattr(segmenter, "provider", "Python"),
        "max_batch": segmenter.max_batch,
    }


def versions() -> dict[str, str]:
    """The versions of Python and of the packages a run depends on, where installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, object]:
    """What the run ran on."""
    return {"system": platform.platform(), "processor": platform.machine(), "cpus": os.cpu_count()}
