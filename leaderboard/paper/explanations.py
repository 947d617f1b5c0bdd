"""What moves the paper's numbers: other attacks, other training, or both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from leaderboard.formats import format_percent, format_points, format_score
from leaderboard.markdown import escape, markdown_table
from leaderboard.paper.comparison import near
from leaderboard.paper.evidence import COMPARED
from leaderboard.paper.grids import GRIDS, Cell, Grid, Way
from leaderboard.paper.names import CASCADE, CLAIM_ATTACKS, NAMES, PUBLISHED
from leaderboard.paper.studies import Study
from leaderboard.paper.templating import render_macro


def what_moves(study: Study) -> str:
    """All grids, kind by kind, as a section of the report."""
    grids = [] if study.obstacle else [study.grids[kind] for kind in GRIDS if kind in study.grids]
    if not grids:
        return ""
    title = f"## What moves its numbers, {escape(study.setting.dataset)}\n"
    return "\n".join([title, *_by_seed(study), *map(_section, grids)])


def _section(grid: Grid) -> str:
    """What a grid is of, and its table."""
    kind = grid.layout.kind
    if kind in ("variants", "variants-adv"):
        words, table = _variants(grid)
    elif kind == "networks":
        n = grid.layout.trainings[0].submodels
        words, table = _words("networks", grid, n), _by_network(grid)
    elif kind == "epochs":
        words, table = _words("epochs", grid), _by_training(grid)
    else:
        names = [row[0].training.name for row in grid.rows if _near_throughout(row, grid)]
        macro = "retraining" if kind == "retraining" else "continued"
        words, table = _words(macro, grid, names), _by_training(grid)
    return f"{words}\n\n{table}"


def _words(macro: str, *values: Any) -> str:
    return render_macro("moves.md", macro, *values)


def _by_seed(study: Study) -> list[str]:
    """How far another training seed alone moves MRA, as a paragraph; empty with one seed."""
    listed = []
    for defense in COMPARED:
        row = study.row(defense, study.radii[0])
        for attack in CLAIM_ATTACKS if row else ():
            by_seed = sorted(row.by_attack.get(attack, {}).items()) if row else []
            if len(by_seed) > 1:
                listed.append((defense, attack, [record.score.value for _, record in by_seed]))
    return [_words("seeds", study, listed) + "\n"] if listed else []


def _variants(grid: Grid) -> tuple[str, str]:
    """The paper's attacks as its authors may have run them."""
    body, matching = [], []
    for ways in zip(*grid.rows, strict=True):
        cells = [f"`{ways[0].attack}`", escape(ways[0].cell.run)]
        if all(_is_near(way, grid) for way in ways):
            matching.append(" ".join(cells))
        for way in ways:
            paper = _paper_mra(way, grid)
            difference = None if paper is None else way.score.value - paper
            cells += [format_percent(way.score.value), format_percent(paper)]
            cells.append(format_points(difference))
        body.append(cells)
    names = [NAMES[row[0].defense] for row in grid.rows]
    headers = ["attack", "run", *(h for name in names for h in (name, "paper", "difference"))]
    return _words("variants", grid, len(body), matching), markdown_table(headers, body)


def _by_network(grid: Grid) -> str:
    """A row for each population and attack: robust accuracy by the network that was attacked."""
    body = []
    for way in (way for row in grid.rows for way in row if way.accuracies is not None):
        shares = map(format_percent, np.asarray(way.accuracies).mean(axis=1).tolist())
        cells = [NAMES[way.defense], f"`{way.attack}`", format_percent(_paper_mra(way, grid))]
        body.append([*cells, *shares, format_score(way.score)])
    networks = (f"network {i}" for i in range(grid.layout.trainings[0].submodels))
    return markdown_table(["defense", "attack", "paper", *networks, "mean"], body)


def _by_training(grid: Grid) -> str:
    """A row for each training, each defense's below the paper's numbers."""
    body = []
    for defense in dict.fromkeys(row[0].defense for row in grid.rows):
        rows = [row for row in grid.rows if row[0].defense == defense]
        papers = [format_percent(_paper_mra(way, grid)) for way in rows[0]]
        body.append([NAMES[defense], "*the paper's*", *papers])
        for row in rows:
            training = row[0].training
            how = escape(training.name) + (f" ({training.more})" if training.more else "")
            body.append([NAMES[defense], how, *(format_score(way.score) for way in row)])
    columns = [_column(way.cell) for way in grid.rows[0]]
    return markdown_table(["defense", "training", *columns], body)


def _column(cell: Cell) -> str:
    name = {"none": "clean", CASCADE: "worst case"}.get(cell.attack, cell.attack)
    return escape(f"{name}, {cell.run}" if cell.run else name)


def _near_throughout(row: Sequence[Way], grid: Grid) -> bool:
    """Whether a population is near all of the paper's numbers, each in one of its ways."""
    close = {way.attack for way in row if _is_near(way, grid)}
    return close == {way.attack for way in row} - {CASCADE}


def _is_near(way: Way, grid: Grid) -> bool:
    return near(way.attack, way.score.value, _paper_mra(way, grid))


def _paper_mra(way: Way, grid: Grid) -> float | None:
    return PUBLISHED.paper_mra(grid.layout.dataset, way.attack, way.eps, way.defense)
