"""Training with interval bounds (Gowal et al., ICCV 2019), of two networks: a certified defense.

Random: which network answers. Half of the loss, in the end, is the cross-entropy of the worst
logits that the bounds allow; the radius and that share rise together over the middle half of the
training. The dataset's network without batch norm, as there. Simplified: the last layer's bounds
are not merged with the margin's.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from .interval_bounds import interval_bounds, worst_logits
from .population import Population
from .registry import register_defense
from .replacing import replaced
from .training import Task, train


@register_defense(
    "ibp",
    build=lambda data: replaced(data.standard_network(), nn.BatchNorm2d, lambda _: nn.Identity()),
    members=2,
    reference="arXiv:1810.12715",
    certificate="interval-bounds",
    field=True,
    version=1,
)
def ibp(population: Population, task: Task, *, eps: float = 0.1, kappa: float = 0.5) -> None:
    """Train every member by itself; kappa is the share of cross-entropy on clean images."""
    steps = math.ceil(len(task.images) / task.recipe.batch_size)
    reached = 0.0

    def rise(_: Sequence[nn.Module], __: range, epoch: int, step: int) -> None:
        nonlocal reached
        done = (epoch + step / steps) / task.recipe.epochs
        reached = min(max(2 * done - 0.5, 0.0), 1.0)

    def loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        clean, radius = task.recipe.entropy(network(images), labels), reached * eps
        box = (images - radius).clamp_min(0), (images + radius).clamp_max(1)
        worst = task.recipe.entropy(worst_logits(interval_bounds(network, *box), labels), labels)
        share = reached * (1 - kappa)
        return (1 - share) * clean + share * worst

    train(population, task, task.recipe, before_step=rise, loss=loss)
