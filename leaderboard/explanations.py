"""Experiments on why a number differs from the paper's: one thing about it is changed at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from leaderboard import metrics
from leaderboard.baselines import Baselines
from leaderboard.comparison import TOLERANCE, Comparison, near
from leaderboard.drawing import NAMES
from leaderboard.evidence import ADVERSARIAL, COMPARED, SHOWN, Array, Evidence
from leaderboard.formats import format_eps, format_percent, format_points, format_score
from leaderboard.markdown import escape, markdown_table
from leaderboard.metrics import Score
from leaderboard.studies import Study
from leaderboard.table import CASCADE, CLAIM_ATTACKS

# Whose populations the paper's attacks were run on in other ways, by kind of evidence.
ATTACKED = {"variants": COMPARED, "variants-adv": ADVERSARIAL}


@dataclass(frozen=True)
class Way:
    """One of the paper's numbers, measured in another way.

    Attributes:
        name: what was different, in words.
        ours: whether nothing was: it is as the suite measures.
        score: MRA on a part of the images.
    """

    name: str
    ours: bool
    attack: str
    defense: str
    eps: float
    score: Score


def ways(evidence: Evidence) -> list[list[Way]]:
    """What was measured, a row for everything that was different: by defense, or by attack.

    After the last epoch a population is as the suite measures it.
    """
    arrays, parameters = evidence.arrays, evidence.parameters
    if evidence.kind in ATTACKED:
        return [
            [
                _in_a_variant(variant, evidence, defense, arrays[f"{defense} s"][number])
                for defense in ATTACKED[evidence.kind]
            ]
            for number, variant in enumerate(parameters["variants"])
        ]
    if evidence.kind == "retraining":
        return [
            _on(evidence, "clm", "", number, retraining["name"], ours=not retraining["changes"])
            for number, retraining in enumerate(parameters["retrainings"])
        ]
    if evidence.kind == "epochs":
        return [
            _on(evidence, defense, f"{defense} ", epoch - 1, f"after epoch {epoch}", ours=last)
            for defense in ADVERSARIAL
            for epochs in [len(arrays[f"{defense} s"])]
            for epoch in range(1, epochs + 1)
            for last in [epoch == epochs]
        ]
    return []


def _on(
    evidence: Evidence, defense: str, prefix: str, number: int, name: str, *, ours: bool
) -> list[Way]:
    """One population under all that is shown, then under the combined variants.

    On a population as the suite trains it those are not ours either; `ATTACKED` has them, and
    judges them on both populations, so here they count as ours.
    """
    eps = evidence.parameters.get("eps", 0.0)
    shown = zip(SHOWN, evidence.arrays[f"{prefix}s"][number], strict=True)
    combined = zip(
        evidence.parameters["combined"], evidence.arrays[f"{prefix}combined s"][number], strict=True
    )
    return [
        *(
            Way(name, ours, attack, defense, eps * (attack != "none"), _score(s))
            for attack, s in shown
        ),
        *(
            replace(
                _in_a_variant(variant, evidence, defense, s),
                name=f"{name}, {variant['name']}",
                ours=ours,
            )
            for variant, s in combined
        ),
    ]


def _in_a_variant(variant: Mapping[str, Any], evidence: Evidence, defense: str, s: Array) -> Way:
    return Way(
        name=variant["name"],
        ours=variant["ours"],
        attack=variant["attack"],
        defense=defense,
        eps=evidence.parameters["eps"],
        score=_score(s),
    )


def _score(s: Array) -> Score:
    return metrics.score([s[np.newaxis]])


def explain(one: Comparison, study: Study, baselines: Baselines) -> str:
    """Which ways come near a number that ours is far from; nothing if none was tried.

    A way to run an attack explains nothing where it comes near on one population of two.
    """
    if one.ours is None or study.obstacle or near(one.attack, one.ours.value, one.paper):
        return ""
    tried = [
        (
            "retrained " * (kind == "retraining") + way.name,
            all(_is_near(w, evidence, baselines) for w in (run if kind in ATTACKED else [way])),
        )
        for kind, evidence in study.evidence.items()
        for run in ways(evidence)
        for way in run
        if (way.attack, way.defense, way.ours) == (one.attack, one.defense, False)
        and abs(way.eps - one.eps) < 1e-6
    ]
    if not tried:
        return ""
    close = [escape(name) for name, is_near in tried if is_near]
    if close:
        return f"near it: {'; '.join(close)}"
    return (
        f"none of {len(tried)} other ways is near" if len(tried) > 1 else "another way is not near"
    )


def what_moves(study: Study, baselines: Baselines) -> str:
    """All ways, kind by kind, as a section of the report."""
    if study.obstacle:
        return ""
    shown = [
        show(study.evidence[kind], baselines)
        for kind, show in _TABLES.items()
        if kind in study.evidence
    ]
    title = f"## What moves its numbers, {escape(study.setting.dataset)}\n"
    return "\n".join([title, *shown]) if shown else ""


def _attacked(evidence: Evidence, baselines: Baselines) -> str:
    defenses = ATTACKED[evidence.kind]
    eps = format_eps(evidence.dataset, evidence.parameters["eps"])
    body, alike = [], []
    for run in ways(evidence):
        cells, close = [f"`{run[0].attack}`", escape(run[0].name)], []
        for way in run:
            ours, paper = way.score.value, _theirs(way, evidence, baselines)
            difference = None if paper is None else ours - paper
            cells += [format_percent(ours), format_percent(paper), format_points(difference)]
            close.append(near(way.attack, ours, paper))
        body.append(cells)
        if all(close):
            alike.append(" ".join(cells[:2]))
    headers = ["attack", "run"]
    for defense in defenses:
        headers += [NAMES[defense], "paper", "difference"]
    names = " and ".join(NAMES[defense] for defense in defenses)
    return (
        f"{len(body)} ways to run the paper's attacks on {names}, each on one drawn network, "
        f"by torchattacks in float32, on the first {evidence.parameters['images']:,} images, eps "
        f"{eps}, seed {evidence.seed}. Within {100 * TOLERANCE:.0f} points of the paper for both "
        f"populations: {'; '.join(alike) or 'none'}.\n\n" + markdown_table(headers, body)
    )


def _retrained(evidence: Evidence, baselines: Baselines) -> str:
    """CLM from the same ULM, retrained with at most one number changed."""
    runs = ways(evidence)
    theirs = [_theirs(way, evidence, baselines) for way in runs[0]]
    body = [["*the paper's CLM*", *map(format_percent, theirs)]]
    alike = []
    for run in runs:
        body.append([escape(run[0].name), *(format_score(way.score) for way in run)])
        tables = {way.attack for way in run} - {CASCADE}
        if tables == {way.attack for way in run if _is_near(way, evidence, baselines)}:
            alike.append(escape(run[0].name))
    return (
        "CLMs retrained from the same ULM, each once, with at most one number changed, and for "
        f"comparison without counter-linking; {_under_what('Table 2', evidence)}. Near all of the "
        "paper's numbers, an attack in one of the ways that it was run: "
        f"{'; '.join(alike) or 'none'}.\n\n"
        + markdown_table(["retrained", *_columns(evidence)], body)
    )


def _after_epochs(evidence: Evidence, baselines: Baselines) -> str:
    """The adversarially trained populations on their way, beside the paper's numbers."""
    body, ranges = [], []
    for defense in ADVERSARIAL:
        runs = [run for run in ways(evidence) if run[0].defense == defense]
        theirs = [format_percent(_theirs(way, evidence, baselines)) for way in runs[0]]
        body.append([NAMES[defense], "*the paper's*", *theirs])
        for run in runs:
            body.append([NAMES[defense], run[0].name, *(format_score(way.score) for way in run)])
        left = {
            attack: [run[shown].score.value for run in runs] for shown, attack in enumerate(SHOWN)
        }
        widest = max(CLAIM_ATTACKS, key=lambda attack: np.ptp(left[attack]))
        low, high = (format_percent(extreme(left[widest])) for extreme in (min, max))
        ranges.append(f"{NAMES[defense]}'s under `{widest}`, {low} to {high}")
    return (
        "The adversarially trained populations after each epoch of their training: how far a "
        f"number depends on when training ends; {_under_what('the tables', evidence)}. The widest "
        f"ranges: {'; '.join(ranges)}.\n\n"
        + markdown_table(["defense", "", *_columns(evidence)], body)
    )


def _under_what(tables: str, evidence: Evidence) -> str:
    eps = format_eps(evidence.dataset, evidence.parameters["eps"])
    return (
        f"under the attacks of {tables} as we run them, the worst case over these and the cascade, "
        "and last under some of the paper's attacks in other ways, on the first "
        f"{evidence.parameters['images']:,} images, eps {eps}, seed {evidence.seed}"
    )


def _columns(evidence: Evidence) -> list[str]:
    """Headers for what `_on` gives."""
    combined = (f"{v['attack']}, {v['name']}" for v in evidence.parameters["combined"])
    return ["clean", *SHOWN[1:-1], "worst case", *map(escape, combined)]


def _is_near(way: Way, evidence: Evidence, baselines: Baselines) -> bool:
    return near(way.attack, way.score.value, _theirs(way, evidence, baselines))


def _theirs(way: Way, evidence: Evidence, baselines: Baselines) -> float | None:
    return baselines.paper_mra(evidence.dataset, way.attack, way.eps, way.defense)


_TABLES = {
    "variants": _attacked,
    "retraining": _retrained,
    "variants-adv": _attacked,
    "epochs": _after_epochs,
}
