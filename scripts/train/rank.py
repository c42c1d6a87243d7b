"""Holds the first fully connected layer near the rank that int8 graphs give it, while it is trained.

`low_rank.py` replaces that layer in an exported graph by two thin ones. Of weights that know nothing of it that takes a
share of what the layer says; weights that are moved to the nearest such layer every few steps lose nothing in the end.
"""

from __future__ import annotations

import torch
from model import Net
from team import Team
from torch import Tensor, nn

EVERY = 20
"""Steps between two projections, which take a good part of a second; what the steps add meanwhile is little."""


class RankLimit:
    """Projects `net`'s layer onto the `rank` directions in which its outputs vary most, every few steps."""

    def __init__(self, net: Net, rank: int, team: Team) -> None:
        layer = net.roi_heads.box_head.fc6
        assert isinstance(layer, nn.Linear)
        self._layer, self._rank, self._team = layer, rank, team
        self._outputs: Tensor | None = None
        layer.register_forward_hook(self._remember)

    def apply(self, step: int) -> None:
        """To be called after each step of the optimizer; the first of the team projects, the others get what it has."""
        outputs, self._outputs = self._outputs, None
        if step % EVERY or outputs is None:
            return
        if self._team.rank == 0 and outputs.isfinite().all():  # a step that went wrong has no directions
            with torch.no_grad():
                self._project(outputs.double())
        self._team.share([self._layer.weight.data, self._layer.bias.data])

    def _remember(self, _layer: nn.Module, _inputs: object, outputs: Tensor) -> None:
        """Keep what the layer says of all regions; later in a step it is asked about some of them again."""
        if self._outputs is None:
            self._outputs = outputs.detach()

    def _project(self, outputs: Tensor) -> None:
        """As `low_rank.shorten`: the mean of the outputs stays exact, only what varies is projected."""
        mean = outputs.mean(0)
        basis = torch.linalg.eigh(torch.cov(outputs.T)).eigenvectors[:, -self._rank :]
        weight, bias = self._layer.weight, self._layer.bias
        weight.copy_(basis @ (basis.T @ weight.double()))
        bias.copy_(mean - basis @ (basis.T @ (mean - bias.double())))
