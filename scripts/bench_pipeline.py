"""Frames per second and processor time of whole jobs on one clip: ours beside the ways it is usually done.

    python scripts/bench_pipeline.py [--clip samples/clip.mp4] [--repeat 3] [--rounds 3] [--long-side 320]
                                     [--supervision-python PYTHON]

Every variant runs in a process of its own, in turn, round after round, so that all meet the same neighbours; printed
are medians and ratios. The clip is repeated into a longer one first, that start and end weigh little.

    copy         decode to BGR, encode from BGR: what any tool that touches pixels pays without a model
    inference    the model alone on decoded frames, as many at once as it likes
    serial       read, segment, draw, write in one loop with OpenCV, as a script does it
    supervision  supervision's process_video with its mask, box and label annotators
    stream-seg   this project, from file to file

supervision needs an environment of its own, for another OpenCV than ours:
    python -m venv sv && sv/bin/pip install supervision opencv-python-headless av onnxruntime tqdm
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import cv2  # before PyAV, see stream_seg/__init__.py

import av  # isort: skip
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # so that it also runs with supervision's Python, where the project is not installed
    sys.path.insert(0, str(ROOT))

from stream_seg.detections import Detections  # noqa: E402
from stream_seg.frame import Frame, Image  # noqa: E402
from stream_seg.geometry import paste  # noqa: E402
from stream_seg.opencv import use_one_thread  # noqa: E402
from stream_seg.pipeline import Pipeline  # noqa: E402
from stream_seg.protocols import Outcome  # noqa: E402
from stream_seg.segmenters import load_segmenter  # noqa: E402
from stream_seg.sinks import VideoFile  # noqa: E402
from stream_seg.sources import open_source  # noqa: E402

MODEL = ROOT / "models" / "compact" / "int8.onnx"
PALETTE = np.random.default_rng(7).integers(60, 255, (20, 3))


def frames_of(clip: Path) -> Iterator[Frame]:
    with open_source(clip) as source:
        yield from source


def copy(clip: Path, out: Path) -> int:
    count = 0
    sink = VideoFile(out, overwrite=True)
    with open_source(clip) as source:
        sink.open(source.info)
        for frame in source:
            sink.write(frame, Detections.none(()))
            count += 1
    sink.close(Outcome.COMPLETE)
    return count


def inference(clip: Path, _out: Path) -> int:
    images = [frame.image for frame, _ in zip(frames_of(clip), range(120), strict=False)]
    with load_segmenter(MODEL, device="cpu", long_side=_Clock.long_side) as segmenter:
        segmenter.warm_up((images[0].shape[1], images[0].shape[0]))
        _Clock.restart()
        with ThreadPoolExecutor(segmenter.concurrency) as pool:
            list(pool.map(segmenter, [[image] for image in images]))
    return len(images)


def serial(clip: Path, out: Path) -> int:
    capture = cv2.VideoCapture(str(clip))
    size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    writer = cv2.VideoWriter(str(out), cv2.VideoWriter.fourcc(*"mp4v"), capture.get(cv2.CAP_PROP_FPS), size)
    count = 0
    with load_segmenter(MODEL, device="cpu", long_side=_Clock.long_side) as segmenter:
        segmenter.warm_up(size)
        _Clock.restart()
        while True:
            more, image = capture.read()
            if not more:
                break
            picture = np.asarray(image, np.uint8)
            found = segmenter([picture])[0]
            writer.write(_drawn_as_in_tutorials(picture, found))
            count += 1
    writer.release()
    return count


def _drawn_as_in_tutorials(image: Image, found: Detections) -> Image:
    """Box by box: the mask stretched to its box, pixels blended by a boolean index, a rectangle and a name."""
    height, width = image.shape[:2]
    for box, mask, class_id, name, score in zip(
        found.boxes, found.masks, found.class_ids, found.names, found.scores, strict=True
    ):
        left, top, right, bottom = (int(v) for v in np.clip(box, 0, [width - 1, height - 1, width - 1, height - 1]))
        colour = PALETTE[class_id % len(PALETTE)]
        region = image[top : bottom + 1, left : right + 1]
        inside = cv2.resize(mask, (region.shape[1], region.shape[0])) > 0.5
        region[inside] = (0.7 * colour + 0.3 * region[inside]).astype(np.uint8)
        bgr = tuple(int(v) for v in colour)
        cv2.rectangle(image, (left, top), (right, bottom), bgr, 2)
        cv2.putText(image, f"{name}: {score:.2f}", (left, top - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.6, bgr, 2)
    return image


def supervision(clip: Path, out: Path) -> int:
    import supervision as sv

    count = 0
    with load_segmenter(MODEL, device="cpu", long_side=_Clock.long_side) as segmenter:
        masks, boxes, labels = sv.MaskAnnotator(), sv.BoxAnnotator(), sv.LabelAnnotator()

        def callback(image: Image, _index: int) -> Image:
            nonlocal count
            count += 1
            found = segmenter([image])[0]
            detections = sv.Detections(
                xyxy=found.boxes,
                mask=paste(found, (image.shape[1], image.shape[0])),
                confidence=found.scores,
                class_id=found.class_ids,
            )
            texts = [f"{name} {score:.2f}" for name, score in zip(found.names, found.scores, strict=True)]
            scene = masks.annotate(image, detections)
            return np.asarray(labels.annotate(boxes.annotate(scene, detections), detections, texts), np.uint8)

        segmenter.warm_up((1280, 720))
        _Clock.restart()
        sv.process_video(source_path=str(clip), target_path=str(out), callback=callback)
    return count


def stream_seg(clip: Path, out: Path) -> int:
    use_one_thread()  # as the command line does
    with load_segmenter(MODEL, device="cpu", long_side=_Clock.long_side) as segmenter:
        segmenter.warm_up((1280, 720))
        _Clock.restart()
        sinks = [VideoFile(out, overwrite=True, source_path=clip)]
        summary = Pipeline(open_source(clip), segmenter, sinks=sinks).run()
    _Clock.notes = {"busy": summary.busy, "limited_by": summary.limited_by, "mean_batch": summary.mean_batch}
    return summary.delivered


VARIANTS: dict[str, Callable[[Path, Path], int]] = {
    "copy": copy,
    "inference": inference,
    "serial": serial,
    "supervision": supervision,
    "stream-seg": stream_seg,
}


class _Clock:
    """Wall and processor seconds of this process since the model was warm, and what all variants are to do alike."""

    wall = time.perf_counter()
    cpu = 0.0
    notes: ClassVar[dict[str, object]] = {}
    long_side: ClassVar[int | None] = None

    @classmethod
    def restart(cls) -> None:
        cls.wall, cls.cpu = time.perf_counter(), _cpu()

    @classmethod
    def read(cls) -> tuple[float, float]:
        return time.perf_counter() - cls.wall, _cpu() - cls.cpu


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def one(variant: str, clip: Path) -> None:
    """Run one variant in this process and print its figures as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        _Clock.restart()
        frames = VARIANTS[variant](clip, Path(folder) / "out.mp4")
        wall, cpu = _Clock.read()
    print(json.dumps({"frames": frames, "fps": frames / wall, "cpu_ms": cpu / frames * 1000, **_Clock.notes}))


def repeated(clip: Path, times: int, folder: Path) -> Path:
    """The clip, `times` times over, picture only, packets copied."""
    out = folder / "long.mp4"
    with av.open(str(out), "w") as target:
        stream: av.VideoStream | None = None
        shift = 0
        for _ in range(times):
            with av.open(str(clip)) as source:
                video = source.streams.video[0]
                stream = stream or target.add_stream_from_template(video)
                for packet in source.demux(video):
                    if packet.pts is not None and packet.dts is not None:
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                        target.mux(packet)
                shift += video.duration or 0
    return out


def compare(args: argparse.Namespace) -> None:
    """Run all variants in turn and print medians and ratios."""
    pythons = dict.fromkeys(VARIANTS, sys.executable)
    pythons["supervision"] = args.supervision_python
    names = [name for name in VARIANTS if pythons[name]]
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        clip = repeated(args.clip, args.repeat, Path(folder))
        for _ in range(args.rounds):
            for name in names:
                command = [pythons[name], __file__, "--variant", name, "--clip", str(clip)]
                command += ["--long-side", str(args.long_side)] if args.long_side else []
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                results[name].append(json.loads(done.stdout.splitlines()[-1]))
    fps = {name: statistics.median(run["fps"] for run in runs) for name, runs in results.items()}
    cpu = {name: statistics.median(run["cpu_ms"] for run in runs) for name, runs in results.items()}
    print(f"{'variant':12} {'fps':>7} {'CPU ms/frame':>13} {'stream-seg is':>14}")
    for name in names:
        print(f"{name:12} {fps[name]:7.1f} {cpu[name]:13.1f} {fps['stream-seg'] / fps[name]:13.2f}x")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    work = cores * 1000 / cpu["stream-seg"]
    limit = min(work, fps["inference"], fps["copy"])
    other = cpu["stream-seg"] - cpu["inference"]
    print(f"{cores} cores; the sum of CPU work allows {work:.1f} fps, the slowest stage {limit:.1f}")
    print(f"stream-seg reaches {fps['stream-seg'] / limit:.2f} of that")
    print(f"CPU beside inference: {other:.1f} ms per frame, {other / cpu['copy']:.2f} times a bare decode and encode")
    print("last run:", json.dumps(results["stream-seg"][-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, default=ROOT / "samples" / "clip.mp4")
    parser.add_argument("--repeat", type=int, default=3, help="the clip is repeated this many times")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long-side", type=int, help="what the model sees, in pixels (the model's)")
    parser.add_argument("--supervision-python", help="Python of an environment that has supervision")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    _Clock.long_side = args.long_side
    if args.variant:
        one(args.variant, args.clip)
    else:
        compare(args)


if __name__ == "__main__":
    main()
