"""Gradient alignment loss (Kariyappa and Qureshi, 2019), its three members drawn at random.

Random: which network answers; the paper averages all three. They are trained together: beside the
mean cross-entropy, the coherence of their gradients in the image (weight 0.5). Simplified: neither
leaky ReLUs nor noise on the training images.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .population import AveragedEnsemble, Population
from .registry import register_defense
from .training import Task, train


def coherence(gradients: Sequence[Tensor]) -> Tensor:
    """A smooth maximum of the cosines between members' gradients, n of (N, D) -> (N,)."""
    pairs = combinations(gradients, 2)
    cosines = torch.stack([F.cosine_similarity(a, b, dim=1) for a, b in pairs])
    return cosines.logsumexp(0)


@register_defense("gal", members=3, reference="arXiv:1901.09981", field=True, version=1)
def gal(population: Population, task: Task, *, weight: float = 0.5) -> None:
    """Train all members together, on the same batches."""

    def loss(_: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        leaf = images.detach().requires_grad_()
        entropies = [task.recipe.entropy(z, labels) for z in population.logits(leaf)]
        gradients = [torch.autograd.grad(e, leaf, create_graph=True)[0] for e in entropies]
        aligned = coherence([gradient.flatten(1).float() for gradient in gradients])
        return torch.stack(entropies).mean() + weight * aligned.mean()

    train(Population([AveragedEnsemble(population)]), task, task.recipe, loss=loss)
