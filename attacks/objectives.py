"""What an attacker of a population maximises: losses of logits (rows, N, K) -> (N,).

A row is a member, or a fresh draw of one, and `weights` (rows,) are their probabilities, None where
all are alike: the losses are expectations over the draw, exact where members are deterministic. An
attack may weigh rows otherwise, for each image, by weights (rows, N).
`scale` (rows,) is each row's typical logit spread, in whose units margins are measured, so that
none outweighs another by its scale; `targets` (N,) turns the two margins towards one class. Losses
ignore what they do not need.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor, Tensor | None, Tensor, Tensor | None], Tensor]

# A margin past this share of a submodel's typical logit spread is safely on the other side.
CLIP = 0.1


def correct_answers(logits: Tensor, labels: Tensor) -> Tensor:
    """Which rows classify which images correctly: (rows, N, K), (N,) -> (rows, N) bool.

    What is not `answered` is wrong: torch would take the first class that is not finite.
    """
    return (logits.argmax(-1) == labels) & answered(logits)


def answered(logits: Tensor) -> Tensor:
    """Which logits (..., K) are an answer: some are finite, the others rule a class out by -inf."""
    return (logits < torch.inf).all(-1) & logits.isfinite().any(-1)


def settled(logits: Tensor) -> Tensor:
    """Finite logits: classes that are ruled out come below the others, no answer is constant.

    One member's must not hide others'.
    """
    below = torch.where(logits.isfinite(), logits, torch.inf).amin(-1, keepdim=True).detach() - 1
    ranked = torch.where(logits == -torch.inf, below, logits)
    return torch.where(answered(logits).unsqueeze(-1), ranked, 0.0)


def expected_correctness(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """s_j: the probability that image j is classified correctly; (rows, N, K), (N,) -> (N,)."""
    return expectation(correct_answers(logits, labels).float(), weights)


def expectation(rows: Tensor, weights: Tensor | None) -> Tensor:
    """The expectation over rows: (rows, N, ...) -> (N, ...)."""
    if weights is not None and weights.ndim == 2:
        return (weights.view(*weights.shape, *[1] * (rows.ndim - 2)) * rows).sum(0)
    return rows.mean(0) if weights is None else torch.tensordot(weights.to(rows), rows, dims=1)


def margins(logits: Tensor, labels: Tensor, scale: Tensor, targets: Tensor | None = None) -> Tensor:
    """By how much the best other class, or the target, beats the label, (rows, N)."""
    labelled = logits.gather(-1, labels.expand(len(logits), -1).unsqueeze(-1)).squeeze(-1)
    if targets is None:
        others = logits.masked_fill(F.one_hot(labels, logits.shape[-1]).bool(), -torch.inf)
        rival = others.amax(-1)
    else:
        rival = logits.gather(-1, targets.expand(len(logits), -1).unsqueeze(-1)).squeeze(-1)
    return (rival - labelled) / scale.unsqueeze(1)


def mean_cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None, _scale: Tensor, _targets: Tensor | None
) -> Tensor:
    """sum_i p_i CE_i: most of the effort goes to submodels that are fooled already."""
    rows = torch.stack([F.cross_entropy(z, labels, reduction="none") for z in logits])
    return expectation(rows, weights)


def mean_probability(
    logits: Tensor, labels: Tensor, weights: Tensor | None, _scale: Tensor, _targets: Tensor | None
) -> Tensor:
    """-log sum_i p_i(y), up to a constant the cross-entropy of the expected answer."""
    log_probability = logits.log_softmax(-1)
    if weights is not None:
        each = weights.to(logits).log().view(len(logits), -1, 1)
        log_probability = log_probability + each
    log_probability = log_probability.logsumexp(0)
    return F.nll_loss(log_probability, labels, reduction="none")


def mean_margin(
    logits: Tensor, labels: Tensor, weights: Tensor | None, scale: Tensor, targets: Tensor | None
) -> Tensor:
    """sum_i p_i margin_i."""
    return expectation(margins(logits, labels, scale, targets), weights)


def clipped_margin(
    logits: Tensor, labels: Tensor, weights: Tensor | None, scale: Tensor, targets: Tensor | None
) -> Tensor:
    """sum_i p_i min(margin_i, CLIP): no effort for members that are safely fooled."""
    return expectation(margins(logits, labels, scale, targets).clamp_max(CLIP), weights)


LOSSES: dict[str, Loss] = {
    "mean-ce": mean_cross_entropy,
    "mean-probability": mean_probability,
    "mean-margin": mean_margin,
    "clipped-margin": clipped_margin,
}
