"""Counter-linking: the mask, and the periodic random similarity examination (PRSE), Eq. 4 and 5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..attacks.seeding import generator


def first_weight(model: nn.Module) -> Tensor:
    """The weight of the first layer that has one: (out, in, h, w) or (out, in); the paper's W^1.

    Raises:
        ValueError: the model has no layer with a weight of two or more dimensions.
    """
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim >= 2:
            return weight
    raise ValueError(f"{type(model).__name__} has no weight layer to counter-link")


def draw_mask(weight: Tensor, *, seed: int) -> Tensor:
    """The link tensor: one i.i.d. Bernoulli(1/2) bool for each element of one filter.

    It has the shape of `weight[0]`, for example (1, 5, 5), and is shared by all filters and
    submodels (Fig. 3).
    """
    drawn = torch.rand(weight.shape[1:], generator=generator(seed, "mask")) < 0.5
    return drawn.to(weight.device)


@torch.no_grad()
def diverge(
    weight: Tensor, other: Tensor, *, index: int, mask: Tensor, alpha: float, delta: float
) -> None:
    """Eq. 4 and 5, in place: W_i += (-1)^i * alpha * beta * mask, where beta = |W_i - W_j| < delta.

    Args:
        weight: W_i, (out, ...); the only tensor that changes.
        other: W_j, of the same shape.
        index: i, counted from 0; even submodels move up, odd ones down.
        mask: (...), broadcast over the filters.
    """
    beta = (weight - other).abs() < delta
    weight.add_((beta & mask).to(weight.dtype), alpha=alpha if index % 2 == 0 else -alpha)


@dataclass(frozen=True)
class CounterLinking:
    """A hook for the training loop: PRSE on the first weight layer every `period` steps.

    Attributes:
        alpha: the noise added, in units of weights.
        delta: two weights nearer than this are too similar.
        period: PRSE runs before the forward pass of every period-th step of an epoch.
        seed: the mask and the partners j follow from it.
    """

    alpha: float
    delta: float
    period: int
    seed: int

    def __call__(
        self, submodels: Sequence[nn.Module], members: range, epoch: int, step: int
    ) -> None:
        """Before step `step` (from 0) of `members`: compare each of these with a random other."""
        if len(submodels) < 2 or (step + 1) % self.period:
            return
        weights = [first_weight(submodel) for submodel in submodels]
        mask = draw_mask(weights[0], seed=self.seed)
        for index in members:
            drawn = generator(self.seed, "partner", index, epoch, step)
            partner = int(torch.randint(len(weights) - 1, (), generator=drawn))
            partner += partner >= index
            size = {"alpha": self.alpha, "delta": self.delta}
            diverge(weights[index], weights[partner], index=index, mask=mask, **size)
