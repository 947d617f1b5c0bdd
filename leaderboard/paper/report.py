"""The report on the paper: its claims, numbers and figures beside what was measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import drawing
from ..board import Board, Entry
from ..pages import FIRST_LINE
from ..rows import Row, split_transfer
from . import grids
from .claims import judge_claims
from .evidence import COMPARED, Evidence
from .figures import gallery
from .grids import GRIDS
from .names import CLAIM_ATTACKS, NAMES, RADII, SUBMODELS, TABLES
from .study import Study, outcome, studies
from .tables import Comparison, check_paper, compare
from .templating import render

Studies = Mapping[str, Study]


def report(board: Board, results: Path) -> tuple[dict[str, str], list[drawing.Figure]]:
    """The report's pages by file name, and its figures, from the board and a folder's evidence."""
    by_dataset = studies(board, Evidence.read_all(results), grids.read_all(results))
    figures = [figure for study in by_dataset.values() for figure in gallery(study)]
    return render_report(by_dataset), [*figures]


def render_report(studies: Studies) -> dict[str, str]:
    """The pages, from the study of each dataset: a screen, its details, what moves its numbers."""
    compared = compare(TABLES, studies)
    of_the_paper = [studies[name] for name in RADII if name in studies]
    others = [study for name, study in studies.items() if name not in RADII]
    values = {
        "first_line": FIRST_LINE,
        "studies": of_the_paper,
        "compared": compared,
        "judged": judge_claims(studies),
        "checks": check_paper(compared),
        "galleries": [(study, gallery(study)) for study in (*of_the_paper, *others)],
        "moved": [_moved(s) for s in studies.values() if s.grids and not s.obstacle],
        "entries": _entries,
        "effects_of_ten": _effects_of_ten,
        "worst": _worst,
    }
    names = ("PAPER.md", "PAPER-DETAILS.md", "PAPER-MOVES.md")
    return {name: render(name.lower(), **values) for name in names}


def _effects_of_ten(study: Study, defense: str) -> list[tuple[float, float]]:
    """By how much MRA = own / n + (1 - 1 / n) others would rise with the paper's n, by eps."""
    effects = []
    for eps in study.radii:
        entry = study.entry(defense, eps)
        by_seed = entry.row.by_protocol.get("transfer", {}) if entry else {}
        if entry and by_seed and entry.row.submodels not in (1, SUBMODELS):
            on_itself, on_others = split_transfer(by_seed)
            gap = float(np.mean([on_others[k].s.mean() - on_itself[k].s.mean() for k in by_seed]))
            effects.append((eps, (1 / entry.row.submodels - 1 / SUBMODELS) * gap))
    return effects


def _worst(of_table: Comparison) -> list[tuple[Row, str]]:
    """The rows of a table's defenses that have a worst case, and how their gates came out."""
    study, eps = of_table.study, of_table.eps
    entries = _entries(study, eps).values() if study and eps else ()
    return [(entry.row, outcome(entry.gates)) for entry in entries if entry.row.worst]


def _moved(study: Study) -> dict[str, Any]:
    """What moves the paper's numbers: another seed, other attacks, other training."""
    entries = (study.entry(defense, study.radii[0]) for defense in COMPARED)
    seeds = [
        (row.defense, attack, [record.score.value for _, record in sorted(by_seed.items())])
        for row in (entry.row for entry in entries if entry)
        for attack in CLAIM_ATTACKS
        if len(by_seed := row.by_attack.get(attack, {})) > 1
    ]
    shown = {kind: study.grids[kind] for kind in GRIDS if kind in study.grids}
    return {"study": study, "grids": shown, "seeds": seeds}


def _entries(study: Study, eps: float | None = None) -> dict[str, Entry]:
    """The paper's defenses and the yardsticks at a radius, the first if none is given."""
    if not study.radii:
        return {}
    at = study.radii[0] if eps is None else eps
    return {name: entry for name in NAMES if (entry := study.entry(name, at))}
