"""The cascade: gradients on the whole law, then climbs where something can still change."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from tabulate import tabulate
from torch import Tensor

from . import gradient
from .objectives import (
    clipped_margin,
    margins,
    mean_cross_entropy,
    mean_probability,
    settled,
)
from .population import register_search
from .problem import Incumbent, Problem
from .square import square_population

logger = logging.getLogger(__name__)

# The share of the unfinished images that a search goes on with, the nearest to being fooled: after
# the first APGD, and for the first climbs; and how many at least.
GRADIENTS, CLIMBS, LEAST = 1 / 2, 1 / 3, 16

Search = Callable[[Problem, Incumbent], object]
# For each try the images tried, (m,), and by how much each row counts there, (rows, m).
Tries = list[tuple[Tensor, Tensor]]
Start = Literal["incumbent", "stripes", "squares"]
STARTS: tuple[Start, ...] = ("incumbent", "stripes", "squares")


@register_search(
    "worst-case",
    kind="cascade",
    version=3,
    protocols=("alone", "known", "average", "doubled"),
    doubles=("steps", "queries", "cycles"),
)
def worst_case(
    problem: Problem,
    incumbent: Incumbent,
    *,
    steps: int,
    queries: int,
    members: int,
    cycles: int,
) -> None:
    """APGD on three losses of all members, then `cycles` of climbs from three kinds of starts.

    The first APGD is for all images. What comes after goes where something can still change: the
    images whose nearest member is nearest to being fooled, half as many in every cycle.
    """
    shares = _Shares(incumbent)
    gradient.apgd(problem, incumbent, mean_cross_entropy, steps=steps)
    shares.note("APGD, mean_cross_entropy")
    for loss in (mean_probability, clipped_margin):
        search = partial(gradient.apgd, loss=loss, steps=steps)
        at, gaps = _nearest(problem, incumbent, GRADIENTS)
        _improve(problem, incumbent, [(at, _probabilities(problem, gaps))], search)
        shares.note(f"APGD, {loss.__name__}")
    for cycle in range(cycles):
        for start in STARTS:
            at, gaps = _nearest(problem, incumbent, CLIMBS / 2**cycle)
            search = partial(climb, start=start, steps=steps, queries=queries)
            _improve(problem, incumbent, _aims(problem, at, gaps, members), search)
            shares.note(f"climb {cycle + 1}, {start}")
    logger.info("what each part of the cascade took and gained:\n%s", shares)


def climb(part: Problem, best: Incumbent, *, start: Start, steps: int, queries: int) -> None:
    """APGD, Square and APGD in turn on what the problem's focus counts.

    Gradients and squares get stuck in different places: each goes on from where the other stopped.

    Args:
        start: where the first APGD begins; with "squares", Square begins afresh.
        steps: of each APGD; queries: of Square.
    """
    first = None if start == "stripes" else best.images
    gradient.apgd(part, best, clipped_margin, steps=steps, start=first)
    second = None if start == "squares" else best.images
    reached = square_population(part, best, queries=queries, start=second, loss=clipped_margin)
    gradient.apgd(part, best, clipped_margin, steps=steps, start=reached)


class _Shares:
    """The parts of a search: what each took, and what it gained."""

    def __init__(self, incumbent: Incumbent) -> None:
        self._incumbent, self._rows = incumbent, list[tuple[str, float, int, float]]()
        self._start, self._before = time.perf_counter(), incumbent.correctness.clone()

    def note(self, part: str) -> None:
        """A part has ended."""
        now, before = self._incumbent.correctness.clone(), self._before
        gained = int((now < before).sum()), 100 * float((before - now).mean())
        self._rows.append((part, time.perf_counter() - self._start, *gained))
        self._start, self._before = time.perf_counter(), now

    def __str__(self) -> str:
        table: str = tabulate(self._rows, ["part", "seconds", "images", "points"], floatfmt=".1f")
        return table


@torch.no_grad()
def _nearest(problem: Problem, incumbent: Incumbent, share: float) -> tuple[Tensor, Tensor]:
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


def _probabilities(problem: Problem, gaps: Tensor) -> Tensor:
    """All rows as likely as they are drawn, (rows, m)."""
    rows = len(gaps)
    weights = gaps.new_full((rows,), 1 / rows) if problem.weights is None else problem.weights
    return weights.to(gaps).unsqueeze(1).expand_as(gaps)


def _aims(problem: Problem, at: Tensor, gaps: Tensor, members: int) -> Tries:
    """Hold the members that the incumbent fools, and aim at one more: the nearest, then the next.

    So the set of fooled members becomes maximal, which attacks on the mean often miss: see
    arXiv 2307.10788. Draws of random members do not come again: all of them are meant at once.
    """
    if problem.population.random:
        return [(at, _probabilities(problem, gaps))]
    tries = []
    held = (gaps == -torch.inf).to(gaps)
    for aim in gaps.topk(min(members, len(gaps)), dim=0).indices.unsqueeze(1):
        missing = held.gather(0, aim)[0] == 0
        tries.append((at[missing], held.scatter(0, aim, 1.0)[:, missing]))
    return tries


def _improve(problem: Problem, incumbent: Incumbent, tries: Tries, search: Search) -> None:
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
