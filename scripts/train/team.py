"""Several processes of one CPU that train one network: each makes its own part of a batch, gradients are averaged.

Processes of one thread each do more than one process of as many threads, and suffer less from other programs: they
wait for each other once per step, not in each of its thousands of operations.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

import torch
from stopping import ignored
from torch import Tensor, distributed, nn

from stream_seg.errors import StreamSegError

PATIENCE = timedelta(hours=12)
"""How long the others wait for the first, which validates and saves alone, and may be suspended."""
PARTING = 5.0
"""Seconds in which the others end by themselves when training has; where it failed they would wait in vain."""


_THERE = "there"
"""How many have come to the meeting."""


class TeamError(StreamSegError):
    """One of those that work for this process, or with it, has ended; what this process has is whole."""


class Team(Protocol):
    """Who trains together: `rank` 0 of `size` is the first, which keeps records and decides when to stop."""

    rank: int
    size: int

    def share(self, tensors: list[Tensor]) -> None:
        """Give all the values of the first."""

    def average(self, parameters: list[nn.Parameter]) -> None:
        """Replace the gradients by their means over all."""

    def agree(self, numbers: list[float]) -> list[float]:
        """The numbers of the first."""


class Alone:
    """A team of one."""

    rank, size = 0, 1

    def share(self, tensors: list[Tensor]) -> None:
        """There is nobody to tell."""

    def average(self, parameters: list[nn.Parameter]) -> None:
        """There is one gradient."""

    def agree(self, numbers: list[float]) -> list[float]:
        return numbers


class Together:
    """One of `size` processes; `meeting` is a file that all of them can open, `others` those that the first started."""

    def __init__(self, rank: int, size: int, meeting: Path, others: Sequence[BaseProcess] = ()) -> None:
        self.rank, self.size = rank, size
        store = distributed.FileStore(str(meeting), size)
        store.add(_THERE, 1)
        # PyTorch would wait for one that is no more, and meanwhile listen to no signal.
        while others and store.add(_THERE, 0) < size:
            if not all(one.is_alive() for one in others):
                raise TeamError(f"another of the {size} processes has ended before training began")
            time.sleep(0.05)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE)

    def share(self, tensors: list[Tensor]) -> None:
        for one in tensors:
            self._exchange(distributed.broadcast, one.detach(), 0)

    def average(self, parameters: list[nn.Parameter]) -> None:
        """In one message; a part of the network that had nothing to learn from has no gradients, which are zeros."""
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        flat = torch.cat([one.flatten() for one in gradients])
        self._exchange(distributed.all_reduce, flat)
        flat /= self.size
        for parameter, mean in zip(parameters, flat.split([one.numel() for one in gradients]), strict=True):
            # In the layout of the parameter, which may have its channels last: fused optimizers walk through the memory
            # of both side by side, and would give each weight the gradient of another.
            parameter.grad = torch.empty_like(parameter).copy_(mean.view_as(parameter))

    def agree(self, numbers: list[float]) -> list[float]:
        told = torch.tensor(numbers, dtype=torch.float64)
        self._exchange(distributed.broadcast, told, 0)
        agreed: list[float] = told.tolist()
        return agreed

    def _exchange(self, how: Callable[..., object], *arguments: object) -> None:
        try:
            how(*arguments)
        except RuntimeError as error:
            raise TeamError(f"another of the {self.size} processes has ended: {error}") from error


def work_together(size: int, work: Callable[..., None], *arguments: object) -> None:
    """Call `work(team, *arguments)` in `size` processes, of which this is the first; end the others with it."""
    if size == 1:
        work(Alone(), *arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        start = multiprocessing.get_context("spawn").Process
        others = [start(target=_help, args=(rank, size, meeting, work, *arguments)) for rank in range(1, size)]
        with ignored():
            for one in others:
                one.start()
        parting = 0.0
        try:
            work(Together(0, size, meeting, others), *arguments)
            parting = PARTING
        finally:
            for one in others:
                one.join(parting)
                one.kill()
                one.join()


def _help(rank: int, size: int, meeting: Path, work: Callable[..., None], *arguments: object) -> None:
    with suppress(StreamSegError):  # the first has met the same, or is gone
        work(Together(rank, size, meeting), *arguments)
