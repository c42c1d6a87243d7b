"""Which classes an image shows at all, judged from the whole of it, as evidence about the regions in it.

A cow is likelier among cows than in a kitchen, which nothing inside its box tells (Torralba 2003, "Contextual priming
for object detection").
"""

from __future__ import annotations

from stream_seg.graph.config import MaskRCNN
from stream_seg.graph.emit import Value, ints
from stream_seg.graph.layers import Layers
from stream_seg.graph.rpn import Canvas

_PREFIX = "presence"


def prior(layers: Layers, config: MaskRCNN, coarsest: Value, canvas: Canvas) -> Value:
    """What to add to the logits of regions of each image, (N, classes): nothing for the background.

    `coarsest` (N, C, H/s, W/s) is the backbone's last map, which is not negative: its mean and its maximum, as far as
    the image reaches, go through two layers, and the logarithms of the probabilities they give through the weight.
    """
    graph = layers.graph
    with graph.scope(_PREFIX):
        inside = canvas.inside(config.backbone.strides[-1])
        cells = layers.leave(coarsest) * inside  # 0 outside, where no maximum is
        # At least 1, for where a batch is filled up with images without any pixels.
        area = graph.op("ReduceSum", inside, ints(1, 2, 3), keepdims=0).unsqueeze(1).maximum(1.0)
        mean = graph.op("ReduceSum", cells, ints(2, 3), keepdims=0) / area
        most = graph.op("ReduceMax", cells, ints(2, 3), keepdims=0)
        x = layers.enter(graph.concat([mean, most], axis=1))
        x = layers.linear(x, f"{_PREFIX}.hidden", activation="relu")
        logits = layers.leave(layers.linear(x, f"{_PREFIX}.classes"))
        certainty = graph.op("Softplus", logits * -1.0) * -config.presence.weight  # log of the sigmoid
        return graph.op("Pad", certainty, ints(0, 1, 0, 0))
