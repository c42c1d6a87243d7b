"""Real-time instance segmentation of webcams, video files and camera feeds.

    from stream_seg import Pipeline, VideoFile, load_segmenter, open_source

    with load_segmenter("compact") as segmenter:
        Pipeline(open_source("a.mp4"), segmenter, sinks=[VideoFile("b.mp4")]).run()

A source, a segmenter or a sink of your own has the methods of `stream_seg.protocols`.
"""

import os
from importlib import import_module

from stream_seg.version import __version__

TYPE_CHECKING = False  # not that of typing, which takes longer to load than all that is needed at first
if TYPE_CHECKING:
    from stream_seg.detections import Detections
    from stream_seg.errors import StreamSegError
    from stream_seg.frame import Frame, SourceInfo
    from stream_seg.line import Line
    from stream_seg.metrics import Metrics, Summary
    from stream_seg.pipeline import Feed, Pipeline
    from stream_seg.region import Region
    from stream_seg.render import Renderer
    from stream_seg.segmenters import load_segmenter
    from stream_seg.sinks import Page, VideoFile, Window, open_sink
    from stream_seg.sources import open_source
    from stream_seg.steady import Steady

__all__ = [
    "Detections",
    "Feed",
    "Frame",
    "Line",
    "Metrics",
    "Page",
    "Pipeline",
    "Region",
    "Renderer",
    "SourceInfo",
    "Steady",
    "StreamSegError",
    "Summary",
    "VideoFile",
    "Window",
    "__version__",
    "load_segmenter",
    "open_sink",
    "open_source",
]

# ONNX Runtime (from 1.29 on, outside Windows) keeps an identifier of the machine and reports to its makers what it
# runs, unless this was set before it is first imported. Whoever wants that sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Detections": "detections",
    "Feed": "pipeline",
    "Frame": "frame",
    "Line": "line",
    "Metrics": "metrics",
    "Page": "sinks",
    "Pipeline": "pipeline",
    "Region": "region",
    "Renderer": "render",
    "SourceInfo": "frame",
    "Steady": "steady",
    "StreamSegError": "errors",
    "Summary": "metrics",
    "VideoFile": "sinks",
    "Window": "sinks",
    "load_segmenter": "segmenters",
    "open_sink": "sinks",
    "open_source": "sources",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is asked for: the command must be able to say something before the second it takes
    to load OpenCV, PyAV and ONNX Runtime is over, and a Ctrl-C in that second must not end in a traceback."""
    if name not in _HOMES:
        raise AttributeError(f"module 'stream_seg' has no attribute {name!r}")
    return getattr(import_module(f"stream_seg.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The names that are not imported yet as well, for completion and `help`."""
    return sorted({*globals(), *__all__})
