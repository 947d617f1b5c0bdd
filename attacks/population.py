"""Attacks by an adversary who knows the population: everything but the draw.

Each works on all members at once, on the expectation over the draw, and returns for each image the
point with the lowest expected correctness s_j that it met.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from attacks import gradient, square
from attacks.arc import arc as run_arc
from attacks.craft import PopulationLike
from attacks.objectives import LOSSES, clipped_margin
from attacks.problem import Incumbent, Problem
from attacks.registry import register_attack
from attacks.threat_model import ThreatModel

BOTH = ("Linf", "L2")


def begin(
    model: PopulationLike, images: Tensor, labels: Tensor, threat_model: ThreatModel
) -> tuple[Problem, Incumbent]:
    """The problem, and the clean images as the first incumbent."""
    problem = Problem(model, images, labels, threat_model)
    return problem, problem.incumbent()


def pgd_population(
    model: PopulationLike,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    loss: str,
    steps: int,
    restarts: int,
    momentum: float = 0.0,
) -> Tensor:
    """PGD, or with momentum MI-FGSM, on a loss of the whole population; see `LOSSES`."""
    problem, incumbent = begin(model, images, labels, threat_model)
    for _ in range(restarts):
        gradient.pgd(problem, incumbent, LOSSES[loss], steps=steps, momentum=momentum)
    return incumbent.images


for _loss in LOSSES:
    register_attack(f"pgd-{_loss}", kind="population", norms=BOTH, swept=_loss == "clipped-margin")(
        partial(pgd_population, loss=_loss)
    )


@register_attack("apgd-population", kind="population", norms=BOTH)
def apgd_population(
    model: PopulationLike,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    steps: int,
    targets: int,
) -> Tensor:
    """APGD on the clipped margin and on the mean cross-entropy, then targeted at single classes.

    AutoAttack's idea with expected correctness as the criterion.

    Args:
        targets: how many wrong classes are targeted, by falling mean probability.
    """
    problem, incumbent = begin(model, images, labels, threat_model)
    for loss in ("clipped-margin", "mean-ce"):
        gradient.apgd(problem, incumbent, LOSSES[loss], steps=steps)
        incumbent.forget_loss()
    targeted(problem, incumbent, steps=steps, targets=targets)
    return incumbent.images


@register_attack("arc", kind="population", norms=BOTH)
def arc(
    model: PopulationLike,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    steps: int,
    candidates: int,
) -> Tensor:
    """ARC (Dbouk and Shanbhag, ICML 2022) with a local radius of eps / 4."""
    problem, incumbent = begin(model, images, labels, threat_model)
    radius = threat_model.eps / 4
    run_arc(problem, incumbent, steps=steps, radius=radius, candidates=candidates)
    return incumbent.images


@register_attack("square-population", kind="queries", norms=BOTH)
def square_population(
    model: PopulationLike,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    queries: int,
) -> Tensor:
    """Square attack on the exact mean margin: queries, no gradients."""
    problem, incumbent = begin(model, images, labels, threat_model)
    square.square_population(problem, incumbent, queries=queries)
    return incumbent.images


@register_attack("square-oracle", kind="queries", norms=BOTH)
def square_oracle(
    model: PopulationLike,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    queries: int,
) -> Tensor:
    """Square attack on the deployed model: an outsider whose every query draws afresh."""
    problem, _ = begin(model, images, labels, threat_model)
    return square.square_oracle(problem, queries=queries)


def targeted(problem: Problem, incumbent: Incumbent, *, steps: int, targets: int) -> None:
    """APGD on the clipped margin towards each of the likeliest wrong classes in turn."""
    with torch.no_grad():
        probability = problem.logits(problem.images).softmax(-1).mean(0)
    probability.scatter_(1, problem.labels.unsqueeze(1), -1)
    ranked = probability.argsort(dim=1, descending=True)
    for rank in range(min(targets, ranked.shape[1] - 1)):
        gradient.apgd(problem, incumbent, clipped_margin, steps=steps, targets=ranked[:, rank])
        incumbent.forget_loss()
