"""One training sample: a picture in a random view, or four of them, perhaps with objects of others pasted in.

What cannot be learned from (crowds, tiny and strongly cut objects) becomes an ignored region, never background.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import cv2
import numpy as np
from architecture import IGNORE_STRIDE, MASK_CROP
from cache import Cached, MaskCrop, Pixels, TrainingSet
from numpy.typing import NDArray
from views import Box, View, random_view, visible_box, warp_image, warp_mask

MIN_SIDE, MIN_VISIBLE = 4.0, 0.25
"""Smaller objects, or those of which less is on the canvas, are ignored regions."""
HIDDEN = 0.6
"""An object is ignored when a pasted one covers more of it."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """`scales` of the large-scale jitter, and the probabilities of pasting objects and of a mosaic of four pictures."""

    scales: tuple[float, float] = (0.5, 2.0)
    paste: float = 0.15
    mosaic: float = 0.15


@dataclass
class Instance:
    """An object on the canvas. `crop` is its mask (0..255) inside `window`; None where only the box is known."""

    box: Box
    label: int
    confidence: float
    crop: Pixels | None = None
    window: Box | None = None


@dataclass
class Sample:
    """`image` (H, W, 3) RGB, `exhaustive` (classes + 1,), `ignore` (H / 4, W / 4) of 0 and 1."""

    image: Pixels
    exhaustive: NDArray[np.bool_]
    ignore: Pixels
    instances: list[Instance] = field(default_factory=list)

    def ignore_box(self, box: Box) -> None:
        x1, y1 = np.floor(box[:2] / IGNORE_STRIDE).astype(int).clip(0)
        x2, y2 = np.ceil(box[2:] / IGNORE_STRIDE).astype(int)
        self.ignore[y1:y2, x1:x2] = 1


@dataclass(frozen=True)
class Sampler:
    """Makes samples of a training set."""

    data: TrainingSet
    how: Augmentation
    rng: random.Random

    def make(self, index: int, canvas: tuple[int, int]) -> Sample:
        """A sample of picture `index`; `canvas` is (height, width) in multiples of 32."""
        if self.rng.random() < self.how.mosaic:
            half = canvas[0] // 2, canvas[1] // 2
            others = self.rng.choices(range(len(self.data.weights)), cum_weights=self.data.cumulative, k=3)
            return mosaic([self._view(k, half) for k in (index, *others)])
        sample = self._view(index, canvas)
        if self.data.pasteable and self.rng.random() < self.how.paste:
            for _ in range(self.rng.randint(1, 2)):
                self._paste(sample)
        return sample

    def _view(self, index: int, canvas: tuple[int, int]) -> Sample:
        image = self.data.image(index)
        view = random_view(image.shape[:2], canvas, self.how.scales, self.rng)
        ignore = np.zeros((canvas[0] // IGNORE_STRIDE, canvas[1] // IGNORE_STRIDE), np.uint8)
        sample = Sample(warp_image(image, view, canvas), self.data.exhaustive[index], ignore)
        _label(sample, self.data, self.data.objects[index], view)
        return sample

    def _paste(self, sample: Sample) -> None:
        """Simple copy-paste (Ghiasi 2021, arXiv 2012.07177): one masked object, in front of everything."""
        index, j = self.rng.choice(self.data.pasteable)
        mask = self.data.mask(self.data.objects[index].masks[j])
        height, width = sample.image.shape[:2]
        scale = min(2.0, self.rng.uniform(0.2, 0.7) * min(height, width) / max(mask.pixels.shape))
        rows, columns = (max(1, round(side * scale)) for side in mask.pixels.shape)
        left, top = self.rng.randint(0, width - columns), self.rng.randint(0, height - rows)
        view = View(scale, scale, -scale * mask.x, -scale * mask.y)
        if self.rng.random() < 0.5:
            view = View(-scale, scale, scale * (mask.x + mask.pixels.shape[1]), -scale * mask.y)
        alpha = warp_mask(mask, view, np.array([0.0, 0.0, columns, rows]), (rows, columns))
        _blend(sample, warp_image(self.data.image(index), view, (rows, columns)), alpha, left, top)
        _hide_behind(sample, alpha, left, top)
        x, y, w, h = cv2.boundingRect((alpha > 127).astype(np.uint8))
        if min(w, h) >= MIN_SIDE:
            box = np.array([left + x, top + y, left + x + w, top + y + h], np.float64)
            label = int(self.data.objects[index].labels[j])
            sample.instances.append(_with_crop(box, label, 1.0, mask, view.shifted(left, top)))


def _label(sample: Sample, data: TrainingSet, objects: Cached, view: View) -> None:
    height, width = sample.image.shape[:2]
    full = view.boxes(objects.boxes)
    clipped = full.clip(0, (width, height, width, height))
    side = clipped[:, 2:] - clipped[:, :2]
    visible = side.prod(1) / np.maximum((full[:, 2:] - full[:, :2]).prod(1), 1e-6)
    for j in np.flatnonzero(side.min(1, initial=math.inf) >= 1):
        label, confidence = int(objects.labels[j]), float(objects.confidence[j])
        mask = data.mask(objects.masks[j]) if objects.masks[j, 0] >= 0 else None
        if objects.crowd[j] or visible[j] < MIN_VISIBLE or side[j].min() < MIN_SIDE:
            _ignore(sample, mask if objects.crowd[j] else None, view, clipped[j])
        elif mask is None:
            sample.instances.append(Instance(clipped[j], label, confidence))
        else:
            # The box of what is still visible, not the visible part of the box.
            box = visible_box(mask, view, (height, width)) if visible[j] < 0.99 else clipped[j]
            if box is not None and (box[2:] - box[:2]).min() >= MIN_SIDE:
                sample.instances.append(_with_crop(box, label, confidence, mask, view))


def _ignore(sample: Sample, mask: MaskCrop | None, view: View, box: Box) -> None:
    if mask is None:
        sample.ignore_box(box)
        return
    height, width = sample.image.shape[:2]
    region = warp_mask(mask, view, np.array([0.0, 0.0, width, height]), sample.ignore.shape)
    sample.ignore |= np.asarray(cv2.dilate((region > 0).astype(np.uint8), np.ones((3, 3), np.uint8)), np.uint8)


def _with_crop(box: Box, label: int, confidence: float, mask: MaskCrop, view: View) -> Instance:
    margin = 2 + 0.04 * (box[2:] - box[:2])  # boxes reach a little beyond the object
    window = np.concatenate([box[:2] - margin, box[2:] + margin])
    return Instance(box, label, confidence, warp_mask(mask, view, window, (MASK_CROP, MASK_CROP)), window)


def _blend(sample: Sample, image: Pixels, alpha: Pixels, left: int, top: int) -> None:
    spot = sample.image[top : top + len(alpha), left : left + alpha.shape[1]]
    share = alpha[..., None].astype(np.float32) / 255
    spot[...] = np.rint(spot + (image - spot.astype(np.float32)) * share).astype(np.uint8)


def _hide_behind(sample: Sample, alpha: Pixels, left: int, top: int) -> None:
    """Take what a pasted object covers from those behind it."""
    kept = []
    for item in sample.instances:
        hidden = _box_is_hidden(item, alpha, left, top) if item.crop is None else _cut(item, alpha, left, top)
        if hidden:
            sample.ignore_box(item.box)
        else:
            kept.append(item)
    sample.instances = kept


def _box_is_hidden(item: Instance, alpha: Pixels, left: int, top: int) -> bool:
    corner = left + alpha.shape[1], top + alpha.shape[0]
    overlap = np.minimum(item.box[2:], corner) - np.maximum(item.box[:2], (left, top))
    return bool(overlap.clip(0).prod() > HIDDEN * (item.box[2:] - item.box[:2]).prod())


def _cut(item: Instance, alpha: Pixels, left: int, top: int) -> bool:
    """Cut `alpha` out of the crop and shrink the box to what is left; True if that is too little."""
    assert item.crop is not None
    assert item.window is not None
    cover = warp_mask(MaskCrop(alpha, 0, 0), View(1, 1, left, top), item.window, item.crop.shape)
    if not cover.any():
        return False
    remaining = np.minimum(item.crop, 255 - cover)
    if remaining.sum() < (1 - HIDDEN) * item.crop.sum():
        return True
    item.crop = remaining
    x, y, width, height = cv2.boundingRect((remaining > 127).astype(np.uint8))
    step = (item.window[2:] - item.window[:2]) / MASK_CROP
    first, last = item.window[:2] + (x, y) * step, item.window[:2] + (x + width, y + height) * step
    item.box = np.concatenate([np.maximum(item.box[:2], first), np.minimum(item.box[2:], last)])
    return bool((item.box[2:] - item.box[:2]).min() < MIN_SIDE)


def mosaic(parts: list[Sample]) -> Sample:
    """Four samples in one (Bochkovskiy 2020, arXiv 2004.10934). Exhaustive is what is exhaustive in all of them."""
    height, width = parts[0].image.shape[:2]
    exhaustive = np.logical_and.reduce([part.exhaustive for part in parts])
    whole = Sample(_joined([p.image for p in parts]), exhaustive, _joined([p.ignore for p in parts]))
    for number, part in enumerate(parts):
        shift = np.array([number % 2 * width, number // 2 * height] * 2, np.float64)
        for item in part.instances:
            _cut_at_edges(item, width, height)
            window = None if item.window is None else item.window + shift
            whole.instances.append(Instance(item.box + shift, item.label, item.confidence, item.crop, window))
    return whole


def _cut_at_edges(item: Instance, width: int, height: int) -> None:
    """Crops reach a little beyond the canvas, and in a mosaic there is another picture."""
    if item.crop is None or item.window is None:
        return
    step = (item.window[2:] - item.window[:2]) / MASK_CROP
    x, y = (item.window[axis] + (np.arange(MASK_CROP) + 0.5) * step[axis] for axis in (0, 1))
    item.crop[:, (x < 0) | (x > width)] = 0
    item.crop[(y < 0) | (y > height)] = 0


def _joined(four: list[Pixels]) -> Pixels:
    return np.vstack([np.hstack(four[:2]), np.hstack(four[2:])])
