"""The training loop: steps, averaged weights, checkpoints, validation."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from batches import Targets, jitter_colour, to_input
from commands import out_of_memory
from losses import Losses
from model import Net
from record import Log, draw_curves
from schedule import Schedule
from segmenter import NetSegmenter
from stopping import StopSignals
from team import Team, TeamError
from torch import Tensor, nn
from torch.optim import AdamW
from tqdm import tqdm
from weights import first_difference, write_checkpoint, write_weights

from stream_seg.errors import DeviceError, ModelError, StreamSegError, UsageError
from stream_seg.evaluate import evaluate
from stream_seg.graph.parameters import CLASS_EMBEDDING

WEIGHT_DECAY, CLIP_NORM, BETAS = 0.02, 10.0, (0.9, 0.99)
EMBEDDING_RATE = 10.0
"""Times the rate: most steps see few of the classes, and what their vectors are added to is large beside a step."""


@dataclass(frozen=True, slots=True)
class Validation:
    """What to score during training, how often in all, and at which long side."""

    annotations: Path
    images: Path
    times: int
    size: int


@dataclass(frozen=True, slots=True)
class Tuning:
    """How to train.

    `rate` is the peak learning rate, `body` its factor for body and pyramid, `average` the decay of the averaged
    weights, `mask_weight` that of the mask loss; `amp` computes in bfloat16.
    """

    rate: float
    body: float
    average: float
    mask_weight: float
    amp: bool
    log_every: int
    save_minutes: float


NOTICE = 2.0
"""Seconds in which PyTorch tells, by an error of its own, that one of those who make batches was killed, if it was:
what that one was handing over breaks off before."""

PLACE = ("step", "seconds", "warm_from")
"""What a checkpoint says of the schedule."""
SAVED = ("model", "average", "optimizer", *PLACE)
"""What a checkpoint holds at least; those of before did not note their classes."""


class Trainer:
    """Trains `net` in place by `losses`; the averaged weights are what the first of a team validates and keeps.

    `describe` is called whenever they were saved, to note what they were made of.
    """

    def __init__(
        self,
        net: Net,
        out: Path,
        schedule: Schedule,
        tuning: Tuning,
        validation: Validation | None,
        losses: Callable[..., tuple[Losses, Losses]],
        team: Team,
        describe: Callable[[], None],
    ) -> None:
        self._losses, self._team, self._is_first = losses, team, team.rank == 0
        self._describe = describe
        team.share(list(net.state_dict().values()))
        self.net, self.out, self.schedule, self.tuning, self.validation = net, out, schedule, tuning, validation
        self.average = copy.deepcopy(net).eval().requires_grad_(False)
        self.device = next(net.parameters()).device
        self.optimizer = _optimizer(net, tuning)
        self._log = Log(out / "log.jsonl")
        self._saved = time.monotonic()

    def resume(self, checkpoint: dict[str, Any]) -> None:
        """Go on where `save` was called.

        Raises UsageError where that was for other classes or parts of the network, ModelError for another network.
        """
        known = tuple(checkpoint.get("classes", self.net.classes))  # a run of before has not noted them
        if known != self.net.classes:
            raise UsageError(f"the run is of the classes {', '.join(known)}, not {', '.join(self.net.classes)}")
        for state in (checkpoint["model"], checkpoint["average"]):
            if differs := first_difference(state, self.net.state_dict()):
                raise ModelError(f"the run is of another network, and cannot be gone on with: {differs} differs")
        self.net.load_state_dict(checkpoint["model"])
        self.average.load_state_dict(checkpoint["average"])
        try:
            self.optimizer.load_state_dict(checkpoint["optimizer"])
        except ValueError as error:
            raise UsageError("the run trains other parts of the network: give --only and --freeze as before") from error
        for group, peak in zip(self.optimizer.param_groups, _peaks(self.tuning), strict=True):
            group["peak"] = peak
        for name in PLACE:
            setattr(self.schedule, name, checkpoint[name])

    def run(self, batches: Iterator[tuple[Tensor, Targets]], stop_after: float | None) -> None:
        """Train until the schedule ends, or for `stop_after` minutes, or until a signal; then save.

        Also where one of those that work for this process has ended, or the device has too little memory: TeamError or
        DeviceError is raised then.
        """
        if self._is_first:
            self._log.forget_after(self.schedule.step)
        until = math.inf if stop_after is None else time.monotonic() + 60 * stop_after
        lost: TeamError | DeviceError | None = None
        with StopSignals() as stop:
            try:
                with _makers_of_batches(), _memory_of_the_device():
                    self._train(batches, until, stop)
            except (TeamError, DeviceError) as error:
                lost = error
            if self._is_first:
                self.save()
        if lost and not stop.asked:
            raise lost

    def _train(self, batches: Iterator[tuple[Tensor, Targets]], until: float, stop: StopSignals) -> None:
        validations, last, stops = self._validations(), time.monotonic(), 0.0
        begun = 100 * self.schedule.progress  # of a resumed run that is not what the time since then was spent on
        with tqdm(total=100, initial=begun, bar_format=BAR, disable=not self._is_first) as bar:
            while self.schedule.progress < 1 and not stops:
                start = time.monotonic()
                try:
                    batch = next(batches)
                except (RuntimeError, OSError, EOFError) as error:
                    if stop.asked:  # those who make batches were told to end, too, with whatever they were handing over
                        break
                    if isinstance(error, ConnectionError | EOFError):
                        time.sleep(NOTICE)
                    raise
                self._step(*batch)
                now = time.monotonic()
                seconds, stops = self._team.agree([now - start, float(stop.asked or now > until)])
                self.schedule.advance(seconds)
                if not self._is_first:
                    continue
                bar.update(100 * self.schedule.progress - bar.n)
                if self.schedule.step % self.tuning.log_every == 0:
                    self._note(bar, now - last)
                    last = now
                if now - self._saved > 60 * self.tuning.save_minutes:
                    self.save()
                if validations and self.schedule.progress >= validations[0]:
                    validations.pop(0)
                    self.save()  # it takes long, and a second Ctrl-C does not wait
                    self._validate()
                    last = time.monotonic()

    def save(self) -> None:
        """Write the checkpoint, the averaged weights, what is noted of them and the curves."""
        schedule, state = self.schedule, {"model": self.net.state_dict(), "average": self.average.state_dict()}
        place = {name: getattr(schedule, name) for name in PLACE}
        known = {"classes": list(self.net.classes), "optimizer": self.optimizer.state_dict()}
        write_checkpoint(self.out / "last.pt", {**state, **known, **place})
        write_weights(self.out / "weights.safetensors", self.average.state_dict(), self.net.classes)
        self._describe()
        draw_curves(self.out / "log.jsonl", self.out / "curves.png")
        self._saved = time.monotonic()

    def _step(self, images: Tensor, targets: Targets) -> None:
        x = to_input(images.to(self.device, non_blocking=True))
        x = jitter_colour(x) if x.is_cuda else x
        rate = self.schedule.rate
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        losses, counters = self._losses(self.net, x, targets.to(self.device), amp=self.tuning.amp)
        weights = {"mask": self.tuning.mask_weight}
        total = torch.stack([loss * weights.get(name, 1.0) for name, loss in losses.items()]).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        trained = [one for one in self.net.parameters() if one.requires_grad]
        self._team.average(trained)
        norm = nn.utils.clip_grad_norm_([one for one in trained if one.grad is not None], CLIP_NORM)
        # Without waiting for the device: fused optimizers skip the update where this is 1, as under a GradScaler.
        skipped = (~norm.isfinite()).float()
        self.optimizer.found_inf = skipped
        self.optimizer.step()
        self._update_average()
        finite = {name: value.detach().nan_to_num(0.0, 0.0, 0.0) for name, value in {"loss": total, **losses}.items()}
        self._log.add({**finite, **counters, "norm": norm.nan_to_num(0.0, 0.0, 0.0), "skipped": skipped})

    @torch.no_grad()
    def _update_average(self) -> None:
        step = self.schedule.step
        decay = min(self.tuning.average, (1 + step) / (10 + step))  # forget the first steps quickly
        ours, theirs = list(self.average.parameters()), [p.detach() for p in self.net.parameters()]
        torch._foreach_lerp_(ours, theirs, 1 - decay)

    def _note(self, bar: tqdm[None], seconds: float) -> None:
        means = self._log.means()
        schedule = self.schedule
        self._log.write(
            {
                "step": schedule.step,
                "progress": schedule.progress,
                "rate": schedule.rate * self.tuning.rate,
                "steps_per_s": self.tuning.log_every / seconds,
                **means,
            }
        )
        bar.set_postfix_str(f"step {schedule.step}, loss {means['loss']:.3f}, masks {means['mask']:.3f}")
        if means["skipped"] == 1:
            raise StreamSegError(
                f"training diverged: no finite gradient in the steps before {schedule.step}; try a lower --rate"
            )

    def _validations(self) -> list[float]:
        """The fractions of the schedule that are still to come at which validation is due."""
        times = self.validation.times if self.validation else 0
        return [k / times for k in range(1, times + 1) if k / times > self.schedule.progress]

    def _validate(self) -> None:
        assert self.validation is not None
        judged = NetSegmenter(self.average, self.validation.size)
        mean = evaluate(judged, self.validation.images, self.validation.annotations).mean
        found = {"box_ap": mean.box_ap, "box_ap50": mean.box_ap50, "mask_ap": mean.mask_ap, "mask_ap50": mean.mask_ap50}
        self._log.write({"step": self.schedule.step, "size": self.validation.size, **found})
        tqdm.write(f"step {self.schedule.step}, long side {self.validation.size}: {mean}")


BAR = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining} {postfix}"


@contextmanager
def _makers_of_batches() -> Iterator[None]:
    """Raise TeamError where one of them was killed, which PyTorch tells by a RuntimeError at any moment."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise TeamError(
            f"one of the processes that make batches is gone: {' '.join(str(error).split())} "
            "What was trained is saved: go on with --resume, and with fewer --workers where memory is short"
        ) from error


@contextmanager
def _memory_of_the_device() -> Iterator[None]:
    """Raise DeviceError where there is too little of it: weights and what the optimizer knows are whole even then."""
    try:
        yield
    except RuntimeError as error:
        if not (told := out_of_memory(error)):
            raise
        raise DeviceError(
            f"{told}. What was trained is saved: go on with --resume, and with a smaller --batch or smaller --sizes"
        ) from error


def _peaks(tuning: Tuning) -> tuple[float, float, float]:
    """Of body and pyramid, of the classes' vectors, and of all else."""
    return tuning.rate * tuning.body, tuning.rate * EMBEDDING_RATE, tuning.rate


def _optimizer(net: Net, tuning: Tuning) -> AdamW:
    """Fused AdamW; the key "peak" of a group is its highest rate."""
    parts: list[list[Tensor]] = [[], [], []]
    for name, one in net.named_parameters():
        if one.requires_grad:
            parts[0 if name.startswith("backbone.") else 1 if name == CLASS_EMBEDDING else 2].append(one)
    groups = [{"params": part, "peak": peak} for part, peak in zip(parts, _peaks(tuning), strict=True)]
    return AdamW(groups, lr=tuning.rate, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
