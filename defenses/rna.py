"""Random normalization aggregation (Dong et al., NeurIPS 2022).

Random: how each batch norm normalizes, drawn layer by layer for every pass: by its running
statistics, or by those of the image in one, two or four groups of channels. Each network learns
under another draw than the attack in training met, as there. Simplified: fewer kinds, no group
batch norm, and one draw serves a batch.
"""

import torch
from torch import Tensor, nn

from .adversarial import held, train_adversarially
from .population import Population
from .registry import register_defense
from .replacing import replaced
from .training import Task

GROUPS = (1, 2, 4)


class RandomNorm(nn.Module):
    """One of several normalizations, drawn for every pass."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        channels = norm.num_features
        groups = [nn.GroupNorm(g, channels) for g in GROUPS if channels % g == 0]
        self.norms = nn.ModuleList([norm, *groups])

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        count = len(self.norms)
        drawn = torch.randint(count, (), device=features.device)
        chosen = (torch.arange(count, device=features.device) == drawn).to(features)
        return torch.stack([norm(features) for norm in self.norms], dim=-1) @ chosen


@register_defense(
    "rna",
    build=lambda data: replaced(data.standard_network(), nn.BatchNorm2d, RandomNorm),
    members=1,
    draws=32,
    random="the kind of each normalization",
    reference="NeurIPS 2022, Random Normalization Aggregation",
    claim={"pgd": {"steps": 20}, "autoattack": {}},
    field=True,
    version=1,
)
def rna(population: Population, task: Task, *, eps: float, step_size: float, steps: int) -> None:
    """Train on adversarial examples of a draw held fixed."""
    train_adversarially(population, task, eps=eps, step_size=step_size, steps=steps, wrap=held)
