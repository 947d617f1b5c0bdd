"""The report's prose, in Jinja templates; numbers are computed elsewhere and printed by filters."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from leaderboard import formats
from leaderboard.markdown import escape
from leaderboard.paper import names
from leaderboard.paper.evidence import OUTCOMES
from leaderboard.paper.findings import parities

_ENVIRONMENT = Environment(
    loader=PackageLoader(__package__),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.globals |= {
    "OUTCOMES": OUTCOMES,
    "by_parity": parities,
    "describe": formats.describe,
    "paper": names,
}
_ENVIRONMENT.filters |= {
    "code": lambda name: f"`{name}`",
    "difference": formats.format_difference,
    "inert": escape,
    "percent": formats.format_percent,
    "points": formats.format_points,
    "score": formats.format_score,
    "spelled": names.NAMES.get,
}


def render(template: str, **values: Any) -> str:
    """A template's text."""
    return _ENVIRONMENT.get_template(f"{template}.j2").render(values)


def render_macro(template: str, macro: str, *values: Any, **more: Any) -> str:
    """The text of one of a template's macros, in one line."""
    module: Any = _ENVIRONMENT.get_template(f"{template}.j2").module
    return " ".join(getattr(module, macro)(*values, **more).split())
