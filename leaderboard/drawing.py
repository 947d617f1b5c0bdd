"""How all figures are drawn: SVG that reads on light and dark backgrounds."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
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


class Canvas:
    """A figure of panels in a row or a grid.

    Attributes:
        figure: matplotlib's figure.
        panels: its axes, an array of shape (rows, columns).
        svg: the text, once the `canvas` block is done.
    """

    def __init__(self, figure: Any, panels: Any) -> None:
        self.figure, self.panels = figure, panels
        self.svg = ""

    def finish(self, data: bytes) -> None:
        """Write the text, with the digest of what was drawn."""
        buffer = io.StringIO()
        description = f"data {hashlib.sha256(data).hexdigest()}"
        metadata = {"Date": None, "Creator": MARK, "Description": description}
        self.figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
        self.svg = buffer.getvalue()


@contextmanager
def canvas(
    data: bytes, *, width: float, height: float, rows: int = 1, columns: int = 1, **layout: Any
) -> Iterator[Canvas]:
    """Panels to draw on; the SVG text is there after the block.

    Args:
        data: identifies what is drawn, whatever version of the library draws it.
        width, height: in inches.
        layout: for `pyplot.subplots`.
    """
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    style: dict[Any, Any] = {
        "svg.hashsalt": MARK,
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.titlesize": 11,
        "text.color": FOREGROUND,
        "axes.labelcolor": FOREGROUND,
        "axes.edgecolor": FOREGROUND,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": FOREGROUND,
        "grid.alpha": 0.25,
        "legend.frameon": False,
        "xtick.color": FOREGROUND,
        "ytick.color": FOREGROUND,
    }
    with pyplot.rc_context(style):
        figure, panels = pyplot.subplots(
            rows, columns, squeeze=False, figsize=(width, height), layout="constrained", **layout
        )
        drawn = Canvas(figure, panels)
        try:
            yield drawn
            drawn.finish(data)
        finally:
            pyplot.close(figure)


def literal(text: str) -> str:
    """Text in which matplotlib finds no mathematics."""
    return text.replace("$", r"\$")
