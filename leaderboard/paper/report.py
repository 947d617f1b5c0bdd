"""The report on the paper: its numbers, its claims and its figures beside ours."""

import re
from collections.abc import Mapping

import numpy as np

from .. import gates, metrics
from ..ranking import ranking
from ..render import FIRST_LINE
from ..rows import Row
from .claims import decide, judge_claims, worst_difference
from .comparison import Comparison, check_paper, compare
from .evidence import ADVERSARIAL, COMPARED
from .figures import gallery
from .grids import GRIDS
from .names import CLAIM_ATTACKS, NAMES, PUBLISHED, RADII, SUBMODELS
from .studies import Study
from .templating import render

Studies = Mapping[str, Study]
# Robust accuracy below which there is no gain to speak of.
NOTHING = 0.01


def render_paper(studies: Studies) -> str:
    """The report as Markdown, from the study of each dataset; the same give the same text."""
    compared = compare(PUBLISHED.paper["tables"], studies)
    of_the_paper = [studies[name] for name in RADII if name in studies]
    others = [study for name, study in studies.items() if name not in RADII]
    mnist = studies.get("mnist")
    text = render(
        "report.md",
        first_line=FIRST_LINE,
        opening=_opening(mnist) if mnist and mnist.radii and not mnist.obstacle else "",
        studies=of_the_paper,
        compared=compared,
        judged=judge_claims(studies),
        rows=_rows,
        effects_of_ten=_effects_of_ten,
        worst=_worst,
        checks=check_paper(compared),
        moved={name: text for name, study in studies.items() if (text := _moved(study))},
        galleries=[(study, gallery(study)) for study in (*of_the_paper, *others)],
    )
    return re.sub(r"\n{3,}", "\n\n", text) + "\n"


def _effects_of_ten(study: Study, defense: str) -> list[tuple[float, float]]:
    """By how much MRA would rise with the paper's n, by eps; see `Transfer.expected_mra`."""
    effects = []
    for eps in study.radii:
        row = study.row(defense, eps)
        by_seed = row.by_protocol.get("transfer", {}) if row else {}
        if row and by_seed and row.submodels not in (1, SUBMODELS):
            transfers = [metrics.transfer(record.correct) for record in by_seed.values()]
            gap = float(np.mean([transfer.others - transfer.own for transfer in transfers]))
            effects.append((eps, (1 / row.submodels - 1 / SUBMODELS) * gap))
    return effects


def _worst(one: Comparison) -> list[tuple[Row, str]]:
    """The rows of a table's defenses that have a worst case, and how their gates came out."""
    rows = _rows(one.study, one.eps).values() if one.study and one.eps else ()
    return [(row, gates.outcome(gates.check(row))) for row in rows if row.worst]


def _moved(study: Study) -> str:
    """What moves the paper's numbers: other attacks, other training, another seed."""
    grids = {kind: study.grids[kind] for kind in GRIDS if kind in study.grids}
    if study.obstacle or not grids:
        return ""
    rows = (study.row(defense, study.radii[0]) for defense in COMPARED)
    seeds = [
        (row.defense, attack, [record.score.value for _, record in sorted(by_seed.items())])
        for row in rows
        for attack in CLAIM_ATTACKS
        if row and len(by_seed := row.by_attack.get(attack, {})) > 1
    ]
    return render("moves.md", study=study, grids=grids, seeds=seeds)


def result(studies: Studies) -> str:
    """What the README opens with: the verdict, one table, one plot; from the datasets' studies."""
    study = studies.get("mnist") or next(iter(studies.values()), None)
    checked = [(row, gates.check(row)) for row in _rows(study).values()] if study else []
    columns = ("defense", "n", "clean", "claimed", "**worst case**", "gates")
    return render(
        "result.md",
        study=study,
        opening=_opening(study) if study and study.radii and not study.obstacle else "",
        table=ranking(checked, columns),
        curves=[figure for figure in gallery(study) if figure.kind == "curves"] if study else [],
    )


def _rows(study: Study, eps: float | None = None) -> dict[str, Row]:
    """The paper's defenses and the yardsticks at a radius, the first if none is given."""
    if not study.radii:
        return {}
    at = study.radii[0] if eps is None else eps
    return {name: row for name in NAMES if (row := study.row(name, at))}


def _opening(study: Study) -> str:
    """The verdict at the first radius in at most four sentences.

    Where a row fails a gate its worst case is only an upper bound, and a difference of two upper
    bounds has no interval.
    """
    rows = _rows(study)
    plain = [rows[name] for name in COMPARED if name in rows and rows[name].claimed]
    gain = worst_difference(*reversed(plain)) if len(plain) == len(COMPARED) else None
    left = max(row.worst.high for row in plain if row.worst) if gain else 0.0
    trained = [rows[n] for n in (*ADVERSARIAL, "single-adv") if n in rows and rows[n].complete]
    trained = trained if len(trained) == 3 else []
    best = max(trained[:2], key=lambda row: row.worst.value if row.worst else 0.0, default=None)
    differences = best and {
        "a single network": metrics.shared_difference(best.worst_by_seed, trained[2].worst_by_seed),
        "its own best member": best.gain,
        "the average of its members": gates.excess(
            best.cascade, best.by_protocol.get("average", {})
        ),
    }
    return render(
        "opening.md",
        study=study,
        rows=rows,
        gain=gain,
        remains=decide(gain, 0) if gain and left > NOTHING else "",
        trained=trained,
        failing=[NAMES[row.defense] for row in trained if not gates.trusted(row)],
        best=best,
        differences=differences,
    )
