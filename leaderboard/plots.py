"""The page's figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import zip_longest
from typing import Any

from leaderboard.curves import sweeps
from leaderboard.drawing import Figure, colors, panels, plot_mra
from leaderboard.records import Record
from leaderboard.rows import Setting, settings

# Panels side by side.
COLUMNS = 3
Curves = Mapping[tuple[str, str], Mapping[float, float]]


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


def draw_sweep(curves: Curves, figure: Any) -> None:
    """One panel an attack, one line a defense; see `sweeps`."""
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
