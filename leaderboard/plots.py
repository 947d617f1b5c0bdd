"""The page's figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import cycle

from leaderboard.drawing import DEFENSE_COLORS, OTHER_COLORS, canvas, literal
from leaderboard.records import Record
from leaderboard.table import Setting, rows, settings

Curves = dict[tuple[str, str], list[tuple[float, float]]]


def sweep_points(records: Sequence[Record]) -> Curves:
    """The curves that have at least three points: (defense, attack) -> [(eps, MRA), ...].

    The clean MRA stands at eps 0.
    """
    radii = sorted({(r.cell.norm, r.cell.eps) for r in records if r.cell.attack != "none"})
    curves: Curves = {}
    for norm, eps in radii:
        for row in rows(records, norm, eps):
            clean = row.score("none")
            for attack in sorted(row.by_attack.keys() - {"none"}):
                start = [(0.0, clean.value)] if clean else []
                curve = curves.setdefault((f"{row.label} (n={row.submodels})", attack), start)
                score = row.score(attack)
                if score and eps > 0:
                    curve.append((eps, score.value))
    return dict(sorted((k, points) for k, points in curves.items() if len(points) >= 3))


def sweep_file_name(setting: Setting) -> str:
    """Where a setting's sweep is drawn, under `figures/`."""
    drawn = f"-d{setting.images_per_draw}" if setting.images_per_draw > 1 else ""
    name = f"sweep-{setting.dataset}-{setting.budget}-{setting.sha256[:8]}-{setting.images}"
    return f"{name}{drawn}.svg"


def figures(records: Iterable[Record]) -> dict[str, str]:
    """All figures of the page: file name -> SVG text."""
    drawn = {}
    for setting, measured in settings(records).items():
        if curves := sweep_points(measured):
            drawn[sweep_file_name(setting)] = draw_sweep(curves)
    return drawn


def draw_sweep(curves: Curves) -> str:
    """One panel an attack, one line a defense."""
    attacks = sorted({attack for _, attack in curves})
    defenses = sorted({defense for defense, _ in curves})
    data = json.dumps([[*key, points] for key, points in curves.items()]).encode()
    grid = {"columns": len(attacks), "sharey": True}
    with canvas(data, width=4.4 * len(attacks) + 1.6, height=3.6, **grid) as drawn:
        for panel, attack in zip(drawn.panels[0], attacks, strict=True):
            others = cycle(OTHER_COLORS)
            for defense in defenses:
                name = defense.partition(" (")[0]
                points = curves.get((defense, attack), [])
                panel.plot(
                    [eps for eps, _ in points],
                    [100 * value for _, value in points],
                    color=DEFENSE_COLORS.get(name) or next(others),
                    marker="o",
                    markersize=3.5,
                    label=literal(defense),
                )
            panel.set(title=f"attack: {attack}", xlabel="eps (pixels in [0, 1])", ylim=(-3, 103))
        drawn.panels[0][0].set_ylabel("MRA (%)")
        handles, labels = drawn.panels[0][0].get_legend_handles_labels()
        drawn.figure.legend(handles, labels, loc="outside right center")
    return drawn.svg
