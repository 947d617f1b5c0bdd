"""What is left of each defense at every eps: by attack, and under each of the two attackers."""

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any

from .drawing import Figure, colors, panels, plot_mra
from .metrics import score
from .records import Record
from .rows import BySeed, Row, Setting, rows, settings, worst_case_by_seed

# MRA by eps for each row and attack: ("ulm (n=10)", "pgd") -> {0.0: clean, 0.1: ...}.
Sweeps = Mapping[tuple[str, str], Mapping[float, float]]
# Panels side by side.
COLUMNS = 3


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


def curves(records: Sequence[Record]) -> list[Curve]:
    """The curves in Linf of a setting's defenses that have at least three points.

    Every point of a curve is under the same attacks on the same populations, so that it does not
    jump where more were run; and all curves are under the same, where they share both attackers'.
    """
    widest = _widest(records, "Linf")
    drawn = [curve for row in widest if (curve := _curve(row))]
    shared = set.intersection(*(set(curve.attacks) for curve in drawn)) if drawn else set()
    return [curve for row in widest if (curve := _curve(row, shared))] or drawn


def sweeps(records: Sequence[Record]) -> Sweeps:
    """Of attacks run at three radii or more, on the seeds that there are at all of them."""
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


def sweep_file_name(setting: Setting) -> str:
    """Where a setting's sweep is drawn, under `figures/`."""
    return f"sweep-{setting.dataset}-{setting.budget}-{setting.sha256[:8]}-{setting.images}.svg"


def figures(records: Iterable[Record]) -> list[Figure]:
    """All figures of the page."""
    return [
        Figure(
            sweep_file_name(setting),
            json.dumps([[*key, list(points.items())] for key, points in curves.items()]).encode(),
            partial(draw_sweep, curves),
        )
        for setting, measured in settings(records).items()
        if (curves := sweeps(measured))
    ]


def draw_sweep(curves: Sweeps, figure: Any) -> None:
    """One panel an attack, one line a defense."""
    attacks = sorted({attack for _, attack in curves})
    defenses = sorted({defense for defense, _ in curves})
    labels = (name.rpartition(" (n=")[0] for name in defenses)
    colored = [*zip(defenses, colors(labels), strict=True)]
    columns = min(len(attacks), COLUMNS)
    rows = -(-len(attacks) // columns)
    size = 3.0 * columns + 1.6, 3.0 * rows + 0.4, rows, columns
    handles: dict[str, Any] = {}
    for panel, attack in zip_longest(panels(figure, *size, sharex=True, sharey=True), attacks):
        if attack is None:
            panel.set_axis_off()
            continue
        lines = [(curves[d, attack], d, c) for d, c in colored if (d, attack) in curves]
        plot_mra(panel, attack, lines, markersize=3.5)
        handles |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    for first in figure.axes[::columns]:
        first.set_ylabel("MRA (%)")
    figure.legend(handles=[handles[name] for name in sorted(handles)], loc="outside right center")


def _widest(records: Sequence[Record], norm: str) -> list[Row]:
    """One row for each population, the one that most was swept of."""
    found: dict[tuple[str, int], list[Row]] = {}
    for eps in sorted({r.case.eps for r in records if r.case.norm == norm and r.case.eps > 0}):
        for row in rows(records, norm, eps):
            found.setdefault((row.label, row.submodels), []).append(row)
    return [max(same, key=lambda row: len(_swept(row))) for _, same in sorted(found.items())]


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
