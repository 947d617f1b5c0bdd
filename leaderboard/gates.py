"""Gates: what a row's own figures must look like before its rank is believed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from scipy import stats

from leaderboard import metrics
from leaderboard.metrics import CONFIDENCE, Score
from leaderboard.records import Record
from leaderboard.table import CASCADE, CLAIM_ATTACKS, Row, own_and_others

# The attack whose curve must fall, and end at chance.
CURVE = "pgd-clipped-margin"
# What the cascade must not lose to.
PARTS = (
    "pgd-clipped-margin",
    "pgd-mean-ce",
    "pgd-mean-probability",
    "apgd-population",
    "arc",
    "square-population",
)
# The strongest attack by gradients alone: where they are masked, it loses to those without.
GRADIENTS = "apgd-population"
WITHOUT_GRADIENTS = ("square-population", "square-oracle", "noise")
# Share of images without any gradient, or left unperturbed, above which an attack was masked.
MASKED = 0.05
# The test images of MNIST, and of CIFAR-10.
PAPER_IMAGES = 10_000


@dataclass(frozen=True)
class Gate:
    """One check and its outcome.

    Attributes:
        passed: None where what it needs was not run.
        figure: the numbers behind it, in points of percent where they are accuracies.
    """

    name: str
    passed: bool | None
    figure: str


def check(row: Row) -> list[Gate]:
    """All gates of a row, each over all its seeds."""
    return [
        _no_weaker(row, "iterated on all networks no weaker than FGSM on one", CURVE, ("fgsm",)),
        _no_weaker(
            row,
            "APGD on all networks no weaker than the paper's attacks on one",
            GRADIENTS,
            CLAIM_ATTACKS,
        ),
        _no_weaker(row, "gradients no weaker than queries and noise", GRADIENTS, WITHOUT_GRADIENTS),
        _no_weaker(row, "cascade no weaker than its parts", CASCADE, PARTS),
        _monotone(row),
        _at_chance(row),
        _own_member(row),
        _doubled(row),
        _contained(row),
        _share(row, "few images unperturbed", "unperturbed", _attacked),
        _share(row, "few images without gradient", "zero_gradients", _clean),
        _repeats(row),
    ]


def passed(gates: Sequence[Gate]) -> bool:
    """Whether every gate was run and passed."""
    return all(gate.passed for gate in gates)


def outcome(gates: Sequence[Gate]) -> str:
    """All gates in a word: passed, failed, or not all run."""
    if any(gate.passed is False for gate in gates):
        return "failed"
    return "passed" if passed(gates) else "not all run"


def trusted(row: Row) -> bool:
    """Whether a verdict may rest on a row: all that a rank needs was run, and all gates passed."""
    return row.complete and passed(check(row))


def _attacked(record: Record) -> bool:
    return record.cell.protocol == "draw" and record.cell.attack in CLAIM_ATTACKS


def _clean(record: Record) -> bool:
    return record.cell.attack == "none"


def _no_weaker(row: Row, name: str, strong: str, weak: tuple[str, ...]) -> Gate:
    """The strong attack's MRA is not significantly above any weak one's, paired over images."""
    if strong not in row.by_attack:
        return Gate(name, None, "not run")
    found = {
        attack: difference
        for attack in weak
        if (difference := excess(row.by_attack[strong], row.by_attack.get(attack, {})))
    }
    if missing := [attack for attack in weak if attack not in found]:
        return Gate(name, None, f"not run against {', '.join(missing)}")
    attack, worst = max(found.items(), key=lambda item: item[1].low)
    return Gate(name, worst.low <= 0, f"{strong} {100 * worst.value:+.1f} against {attack}")


def excess(first: Mapping[int, Record], second: Mapping[int, Record]) -> Score | None:
    """The paired difference over common seeds and images, or None where there is none."""
    common = sorted(first.keys() & second.keys())
    sides = ({seed: by[seed].correct for seed in common} for by in (first, second))
    return metrics.shared_difference(*sides)


def _monotone(row: Row) -> Gate:
    """MRA does not rise significantly from one eps to the next."""
    name = "monotone in eps"
    curve = {**row.sweep.get("none", {}), **row.sweep.get(CURVE, {})}
    curve = {eps: by_seed for eps, by_seed in curve.items() if by_seed}
    radii = sorted(curve)
    if len(radii) < 3:
        return Gate(name, None, "not run")
    rises = [rise for a, b in pairwise(radii) if (rise := excess(curve[b], curve[a]))]
    if not rises:
        return Gate(name, None, "not run")
    worst = max(rises, key=lambda rise: rise.low)
    return Gate(name, worst.low <= 0, f"largest rise {100 * worst.value:+.1f}")


def _at_chance(row: Row) -> Gate:
    """At the largest eps measured, a network without certified robustness is at or below chance."""
    name = "at or below chance at the largest eps"
    curve = {eps: by_seed for eps, by_seed in row.sweep.get(CURVE, {}).items() if by_seed}
    if len(curve) < 3:
        return Gate(name, None, "not run")
    eps = max(curve)
    result = metrics.score([record.correct for record in curve[eps].values()])
    chance = 1 / next(iter(curve[eps].values())).cell.classes
    return Gate(name, result.low <= chance, f"{100 * result.value:.1f} at {eps:.3g}")


def _own_member(row: Row) -> Gate:
    """Attacking a submodel by itself succeeds at least as often as through another one."""
    name = "own-member attack no weaker than transfer"
    if row.submodels == 1:
        return Gate(name, True, "one submodel")
    by_seed = row.by_protocol.get("transfer", {})
    if not by_seed:
        return Gate(name, None, "not run")
    own, others = own_and_others(by_seed)
    shown = [100 * metrics.score(list(side.values())).value for side in (own, others)]
    figure = f"own {shown[0]:.1f}, through others {shown[1]:.1f}"
    return Gate(name, metrics.difference(own, others).low <= 0, figure)


def _doubled(row: Row) -> Gate:
    """Adding an attack with twice the steps lowers the worst case by less than a standard error."""
    name = "doubling steps changes less than one standard error"
    doubled = row.by_protocol.get("doubled", {})
    worst = row.worst_by_seed
    common = [seed for seed in worst if seed in doubled]
    if not common:
        return Gate(name, None, "not run")
    changes = []
    for seed in common:
        before, twice = metrics.on_shared_images([worst[seed], doubled[seed].correct])
        change = metrics.mra(before) - metrics.mra(metrics.worst_case([before, twice]))
        changes.append((change, metrics.standard_error(before)))
    change, error = max(changes, key=lambda pair: pair[0] - pair[1])
    return Gate(name, change <= error, f"{100 * change:.2f} of {100 * error:.2f}")


def _contained(row: Row) -> Gate:
    """Every perturbed image lies inside the ball, and its pixels are finite and in [0, 1]."""
    beyond = max(record.largest_distance - record.cell.eps for record in row.records)
    return Gate("inside the ball and [0, 1]", beyond <= 1e-4, f"largest excess {beyond:.1e}")


def _share(row: Row, name: str, attribute: str, chosen: Callable[[Record], bool]) -> Gate:
    """A share stored with the records is small."""
    shares = [getattr(record, attribute) for record in row.records if chosen(record)]
    known = [share for share in shares if share is not None]
    if not known:
        return Gate(name, None, "not run")
    return Gate(name, max(known) <= MASKED, f"{100 * max(known):.1f}%")


def _repeats(row: Row) -> Gate:
    """The same seed gave the same perturbed images."""
    name = "same seed, same images"
    repeated = [r.repeatable for r in row.records if r.repeatable is not None]
    if not repeated:
        return Gate(name, None, "not run")
    return Gate(name, all(repeated), "identical" if all(repeated) else "different")


@dataclass(frozen=True)
class PaperCheck:
    """A check that can be made on published MRAs: an attack leaves no more than a weaker one.

    Attributes:
        strong, weak: attacks; `left` by each, in [0, 1].
    """

    table: str
    defense: str
    name: str
    strong: str
    weak: str
    left: tuple[float, float]

    @property
    def excess(self) -> float:
        """What the strong attack leaves more; without images to pair, any fails."""
        return self.left[0] - self.left[1]

    @property
    def by_chance(self) -> bool:
        """Whether the draws alone may have done it, on test images of which none is paired."""
        variance = sum(share * (1 - share) for share in self.left) / PAPER_IMAGES
        quantile = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
        return abs(self.excess) < quantile * math.sqrt(variance)


def check_paper(tables: Mapping[str, Any]) -> list[PaperCheck]:
    """The checks on each column of the paper's tables.

    None of `pgd-eot`, which on one deterministic network, as the paper ran it, is PGD.
    """
    return [
        PaperCheck(
            number,
            defense,
            name,
            strong,
            weak,
            (table["rows"][strong][defense] / 100, table["rows"][weak][defense] / 100),
        )
        for number, table in sorted(tables.items())
        if "rows" in table
        for defense in table["rows"]["pgd"]
        for name, strong, weak in (
            ("iterated no weaker than single-step", "pgd", "fgsm"),
            ("ensemble of attacks no weaker than its parts", "autoattack", "pgd"),
        )
    ]
