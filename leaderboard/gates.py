"""Gates: what a row's own figures must look like before its rank is believed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from leaderboard import metrics
from leaderboard.metrics import Answers, Score
from leaderboard.records import Record
from leaderboard.rows import BySeed, Row, answers, own_and_others, worst_case_by_seed

# A gate must be able to see a difference of so much, or it is undecided.
VISIBLE = 0.02
# The share of images on which another attack may beat the cascade.
BEATEN = 0.001
# Share of images without any gradient, or left unperturbed, above which an attack was masked.
MASKED = 0.05

Outcome = Literal["passed", "failed", "undecided", "not run", "not applicable"]


@dataclass(frozen=True)
class Gate:
    """One check and its outcome.

    Attributes:
        outcome: "undecided" where too few images were used to tell, and the figure says how many
            it takes; "not run" where what it needs was not measured.
        figure: the numbers behind it, in points of percent where they are accuracies.
    """

    name: str
    outcome: Outcome
    figure: str

    @property
    def passed(self) -> bool | None:
        """True or False where that was decided; None where too little was measured to tell."""
        return {"passed": True, "failed": False}.get(self.outcome)


def check(row: Row) -> list[Gate]:
    """All gates of a row, each over all its seeds."""
    return [
        _gradients_no_weaker(row, "gradients on all draws no weaker than on one", row.facts.claim),
        _gradients_no_weaker(
            row,
            "gradients no weaker than queries and noise",
            [attack for attack in [*row.attacks("queries"), "noise"] if attack in row.by_attack],
        ),
        _cascade_unbeaten(row),
        _monotone(row),
        _at_chance(row),
        _own_member(row),
        _doubled(row),
        _share(row, "few images unperturbed", "unperturbed", _of_the_claim),
        _share(row, "few images without gradient", "zero_gradients", _clean),
        _repeats(row),
    ]


def passed(gates: Sequence[Gate]) -> bool:
    """Whether every gate was run and none failed; one may be undecided."""
    return not any(gate.outcome in ("failed", "not run") for gate in gates)


def outcome(gates: Sequence[Gate]) -> str:
    """All gates in a word: passed, undecided, failed, or not all run."""
    outcomes = {gate.outcome for gate in gates}
    words = {"failed": "failed", "not run": "not all run", "undecided": "undecided"}
    return next((word for known, word in words.items() if known in outcomes), "passed")


def trusted(row: Row) -> bool:
    """Whether a verdict may rest on a row: all that a rank needs was run, and no gate failed."""
    return row.complete and passed(check(row))


def _of_the_claim(record: Record) -> bool:
    return record.case.protocol == "draw" and record.case.attack in record.facts.claim


def _clean(record: Record) -> bool:
    return record.case.attack == "none"


def judged(excess: Score, images: int, *, limit: float = VISIBLE) -> tuple[Outcome, str]:
    """Whether something is above 0 that must not be, and if that cannot be told, what would tell.

    Failed where the interval lies above 0, passed where it ends below `limit`.

    Args:
        excess: on so many images.
    """
    if excess.low > 0:
        return "failed", ""
    if excess.high <= limit:
        return "passed", ""
    half = (excess.high - excess.low) / 2
    if excess.value >= limit:
        return "undecided", f" ± {100 * half:.1f}"
    needed = math.ceil(images * (half / (limit - excess.value)) ** 2 / 100) * 100
    return "undecided", f" ± {100 * half:.1f}; about {needed:,} images would tell"


def _gradients_no_weaker(row: Row, name: str, weak: Sequence[str]) -> Gate:
    """The best gradient attack on the population is not above any weak attack, paired."""
    strong = worst_case_by_seed(
        {attack: row.by_attack[attack] for attack in row.attacks("population")}
    )
    if not strong or not weak:
        return Gate(name, "not run", "not run")
    found = {
        attack: (excess, min(one.images for one in strong.values()))
        for attack in weak
        if (excess := metrics.shared_difference(strong, answers(row.by_attack.get(attack, {}))))
    }
    if missing := [attack for attack in weak if attack not in found]:
        return Gate(name, "not run", f"not run against {', '.join(missing)}")
    attack, (excess, images) = max(found.items(), key=lambda item: item[1][0].low)
    widest = max(found.values(), key=lambda pair: pair[0].high)
    outcome, note = judged(excess, images)
    if outcome == "passed":
        outcome, note = judged(*widest)
    return Gate(name, outcome, f"{100 * excess.value:+.1f} against {attack}{note}")


def excess(first: Mapping[int, Record], second: Mapping[int, Record]) -> Score | None:
    """The paired difference over common seeds and images, or None where there is none."""
    if not first.keys() & second.keys():
        return None
    return metrics.shared_difference(answers(first), answers(second))


def _cascade_unbeaten(row: Row) -> Gate:
    """No attack beats the cascade on more than `BEATEN` of the images."""
    name = "no attack beats the cascade"
    cascade = answers(row.cascade)
    others = [attack for attack in row.attacks() if row.by_attack[attack] is not row.cascade]
    if not cascade or not others:
        return Gate(name, "not run", "not run")
    outcomes: dict[str, tuple[float, Outcome, str]] = {}
    for attack in others:
        other = answers(row.by_attack[attack])
        common = sorted(cascade.keys() & other.keys())
        pairs = [metrics.on_shared_images([cascade[s], other[s]]) for s in common]
        if pairs:
            outcomes[attack] = _beaten(pairs)
    if not outcomes:
        return Gate(name, "not run", "not run")
    severity = ("passed", "undecided", "failed")
    attack, (share, outcome, note) = max(
        outcomes.items(), key=lambda item: (severity.index(item[1][1]), item[1][0])
    )
    return Gate(name, outcome, f"{100 * share:.1f}{note}, {attack}")


def _beaten(pairs: Sequence[Sequence[Answers]]) -> tuple[float, Outcome, str]:
    """How much an attack beats the cascade by: (cascade, attack) for each seed."""
    if pairs[0][0].draws > 1:
        # On single images draws decide; on all of them, what choosing the attack would lower.
        both = {seed: metrics.worst_case(pair) for seed, pair in enumerate(pairs)}
        gained = metrics.difference({seed: pair[0] for seed, pair in enumerate(pairs)}, both)
        outcome, note = judged(
            Score(gained.value, gained.low - BEATEN, gained.high), pairs[0][0].images
        )
        return gained.value, outcome, f" points{note}"
    beaten = [float((other.s < own.s - metrics.ROUNDING).sum()) for own, other in pairs]
    images = sum(own.images for own, _ in pairs)
    share = sum(beaten) / images
    enough = images >= 1 / BEATEN
    lower = metrics.lower_bound(sum(beaten), images - sum(beaten))
    surely = share > BEATEN and lower > BEATEN
    if share > BEATEN and (enough or surely):
        return share, "failed", "% of images"
    return (
        share,
        "passed" if enough else "undecided",
        ("% of images" + ("" if enough else f"; {1 / BEATEN:,.0f} images would tell")),
    )


def _curve(row: Row) -> Mapping[float, BySeed]:
    """The population attack that was run at most radii, by eps."""
    curves = [
        {eps: by_seed for eps, by_seed in row.sweep[attack].items() if by_seed}
        for attack in row.attacks("population")
        if attack in row.sweep
    ]
    return max(curves, key=len, default={})


def _monotone(row: Row) -> Gate:
    """Accuracy does not rise from one eps to the next."""
    name = "monotone in eps"
    curve = {**row.sweep.get("none", {}), **_curve(row)}
    radii = sorted(eps for eps, by_seed in curve.items() if by_seed)
    if len(radii) < 3:
        return Gate(name, "not run", "not run")
    rises = [rise for a, b in pairwise(radii) if (rise := excess(curve[b], curve[a]))]
    if not rises:
        return Gate(name, "not run", "not run")
    images = min(r.case.images for eps in radii for r in curve[eps].values())
    highest = max(rises, key=lambda rise: rise.low)
    result, note = judged(highest, images)
    if result == "passed":
        result, note = judged(max(rises, key=lambda rise: rise.high), images)
    return Gate(name, result, f"largest rise {100 * highest.value:+.1f}{note}")


def _at_chance(row: Row) -> Gate:
    """At the largest eps measured, a network without certified robustness is at or below chance."""
    name = "at or below chance at the largest eps"
    curve = _curve(row)
    if len(curve) < 3:
        return Gate(name, "not run", "not run")
    eps = max(curve)
    accuracy = metrics.score(list(answers(curve[eps]).values()))
    record = next(iter(curve[eps].values()))
    chance = 1 / record.case.classes
    above = Score(accuracy.value - chance, accuracy.low - chance, accuracy.high - chance)
    result, note = judged(above, record.case.images)
    return Gate(name, result, f"{100 * accuracy.value:.1f} at {eps:.3g}{note}")


def _own_member(row: Row) -> Gate:
    """Attacking a member by itself succeeds at least as often as through another one."""
    name = "own-member attack no weaker than transfer"
    if row.submodels == 1:
        return Gate(name, "not applicable", "one member")
    by_seed = row.by_protocol.get("transfer", {})
    if not by_seed:
        return Gate(name, "not run", "not run")
    own, others = own_and_others(by_seed)
    shown = [100 * metrics.score(list(side.values())).value for side in (own, others)]
    figure = f"own {shown[0]:.1f}, through others {shown[1]:.1f}"
    images = next(iter(own.values())).images
    result, note = judged(metrics.difference(own, others), images)
    return Gate(name, result, figure + note)


def _doubled(row: Row) -> Gate:
    """Adding an attack with twice the steps lowers the worst case by less than a standard error."""
    name = "doubling steps changes less than one standard error"
    doubled = answers(row.by_protocol.get("doubled", {}))
    worst = row.worst_by_seed
    common = [seed for seed in worst if seed in doubled]
    if not common:
        return Gate(name, "not run", "not run")
    changes = []
    for seed in common:
        before, twice = metrics.on_shared_images([worst[seed], doubled[seed]])
        change = float((before.s - metrics.worst_case([before, twice]).s).mean())
        changes.append((change, metrics.standard_error(before)))
    change, error = max(changes, key=lambda pair: pair[0] - pair[1])
    result: Outcome = "passed" if change <= error else "failed"
    return Gate(name, result, f"{100 * change:.2f} of {100 * error:.2f}")


def _share(row: Row, name: str, attribute: str, chosen: Callable[[Record], bool]) -> Gate:
    """A share stored with the records is small."""
    shares = [getattr(record, attribute) for record in row.records if chosen(record)]
    known = [share for share in shares if share is not None]
    if not known:
        return Gate(name, "not run", "not run")
    result: Outcome = "passed" if max(known) <= MASKED else "failed"
    return Gate(name, result, f"{100 * max(known):.1f}%")


def _repeats(row: Row) -> Gate:
    """The same seed gave the same twice."""
    name = "same seed, same images"
    repeated = [r.repeatable for r in row.records if r.repeatable is not None]
    if not repeated:
        return Gate(name, "not run", "not run")
    result: Outcome = "passed" if all(repeated) else "failed"
    return Gate(name, result, "identical" if all(repeated) else "different")
