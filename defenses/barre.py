"""BARRE (Dbouk and Shanbhag, ICML 2023): boosting for a random choice among three networks.

Random: which network answers. Each learns by itself, from the one before, to withstand adversarial
examples of all so far, by margin cross-entropy. Simplified: attacks in training follow the mean
logits; probabilities stay equal, as the authors' script leaves them for up to three networks.
The page has the best ones under the attacks that were run.
"""

from torch import Tensor, nn

from .boosting import boost, margin_cross_entropy
from .population import Population
from .registry import register_defense
from .training import Task


@register_defense(
    "barre",
    members=3,
    reference="arXiv:2302.01375",
    claim={"arc": {}},
    field=True,
    version=1,
)
def barre(population: Population, task: Task, *, eps: float, step_size: float, steps: int) -> None:
    """Train one network after another."""

    def loss(present: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = present.get_submodule("network")(images)
        return margin_cross_entropy(logits.float(), labels)

    boost(population, task, loss, eps=eps, step_size=step_size, steps=steps)
