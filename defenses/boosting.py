"""Boosting: networks trained one after another, each against all so far."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .adversarial import make_adversary
from .population import Population
from .training import Loss, Task, train


class Round(nn.Module):
    """A network in training, and those of earlier rounds, which stay as they are."""

    def __init__(self, network: nn.Module, earlier: Iterable[nn.Module]) -> None:
        super().__init__()
        self.network = network
        # A copy each: a training that is taken up again finds them in its own state.
        self.earlier = nn.ModuleList(deepcopy([*earlier])).requires_grad_(False)

    def train(self, mode: bool = True) -> Round:
        """Of the network in training alone."""
        super().train(mode)
        self.earlier.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """The mean logits of all: (N, C, H, W) -> (N, K)."""
        logits = [network(images) for network in (self.network, *self.earlier)]
        return torch.stack(logits).mean(0)


def boost(
    population: Population,
    task: Task,
    loss: Loss,
    *,
    eps: float,
    step_size: float,
    steps: int,
) -> None:
    """Train each network, from the one before, on adversarial examples of the mean logits."""
    adversary = make_adversary(eps=eps, step_size=step_size, steps=steps)
    members: list[nn.Module] = []
    for network in population.submodels:
        if members:
            network.load_state_dict(members[-1].state_dict())
        present = Round(network, members)
        train(Population([present]), task, task.recipe, adversary=adversary, loss=loss)
        for member, kept in zip(members, present.earlier, strict=True):
            member.load_state_dict(kept.state_dict())
        members.append(network)


def margin_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, and of the negative logits the mean one of all other classes (MRBoost's MCE).

    (N, K), (N,) -> ().
    """
    other = 1 - F.one_hot(labels, logits.shape[-1])
    pushed = -((-logits).log_softmax(-1) * other).sum() / other.sum()
    return F.cross_entropy(logits, labels) + pushed
