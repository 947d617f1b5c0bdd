"""Gates: what a row's own figures must look like before its rank is believed."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from .. import metrics
from ..metrics import Answers, Score
from .records import Record
from .rows import BySeed, Row, answers, split_transfer, worst_case_by_seed

# More images than anybody attacks.
MOST_IMAGES = 1_000_000
# A difference that a gate must be able to see; the share of images on which another attack may beat
# the cascade; and without any gradient, or left unperturbed, above which an attack was masked.
VISIBLE, BEATEN, MASKED = 0.02, 0.001, 0.05

Outcome = Literal["passed", "failed", "undecided", "not run", "not applicable"]
Finding = tuple[Outcome, str]


@dataclass(frozen=True)
class Gate:
    """One check and its outcome.

    Attributes:
        outcome: "undecided" where too few images were used to tell.
        figure: the numbers behind it, in points of percent, and how many images would tell.
    """

    name: str
    outcome: Outcome
    figure: str

    @property
    def passed(self) -> bool | None:
        """True or False where that was decided; None where too little was measured to tell."""
        return {"passed": True, "failed": False}.get(self.outcome)


def check(row: Row) -> list[Gate]:
    """All gates of a row, each over all its seeds; one finds None where too little was measured."""
    controls = [attack for attack in [*row.attacks("queries"), "noise"] if attack in row.by_attack]
    drawn = [r for r in row.records if r.case.protocol == "draw"]
    claims = [r.unperturbed for r in drawn if r.case.attack in r.facts.claim]
    gradients = [r.zero_gradients for r in drawn if r.case.attack == "none"]
    findings = {
        "gradients on all draws no weaker than on one": _no_weaker(row, row.facts.claim),
        "gradients no weaker than queries and noise": _no_weaker(row, controls),
        "the cascade is the strongest attack": _cascade_unbeaten(row),
        "monotone in eps": _monotone(row),
        "at or below chance at the largest eps": _at_chance(row),
        "own-member attack no weaker than transfer": _own_member(row),
        "doubling steps changes less than one standard error": _doubled(row),
        "few images unperturbed": _few(claims),
        "few images without gradient": _few(gradients),
        "same seed, same images": _repeats(row),
    }
    if broken := excess(row.by_protocol.get("certified", {}), row.cascade):
        outcome, note = judged(broken, row.worst_images)
        findings["no attack breaks a certificate"] = outcome, f"{100 * broken.value:+.1f}{note}"
    odd = [r.findings for r in row.records if r.findings is not None]
    # Records from before there was a preflight do without.
    if odd:
        figure = "; ".join(dict.fromkeys(word for words in odd for word in words)) or "nothing"
        findings["nothing odd before the attacks"] = ("failed" if any(odd) else "passed"), figure
    return [Gate(n, *(finding or ("not run", "not run"))) for n, finding in findings.items()]


def sound(gates: Iterable[Gate]) -> bool:
    """Whether all were run, and none failed."""
    return all(gate.outcome not in ("failed", "not run") for gate in gates)


def trusted(row: Row, gates: Iterable[Gate]) -> bool:
    """Whether a rank or a verdict may rest on a row: it is complete, and its gates are sound."""
    return row.complete and sound(gates)


def counted(gates: Iterable[Gate]) -> str:
    """How many gates had which outcome: `9 passed, 1 failed`."""
    counts = Counter[str](gate.outcome for gate in gates)
    words = ("passed", "undecided", "failed", "not run")
    return ", ".join(f"{counts[word]} {word}" for word in words if counts[word])


def judged(excess: Score, images: int, *, limit: float = VISIBLE) -> tuple[Outcome, str]:
    """Failed where the interval lies above 0, passed where it ends below `limit`.

    Else undecided, with how many images would tell.
    """
    if excess.low > 0:
        return "failed", ""
    if excess.high <= limit:
        return "passed", ""
    half = (excess.high - excess.low) / 2
    if excess.value >= limit:
        return "undecided", f" ± {100 * half:.1f}"
    needed = math.ceil(images * (half / (limit - excess.value)) ** 2 / 100) * 100
    told = f"; about {needed:,} images would tell" if needed <= MOST_IMAGES else ""
    return "undecided", f" ± {100 * half:.1f}{told}"


def _worst_of(excesses: Mapping[str, Score], images: int) -> tuple[str, Outcome, str]:
    """Of several the one most surely above 0; passed only where all are."""
    worst = max(excesses, key=lambda name: excesses[name].low)
    result, note = judged(excesses[worst], images)
    if result == "passed":
        result, note = judged(max(excesses.values(), key=lambda excess: excess.high), images)
    return worst, result, note


def _no_weaker(row: Row, weak: Sequence[str]) -> Finding | None:
    """The best gradient attack on the population is not above any weak attack, paired."""
    strong = worst_case_by_seed({name: row.by_attack[name] for name in row.attacks("population")})
    if not strong or not weak:
        return None
    if missing := [attack for attack in weak if attack not in row.by_attack]:
        return "not run", f"not run against {', '.join(missing)}"
    tried = {a: metrics.shared_difference(strong, answers(row.by_attack[a])) for a in weak}
    excesses = {attack: excess for attack, excess in tried.items() if excess}
    attack, result, note = _worst_of(excesses, min(answers.images for answers in strong.values()))
    return result, f"{100 * excesses[attack].value:+.1f} against {attack}{note}"


def excess(first: Mapping[int, Record], second: Mapping[int, Record]) -> Score | None:
    """The paired difference over common seeds and images, or None where there is none."""
    if not first.keys() & second.keys():
        return None
    return metrics.shared_difference(answers(first), answers(second))


def _cascade_unbeaten(row: Row) -> Finding | None:
    """No attack beats the cascade on more than `BEATEN` of the images."""
    cascade, beaten = answers(row.cascade), []
    for attack in row.attacks():
        other = answers(row.by_attack[attack])
        common = sorted(cascade.keys() & other.keys())
        if common and row.by_attack[attack] is not row.cascade:
            pairs = [metrics.on_shared_images([cascade[s], other[s]]) for s in common]
            share, result, note = _beaten(pairs)
            severity = ("passed", "undecided", "failed").index(result)
            beaten.append((severity, share, (result, f"against {attack}: {100 * share:.1f}{note}")))
    return max(beaten, key=lambda by_attack: by_attack[:2])[-1] if beaten else None


def _beaten(pairs: Sequence[Sequence[Answers]]) -> tuple[float, Outcome, str]:
    """How much an attack beats the cascade by: (cascade, attack) for each seed."""
    if pairs[0][0].draws > 1:
        # On single images draws decide; on all of them, what choosing the attack would lower.
        both = {seed: metrics.worst_case(pair) for seed, pair in enumerate(pairs)}
        gained = metrics.difference({seed: pair[0] for seed, pair in enumerate(pairs)}, both)
        beyond = Score(gained.value, gained.low - BEATEN, gained.high)
        outcome, note = judged(beyond, pairs[0][0].images)
        return gained.value, outcome, f" points{note}"
    beaten = sum(float((other.s < cascade.s - metrics.ROUNDING).sum()) for cascade, other in pairs)
    images = sum(cascade.images for cascade, _ in pairs)
    share, enough = beaten / images, images >= 1 / BEATEN
    if metrics.lower_bound(beaten, images - beaten) > BEATEN or (enough and share > BEATEN):
        return share, "failed", "% of images"
    if enough:
        return share, "passed", "% of images"
    return share, "undecided", f"% of images; {1 / BEATEN:,.0f} images would tell"


def _curve(row: Row) -> Mapping[float, BySeed]:
    """The population attack that was run at most radii, by eps, clean images at 0."""
    return max(map(row.curve, row.attacks("population")), key=len, default={})


def _monotone(row: Row) -> Finding | None:
    """Accuracy does not rise from one eps to the next."""
    curve = _curve(row)
    rises = {f"{b:.3g}": rise for a, b in pairwise(curve) if (rise := excess(curve[b], curve[a]))}
    if len(curve) < 3 or not rises:
        return None
    images = min(r.case.images for by_seed in curve.values() for r in by_seed.values())
    highest, result, note = _worst_of(rises, images)
    return result, f"largest rise {100 * rises[highest].value:+.1f}{note}"


def _at_chance(row: Row) -> Finding | None:
    """At the largest eps measured, a network without certified robustness is at or below chance."""
    curve = _curve(row)
    if len(curve.keys() - {0.0}) < 3:
        return None
    eps, by_seed = max(curve.items())
    case, accuracy = next(iter(by_seed.values())).case, metrics.score([*answers(by_seed).values()])
    result, note = judged(accuracy - 1 / case.classes, case.images)
    return result, f"{100 * accuracy.value:.1f} at {eps:.3g}{note}"


def _own_member(row: Row) -> Finding | None:
    """Attacking a member by itself succeeds at least as often as through another one."""
    if row.submodels == 1:
        return "not applicable", "one member"
    sides = on_itself, on_others = split_transfer(row.by_protocol.get("transfer", {}))
    if not on_itself:
        return None
    own, through_others = (100 * metrics.score([*side.values()]).value for side in sides)
    images = next(iter(on_itself.values())).images
    result, note = judged(metrics.difference(on_itself, on_others), images)
    return result, f"own {own:.1f}, through others {through_others:.1f}{note}"


def _doubled(row: Row) -> Finding | None:
    """Adding an attack with twice the steps lowers the worst case by less than a standard error."""
    doubled, changes = answers(row.by_protocol.get("doubled", {})), []
    for seed in row.worst_by_seed.keys() & doubled.keys():
        before, twice = metrics.on_shared_images([row.worst_by_seed[seed], doubled[seed]])
        change = float((before.s - metrics.worst_case([before, twice]).s).mean())
        changes.append((change, metrics.standard_error(before)))
    if not changes:
        return None
    change, error = max(changes, key=lambda pair: pair[0] - pair[1])
    return ("passed" if change <= error else "failed"), f"{100 * change:.2f} of {100 * error:.2f}"


def _few(shares: Iterable[float | None]) -> Finding | None:
    """A share stored with the records is small."""
    known = [share for share in shares if share is not None]
    if not known:
        return None
    return ("passed" if max(known) <= MASKED else "failed"), f"{100 * max(known):.1f}%"


def _repeats(row: Row) -> Finding | None:
    """The same seed gave the same twice."""
    repeated = {r.repeatable for r in row.records} - {None}
    if not repeated:
        return None
    return ("failed", "different") if False in repeated else ("passed", "identical")
