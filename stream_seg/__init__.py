"""Real-time instance segmentation of webcams, video files and camera feeds.

    from stream_seg import Pipeline, VideoFile, load_segmenter, open_source

    with load_segmenter("compact") as segmenter:
        Pipeline(open_source("a.mp4"), segmenter, sinks=[VideoFile("b.mp4")]).run()

A source, a segmenter or a sink of your own has the methods of `stream_seg.protocols`.
"""

import cv2 as _cv2  # noqa: F401  before PyAV: both bring an X11 library, and the other way round windows hang

from stream_seg.detections import Detections
from stream_seg.errors import StreamSegError
from stream_seg.frame import Frame, SourceInfo
from stream_seg.metrics import Metrics, Summary
from stream_seg.pipeline import Pipeline
from stream_seg.render import Renderer
from stream_seg.segmenters import load_segmenter
from stream_seg.sinks import VideoFile, Window, open_sink
from stream_seg.sources import open_source
from stream_seg.version import __version__

__all__ = [
    "Detections",
    "Frame",
    "Metrics",
    "Pipeline",
    "Renderer",
    "SourceInfo",
    "StreamSegError",
    "Summary",
    "VideoFile",
    "Window",
    "__version__",
    "load_segmenter",
    "open_sink",
    "open_source",
]
