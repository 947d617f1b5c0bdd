"""MRBoost (Zhang et al., ICML 2022), its three members drawn at random.

Random: which network answers; the paper averages all. Each is trained so that the mean logits of
all so far withstand their adversarial examples, by margin cross-entropy. Simplified: three rounds,
and no choice of the best epoch.
"""

from torch import Tensor, nn

from .boosting import boost, margin_cross_entropy
from .population import Population
from .registry import register_defense
from .training import Task


@register_defense(
    "mrboost",
    members=3,
    reference="ICML 2022, Building Robust Ensembles via Margin Boosting",
    field=True,
    version=1,
)
def mrboost(
    population: Population, task: Task, *, eps: float, step_size: float, steps: int
) -> None:
    """Train one network after another."""

    def loss(present: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return margin_cross_entropy(present(images).float(), labels)

    boost(population, task, loss, eps=eps, step_size=step_size, steps=steps)
