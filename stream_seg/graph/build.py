"""Puts the parts together: from frames to detections, in one ONNX graph with a dynamic batch.

Inputs: `images` uint8 (N, H, W, 3) RGB, each in the top left corner of its canvas, H and W multiples of 32; `sizes`
float32 (N, 2), height and width of each image inside the canvas; `score_threshold` float32 (), optional. Outputs, flat
over the batch: `image_index` int64 (D,), `boxes` float32 (D, 4) x1, y1, x2, y2 in canvas pixels, `labels` int64 (D,)
from 1 on, `scores` float32 (D,), `masks` float32 (D, 28, 28) probabilities on a grid over each box.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from stream_seg.graph.backbone import backbone
from stream_seg.graph.box_head import detect
from stream_seg.graph.config import CspNet, Device, MaskRCNN, Pixels
from stream_seg.graph.dense_head import detect_densely
from stream_seg.graph.detected import Detected
from stream_seg.graph.emit import Graph, Value, ints
from stream_seg.graph.fpn import feature_pyramid, path_aggregation
from stream_seg.graph.layers import Layers
from stream_seg.graph.mask_head import Outlines, mask_levels, masks, scored
from stream_seg.graph.parameters import State
from stream_seg.graph.regions import Canvas
from stream_seg.graph.roi import Pooler, make_pooler
from stream_seg.graph.rpn import propose


def build_graph(
    config: MaskRCNN,
    state: State,
    *,
    half: bool = False,
    device: Device = "cpu",
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """The graph of a network with these weights (modern names, `parameters.check`ed).

    `half` runs the layers in float16; boxes, suppression and RoIAlign stay in float32. `device` chooses between forms
    that give the same result at different speed.
    """
    graph = Graph()
    slope = config.backbone.slope if isinstance(config.backbone, CspNet) else 0.0
    layers = Layers(graph, state, norm_eps=config.norm_eps, slope=slope, half=half)
    images = graph.input("images", np.uint8, ["N", "H", "W", 3])
    sizes = graph.input("sizes", np.float32, ["N", 2])
    default = np.array(config.detection.score_threshold, np.float32)
    threshold = graph.input("score_threshold", np.float32, [], default)
    x, canvas = _prepare(images, sizes, config.pixels)
    features = backbone(layers, config.backbone, x, config.pixels)
    if config.proposals is None:
        levels = path_aggregation(layers, features.levels)
        found = detect_densely(layers, config, levels, canvas, threshold)
        levels = mask_levels(layers, levels)
        pooler = _pooler(layers, config, levels, canvas, device)
    else:
        levels = feature_pyramid(layers, features.levels)
        pooler = _pooler(layers, config, levels[:-1], canvas, device)
        proposals = propose(layers, config.proposals, levels, canvas, device)
        found = detect(layers, config, pooler, proposals, canvas.limits, threshold)
    outlines = Outlines(pooler, features.fine, levels[0], device)
    small_masks, size = masks(layers, config, outlines, found), 2 * config.pooling.mask_size
    if config.mask_head.scores:
        found, small_masks = scored(found, small_masks, size, threshold)
    _declare_outputs(graph, found, small_masks, size)
    return graph.model(config.name, "stream-seg", dict(metadata or {}))


def _pooler(layers: Layers, config: MaskRCNN, levels: list[Value], canvas: Canvas, device: Device) -> Pooler:
    with layers.graph.scope("pooled"):
        maps = [layers.leave(level) for level in levels]
        return make_pooler(maps, config.backbone.strides, config.mask_channels, config.pooling, canvas, device)


def _prepare(images: Value, sizes: Value, pixels: Pixels) -> tuple[Value, Canvas]:
    """Pixels (N, 3, H, W) float32 with their mean taken off, zero outside each image, and the geometry of the batch.

    Without the zeros an image's detections would depend on what is beside it on the canvas.
    """
    graph = images.graph
    with graph.scope("prep"):
        height, width = images.length(1), images.length(2)
        mean = np.array(pixels.mean, np.float32)[:, None, None]
        x = images.transpose(0, 3, 1, 2).cast(np.float32) - mean
        canvas = Canvas(height, width, sizes.gather(ints(1, 0, 1, 0), axis=1).unsqueeze(1))
        return x * canvas.inside(), canvas


def _declare_outputs(graph: Graph, found: Detected, small_masks: Value, size: int) -> None:
    graph.output("image_index", found.rois.image, np.int64, ["D"])
    graph.output("boxes", found.rois.boxes, np.float32, ["D", 4])
    graph.output("labels", found.labels, np.int64, ["D"])
    graph.output("scores", found.scores, np.float32, ["D"])
    graph.output("masks", small_masks, np.float32, ["D", size, size])
