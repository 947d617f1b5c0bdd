"""The cascade: gradients on the whole law, then climbs where something can still change."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Literal

from tabulate import tabulate

from . import gradient
from .effort import SHARE, aim, go_on
from .objectives import clipped_margin, mean_cross_entropy, mean_probability
from .population import approach, register_search
from .problem import Incumbent, Problem
from .square import square_population

logger = logging.getLogger(__name__)

# The share of the unfinished images that the first climbs are tried on.
CLIMBED = 1 / 3

Start = Literal["incumbent", "stripes", "squares"]
STARTS: tuple[Start, ...] = ("incumbent", "stripes", "squares")


@register_search(
    "worst-case",
    kind="cascade",
    version=4,
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
    targets: int = 0,
) -> None:
    """APGD on three losses of all members, then `cycles` of climbs from three kinds of starts.

    The first APGD is for all images. What comes after goes where something can still change: the
    images, and the members, that are nearest to being fooled, half as many in every cycle.

    Args:
        members: how many a search aims at for each image, on average.
        targets: APGD towards so many of the likeliest wrong classes in turn, before the climbs. On
            CIFAR-10 the nearest class is sometimes not the one that an image can be moved to, and
            the mean of all members often hides the class that fools one of them.
    """
    shares = _Shares(incumbent)
    gradient.apgd(problem, incumbent, mean_cross_entropy, steps=steps)
    shares.note("APGD, mean_cross_entropy")
    for loss in (mean_probability, clipped_margin):
        go_on(problem, incumbent, partial(gradient.apgd, loss=loss, steps=steps))
        shares.note(f"APGD, {loss.__name__}")
    if targets:
        rivals = partial(approach, steps=steps, targets=targets)
        aim(problem, incumbent, rivals, share=SHARE, members=members)
        shares.note("APGD, targeted")
    for cycle in range(cycles):
        for start in STARTS:
            search = partial(climb, start=start, steps=steps, queries=queries)
            aim(problem, incumbent, search, share=CLIMBED / 2**cycle, members=members)
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
