"""Endless training batches: samples of one size and orientation, padded labels, colour jitter."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from architecture import CANVAS_STRIDE, MASK_CROP
from augment import Augmentation, Sample, Sampler
from cache import TrainingSet
from stopping import end_without_failing
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

SHORT_SIDE = 0.77
"""Of the long one: about 4:3. Few distinct shapes let cuDNN's benchmark mode pay."""


class Targets(NamedTuple):
    """Labels of a batch, padded to the same number of objects G per image. A NamedTuple, so that it can be pinned.

    `boxes` (B, G, 4) float32, `labels` (B, G) int64 with 0 for padding, `confidence` (B, G) float32, how likely each
    object is to be one, `crop_row` (B, G) row of `crops` or -1 where it has no usable mask, `crops` (N, S, S) uint8
    masks resampled inside `crop_boxes` (N, 4), `exhaustive` (B, classes + 1) bool, `ignore` (B, H / 4, W / 4) uint8.
    """

    boxes: Tensor
    labels: Tensor
    confidence: Tensor
    crop_row: Tensor
    crops: Tensor
    crop_boxes: Tensor
    exhaustive: Tensor
    ignore: Tensor

    def to(self, device: torch.device) -> Targets:
        return Targets(*(one.to(device, non_blocking=True) for one in self))


def canvas_size(long_side: int, *, is_portrait: bool) -> tuple[int, int]:
    """(height, width) in multiples of 32, the long side rounded up."""
    long = -(-long_side // CANVAS_STRIDE) * CANVAS_STRIDE
    short = max(1, round(long * SHORT_SIDE / CANVAS_STRIDE)) * CANVAS_STRIDE
    return (long, short) if is_portrait else (short, long)


def collate(samples: list[Sample]) -> tuple[Tensor, Targets]:
    """Images (B, H, W, 3) uint8 RGB and their targets."""
    most = max(len(sample.instances) for sample in samples)
    count, padded = len(samples), max(8, -(-most // 8) * 8)  # few different shapes suit a GPU's allocator
    boxes, labels = np.zeros((count, padded, 4), np.float32), np.zeros((count, padded), np.int64)
    rows, confidence = np.full((count, padded), -1, np.int64), np.ones((count, padded), np.float32)
    crops, windows = [np.zeros((MASK_CROP, MASK_CROP), np.uint8)], [np.zeros(4)]  # row 0, so that there always is one
    for n, sample in enumerate(samples):
        for m, item in enumerate(sample.instances):
            boxes[n, m], labels[n, m], confidence[n, m] = item.box, item.label, item.confidence
            if item.crop is not None and item.window is not None:
                rows[n, m] = len(crops)
                crops.append(item.crop)
                windows.append(item.window)
    exhaustive = np.stack([sample.exhaustive for sample in samples])
    ignore = np.stack([sample.ignore for sample in samples])
    objects = boxes, labels, confidence, rows, np.stack(crops), np.stack(windows).astype(np.float32)
    arrays = *objects, exhaustive, ignore
    images = torch.from_numpy(np.stack([sample.image for sample in samples]))
    return images, Targets(*(torch.from_numpy(one) for one in arrays))


def to_input(images: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 RGB -> (B, 3, H, W) float in -1..1; channels-last without a copy."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def _to_bytes(x: Tensor) -> Tensor:
    return ((x + 1) * 127.5).round().byte().permute(0, 2, 3, 1)


def jitter_colour(x: Tensor) -> Tensor:
    """Saturation, contrast, brightness, white balance, blur and noise, drawn per image: (B, 3, H, W) in -1..1."""
    x = _jitter_tone(x)
    blur, noise = (_chance(x, 0.15) * _uniform(x, *reach) for reach in ((0.3, 1.0), (0.016, 0.08)))
    if x.is_cuda or blur.any():  # looking would make a GPU wait; on a CPU the work saved is worth the look
        x = torch.lerp(x, functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False), blur)
    if x.is_cuda or noise.any():
        x = x + torch.randn_like(x[:, :1]) * noise
    return x.clamp(-1, 1)


def _jitter_tone(x: Tensor) -> Tensor:
    active = _chance(x, 0.8)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * (1 + active * _uniform(x, -0.4, 0.4)) * (1 - _chance(x, 0.1))
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * (1 + active * _uniform(x, -0.25, 0.25))
    gain = (1 + active * _uniform(x, -0.25, 0.25)) * (1 + active * _uniform(x, -0.07, 0.07, channels=3))
    return (x + 1) * gain - 1 + active * _uniform(x, -0.14, 0.14)


def _uniform(x: Tensor, low: float, high: float, channels: int = 1) -> Tensor:
    return torch.empty(len(x), channels, 1, 1, device=x.device).uniform_(low, high)


def _chance(x: Tensor, probability: float) -> Tensor:
    return (torch.rand(len(x), 1, 1, 1, device=x.device) < probability).float()


class Batches(IterableDataset[tuple[Tensor, Targets]]):
    """Endless batches; each worker process fills whole ones. `jitters` colours here, otherwise the caller does."""

    def __init__(
        self, data: TrainingSet, batch: int, sizes: list[int], seed: int, how: Augmentation, *, jitters: bool
    ) -> None:
        self.data, self.batch, self.sizes, self.seed, self.how, self.jitters = data, batch, sizes, seed, how, jitters

    def __iter__(self) -> Iterator[tuple[Tensor, Targets]]:
        worker = get_worker_info()
        seed = self.seed * 1000 + (worker.id if worker else 0)
        torch.manual_seed(seed)
        if worker:  # in a process of its own; otherwise these would be the trainer's threads
            torch.set_num_threads(1)
        sampler = Sampler(self.data, self.how, random.Random(seed))
        draw = np.random.default_rng(seed)
        waiting: dict[bool, list[int]] = {False: [], True: []}
        while True:
            for index in draw.choice(len(self.data.weights), 512, p=self.data.weights):
                group = waiting[bool(self.data.is_portrait[index])]
                group.append(int(index))
                if len(group) == self.batch:
                    yield self._batch(group, sampler)
                    group.clear()

    def _batch(self, group: list[int], sampler: Sampler) -> tuple[Tensor, Targets]:
        size = sampler.rng.choice(self.sizes)
        canvas = canvas_size(size, is_portrait=bool(self.data.is_portrait[group[0]]))
        images, targets = collate([sampler.make(index, canvas) for index in group])
        if self.jitters:  # image by image: a whole batch of floats would not fit a CPU's cache
            images = torch.cat([_to_bytes(jitter_colour(to_input(image))) for image in images.split(1)])
        return images, targets


def make_loader(batches: Batches, workers: int, *, pin: bool) -> DataLoader[tuple[Tensor, Targets]]:
    """`workers` processes, or none: then batches are made between the steps."""
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
        worker_init_fn=end_without_failing,
    )
