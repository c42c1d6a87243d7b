"""Tests. The package comes before ONNX Runtime, which it keeps from reporting what tests run."""

import stream_seg as stream_seg
