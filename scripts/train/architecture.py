"""The sizes of the compact Mask R-CNN and of its training. No imports: a test compares it with the graph builder's.

Coordinates are continuous pixels of the network input; boxes are x1, y1, x2, y2.
"""

PYRAMID_CHANNELS = 96
TAPS = (6, 13, 18)
"""Blocks of MobileNetV2 whose outputs go to the pyramid."""
TAP_CHANNELS = (32, 96, 256)
LAST_CHANNELS = 256
STRIDES = (8, 16, 32)
ANCHOR_SIZES = (24, 52, 108, 220)
ASPECT_RATIOS = (0.5, 1.0, 2.0)
FULLY_CONNECTED = 512
PRESENCE_HIDDEN = 256
"""Of the layer between what is pooled of a whole image and which classes it shows."""
PRESENCE_WEIGHT = 0.7
"""The power to which a probability that an image shows a class counts for what is taken for one."""
REFINEMENTS = 1
"""How many more times the box head looks at what it has found, to place and to score it better."""
MASK_CHANNELS, MASK_DILATIONS = (64, 64, 64, 64), (1, 2, 2, 1)
FINE_TAP, FINE_CHANNELS, FINE_STRIDE = 3, 24, 4
"""The block whose output shows masks the edges in the picture."""
DETAIL_CHANNELS = 32
CANONICAL_SIDE, CANONICAL_LEVEL = 160, 4
"""A box of this side is pooled from the level of stride 2 ** 4 (equation 1 of the FPN paper)."""
BOX_CELLS, MASK_CELLS, POOL_SAMPLES = 7, 14, 2
BOX_POSITION, BOX_SIZE = 10.0, 5.0
"""Fast R-CNN's scaling of its box deltas."""
PROPOSALS_PER_LEVEL, PROPOSALS = 200, 200
"""At inference. 100 would cost 2 to 3 points of AP50; `low_rank` pays for the other 100."""
FC6_RANK = 64
"""Of the first fully connected layer in int8 graphs."""
PROPOSAL_NMS_IOU, DETECTION_NMS_IOU, DETECTIONS, LEAST_SIDE = 0.7, 0.6, 100, 1e-2
DETECTION_DECAY = 0.5
"""How fast scores of detections fall that a better one overlaps."""
CANVAS_STRIDE = 32

DEFAULT_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "boat", "bird", "cat", "dog", "horse",
    "sheep", "cow", "bottle", "chair", "couch", "potted plant", "dining table", "tv",
)  # fmt: skip
"""Those of the built-in weights: line k is label k + 1, and label 0 is the background."""

WHOLE_PIXELS = 0.5
"""The share of training steps whose boxes are classified from whole pixels, as int8 graphs pool them."""
TRAINING_PER_LEVEL, TRAINING_PROPOSALS = 200, 200
RPN_POSITIVE_IOU, RPN_NEGATIVE_IOU, RPN_SAMPLES, RPN_POSITIVES = 0.6, 0.3, 128, 64
ROI_IOU, ROI_SAMPLES, ROI_POSITIVES = 0.5, 64, 16
DOUBTFUL = 16
"""Per image: background that looks most like objects, for the box head to look at again."""
MASK_ROIS, ONLY_MASK_ROIS = 6, 24
"""Per image, on average over a batch: a region costs the mask head ten times what it costs the box head."""
BOX_SHIFT, BOX_STRETCH = 0.07, 0.13
"""Deviations of detected boxes from true ones: of their centres, in sides, and of the logarithm of their sides."""
VIEWS = 3
"""How many such boxes of an object are drawn when only masks are trained."""
DICE = 0.5
"""Of the dice loss beside the cross entropy of masks: small and thin objects count as much as large ones."""
BOX_BETA = 1 / 9
PRESENCE_LOSS, PRESENCE_DROPOUT = 2.0, 0.5
"""Weight of the loss of which classes an image shows, and how much of what that is judged from is left out."""
IGNORE_STRIDE = 4
"""The map of ignored regions has a quarter of the input's resolution."""
MASK_CROP = 64
"""Side of the crop a mask travels in during training; the network predicts 28."""
