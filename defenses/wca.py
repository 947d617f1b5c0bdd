"""Weight-covariance alignment (Eustratiadis et al., ICML 2021): a Gaussian head.

Random: the features that the last layer sees, by Gaussian noise of a learned covariance, which the
loss draws out along that layer's weights. No adversarial training. Simplified: the dataset's own
network, and its recipe in place of the paper's bound on the norm of the last layer's weights.
"""

import torch
from torch import Tensor, nn

from .population import Population
from .registry import register_defense
from .replacing import replaced
from .training import Task, train


class GaussianHead(nn.Module):
    """A linear layer on features with correlated noise."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.factor = nn.Parameter(torch.eye(linear.in_features))

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, K)."""
        noise = torch.randn_like(features) @ self.factor.tril().T
        return self.linear(features + noise)  # type: ignore[no-any-return]

    def variances(self) -> Tensor:
        """Of the noise in each logit, (K,): w_k^T S w_k."""
        return (self.linear.weight @ self.factor.tril()).square().sum(1)


@register_defense(
    "wca",
    build=lambda data: replaced(data.standard_network(), nn.Linear, GaussianHead, at=-1),
    members=1,
    draws=32,
    random="noise on the last features",
    reference="arXiv:2010.08852",
    claim={"fgsm": {}, "pgd-eot": {"steps": 10, "draws": 1}},
    field=True,
    version=1,
)
def wca(population: Population, task: Task, *, alignment: float = 0.1) -> None:
    """Train with large noise in each logit, so far as cross-entropy allows."""

    def loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        (head,) = (part for part in network.modules() if isinstance(part, GaussianHead))
        entropy = task.recipe.entropy(network(images), labels)
        return entropy - alignment * head.variances().log().sum()

    train(population, task, task.recipe, loss=loss)
