"""Experiments on why a number differs from the paper's: other attacks, other training, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from leaderboard import metrics
from leaderboard.baselines import Baselines
from leaderboard.formats import format_percent, format_points, format_score
from leaderboard.markdown import escape, markdown_table
from leaderboard.metrics import Score
from leaderboard.paper.comparison import TOLERANCE, Comparison, near
from leaderboard.paper.evidence import ADVERSARIAL, COMPARED, SHOWN, Array, Evidence
from leaderboard.paper.names import CASCADE, CLAIM_ATTACKS, NAMES, format_radius
from leaderboard.paper.studies import Study

# Whose populations the paper's attacks were run on in other ways, by kind of evidence.
ATTACKED = {"variants": COMPARED, "variants-adv": ADVERSARIAL}
# What of a variation's training may differ from the suite's.
_HOW = ("changes", "recipe", "images", "in_turn", "start")


@dataclass(frozen=True)
class Way:
    """One of the paper's numbers, measured in another way.

    Attributes:
        trained: what was different about the population, in words; empty if it is the suite's.
        attacked: what was different about the attack; empty if it was run as the suite does.
        score: MRA on a part of the images.
    """

    trained: str
    attacked: str
    attack: str
    defense: str
    eps: float
    score: Score

    @property
    def name(self) -> str:
        """What was different, in words; empty if nothing was."""
        return ", ".join(part for part in (self.trained, self.attacked) if part)


def ways(evidence: Evidence) -> list[list[Way]]:
    """What was measured: a row for each variant of an attack, or for each population.

    A population's row is of what `SHOWN` names, then of the combined variants. After the last epoch
    it is the suite's.
    """
    arrays, parameters = evidence.arrays, evidence.parameters
    if evidence.kind in ATTACKED:
        return [
            [
                _in_a_variant(variant, evidence, "", defense, arrays[f"{defense} s"][number])
                for defense in ATTACKED[evidence.kind]
            ]
            for number, variant in enumerate(parameters["variants"])
        ]
    if evidence.kind == "retraining":
        names = [
            f"retrained, {one['name']}" if any(one[how] for how in _HOW) else ""
            for one in parameters["retrainings"]
        ]
        return _of_populations(evidence, names, "clm", "")
    if evidence.kind == "epochs":
        return [
            row
            for defense in ADVERSARIAL
            for row in _of_populations(
                evidence,
                [f"after epoch {k}" for k in range(1, len(arrays[f"{defense} s"]))] + [""],
                defense,
                f"{defense} ",
            )
        ]
    if evidence.kind == "retraining-adv":
        return [
            _of_a_population(evidence, one["name"], one["defense"], shown, combined)
            for one, shown, combined in zip(
                parameters["continued"], arrays["s"], arrays["combined s"], strict=True
            )
        ]
    return []


def _of_populations(
    evidence: Evidence, trained: Sequence[str], defense: str, prefix: str
) -> list[list[Way]]:
    rows = (evidence.arrays[f"{prefix}s"], evidence.arrays[f"{prefix}combined s"])
    return [
        _of_a_population(evidence, name, defense, shown, combined)
        for name, shown, combined in zip(trained, *rows, strict=True)
    ]


def _of_a_population(
    evidence: Evidence, trained: str, defense: str, shown: Array, combined: Array
) -> list[Way]:
    eps = evidence.parameters["eps"]
    return [
        *(
            Way(trained, "", attack, defense, eps if attack != "none" else 0.0, _score(s))
            for attack, s in zip(SHOWN, shown, strict=True)
        ),
        *(
            _in_a_variant(variant, evidence, trained, defense, s)
            for variant, s in zip(evidence.parameters["combined"], combined, strict=True)
        ),
    ]


def _in_a_variant(
    variant: Mapping[str, Any], evidence: Evidence, trained: str, defense: str, s: Array
) -> Way:
    attacked = "" if variant["ours"] else variant["name"]
    eps = evidence.parameters["eps"]
    return Way(trained, attacked, variant["attack"], defense, eps, _score(s))


def _score(s: Array) -> Score:
    return metrics.score([metrics.Answers(s[np.newaxis])])


def explain(one: Comparison, study: Study, baselines: Baselines) -> str:
    """Why a number of ours may be far from the paper's; nothing if nothing was tried.

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
    experiments = [study.evidence[kind] for kind in _TABLES if kind in study.evidence]
    comes_near = {
        way: _is_near(way, evidence, baselines) and (whole or evidence.kind != "retraining")
        for evidence in experiments
        for row in ways(evidence)
        for whole in [_near_throughout(row, evidence, baselines) or not row[0].trained]
        for way in row
        if way.attack == one.attack
    }

    def explains(way: Way) -> bool:
        alike: dict[tuple[str, float], bool] = {}
        for other, is_near in comes_near.items():
            if other.attacked == way.attacked:
                alike[_where(other)] = alike.get(_where(other), False) or is_near
        return comes_near[way] and (not way.attacked or all(alike.values()))

    tried = [way for way in comes_near if _where(way) == _where(one) and way.name]
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
        return f"near it, though not everywhere: {'; '.join(here)}"
    others = len({way.name for way in tried})
    return f"none of {others} other ways is near" if others > 1 else "another way is not near"


def _where(number: Way | Comparison) -> tuple[str, float]:
    """Whose number it is and at which radius, the same however that was computed."""
    return number.defense, round(number.eps, 6)


@dataclass(frozen=True)
class Networks:
    """What is left of a population, network by network.

    Attributes:
        left: (n, n), the share of images that network j answers right when i is attacked.
    """

    defense: str
    attack: str
    left: Array

    @property
    def shares(self) -> Array:
        """What each adds to MRA, attacked and answering."""
        return metrics.network_shares(self.left)

    @property
    def another(self) -> Score:
        """MRA, and where that of as many networks trained anew would lie."""
        return metrics.another_mean(self.shares, len(self.shares))


def by_network(evidence: Evidence) -> list[Networks]:
    """Each defense under each of the paper's attacks."""
    return [
        Networks(defense, attack, left)
        for defense in ADVERSARIAL
        for attack, left in zip(CLAIM_ATTACKS, evidence.arrays[f"{defense} left"], strict=True)
    ]


def may_leave(one: Comparison, study: Study) -> str:
    """What other networks, trained alike, may leave, if the paper's number is in reach of it."""
    evidence = study.evidence.get("networks")
    if evidence is None or abs(evidence.parameters["eps"] - one.eps) > 1e-6:
        return ""
    for found in by_network(evidence):
        if (found.defense, found.attack) == (one.defense, one.attack):
            another = found.another
            if another.low <= one.paper <= another.high:
                reach = f"{format_percent(another.low)} to {format_percent(another.high)}"
                return f"{len(found.left)} other networks trained alike may leave {reach} (95%)"
    return ""


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
        "What follows is of one training. Another seed alone moves MRA by points: at eps "
        f"{format_radius(study.setting.dataset, eps)}, by seed, {'; '.join(listed)}.\n"
    ]


def _attacked(evidence: Evidence, baselines: Baselines) -> str:
    defenses = ATTACKED[evidence.kind]
    eps = format_radius(evidence.dataset, evidence.parameters["eps"])
    body, alike = [], []
    for variant, run in zip(evidence.parameters["variants"], ways(evidence), strict=True):
        cells = [f"`{variant['attack']}`", escape(variant["name"])]
        for way in run:
            ours, paper = way.score.value, _theirs(way, evidence, baselines)
            difference = None if paper is None else ours - paper
            cells += [format_percent(ours), format_percent(paper), format_points(difference)]
        body.append(cells)
        if all(_is_near(way, evidence, baselines) for way in run):
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
    """CLM from the same ULM, retrained with at most one thing changed."""
    names = [escape(retraining["name"]) for retraining in evidence.parameters["retrainings"]]
    rows = ways(evidence)
    body = [
        ["*the paper's CLM*", *_paper_s(rows[0], evidence, baselines)],
        *([name, *_scores(row)] for name, row in zip(names, rows, strict=True)),
    ]
    return (
        "CLMs retrained from the same ULM, each once, with at most one thing changed, and for "
        "comparison without counter-linking. Ours train in step, each submodel a batch before any "
        "takes the next; in the script that the paper's authors released one submodel after "
        f"another trains a whole epoch. {_measured_how(evidence)} "
        f"{_near_all(names, evidence, baselines)}\n\n"
        + markdown_table(["retrained", *_columns(evidence)], body)
    )


def _after_epochs(evidence: Evidence, baselines: Baselines) -> str:
    """The adversarially trained populations on their way, beside the paper's numbers."""
    body, ranges = [], []
    for defense in ADVERSARIAL:
        rows = [row for row in ways(evidence) if row[0].defense == defense]
        body.append([NAMES[defense], "*the paper's*", *_paper_s(rows[0], evidence, baselines)])
        for epoch, row in enumerate(rows, start=1):
            body.append([NAMES[defense], f"after epoch {epoch}", *_scores(row)])
        left = {
            attack: [row[shown].score.value for row in rows] for shown, attack in enumerate(SHOWN)
        }
        widest = max(CLAIM_ATTACKS, key=lambda attack: np.ptp(left[attack]))
        low, high = (format_percent(extreme(left[widest])) for extreme in (min, max))
        ranges.append(f"{NAMES[defense]}'s under `{widest}`, {low} to {high}")
    return (
        "The adversarially trained populations after each epoch of their training: how far a "
        f"number depends on when training ends. {_measured_how(evidence)} The widest ranges: "
        f"{'; '.join(ranges)}.\n\n" + markdown_table(["defense", "", *_columns(evidence)], body)
    )


def _continued(evidence: Evidence, baselines: Baselines) -> str:
    """ULM-Adv trained on, without counter-linking and with it."""
    trained = list(zip(evidence.parameters["continued"], ways(evidence), strict=True))
    names = [escape(one["name"]) for one, _ in trained]
    body = []
    for defense in ADVERSARIAL:
        own = [(one, row) for one, row in trained if one["defense"] == defense]
        if not own:
            continue
        paper = _paper_s(own[0][1], evidence, baselines)
        body.append([NAMES[defense], "*the paper's*", "", *paper])
        for one, row in own:
            body.append([NAMES[defense], escape(one["name"]), _how_long(one), *_scores(row)])
    return (
        "ULM-Adv trained on, with a new optimizer (at its own learning rate, unless another is "
        "named), without counter-linking and with it. The "
        "CLM-Adv that the paper's authors released is named after the number of epochs of CLM's "
        "retraining: it may be a retrained ULM-Adv, where ours is counter-linked from the start. "
        "Their script trains one submodel after another within each epoch, and for 10 epochs "
        f"unless told otherwise. {_measured_how(evidence)} "
        f"{_near_all(names, evidence, baselines)}\n\n"
        + markdown_table(["defense", "", "more training", *_columns(evidence)], body)
    )


def _how_long(variation: Mapping[str, Any]) -> str:
    """For how long, on what and at what learning rate ULM-Adv was trained on, in words."""
    recipe, images, start = (variation[name] for name in ("recipe", "images", "start"))
    if not start:
        return ""
    epochs = recipe.get("epochs")
    how = "as many epochs" if epochs is None else f"{epochs} epoch{'s' if epochs > 1 else ''}"
    if images:
        how += f" of {images:,} images"
    if "learning_rate" in recipe:
        how += f" at {recipe['learning_rate']:g}"
    earlier = _how_long(start)
    return f"{earlier}, then {how}" if earlier else how


def _networks(evidence: Evidence, baselines: Baselines) -> str:
    """The populations by the network that was attacked."""
    eps = evidence.parameters["eps"]
    found = by_network(evidence)
    n = len(found[0].left)
    body = []
    for one in found:
        paper = baselines.paper_mra(evidence.dataset, one.attack, eps, one.defense)
        shares = [format_percent(float(share)) for share in one.left.mean(axis=1)]
        cells = [NAMES[one.defense], f"`{one.attack}`", format_percent(paper)]
        body.append([*cells, *shares, format_score(one.another)])
    headers = ["defense", "attack", "paper", *(f"network {i}" for i in range(n)), "mean"]
    return (
        "What is left of each population by the network that was attacked (all answer), on the "
        f"first {evidence.parameters['images']:,} images, eps "
        f"{format_radius(evidence.dataset, eps)}, seed {evidence.seed}. After the mean, in "
        f"brackets, where 95 in 100 means of {n} other networks trained alike would lie, by what "
        "each of these leaves when attacked and answers when another is, if networks are "
        "independent and what they leave is normally distributed. Where such an interval is wide, one population "
        "of so few networks settles nothing.\n\n" + markdown_table(headers, body)
    )


def _measured_how(evidence: Evidence) -> str:
    eps = format_radius(evidence.dataset, evidence.parameters["eps"])
    return (
        "Measured under the attacks of the tables as we run them, the worst case over these and "
        "the cascade, and last in ways of the table of variants, by torchattacks in float32, on "
        f"the first {evidence.parameters['images']:,} images, eps {eps}, seed {evidence.seed}."
    )


def _near_all(names: Sequence[str], evidence: Evidence, baselines: Baselines) -> str:
    """Which of the populations are near all of the paper's numbers, as a sentence."""
    rows = zip(names, ways(evidence), strict=True)
    near_all = [name for name, row in rows if _near_throughout(row, evidence, baselines)]
    return (
        "Near all of the paper's numbers, each attack as we run it or in its other way: "
        f"{'; '.join(near_all) or 'none'}."
    )


def _columns(evidence: Evidence) -> list[str]:
    """What the ways of a population are of."""
    combined = (f"{v['attack']}, {v['name']}" for v in evidence.parameters["combined"])
    return ["clean", *SHOWN[1:-1], "worst case", *map(escape, combined)]


def _scores(row: Sequence[Way]) -> list[str]:
    return [format_score(way.score) for way in row]


def _paper_s(row: Sequence[Way], evidence: Evidence, baselines: Baselines) -> list[str]:
    return [format_percent(_theirs(way, evidence, baselines)) for way in row]


def _near_throughout(row: Sequence[Way], evidence: Evidence, baselines: Baselines) -> bool:
    """Whether a population is near all of the paper's numbers, each in one of its ways."""
    close = {way.attack for way in row if _is_near(way, evidence, baselines)}
    return close == {way.attack for way in row} - {CASCADE}


def _is_near(way: Way, evidence: Evidence, baselines: Baselines) -> bool:
    return near(way.attack, way.score.value, _theirs(way, evidence, baselines))


def _theirs(way: Way, evidence: Evidence, baselines: Baselines) -> float | None:
    return baselines.paper_mra(evidence.dataset, way.attack, way.eps, way.defense)


_TABLES = {
    "variants": _attacked,
    "retraining": _retrained,
    "networks": _networks,
    "variants-adv": _attacked,
    "epochs": _after_epochs,
    "retraining-adv": _continued,
}
