"""Accuracy of each defense at every eps: attack by attack, and under each of the two attackers."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from .drawing import panels, plain, plot_accuracy, style
from .metrics import score
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
    same: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        same.setdefault((row.label, row.submodels), []).append(row)
    return [max(of_one, key=lambda row: len(_swept(row))) for _, of_one in sorted(same.items())]


def curves(rows: Sequence[Row]) -> list[Curve]:
    """The curves that have at least three points.

    Every point of a curve is under the same attacks on the same populations, so that it does not
    jump where more were run; and all curves are under the same, where they share both attackers'.
    """
    drawn = [curve for row in rows if (curve := _curve(row))]
    shared = set.intersection(*(set(curve.attacks) for curve in drawn)) if drawn else set()
    return [curve for row in rows if (curve := _curve(row, shared))] or drawn


def sweep(row: Row) -> dict[str, dict[float, float]]:
    """Accuracy by attack and eps, clean images at 0.

    Of attacks run at three radii or more, on the seeds that there are at all of them.
    """
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
        lines = [(c.label, line, style(c.label)) for c, line in zip(drawn, points, strict=True)]
        plot_accuracy(panel, title, lines)
    left.set_ylabel("robust accuracy (%)")


def _swept(row: Row) -> dict[float, dict[str, BySeed]]:
    """The row's records by eps, where there is more than one attack."""
    by_eps: dict[float, dict[str, BySeed]] = {}
    for attack in row.attacks():
        for eps, by_seed in row.curve(attack).items():
            by_eps.setdefault(eps, {})[attack] = by_seed
    return {eps: by for eps, by in sorted(by_eps.items()) if eps and len(by) > 1}


def _curve(row: Row, among: Set[str] | None = None) -> Curve | None:
    """Under those attacks that were run at all radii; `among` some only."""
    swept, clean = _swept(row), row.by_attack.get("none", {})
    if len(swept) < 2 or not clean:
        return None
    everywhere = set.intersection(*map(set, swept.values()))
    attacks = sorted(everywhere if among is None else everywhere & among)
    claims = [attack for attack in attacks if attack in row.facts.claim]
    seeds = set(clean).intersection(*(by[attack] for by in swept.values() for attack in attacks))
    if not claims or len(claims) == len(attacks) or not seeds:
        return None
    points = {0.0: (_accuracy(clean, seeds),) * 2}
    for eps, by_attack in swept.items():
        chosen = {a: {seed: by_attack[a][seed] for seed in sorted(seeds)} for a in attacks}
        worst = score([*worst_case_by_seed(chosen).values()]).value
        points[eps] = min(_accuracy(chosen[attack], seeds) for attack in claims), worst
    return Curve(row.label, row.submodels, tuple(attacks), tuple(sorted(seeds)), points)


def _accuracy(by_seed: BySeed, seeds: Iterable[int]) -> float:
    return score([by_seed[seed].answers for seed in sorted(seeds)]).value
