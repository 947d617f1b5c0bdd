"""How numbers, settings and tables are printed, in Markdown that shows what it is given."""

import re
from collections.abc import Sequence

import tabulate

from .metrics import Score
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


def format_score(score: Score | None) -> str:
    """`12.3 (10.4–14.2)` in percent, or an en dash."""
    return "–" if score is None else "{:.1f} ({:.1f}–{:.1f})".format(*_percent(score))


def plus_minus(score: Score | None) -> str:
    """`12.3±1.9` in percent, the larger side of the interval, or an en dash."""
    if score is None:
        return "–"
    value, low, high = _percent(score)
    return f"{value:.1f}±{max(high - value, value - low):.1f}"


def format_difference(score: Score | None) -> str:
    """`+12.3 (+10.4 to +14.2)` points, or an en dash."""
    return "–" if score is None else "{:+.1f} ({:+.1f} to {:+.1f})".format(*_percent(score))


def format_points(value: Score | float | None) -> str:
    """`+12.3` points, or an en dash."""
    return "–" if value is None else f"{_percent(value)[0]:+.1f}"


def format_percent(value: Score | float | None) -> str:
    """`12.3`, or an en dash."""
    return "–" if value is None else f"{_percent(value)[0]:.1f}"


def _percent(value: Score | float) -> tuple[float, ...]:
    parts = (value.value, value.low, value.high) if isinstance(value, Score) else (value,)
    return tuple(100 * part for part in parts)


def format_eps(eps: float, unit: float = 1.0) -> str:
    """`8/255` where radii are written in 1/255, as the field does for colour images; else `0.3`."""
    return f"{eps:.3g}" if unit == 1 else f"{eps / unit:.3g}/{1 / unit:.0f}"
