"""Two processes train together for a step: each prints its weights, the mean gradients and what the first said.

And whether a step of a fused optimizer follows those gradients.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "train"))
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from team import Team, work_together


def work(team: Team, start: float) -> None:
    net = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(net.weight, start + team.rank)
    team.share(list(net.parameters()))
    if team.rank == 0:  # the other has nothing for the weight to learn from
        net.weight.grad = torch.tensor([[2.0, 4.0]])
    net.bias.grad = torch.tensor([1.0 + team.rank])
    team.average(list(net.parameters()))
    numbers = team.agree([0.25 + team.rank])
    moved, wanted = _step(team)
    gradients = [one.grad.flatten().tolist() for one in net.parameters() if one.grad is not None]
    sys.stdout.write(json.dumps([team.rank, net.weight[0].tolist(), *gradients, numbers, moved == wanted]) + "\n")


def _step(team: Team) -> tuple[list[float], list[float]]:
    """Where a step moves the weights of a convolution, whose pixels come first in memory, and where it should."""
    layer = torch.nn.Conv2d(3, 4, 3, bias=False).to(memory_format=torch.channels_last)
    gradient = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(0))
    layer.weight.grad, before = gradient.clone(), layer.weight.detach().clone()
    team.average([layer.weight])
    torch.optim.AdamW([layer.weight], lr=0.5, weight_decay=0, fused=True).step()
    return (layer.weight - before).sign().flatten().tolist(), (-gradient).sign().flatten().tolist()


if __name__ == "__main__":
    work_together(2, work, 7.0)
