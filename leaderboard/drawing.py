"""How all figures are drawn: SVG that reads on light and dark backgrounds."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

# Okabe and Ito's colours, legible to the colour-blind and on both backgrounds.
COLORS = ("#e69f00", "#56b4e9", "#009e73", "#d55e00", "#cc79a7", "#0072b2", "#999999")
# Each of the paper's defenses has its own everywhere.
DEFENSE_COLORS = {
    "ulm": "#e69f00",
    "clm": "#0072b2",
    "ulm-adv": "#cc79a7",
    "clm-adv": "#009e73",
    "single": "#999999",
    "single-adv": "#d55e00",
}
OTHER_COLORS = ("#56b4e9", "#9467bd", "#8c6d31", "#b5bd61")
FOREGROUND = "#808080"
# Tells a figure of ours from others' files.
MARK = "randomized-defense-bench"

_COLORED = ("text.color", "axes.labelcolor", "axes.edgecolor", "grid.color", "xtick.color")
_STYLE: dict[Any, Any] = {
    **dict.fromkeys((*_COLORED, "ytick.color"), FOREGROUND),
    "svg.hashsalt": MARK,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


@dataclass
class Canvas:
    """Matplotlib's figure and its axes (rows, columns); `svg` is there after the `canvas` block."""

    figure: Any
    panels: Any
    svg: str = ""


@contextmanager
def canvas(
    data: bytes, *, width: float, height: float, rows: int = 1, columns: int = 1, **layout: Any
) -> Iterator[Canvas]:
    """Panels to draw on; the SVG text is there after the block.

    Args:
        data: identifies what is drawn, whatever version of the library draws it.
        width, height: in inches.
        layout: for `Figure.subplots`.
    """
    _import_matplotlib()
    from matplotlib import style
    from matplotlib.figure import Figure

    # Nothing of the user's own settings, such as text set by LaTeX.
    with style.context(_STYLE, after_reset=True):
        figure = Figure(figsize=(width, height), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False, **layout)
        drawn, buffer = Canvas(figure, panels), io.StringIO()
        yield drawn
        description = f"data {hashlib.sha256(data).hexdigest()}"
        metadata = {"Date": None, "Creator": MARK, "Description": description}
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
        drawn.svg = buffer.getvalue()


def _import_matplotlib() -> None:
    """Import it, also where MPLBACKEND names a backend that this environment lacks.

    Notebooks set it for every process that they start.
    """
    backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    import matplotlib

    if backend is not None:
        os.environ["MPLBACKEND"] = backend
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = backend


def literal(text: str) -> str:
    """Text in which matplotlib finds no mathematics."""
    return text.replace("$", r"\$")
