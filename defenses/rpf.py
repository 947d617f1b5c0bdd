"""Random projection filters (Dong and Xu, CVPR 2023).

Random: three quarters of the first convolution's filters, drawn anew for every pass from a Gaussian
of standard deviation 1 / kernel size; in the paper's ResNet18 that is 48 of 64. Each network learns
under another draw than the attack in training met, as there. Simplified: no weight decay of its own
for this layer, and one draw serves a batch.
"""

import torch
from torch import Tensor, nn

from .adversarial import held, train_adversarially
from .population import Population
from .registry import register_defense
from .replacing import replaced, with_weight
from .training import Task


class RandomFilters(nn.Module):
    """A convolution of which the first filters are drawn for every pass."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.drawn = 3 * convolution.out_channels // 4

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out, H', W')."""
        weight = self.convolution.weight
        filters = torch.randn_like(weight[: self.drawn]) / weight.shape[-1]
        return with_weight(self.convolution, torch.cat([filters, weight[self.drawn :]]), images)


@register_defense(
    "rpf",
    build=lambda data: replaced(data.standard_network(), nn.Conv2d, RandomFilters, at=0),
    members=1,
    draws=32,
    random="three quarters of the first filters",
    reference="CVPR 2023, Random Projection Filters",
    claim={"pgd": {"steps": 20}, "autoattack": {}},
    field=True,
    version=1,
)
def rpf(population: Population, task: Task, *, eps: float, step_size: float, steps: int) -> None:
    """Train on adversarial examples of a draw held fixed."""
    train_adversarially(population, task, eps=eps, step_size=step_size, steps=steps, wrap=held)
