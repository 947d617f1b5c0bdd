"""The report on the paper: its numbers, its claims and its figures beside ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from leaderboard import gates, metrics
from leaderboard.baselines import Baselines
from leaderboard.formats import describe, format_difference, format_points, format_score
from leaderboard.markdown import escape, markdown_table
from leaderboard.metrics import Score
from leaderboard.paper.claims import (
    FAILS,
    HOLDS,
    SPELLED,
    Claim,
    Verdict,
    decide,
    judge_claims,
    worst_difference,
)
from leaderboard.paper.comparison import (
    CLEAN_TOLERANCE,
    NOT_COMPARABLE,
    NOT_REPRODUCED,
    REPRODUCED,
    TOLERANCE,
    Comparison,
    compare,
    counts,
)
from leaderboard.paper.evidence import ADVERSARIAL, COMPARED, OUTCOMES, Evidence
from leaderboard.paper.explanations import explain, may_leave, what_moves
from leaderboard.paper.findings import SIGNIFICANT, correlations, format_correlation
from leaderboard.paper.gallery import Figure, gallery
from leaderboard.paper.gates import PAPER_IMAGES, check_paper
from leaderboard.paper.names import NAMES, RADII, SUBMODELS, format_radius
from leaderboard.paper.studies import Study
from leaderboard.ranking import ranking
from leaderboard.render import FIRST_LINE
from leaderboard.rows import Row

PAPER = "[Resilience from Diversity](https://arxiv.org/abs/2111.10272)"
TITLES = {
    "1": "clean images",
    "2": "MNIST, eps 0.3",
    "3": "CIFAR-10, eps 8/255",
    "4": "MNIST, eps 0.4",
    "5": "CIFAR-10, eps 16/255",
}
# Accuracy below which nothing is said to be left.
NOTHING = 0.01
DEFENSES = ("ulm", "clm", "ulm-adv", "clm-adv", "single", "single-adv")


def render_paper(found: Mapping[str, Study], baselines: Baselines) -> str:
    """The report as Markdown, from the study of each dataset; the same give the same text."""
    compared = compare(baselines.paper["tables"], found)
    parts = [FIRST_LINE, _introduction(found, compared)]
    parts += [_claims(judge_claims(found, baselines))]
    parts += ["## Its tables\n", _tables_note(), *map(_populations, _of_the_paper(found))]
    for number, title in TITLES.items():
        mine = [one for one in compared if one.table == number]
        parts.append(_table(number, title, mine, found, baselines))
    parts += [_gated(baselines.paper, found)]
    parts += [what_moves(study, baselines) for study in found.values()]
    parts += [_figures(study) for study in _of_the_paper(found)]
    others = [study for name, study in found.items() if name not in RADII and study.evidence]
    for figures in filter(None, map(_figures, others)):
        parts.append(
            f"<details><summary>Figures from other data</summary>\n\n{figures}\n</details>\n"
        )
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def _of_the_paper(found: Mapping[str, Study]) -> list[Study]:
    """The studies of the paper's datasets, in its order."""
    return [found[name] for name in RADII if name in found]


def _introduction(found: Mapping[str, Study], compared: Sequence[Comparison]) -> str:
    settings = "\n".join(f"- {describe(study.setting)}" for study in _of_the_paper(found))
    missing = sum(one.ours is None for one in compared)
    smaller = sum(one.verdict == REPRODUCED and one.submodels != SUBMODELS for one in compared)
    apart = sum(one.apart for one in compared)
    chance = [one.verdict for one in compared if one.ours and may_leave(one, found[one.dataset])]
    alike = "within reach of retraining"
    parts = {
        REPRODUCED: {
            "with fewer networks": smaller,
            "with the paper's number outside our interval": apart,
            alike: chance.count(REPRODUCED),
        },
        NOT_REPRODUCED: {alike: chance.count(NOT_REPRODUCED)},
        NOT_COMPARABLE: {"not measured": missing},
    }
    notes = {
        word: f" (of them {', '.join(listed)})" if listed else ""
        for word, counted in parts.items()
        for listed in [[f"{count} {name}" for name, count in counted.items() if count]]
    }
    words = ", ".join(f"{count} {word}{notes[word]}" for word, count in counts(compared).items())
    verdict = _verdict(found)
    return (
        f"# The paper, reproduced and judged\n\n{verdict}{PAPER} (Jasser and Garibay, 2021) beside "
        "what this suite measured with its own populations. Every number can be recomputed from "
        "the records in [`results/`](results/); [the leaderboard](LEADERBOARD.md) explains the "
        "words and shows every attack, check and parameter. Brackets show 95% confidence intervals "
        "over test images and, where a defense was trained more than once, over training runs.\n\n"
        "Measured on:\n\n"
        f"{settings or '- nothing yet'}\n\n"
        f"Of the {len(compared)} numbers in its Tables 1 to 5: {words}.\n"
    )


def _verdict(found: Mapping[str, Study]) -> str:
    """What the README opens with, too; nothing where the paper's budget was not spent."""
    study = found.get("mnist")
    if study is None or study.obstacle or not study.radii:
        return ""
    sentences = _sentences(study)
    return f"**{sentences}**\n\n" if sentences else ""


def _claims(judged: Sequence[tuple[Claim, Verdict | None]]) -> str:
    body, notes, missing = [], [], []
    for claim, verdict in judged:
        if verdict is None:
            missing.append(f"- {escape(claim.text)} ({claim.where})")
            continue
        see = ", ".join(_link(section, claim.dataset) for section in claim.support)
        row = [escape(claim.text), claim.where, escape(claim.means), f"**{verdict.claimed}**"]
        body.append([*row, f"**{verdict.worst}**", str(verdict.trainings)])
        notes.append(f"- *{escape(claim.text)}* {escape(verdict.figures)}. See {see}.")
    headers = ["the paper's claim", "where", "taken to mean", "against its attacks"]
    parts = ["## Its claims\n"]
    if body:
        parts += [
            "The worst-case attacker stays inside the paper's own threat model: they know "
            "everything but the draw, and attack all networks at once. *Holds* and *does not "
            "hold*: the 95% confidence interval lies entirely on that side of the claim's "
            "threshold; otherwise *undecided*. *Trainings*: the number of training seeds behind "
            "the verdict. With one, another training may differ. –: not judged, because the claim "
            "does not concern that attacker or because the paper's EOT is another attack than "
            "ours; claims about all attacks leave EOT out for the same reason.\n",
            markdown_table([*headers, "in the worst case", "trainings"], body),
            "What was measured:\n\n" + "\n".join(notes) + "\n",
        ]
    if missing:
        parts.append("Not measured yet:\n\n" + "\n".join(missing) + "\n")
    return "\n".join(parts)


def _link(section: str, dataset: str) -> str:
    """To a section of the report, by the anchor that Markdown gives its heading."""
    number = section.removeprefix("Table ")
    heading = f"Table {number}: {TITLES[number]}" if number in TITLES else f"{section}, {dataset}"
    anchor = re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
    return f"[{section}](#{anchor})"


def _tables_note() -> str:
    return f"""MRA in percent. *Reproduced*: our mean is within {100 * TOLERANCE:.0f} points of \
the paper's number, on clean images within {100 * CLEAN_TOLERANCE:.0f}. *Not comparable*: we have \
no result, or ours uses a smaller budget, different images, a population size other than \
{SUBMODELS} (ULM, CLM), or a different attack (the authors ran `pgd-eot` on one fixed network; we \
draw networks). The last rows of a table give the worst case, which the paper does not report. The \
verdict also says:

- whether our interval contains the paper's number; after one training it is over images alone;
- for adversarially trained populations at the larger radius, the range expected from retraining, \
if the paper's number lies in it: our result then neither supports nor contradicts it;
- where we are further off, the attack and training variants that come *near it*, tried with seed \
0 on part of the images. An attack variant counts as an explanation only if it matches for every \
population and radius we tried; otherwise it *matches here only*. A retraining of CLM counts if it \
matches all of the paper's numbers. For an adversarially trained population any training that \
matches this number counts. Two causes together are named only where one is not enough;
- *the tool's own setting* for a default of torchattacks 3.5.1. Its AutoAttack ran 100 steps in \
older releases, as ours does; we do not know which release the paper used.
"""


def _populations(study: Study) -> str:
    """How ours were made, where the paper's may have been made otherwise."""
    body = []
    for name in DEFENSES:
        row = study.row(name, study.radii[0]) if study.radii else None
        if row is None:
            continue
        parameters = row.records[0].case.defense_parameters
        epochs = parameters.get("epochs", parameters.get("recipe", {}).get("epochs", "–"))
        images = parameters.get("train_images")
        body.append(
            [
                NAMES[name],
                str(row.submodels),
                f"{images:,}" if images else "–",
                str(epochs),
                ", ".join(map(str, row.seeds)),
                _effects_of_ten(study, name) or "–",
            ]
        )
    if not body:
        return ""
    headers = [
        "ours",
        "n",
        "training images",
        "epochs",
        "seeds",
        f"change of MRA under PGD if n were {SUBMODELS} (points)",
    ]
    silence = (
        " For MNIST the paper gives the number of epochs of the retraining only. The training "
        "script that its authors released runs 10 by default, and the CLM-Adv that they released "
        "has 5 in its name. Our adversarial training runs fewer, because of its cost."
        if study.setting.dataset == "mnist"
        else ""
    )
    return (
        f"Our populations on {escape(study.setting.dataset)}. The paper's populations have "
        f"{SUBMODELS} submodels; the adversarially trained ones that its authors released have 4. "
        f"The last column is extrapolated from the transfer matrix.{silence}\n\n"
        f"{markdown_table(headers, body)}"
    )


def _effects_of_ten(study: Study, defense: str) -> str:
    """By how much MRA under PGD would rise with the paper's n, at each radius measured."""
    effects = (
        (eps, _effect_of_ten(row)) for eps in study.radii if (row := study.row(defense, eps))
    )
    return ", ".join(
        f"{format_points(effect)} at eps {format_radius(study.setting.dataset, eps)}"
        for eps, effect in effects
        if effect is not None
    )


def _effect_of_ten(row: Row) -> float | None:
    """By how much MRA would rise with the paper's n; see `Transfer.expected_mra`."""
    measured = [metrics.transfer(r.correct) for r in row.by_protocol.get("transfer", {}).values()]
    if row.submodels in (1, SUBMODELS) or not measured:
        return None
    gaps = [transfer.others - transfer.own for transfer in measured]
    return (1 / row.submodels - 1 / SUBMODELS) * float(np.mean(gaps))


def _table(
    number: str,
    title: str,
    compared: Sequence[Comparison],
    found: Mapping[str, Study],
    baselines: Baselines,
) -> str:
    several = len({one.dataset for one in compared}) > 1
    body = []
    for one in compared:
        name = NAMES[one.defense] + (f" (n={one.submodels})" if one.submodels else "")
        verdict = one.verdict + (f" ({one.reason})" if one.reason else "")
        if one.by_chance:
            verdict += " (the paper's is in our interval)"
        if one.apart:
            over = " over images" if one.trainings == 1 else ""
            verdict += f" (the paper's is outside our interval{over})"
        if one.dataset in found and (explained := explain(one, found[one.dataset], baselines)):
            verdict += f"; {explained}"
        cells = [one.dataset, one.attack, name, f"{100 * one.paper:.2f}", format_score(one.ours)]
        # Clean accuracies are compared to less than a point.
        digits = 1 + (one.attack == "none")
        difference = "–" if one.difference is None else f"{100 * one.difference:+.{digits}f}"
        body.append([*cells[not several :], difference, verdict])
    eps = compared[0].eps
    if eps > 0 and compared[0].dataset in found:
        for defense in DEFENSES:
            row = found[compared[0].dataset].row(defense, eps)
            if row and row.worst:
                name = f"{NAMES[defense]} (n={row.submodels})"
                left = "" if row.complete else "≤ "
                cells = ["**worst case**", name, "–", f"**{left}{format_score(row.worst)}**", "–"]
                outcome = gates.outcome(gates.check(row))
                doubt = "" if outcome == "passed" else f"; gates {outcome}"
                body.append([*cells, f"on {row.worst_images:,} images{doubt}"])
    headers = ["dataset", "attack", "defense", "paper", "ours", "difference", "verdict"]
    table = markdown_table(headers[not several :], body)
    if all(one.ours is None for one in compared):
        table = f"<details><summary>Not measured yet</summary>\n\n{table}\n</details>\n"
    return f"### Table {number}: {title}\n\n{table}"


def _gated(paper: dict[str, Any], found: Mapping[str, Study]) -> str:
    """The gates that the paper's own published numbers fail, beside ours under the same attacks."""
    checked = check_paper(paper["tables"])
    failed = [check for check in checked if check.excess > 0]
    body = []
    for check in failed:
        source = paper["tables"][check.table]
        study = found.get(source["dataset"])
        row = study.row(check.defense, float(Fraction(str(source["eps"])))) if study else None
        by_attack = row.by_attack if row and study and not study.obstacle else {}
        ours = gates.excess(by_attack.get(check.strong, {}), by_attack.get(check.weak, {}))
        strong, weak = (f"{100 * share:.2f}" for share in check.accuracies)
        excess = f"{format_points(check.excess)}{' ‡' * check.by_chance}"
        where = f"{check.table} ({source['dataset']}, eps {source['eps']})"
        body.append([where, check.defense, check.name])
        body[-1] += [f"{check.strong} {strong}, {check.weak} {weak}", excess]
        body[-1].append(format_difference(ours))
    headers = ["table", "defense", "gate failed", "published MRA (%)", "excess", "ours"]
    return (
        "## Its published numbers, gated\n\n"
        f"The published tables allow {len(checked)} checks; {len(failed)} of them fail: robust "
        "accuracy is higher under the stronger attack. That can happen where images crafted on one "
        "network are scored on others, because strength against the first need not transfer. "
        "*ours*: the same difference between our own results, in points; if its interval lies "
        "above 0, our results fail the check too. ‡: within sampling error of "
        f"{PAPER_IMAGES:,} images ({sum(check.by_chance for check in failed)} of them).\n\n"
        f"{markdown_table(headers, body)}"
    )


def _figures(study: Study) -> str:
    shown = gallery(study)
    if not shown:
        return ""
    parts = [f"## Its figures, on {describe(study.setting)}\n"]
    for figure in shown:
        heading = f"### {figure.title}, {study.setting.dataset}"
        parts.append(f"{heading}\n\n{_picture(figure)}\n\n{figure.caption}\n")
        if figure.kind == "diversity":
            parts.append(_correlations(study.evidence["diversity"]))
    return "\n".join(parts)


def _picture(figure: Figure, folder: str = "figures") -> str:
    return f"![{figure.title}]({folder}/{figure.file})"


def _correlations(evidence: Evidence) -> str:
    found = correlations(evidence)
    body: dict[tuple[str, str], list[str]] = {}
    for one in found:
        body.setdefault((one.measure, NAMES[one.defense]), []).append(format_correlation(one))
    table = markdown_table(
        ["measure of diversity", "pairs of", *OUTCOMES.values()],
        [[*key, *values] for key, values in body.items()],
    )
    counted = {
        outcome: [one for one in found if one.outcome == outcome and one.significant]
        for outcome in OUTCOMES
    }
    shown = [
        f"{words}, {sum((one.rho or 0) > 0 for one in counted[outcome])} positive and "
        f"{sum((one.rho or 0) < 0 for one in counted[outcome])} negative"
        for outcome, words in OUTCOMES.items()
    ]
    return (
        f"Significant correlations (p < {SIGNIFICANT}, not corrected for multiple testing), of "
        f"{len(found) // len(OUTCOMES)} for each outcome: {'; '.join(shown)}. All are of seed "
        f"{evidence.seed}.\n\n{table}"
    )


def result(found: Mapping[str, Study]) -> str:
    """What the README opens with: the verdict, one table, one plot; from the datasets' studies."""
    if not found:
        return "Nothing has been measured yet.\n"
    study = found.get("mnist") or next(iter(found.values()))
    if not study.radii:
        return "Nothing has been attacked yet.\n"
    eps = format_radius(study.setting.dataset, study.radii[0])
    checked = [(row, gates.check(row)) for row in _rows(study).values()]
    table = ranking(checked, ("defense", "n", "clean", "claimed", "**worst case**", "gates"))
    drawn = [figure for figure in gallery(study) if figure.kind == "curves"]
    parts = [
        "" if study.obstacle else _sentences(study),
        f"**{describe(study.setting)}, Linf, eps = {eps}**",
        table,
        *(f"{_picture(figure, 'leaderboard/figures')}\n\n{figure.caption}" for figure in drawn),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _rows(study: Study) -> dict[str, Row]:
    """The paper's defenses and the yardsticks at the first radius."""
    return {name: row for name in DEFENSES if (row := study.row(name, study.radii[0]))}


def _sentences(study: Study) -> str:
    """The verdict at the first radius in at most four sentences."""
    rows, sentences = _rows(study), []
    dataset = study.setting.dataset
    eps = format_radius(dataset, study.radii[0])
    worst = {name: row.worst for name, row in rows.items() if gates.trusted(row) and row.worst}
    ulm, clm = rows.get("ulm"), rows.get("clm")
    gain = worst_difference(clm, ulm) if ulm and clm else None
    if ulm and clm and gain and ulm.claimed and clm.claimed:
        sentences.append(
            f"On {escape(SPELLED.get(dataset, dataset))} at eps {eps} (pixels in [0, 1]), ULM "
            f"(independently trained networks) answers {_percent(ulm.claimed)} of attacked images "
            f"correctly and CLM (counter-linked ones) {_percent(clm.claimed)}, if each attack "
            "targets one network drawn at random, as in the paper."
        )
        left = [worst[name] for name in COMPARED]
        verdict = {HOLDS: "; a gain remains", FAILS: "; the gain is gone"}
        words = ""
        if max(score.high for score in left) > NOTHING:
            words = verdict.get(decide(gain, 0), "; whether a gain remains is undecided")
        sentences.append(
            "An attacker who targets all networks at once, knowing everything except which one "
            f"will answer, drives them to {' and '.join(map(_percent, left))}{words}."
        )
    single = rows.get("single-adv")
    trained = [rows[name] for name in ADVERSARIAL if name in rows]
    if len(trained) == len(ADVERSARIAL) and single and all(r.complete for r in (*trained, single)):
        names = {"single-adv": "a single network"}
        listed = [
            f"{_percent(row.worst)} ({names.get(row.defense, NAMES[row.defense])})"
            for row in (*trained, single)
            if row.worst
        ]
        sentences.append(
            f"Adversarially trained, they answer at most {_enumerated(listed)} correctly."
            + _compared(trained, single)
        )
    return " ".join(sentences)


def _compared(trained: Sequence[Row], single: Row) -> str:
    """The best population beside one network, its best member and the average.

    Where a row fails a gate its worst case is only an upper bound, and a difference of two upper
    bounds has no interval.
    """
    failing = [row.defense for row in (*trained, single) if not gates.trusted(row)]
    if failing:
        rows = _enumerated([NAMES[defense] for defense in failing])
        number = "row has" if len(failing) == 1 else "rows have"
        return (
            f" These are upper bounds: the {rows} {number} not passed all gates, so no ranking "
            "follows."
        )
    best = max(trained, key=lambda row: row.worst.value if row.worst else 0.0)
    gain = metrics.shared_difference(best.worst_by_seed, single.worst_by_seed)
    averaged = gates.excess(best.by_protocol.get("average", {}), best.cascade)
    differences = {
        "a single network": gain,
        "its own best member": best.gain,
        "the average of its members": averaged
        and Score(-averaged.value, -averaged.high, -averaged.low),
    }
    listed = [f"from {name} by {_points(one)}" for name, one in differences.items() if one]
    return (
        f" In points (95% CI; one training each), {NAMES[best.defense]} differs "
        f"{_enumerated(listed)}."
    )


def _enumerated(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def _points(score: Score) -> str:
    return f"{100 * score.value:+.1f} ({100 * score.low:.1f} to {100 * score.high:.1f})"


def _percent(score: Score) -> str:
    return f"{100 * score.value:.1f}%"
