"""Experiments on why a number differs from the paper's: other attacks, other training, or both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leaderboard.baselines import Baselines
from leaderboard.formats import format_percent, format_points, format_score
from leaderboard.markdown import escape, markdown_table
from leaderboard.paper.comparison import TOLERANCE, Comparison, near
from leaderboard.paper.evidence import COMPARED
from leaderboard.paper.grids import GRIDS, Cell, Grid, Way
from leaderboard.paper.names import CASCADE, CLAIM_ATTACKS, NAMES, format_radius
from leaderboard.paper.studies import Study

SHARES_ONLY = "Shares only: measured before the answers of single networks were kept."


def explain(one: Comparison, study: Study, baselines: Baselines) -> str:
    """Why our number may be far from the paper's; nothing if nothing was tried.

    How far networks trained alike may differ, near or not, and which ways come near.
    """
    if one.ours is None or study.obstacle:
        return ""
    far = not near(one.attack, one.ours.value, one.paper)
    words = (may_leave(one, study), _tried(one, study, baselines) if far else "")
    return "; ".join(filter(None, words))


def _tried(one: Comparison, study: Study, baselines: Baselines) -> str:
    """Which ways come near a number of the paper's; nothing if none was tried.

    Another setting of the attack explains nothing unless it comes near on each population and at
    each radius that it was tried on, trained in one way or another; nor does another retraining
    unless it is near all of the paper's numbers.
    """
    comes_near = {
        way: _is_near(way, grid, baselines) and (whole or grid.layout.kind != "retraining")
        for grid in study.grids.values()
        for row in grid.rows
        for whole in [_near_throughout(row, grid, baselines) or not row[0].trained]
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


def what_moves(study: Study, baselines: Baselines) -> str:
    """All grids, kind by kind, as a section of the report."""
    if study.obstacle:
        return ""
    shown = [
        show(study.grids[kind], baselines) for kind, show in _TABLES.items() if kind in study.grids
    ]
    title = f"## What moves its numbers, {escape(study.setting.dataset)}\n"
    return "\n".join([title, *_by_seed(study), *shown]) if shown else ""


def _by_seed(study: Study) -> list[str]:
    """How far another training seed alone moves MRA, as a paragraph; empty with one seed."""
    eps = study.radii[0]
    listed = []
    for defense in COMPARED:
        row = study.row(defense, eps)
        if row is None:
            continue
        for attack in CLAIM_ATTACKS:
            by_seed = sorted(row.by_attack.get(attack, {}).items())
            if len(by_seed) > 1:
                shares = ", ".join(format_percent(r.score.value) for _, r in by_seed)
                listed.append(f"{NAMES[defense]} under `{attack}` {shares}")
    if not listed:
        return []
    return [
        "The tables below are of one training. Another training seed alone moves MRA by points. "
        f"At eps {format_radius(study.setting.dataset, eps)}, by seed: {'; '.join(listed)}.\n"
    ]


def _variants(grid: Grid, baselines: Baselines) -> str:
    """The paper's attacks as its authors may have run them."""
    body, matching = [], []
    for ways in zip(*grid.rows, strict=True):
        cells = [f"`{ways[0].attack}`", escape(ways[0].cell.run)]
        for way in ways:
            paper = _paper_mra(way, grid, baselines)
            difference = None if paper is None else way.score.value - paper
            cells += [format_percent(way.score.value), format_percent(paper)]
            cells.append(format_points(difference))
        body.append(cells)
        if all(_is_near(way, grid, baselines) for way in ways):
            matching.append(" ".join(cells[:2]))
    names = [NAMES[row[0].defense] for row in grid.rows]
    headers = ["attack", "run", *(h for name in names for h in (name, "paper", "difference"))]
    return (
        f"The paper's attacks on {' and '.join(names)}, run in {len(body)} ways by torchattacks in "
        f"float32, each on one drawn network. {_measured_on(grid)} Within "
        f"{100 * TOLERANCE:.0f} points of the paper for both populations: "
        f"{'; '.join(matching) or 'none'}.\n\n{markdown_table(headers, body)}"
    )


def _retraining(grid: Grid, baselines: Baselines) -> str:
    """CLM from the same ULM, retrained with at most one thing changed."""
    return (
        "CLMs retrained from the same ULM, each once, with at most one thing changed, and one "
        "without counter-linking. Our submodels train in step: each takes a batch before any takes "
        "the next. In the script that the paper's authors released, each submodel trains a whole "
        f"epoch before the next one starts. {_attacked_by(grid)} {_near_all(grid, baselines)}\n\n"
        + _table(grid, baselines)
    )


def _epochs(grid: Grid, baselines: Baselines) -> str:
    """The adversarially trained populations on their way, beside the paper's numbers."""
    ranges = []
    for defense in GRIDS["epochs"]:
        rows = [row for row in grid.rows if row[0].defense == defense]
        by_attack = {
            ways[0].attack: [way.score.value for way in ways]
            for ways in zip(*rows, strict=True)
            if ways[0].cell.ours and ways[0].attack in CLAIM_ATTACKS
        }
        widest = max(by_attack, key=lambda attack: np.ptp(by_attack[attack]))
        low, high = (format_percent(extreme(by_attack[widest])) for extreme in (min, max))
        ranges.append(f"{NAMES[defense]} under `{widest}`, {low} to {high}")
    return (
        "The adversarially trained populations after each epoch show how far a number depends on "
        f"when training ends. {_attacked_by(grid)} The widest ranges: {'; '.join(ranges)}.\n\n"
        + _table(grid, baselines)
    )


def _continued(grid: Grid, baselines: Baselines) -> str:
    """ULM-Adv trained on, without counter-linking and with it."""
    return (
        "ULM-Adv trained further with a new optimizer, with and without counter-linking. Its "
        "learning rate is unchanged unless another is given. The CLM-Adv that the paper's authors "
        "released is named after the number of epochs of CLM's retraining, so it may be a "
        "retrained ULM-Adv; our CLM-Adv is counter-linked from the start. Their script trains one "
        "submodel after another within each epoch, for 10 epochs by default. "
        f"{_attacked_by(grid)} {_near_all(grid, baselines)}\n\n" + _table(grid, baselines)
    )


def _networks(grid: Grid, baselines: Baselines) -> str:
    """The populations by the network that was attacked."""
    body = []
    for way in (way for row in grid.rows for way in row):
        if way.accuracies is None:
            continue
        shares = [format_percent(float(share)) for share in way.accuracies.mean(axis=1)]
        paper = format_percent(_paper_mra(way, grid, baselines))
        cells = [NAMES[way.defense], f"`{way.attack}`", paper, *shares]
        body.append([*cells, format_score(way.score)])
    n = grid.layout.trainings[0].submodels
    headers = ["defense", "attack", "paper", *(f"network {i}" for i in range(n)), "mean"]
    return (
        "Robust accuracy of each population by the network that was attacked; all networks "
        f"answer. {_measured_on(grid)} Brackets after the mean: 95% prediction interval for {n} "
        "newly trained networks, assuming independent networks and normal accuracies. Where it is "
        "wide, one population of so few networks settles nothing.\n\n"
        + markdown_table(headers, body)
    )


def _measured_on(grid: Grid) -> str:
    layout = grid.layout
    return (
        f"Measured on the first {layout.images:,} images at eps "
        f"{format_radius(layout.dataset, layout.eps)}, seed {layout.seed}."
        + (f" {SHARES_ONLY}" if grid.shares_only else "")
    )


def _attacked_by(grid: Grid) -> str:
    return (
        "The worst case is over the attacks as this suite runs them and the cascade; the last "
        f"columns are variants run by torchattacks in float32. {_measured_on(grid)}"
    )


def _near_all(grid: Grid, baselines: Baselines) -> str:
    """Which of the populations are near all of the paper's numbers, as a sentence."""
    names = [
        escape(row[0].training.name) for row in grid.rows if _near_throughout(row, grid, baselines)
    ]
    return (
        "Near all of the paper's numbers, each attack as this suite runs it or as a variant: "
        f"{'; '.join(names) or 'none'}."
    )


def _table(grid: Grid, baselines: Baselines) -> str:
    """A row for each training, each defense's below the paper's numbers."""
    body = []
    for defense in dict.fromkeys(row[0].defense for row in grid.rows):
        rows = [row for row in grid.rows if row[0].defense == defense]
        papers = [format_percent(_paper_mra(way, grid, baselines)) for way in rows[0]]
        body.append([NAMES[defense], "*the paper's*", *papers])
        for row in rows:
            training = row[0].training
            more = f" ({training.more})" if training.more else ""
            how = escape(training.name) + more
            body.append([NAMES[defense], how, *(format_score(way.score) for way in row)])
    columns = [_column(way.cell) for way in grid.rows[0]]
    return markdown_table(["defense", "training", *columns], body)


def _column(cell: Cell) -> str:
    name = {"none": "clean", CASCADE: "worst case"}.get(cell.attack, cell.attack)
    return escape(f"{name}, {cell.run}" if cell.run else name)


def _near_throughout(row: Sequence[Way], grid: Grid, baselines: Baselines) -> bool:
    """Whether a population is near all of the paper's numbers, each in one of its ways."""
    close = {way.attack for way in row if _is_near(way, grid, baselines)}
    return close == {way.attack for way in row} - {CASCADE}


def _is_near(way: Way, grid: Grid, baselines: Baselines) -> bool:
    return near(way.attack, way.score.value, _paper_mra(way, grid, baselines))


def _paper_mra(way: Way, grid: Grid, baselines: Baselines) -> float | None:
    return baselines.paper_mra(grid.layout.dataset, way.attack, way.eps, way.defense)


_TABLES = {
    "variants": _variants,
    "retraining": _retraining,
    "networks": _networks,
    "variants-adv": _variants,
    "epochs": _epochs,
    "retraining-adv": _continued,
}
