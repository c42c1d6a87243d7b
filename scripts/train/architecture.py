"""The sizes of the compact network and of its training. No imports: a test compares it with the graph builder's.

Coordinates are continuous pixels of the network input; boxes are x1, y1, x2, y2.
"""

PIXEL_MEAN, PIXEL_DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of red, green and blue, 0..255; the mean is also what is beside a picture, so that there is 0 for the network."""
SLOPE = 0.1
"""Of the leaky rectifiers, below zero."""
STEM_CHANNELS = 32
STAGES = ((32, 1), (64, 2), (128, 2), (256, 3))
"""Of the body: channels inside, and blocks; each hands on twice the channels, at strides 4, 8, 16 and 32."""
PYRAMID_CHANNELS = 128
STRIDES = (8, 16, 32)
DISTANCES = 11
"""A side of a box is a mean of 0..10 strides away from its place, weighted by a softmax."""
MASK_LEVEL_CHANNELS = 96
"""Of what the mask head is given of each level of the pyramid."""
MASK_CHANNELS, MASK_DILATIONS = (64, 64, 64, 64), (1, 2, 2, 1)
FINE_CHANNELS, FINE_STRIDE = 64, 4
"""Of the first stage, whose output shows masks the edges in the picture."""
DETAIL_CHANNELS = 32
CANONICAL_SIDE, CANONICAL_LEVEL = 160, 4
"""A box of this side is pooled from the level of stride 2 ** 4 (equation 1 of the FPN paper)."""
MASK_CELLS, POOL_SAMPLES = 14, 2
CANDIDATES = 1000
"""The likeliest of an image that compete for its detections."""
DETECTION_NMS_IOU, DETECTIONS, LEAST_SIDE = 0.6, 100, 1e-2
DETECTION_DECAY = 0.5
"""How fast scores of detections fall that a better one overlaps."""
CANVAS_STRIDE = 32

PRIOR = 0.01
"""How likely a place shows a class that was never seen (Lin 2017, arXiv 1708.02002)."""
NEAREST, REACH = 9, 8
"""ATSS: of each level, the places nearest to an object compete for it, by squares of so many strides round them.

NanoDet-g was made with squares of 8. By others its levels learn objects of other sizes than they know, and a short run
makes it worse (squares of 5: persons lose 7 points of AP in 60 steps).
"""
BOX_LOSS, DISTANCE_LOSS = 2.0, 0.25
"""GFL's weights of how well boxes fit and of how their sides are told, beside the loss of the classes."""
LEAST_QUALITY = 0.1
"""What a box counts for that does not fit at all, so that it comes nearer."""
UNNAMED = 0.25
"""The share of outlines that are learned without a name, so that classes whose outlines were never seen have some."""
MASK_ROIS, ONLY_MASK_ROIS = 6, 24
"""Per image, on average over a batch: regions are what costs most where all is trained, and all there is of masks."""
AS_PREDICTED = 0.5
"""The share of outlines that are learned in boxes as the network places them, where it does so well enough."""
ROI_IOU = 0.5
BOX_SHIFT, BOX_STRETCH = 0.07, 0.13
"""Deviations of detected boxes from true ones: of their centres, in sides, and of the logarithm of their sides."""
VIEWS = 3
"""How many such boxes of an object may be drawn for a batch."""
DICE = 0.5
"""Of the dice loss beside the cross entropy of masks: small and thin objects count as much as large ones."""
IGNORE_STRIDE = 4
"""The map of ignored regions has a quarter of the input's resolution."""
MASK_CROP = 64
"""Side of the crop a mask travels in during training; the network predicts 28."""
