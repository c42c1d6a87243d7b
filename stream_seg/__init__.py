"""Real-time instance segmentation of webcams, video files and camera feeds.

    from stream_seg import Pipeline, VideoFile, load_segmenter, open_source

    Pipeline(open_source("a.mp4"), load_segmenter("compact"), sinks=[VideoFile("b.mp4")]).run()
"""

import cv2 as _cv2  # noqa: F401  before PyAV: the other way round, both bring an X11 library and the first window hangs

__version__ = "0.1.0"
