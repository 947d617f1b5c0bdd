"""The cascade: cheap attacks first, each on what is left of the images, keeping the best point."""

from __future__ import annotations

from torch import Tensor

from attacks import gradient, square
from attacks.arc import arc
from attacks.craft import PopulationLike
from attacks.objectives import LOSSES, clipped_margin
from attacks.population import BOTH, begin, targeted
from attacks.problem import Incumbent, Problem
from attacks.registry import register_attack
from attacks.threat_model import ThreatModel


@register_attack(
    "worst-case",
    kind="cascade",
    norms=BOTH,
    version=2,
    protocols=("alone", "average", "doubled"),
    doubles=("steps", "apgd_steps", "arc_steps", "rounds"),
)
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
    problem, incumbent = begin(model, images, labels, threat_model)
    gradient.pgd(problem, incumbent, clipped_margin, steps=steps)
    incumbent.forget_loss()
    gradient.pgd(problem, incumbent, LOSSES["mean-ce"], steps=steps)
    incumbent.forget_loss()
    gradient.pgd(problem, incumbent, LOSSES["mean-probability"], steps=steps, momentum=1.0)
    incumbent.forget_loss()
    gradient.apgd(problem, incumbent, clipped_margin, steps=apgd_steps)
    incumbent.forget_loss()
    targeted(problem, incumbent, steps=apgd_steps, targets=targets)
    radius = threat_model.eps / 4
    for start in (None, incumbent.images):
        incumbent.forget_loss()
        arc(problem, incumbent, steps=arc_steps, radius=radius, candidates=candidates, start=start)
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
        gradient.apgd(problem, incumbent, clipped_margin, steps=steps, start=reached)
