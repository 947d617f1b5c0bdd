"""The paper's claims, one by one, judged by what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from leaderboard import metrics
from leaderboard.baselines import Baselines
from leaderboard.drawing import NAMES
from leaderboard.evidence import COMPARED, DIVERSITY, Evidence
from leaderboard.findings import correlations, mean_score, size_scores
from leaderboard.formats import format_correlation, format_eps, format_percent, format_score
from leaderboard.metrics import Score
from leaderboard.studies import Study
from leaderboard.table import CLAIM_ATTACKS, PAPER_ATTACKS, Row

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
ONLY_CLAIMED = "holds only against the paper's attacker"
NOT_MEASURED = "not measured"

# What the paper's words are taken to mean, in MRA: "around 20 points" and "at least 15" are gains
# of at least 15 points; "hardly any" and "alike" are less than 2; a range is kept within 1.
GAIN, SAME, RANGE = 0.15, 0.02, 0.01
# How many CLMs the paper's conformity test has, and the sizes between which n should not matter.
CONFORMITY, SIZES = 5, (4, 10)
# The radii that the paper attacks at.
RADII = {"mnist": (0.3, 0.4), "cifar10": (8 / 255, 16 / 255)}


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        text: the claim, in our words.
        where: in the paper.
        verdict: one of the words above, or why it is not judged.
        figures: what was measured.
        support: the tables and figures of the report that show it, as names of sections.
    """

    text: str
    where: str
    verdict: str
    figures: str
    support: tuple[str, ...]


# A verdict and its figures; None: what it takes was not measured.
Judged = tuple[str, str] | None


@dataclass(frozen=True)
class _Ask:
    text: str
    where: str
    dataset: str
    judge: Callable[[Study], Judged]
    support: tuple[str, ...]


def judge_claims(studies: Mapping[str, Study], baselines: Baselines) -> list[Claim]:
    """Every claim with its verdict; under less than the paper's budget only with figures."""
    found = []
    for ask in _asks(baselines):
        study = studies.get(ask.dataset)
        judged = ask.judge(study) if study else None
        verdict, figures = judged or (NOT_MEASURED, "–")
        if judged and study and study.obstacle:
            verdict = f"not judged: {study.obstacle}"
        found.append(Claim(ask.text, ask.where, verdict, figures, ask.support))
    return found


def _asks(baselines: Baselines) -> Iterable[_Ask]:
    tables = baselines.paper["tables"]
    yield _Ask(
        "Counter-linking adds around 20 points of robustness on MNIST.",
        *("abstract, 4.1", "mnist"),
        lambda study: _gain(study, tables["2"]),
        ("Table 2", "What is left at every eps"),
    )
    yield _Ask(
        "Counter-linking adds at least 15 points on CIFAR-10.",
        *("abstract", "cifar10"),
        lambda study: _gain(study, tables["3"]),
        ("Table 3",),
    )
    for dataset, name in (("mnist", "MNIST"), ("cifar10", "CIFAR-10")):
        yield _Ask(
            f"It costs hardly any clean accuracy on {name}.",
            *("4, Table 1", dataset),
            _clean_cost,
            ("Table 1",),
        )
    for dataset, name in (("mnist", "MNIST"), ("cifar10", "CIFAR-10")):
        yield _Ask(
            f"Five CLMs trained anew are as accurate as each other on {name}.",
            *("4", dataset),
            _of_evidence("conformity", _conformity),
            ("Conformity of CLMs (Section 4)",),
        )
    yield _Ask(
        "CLM with adversarial training is state of the art on MNIST.",
        *("abstract, 4.1", "mnist"),
        lambda study: _state_of_the_art(study, baselines),
        ("Table 2",),
    )
    for dataset, name, number in (("mnist", "MNIST", "2"), ("cifar10", "CIFAR-10", "3")):
        yield _Ask(
            f"ULM-Adv and CLM-Adv perform alike under all attacks on {name}.",
            *(f"4.1, Table {number}", dataset),
            _alike,
            (f"Table {number}",),
        )
    yield _Ask(
        "At eps 0.4 on MNIST CLM-Adv is ahead under FGSM and MI-FGSM, ULM-Adv under PGD, "
        "AutoAttack and PGD-EOT.",
        *("4.1, Table 4", "mnist"),
        lambda study: _order(study, ("fgsm", "mifgsm")),
        ("Table 4",),
    )
    yield _Ask(
        "At eps 16/255 on CIFAR-10 CLM-Adv is ahead under all attacks.",
        *("4.1, Table 5", "cifar10"),
        lambda study: _order(study, PAPER_ATTACKS),
        ("Table 5",),
    )
    yield _Ask(
        "Populations do best against EOT, the attack made for random defenses.",
        *("4.1, Table 2", "mnist"),
        _expectation,
        ("Table 2",),
    )
    yield _Ask(
        "The first-layer weights of CLM spread wider than those of ULM.",
        *("Fig. 4", "mnist"),
        _of_evidence("weights", _spread),
        ("First-layer weights (Fig. 4)",),
    )
    yield _Ask(
        "Counter-linked weights keep drifting apart while LeNet5s are retrained.",
        *("Fig. 5", "mnist"),
        _of_evidence("trajectory", _drift),
        ("A weight over the retraining (Fig. 5)",),
    )
    for dataset, name in (("cifar10", "CIFAR-10"), ("mnist", "MNIST, where the paper has none")):
        yield _Ask(
            f"Saliency maps are more orthogonal between submodels of CLM than of ULM ({name}).",
            *("4.2, Fig. 6", dataset),
            _of_evidence("saliency", _orthogonal),
            ("Saliency maps (Fig. 6)",),
        )
    yield _Ask(
        "The more orthogonal the saliency maps of two submodels, the less an attack carries over "
        "(the paper: on CIFAR-10; here on MNIST).",
        *("4.2", "mnist"),
        _of_evidence("diversity", _orthogonality_protects),
        ("Does diversity buy robustness?",),
    )
    yield _Ask(
        "An attack nearly always succeeds where the submodel that it was crafted on answers.",
        *("4.2", "mnist"),
        _own,
        ("From network to network (Section 4.2)",),
    )
    yield _Ask(
        "More submodels do not change the robustness.",
        *("3", "mnist"),
        _of_evidence("size", _size_is_nothing),
        ("How many networks",),
    )


def decide(value: Score, least: float) -> str:
    """Whether a figure is above so much: by its interval, not by its middle."""
    if value.low > least:
        return HOLDS
    return FAILS if value.high < least else UNDECIDED


def _all_of(verdicts: Iterable[str]) -> str:
    listed = list(verdicts)
    if FAILS in listed:
        return FAILS
    return UNDECIDED if UNDECIDED in listed else HOLDS


def _below(value: Score, limit: float) -> str:
    """Whether a figure's size is below a limit."""
    if max(abs(value.low), abs(value.high)) < limit:
        return HOLDS
    return FAILS if value.low > limit or value.high < -limit else UNDECIDED


def _with_worst(claimed: str, worst: str) -> str:
    """What holds under the paper's attacker must hold in the worst case."""
    if claimed == HOLDS and worst == FAILS:
        return ONLY_CLAIMED
    return FAILS if claimed == FAILS else _all_of((claimed, worst))


def _of_evidence(kind: str, judge: Callable[[Evidence], Judged]) -> Callable[[Study], Judged]:
    def found(study: Study) -> Judged:
        evidence = study.evidence.get(kind)
        return judge(evidence) if evidence else None

    return found


def _pair(study: Study, first: str, second: str, radius: int = 0) -> tuple[Row, Row] | None:
    eps = RADII[study.setting.dataset][radius]
    one, other = study.row(first, eps), study.row(second, eps)
    return (one, other) if one and other else None


def attack_difference(first: Row, second: Row, attack: str) -> Score | None:
    """MRA of the first minus the second under one attack, paired over images and seeds."""
    return metrics.shared_difference(
        *([r.correct for r in row.by_attack.get(attack, {}).values()] for row in (first, second))
    )


def worst_difference(first: Row, second: Row) -> Score | None:
    """Worst-case MRA of the first minus the second, paired over images."""
    return metrics.shared_difference(first.worst_correct, second.worst_correct)


def _under_each(first: Row, second: Row, attacks: Iterable[str]) -> dict[str, Score] | None:
    """The difference under each attack; None unless all were run on both."""
    found = {attack: attack_difference(first, second, attack) for attack in attacks}
    known = {attack: difference for attack, difference in found.items() if difference}
    return known if len(known) == len(found) else None


def _points(score: Score) -> str:
    return f"{100 * score.value:+.1f} ({100 * score.low:+.1f} to {100 * score.high:+.1f})"


def _listed(differences: Mapping[str, Score]) -> str:
    return ", ".join(f"{attack} {_points(found)}" for attack, found in differences.items())


def _gain(study: Study, table: Mapping[str, Any]) -> Judged:
    """CLM minus ULM is at least `GAIN` under each of the paper's attacks, and in the worst case."""
    rows = _pair(study, "clm", "ulm")
    if not rows:
        return None
    claimed, worst = _under_each(*rows, CLAIM_ATTACKS), worst_difference(*rows)
    if not claimed or not worst:
        return None
    theirs = [by["clm"] - by["ulm"] for by in table["rows"].values()]
    left = " and ".join(format_percent(row.worst.value) for row in rows if row.worst)
    figures = (
        f"CLM minus ULM, points: {_listed(claimed)}; worst case {_points(worst)}, where {left} are "
        f"left. The paper's own table: {min(theirs):+.1f} to {max(theirs):+.1f}"
    )
    under_all = _all_of(decide(difference, GAIN) for difference in claimed.values())
    return _with_worst(under_all, decide(worst, GAIN)), figures


def _clean_cost(study: Study) -> Judged:
    """CLM loses less than `SAME`."""
    rows = _pair(study, "clm", "ulm")
    cost = attack_difference(*rows, "none") if rows else None
    if cost is None:
        return None
    return decide(cost, -SAME), f"CLM minus ULM {_points(cost)} points"


def _conformity(evidence: Evidence) -> Judged:
    """The MRAs on clean images of five CLMs lie within `RANGE`."""
    clean, claimed = (evidence.arrays[name] for name in ("clean", "claimed"))
    if len(clean) < CONFORMITY:
        return None
    by_clm, attacked = clean.mean(axis=1), claimed.mean(axis=1)
    figures = (
        f"{len(clean)} CLMs: clean MRA {100 * by_clm.min():.1f} to {100 * by_clm.max():.1f}, "
        f"single submodels {100 * clean.min():.1f} to {100 * clean.max():.1f} (paper, MNIST: "
        f"98.5 to 99.04); under PGD {100 * attacked.min():.1f} to {100 * attacked.max():.1f}"
    )
    return (HOLDS if np.ptp(by_clm) < RANGE else FAILS), figures


def _state_of_the_art(study: Study, baselines: Baselines) -> Judged:
    """The worst case of CLM-Adv is at least the best that others published for one network."""
    rows = _pair(study, "clm-adv", "single-adv")
    if not rows or rows[0].worst is None or rows[1].worst is None:
        return None
    listed = (row for row in baselines.published["rows"] if row["dataset"] == "mnist")
    best = max(listed, key=lambda row: float(row["robust"]))
    figures = (
        f"worst case at eps 0.3: CLM-Adv {format_score(rows[0].worst)}, one adversarially trained "
        f"network {format_score(rows[1].worst)}; published for a single network: "
        f"{best['robust']:.2f} ({best['name']}, {best['evaluator']})"
    )
    return decide(rows[0].worst, best["robust"] / 100), figures


def _alike(study: Study) -> Judged:
    """Under every one of the paper's attacks the two differ by less than `SAME`."""
    rows = _pair(study, "clm-adv", "ulm-adv")
    found = _under_each(*rows, PAPER_ATTACKS) if rows else None
    worst = worst_difference(*rows) if rows else None
    if not found or worst is None:
        return None

    figures = f"CLM-Adv minus ULM-Adv, points: {_listed(found)}; worst case {_points(worst)}"
    verdict = _all_of(_below(difference, SAME) for difference in found.values())
    return _with_worst(verdict, _below(worst, SAME)), figures


def _order(study: Study, ahead: tuple[str, ...]) -> Judged:
    """At the larger radius CLM-Adv is ahead under these attacks and behind under the others."""
    rows = _pair(study, "clm-adv", "ulm-adv", radius=1)
    found = _under_each(*rows, PAPER_ATTACKS) if rows else None
    if not found:
        return None
    signed = (d if a in ahead else Score(-d.value, -d.high, -d.low) for a, d in found.items())
    figures = f"CLM-Adv minus ULM-Adv, points: {_listed(found)}"
    return _all_of(decide(difference, 0) for difference in signed), figures


def _expectation(study: Study) -> Judged:
    """More is left under PGD over the expectation than under each attack on one submodel."""
    shown, verdicts = [], []
    for name in COMPARED:
        row = study.row(name, RADII["mnist"][0])
        ours = row.score("pgd-eot") if row else None
        if row is None or ours is None:
            return None
        measured = [record.correct for record in row.by_attack["pgd-eot"].values()]
        others = {
            attack: metrics.shared_difference(measured, [r.correct for r in by_seed.values()])
            for attack in CLAIM_ATTACKS
            if (by_seed := row.by_attack.get(attack))
        }
        if len(others) < len(CLAIM_ATTACKS):
            return None
        verdicts += [decide(excess, 0) for excess in others.values() if excess]
        left = [s.value for attack in CLAIM_ATTACKS if (s := row.score(attack))]
        shown.append(
            f"{NAMES[name]}: {format_score(ours)} under PGD that draws networks, "
            f"{format_percent(min(left))} to {format_percent(max(left))} under the four attacks on "
            "one network"
        )
    note = "; the paper ran it on one deterministic network, where it is PGD"
    return _all_of(verdicts), "; ".join(shown) + note


def _spread(evidence: Evidence) -> Judged:
    """The standard deviation of each CLM submodel's weights is above that of its ULM submodel."""
    ulm, clm = (evidence.arrays[name].reshape(len(evidence.arrays[name]), -1) for name in COMPARED)
    wider = mean_score(clm.std(axis=1) - ulm.std(axis=1))
    figures = (
        f"standard deviation: ULM {ulm.std():.3f}, CLM {clm.std():.3f}; within a submodel "
        f"{wider.value:+.3f} ({wider.low:+.3f} to {wider.high:+.3f})"
    )
    return decide(wider, 0), figures


def _drift(evidence: Evidence) -> Judged:
    """The linked weight's spread grows in both halves of the retraining, more than the free's."""
    spread = {kind: evidence.arrays[kind].std(axis=0) for kind in ("linked", "free")}
    half = len(evidence.arrays["step"]) // 2
    start, middle, end = (float(spread["linked"][at]) for at in (0, half, -1))
    free = float(spread["free"][-1] - spread["free"][0])
    figures = (
        f"standard deviation over submodels of the linked weight: {start:.3f} at the start, "
        f"{middle:.3f} half-way, {end:.3f} at the end; of the free one: {free:+.3f} over all"
    )
    return (HOLDS if start < middle < end and end - start > free else FAILS), figures


def _orthogonal(evidence: Evidence) -> Judged:
    """Mean |cosine| over pairs, image by image: CLM's is below ULM's."""
    ulm, clm = (evidence.arrays[f"{name} absolute"] for name in COMPARED)
    closer = mean_score(ulm - clm)
    cosines = ", ".join(
        f"{NAMES[name]} {evidence.arrays[f'{name} mean'].mean():.3f}" for name in COMPARED
    )
    figures = (
        f"mean |cosine|: ULM {ulm.mean():.3f}, CLM {clm.mean():.3f}, difference "
        f"{closer.value:+.3f} ({closer.low:+.3f} to {closer.high:+.3f} over images); mean cosine: "
        f"{cosines}"
    )
    return decide(closer, 0), figures


def _orthogonality_protects(evidence: Evidence) -> Judged:
    """Orthogonality of a pair correlates with what is left after transfer, in ULM and in CLM."""
    found = [c for c in correlations(evidence) if c.measure == DIVERSITY[0]]
    shown, verdicts = [], []
    for one in found:
        shown.append(f"{NAMES[one.defense]}, {one.outcome} {format_correlation(one)}")
        if one.outcome == "transfer":
            if one.rho is None:
                return None
            direction = HOLDS if one.rho > 0 else FAILS
            verdicts.append(direction if one.significant else UNDECIDED)
    eps = format_eps(evidence.dataset, evidence.parameters["pair_eps"])
    figures = f"rank correlation with 1 - cosine over pairs, at eps {eps}: {'; '.join(shown)}"
    return _all_of(verdicts), figures


def _own(study: Study) -> Judged:
    """Less than `SAME` is left of a submodel attacked by itself."""
    shown, verdicts = [], []
    for name in COMPARED:
        row = study.row(name, RADII["mnist"][0])
        found = row.by_protocol.get("transfer", {}) if row else {}
        if not found:
            return None
        own = metrics.score([record.correct.diagonal().T for record in found.values()])
        others = [metrics.transfer(record.correct).others for record in found.values()]
        verdicts.append(_below(own, SAME))
        shown.append(
            f"{NAMES[name]}: {format_score(own)} left on the own submodel, "
            f"{format_percent(float(np.mean(others)))} on another"
        )
    return _all_of(verdicts), "; ".join(shown)


def _size_is_nothing(evidence: Evidence) -> Judged:
    """From 4 to 10 submodels MRA under PGD changes by less than `SAME`, in ULM and in CLM."""
    few, many = SIZES
    shown, verdicts = [], []
    for name in COMPARED:
        claimed, worst = (size_scores(evidence, name, column) for column in ("claimed", "worst"))
        if not {few, many} <= claimed.keys():
            return None
        rows = evidence.arrays[f"{name} claimed s"]
        at = {int(k): row for k, row in zip(evidence.arrays["sizes"], rows, strict=True)}
        change = mean_score(at[many] - at[few])
        verdicts.append(_below(change, SAME))
        shown.append(
            f"{NAMES[name]}: {_points(change)} points under PGD from n = {few} "
            f"({format_percent(claimed[few].value)}) to {many} "
            f"({format_percent(claimed[many].value)}); worst case "
            f"{format_percent(worst[few].value)} and {format_percent(worst[many].value)}"
        )
    return _all_of(verdicts), "; ".join(shown)
