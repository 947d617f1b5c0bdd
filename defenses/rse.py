"""Random self-ensemble (Liu et al., ECCV 2018).

Random: what each convolution sees, by Gaussian noise of standard deviation 0.2 on the image and 0.1
inside, as in the paper for CIFAR-10; it is trained with the noise on. Simplified: one draw answers,
rather than the mean of ten.
"""

from functools import partial

import torch
from torch import Tensor, nn

from .population import Population
from .registry import Data, register_defense
from .replacing import replaced
from .training import Task, train


class NoisyInput(nn.Module):
    """A layer that sees Gaussian noise on its input."""

    def __init__(self, layer: nn.Module, *, sigma: float) -> None:
        super().__init__()
        self.layer, self.sigma = layer, sigma

    def forward(self, images: Tensor) -> Tensor:
        """What the layer answers on images, or features, with noise."""
        return self.layer(images + self.sigma * torch.randn_like(images))  # type: ignore[no-any-return]


def build(data: Data) -> nn.Module:
    """The dataset's own network with noise before each convolution."""
    network = replaced(data.standard_network(), nn.Conv2d, partial(NoisyInput, sigma=0.1))
    return replaced(network, NoisyInput, lambda part: NoisyInput(part.layer, sigma=0.2), at=0)


@register_defense(
    "rse",
    build=build,
    members=1,
    draws=32,
    random="noise before each convolution",
    reference="arXiv:1712.00673",
    claim={"pgd-eot": {"steps": 20, "draws": 1}},
    field=True,
    version=1,
)
def rse(population: Population, task: Task) -> None:
    """Train with the noise that it answers with."""
    train(population, task, task.recipe)
