"""How all figures are drawn: SVG that reads on light and dark backgrounds."""

import base64
import hashlib
import io
import math
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A label, accuracy in [0, 1] by eps, and the line's `style`.
Line = tuple[str, Mapping[float, float], Mapping[str, str]]

# Okabe and Ito's colours but black, and ochre: told apart by the colour-blind and on both themes.
COLORS = ("#e69f00", "#0079c2", "#cc79a7", "#009e73", "#999999", "#d55e00", "#56b4e9", "#b59f3b")
MARKERS = "o^svXDp*"
# These have the colour and marker of their place; others have those that their name gives.
DEFENSES = ("ulm", "clm", "ulm-adv", "clm-adv", "single", "single-adv", "noise", "resize-pad")
FOREGROUND = "#808080"
# Tells a figure of this suite from other files.
MARK = "randomized-defense-bench"
STYLE = Path(__file__).with_name("figures.mplstyle")


@dataclass(frozen=True)
class Figure:
    """A figure `file` under `figures/`, drawn where the file is of other data.

    `draw` draws it on a figure of matplotlib's; see `panels`.
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
        """The file's text, by nothing of the user's own settings."""
        _import_matplotlib()
        from matplotlib import figure, rc_context

        with rc_context(fname=STYLE):
            sheet, buffer = figure.Figure(layout="constrained"), io.StringIO()
            self.draw(sheet)
            about = {"Date": None, "Creator": MARK, "Description": self._description}
            sheet.savefig(buffer, format="svg", transparent=True, metadata=about)
        return re.sub(r'(?<=;base64,)[^"]+', _in_gray, buffer.getvalue())


def _in_gray(found: re.Match[str]) -> str:
    """Embedded pixels without colors they do not use: a third of the bytes."""
    from PIL import Image

    image, buffer = Image.open(io.BytesIO(base64.b64decode(found[0]))), io.BytesIO()
    (gray := image.convert("L")).save(buffer, format="png", optimize=True)
    alike = gray.convert("RGBA").tobytes() == image.convert("RGBA").tobytes()
    return "\n" + base64.b64encode(buffer.getvalue()).decode() if alike else found[0]


def _import_matplotlib() -> None:
    """Import it, also where MPLBACKEND, which notebooks set, names a backend that is not here."""
    backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    import matplotlib

    if backend is not None:
        os.environ["MPLBACKEND"] = backend
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = backend


def panels(
    figure: Any, width: float, height: float, rows: int = 1, columns: int = 1, **shared: Any
) -> list[Any]:
    """Axes to draw on, row by row; the size is in inches, `shared` is for `subplots`."""
    figure.set_size_inches(width, height)
    return list(figure.subplots(rows, columns, squeeze=False, **shared).flat)


def style(defense: str) -> dict[str, str]:
    """Its colour and marker, the same everywhere."""
    place = zlib.crc32(defense.encode()) % (len(COLORS) * len(MARKERS))
    if defense in DEFENSES:
        place = DEFENSES.index(defense) * (len(COLORS) + 1)
    return {"color": COLORS[place % len(COLORS)], "marker": MARKERS[place // len(COLORS)]}


def plot_accuracy(panel: Any, title: str, lines: Iterable[Line]) -> None:
    """Accuracy against eps, a label at the end of each line."""
    ends = []
    for label, points, look in lines:
        values = [100 * accuracy for accuracy in points.values()]
        panel.plot([*points], values, markersize=4, linewidth=1.6, **look)
        ends.append((values[-1], label, look["color"]))
    panel.set(title=plain(title), xlabel="eps (pixels in [0, 1])", ylim=(-3, 103))
    label_ends(panel, ends)


def label_ends(panel: Any, ends: Iterable[tuple[float, str, str]]) -> None:
    """Label lines by the values in percent where they end, 5 apart; each with its colour."""
    place, at = -math.inf, panel.get_yaxis_transform()
    for value, label, color in sorted(ends):
        place = max(value, place + 5)
        panel.text(1.02, place, plain(label), color=color, transform=at, va="center", fontsize=9)


def plain(text: str) -> str:
    """Text in which matplotlib finds no mathematics."""
    return text.replace("$", r"\$")
