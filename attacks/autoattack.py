"""AutoAttack on one network, as authors of defenses run it, by the suite's own searches."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from . import gradient
from .cascade import STARTS, climb
from .craft import Drawn
from .effort import go_on
from .objectives import mean_cross_entropy, mean_margin
from .population import approach
from .problem import Incumbent, Problem
from .registry import register_attack
from .threat_model import ThreatModel

# As many rival classes as the standard version targets, however many there are.
TARGETS = 9


class _Alone:
    """One network as a population."""

    draws = 1
    random = False
    weights: Tensor | None = None
    chunk: int | None = None
    blocks: nn.Module | None = None

    def __init__(self, network: nn.Module) -> None:
        self.submodels = nn.ModuleList([network])
        self.rough = _Alone(network.rough) if isinstance(network, Drawn) else None

    def drawn(self, count: int, generator: torch.Generator | None = None) -> Tensor:  # noqa: ARG002
        """Always the first."""
        return torch.zeros(count, dtype=torch.int64)

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = self.submodels[0](images)
        return logits

    def logits(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (1, N, K)."""
        return self(images).unsqueeze(0)


@register_attack("autoattack", kind="authors", norms=("Linf", "L2"), version=3)
def autoattack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    threat_model: ThreatModel,
    steps: int,
    queries: int,
) -> Tensor:
    """APGD on the cross-entropy, targeted APGD, and Square, in turn on what is left.

    The standard version (Croce and Hein, ICML 2020) but for three things: targets are approached on
    the margin, Square and APGD go on from where the other stopped, in place of FAB; and what comes
    after the first APGD goes to the half of the images that are nearest to being fooled.

    APGD goes on after success, as there, to the point of highest loss: a point that fools one
    network for sure may fool others. Where all fail, and where the network misread the image from
    the start, the point of highest cross-entropy is returned.

    Args:
        steps: of each APGD; queries: of Square, in three parts.
    """
    problem = Problem(_Alone(model), images, labels, threat_model)
    surest = Incumbent(images, problem.confirm, lucky=False, patient=True)
    gradient.apgd(problem, surest, mean_cross_entropy, steps=steps)
    incumbent = Incumbent(images)
    everything = torch.arange(len(images), device=images.device)
    incumbent.offer(everything, surest.images, surest.correctness, surest.correctness)
    incumbent.forget_loss()
    rivals = partial(approach, steps=steps, targets=TARGETS, loss=mean_margin)
    go_on(problem, incumbent, rivals)
    for start in STARTS:
        search = partial(climb, start=start, steps=steps, queries=max(1, queries // len(STARTS)))
        go_on(problem, incumbent, search)
    fooled = (incumbent.correctness == 0) & (surest.correctness > 0)
    return torch.where(fooled.view(-1, 1, 1, 1), incumbent.images, surest.images)
