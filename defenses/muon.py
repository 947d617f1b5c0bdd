"""Muon: momentum whose steps in the weights of convolutions are made orthogonal.

Keller Jordan et al. (2024), https://kellerjordan.github.io/posts/muon. `torch.optim.Muon` takes
matrices alone, and one network: here, a convolution is a matrix for each network of a stack.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

# A quintic that drives singular values between 0 and 1 towards 1, in so many rounds.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonal for convolutions; weights decay apart from their gradients.

    Args:
        parameters: weights, or groups of them with `networks`, how many lie side by side in each.
    """

    def __init__(
        self, parameters: Iterable[Any], lr: float, *, momentum: float, weight_decay: float
    ) -> None:
        kept = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "networks": 1}
        super().__init__(parameters, kept)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Take a step along the gradients that there are."""
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                if "momentum_buffer" not in self.state[weight]:
                    self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
                buffer = self.state[weight]["momentum_buffer"].mul_(momentum).add_(weight.grad)
                update = weight.grad.add(buffer, alpha=momentum)
                if weight.ndim == 4:
                    matrices = update.unflatten(0, (group["networks"], -1)).flatten(2)
                    update = orthogonal(matrices).view_as(weight)
                weight.mul_(1 - rate * group["weight_decay"]).add_(update, alpha=-rate)


def orthogonal(matrices: Tensor) -> Tensor:
    """The orthogonal factors of matrices (n, out, in), roughly, by a Newton-Schulz iteration.

    Tall ones are longer by sqrt(out / in), so that outputs change alike.
    """
    _, rows, columns = matrices.shape
    turned = matrices.mT if rows > columns else matrices
    x: Tensor = turned / turned.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    if rows > columns:
        x = x.mT * math.sqrt(rows / columns)
    return x
