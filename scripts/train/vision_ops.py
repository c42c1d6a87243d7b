"""Import this before torchvision: where its compiled operators do not load, they come from scripts/oracle instead.

That happens beside a CPU build of torch, since torchvision's wheels are CUDA builds. The replacements in plain torch
are slower but the same function; here they learn to be differentiated.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, library
from torch.autograd.function import FunctionCtx

sys.path.append(str(Path(__file__).parents[1] / "oracle"))

import torchvision_cpu

# isort: split
import torchvision

OPERATOR = "torchvision::roi_align"
ARGUMENTS = 7


def _remember(ctx: FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG001  torch's signature
    ctx.save_for_backward(*inputs[:2])
    ctx.rest = inputs[2:]


def _backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Pooling is linear in the features, so its derivative needs no values of them."""
    x, rois = ctx.saved_tensors
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        pooled = torchvision_cpu.roi_align(x, rois, *ctx.rest)
    (wanted,) = torch.autograd.grad(pooled, x, gradient)
    return (wanted, *[None] * (ARGUMENTS - 1))


if hasattr(torchvision, "kept_alive"):  # set where the operators were replaced
    library.register_autograd(OPERATOR, _backward, setup_context=_remember, lib=torchvision.kept_alive)
