"""Builds the batched Mask R-CNN ONNX graph from published weights. Needed to export models, never to run them.

Importing this package raises `StreamSegError` where the packages of the `export` extra are missing.
"""

from stream_seg.errors import StreamSegError

try:
    import onnx as _onnx  # noqa: F401
except ModuleNotFoundError as _error:
    raise StreamSegError(
        "building models needs the package onnx, which is not installed: pip install 'stream-seg[export]'"
    ) from _error

from stream_seg.graph.config import ARCHITECTURES, COMPACT, R50_FPN, R50_FPN_V2, MaskRCNN
from stream_seg.graph.export import Exported, check_options, export_graph
from stream_seg.graph.precision import Agreement

__all__ = [
    "ARCHITECTURES",
    "COMPACT",
    "R50_FPN",
    "R50_FPN_V2",
    "Agreement",
    "Exported",
    "MaskRCNN",
    "check_options",
    "export_graph",
]
