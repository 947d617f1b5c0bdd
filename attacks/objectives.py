"""What an attacker of a population maximises: losses of all submodels' logits (n, N, K) -> (N,).

All are exact expectations over the uniform draw, since n is finite. `scale` (n,) is each submodel's
typical logit spread, in whose units margins are measured, so that none outweighs another by its
scale; `targets` (N,) turns the two margins towards one class. Losses ignore what they do not need.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]

# A margin past this share of a submodel's typical logit spread is safely on the other side.
CLIP = 0.1


def expected_correctness(logits: Tensor, labels: Tensor) -> Tensor:
    """s_j: the share of submodels that classify image j correctly; (n, N, K), (N,) -> (N,)."""
    return (logits.argmax(-1) == labels).float().mean(0)


def margins(logits: Tensor, labels: Tensor, scale: Tensor, targets: Tensor | None = None) -> Tensor:
    """By how much the best other class (or the target) beats the label: (n, N, K) -> (n, N).

    Positive where the submodel is fooled.
    """
    labelled = logits.gather(-1, labels.expand(len(logits), -1).unsqueeze(-1)).squeeze(-1)
    if targets is None:
        others = logits.masked_fill(F.one_hot(labels, logits.shape[-1]).bool(), -torch.inf)
        rival = others.amax(-1)
    else:
        rival = logits.gather(-1, targets.expand(len(logits), -1).unsqueeze(-1)).squeeze(-1)
    return (rival - labelled) / scale.unsqueeze(1)


def mean_cross_entropy(
    logits: Tensor, labels: Tensor, _scale: Tensor, _targets: Tensor | None
) -> Tensor:
    """(1/n) sum_i CE_i: most of the effort goes to submodels that are fooled already."""
    return torch.stack([F.cross_entropy(z, labels, reduction="none") for z in logits]).mean(0)


def mean_probability(
    logits: Tensor, labels: Tensor, _scale: Tensor, _targets: Tensor | None
) -> Tensor:
    """-log sum_i p_i(y), up to a constant the cross-entropy of the expected answer."""
    log_probability = logits.log_softmax(-1).logsumexp(0)
    return F.nll_loss(log_probability, labels, reduction="none")


def mean_margin(logits: Tensor, labels: Tensor, scale: Tensor, targets: Tensor | None) -> Tensor:
    """(1/n) sum_i margin_i."""
    return margins(logits, labels, scale, targets).mean(0)


def clipped_margin(logits: Tensor, labels: Tensor, scale: Tensor, targets: Tensor | None) -> Tensor:
    """(1/n) sum_i min(margin_i, CLIP): no effort for submodels that are safely fooled."""
    return margins(logits, labels, scale, targets).clamp_max(CLIP).mean(0)


LOSSES: dict[str, Loss] = {
    "mean-ce": mean_cross_entropy,
    "mean-probability": mean_probability,
    "mean-margin": mean_margin,
    "clipped-margin": clipped_margin,
}
