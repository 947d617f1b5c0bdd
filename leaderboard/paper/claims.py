"""The paper's claims, one by one, judged by what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from leaderboard import gates, metrics
from leaderboard.baselines import Baselines
from leaderboard.formats import format_difference, format_percent, format_score
from leaderboard.metrics import Score
from leaderboard.paper.evidence import COMPARED, DIVERSITY, OUTCOMES, Evidence
from leaderboard.paper.findings import correlations, format_correlation
from leaderboard.paper.names import CLAIM_ATTACKS, NAMES, RADII, SUBMODELS, format_radius
from leaderboard.paper.studies import Study
from leaderboard.rows import BySeed, Row, answers, own_and_others

# The paper's datasets, as claims spell them.
SPELLED = {"mnist": "MNIST", "cifar10": "CIFAR-10"}

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
NOT_MEASURED = "not measured"
UNTRUSTED = "not judged: gates {}"
# Where a claim says nothing of that attacker.
NO_MATTER = "–"

# What the paper's words are taken to mean, in MRA.
GAIN, SAME, RANGE = 0.15, 0.02, 0.01
# How many CLMs the paper's conformity test has.
CONFORMITY = 5
# The retraining is looked at in so many parts; in each a weight that keeps drifting makes at least
# this share of its way.
PARTS, SHARE = 3, 0.1


@dataclass(frozen=True)
class Verdict:
    """How a claim fares.

    Attributes:
        claimed: against the paper's attacks: one of the words above, or why it is not judged.
        worst: in the worst case, likewise.
        figures: what was measured.
        trainings: how many training seeds the verdict against the paper's attacks rests on; of
            one, intervals say nothing of how another training would have fared.
    """

    claimed: str
    worst: str
    figures: str
    trainings: int = 1


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        text: the claim, in our words.
        where: in the paper.
        means: what it is taken to mean, so that it can be judged.
        dataset: that it is judged on.
        support: sections of the report that show it.
        judge: from a study to a verdict; None: what it takes was not measured.
    """

    text: str
    where: str
    means: str
    dataset: str
    support: tuple[str, ...]
    judge: Callable[[Study], Verdict | None]


def judge_claims(
    studies: Mapping[str, Study], baselines: Baselines
) -> list[tuple[Claim, Verdict | None]]:
    """Every claim with its verdict; under less than the paper's budget only with figures."""
    found = []
    for claim in _claims(baselines):
        study = studies.get(claim.dataset)
        verdict = claim.judge(study) if study else None
        if verdict and study and study.obstacle:
            verdict = replace(verdict, claimed=f"not judged: {study.obstacle}", worst=NO_MATTER)
        found.append((claim, verdict))
    return found


def _claims(baselines: Baselines) -> list[Claim]:
    tables = baselines.paper["tables"]
    least, same = f"{100 * GAIN:.0f} points", f"{100 * SAME:.0f} points"
    gain_means = f"CLM minus ULM is above {least} under each of FGSM, MI-FGSM, PGD and AutoAttack"
    alike_means = f"less than {same} apart under each of FGSM, MI-FGSM, PGD and AutoAttack"
    return [
        Claim(
            "Counter-linking adds around 20 points of robustness on MNIST.",
            *("abstract, 4.1", gain_means, "mnist", ("Table 2", "What is left at every eps")),
            lambda study: _gain(study, tables["2"]),
        ),
        Claim(
            "Counter-linking adds at least 15 points on CIFAR-10.",
            *("abstract", gain_means, "cifar10", ("Table 3",)),
            lambda study: _gain(study, tables["3"]),
        ),
        *(
            Claim(
                f"It costs hardly any clean accuracy on {SPELLED[dataset]}.",
                *("4, Table 1", f"less than {same}", dataset, ("Table 1",)),
                _clean_cost,
            )
            for dataset in ("mnist", "cifar10")
        ),
        *(
            Claim(
                f"Five CLMs trained anew keep the range of accuracy on {SPELLED[dataset]}.",
                "4",
                f"their clean MRAs lie within {100 * RANGE:.0f} point of each other",
                *(dataset, ("Conformity of CLMs (Section 4)",)),
                _of_evidence("conformity", _conformity),
            )
            for dataset in ("mnist", "cifar10")
        ),
        Claim(
            "CLM with adversarial training is state of the art on MNIST.",
            "abstract, 4.1",
            "at least the best figure published for a single network",
            *("mnist", ("Table 2",)),
            lambda study: _state_of_the_art(study, baselines),
        ),
        Claim(
            "ULM-Adv and CLM-Adv perform alike on MNIST at eps 0.3.",
            *("4.1, Table 2", alike_means, "mnist", ("Table 2",)),
            _alike,
        ),
        Claim(
            "ULM-Adv and CLM-Adv perform alike on CIFAR-10 at eps 8/255.",
            *("4.1, Table 3", alike_means, "cifar10", ("Table 3",)),
            _alike,
        ),
        Claim(
            "At eps 0.4 on MNIST CLM-Adv is ahead under FGSM and MI-FGSM, ULM-Adv under PGD and "
            "AutoAttack.",
            *("4.1, Table 4", "each difference has that sign", "mnist", ("Table 4",)),
            lambda study: _order(study, ("fgsm", "mifgsm")),
        ),
        Claim(
            "At eps 16/255 on CIFAR-10 CLM-Adv is ahead under all attacks.",
            *("4.1, Table 5", "each difference has that sign", "cifar10", ("Table 5",)),
            lambda study: _order(study, CLAIM_ATTACKS),
        ),
        Claim(
            "CLM does best against EOT, the attack made for random defenses.",
            "4.1, Table 2",
            "more is left under it than under each of the four other attacks; judged where it "
            "draws networks, and so knows them all: the authors' script ran it on one",
            *("mnist", ("Table 2",)),
            _expectation,
        ),
        Claim(
            "The first-layer weights of CLM spread wider than those of ULM.",
            "Fig. 4",
            "within each submodel, on average",
            *("mnist", ("First-layer weights (Fig. 4)",)),
            _of_evidence("weights", _spread),
        ),
        Claim(
            "Counter-linked weights of LeNet5s keep diverging throughout the retraining.",
            "4",
            f"the watched weight's spread makes at least {100 * SHARE:.0f}% of its way in each "
            "third of the retraining; the caption of Fig. 5 has them settle in the end",
            *("mnist", ("A weight over the retraining (Fig. 5)",)),
            _of_evidence("trajectory", _drift),
        ),
        *(
            Claim(
                "Saliency maps are more orthogonal in CLM than in ULM "
                + ("(CIFAR-10)." if dataset == "cifar10" else "(the paper: CIFAR-10; here MNIST)."),
                "4.2, Fig. 6",
                "the mean |cosine| over pairs is smaller, image by image",
                *(dataset, ("Saliency maps (Fig. 6)",)),
                _of_evidence("saliency", _orthogonal),
            )
            for dataset in ("cifar10", "mnist")
        ),
        Claim(
            "The more orthogonal the saliency maps of two submodels, the less an attack carries "
            "over (the paper: CIFAR-10; here MNIST).",
            "4.2",
            "a significant rank correlation over pairs, in ULM and in CLM",
            *("mnist", ("Does diversity buy robustness?",)),
            _of_evidence("diversity", _orthogonality_protects),
        ),
        Claim(
            "An attack nearly always succeeds where the submodel that it was crafted on answers.",
            *("4.2", f"less than {same} left", "mnist", ("From network to network (Section 4.2)",)),
            _own,
        ),
        Claim(
            f"More than {SUBMODELS} submodels would not be more robust.",
            "3",
            f"under PGD at most {same} would be gained, in ULM and in CLM, with however many: what "
            "is left where another network than the one attacked answers",
            *("mnist", ("How many networks", "From network to network (Section 4.2)")),
            _size_is_nothing,
        ),
    ]


def decide(value: Score, least: float) -> str:
    """Whether a figure is above so much: by its interval, not by its middle."""
    if value.low > least:
        return HOLDS
    return FAILS if value.high < least else UNDECIDED


def _below(value: Score, limit: float) -> str:
    """Whether a figure's size is below a limit."""
    if max(abs(value.low), abs(value.high)) < limit:
        return HOLDS
    return FAILS if value.low > limit or value.high < -limit else UNDECIDED


def _all_of(verdicts: Iterable[str]) -> str:
    listed = list(verdicts)
    if FAILS in listed:
        return FAILS
    return UNDECIDED if UNDECIDED in listed else HOLDS


def _of_evidence(
    kind: str, judge: Callable[[Evidence], Verdict | None]
) -> Callable[[Study], Verdict | None]:
    def found(study: Study) -> Verdict | None:
        evidence = study.evidence.get(kind)
        return judge(evidence) if evidence else None

    return found


def _pair(study: Study, first: str, second: str, radius: int = 0) -> tuple[Row, Row] | None:
    eps = RADII[study.setting.dataset][radius]
    one, other = study.row(first, eps), study.row(second, eps)
    return (one, other) if one and other else None


def _trainings(*rows: Row) -> int:
    """How many training seeds all rows have."""
    return len(set.intersection(*(set(row.seeds) for row in rows)))


def _attack_difference(first: Row, second: Row, attack: str) -> Score | None:
    """MRA of the first minus the second under one attack, paired over images."""
    return metrics.shared_difference(
        *(answers(row.by_attack.get(attack, {})) for row in (first, second))
    )


def worst_difference(first: Row, second: Row) -> Score | None:
    """Worst-case MRA of the first minus the second, paired over images.

    None unless a verdict may rest on both.
    """
    if not (gates.trusted(first) and gates.trusted(second)):
        return None
    return metrics.shared_difference(first.worst_by_seed, second.worst_by_seed)


def _judged(worst: Score | None, rows: tuple[Row, Row], judge: Callable[[Score], str]) -> str:
    """How a difference in the worst case is judged, or why it is not."""
    if worst:
        return judge(worst)
    return _untrusted(*rows) if all(row.complete for row in rows) else NOT_MEASURED


def _untrusted(*rows: Row) -> str:
    """Why no verdict may rest on the rows."""
    found = [gates.outcome(gates.check(row)) for row in rows]
    return UNTRUSTED.format("failed" if "failed" in found else "not all run")


def _under_each(first: Row, second: Row) -> dict[str, Score] | None:
    """The difference under each attack of a claim; None unless all were run on both."""
    found = {attack: _attack_difference(first, second, attack) for attack in CLAIM_ATTACKS}
    known = {attack: difference for attack, difference in found.items() if difference}
    return known if len(known) == len(found) else None


def _listed(differences: Mapping[str, Score]) -> str:
    return ", ".join(
        f"{attack} {format_difference(found)}" for attack, found in differences.items()
    )


def _gain(study: Study, table: Mapping[str, Any]) -> Verdict | None:
    rows = _pair(study, "clm", "ulm")
    claimed = _under_each(*rows) if rows else None
    if not rows or not claimed:
        return None
    worst = worst_difference(*rows)
    theirs = [table["rows"][name]["clm"] - table["rows"][name]["ulm"] for name in CLAIM_ATTACKS]
    figures = f"CLM minus ULM, points: {_listed(claimed)}"
    if worst:
        left = ", ".join(
            f"{NAMES[row.defense]} {format_percent(row.worst.value)}" for row in rows if row.worst
        )
        figures += f"; worst case {format_difference(worst)}, left: {left}"
    figures += f". The paper's own table: {min(theirs):+.1f} to {max(theirs):+.1f}"
    if min(theirs) < 100 * GAIN:
        figures += f", not above {100 * GAIN:.0f} under each of the four"
    under_all = _all_of(decide(difference, GAIN) for difference in claimed.values())
    judged = _judged(worst, rows, lambda d: decide(d, GAIN))
    return Verdict(under_all, judged, figures, _trainings(*rows))


def _clean_cost(study: Study) -> Verdict | None:
    rows = _pair(study, "clm", "ulm")
    cost = _attack_difference(*rows, "none") if rows else None
    if not rows or cost is None:
        return None
    errors = ", ".join(
        f"{NAMES[row.defense]} {100 * (1 - clean.value):.1f}%"
        for row in rows
        if (clean := row.score("none"))
    )
    figures = f"CLM minus ULM {format_difference(cost)} points; errors: {errors}"
    return Verdict(decide(cost, -SAME), NO_MATTER, figures, _trainings(*rows))


def _conformity(evidence: Evidence) -> Verdict | None:
    clean, claimed = (evidence.arrays[name] for name in ("clean", "claimed"))
    if len(clean) < CONFORMITY:
        return None
    by_clm, attacked = clean.mean(axis=1), claimed.mean(axis=1)
    theirs = " (paper: 98.5 to 99.04)" if evidence.dataset == "mnist" else ""
    figures = (
        f"{len(clean)} CLMs: clean MRA {100 * by_clm.min():.1f} to {100 * by_clm.max():.1f}, "
        f"single submodels {100 * clean.min():.1f} to {100 * clean.max():.1f}{theirs}; under PGD "
        f"{100 * attacked.min():.1f} to {100 * attacked.max():.1f}"
    )
    verdict = HOLDS if np.ptp(by_clm) < RANGE else FAILS
    return Verdict(verdict, NO_MATTER, figures, len(clean))


def _state_of_the_art(study: Study, baselines: Baselines) -> Verdict | None:
    row = study.row("clm-adv", RADII["mnist"][0])
    alone = study.row("single-adv", RADII["mnist"][0])
    if not row or not row.complete or row.claimed is None or row.worst is None:
        return None
    listed = (one for one in baselines.published["rows"] if one["dataset"] == "mnist")
    best = max(listed, key=lambda one: float(one["robust"]))
    figures = f"CLM-Adv: claimed {format_score(row.claimed)}, worst case {format_score(row.worst)}"
    if alone and alone.complete:
        figures += f"; one adversarially trained network, worst case {format_score(alone.worst)}"
    theirs = baselines.paper_mra("mnist", "autoattack", RADII["mnist"][0], "clm-adv")
    figures += f"; the paper's own AutoAttack {format_percent(theirs)}; published for a single "
    figures += f"network: {best['robust']:.2f} ({best['name']}, {best['evaluator']})"
    least = best["robust"] / 100
    worst = decide(row.worst, least) if gates.trusted(row) else _untrusted(row)
    return Verdict(decide(row.claimed, least), worst, figures, _trainings(row))


def _alike(study: Study) -> Verdict | None:
    rows = _pair(study, "clm-adv", "ulm-adv")
    found = _under_each(*rows) if rows else None
    if not rows or not found:
        return None
    worst = worst_difference(*rows)
    figures = f"CLM-Adv minus ULM-Adv, points: {_listed(found)}"
    if worst:
        figures += f"; worst case {format_difference(worst)}"
    verdict = _all_of(_below(difference, SAME) for difference in found.values())
    judged = _judged(worst, rows, lambda d: _below(d, SAME))
    return Verdict(verdict, judged, figures, _trainings(*rows))


def _order(study: Study, ahead: tuple[str, ...]) -> Verdict | None:
    """At the larger radius CLM-Adv is ahead under these attacks and behind under the others.

    Where networks were told apart, it must be so over images and over networks.
    """
    rows = _pair(study, "clm-adv", "ulm-adv", radius=1)
    found = _under_each(*rows) if rows else None
    if not rows or not found:
        return None
    figures = f"CLM-Adv minus ULM-Adv, points: {_listed(found)}"
    by_network = study.grids.get("networks")
    if by_network and abs(by_network.layout.eps - RADII[study.setting.dataset][1]) < 1e-6:
        shares = {
            (way.defense, way.attack): metrics.network_shares(way.accuracies)
            for way in sum(by_network.rows, ())
            if way.accuracies is not None
        }
        apart = {
            attack: metrics.means_apart(*(shares[row.defense, attack] for row in rows))
            for attack in CLAIM_ATTACKS
        }
        figures += f"; over networks: {_listed(apart)}"
        found = {a: Score(d.value, *metrics.hull(d, apart[a])) for a, d in found.items()}
    signed = (d if a in ahead else Score(-d.value, -d.high, -d.low) for a, d in found.items())
    verdict = _all_of(decide(difference, 0) for difference in signed)
    return Verdict(verdict, NO_MATTER, figures, _trainings(*rows))


def _expectation(study: Study) -> Verdict | None:
    row = study.row("clm", RADII["mnist"][0])
    ours = row.score("pgd-eot") if row else None
    if row is None or ours is None:
        return None
    excess = [
        gates.excess(row.by_attack["pgd-eot"], row.by_attack.get(attack, {}))
        for attack in CLAIM_ATTACKS
    ]
    left = [s.value for attack in CLAIM_ATTACKS if (s := row.score(attack))]
    if len(left) < len(CLAIM_ATTACKS):
        return None
    figures = (
        f"CLM: {format_score(ours)} under PGD that draws networks, {format_percent(min(left))} to "
        f"{format_percent(max(left))} under the four attacks on one network"
    )
    verdict = _all_of(decide(one, 0) for one in excess if one)
    judged = verdict if gates.trusted(row) else _untrusted(row)
    return Verdict(NO_MATTER, judged, figures, _trainings(row))


def _spread(evidence: Evidence) -> Verdict | None:
    ulm, clm = (evidence.arrays[name].reshape(len(evidence.arrays[name]), -1) for name in COMPARED)
    if len(ulm) < 2:
        return None
    wider = metrics.mean(clm.std(axis=1) - ulm.std(axis=1))
    figures = (
        f"standard deviation: ULM {ulm.std():.3f}, CLM {clm.std():.3f}; within a submodel "
        f"{wider.value:+.3f} ({wider.low:+.3f} to {wider.high:+.3f})"
    )
    return Verdict(decide(wider, 0), NO_MATTER, figures)


def _drift(evidence: Evidence) -> Verdict | None:
    spread = evidence.arrays["linked"].std(axis=0)
    if len(spread) <= PARTS:
        return None
    at = np.linspace(0, len(spread) - 1, PARTS + 1).round().astype(int)
    way = float(spread[-1] - spread[0])
    steps = [float(spread[b] - spread[a]) for a, b in pairwise(at)]
    free = float(np.ptp(evidence.arrays["free"].std(axis=0)[[0, -1]]))
    shown = ", ".join(f"{spread[i]:.3f}" for i in at)
    figures = (
        "standard deviation of the linked weight over submodels, at the start and after each "
        f"third: {shown}; the free one's changes by {free:.3f}"
    )
    keeps = way > free and all(step >= SHARE * way for step in steps)
    return Verdict(HOLDS if keeps else FAILS, NO_MATTER, figures)


def _orthogonal(evidence: Evidence) -> Verdict | None:
    ulm, clm = (evidence.arrays[f"{name} absolute"] for name in COMPARED)
    closer = metrics.mean(ulm - clm)
    figures = (
        f"mean |cosine|: ULM {ulm.mean():.3f}, CLM {clm.mean():.3f}, difference "
        f"{closer.value:+.3f} ({closer.low:+.3f} to {closer.high:+.3f} over images)"
    )
    return Verdict(decide(closer, 0), NO_MATTER, figures)


def _orthogonality_protects(evidence: Evidence) -> Verdict | None:
    found = [c for c in correlations(evidence) if c.measure == DIVERSITY[0]]
    verdicts: dict[str, list[str]] = {}
    for one in found:
        direction = HOLDS if (one.rho or 0) > 0 else FAILS
        verdicts.setdefault(one.outcome, []).append(direction if one.significant else UNDECIDED)
    if any(one.rho is None for one in found if one.outcome == "transfer"):
        return None
    shown = "; ".join(
        f"{NAMES[one.defense]}, {OUTCOMES[one.outcome]} {format_correlation(one)}" for one in found
    )
    eps = format_radius(evidence.dataset, evidence.parameters["pair_eps"])
    figures = (
        f"rank correlation with 1 - cosine over pairs, at eps {eps}, positive where more "
        f"orthogonal pairs have more left: {shown}"
    )
    return Verdict(_all_of(verdicts["transfer"]), _all_of(verdicts["worst"]), figures)


def _own(study: Study) -> Verdict | None:
    shown, verdicts, trainings = [], [], []
    for name in COMPARED:
        row = study.row(name, RADII["mnist"][0])
        found = row.by_protocol.get("transfer", {}) if row else {}
        if row is None or not found or row.submodels < 2:
            return None
        own, others = (metrics.score(list(s.values())) for s in own_and_others(found))
        verdicts.append(_below(own, SAME))
        trainings.append(len(found))
        shown.append(
            f"{NAMES[name]}: {format_score(own)} left on the own submodel, "
            f"{format_percent(others.value)} on another{_on(found)}"
        )
    return Verdict(_all_of(verdicts), NO_MATTER, "; ".join(shown), min(trainings))


def _on(by_seed: BySeed) -> str:
    """What a figure is of, where it is not of all that the tables are of."""
    images = min(record.case.images for record in by_seed.values())
    return f" ({images:,} images, seed {', '.join(map(str, sorted(by_seed)))})"


def _size_is_nothing(study: Study) -> Verdict | None:
    """E[MRA] = own / n + (1 - 1 / n) others, which n can raise to others; see `Transfer`."""
    shown, verdicts, trainings = [], [], []
    for name in COMPARED:
        row = study.row(name, RADII["mnist"][0])
        found = row.by_protocol.get("transfer", {}) if row else {}
        if row is None or not found or row.submodels != SUBMODELS:
            return None
        gap = metrics.difference(*reversed(own_and_others(found)))
        gain = Score(*(part / SUBMODELS for part in (gap.value, gap.low, gap.high)))
        trainings.append(len(found))
        # The claim is that it is not above.
        verdicts.append({HOLDS: FAILS, FAILS: HOLDS}.get(decide(gain, SAME), UNDECIDED))
        now = np.mean([metrics.transfer(record.correct).expected_mra for record in found.values()])
        shown.append(
            f"{NAMES[name]} has {format_percent(float(now))} at n = {SUBMODELS} and could gain at "
            f"most {format_difference(gain)}{_on(found)}"
        )
    source = "extrapolated under PGD from the transfer matrix (no larger population was trained)"
    figures = f"{source}: {'; '.join(shown)}"
    return Verdict(_all_of(verdicts), NO_MATTER, figures, min(trainings))
