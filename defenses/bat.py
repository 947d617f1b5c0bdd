"""Boosted adversarial training (Pinot et al., ICML 2020): one of two networks.

Random: which network answers, the first with probability 0.9 (as Dbouk and Shanbhag, ICML 2022,
measured it). The first is trained adversarially, the second on PGD examples of the first.
Simplified: one round of boosting, and both learn by one recipe.
"""

from torch import Tensor, nn

from .adversarial import make_adversary
from .population import Population
from .registry import register_defense
from .training import Task, train


@register_defense(
    "bat",
    members=2,
    probabilities=(0.9, 0.1),
    reference="arXiv:2002.11565",
    claim={"pgd-mean-ce": {"steps": 20}},
    field=True,
    starts_from=("single-adv",),
    version=1,
)
def bat(population: Population, task: Task, *, eps: float, step_size: float, steps: int) -> None:
    """Take over the adversarially trained network, and train another against it."""
    first, second = population.submodels
    first.load_state_dict(task.load("single-adv").submodels[0].state_dict())
    first.eval()
    attack = make_adversary(eps=eps, step_size=step_size, steps=steps)

    def on_the_first(_: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return attack(first, images, labels)

    train(Population([second]), task, task.recipe, adversary=on_the_first)
