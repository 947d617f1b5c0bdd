"""Stochastic activation pruning (Dhillon et al., ICLR 2018).

Random: which activations are kept. As many are drawn with replacement as there are, each with a
probability in proportion to its size; what was never drawn is pruned, and the rest scaled up so
that the expectation stays. Simplified: each is kept or pruned by itself, with the same probability.
Gradients are those of the expectation.
"""

import torch
from torch import Tensor, nn

from .population import Population
from .registry import register_defense
from .replacing import replaced
from .training import Task


class Pruned(nn.Module):
    """An activation function whose results are pruned at random."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, features: Tensor) -> Tensor:
        """(N, ...) -> (N, ...)."""
        active: Tensor = self.activation(features)
        share = keep_probability(active.detach().flatten(1)).view_as(active)
        kept = torch.rand_like(active) < share
        return active * kept / share


def keep_probability(active: Tensor) -> Tensor:
    """With which each of D activations (N, D) is among D draws in proportion to their sizes."""
    size = active.abs()
    probability = size / size.sum(1, keepdim=True).clamp_min(1e-12)
    never = size.shape[1] * torch.log1p(-probability.clamp_max(1 - 1e-6))
    return -torch.expm1(never).clamp_max(-1e-12)


@register_defense(
    "sap",
    build=lambda data: replaced(data.standard_network(), nn.ReLU, Pruned),
    members=1,
    draws=32,
    random="which activations are kept",
    reference="arXiv:1803.01442",
    claim={"fgsm": {}},
    field=True,
    starts_from=("single",),
    version=1,
)
def sap(population: Population, task: Task) -> None:
    """Take over the plainly trained network; nothing is trained."""
    population.load_state_dict(task.load("single").state_dict())
