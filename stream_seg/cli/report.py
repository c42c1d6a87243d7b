"""The end of a run: a short summary for people, the same as JSON for programs (docs/metrics.md)."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from stream_seg.columns import columns, legible_name, padded
from stream_seg.errors import UsageError
from stream_seg.frame import SourceInfo
from stream_seg.metrics import STAGES, FeedSummary, Summary
from stream_seg.protocols import Segmenter, Sink
from stream_seg.sinks.part import Target, write_text

PACKAGES = ("stream-seg", "onnxruntime-gpu", "onnxruntime", "opencv-python", "av", "numpy")

_LISTED = 6
"""Classes of which the summary gives numbers, results that it names, and sources that were not begun."""


def refuse_figures(path: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Raise an error where figures could not be written to `path`, or would replace an input or an existing file.

    `-` is refused, since the summary is on standard output; what is no file, such as /dev/stdout, may be there.
    """
    if str(path) == "-":
        raise UsageError("figures cannot go to standard output (-), where the summary is; name a file")
    with suppress(OSError):
        if path.is_char_device() or path.is_fifo():
            return
    target = Target(path, overwrite)
    for source in inputs:
        target.refuse_input(source)


def write_figures(
    path: Path | None,
    outputs: Sequence[Sink],
    infos: Sequence[SourceInfo | None],
    segmenter: Segmenter,
    summary: Summary,
    *,
    outcome: str,
    error: BaseException | None = None,
) -> None:
    """Write the figures of one run to `path`, nowhere if None. Raises `OutputError` when that fails."""
    if path is None:
        return
    figures = {
        "outcome": outcome,
        "error": None if error is None else str(error) or type(error).__name__,
        "sources": [describe_source(info, feed) for info, feed in zip(infos, summary.feeds, strict=True)],
        "outputs": written(outputs),
        "model": describe_segmenter(segmenter),
        **{key: value for key, value in summary.as_dict().items() if key != "feeds"},
        "versions": versions(),
        "machine": machine(),
    }
    write_text(path, json.dumps(figures, indent=2) + "\n")


def written(outputs: Sequence[Sink]) -> list[str]:
    """Where the results are that the outputs have by now; one that is unfinished has a partial name."""
    results = [str(path) for output in outputs if (path := getattr(output, "result", None)) is not None]
    return list(dict.fromkeys(results))  # a pipe may be that of several sources


def text(infos: Sequence[SourceInfo | None], segmenter: Segmenter, summary: Summary, outputs: Sequence[str]) -> str:
    """The summary of a run: five lines, and more where objects have numbers, a single source has regions or lines, or
    there are several sources. That of photos has no frame rate and no latency.
    """
    model = describe_segmenter(segmenter)
    rest = [f"and {len(outputs) - _LISTED} more"] if len(outputs) > _LISTED else []
    results = ", ".join([*map(legible_name, outputs[:_LISTED]), *rest]) or "nothing was written"
    busy = ", ".join(f"{name} {summary.busy[name]:.0%}" for name in STAGES)
    is_alone = len(infos) == 1
    only = infos[0] if is_alone else None
    sources = f"{len(infos)} sources" if only is None else f"{legible_name(only.name)} ({only.size[0]}x{only.size[1]})"
    are_photos = all(info is not None and info.has_stills for info in infos)
    counted, speed = _photos(summary) if are_photos else _frames(summary)
    # One photo alone does not show which stages of a pipeline wait for each other.
    limits = [] if are_photos and summary.captured < 2 else [f"  busy     {busy}; limited by {summary.limited_by}"]
    places = [f"  {place:<8} {counts}" for place, counts in _places(summary.feeds[0])] if is_alone else []
    lines = [f"{sources} -> {results}", counted, *places, speed, *limits]
    lines.append(f"  model    {model['name']} on {model['provider']}")
    if not is_alone or any(feed.outages for feed in summary.feeds):
        pairs = zip(infos, summary.feeds, strict=True)
        read = [feed for info, feed in pairs if info is not None or feed.error is not None or feed.outages]
        unread = len(infos) - len(read)
        named = read if unread > _LISTED else summary.feeds
        width = max(8, *(columns(feed.name) for feed in named))  # 8 as in the lines above
        lines += [_line(feed, width, photos=are_photos, places=not is_alone) for feed in named]
        lines += [f"  and {unread} more, which were not begun"] if unread > _LISTED else []
    return "\n".join(lines)


def _frames(summary: Summary) -> tuple[str, str]:
    """How many frames there were, with what in them, and at what rate and how late they were delivered."""
    unchanged = f", {summary.unchanged} unchanged" if summary.unchanged else ""
    counts = f"{summary.captured} captured, {summary.delivered} delivered, {summary.dropped} dropped{unchanged}"
    return (
        f"  frames   {counts}{_objects(summary)}",
        f"  speed    {summary.fps:.1f} fps over {summary.seconds:.1f} s; latency p50/p95/p99 {_latency(summary)} ms",
    )


def _photos(summary: Summary) -> tuple[str, str]:
    """How many photos there were, with what in them, and in what time."""
    unreadable = sum(feed.damaged for feed in summary.feeds)
    of_all = f" of {summary.captured}" if summary.delivered < summary.captured else ""
    left_out = f", {unreadable} left out" if unreadable else ""
    rate = f", {summary.fps:.1f} a second" if summary.delivered > 1 else ""
    return (
        f"  images   {summary.delivered}{of_all}{left_out}{_objects(summary)}",
        f"  speed    {summary.seconds:.2f} s{rate}",
    )


def _objects(summary: Summary) -> str:
    """How many objects there were, in a line of their own where all sources that show some tell them apart.

    Else how many were shown in all frames together, behind the frames.
    """
    if all(feed.distinct or not feed.classes for feed in summary.feeds) and summary.distinct:
        different = sum(summary.distinct.values())
        return f"\n  objects  {different} different{_classes(summary.distinct)}, shown {summary.objects} times"
    return f"; {summary.objects} object{'' if summary.objects == 1 else 's'}{_classes(summary.classes)}"


def _places(feed: FeedSummary) -> list[tuple[str, str]]:
    """What each region and line of a source is called, and how many were in it at most, or crossed it."""
    regions = [f"at most {peak.most} at once{_classes(peak.classes)}" for peak in feed.regions]
    lines = [
        ", ".join(f"{way} {sum(counts.values())}{_classes(counts)}" for way, counts in line.items())
        for line in feed.lines
    ]
    return [
        (f"{what} {number}" if len(of_each) > 1 else what, counts)
        for what, of_each in (("region", regions), ("line", lines))
        for number, counts in enumerate(of_each, 1)
    ]


def _classes(counts: Mapping[str, int]) -> str:
    """How many of each of the most frequent classes, in brackets; nothing where there is none."""
    most = [f"{name} {count}" for name, count in counts.items()][:_LISTED]
    rest = ["..."] if len(counts) > _LISTED else []
    return f" ({', '.join(most + rest)})" if most else ""


def _line(feed: FeedSummary, width: int, *, photos: bool, places: bool) -> str:
    """One of several sources in a line, or an only one that was away, its name padded to a `width` in columns."""
    done = f"{feed.delivered} of {feed.captured}"
    parts = [f"{done} images"] if photos else [f"{feed.fps:.1f} fps", f"{done} frames", f"latency {_latency(feed)} ms"]
    parts += [f"{place} {counts}" for place, counts in _places(feed)] if places else []
    if feed.outages:
        reasons = ", ".join(f"{reason} {count}x" for reason, count in feed.outages.items())
        parts.append(f"away {feed.seconds_away:.1f} s ({reasons})")
    if feed.error is not None:
        parts.append(f"failed: {legible_name(feed.error)}")
    return f"  {padded(feed.name, width)} {'; '.join(parts)}"


def _latency(figures: Summary | FeedSummary) -> str:
    delays = (figures.latency_p50, figures.latency_p95, figures.latency_p99)
    return "/".join("-" if seconds is None else f"{seconds * 1000:.0f}" for seconds in delays)


def describe_source(info: SourceInfo | None, feed: FeedSummary) -> dict[str, object]:
    """A source and its figures; what is only known of an open source is None for one that never was."""
    return {
        "label": feed.name,
        "name": None if info is None else info.name,
        "kind": None if info is None else info.kind,
        "width": None if info is None else info.size[0],
        "height": None if info is None else info.size[1],
        "frame_rate": None if info is None or info.frame_rate is None else float(info.frame_rate),
        "duration": None if info is None or info.duration is None else float(info.duration),
        **{key: value for key, value in asdict(feed).items() if key not in ("name", "live")},
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
