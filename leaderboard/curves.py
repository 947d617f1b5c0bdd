"""Accuracy of each defense at every eps: attack by attack, and under each of the two attackers."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from ..metrics import score
from .drawing import panels, plain, plot_accuracy, style
from .rows import BySeed, Row, worst_case_by_seed


@dataclass(frozen=True)
class Curve:
    """One defense from clean images to the largest eps.

    Attributes:
        attacks, seeds: those behind every point: the ones that there are at all radii.
        points: claimed and worst-case accuracy, in [0, 1], by eps.
    """

    label: str
    submodels: int
    attacks: tuple[str, ...]
    seeds: tuple[int, ...]
    points: Mapping[float, tuple[float, float]]


def widest(rows: Iterable[Row]) -> list[Row]:
    """Of rows at several radii one for each population, the one that most was swept of."""
    most: dict[tuple[str, int], Row] = {}
    for row in sorted(rows, key=lambda row: len(_radii(row))):
        most[row.label, row.submodels] = row
    return [most[name] for name in sorted(most)]


def curves(rows: Sequence[Row]) -> list[Curve]:
    """The curves that have at least three points, all of them under the same attacks.

    All curves are under the same, where they share both attackers'.
    """
    drawn = [curve for row in rows if (curve := _curve(row))]
    shared = set.intersection(*(set(curve.attacks) for curve in drawn)) if drawn else set()
    return [curve for row in rows if (curve := _curve(row, shared))] or drawn


def sweep(row: Row) -> dict[str, dict[float, float]]:
    """Accuracy by attack and eps, clean at 0; of three radii or more, on the seeds of all."""
    drawn = {r.case.attack for r in row.measured if r.case.protocol == "draw"} - {"none"}
    return {
        attack: {eps: _accuracy(by_seed, seeds) for eps, by_seed in curve.items()}
        for attack, curve in ((attack, row.curve(attack)) for attack in sorted(drawn))
        if (seeds := set.intersection(*map(set, curve.values()))) and len(curve.keys() - {0.0}) > 2
    }


def draw_curves(drawn: Sequence[Curve], figure: Any) -> None:
    """One line a defense; the title names the one that loses most to the second attacker."""
    left, right = panels(figure, 10.4, 4.6, columns=2, sharey=True)
    claimed, worst, eps, lost = max(
        ((*pair, eps, curve) for curve in drawn for eps, pair in curve.points.items()),
        key=lambda point: point[0] - point[1],
    )
    figure.suptitle(
        f"Attacks on all networks at once lower {plain(lost.label)} from {claimed:.0%} to "
        f"{worst:.0%} at eps {eps:.3g}"
    )
    titles = "the authors' attacks, on one draw", "these, and attacks on all networks at once"
    for which, (panel, title) in enumerate(zip((left, right), titles, strict=True)):
        points = ({eps: pair[which] for eps, pair in curve.points.items()} for curve in drawn)
        looks = (style(curve.label.partition(" ")[0]) for curve in drawn)
        lines = zip((curve.label for curve in drawn), points, looks, strict=True)
        plot_accuracy(panel, title, lines)
    left.set_ylabel("robust accuracy (%)")


def _radii(row: Row) -> list[float]:
    """Clean images, at 0, and the radii with more than one attack."""
    times = Counter(eps for attack in row.attacks() for eps in row.curve(attack))
    return sorted(eps for eps, count in times.items() if count > 1)


def _curve(row: Row, among: Set[str] | None = None) -> Curve | None:
    """Under those attacks that were run at all radii; `among` some only."""
    run, radii = {attack: row.curve(attack) for attack in row.attacks()}, _radii(row)
    attacks = sorted(a for a, curve in run.items() if curve.keys() >= {0.0, *radii})
    attacks = [attack for attack in attacks if among is None or attack in among]
    claims = [attack for attack in attacks if attack in row.facts.claim]
    if len(radii) < 3 or not claims or len(claims) == len(attacks):
        return None
    seeds = set.intersection(*(set(run[attack][eps]) for attack in attacks for eps in radii))
    points = {}
    for eps in radii if seeds else ():
        chosen = {a: {seed: run[a][eps][seed] for seed in sorted(seeds)} for a in attacks}
        worst = score([*worst_case_by_seed(chosen).values()]).value
        points[eps] = min(_accuracy(chosen[attack], seeds) for attack in claims), worst
    found = Curve(row.label, row.submodels, tuple(attacks), tuple(sorted(seeds)), points)
    return found if points else None


def _accuracy(by_seed: BySeed, seeds: Iterable[int]) -> float:
    return score([by_seed[seed].answers for seed in sorted(seeds)]).value
