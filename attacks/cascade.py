"""The cascade: cheap attacks first, each on what is left of the images, keeping the best point."""

from __future__ import annotations

from . import gradient, square
from .arc import arc
from .objectives import LOSSES, clipped_margin
from .population import register_search, targeted
from .problem import Incumbent, Problem


@register_search(
    "worst-case",
    kind="cascade",
    version=2,
    protocols=("alone", "average", "doubled"),
    doubles=("steps", "apgd_steps", "arc_steps", "rounds"),
)
def worst_case(
    problem: Problem,
    incumbent: Incumbent,
    *,
    steps: int,
    apgd_steps: int,
    targets: int,
    arc_steps: int,
    candidates: int,
    queries: int,
    rounds: int,
) -> None:
    """PGD, APGD, ARC, and `rounds` of Square and APGD in turn, each from where the other stopped.

    On a network trained on PGD examples Square and APGD get stuck, in different places: from where
    gradients end, squares lead on, and the other way round. In every other round, the first among
    them, Square begins afresh, in the others from the incumbent.
    """
    for loss, momentum in (("clipped-margin", 0.0), ("mean-ce", 0.0), ("mean-probability", 1.0)):
        gradient.pgd(problem, incumbent, LOSSES[loss], steps=steps, momentum=momentum)
        incumbent.forget_loss()
    gradient.apgd(problem, incumbent, clipped_margin, steps=apgd_steps)
    incumbent.forget_loss()
    targeted(problem, incumbent, steps=apgd_steps, targets=targets)
    for start in (None, incumbent.images):
        incumbent.forget_loss()
        arc(problem, incumbent, steps=arc_steps, candidates=candidates, start=start)
    for number in range(rounds):
        start = incumbent.images if number % 2 else None
        incumbent.forget_loss()
        reached = square.square_population(problem, incumbent, queries=queries, start=start)
        incumbent.forget_loss()
        gradient.apgd(problem, incumbent, clipped_margin, steps=apgd_steps, start=reached)
