"""Constrained trainable random weights (Ma, Dong and Xu, NeurIPS 2023).

Random: the first convolution's weights, Gaussian with learned means and standard deviations. Each
network learns under another draw than the attack in training met. Simplified: standard deviations
stay between a tenth of the weights' own and all of it, in place of the paper's bounds, which follow
from gradients and predictions; one draw serves a batch.
"""

import torch
from torch import Tensor, nn

from .adversarial import held, train_adversarially
from .population import Population
from .registry import register_defense
from .replacing import replaced, with_weight
from .training import Task


class RandomWeight(nn.Module):
    """A convolution whose weight is drawn for every pass, with learned spread."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        # Flat: Muon takes what has the shape of a convolution's weight for one.
        self.spread = nn.Parameter(torch.full((convolution.weight.numel(),), 0.5))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out, H', W')."""
        weight = self.convolution.weight
        sigma = self.spread.clamp(0.1, 1.0).view_as(weight) * weight.detach().std()
        drawn = weight + sigma * torch.randn_like(weight)
        return with_weight(self.convolution, drawn, images)


@register_defense(
    "ctrw",
    build=lambda data: replaced(data.standard_network(), nn.Conv2d, RandomWeight, at=0),
    members=1,
    draws=32,
    random="the first filters",
    reference="NeurIPS 2023, Adversarial Robustness through Random Weight Sampling",
    claim={"pgd": {"steps": 20}, "autoattack": {}},
    field=True,
    version=1,
)
def ctrw(population: Population, task: Task, *, eps: float, step_size: float, steps: int) -> None:
    """Train on adversarial examples of a draw held fixed."""
    train_adversarially(population, task, eps=eps, step_size=step_size, steps=steps, wrap=held)
