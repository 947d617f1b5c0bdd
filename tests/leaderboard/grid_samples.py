"""Grids made by hand, of ten images."""

import numpy as np
from samples import CELL

from leaderboard.paper.grids import Cell, Layout, Training, scored


def training(defense, shares, *, name="", ours=None, more=""):
    """A population of 100 of whose members as many answer each image right as `shares` says.

    Args:
        shares: by attack, or by attack and what is different about its run.
        ours: whether it is the suite's; None: if it has no name.
    """
    named = ((key if isinstance(key, tuple) else (key, ""), s) for key, s in shares.items())
    cells = tuple(
        Cell(attack=attack, run=run, ours=not run, right=bytes([round(100 * share)] * 10))
        for (attack, run), share in named
    )
    ours = not name if ours is None else ours
    return Training(defense=defense, name=name, ours=ours, more=more, submodels=100, cells=cells)


def told_apart(defense, by_attack):
    """A population by the member that was attacked and the one that answers: (n, n) by attack."""
    cells = tuple(
        Cell(attack=attack, accuracies=tuple(map(tuple, np.asarray(matrix).tolist())))
        for attack, matrix in by_attack.items()
    )
    return Training(defense=defense, submodels=len(cells[0].accuracies), cells=cells)


def grid(kind, *trainings, eps=0.3, **changes):
    """A grid of shares."""
    fields = {
        "dataset": CELL.dataset,
        "source": CELL.source,
        "sha256": CELL.sha256,
        "budget": "paper",
        "seed": 0,
        "images": 10,
        "populations": {},
        "measured_at": "2026-01-02T03:04:05+00:00",
        **changes,
    }
    return scored(Layout(kind=kind, eps=eps, trainings=trainings, **fields), {})
