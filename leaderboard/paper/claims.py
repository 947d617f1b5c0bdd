"""The judges of the paper's claims, which are in `claims.toml`, an object each.

What a judge measured is put in words by the macro of its name in `templates/measured.md.j2`.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import files
from itertools import pairwise
from math import inf
from typing import Any

import numpy as np

from ... import metrics
from ...metrics import Score, hull
from .. import gates
from ..board import Entry
from ..published import sources
from ..rows import BySeed, split_transfer
from .correlation import correlations
from .evidence import COMPARED, DIVERSITY, Evidence
from .names import CLAIM_ATTACKS, RADII, SPELLED, SUBMODELS, paper_mra
from .study import Study, outcome
from .templating import render_macro
from .transfer import means_apart, network_shares

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
IN_KIND = "{} in kind"
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
        measured: what was, for the judge's macro.
        trainings: how many training seeds `claimed` rests on; with one, intervals say nothing of
            another training.
        figures: what was measured, in words.
    """

    claimed: str
    worst: str
    measured: Mapping[str, Any]
    trainings: int = 1
    figures: str = ""


@dataclass(frozen=True)
class Claim:
    """One claim of the paper on one dataset; `claims.toml` says what its fields are."""

    text: str
    where: str
    means: str
    dataset: str
    see: Sequence[str]
    judge: str
    evidence: str = ""
    limits: Mapping[str, Any] = field(default_factory=dict)

    def verdict(self, study: Study | None) -> Verdict | None:
        """How it fares: under less than the paper's budget in kind, on other images in figures.

        None: what it takes was not measured.
        """
        looked_at = study.evidence.get(self.evidence) if study and self.evidence else study
        verdict = _JUDGES[self.judge](looked_at, **self.limits) if looked_at else None
        if not verdict or not study:
            return None
        if study.obstacle:
            verdict = replace(verdict, claimed=f"not judged: {study.obstacle}", worst=NO_MATTER)
        elif study.in_kind:
            words = (verdict.claimed, verdict.worst)
            claimed, worst = (IN_KIND.format(w) if w in (HOLDS, FAILS) else w for w in words)
            verdict = replace(verdict, claimed=claimed, worst=worst)
        return replace(verdict, figures=render_macro("measured.md", self.judge, **verdict.measured))


def judge_claims(studies: Mapping[str, Study]) -> list[tuple[Claim, Verdict | None]]:
    """Every claim with its verdict."""
    claims = []
    for fields in tomllib.loads((files(__package__) / "claims.toml").read_text("utf-8"))["claim"]:
        means = fields.pop("means").format(**fields.get("limits", {}))
        for dataset in fields.pop("datasets"):
            text = fields["text"].format(dataset=SPELLED[dataset])
            claims.append(Claim(**{**fields, "text": text}, means=means, dataset=dataset))
    return [(claim, claim.verdict(studies.get(claim.dataset))) for claim in claims]


def decide(value: Score, low: float = -inf, high: float = inf) -> str:
    """Whether a figure lies between limits: by its interval, not by its middle."""
    if low < value.low and value.high < high:
        return HOLDS
    return FAILS if value.high < low or high < value.low else UNDECIDED


def _all_of(verdicts: Iterable[str]) -> str:
    listed = list(verdicts)
    return next((word for word in (FAILS, UNDECIDED) if word in listed), HOLDS)


def _untrusted(*entries: Entry) -> str:
    """Why no verdict may rest on them."""
    if not all(entry.row.complete for entry in entries):
        return NOT_MEASURED
    failed = any(outcome(entry.gates) == "failed" for entry in entries)
    return UNTRUSTED.format("failed" if failed else "not all run")


class _Pair:
    """Two defenses at one of the paper's radii, and MRA of the first minus the second."""

    def __init__(self, study: Study, first: str, second: str, radius: int = 0) -> None:
        eps = RADII[study.setting.dataset][radius]
        self.entries = [entry for name in (first, second) if (entry := study.entry(name, eps))]

    def difference(self, attack: str) -> Score | None:
        """Under an attack; None unless it was run on both."""
        by_seed = [entry.row.by_attack.get(attack, {}) for entry in self.entries]
        return gates.excess(*by_seed) if len(by_seed) == 2 else None

    @cached_property
    def claimed(self) -> dict[str, Score]:
        """Under each of the attacks of a claim; empty unless all were run on both."""
        by_attack = {attack: d for attack in CLAIM_ATTACKS if (d := self.difference(attack))}
        return by_attack if len(by_attack) == len(CLAIM_ATTACKS) else {}

    @cached_property
    def worst(self) -> Score | None:
        """In the worst case; None unless a verdict may rest on both."""
        first, second = self.entries
        if not (first.trusted and second.trusted):
            return None
        return metrics.shared_difference(first.row.worst_by_seed, second.row.worst_by_seed)

    @property
    def trainings(self) -> int:
        """How many training seeds both have."""
        return len(set.intersection(*({*entry.row.seeds} for entry in self.entries)))

    def verdict(self, low: float, high: float = inf, **measured: Any) -> Verdict | None:
        """Whether the difference lies between limits, in points, for either attacker."""
        if not self.claimed:
            return None
        limits = low / 100, high / 100
        worst = decide(self.worst, *limits) if self.worst else _untrusted(*self.entries)
        claimed = _all_of(decide(difference, *limits) for difference in self.claimed.values())
        return Verdict(claimed, worst, {"pair": self, **measured}, self.trainings)


def gain(study: Study, *, above: float) -> Verdict | None:
    """CLM minus ULM is above so many points."""
    dataset, eps = study.setting.dataset, RADII[study.setting.dataset][0]
    clm, ulm = (
        [paper_mra(dataset, name, attack, eps) or 0.0 for attack in CLAIM_ATTACKS]
        for name in ("clm", "ulm")
    )
    published = [round(a - b, 4) for a, b in zip(clm, ulm, strict=True)]
    return _Pair(study, "clm", "ulm").verdict(above, published=published)


def clean_cost(study: Study, *, below: float) -> Verdict | None:
    """CLM costs less than so many points of clean accuracy."""
    pair = _Pair(study, "clm", "ulm")
    cost = pair.difference("none")
    verdict = decide(cost, -below / 100) if cost else ""
    return Verdict(verdict, NO_MATTER, {"cost": cost}, pair.trainings) if cost else None


def conformity(evidence: Evidence, *, clms: int, within: float) -> Verdict | None:
    """Clean MRA of so many CLMs lies within so many points."""
    clean = evidence.arrays["clean"]
    if len(clean) < clms:
        return None
    verdict = HOLDS if np.ptp(clean.mean(axis=1)) < within / 100 else FAILS
    return Verdict(verdict, NO_MATTER, {"evidence": evidence}, len(clean))


def state_of_the_art(study: Study) -> Verdict | None:
    """CLM-Adv is at least as robust as the best single network that is published."""
    eps = RADII["mnist"][0]
    entry = study.entry("clm-adv", eps)
    row = entry.row if entry else None
    if not entry or not row or not row.complete or row.claimed is None or row.worst is None:
        return None
    listed = (figure for figure in sources.rows("figures") if figure["dataset"] == "mnist")
    best = max(listed, key=lambda figure: float(figure["robust"]))
    least = best["robust"] / 100
    worst = decide(row.worst, least) if entry.trusted else _untrusted(entry)
    paper = paper_mra("mnist", "clm-adv", "autoattack", eps)
    measured = {"row": row, "paper_mra": paper, "best": best}
    return Verdict(decide(row.claimed, least), worst, measured, len(row.seeds))


def same(study: Study, *, below: float) -> Verdict | None:
    """CLM-Adv and ULM-Adv are less than so many points apart."""
    return _Pair(study, "clm-adv", "ulm-adv").verdict(-below, below)


def ahead(study: Study, *, attacks: Sequence[str]) -> Verdict | None:
    """At the larger radius CLM-Adv is ahead under these attacks and behind under the others.

    Where networks were told apart, it must be so over images and over networks.
    """
    pair = _Pair(study, "clm-adv", "ulm-adv", radius=1)
    if not pair.claimed:
        return None
    networks = study.grids.get("networks")
    apart: dict[str, Score] = {}
    if networks and abs(networks.layout.eps - RADII[study.setting.dataset][1]) < 1e-6:
        shares = {
            (way.defense, way.attack): network_shares(way.accuracies)
            for way in sum(networks.rows, ())
            if way.accuracies is not None
        }
        for attack in pair.claimed:
            apart[attack] = means_apart(
                *(shares[entry.row.defense, attack] for entry in pair.entries)
            )
    both = {a: Score(d.value, *hull(d, apart.get(a, d))) for a, d in pair.claimed.items()}
    verdict = _all_of(
        decide(d, 0) if attack in attacks else decide(d, high=0) for attack, d in both.items()
    )
    measured = {"pair": pair, "over_networks": apart}
    return Verdict(verdict, NO_MATTER, measured, pair.trainings)


def expectation(study: Study) -> Verdict | None:
    """CLM is more robust under PGD that draws networks than under each attack on one."""
    entry = study.entry("clm", RADII["mnist"][0])
    row = entry.row if entry else None
    eot = row.score("pgd-eot") if row else None
    others = [score.value for a in CLAIM_ATTACKS if row and (score := row.score(a))]
    if not entry or not row or not eot or len(others) < len(CLAIM_ATTACKS):
        return None
    drawn = row.by_attack["pgd-eot"]
    excess = (gates.excess(drawn, row.by_attack[attack]) for attack in CLAIM_ATTACKS)
    verdict = _all_of(decide(score, 0) if score else UNDECIDED for score in excess)
    worst = verdict if entry.trusted else _untrusted(entry)
    return Verdict(NO_MATTER, worst, {"eot": eot, "others": others}, len(row.seeds))


def spread(evidence: Evidence) -> Verdict | None:
    """The standard deviation of first-layer weights is larger in a submodel of CLM."""
    ulm, clm = (evidence.arrays[name].reshape(len(evidence.arrays[name]), -1) for name in COMPARED)
    if len(ulm) < 2:
        return None
    wider = metrics.mean(clm.std(axis=1) - ulm.std(axis=1))
    return Verdict(decide(wider, 0), NO_MATTER, {"wider": wider})


def drift(evidence: Evidence, *, percent: float) -> Verdict | None:
    """The linked weight's spread grows by such a share of its way in each third, as no free one."""
    linked, free = (evidence.arrays[name].std(axis=0) for name in ("linked", "free"))
    if len(linked) < 4:
        return None
    thirds = linked[np.linspace(0, len(linked) - 1, 4).round().astype(int)]
    way, free_way = thirds[-1] - thirds[0], abs(free[-1] - free[0])
    keeps = way > free_way and all(b - a >= percent / 100 * way for a, b in pairwise(thirds))
    return Verdict(HOLDS if keeps else FAILS, NO_MATTER, {"thirds": thirds, "free": free_way})


def orthogonal(evidence: Evidence) -> Verdict | None:
    """The mean |cosine| of saliency maps is smaller in CLM, image by image."""
    ulm, clm = (evidence.arrays[f"{name} absolute"] for name in COMPARED)
    closer = metrics.mean(ulm - clm)
    return Verdict(decide(closer, 0), NO_MATTER, {"ulm": ulm, "clm": clm, "closer": closer})


def orthogonality_protects(evidence: Evidence) -> Verdict | None:
    """1 - cosine correlates with what a pair answers correctly under attack."""
    by_saliency = [c for c in correlations(evidence) if c.measure == DIVERSITY[0]]
    if any(c.rho is None for c in by_saliency if c.outcome == "transfer"):
        return None
    transfer, worst = (
        _all_of(
            (HOLDS if (c.rho or 0) > 0 else FAILS) if c.significant else UNDECIDED
            for c in by_saliency
            if c.outcome == seen
        )
        for seen in ("transfer", "worst")
    )
    return Verdict(transfer, worst, {"evidence": evidence, "correlations": by_saliency})


def _transfers(study: Study, enough: Callable[[int], bool]) -> dict[str, BySeed]:
    """The transfer records of ULM and CLM of enough submodels; empty unless both are there."""
    entries = (study.entry(name, RADII["mnist"][0]) for name in COMPARED)
    transfers = {
        row.defense: row.by_protocol["transfer"]
        for row in (entry.row for entry in entries if entry)
        if enough(row.submodels) and row.by_protocol.get("transfer")
    }
    return transfers if len(transfers) == len(COMPARED) else {}


def _at_most(
    limit: float, scores: Mapping[str, Score], transfers: Mapping[str, BySeed], **measured: Any
) -> Verdict | None:
    """Whether the scores that follow from transfers are below a limit; None without transfers."""
    verdict = _all_of(decide(score, high=limit) for score in scores.values())
    trainings = min(map(len, transfers.values()), default=0)
    measured["transfers"] = transfers
    return Verdict(verdict, NO_MATTER, measured, trainings) if transfers else None


def attacked_one_fails(study: Study, *, below: float) -> Verdict | None:
    """Robust accuracy is below so many percent where the attacked submodel answers."""
    transfers = _transfers(study, lambda n: n > 1)
    on_itself, on_others = {}, {}
    for name, by_seed in transfers.items():
        sides = split_transfer(by_seed)
        on_itself[name], on_others[name] = (metrics.score([*side.values()]) for side in sides)
    measured = {"on_itself": on_itself, "on_others": on_others}
    return _at_most(below / 100, on_itself, transfers, **measured)


def size_is_nothing(study: Study, *, most: float) -> Verdict | None:
    """By how much n can raise MRA = own / n + (1 - 1 / n) others, which tends to others."""
    transfers = _transfers(study, lambda n: n == SUBMODELS)
    now, gains = {}, {}
    for name, by_seed in transfers.items():
        gap = metrics.difference(*reversed(split_transfer(by_seed)))
        gains[name] = Score(*(part / SUBMODELS for part in (gap.value, gap.low, gap.high)))
        expected = [record.answers.s.mean() for record in by_seed.values()]
        now[name] = float(np.mean(expected))
    return _at_most(most / 100, gains, transfers, now=now, gains=gains)


_JUDGES: Mapping[str, Callable[..., Verdict | None]] = {
    judge.__name__: judge
    for judge in (
        *(gain, clean_cost, conformity, state_of_the_art, same, ahead, expectation, spread, drift),
        *(orthogonal, orthogonality_protects, attacked_one_fails, size_is_nothing),
    )
}
