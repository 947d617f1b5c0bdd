"""Adaptive diversity promoting (Pang et al., ICML 2019), its three members drawn at random.

Random: which network answers; the paper averages all three. They are trained together: beside
cross-entropy, the entropy of their mean prediction (weight 2) and the volume that their predictions
of the wrong classes span (weight 0.5).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .population import AveragedEnsemble, Population
from .registry import register_defense
from .training import Task, train


def log_volume(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Log of the squared volume that members' normalized wrong-class predictions span.

    (n, N, K), (N,) -> (N,).
    """
    wrong = torch.ones_like(probabilities[0]).scatter(1, labels.unsqueeze(1), 0)
    directions = F.normalize(probabilities * wrong, dim=-1).transpose(0, 1)
    gram = directions @ directions.mT
    # Equal predictions span nothing.
    volume: Tensor = torch.logdet(gram + 1e-6 * torch.eye(len(gram[0]), device=gram.device))
    return volume


@register_defense("adp", members=3, reference="arXiv:1901.08846", field=True, version=1)
def adp(population: Population, task: Task, *, alpha: float = 2.0, beta: float = 0.5) -> None:
    """Train all members together, on the same batches."""

    def loss(_: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        logits = population.logits(images).float()
        entropies = [task.recipe.entropy(member, labels) for member in logits]
        probabilities = logits.softmax(-1)
        mean = probabilities.mean(0)
        spread = -(mean * mean.clamp_min(1e-12).log()).sum(1)
        diversity = alpha * spread + beta * log_volume(probabilities, labels)
        return torch.stack(entropies).sum() - diversity.mean()

    train(Population([AveragedEnsemble(population)]), task, task.recipe, loss=loss)
