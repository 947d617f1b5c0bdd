"""What is left of each defense at every eps, under the claimed and the worst-case attacker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leaderboard.metrics import score
from leaderboard.records import Record
from leaderboard.table import CLAIM_ATTACKS, NOT_ATTACKS, BySeed, rows, worst_case_by_seed


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
        attacks: those behind every point: the ones that were run at all radii.
    """

    label: str
    defense: str
    submodels: int
    attacks: tuple[str, ...]
    points: tuple[Point, ...]


def curves(records: Sequence[Record], norm: str = "Linf") -> list[Curve]:
    """The curves of a setting's defenses that have at least three points.

    Every point of a curve is under the same attacks, so that it does not jump where more were run.
    """
    radii = sorted({r.cell.eps for r in records if r.cell.norm == norm and r.cell.eps > 0})
    found = {row.label: row for eps in radii for row in rows(records, norm, eps)}
    drawn = []
    for row in found.values():
        by_eps: dict[float, dict[str, BySeed]] = {}
        for attack, sweep in row.sweep.items():
            for eps, by_seed in sweep.items():
                if eps > 0 and by_seed:
                    by_eps.setdefault(eps, {})[attack] = by_seed
        swept = {eps: by for eps, by in by_eps.items() if len(by) > 1}
        common = set.intersection(*map(set, swept.values())) if swept else set()
        attacks = sorted(common - {*NOT_ATTACKS})
        claims = [attack for attack in attacks if attack in CLAIM_ATTACKS]
        clean = row.score("none")
        if not clean or not claims or len(claims) == len(attacks):
            continue
        points = [Point(0.0, clean.value, clean.value)]
        for eps, by_attack in sorted(swept.items()):
            claimed = min(score([r.correct for r in by_attack[a].values()]).value for a in claims)
            worst = worst_case_by_seed({attack: by_attack[attack] for attack in attacks})
            points.append(Point(eps, claimed, score(list(worst.values())).value))
        if len(points) >= 3:
            drawn.append(
                Curve(row.label, row.defense, row.submodels, tuple(attacks), tuple(points))
            )
    return sorted(drawn, key=lambda curve: curve.label)
