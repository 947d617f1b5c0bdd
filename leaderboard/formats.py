"""How numbers and settings are printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leaderboard.findings import Correlation
from leaderboard.markdown import escape
from leaderboard.metrics import Score
from leaderboard.table import Setting


def describe(setting: Setting) -> str:
    """A setting in words."""
    drawn = "" if setting.images_per_draw == 1 else f", one draw per {setting.images_per_draw}"
    return (
        f"{escape(setting.dataset)}, {escape(setting.budget)} budget, "
        f"{setting.images:,} test images{drawn} "
        f"({escape(setting.source)}, sha256 {setting.sha256[:8]})"
    )


def format_score(score: Score | None) -> str:
    """`12.3 (10.4–14.2)` in percent, or an en dash."""
    if score is None:
        return "–"
    return f"{100 * score.value:.1f} ({100 * score.low:.1f}–{100 * score.high:.1f})"


def format_points(value: float | None) -> str:
    """`+12.3` points, or an en dash."""
    return "–" if value is None else f"{100 * value:+.1f}"


def format_difference(score: Score | None) -> str:
    """`+12.3 (+10.4 to +14.2)` points, or an en dash."""
    if score is None:
        return "–"
    return f"{100 * score.value:+.1f} ({100 * score.low:+.1f} to {100 * score.high:+.1f})"


def format_percent(value: float | None) -> str:
    """`12.3`, or an en dash."""
    return "–" if value is None else f"{100 * value:.1f}"


def format_correlation(correlation: Correlation) -> str:
    """`+0.31 (p 0.042)`, or an en dash."""
    if correlation.rho is None:
        return "–"
    p = correlation.p or 0.0
    return f"{correlation.rho:+.2f} (p {f'{p:.3f}' if p >= 0.001 else '< 0.001'})"


def format_eps(dataset: str, eps: float) -> str:
    """`8/255` for colour images, as the field writes it; else `0.3`."""
    if dataset.startswith("cifar"):
        return f"{eps * 255:.3g}/255"
    return f"{eps:.3g}"


def format_parameters(parameters: Mapping[str, Any]) -> str:
    """`alpha 0.1, recipe (optimizer adam, ...)`."""
    parts = [
        f"{name} ({format_parameters(value)})" if isinstance(value, Mapping) else f"{name} {value}"
        for name, value in parameters.items()
    ]
    return ", ".join(parts)
