"""What is left of each defense at every eps: by attack, and under each of the two attackers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leaderboard.metrics import score
from leaderboard.records import Record
from leaderboard.rows import BySeed, Row, answers, rows, worst_case_by_seed


@dataclass(frozen=True)
class Point:
    """MRA at one eps, in [0, 1]."""

    eps: float
    claimed: float
    worst: float


@dataclass(frozen=True)
class Curve:
    """One defense from clean images to the largest eps.

    Attributes:
        attacks, seeds: those behind every point: the ones that there are at all radii.
    """

    label: str
    defense: str
    submodels: int
    attacks: tuple[str, ...]
    seeds: tuple[int, ...]
    points: tuple[Point, ...]


def curves(records: Sequence[Record], norm: str = "Linf") -> list[Curve]:
    """The curves of a setting's defenses that have at least three points.

    Every point of a curve is under the same attacks on the same populations, so that it does not
    jump where more were run; and all curves are under the same, where they share both attackers'.
    """
    widest = _widest(records, norm)
    drawn = [curve for row in widest if (curve := _curve(row, _everywhere(row)))]
    shared = set.intersection(*(set(curve.attacks) for curve in drawn)) if drawn else set()
    return [curve for row in widest if (curve := _curve(row, shared))] or drawn


def sweeps(records: Sequence[Record]) -> dict[tuple[str, str], dict[float, float]]:
    """MRA by eps for each row and attack: ("ulm (n=10)", "pgd") -> {0.0: clean, 0.1: ...}.

    Of attacks run at three radii or more, on the seeds that there are at all of them.
    """
    found = {}
    for norm in sorted({record.case.norm for record in records}):
        for row in _widest(records, norm):
            for attack in sorted(row.sweep.keys() - {"none"}):
                by_eps = {0.0: row.by_attack.get("none", {}), **row.sweep[attack]}
                by_eps = {eps: by_seed for eps, by_seed in sorted(by_eps.items()) if by_seed}
                seeds = set.intersection(*map(set, by_eps.values()))
                if len(by_eps.keys() - {0.0}) >= 3 and seeds:
                    found[f"{row.label} (n={row.submodels})", attack] = {
                        eps: _mra({seed: by_seed[seed] for seed in sorted(seeds)})
                        for eps, by_seed in by_eps.items()
                    }
    return dict(sorted(found.items()))


def _widest(records: Sequence[Record], norm: str) -> list[Row]:
    """One row for each population, the one that most was swept of."""
    radii = sorted({r.case.eps for r in records if r.case.norm == norm and r.case.eps > 0})
    found: dict[tuple[str, int], Row] = {}
    for eps in radii:
        for row in rows(records, norm, eps):
            known = found.setdefault((row.label, row.submodels), row)
            if len(_swept(row)) > len(_swept(known)):
                found[row.label, row.submodels] = row
    return [row for _, row in sorted(found.items())]


def _swept(row: Row) -> dict[float, dict[str, BySeed]]:
    """The row's records by eps, where there is more than one attack."""
    by_eps: dict[float, dict[str, BySeed]] = {}
    for attack in row.sweep.keys() & {*row.attacks()}:
        for eps, by_seed in row.sweep[attack].items():
            if by_seed:
                by_eps.setdefault(eps, {})[attack] = by_seed
    return {eps: by_attack for eps, by_attack in sorted(by_eps.items()) if len(by_attack) > 1}


def _everywhere(row: Row) -> set[str]:
    """The attacks that were run at all of the row's radii."""
    swept = _swept(row)
    return set.intersection(*map(set, swept.values())) if swept else set()


def _curve(row: Row, among: set[str]) -> Curve | None:
    swept = _swept(row)
    clean = row.by_attack.get("none", {})
    if not swept or not clean:
        return None
    attacks = sorted(among & _everywhere(row))
    claims = [attack for attack in attacks if attack in row.facts.claim]
    seeds = set(clean).intersection(*(by[attack] for by in swept.values() for attack in attacks))
    if not claims or len(claims) == len(attacks) or not seeds or len(swept) < 2:
        return None

    def chosen(by_seed: BySeed) -> BySeed:
        return {seed: by_seed[seed] for seed in sorted(seeds)}

    start = _mra(chosen(clean))
    points = [Point(0.0, start, start)]
    for eps, by_attack in swept.items():
        mine: Mapping[str, BySeed] = {attack: chosen(by_attack[attack]) for attack in attacks}
        worst = score(list(worst_case_by_seed(mine).values())).value
        points.append(Point(eps, min(_mra(mine[attack]) for attack in claims), worst))
    return Curve(
        row.label, row.defense, row.submodels, tuple(attacks), tuple(sorted(seeds)), tuple(points)
    )


def _mra(by_seed: BySeed) -> float:
    return score(list(answers(by_seed).values())).value
