"""Hierarchical random switching (Wang et al., IJCAI 2019): one of 3 x 3 paths, all known.

Random: which of three channels computes the lower half of the network, and which the upper. Each
path is a member: expectations are exact. The lower channels come from networks trained by
themselves; each upper one is trained on a lower one drawn for every batch. Simplified: halves by
the number of layers, and few channels.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .population import Population
from .registry import register_defense
from .training import Task, train

CHANNELS = 3


class Switched(nn.Module):
    """A network whose lower half is one of others', drawn for every pass."""

    def __init__(self, network: nn.Module, others: list[nn.Module]) -> None:
        super().__init__()
        self.network = network
        # A copy each: files hold no tensor twice.
        self.others = nn.ModuleList(deepcopy(others)).requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K)."""
        other = self.others[int(torch.randint(len(self.others), ()))]
        # Batch norm counts on the copies.
        copies = {name: tensor.clone() for name, tensor in lower(other).items()}
        return functional_call(self.network, copies, images)  # type: ignore[no-any-return]


def lower(network: nn.Module) -> dict[str, Tensor]:
    """Weights and statistics of the first half of the layers that have any, by name."""
    state = network.state_dict()
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    first = layers[: (len(layers) + 1) // 2]
    return {name: tensor for name, tensor in state.items() if name.rpartition(".")[0] in first}


@register_defense(
    "hrs",
    members=CHANNELS**2,
    random="one of 3 x 3 paths",
    reference="arXiv:1908.07116",
    field=True,
    version=1,
)
def hrs(population: Population, task: Task) -> None:
    """Train the lower channels, then the upper ones; member 3 i + j is lower i, upper j."""
    members = list(population.submodels)
    below = members[::CHANNELS]
    train(Population(below), task, task.recipe)
    above = [Switched(deepcopy(network), below) for network in members[1::CHANNELS]]
    train(Population(above), task, task.recipe)
    for k, member in enumerate(members):
        upper = above[k % CHANNELS]
        # What `below` does not hold after an interruption, these do.
        member.load_state_dict(upper.network.state_dict() | lower(upper.others[k // CHANNELS]))
