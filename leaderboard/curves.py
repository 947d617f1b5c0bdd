"""What is left of each defense at every eps: by attack, and under each of the two attackers."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from leaderboard.metrics import score
from leaderboard.records import Record
from leaderboard.rows import BySeed, Row, rows, worst_case_by_seed


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
    drawn = [curve for row in widest if (curve := _curve(row))]
    shared = set.intersection(*(set(curve.attacks) for curve in drawn)) if drawn else set()
    return [curve for row in widest if (curve := _curve(row, shared))] or drawn


def sweeps(records: Sequence[Record]) -> dict[tuple[str, str], dict[float, float]]:
    """MRA by eps for each row and attack: ("ulm (n=10)", "pgd") -> {0.0: clean, 0.1: ...}.

    Of attacks run at three radii or more, on the seeds that there are at all of them.
    """
    found = {}
    for norm in sorted({record.case.norm for record in records}):
        for row in _widest(records, norm):
            drawn = (record.case for record in row.measured if record.case.protocol == "draw")
            for attack in sorted({case.attack for case in drawn} - {"none"}):
                curve = row.curve(attack)
                seeds = set.intersection(*map(set, curve.values()))
                if len(curve.keys() - {0.0}) >= 3 and seeds:
                    label = f"{row.label} (n={row.submodels})" + ", L2" * (norm == "L2")
                    found[label, attack] = {eps: _mra(curve[eps], seeds) for eps in curve}
    return dict(sorted(found.items()))


def _widest(records: Sequence[Record], norm: str) -> list[Row]:
    """One row for each population, the one that most was swept of."""
    found: dict[tuple[str, int], Row] = {}
    for eps in sorted({r.case.eps for r in records if r.case.norm == norm and r.case.eps > 0}):
        for row in rows(records, norm, eps):
            known = found.setdefault((row.label, row.submodels), row)
            if len(_swept(row)) > len(_swept(known)):
                found[row.label, row.submodels] = row
    return [row for _, row in sorted(found.items())]


def _swept(row: Row) -> dict[float, dict[str, BySeed]]:
    """The row's records by eps, where there is more than one attack."""
    by_eps: dict[float, dict[str, BySeed]] = {}
    for attack in row.attacks():
        for eps, by_seed in row.curve(attack).items():
            by_eps.setdefault(eps, {})[attack] = by_seed
    by_eps.pop(0.0, None)
    return {eps: by_attack for eps, by_attack in sorted(by_eps.items()) if len(by_attack) > 1}


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
    points = [Point(0.0, *[_mra(clean, seeds)] * 2)]
    for eps, by_attack in swept.items():
        chosen = {a: {seed: by_attack[a][seed] for seed in sorted(seeds)} for a in attacks}
        worst = score([*worst_case_by_seed(chosen).values()]).value
        points.append(Point(eps, min(_mra(chosen[attack], seeds) for attack in claims), worst))
    named = row.label, row.defense, row.submodels
    return Curve(*named, tuple(attacks), tuple(sorted(seeds)), tuple(points))


def _mra(by_seed: BySeed, seeds: Set[int]) -> float:
    return score([by_seed[seed].answers for seed in sorted(seeds)]).value
