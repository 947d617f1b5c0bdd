"""DVERGE (Yang et al., NeurIPS 2020), its three members drawn at random.

Random: which network answers; the paper averages all three. Each learns to classify images that, to
another one, have an inner layer's features of other images; the layer is drawn for every epoch.
Simplified: the features come from the same batch, steps have no momentum, and both phases have the
recipe's epochs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..attacks.freezing import frozen
from ..attacks.seeding import generator
from ..attacks.threat_model import ThreatModel
from .population import AveragedEnsemble, Population
from .registry import register_defense
from .training import Task, train


def distilled(
    network: nn.Module, layer: nn.Module, images: Tensor, others: Tensor, eps: float
) -> Tensor:
    """Images within eps of `images` whose features of a layer are near those of `others`."""
    kept: list[Tensor] = []
    ball, near = ThreatModel("Linf", eps), images
    handle = layer.register_forward_hook(lambda _, __, output: kept.append(output))
    with frozen(network):
        network(others)
        wanted = kept.pop().detach()
        for _ in range(10):
            leaf = near.detach().requires_grad_()
            network(leaf)
            apart = (kept.pop() - wanted).square().flatten(1).mean(1).sum()
            (gradient,) = torch.autograd.grad(apart, leaf)
            near = ball.project(near - eps / 10 * gradient.sign(), images)
    handle.remove()
    return near.detach()


@register_defense("dverge", members=3, reference="arXiv:2009.14720", field=True, version=1)
def dverge(population: Population, task: Task, *, eps: float = 0.07) -> None:
    """Train every member by itself, then all together on what the others see."""
    train(population, task, task.recipe)
    drawn = 0

    def draw(_: Sequence[nn.Module], __: range, epoch: int, ___: int) -> None:
        nonlocal drawn
        drawn = int(torch.randint(2**31, (), generator=generator(task.seed, "layer", epoch)))

    def loss(_: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        losses: list[Tensor] = []
        for member in population.submodels:
            layers = [m for m in member.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
            seen = distilled(member, layers[drawn % len(layers)], images, images.roll(1, 0), eps)
            others = (other for other in population.submodels if other is not member)
            losses += [task.recipe.entropy(other(seen), labels) for other in others]
        return torch.stack(losses).sum()

    together = Population([AveragedEnsemble(population)])
    train(together, task, task.recipe, before_step=draw, loss=loss)
