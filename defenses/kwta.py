"""k winners take all (Xiao, Zhong and Zheng, ICLR 2020): a control, deterministic and masked.

Random: nothing. Of each layer's activations for an image only the largest tenth passes, in place of
ReLU: the gradient jumps where winners change. Simplified: the share is fixed from the start, and is
that of linear layers, too.
"""

import torch
from torch import Tensor, nn

from .adversarial import make_adversary
from .population import Population
from .registry import register_defense
from .replacing import replaced
from .training import Task, train


class Winners(nn.Module):
    """The largest activations of each image; the others are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("share", torch.tensor(0.1))

    def forward(self, features: Tensor) -> Tensor:
        """(N, ...) -> (N, ...)."""
        flat = features.flatten(1)
        count = max(1, round(float(self.get_buffer("share")) * flat.shape[1]))
        least = flat.topk(count, dim=1).values[:, -1:]
        return (flat * (flat >= least)).view_as(features)


@register_defense(
    "kwta",
    build=lambda data: replaced(data.standard_network(), nn.ReLU, lambda _: Winners()),
    members=1,
    random="nothing",
    reference="arXiv:1905.10510",
    claim={"pgd": {"steps": 40}},
    field=True,
    version=1,
)
def kwta(
    population: Population,
    task: Task,
    *,
    eps: float,
    step_size: float,
    steps: int,
    share: float = 0.1,
) -> None:
    """Train on adversarial examples."""
    for part in population.modules():
        if isinstance(part, Winners):
            part.get_buffer("share").fill_(share)
    # Not watched: that stronger attacks leave less of it is what it is a control of.
    adversary = make_adversary(eps=eps, step_size=step_size, steps=steps)
    train(population, task, task.recipe, adversary=adversary)
