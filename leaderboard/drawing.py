"""How all figures are drawn: SVG that reads on light and dark backgrounds."""

import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

# MRA in [0, 1] by eps, the label and the colour.
Line = tuple[Mapping[float, float], str, str]

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
STYLE = Path(__file__).with_name("figures.mplstyle")


@dataclass(frozen=True)
class Figure:
    """A figure that is drawn where its file is of other data.

    Attributes:
        file: its name under `figures/`.
        data: identifies what is drawn, whatever version of the library draws it.
        draw: draws it on a figure of matplotlib's; see `panels`.
    """

    file: str
    data: bytes
    draw: Callable[[Any], None]

    @property
    def _description(self) -> str:
        return f"data {hashlib.sha256(self.data).hexdigest()}"

    def is_in(self, path: Path) -> bool:
        """Whether a file is of the same data."""
        return path.exists() and self._description in path.read_text("utf-8", "replace")

    def svg(self) -> str:
        """The file's text."""
        _import_matplotlib()
        import matplotlib
        from matplotlib.figure import Figure as Sheet

        # Nothing of the user's own settings.
        with matplotlib.rc_context(fname=STYLE):
            sheet, buffer = Sheet(layout="constrained"), io.StringIO()
            self.draw(sheet)
            metadata = {"Date": None, "Creator": MARK, "Description": self._description}
            sheet.savefig(buffer, format="svg", transparent=True, metadata=metadata)
        return buffer.getvalue()


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


def panels(
    figure: Any, width: float, height: float, rows: int = 1, columns: int = 1, **shared: Any
) -> list[Any]:
    """Axes to draw on, row by row.

    Args:
        width, height: of the figure, in inches.
        shared: which axes are, for matplotlib's `subplots`.
    """
    figure.set_size_inches(width, height)
    return list(figure.subplots(rows, columns, squeeze=False, **shared).flat)


def plot_mra(panel: Any, title: str, lines: Iterable[Line], **style: Any) -> None:
    """MRA against eps."""
    for points, label, color in lines:
        values = [100 * mra for mra in points.values()]
        # Matplotlib finds no mathematics in it.
        label = label.replace("$", r"\$")
        panel.plot([*points], values, color=color, marker="o", label=label, **style)
    panel.set(title=title, xlabel="eps (pixels in [0, 1])", ylim=(-3, 103))
    panel.tick_params(labelbottom=True)


def colors(labels: Iterable[str]) -> list[str]:
    """A colour for each row's label."""
    others = cycle(OTHER_COLORS)
    return [DEFENSE_COLORS.get(label) or next(others) for label in labels]
