"""How numbers, settings and tables are printed, in Markdown that shows what it is given."""

import re
from collections.abc import Callable, Sequence

import tabulate

from ..metrics import Score
from .rows import Setting

# Columns need not be wider than what stands in them.
tabulate.MIN_PADDING = 0


def escape(text: str) -> str:
    """Text that came from a record, made inert in a Markdown table."""
    flat = " ".join(text.split())
    special = r"[\\`*\[\]<>|~&]|(?<![a-zA-Z0-9])_|_(?![a-zA-Z0-9])"
    return re.sub(special, lambda match: f"&#{ord(match[0])};", flat)


def markdown_table(headers: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A GitHub table, or nothing without rows; numbers are printed as given."""
    text: str = tabulate.tabulate(body, headers, tablefmt="github", disable_numparse=True)
    return f"{text}\n" if body else ""


def describe(setting: Setting) -> str:
    """A setting in words."""
    name, budget, source = map(escape, (setting.dataset, setting.budget, setting.source))
    images = f"{setting.images:,} test images ({source}, sha256 {setting.sha256[:8]})"
    return f"{name}, {budget} budget, {images}"


def in_percent(pattern: str) -> Callable[[Score | float | None], str]:
    """Prints values by a pattern of value, low, high and the interval's larger side, in percent."""

    def shown(score: Score | float | None) -> str:
        if score is None:
            return "–"
        given = score if isinstance(score, Score) else Score(score, score, score)
        value, low, high = (100 * part for part in (given.value, given.low, given.high))
        return pattern.format(value, low, high, max(high - value, value - low))

    return shown


format_score = in_percent("{:.1f} ({:.1f}–{:.1f})")
plus_minus = in_percent("{0:.1f}±{3:.1f}")
format_difference = in_percent("{:+.1f} ({:+.1f} to {:+.1f})")
format_points = in_percent("{:+.1f}")
format_percent = in_percent("{:.1f}")


def bound(accuracy: str, *, sure: bool) -> str:
    """An accuracy as printed, marked where the truth may be lower."""
    return accuracy if sure or accuracy == "–" else f"≤{accuracy}"


def format_eps(eps: float, unit: float = 1.0) -> str:
    """`8/255` where radii are written in 1/255, as the field does for colour images; else `0.3`."""
    return f"{eps:.3g}" if unit == 1 else f"{eps / unit:.3g}/{1 / unit:.0f}"
