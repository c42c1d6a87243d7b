"""Lets torchvision's models run on a machine where its compiled operators do not load.

torchvision's wheels are CUDA builds. Beside a CPU build of torch their library cannot be loaded, and then not even the
import of torchvision works. `import torchvision_cpu` before it declares the two operators that detection needs, with
implementations in plain torch, written from the definition of the operators. Where the compiled ones load, it does
nothing.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch
from torch import Tensor, library

_ROWS = 64
"""Regions pooled at a time: bounds the memory of the sampled points."""


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes that no better one overlaps by more than the threshold, best first."""
    order = scores.sort(descending=True, stable=True).indices
    x1, y1, x2, y2 = boxes[order].unbind(1)
    area = (x2 - x1) * (y2 - y1)
    alive, kept = torch.ones(len(order), dtype=torch.bool), []
    for i in range(len(order)):
        if not alive[i]:
            continue
        kept.append(i)
        width = (torch.minimum(x2[i], x2[i + 1 :]) - torch.maximum(x1[i], x1[i + 1 :])).clamp(min=0)
        height = (torch.minimum(y2[i], y2[i + 1 :]) - torch.maximum(y1[i], y1[i + 1 :])).clamp(min=0)
        common = width * height
        alive[i + 1 :] &= ~(common / (area[i] + area[i + 1 :] - common) > iou_threshold)
    return order[torch.tensor(kept, dtype=torch.int64)]


def roi_align(
    x: Tensor, rois: Tensor, scale: float, pooled_height: int, pooled_width: int, samples: int, aligned: bool
) -> Tensor:
    """Mean of samples x samples bilinear points per cell; rois (K, 5) are image, x1, y1, x2, y2."""
    assert samples > 0
    channels, height, width = x.shape[1:]
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels)
    parts = [x.new_zeros(0, channels, pooled_height, pooled_width)]
    for roi in rois.split(_ROWS):
        base = roi[:, 0].long() * (height * width)
        ys = _points(roi[:, 2], roi[:, 4], scale, pooled_height, samples, aligned, height)
        xs = _points(roi[:, 1], roi[:, 3], scale, pooled_width, samples, aligned, width)
        total = 0
        for row, row_weight in ys:
            for column, column_weight in xs:
                index = base[:, None, None] + row[:, :, None] * width + column[:, None, :]
                total = total + rows[index] * (row_weight[:, :, None] * column_weight[:, None, :])[..., None]
        cells = total.view(len(roi), pooled_height, samples, pooled_width, samples, channels).mean((2, 4))
        parts.append(cells.permute(0, 3, 1, 2))
    return torch.cat(parts)


def _points(
    low: Tensor, high: Tensor, scale: float, cells: int, samples: int, aligned: bool, limit: int
) -> list[tuple[Tensor, Tensor]]:
    """Along one axis: the two neighbours (K, cells * samples) of each sample point, and their weights."""
    offset = 0.5 if aligned else 0.0
    start, length = low * scale - offset, (high - low) * scale
    if not aligned:
        length = length.clamp(min=1)
    step = torch.arange(cells * samples, device=low.device) + 0.5
    place = start[:, None] + step * (length / (cells * samples))[:, None]
    inside = (place >= -1) & (place <= limit)
    place = place.clamp(0, limit - 1)
    near = place.floor().long().clamp(max=limit - 1)
    far = (near + 1).clamp(max=limit - 1)
    fraction = place - near
    return [(near, (1 - fraction) * inside), (far, fraction * inside)]


def _install() -> None:
    if _loads():
        return
    declared = library.Library("torchvision", "FRAGMENT")
    declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    declared.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    declared.define(
        "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
        "int sampling_ratio, bool aligned) -> Tensor"
    )
    declared.impl("nms", nms, "CPU")
    declared.impl("roi_align", roi_align, "CPU")
    import torchvision

    # torchvision asks whether its library was loaded; without this it would compile a fallback of its own.
    for module in ("torchvision.extension", "torchvision.ops.roi_align"):
        sys.modules[module]._has_ops = _present  # type: ignore[attr-defined]
    torchvision.kept_alive = declared


def _present() -> bool:
    """A named function, since torch compiles it when a model is exported."""
    return True


def _loads() -> bool:
    """Whether torchvision's compiled operators can be loaded."""
    package = importlib.util.find_spec("torchvision")
    assert package is not None
    assert package.origin is not None
    libraries = list(Path(package.origin).parent.glob("_C*.so"))
    try:
        torch.ops.load_library(str(libraries[0]))
    except (OSError, IndexError):
        return False
    return True


_install()
