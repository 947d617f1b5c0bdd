"""The page's figures, as SVG that reads on light and dark backgrounds."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from leaderboard.records import Record
from leaderboard.table import Setting, rows, settings

# Okabe and Ito's colours, legible to the colour-blind and on both backgrounds.
COLORS = ("#e69f00", "#56b4e9", "#009e73", "#d55e00", "#cc79a7", "#0072b2", "#999999")
FOREGROUND = "#808080"

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


def digest(curves: Curves) -> str:
    """Identifies the data of a figure, whatever version of the library drew it."""
    points = [[*key, points] for key, points in curves.items()]
    return hashlib.sha256(json.dumps(points).encode()).hexdigest()


def draw_sweep(curves: Curves) -> str:
    """One panel an attack, one line a defense."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    attacks = sorted({attack for _, attack in curves})
    defenses = sorted({defense for defense, _ in curves})
    style: dict[Any, Any] = {
        "svg.hashsalt": "randomized-defense-bench",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "text.color": FOREGROUND,
        "axes.labelcolor": FOREGROUND,
        "axes.edgecolor": FOREGROUND,
        "xtick.color": FOREGROUND,
        "ytick.color": FOREGROUND,
    }
    with pyplot.rc_context(style):
        figure, panels = pyplot.subplots(
            1, len(attacks), sharey=True, squeeze=False, figsize=(4.4 * len(attacks) + 1.6, 3.6)
        )
        for panel, attack in zip(panels[0], attacks, strict=True):
            for color, defense in zip(COLORS * len(defenses), defenses, strict=False):
                points = curves.get((defense, attack), [])
                panel.plot(
                    [eps for eps, _ in points],
                    [100 * value for _, value in points],
                    color=color,
                    marker="o",
                    markersize=3.5,
                    label=defense.replace("$", r"\$"),
                )
            panel.set(title=f"attack: {attack}", xlabel="eps (pixels in [0, 1])", ylim=(-3, 103))
            panel.grid(color=FOREGROUND, alpha=0.25)
            panel.spines[["top", "right"]].set_visible(False)
        panels[0][0].set_ylabel("MRA (%)")
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="center right", frameon=False)
        figure.tight_layout(rect=(0, 0, 1 - 1.6 / (4.4 * len(attacks) + 1.6), 1))
        buffer = io.StringIO()
        metadata = {"Date": None, "Creator": None, "Description": f"data {digest(curves)}"}
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
        pyplot.close(figure)
    return buffer.getvalue()
