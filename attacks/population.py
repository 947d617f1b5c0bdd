"""Attacks by an adversary who knows the population: everything but the draw.

Each works on all submodels at once, on the exact expectation over the uniform draw, and returns for
each image the point with the lowest expected correctness s_j that it met.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from attacks import search, square
from attacks.arc import arc as run_arc
from attacks.craft import PopulationLike
from attacks.objectives import LOSSES, clipped_margin
from attacks.registry import register_attack
from attacks.search import Incumbent, Problem
from attacks.threat_model import ThreatModel

BOTH = ("Linf", "L2")


def _problem(
    model: PopulationLike, images: Tensor, labels: Tensor, threat_model: ThreatModel
) -> tuple[Problem, Incumbent]:
    """The problem, and the clean images as the first incumbent."""
    problem = Problem(model, images, labels, threat_model)
    incumbent = Incumbent(images)
    everything = torch.arange(len(images), device=images.device)
    correctness = problem.correctness(images, everything)
    incumbent.offer(everything, images, correctness, torch.full_like(correctness, -torch.inf))
    return problem, incumbent


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
    problem, incumbent = _problem(model, images, labels, threat_model)
    for _ in range(restarts):
        search.pgd(problem, incumbent, LOSSES[loss], steps=steps, momentum=momentum)
    return incumbent.images


for _loss in LOSSES:
    register_attack(f"pgd-{_loss}", surrogate="population", norms=BOTH)(
        partial(pgd_population, loss=_loss)
    )


@register_attack("apgd-population", surrogate="population", norms=BOTH)
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
    problem, incumbent = _problem(model, images, labels, threat_model)
    for loss in ("clipped-margin", "mean-ce"):
        search.apgd(problem, incumbent, LOSSES[loss], steps=steps)
        incumbent.forget_loss()
    _targeted(problem, incumbent, steps=steps, targets=targets)
    return incumbent.images


@register_attack("arc", surrogate="population", norms=BOTH)
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
    problem, incumbent = _problem(model, images, labels, threat_model)
    radius = threat_model.eps / 4
    run_arc(problem, incumbent, steps=steps, radius=radius, candidates=candidates)
    return incumbent.images


@register_attack("square-population", surrogate="population", norms=BOTH)
def square_population(
    model: PopulationLike,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    queries: int,
) -> Tensor:
    """Square attack on the exact mean margin: queries, no gradients."""
    problem, incumbent = _problem(model, images, labels, threat_model)
    square.square_population(problem, incumbent, queries=queries)
    return incumbent.images


@register_attack("square-oracle", surrogate="population", norms=BOTH)
def square_oracle(
    model: PopulationLike,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    queries: int,
) -> Tensor:
    """Square attack on the deployed model: an outsider whose every query draws afresh."""
    problem, _ = _problem(model, images, labels, threat_model)
    return square.square_oracle(problem, queries=queries)


@register_attack("worst-case", surrogate="population", norms=BOTH, version=2)
def worst_case(
    model: PopulationLike,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    steps: int,
    apgd_steps: int,
    targets: int,
    arc_steps: int,
    candidates: int,
    queries: int,
    rounds: int,
) -> Tensor:
    """The cascade: cheap attacks first, each on what is left of the images, keeping the best point.

    PGD on the clipped margin and on the mean cross-entropy, MI-FGSM on the mean probability, APGD
    from a random start, targeted APGD, ARC from a random start and from the incumbent, and rounds
    of Square and APGD.

    Args:
        queries: of Square in each round.
        rounds: of Square and APGD in turn, see `_in_turn`.
    """
    problem, incumbent = _problem(model, images, labels, threat_model)
    search.pgd(problem, incumbent, clipped_margin, steps=steps)
    incumbent.forget_loss()
    search.pgd(problem, incumbent, LOSSES["mean-ce"], steps=steps)
    incumbent.forget_loss()
    search.pgd(problem, incumbent, LOSSES["mean-probability"], steps=steps, momentum=1.0)
    incumbent.forget_loss()
    search.apgd(problem, incumbent, clipped_margin, steps=apgd_steps)
    incumbent.forget_loss()
    _targeted(problem, incumbent, steps=apgd_steps, targets=targets)
    radius = threat_model.eps / 4
    for start in (None, incumbent.images):
        incumbent.forget_loss()
        run_arc(
            problem, incumbent, steps=arc_steps, radius=radius, candidates=candidates, start=start
        )
    _in_turn(problem, incumbent, rounds=rounds, queries=queries, steps=apgd_steps)
    return incumbent.images


def _in_turn(
    problem: Problem, incumbent: Incumbent, *, rounds: int, queries: int, steps: int
) -> None:
    """Square and APGD in turn, each from where the other stopped.

    On a network trained on PGD examples both get stuck, in different places: from where gradients
    end, squares lead on, and the other way round. In every other round, the first among them,
    Square begins afresh, in the others from the incumbent.
    """
    for number in range(rounds):
        start = incumbent.images if number % 2 else None
        incumbent.forget_loss()
        reached = square.square_population(problem, incumbent, queries=queries, start=start)
        incumbent.forget_loss()
        search.apgd(problem, incumbent, clipped_margin, steps=steps, start=reached)


def _targeted(problem: Problem, incumbent: Incumbent, *, steps: int, targets: int) -> None:
    """APGD on the clipped margin towards each of the likeliest wrong classes in turn."""
    with torch.no_grad():
        probability = problem.logits(problem.images).softmax(-1).mean(0)
    probability.scatter_(1, problem.labels.unsqueeze(1), -1)
    ranked = probability.argsort(dim=1, descending=True)
    for rank in range(min(targets, ranked.shape[1] - 1)):
        search.apgd(problem, incumbent, clipped_margin, steps=steps, targets=ranked[:, rank])
        incumbent.forget_loss()
