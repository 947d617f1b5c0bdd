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


@torch.no_grad()
def row_margins(problem: Problem, incumbent: Incumbent) -> Tensor:
    """Each row's margin at the incumbents, (rows, N); minus infinity of rows never drawn."""
    everything = torch.arange(len(incumbent.images), device=incumbent.images.device)
    logits = settled(problem.logits(incumbent.images, everything))
    gaps = margins(logits, problem.labels, problem.scale)
    if problem.weights is not None:
        gaps[problem.weights == 0] = -torch.inf
    return gaps


def nearest(problem: Problem, incumbent: Incumbent, share: float = SHARE) -> Tensor:
    """The images nearest to fooling a further row, (m,)."""
    gaps = row_margins(problem, incumbent)
    at = incumbent.alive
    gaps = gaps.masked_fill(gaps >= 0, -torch.inf)[:, at].amax(0)
    return at[gaps.argsort(descending=True, stable=True)[: _some(len(at), share)]]


def go_on(problem: Problem, incumbent: Incumbent, search: Search, share: float = SHARE) -> None:
    """Search on with the nearest images, all rows as likely as they are drawn."""
    at = nearest(problem, incumbent, share)
    rows = len(problem.scale)
    weights = problem.weights
    if weights is None:
        weights = problem.images.new_full((rows,), 1 / rows)
    focus = weights.to(problem.scale).unsqueeze(1).expand(rows, len(at))
    improve(problem, incumbent, [(at, focus)], search)


def aim(
    problem: Problem, incumbent: Incumbent, search: Search, *, share: float, members: int
) -> None:
    """Hold the members that the incumbent fools, and search for a point that fools one more.

    So the set of fooled members becomes maximal, which searches on the mean often miss: see
    arXiv 2307.10788. Of all pairs of an image and a member that is not fooled those nearest to it
    are tried. Where nothing is held the member is searched alone, at the cost of one.

    Draws of random members do not come again: all of them are meant at once.

    Args:
        share: of the unfinished images; members: so many pairs for each of these are tried.
    """
    if problem.population.random:
        go_on(problem, incumbent, search, share)
        return
    gaps = row_margins(problem, incumbent)
    at, held = incumbent.alive, gaps >= 0
    rows, columns = torch.nonzero(~held[:, at] & gaps[:, at].isfinite(), as_tuple=True)
    order = gaps[rows, at[columns]].argsort(descending=True, stable=True)
    pairs = order[: _some(len(at), share) * min(members, len(gaps))]
    rows, images = rows[pairs], at[columns[pairs]]
    alone = ~held[:, images].any(0) if len(gaps) > 1 else torch.zeros_like(images).bool()
    _improve_alone(problem, incumbent, rows[alone], images[alone], search)
    rows, images = rows[~alone], images[~alone]
    tries = []
    for row in range(len(gaps)):
        own = images[rows == row]
        focus = held[:, own].to(gaps)
        focus[row] = 1.0
        tries.append((own, focus))
    improve(problem, incumbent, tries, search)


def _some(count: int, share: float) -> int:
    return max(LEAST, math.ceil(share * count))


def _improve_alone(
    problem: Problem, incumbent: Incumbent, members: Tensor, at: Tensor, search: Search
) -> None:
    """Search around the incumbents of the images `at` (m,), each against one member (m,)."""
    if len(at) == 0:
        return
    images, labels = problem.images[at], problem.labels[at]
    part = replace(problem, images=images, labels=labels, members=members)
    best = part.incumbent(incumbent.images[at])
    search(part, best)
    incumbent.forget_loss()
    # An image may be tried against several members.
    for member in members.unique():
        own = members == member
        correctness = problem.correctness(best.images[own], at[own])
        incumbent.offer(at[own], best.images[own], correctness, -correctness)


def improve(
    problem: Problem,
    incumbent: Incumbent,
    tries: list[tuple[Tensor, Tensor]],
    search: Search,
) -> None:
    """Search around the incumbents of some images, in one batch, and keep what is better.

    Args:
        tries: for each the images tried, (m,), and by how much each row counts there, (rows, m).
    """
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
