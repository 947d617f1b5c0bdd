"""The report on the paper: its numbers, its claims and its figures beside ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from leaderboard import gates, metrics
from leaderboard.formats import (
    describe,
    format_difference,
    format_percent,
    format_points,
    format_score,
)
from leaderboard.markdown import escape, markdown_table
from leaderboard.metrics import Score
from leaderboard.paper.claims import (
    FAILS,
    HOLDS,
    Claim,
    Verdict,
    decide,
    judge_claims,
    worst_difference,
)
from leaderboard.paper.comparison import (
    Comparison,
    PaperCheck,
    check_paper,
    compare,
)
from leaderboard.paper.evidence import ADVERSARIAL, COMPARED, OUTCOMES, Evidence
from leaderboard.paper.explanations import what_moves
from leaderboard.paper.figures import gallery
from leaderboard.paper.findings import correlations
from leaderboard.paper.names import NAMES, PUBLISHED, RADII, SUBMODELS, format_radius
from leaderboard.paper.studies import Study
from leaderboard.paper.templating import render, render_macro
from leaderboard.ranking import ranking
from leaderboard.render import FIRST_LINE
from leaderboard.rows import Row

Studies = Mapping[str, Study]
TITLES = {
    "1": "clean images",
    "2": "MNIST, eps 0.3",
    "3": "CIFAR-10, eps 8/255",
    "4": "MNIST, eps 0.4",
    "5": "CIFAR-10, eps 16/255",
}
# Robust accuracy below which there is no gain to speak of.
NOTHING = 0.01


def render_paper(studies: Studies) -> str:
    """The report as Markdown, from the study of each dataset; the same give the same text."""
    tables = PUBLISHED.paper["tables"]
    compared, judged, checks = compare(tables, studies), judge_claims(studies), check_paper(tables)
    of_the_paper = [studies[name] for name in RADII if name in studies]
    others = [study for name, study in studies.items() if name not in RADII]
    mnist = studies.get("mnist")
    by_table = {n: [one for one in compared if one.table == n] for n in TITLES}
    text = render(
        "report.md",
        first_line=FIRST_LINE,
        opening=_opening(mnist) if mnist and mnist.radii and not mnist.obstacle else "",
        settings=[describe(study.setting) for study in of_the_paper],
        compared=compared,
        judged=judged,
        claims=_claims(judged),
        link=_link,
        populations={s.setting.dataset: t for s in of_the_paper if (t := _populations(s))},
        tables=[
            (_heading(n), any(one.ours for one in mine), _table(mine, studies))
            for n, mine in by_table.items()
        ],
        checks=checks,
        gated=_gated(checks, studies),
        moved={name: text for name, study in studies.items() if (text := what_moves(study))},
        galleries=[(study, gallery(study)) for study in (*of_the_paper, *others)],
        correlations=_correlations,
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _claims(judged: Sequence[tuple[Claim, Verdict | None]]) -> str:
    body = []
    for claim, verdict in judged:
        if verdict:
            words = [escape(claim.text), claim.where, escape(claim.means)]
            verdicts = [f"**{verdict.claimed}**", f"**{verdict.worst}**", str(verdict.trainings)]
            body.append(words + verdicts)
    headers = ["the paper's claim", "where", "taken to mean", "against its attacks"]
    return markdown_table([*headers, "in the worst case", "trainings"], body) if body else ""


def _heading(number: str) -> str:
    return f"Table {number}: {TITLES[number]}"


def _link(section: str, dataset: str) -> str:
    """To a section of the report, by the anchor that Markdown gives its heading."""
    number = section.removeprefix("Table ")
    heading = _heading(number) if number in TITLES else f"{section}, {dataset}"
    anchor = re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
    return f"[{section}](#{anchor})"


def _populations(study: Study) -> str:
    """How ours were made, where the paper's may have been made otherwise."""
    body = []
    for row in _rows(study).values():
        parameters = row.records[0].case.defense_parameters
        epochs = parameters.get("epochs", parameters.get("recipe", {}).get("epochs", "–"))
        images = parameters.get("train_images")
        effects = ", ".join(
            f"{format_points(effect)} at eps {format_radius(study.setting.dataset, eps)}"
            for eps in study.radii
            if (at_eps := study.row(row.defense, eps))
            and (effect := _effect_of_ten(at_eps)) is not None
        )
        seeds = ", ".join(map(str, row.seeds))
        trained = [f"{images:,}" if images else "–", str(epochs), seeds]
        body.append([NAMES[row.defense], str(row.submodels), *trained, effects or "–"])
    header = f"change of MRA under PGD if n were {SUBMODELS} (points)"
    headers = ["ours", "n", "training images", "epochs", "seeds", header]
    return markdown_table(headers, body) if body else ""


def _effect_of_ten(row: Row) -> float | None:
    """By how much MRA would rise with the paper's n; see `Transfer.expected_mra`."""
    measured = [metrics.transfer(r.correct) for r in row.by_protocol.get("transfer", {}).values()]
    if row.submodels in (1, SUBMODELS) or not measured:
        return None
    gaps = [transfer.others - transfer.own for transfer in measured]
    return (1 / row.submodels - 1 / SUBMODELS) * float(np.mean(gaps))


def _table(compared: Sequence[Comparison], studies: Studies) -> str:
    several = len({one.dataset for one in compared}) > 1
    body = []
    for one in compared:
        name = NAMES[one.defense] + (f" (n={one.submodels})" if one.submodels else "")
        # Clean accuracies are compared to less than a point.
        digits = 1 + (one.attack == "none")
        difference = "–" if one.difference is None else f"{100 * one.difference:+.{digits}f}"
        cells = [one.dataset, one.attack, name, f"{100 * one.paper:.2f}", format_score(one.ours)]
        body.append([*cells[not several :], difference, _verdict(one)])
    eps, study = compared[0].eps, studies.get(compared[0].dataset)
    for row in _rows(study, eps).values() if study and eps else ():
        if row.worst:
            bound, outcome = "" if row.complete else "≤ ", gates.outcome(gates.check(row))
            cells = ["**worst case**", f"{NAMES[row.defense]} (n={row.submodels})", "–"]
            cells += [f"**{bound}{format_score(row.worst)}**", "–"]
            doubt = "" if outcome == "passed" else f"; gates {outcome}"
            body.append([*cells, f"on {row.worst_images:,} images{doubt}"])
    headers = ["dataset", "attack", "defense", "paper", "ours", "difference", "verdict"]
    return markdown_table(headers[not several :], body)


def _verdict(one: Comparison) -> str:
    """A number's verdict, and what is to be said of it."""
    words = one.verdict + (f" ({one.reason})" if one.reason else "")
    if not one.reason and one.near != one.inside:
        over = " over images" if one.trainings == 1 else ""
        outside = f" (the paper's is outside our interval{over})"
        words += outside if one.near else " (the paper's is in our interval)"
    if one.reach:
        low, high = map(format_percent, (one.reach.low, one.reach.high))
        words += f"; retraining may give {low} to {high} (95%)"
    return words


def _gated(checks: Sequence[PaperCheck], studies: Studies) -> str:
    """The gates that the paper's own published numbers fail, beside ours under the same attacks."""
    body = []
    for check in checks:
        source = PUBLISHED.paper["tables"][check.table]
        study = studies.get(source["dataset"])
        row = study.row(check.defense, float(Fraction(str(source["eps"])))) if study else None
        by_attack = row.by_attack if row and study and not study.obstacle else {}
        ours = gates.excess(by_attack.get(check.strong, {}), by_attack.get(check.weak, {}))
        strong, weak = (f"{100 * share:.2f}" for share in check.accuracies)
        if check.excess > 0:
            where = f"{check.table} ({source['dataset']}, eps {source['eps']})"
            published = f"{check.strong} {strong}, {check.weak} {weak}"
            excess = f"{format_points(check.excess)}{' ‡' * check.by_chance}"
            body.append([where, check.defense, check.name, published, excess])
            body[-1].append(format_difference(ours))
    headers = ["table", "defense", "gate failed", "published MRA (%)", "excess", "ours"]
    return markdown_table(headers, body)


def _correlations(evidence: Evidence) -> str:
    body: dict[tuple[str, str], list[str]] = {}
    for one in correlations(evidence):
        body.setdefault((one.measure, NAMES[one.defense]), []).append(str(one))
    headers = ["measure of diversity", "pairs of", *OUTCOMES.values()]
    return markdown_table(headers, [[*key, *values] for key, values in body.items()])


def result(studies: Studies) -> str:
    """What the README opens with: the verdict, one table, one plot; from the datasets' studies."""
    if not studies:
        return "Nothing has been measured yet.\n"
    study = studies.get("mnist") or next(iter(studies.values()))
    if not study.radii:
        return "Nothing has been attacked yet.\n"
    eps = format_radius(study.setting.dataset, study.radii[0])
    checked = [(row, gates.check(row)) for row in _rows(study).values()]
    parts = [
        "" if study.obstacle else _opening(study),
        f"**{describe(study.setting)}, Linf, eps = {eps}**",
        ranking(checked, ("defense", "n", "clean", "claimed", "**worst case**", "gates")),
        *(
            f"![{figure.title}](leaderboard/figures/{figure.file})\n\n{figure.caption}"
            for figure in gallery(study)
            if figure.kind == "curves"
        ),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


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
    remains = ""
    if gain and max(row.worst.high for row in plain if row.worst) > NOTHING:
        remains = {
            HOLDS: "; a gain remains",
            FAILS: "; the gain is gone",
        }.get(decide(gain, 0), "; whether a gain remains is undecided")
    trained = [rows[n] for n in (*ADVERSARIAL, "single-adv") if n in rows and rows[n].complete]
    best: Row | None = None
    differences: dict[str, Score | None] = {}
    if len(trained) == 3:
        best = max(trained[:2], key=lambda row: row.worst.value if row.worst else 0.0)
        averaged = gates.excess(best.cascade, best.by_protocol.get("average", {}))
        differences = {
            "a single network": metrics.shared_difference(
                best.worst_by_seed, trained[2].worst_by_seed
            ),
            "its own best member": best.gain,
            "the average of its members": averaged,
        }
    return render_macro(
        *("result.md", "opening"),
        study=study,
        rows=rows,
        gain=gain,
        remains=remains,
        trained=trained if best else [],
        failing=[NAMES[row.defense] for row in trained if not gates.trusted(row)],
        best=best,
        differences=differences,
    )
