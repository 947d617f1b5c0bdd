"""Effort where it decides: searches on the images that are nearest to being lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from .objectives import margins, settled
from .problem import Incumbent, Problem

# The share of the unfinished images that a search after the first goes on with, and how many of
# them at least.
SHARE, LEAST = 1 / 2, 16

Search = Callable[[Problem, Incumbent], object]
# For each try the images tried, (m,), and by how much each row counts there, (rows, m).
Tries = list[tuple[Tensor, Tensor]]


@torch.no_grad()
def nearest(problem: Problem, incumbent: Incumbent, share: float = SHARE) -> tuple[Tensor, Tensor]:
    """The images (m,) nearest to fooling a further row, and each row's margin there, (rows, m).

    Margins are at the incumbent; infinitely low of rows that are fooled, or never drawn.
    """
    logits = settled(problem.logits(incumbent.images))
    gaps = margins(logits, problem.labels, problem.scale)
    fooled = gaps >= 0
    if problem.weights is not None:
        fooled |= problem.weights.unsqueeze(1) == 0
    gaps = gaps.masked_fill(fooled, -torch.inf)
    at = incumbent.alive
    order = gaps[:, at].amax(0).argsort(descending=True, stable=True)
    at = at[order[: max(LEAST, math.ceil(share * len(at)))]]
    return at, gaps[:, at]


def probabilities(problem: Problem, gaps: Tensor) -> Tensor:
    """All rows as likely as they are drawn, (rows, m)."""
    rows = len(gaps)
    weights = gaps.new_full((rows,), 1 / rows) if problem.weights is None else problem.weights
    return weights.to(gaps).unsqueeze(1).expand_as(gaps)


def go_on(problem: Problem, incumbent: Incumbent, search: Search) -> None:
    """Search on with the nearest images, all rows as likely as they are drawn."""
    at, gaps = nearest(problem, incumbent)
    improve(problem, incumbent, [(at, probabilities(problem, gaps))], search)


def improve(problem: Problem, incumbent: Incumbent, tries: Tries, search: Search) -> None:
    """Search around the incumbents of some images, in one batch, and keep what is better."""
    chosen = torch.cat([at for at, _ in tries])
    if len(chosen) == 0:
        return
    part = replace(
        problem,
        images=problem.images[chosen],
        labels=problem.labels[chosen],
        focus=torch.cat([rows for _, rows in tries], dim=1),
    )
    best = part.incumbent(incumbent.images[chosen])
    search(part, best)
    incumbent.forget_loss()
    # An image may be in several tries, but once in each.
    for own in torch.arange(len(chosen), device=chosen.device).split([len(at) for at, _ in tries]):
        correctness = best.correctness[own]
        incumbent.offer(chosen[own], best.images[own], correctness, -correctness)
