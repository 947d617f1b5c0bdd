"""Gaussian noise on the input of a plainly trained network, at inference alone.

As in Cohen et al. (ICML 2019), but without their noisy training and without a vote.
"""

import torch
from torch import Tensor, nn

from .population import Population
from .registry import register_defense
from .training import Task, load_inside


class Noise(nn.Module):
    """The network on images with fresh noise of standard deviation sigma."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("sigma", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K)."""
        noisy = images + self.get_buffer("sigma") * torch.randn_like(images)
        return self.network(noisy)  # type: ignore[no-any-return]


@register_defense(
    "noise",
    build=lambda data: Noise(data.standard_network()),
    members=1,
    draws=32,
    random="noise on the image",
    reference="arXiv:1902.02918",
    starts_from=("single",),
    version=1,
)
def noise(population: Population, task: Task, *, sigma: float = 0.1) -> None:
    """Take over the plainly trained network; nothing is trained."""
    load_inside(population, task.load("single"))
    population.submodels[0].get_buffer("sigma").fill_(sigma)
