"""The paper's claims, one by one, judged by what was measured.

`claims.toml` has them in words, each with its judge here and the limits that it gets; what a judge
measured is put in words by `templates/measured.md.j2`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from itertools import pairwise
from typing import Any

import numpy as np

from leaderboard import gates, metrics
from leaderboard.metrics import Score
from leaderboard.paper.evidence import COMPARED, DIVERSITY, OUTCOMES, Evidence
from leaderboard.paper.findings import correlations
from leaderboard.paper.names import CLAIM_ATTACKS, PUBLISHED, RADII, SUBMODELS
from leaderboard.paper.studies import Study
from leaderboard.paper.templating import render_macro
from leaderboard.rows import BySeed, Row, own_and_others

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
NOT_MEASURED = "not measured"
UNTRUSTED = "not judged: gates {}"
# Where a claim says nothing of that attacker.
NO_MATTER = "–"


@dataclass(frozen=True)
class Verdict:
    """How a claim fares.

    Attributes:
        claimed, worst: against the paper's attacks and in the worst case: one of the words above,
            or why it is not judged.
        figures: what was measured.
        trainings: how many training seeds `claimed` rests on; with one, intervals say nothing of
            another training.
    """

    claimed: str
    worst: str
    figures: str
    trainings: int = 1


@dataclass(frozen=True)
class Claim:
    """One claim of the paper; `claims.toml` says what its fields are."""

    text: str
    where: str
    means: str
    dataset: str
    support: Sequence[str]
    judge: str
    evidence: str = ""
    limits: Mapping[str, Any] = field(default_factory=dict)

    def verdict(self, study: Study | None) -> Verdict | None:
        """How it fares; under less than the paper's budget only with figures.

        None: what it takes was not measured.
        """
        measured: Any = study
        if study and self.evidence:
            measured = study.evidence.get(self.evidence)
        verdict = _JUDGES[self.judge](measured, **self.limits) if measured else None
        if verdict and study and study.obstacle:
            return replace(verdict, claimed=f"not judged: {study.obstacle}", worst=NO_MATTER)
        return verdict


def judge_claims(studies: Mapping[str, Study]) -> list[tuple[Claim, Verdict | None]]:
    """Every claim with its verdict."""
    listed = tomllib.loads((files(__package__) / "claims.toml").read_text("utf-8"))["claim"]
    claims = [Claim(**one) for one in listed]
    claims = [replace(claim, means=claim.means.format(**claim.limits)) for claim in claims]
    return [(claim, claim.verdict(studies.get(claim.dataset))) for claim in claims]


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
    return next((word for word in (FAILS, UNDECIDED) if word in listed), HOLDS)


def _measured(judge: str, *values: Any) -> str:
    return render_macro("measured.md", judge, *values)


def worst_difference(first: Row, second: Row) -> Score | None:
    """Worst-case MRA of the first minus the second; None unless a verdict may rest on both."""
    if not (gates.trusted(first) and gates.trusted(second)):
        return None
    return metrics.shared_difference(first.worst_by_seed, second.worst_by_seed)


def _untrusted(*rows: Row) -> str:
    """Why no verdict may rest on the rows."""
    if not all(row.complete for row in rows):
        return NOT_MEASURED
    failed = any(gates.outcome(gates.check(row)) == "failed" for row in rows)
    return UNTRUSTED.format("failed" if failed else "not all run")


@dataclass(frozen=True)
class _Pair:
    """Two defenses at a radius, and the MRA of the first minus the second.

    Attributes:
        clean, worst: None where it was not measured or a verdict may not rest on it.
        claimed: by attack of a claim; empty unless all were run on both.
        trainings: how many training seeds both have.
    """

    rows: tuple[Row, Row]
    clean: Score | None
    worst: Score | None
    claimed: Mapping[str, Score]
    trainings: int

    def verdict(self, judge: Callable[[Score], str], figures: str) -> Verdict:
        """A claim on the difference under each attack, and in the worst case."""
        worst = judge(self.worst) if self.worst else _untrusted(*self.rows)
        claimed = _all_of(map(judge, self.claimed.values()))
        return Verdict(claimed, worst, figures, self.trainings)


def _pair(study: Study, first: str, second: str, radius: int = 0) -> _Pair | None:
    eps = RADII[study.setting.dataset][radius]
    one, other = study.row(first, eps), study.row(second, eps)
    if not one or not other:
        return None
    differences = {
        attack: gates.excess(one.by_attack.get(attack, {}), other.by_attack.get(attack, {}))
        for attack in ("none", *CLAIM_ATTACKS)
    }
    clean = differences.pop("none")
    claimed = {attack: d for attack, d in differences.items() if d}
    return _Pair(
        (one, other),
        clean,
        worst_difference(one, other),
        claimed if len(claimed) == len(CLAIM_ATTACKS) else {},
        len({*one.seeds} & {*other.seeds}),
    )


def gain(study: Study, *, above: float) -> Verdict | None:
    """CLM minus ULM is above so many points."""
    pair = _pair(study, "clm", "ulm")
    if not pair or not pair.claimed:
        return None
    dataset, eps = study.setting.dataset, RADII[study.setting.dataset][0]
    clm, ulm = (
        [PUBLISHED.paper_mra(dataset, attack, eps, name) or 0.0 for attack in CLAIM_ATTACKS]
        for name in ("clm", "ulm")
    )
    figures = _measured("gain", pair, [round(a - b, 4) for a, b in zip(clm, ulm, strict=True)])
    return pair.verdict(lambda d: decide(d, above / 100), figures)


def clean_cost(study: Study, *, below: float) -> Verdict | None:
    """CLM costs less than so many points of clean accuracy."""
    pair = _pair(study, "clm", "ulm")
    if not pair or not pair.clean:
        return None
    verdict, figures = decide(pair.clean, -below / 100), _measured("clean_cost", pair.clean)
    return Verdict(verdict, NO_MATTER, figures, pair.trainings)


def conformity(evidence: Evidence, *, clms: int, within: float) -> Verdict | None:
    """Clean MRA of so many CLMs lies within so many points."""
    clean, attacked = evidence.arrays["clean"], evidence.arrays["claimed"]
    if len(clean) < clms:
        return None
    verdict = HOLDS if np.ptp(clean.mean(axis=1)) < within / 100 else FAILS
    figures = _measured("conformity", evidence, clean, attacked)
    return Verdict(verdict, NO_MATTER, figures, len(clean))


def state_of_the_art(study: Study) -> Verdict | None:
    """CLM-Adv is at least as robust as the best single network that is published."""
    eps = RADII["mnist"][0]
    row = study.row("clm-adv", eps)
    if not row or not row.complete or row.claimed is None or row.worst is None:
        return None
    listed = (one for one in PUBLISHED.published["rows"] if one["dataset"] == "mnist")
    best = max(listed, key=lambda one: float(one["robust"]))
    least = best["robust"] / 100
    worst = decide(row.worst, least) if gates.trusted(row) else _untrusted(row)
    paper = PUBLISHED.paper_mra("mnist", "autoattack", eps, "clm-adv")
    figures = _measured("state_of_the_art", row, paper, best)
    return Verdict(decide(row.claimed, least), worst, figures, len(row.seeds))


def same(study: Study, *, below: float) -> Verdict | None:
    """CLM-Adv and ULM-Adv are less than so many points apart."""
    pair = _pair(study, "clm-adv", "ulm-adv")
    if not pair or not pair.claimed:
        return None
    return pair.verdict(lambda d: _below(d, below / 100), _measured("same", pair))


def ahead(study: Study, *, attacks: Sequence[str]) -> Verdict | None:
    """At the larger radius CLM-Adv is ahead under these attacks and behind under the others.

    Where networks were told apart, it must be so over images and over networks.
    """
    pair = _pair(study, "clm-adv", "ulm-adv", radius=1)
    if not pair or not pair.claimed:
        return None
    differences, apart = dict(pair.claimed), {}
    networks = study.grids.get("networks")
    if networks and abs(networks.layout.eps - RADII[study.setting.dataset][1]) < 1e-6:
        shares = {
            (way.defense, way.attack): metrics.network_shares(way.accuracies)
            for row in networks.rows
            for way in row
            if way.accuracies is not None
        }
        for attack, d in pair.claimed.items():
            of_both = (shares[row.defense, attack] for row in pair.rows)
            apart[attack] = metrics.means_apart(*of_both)
            differences[attack] = Score(d.value, *metrics.hull(d, apart[attack]))
    verdict = _all_of(
        decide(d if attack in attacks else Score(-d.value, -d.high, -d.low), 0)
        for attack, d in differences.items()
    )
    return Verdict(verdict, NO_MATTER, _measured("ahead", pair, apart), pair.trainings)


def expectation(study: Study) -> Verdict | None:
    """CLM is more robust under PGD that draws networks than under each attack on one."""
    row = study.row("clm", RADII["mnist"][0])
    eot = row.score("pgd-eot") if row else None
    others = [score.value for a in CLAIM_ATTACKS if row and (score := row.score(a))]
    if row is None or eot is None or len(others) < len(CLAIM_ATTACKS):
        return None
    drawn = row.by_attack["pgd-eot"]
    excess = (gates.excess(drawn, row.by_attack[attack]) for attack in CLAIM_ATTACKS)
    verdict = _all_of(decide(one, 0) if one else UNDECIDED for one in excess)
    worst = verdict if gates.trusted(row) else _untrusted(row)
    return Verdict(NO_MATTER, worst, _measured("expectation", eot, others), len(row.seeds))


def spread(evidence: Evidence) -> Verdict | None:
    """The standard deviation of first-layer weights is larger in a submodel of CLM."""
    ulm, clm = (evidence.arrays[name].reshape(len(evidence.arrays[name]), -1) for name in COMPARED)
    if len(ulm) < 2:
        return None
    wider = metrics.mean(clm.std(axis=1) - ulm.std(axis=1))
    return Verdict(decide(wider, 0), NO_MATTER, _measured("spread", wider))


def drift(evidence: Evidence, *, percent: float) -> Verdict | None:
    """The linked weight's spread grows by such a share of its way in each third, as no free one."""
    linked, free = (evidence.arrays[name].std(axis=0) for name in ("linked", "free"))
    if len(linked) < 4:
        return None
    thirds = linked[np.linspace(0, len(linked) - 1, 4).round().astype(int)]
    way, free_way = thirds[-1] - thirds[0], abs(free[-1] - free[0])
    keeps = way > free_way and all(b - a >= percent / 100 * way for a, b in pairwise(thirds))
    return Verdict(HOLDS if keeps else FAILS, NO_MATTER, _measured("drift", thirds, free_way))


def orthogonal(evidence: Evidence) -> Verdict | None:
    """The mean |cosine| of saliency maps is smaller in CLM, image by image."""
    ulm, clm = (evidence.arrays[f"{name} absolute"] for name in COMPARED)
    closer = metrics.mean(ulm - clm)
    return Verdict(decide(closer, 0), NO_MATTER, _measured("orthogonal", ulm, clm, closer))


def orthogonality_protects(evidence: Evidence) -> Verdict | None:
    """1 - cosine correlates with what a pair answers correctly under attack."""
    found = [one for one in correlations(evidence) if one.measure == DIVERSITY[0]]
    if any(one.rho is None for one in found if one.outcome == "transfer"):
        return None
    verdicts: dict[str, list[str]] = {outcome: [] for outcome in OUTCOMES}
    for one in found:
        direction = HOLDS if (one.rho or 0) > 0 else FAILS
        verdicts[one.outcome].append(direction if one.significant else UNDECIDED)
    figures = _measured("orthogonality_protects", evidence, found)
    return Verdict(_all_of(verdicts["transfer"]), _all_of(verdicts["worst"]), figures)


def _transfers(study: Study, enough: Callable[[int], bool]) -> dict[str, BySeed]:
    """The transfer records of ULM and CLM of enough submodels; empty unless both are there."""
    rows = (study.row(name, RADII["mnist"][0]) for name in COMPARED)
    found = {
        row.defense: row.by_protocol["transfer"]
        for row in rows
        if row and enough(row.submodels) and row.by_protocol.get("transfer")
    }
    return found if len(found) == len(COMPARED) else {}


def attacked_one_fails(study: Study, *, below: float) -> Verdict | None:
    """Robust accuracy is below so many percent where the attacked submodel answers."""
    transfers = _transfers(study, lambda n: n > 1)
    if not transfers:
        return None
    own, others = {}, {}
    for name, by_seed in transfers.items():
        sides = own_and_others(by_seed)
        own[name], others[name] = (metrics.score(list(side.values())) for side in sides)
    verdict = _all_of(_below(score, below / 100) for score in own.values())
    figures = _measured("attacked_one_fails", transfers, own, others)
    return Verdict(verdict, NO_MATTER, figures, min(map(len, transfers.values())))


def size_is_nothing(study: Study, *, most: float) -> Verdict | None:
    """E[MRA] = own / n + (1 - 1 / n) others, which n can raise to others; see `Transfer`."""
    transfers = _transfers(study, lambda n: n == SUBMODELS)
    if not transfers:
        return None
    now, gains = {}, {}
    for name, by_seed in transfers.items():
        gap = metrics.difference(*reversed(own_and_others(by_seed)))
        gains[name] = Score(*(part / SUBMODELS for part in (gap.value, gap.low, gap.high)))
        expected = [metrics.transfer(record.correct).expected_mra for record in by_seed.values()]
        now[name] = float(np.mean(expected))
    # The claim is that it is not above.
    turned = {HOLDS: FAILS, FAILS: HOLDS, UNDECIDED: UNDECIDED}
    verdict = _all_of(turned[decide(one, most / 100)] for one in gains.values())
    figures = _measured("size_is_nothing", transfers, now, gains)
    return Verdict(verdict, NO_MATTER, figures, min(map(len, transfers.values())))


_JUDGES: Mapping[str, Callable[..., Verdict | None]] = {
    judge.__name__: judge
    for judge in (
        *(gain, clean_cost, conformity, state_of_the_art, same, ahead, expectation, spread, drift),
        *(orthogonal, orthogonality_protects, attacked_one_fails, size_is_nothing),
    )
}
