"""Stochastic local winner-takes-all (Panousis et al., 2021), adversarially trained.

Random: which unit of each pair of channels passes, with the probabilities of a softmax over the
two; there is no ReLU. Simplified: weights are points, the loss has no divergence of the winners'
law from uniform, and winners are sampled exactly in training and answering, with the gradient of
the paper's relaxation (temperature 0.67).
"""

import torch
from torch import Tensor, nn

from .adversarial import train_adversarially
from .population import Population
from .registry import register_defense
from .replacing import replaced
from .training import Task

UNITS, TEMPERATURE = 2, 0.67


class Competition(nn.Module):
    """Of each block of channels one passes, drawn; the others are zero."""

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, ...) -> (N, C, ...), with C a multiple of the block."""
        # In half precision a number below 1 may round to it.
        blocks = features.float().unflatten(1, (-1, UNITS))
        gumbel = -(-torch.rand_like(blocks).log()).log()
        relaxed = ((blocks + gumbel) / TEMPERATURE).softmax(2)
        winner = (relaxed == relaxed.amax(2, keepdim=True)).to(relaxed)
        # Drawn exactly, with the gradient of the relaxation.
        passed = relaxed + (winner - relaxed).detach()
        result: Tensor = (passed * blocks).flatten(1, 2)
        return result


@register_defense(
    "lwta",
    build=lambda data: replaced(data.standard_network(), nn.ReLU, lambda _: Competition()),
    members=1,
    draws=32,
    random="which unit of each pair passes",
    reference="arXiv:2112.02671",
    claim={"pgd": {"steps": 20}, "autoattack": {}},
    field=True,
    version=1,
)
def lwta(population: Population, task: Task, *, eps: float, step_size: float, steps: int) -> None:
    """Train on adversarial examples, with fresh winners at every step."""
    train_adversarially(population, task, eps=eps, step_size=step_size, steps=steps)
