"""Attacks by an adversary who knows the population: everything but the draw.

Each works on all members at once, on the expectation over the draw, and returns for each image the
point with the lowest expected correctness s_j that it met.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor

from . import arc, gradient, square
from .craft import PopulationLike
from .effort import go_on
from .objectives import LOSSES, Loss, clipped_margin, expectation, settled
from .problem import Incumbent, Problem
from .registry import register_attack
from .threat_model import ThreatModel

# Improves the incumbent; what it returns is the result in place of the incumbent's images.
Search = Callable[..., Tensor | None]


def register_search(name: str, **facts: Any) -> Callable[[Search], Search]:
    """Decorator that registers `f(problem, incumbent, *, **parameters)` as an attack, in any norm.

    The clean images are the first incumbent. See `attacks.registry.Attack` for the facts.
    """

    def register(search: Search) -> Search:
        # Parameters and their defaults are those of the search.
        @wraps(search)
        def attack(
            model: PopulationLike,
            images: Tensor,
            labels: Tensor,
            *,
            threat_model: ThreatModel,
            **parameters: Any,
        ) -> Tensor:
            problem = Problem(model, images, labels, threat_model)
            incumbent = problem.incumbent()
            result = search(problem, incumbent, **parameters)
            return incumbent.images if result is None else result

        register_attack(name, norms=("Linf", "L2"), **facts)(attack)
        return search

    return register


def pgd(
    problem: Problem,
    incumbent: Incumbent,
    *,
    loss: str,
    steps: int,
    restarts: int,
    momentum: float = 0.0,
) -> None:
    """PGD, or with momentum MI-FGSM, on a loss of the whole population; see `LOSSES`."""
    for _ in range(restarts):
        gradient.pgd(problem, incumbent, LOSSES[loss], steps=steps, momentum=momentum)


for _loss in LOSSES:
    register_search(f"pgd-{_loss}", kind="population", version=1, swept=_loss == "clipped-margin")(
        partial(pgd, loss=_loss)
    )


@register_search("apgd-population", kind="population", version=2)
def apgd(problem: Problem, incumbent: Incumbent, *, steps: int, targets: int) -> None:
    """APGD on the clipped margin and on the mean cross-entropy, then targeted at single classes.

    AutoAttack's idea with expected correctness as the criterion.
    """
    for loss in ("clipped-margin", "mean-ce"):
        gradient.apgd(problem, incumbent, LOSSES[loss], steps=steps)
        incumbent.forget_loss()
    go_on(problem, incumbent, partial(approach, steps=steps, targets=targets))


@register_search("arc", kind="population", version=1)
def run_arc(problem: Problem, incumbent: Incumbent, *, steps: int, candidates: int) -> None:
    """ARC (Dbouk and Shanbhag, ICML 2022) from a random start."""
    arc.arc(problem, incumbent, steps=steps, candidates=candidates)


@register_search("square-population", kind="queries", version=1)
def square_population(problem: Problem, incumbent: Incumbent, *, queries: int) -> None:
    """Square attack on the exact mean margin: queries, no gradients."""
    square.square_population(problem, incumbent, queries=queries)


@register_search("square-oracle", kind="queries", version=1)
def square_oracle(problem: Problem, _: Incumbent, *, queries: int) -> Tensor:
    """Square attack on the deployed model: an outsider whose every query draws afresh."""
    return square.square_oracle(problem, queries=queries)


def approach(
    problem: Problem,
    incumbent: Incumbent,
    *,
    steps: int,
    targets: int,
    loss: Loss = clipped_margin,
) -> None:
    """APGD on a margin towards each of the `targets` likeliest wrong classes in turn."""
    everything = torch.arange(len(problem.images), device=problem.images.device)
    with torch.no_grad():
        answers = settled(problem.logits(problem.images, everything)).softmax(-1)
        probability = expectation(answers, problem.loss_weights(everything))
    probability.scatter_(1, problem.labels.unsqueeze(1), -1)
    ranked = probability.argsort(dim=1, descending=True)
    for rank in range(min(targets, ranked.shape[1] - 1)):
        gradient.apgd(problem, incumbent, loss, steps=steps, targets=ranked[:, rank])
        incumbent.forget_loss()
