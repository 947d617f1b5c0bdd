"""Learn to perturb (Jeddi et al., CVPR 2020): features with learned noise, trained adversarially.

Random: the features after each batch norm, by Gaussian noise of learned standard deviations, 0.25
at first and 0.01 at least. A term that falls from epoch to epoch keeps the noise large. Simplified:
a deviation for each channel in place of each feature, one optimizer for both, half of each batch
adversarial in place of a copy, true labels in the attack, no delay.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .adversarial import train_adversarially
from .pni import half
from .population import Population
from .registry import register_defense
from .replacing import replaced
from .training import Task

GAMMA, LEAST = 1e-4, 0.01


class LearnedNoise(nn.Module):
    """A batch norm and noise on its features."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm
        self.theta = nn.Parameter(torch.full((norm.num_features,), 0.25))

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        theta = self.theta.clamp_min(LEAST).view(-1, 1, 1)
        return self.norm(features) + theta * torch.randn_like(features)  # type: ignore[no-any-return]


@register_defense(
    "l2p",
    build=lambda data: replaced(data.standard_network(), nn.BatchNorm2d, LearnedNoise),
    members=1,
    draws=32,
    random="noise on all features",
    reference="arXiv:2003.01090",
    claim={"fgsm": {}, "pgd-eot": {"steps": 7, "draws": 1}},
    field=True,
    version=1,
)
def l2p(population: Population, task: Task, *, eps: float, step_size: float, steps: int) -> None:
    """Train on adversarial examples for half of each batch."""
    weight = GAMMA

    def fall(_: Sequence[nn.Module], __: range, epoch: int, ___: int) -> None:
        nonlocal weight
        weight = GAMMA / sum(1 / k for k in range(1, epoch + 2))

    def loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        layers = (part for part in network.modules() if isinstance(part, LearnedNoise))
        spread = torch.cat([layer.theta.clamp_min(LEAST).sqrt() for layer in layers]).sum()
        return task.recipe.entropy(network(images), labels) - weight * spread

    hooks: dict[str, Any] = {"before_step": fall, "loss": loss, "wrap": half}
    train_adversarially(population, task, eps=eps, step_size=step_size, steps=steps, **hooks)
