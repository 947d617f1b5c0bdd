"""The page's figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import cycle, zip_longest

from leaderboard.curves import sweeps
from leaderboard.drawing import DEFENSE_COLORS, OTHER_COLORS, canvas, literal
from leaderboard.records import Record
from leaderboard.rows import Setting, settings

# Panels side by side.
COLUMNS = 3


def sweep_file_name(setting: Setting) -> str:
    """Where a setting's sweep is drawn, under `figures/`."""
    return f"sweep-{setting.dataset}-{setting.budget}-{setting.sha256[:8]}-{setting.images}.svg"


def figures(records: Iterable[Record]) -> dict[str, str]:
    """All figures of the page: file name -> SVG text."""
    drawn = {}
    for setting, measured in settings(records).items():
        if curves := sweeps(measured):
            drawn[sweep_file_name(setting)] = draw_sweep(curves)
    return drawn


def draw_sweep(curves: Mapping[tuple[str, str], Mapping[float, float]]) -> str:
    """One panel an attack, one line a defense; see `sweeps`."""
    attacks = sorted({attack for _, attack in curves})
    defenses = sorted({defense for defense, _ in curves})
    others = cycle(OTHER_COLORS)
    colors = {
        name: DEFENSE_COLORS.get(name.partition(" (")[0]) or next(others) for name in defenses
    }
    data = json.dumps([[*key, list(points.items())] for key, points in curves.items()]).encode()
    columns = min(len(attacks), COLUMNS)
    rows = -(-len(attacks) // columns)
    grid = {"rows": rows, "columns": columns, "sharex": True, "sharey": True}
    with canvas(data, width=3.0 * columns + 1.6, height=3.0 * rows + 0.4, **grid) as drawn:
        panels = drawn.panels.flatten()
        lines = {}
        for panel, attack in zip_longest(panels, attacks):
            if attack is None:
                panel.set_axis_off()
                continue
            for defense in defenses:
                if points := curves.get((defense, attack)):
                    (lines[defense],) = panel.plot(
                        list(points),
                        [100 * value for value in points.values()],
                        color=colors[defense],
                        marker="o",
                        markersize=3.5,
                        label=literal(defense),
                    )
            panel.set(title=attack, xlabel="eps (pixels in [0, 1])", ylim=(-3, 103))
            panel.tick_params(labelbottom=True)
        for first in drawn.panels[:, 0]:
            first.set_ylabel("MRA (%)")
        handles = [lines[defense] for defense in defenses]
        drawn.figure.legend(handles=handles, loc="outside right center")
    return drawn.svg
