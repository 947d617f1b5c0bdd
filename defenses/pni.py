"""Parametric noise injection on weights (He, Rakin and Fan, CVPR 2019), layer by layer.

Random: all weights of convolutions and linear layers, by Gaussian noise of the standard deviation
of the layer's weights times a factor that is learned, 0.25 at first. Simplified: half of each batch
is adversarial, in place of the mean loss of the batch and its adversarial copy; attacks in training
use the true labels, and start with the first epoch.
"""

import torch
from torch import Tensor, nn

from .adversarial import train_adversarially
from .population import Population
from .registry import register_defense
from .replacing import replaced, with_weight
from .training import Adversary, Task


class NoisyWeight(nn.Module):
    """A layer whose weight is drawn for every pass."""

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.factor = nn.Parameter(torch.tensor(0.25))

    def forward(self, images: Tensor) -> Tensor:
        """What the layer answers with weights W + factor * std(W) * noise."""
        weight = self.layer.weight
        noise = weight.detach().std() * torch.randn_like(weight)
        return with_weight(self.layer, weight + self.factor * noise, images)


@register_defense(
    "pni",
    build=lambda data: replaced(data.standard_network(), (nn.Conv2d, nn.Linear), NoisyWeight),
    members=1,
    draws=32,
    random="noise on all weights",
    reference="arXiv:1811.09310",
    claim={"fgsm": {}, "pgd-eot": {"steps": 7, "draws": 1}},
    field=True,
    version=1,
)
def pni(population: Population, task: Task, *, eps: float, step_size: float, steps: int) -> None:
    """Train on adversarial examples for half of each batch."""
    train_adversarially(population, task, eps=eps, step_size=step_size, steps=steps, wrap=half)


def half(adversary: Adversary) -> Adversary:
    """The same, but it leaves the first half of a batch as it is."""

    def perturb(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        first = len(images) // 2
        return torch.cat([images[:first], adversary(network, images[first:], labels[first:])])

    return perturb
