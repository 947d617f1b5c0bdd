"""Experiments on why a number differs from the paper's: other attacks, other training, or both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from leaderboard.formats import format_percent, format_points, format_score
from leaderboard.markdown import escape, markdown_table
from leaderboard.paper.comparison import Comparison, near
from leaderboard.paper.evidence import COMPARED
from leaderboard.paper.grids import GRIDS, Cell, Grid, Way
from leaderboard.paper.names import CASCADE, CLAIM_ATTACKS, NAMES, PUBLISHED
from leaderboard.paper.studies import Study
from leaderboard.paper.templating import render_macro


def explain(one: Comparison, study: Study) -> str:
    """Why our number may be far from the paper's; nothing if nothing was tried.

    How far networks trained alike may differ, near or not, and which ways come near.
    """
    if one.ours is None or study.obstacle:
        return ""
    words = (may_leave(one, study), "" if one.near else _tried(one, study))
    return "; ".join(filter(None, words))


def _tried(one: Comparison, study: Study) -> str:
    """Which ways come near a number of the paper's; nothing if none was tried.

    Another setting of the attack explains nothing unless it comes near on each population and at
    each radius that it was tried on, trained in one way or another; nor does another retraining
    unless it is near all of the paper's numbers.
    """
    comes_near = {
        way: _is_near(way, grid) and (whole or grid.layout.kind != "retraining")
        for grid in study.grids.values()
        for row in grid.rows
        for whole in [_near_throughout(row, grid) or not row[0].trained]
        for way in row
        if way.attack == one.attack
    }

    def explains(way: Way) -> bool:
        by_place: dict[tuple[str, float], bool] = {}
        for other, is_near in comes_near.items():
            if other.attacked == way.attacked:
                by_place[_place(other)] = by_place.get(_place(other), False) or is_near
        return comes_near[way] and (not way.attacked or all(by_place.values()))

    tried = [way for way in comes_near if _place(way) == _place(one) and way.name]
    if not tried:
        return ""
    close = [way for way in tried if explains(way)]
    # Where one cause will do, two say no more.
    simple = [way for way in close if not (way.trained and way.attacked)]
    names = dict.fromkeys(escape(way.name) for way in simple or close)
    if names:
        return f"near it: {'; '.join(names)}"
    here = dict.fromkeys(escape(way.name) for way in tried if comes_near[way])
    if here:
        return f"matches here only: {'; '.join(here)}"
    others = len({way.name for way in tried})
    return f"none of {others} other ways is near" if others > 1 else "another way is not near"


def _place(number: Way | Comparison) -> tuple[str, float]:
    """Whose number it is and at which radius, the same however that was computed."""
    return number.defense, round(number.eps, 6)


def may_leave(one: Comparison, study: Study) -> str:
    """The range expected of other networks trained alike, if the paper's number is in it."""
    grid = study.grids.get("networks")
    for row in grid.rows if grid else ():
        for way in row:
            in_reach = way.score.low <= one.paper <= way.score.high
            if (_place(way), way.attack) == (_place(one), one.attack) and in_reach:
                reach = f"{format_percent(way.score.low)} to {format_percent(way.score.high)}"
                return f"retraining {way.training.submodels} networks may give {reach} (95%)"
    return ""


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
        words, table = _words("epochs", grid, _widest(grid)), _by_training(grid)
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


def _widest(grid: Grid) -> list[tuple[str, str, float, float]]:
    """For each defense the attack under which MRA varies most over epochs, and its range."""
    ranges = []
    for defense in GRIDS["epochs"]:
        rows = [row for row in grid.rows if row[0].defense == defense]
        accuracies = {
            ways[0].attack: [way.score.value for way in ways]
            for ways in zip(*rows, strict=True)
            if ways[0].cell.ours and ways[0].attack in CLAIM_ATTACKS
        }
        attack = max(accuracies, key=lambda one: np.ptp(accuracies[one]))
        ranges.append((defense, attack, min(accuracies[attack]), max(accuracies[attack])))
    return ranges


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
