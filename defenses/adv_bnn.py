"""Adv-BNN (Liu et al., ICLR 2019): all weights are Gaussian, and trained adversarially.

Random: the weights of convolutions and linear layers, each with a learned mean and standard
deviation; the loss adds 0.02 times their divergence from a prior N(0, 0.1^2), in nats per training
image. Simplified: one draw serves a batch, and answers alone.
"""

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from .adversarial import train_adversarially
from .population import Population
from .registry import register_defense
from .replacing import replaced, with_weight
from .training import Task

PRIOR, WEIGHT = 0.1, 0.02


class GaussianWeight(nn.Module):
    """A layer whose weight is drawn for every pass from a learned Gaussian."""

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        # Flat: Muon takes what has the shape of a convolution's weight for one.
        self.log_sigma = nn.Parameter(torch.full((layer.weight.numel(),), PRIOR / 2).log())

    def forward(self, images: Tensor) -> Tensor:
        """What the layer answers with a drawn weight."""
        sigma = self.log_sigma.exp().view_as(self.layer.weight)
        drawn = self.layer.weight + sigma * torch.randn_like(sigma)
        return with_weight(self.layer, drawn, images)

    def divergence(self) -> Tensor:
        """Kullback and Leibler's, from the prior, in nats."""
        law = Normal(self.layer.weight.flatten(), self.log_sigma.exp())
        return kl_divergence(law, Normal(0.0, PRIOR)).sum()


@register_defense(
    "adv-bnn",
    build=lambda data: replaced(data.standard_network(), (nn.Conv2d, nn.Linear), GaussianWeight),
    members=1,
    draws=32,
    random="all weights",
    reference="arXiv:1810.01279",
    claim={"pgd-eot": {"steps": 20, "draws": 1}},
    field=True,
    version=1,
)
def adv_bnn(
    population: Population, task: Task, *, eps: float, step_size: float, steps: int
) -> None:
    """Train on adversarial examples, with fresh weights at every step."""

    def loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        layers = (part for part in network.modules() if isinstance(part, GaussianWeight))
        divergence = torch.stack([layer.divergence() for layer in layers]).sum()
        entropy = task.recipe.entropy(network(images), labels)
        return entropy + WEIGHT * divergence / len(task.images)

    train_adversarially(population, task, eps=eps, step_size=step_size, steps=steps, loss=loss)
