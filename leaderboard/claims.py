"""The paper's claims, one by one, judged by what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from leaderboard import metrics
from leaderboard.baselines import Baselines
from leaderboard.evidence import Evidence
from leaderboard.formats import format_eps, format_percent, format_score
from leaderboard.metrics import Score
from leaderboard.paper_figures import correlations, size_scores
from leaderboard.studies import Study
from leaderboard.table import CLAIM_ATTACKS, PAPER_ATTACKS, Row

HOLDS, FAILS = "holds", "does not hold"
ONLY_CLAIMED = "holds only against the paper's attacker"
NOT_MEASURED = "not measured"
# Points of MRA below which two figures are called the same.
SAME = 0.02


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
        text: the claim, in our words.
        where: in the paper.
        verdict: one of the words above.
        figures: what was measured.
    """

    text: str
    where: str
    verdict: str
    figures: str


# The radii that the paper attacks at.
RADII = {"mnist": (0.3, 0.4), "cifar10": (8 / 255, 16 / 255)}
Judged = tuple[str, str]


def judge_claims(studies: Mapping[str, Study], baselines: Baselines) -> list[Claim]:
    """Every claim with its verdict."""
    mnist, cifar = studies.get("mnist"), studies.get("cifar10")
    claims: list[tuple[str, str, Judged | None]] = [
        (
            "Counter-linking adds around 20 points of robustness on MNIST.",
            "abstract, 4.1",
            _gain(mnist, least=0.15),
        ),
        (
            "Counter-linking adds at least 15 points on CIFAR-10.",
            "abstract",
            _gain(cifar, least=0.15),
        ),
        ("It costs hardly any clean accuracy.", "4, Table 1", _clean_cost(mnist)),
        (
            "Five CLMs trained anew stay in the same range of accuracy.",
            "4",
            _evidence(mnist, "conformity", _conformity),
        ),
        (
            "With adversarial training the robustness is state of the art.",
            "abstract, 4.1",
            _state_of_the_art(mnist, baselines),
        ),
        (
            "ULM-Adv and CLM-Adv perform alike under all attacks at eps 0.3 on MNIST.",
            "4.1, Table 2",
            _alike(mnist),
        ),
        (
            "At eps 0.4 CLM-Adv is ahead under FGSM and MI-FGSM, ULM-Adv under PGD, AutoAttack and "
            "PGD-EOT.",
            "4.1, Table 4",
            _larger_radius(mnist),
        ),
        (
            "Populations do best against EOT, the attack made for random defenses.",
            "4.1, Table 2",
            _expectation(mnist),
        ),
        (
            "Counter-linked weights spread wider in CLM than in ULM.",
            "Fig. 4",
            _evidence(mnist, "weights", _spread),
        ),
        (
            "Counter-linked weights keep drifting apart while LeNet5s are retrained.",
            "Fig. 5",
            _evidence(mnist, "trajectory", _drift),
        ),
        (
            "Saliency maps are more orthogonal between submodels of CLM than of ULM (the paper: on "
            "CIFAR-10).",
            "4.2, Fig. 6",
            _evidence(cifar, "saliency", _orthogonal),
        ),
        ("The same on MNIST.", "–", _evidence(mnist, "saliency", _orthogonal)),
        (
            "The more orthogonal the saliency maps of two submodels, the less an attack carries "
            "over from one to the other.",
            "4.2",
            _evidence(mnist, "diversity", _orthogonality_protects),
        ),
        (
            "An attack nearly always succeeds where the submodel that it was crafted on answers.",
            "4.2",
            _own(mnist),
        ),
        (
            "More submodels do not change the robustness.",
            "3",
            _evidence(mnist, "size", _size_is_nothing),
        ),
    ]
    return [Claim(text, where, *(judged or (NOT_MEASURED, "–"))) for text, where, judged in claims]


def _evidence(study: Study | None, kind: str, judge: Callable[[Evidence], Judged]) -> Judged | None:
    if study is None or kind not in study.evidence:
        return None
    return judge(study.evidence[kind])


def _pair(study: Study | None, first: str, second: str, radius: int = 0) -> tuple[Row, Row] | None:
    if study is None:
        return None
    eps = RADII[study.setting.dataset][radius]
    rows = [row for name in (first, second) if (row := study.row(name, eps))]
    return (rows[0], rows[1]) if len(rows) == 2 else None


def _difference(first: Row, second: Row, attack: str) -> Score | None:
    """MRA of the first minus the second under one attack, paired over images."""
    sides = [[r.correct for r in row.by_attack.get(attack, {}).values()] for row in (first, second)]
    if not all(sides):
        return None
    shared = metrics.on_shared_images([*sides[0], *sides[1]])
    return metrics.difference(shared[: len(sides[0])], shared[len(sides[0]) :])


def worst_difference(first: Row, second: Row) -> Score | None:
    """Worst-case MRA of the first minus the second, paired over images."""
    ours, theirs = first.worst_correct, second.worst_correct
    if not ours or not theirs:
        return None
    shared = metrics.on_shared_images([*ours, *theirs])
    return metrics.difference(shared[: len(ours)], shared[len(ours) :])


def _points(score: Score) -> str:
    return f"{100 * score.value:+.1f} ({100 * score.low:+.1f} to {100 * score.high:+.1f})"


def _gain(study: Study | None, *, least: float) -> Judged | None:
    """CLM against ULM, under the paper's PGD and in the worst case."""
    rows = _pair(study, "clm", "ulm")
    if not rows or study is None:
        return None
    claimed, worst = _difference(*rows, "pgd"), worst_difference(*rows)
    if not claimed or not worst:
        return None
    eps = format_eps(study.setting.dataset, RADII[study.setting.dataset][0])
    left = " and ".join(format_percent(row.worst.value) for row in rows if row.worst)
    figures = (
        f"eps {eps}: CLM minus ULM {_points(claimed)} points under PGD on one drawn network, "
        f"{_points(worst)} in the worst case, where {left} are left"
    )
    if claimed.high < least:
        return FAILS, figures
    return (HOLDS if worst.high >= least else ONLY_CLAIMED), figures


def _clean_cost(study: Study | None) -> Judged | None:
    rows = _pair(study, "clm", "ulm")
    cost = _difference(*rows, "none") if rows else None
    if cost is None:
        return None
    return (HOLDS if cost.value > -SAME else FAILS), f"CLM minus ULM {_points(cost)} points"


def _conformity(evidence: Evidence) -> Judged:
    clean, claimed = (evidence.arrays[name] for name in ("clean", "claimed"))
    means = claimed.mean(axis=1)
    figures = (
        f"{len(clean)} CLMs: submodels {100 * clean.min():.1f} to {100 * clean.max():.1f} on clean "
        f"images (paper: 98.5 to 99.04); MRA under PGD {100 * means.min():.1f} to "
        f"{100 * means.max():.1f}"
    )
    return (HOLDS if np.ptp(clean) < SAME else FAILS), figures


def _state_of_the_art(study: Study | None, baselines: Baselines) -> Judged | None:
    rows = _pair(study, "clm-adv", "single-adv")
    if not rows or rows[0].worst is None or rows[1].worst is None:
        return None
    best = max(
        (row for row in baselines.published["rows"] if row["dataset"] == "mnist"),
        key=lambda row: float(row["robust"]),
    )
    figures = (
        f"worst case at eps 0.3: CLM-Adv {format_score(rows[0].worst)}, one adversarially trained "
        f"network {format_score(rows[1].worst)}; published for a single network: "
        f"{best['robust']:.2f} ({best['name']}, {best['evaluator']})"
    )
    return (HOLDS if 100 * rows[0].worst.high >= best["robust"] else FAILS), figures


def _alike(study: Study | None) -> Judged | None:
    rows = _pair(study, "clm-adv", "ulm-adv")
    if not rows:
        return None
    found = {a: d for a in PAPER_ATTACKS if (d := _difference(*rows, a))}
    worst = worst_difference(*rows)
    if len(found) < len(PAPER_ATTACKS) or worst is None:
        return None
    attack, largest = max(found.items(), key=lambda item: abs(item[1].value))
    figures = (
        f"largest difference {_points(largest)} points ({attack}); worst case {_points(worst)}"
    )
    return (HOLDS if abs(largest.value) < SAME else FAILS), figures


def _larger_radius(study: Study | None) -> Judged | None:
    rows = _pair(study, "clm-adv", "ulm-adv", radius=1)
    if not rows:
        return None
    found = {a: d for a in PAPER_ATTACKS if (d := _difference(*rows, a))}
    if len(found) < len(PAPER_ATTACKS):
        return None
    expected = {attack: 1 if attack in ("fgsm", "mifgsm") else -1 for attack in PAPER_ATTACKS}
    as_claimed = all(expected[attack] * d.value > 0 for attack, d in found.items())
    figures = "CLM-Adv minus ULM-Adv: " + ", ".join(
        f"{attack} {_points(difference)}" for attack, difference in found.items()
    )
    return (HOLDS if as_claimed else FAILS), figures


def _expectation(study: Study | None) -> Judged | None:
    if study is None:
        return None
    shown, holds = [], True
    for name in ("ulm", "clm"):
        row = study.row(name, RADII["mnist"][0])
        if row is None or (ours := row.score("pgd-eot")) is None:
            return None
        others = [s.value for a in CLAIM_ATTACKS if (s := row.score(a))]
        holds &= bool(others) and ours.value > max(others)
        shown.append(
            f"{name}: {format_score(ours)} under PGD that draws networks, "
            f"{format_percent(min(others, default=None))} to "
            f"{format_percent(max(others, default=None))} under the four that do not"
        )
    return (HOLDS if holds else FAILS), "; ".join(shown)


def _spread(evidence: Evidence) -> Judged:
    ulm, clm = (float(evidence.arrays[name].std()) for name in ("ulm", "clm"))
    return (HOLDS if clm > ulm else FAILS), f"standard deviation: ULM {ulm:.3f}, CLM {clm:.3f}"


def _drift(evidence: Evidence) -> Judged:
    first, last = (
        {kind: float(evidence.arrays[kind][:, at].std()) for kind in ("linked", "free")}
        for at in (0, -1)
    )
    figures = ", ".join(
        f"{kind}: {first[kind]:.3f} at the start, {last[kind]:.3f} at the end" for kind in first
    )
    grows = last["linked"] > 1.5 * first["linked"]
    return (HOLDS if grows else FAILS), f"standard deviation over submodels: {figures}"


def _orthogonal(evidence: Evidence) -> Judged:
    means = {name: float(evidence.arrays[f"{name} mean"].mean()) for name in ("ulm", "clm")}
    medians = {name: float(np.median(evidence.arrays[f"{name} quantiles"][:, 2])) for name in means}
    figures = "; ".join(
        f"{name}: mean cosine {means[name]:.3f}, median over pairs {medians[name]:.3f}"
        for name in means
    )
    return (HOLDS if abs(means["clm"]) < abs(means["ulm"]) else FAILS), figures


def _orthogonality_protects(evidence: Evidence) -> Judged:
    found = [c for c in correlations(evidence) if c.measure.startswith("saliency")]
    figures = "; ".join(
        f"pairs of {c.among}: {c.claimed:+.2f} with claimed, {c.worst:+.2f} with worst-case MRA"
        for c in found
    )
    claimed = all(c.claimed > 0 for c in found)
    worst = all(c.worst > 0 for c in found)
    verdict = HOLDS if claimed and worst else ONLY_CLAIMED if claimed else FAILS
    return (
        verdict,
        f"rank correlation of orthogonality at eps {evidence.parameters['pair_eps']:g}: {figures}",
    )


def _own(study: Study | None) -> Judged | None:
    if study is None:
        return None
    shown, holds = [], True
    for name in ("ulm", "clm"):
        row = study.row(name, RADII["mnist"][0])
        found = row.by_protocol.get("transfer", {}) if row else {}
        if not found:
            return None
        tensors = [metrics.transfer(record.correct) for record in found.values()]
        own, others = (float(np.mean([getattr(t, k) for t in tensors])) for k in ("own", "others"))
        holds &= own < SAME
        shown.append(f"{name}: {100 * own:.1f} left on its own, {100 * others:.1f} on another")
    return (HOLDS if holds else FAILS), "; ".join(shown)


def _size_is_nothing(evidence: Evidence) -> Judged:
    sizes = [int(k) for k in evidence.arrays["sizes"]]
    few = min(range(len(sizes)), key=lambda at: abs(sizes[at] - 4))
    shown, same = [], True
    for name in ("ulm", "clm"):
        claimed, worst = (size_scores(evidence, name, column) for column in ("claimed", "worst"))
        same &= abs(claimed[-1].value - claimed[few].value) < SAME
        shown.append(
            f"{name}: PGD {100 * claimed[few].value:.1f} with {sizes[few]}, "
            f"{100 * claimed[-1].value:.1f} with {sizes[-1]}; worst case "
            f"{100 * worst[few].value:.1f} and {100 * worst[-1].value:.1f}"
        )
    return (HOLDS if same else FAILS), "; ".join(shown)
