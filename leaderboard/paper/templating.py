"""The report's prose, in Jinja templates; numbers are computed elsewhere and printed by filters."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from leaderboard.formats import (
    describe,
    format_difference,
    format_percent,
    format_points,
    format_score,
)
from leaderboard.markdown import escape
from leaderboard.paper.comparison import CLEAN_TOLERANCE, PAPER_IMAGES, TOLERANCE
from leaderboard.paper.evidence import OUTCOMES
from leaderboard.paper.findings import parities
from leaderboard.paper.names import (
    CLAIM_ATTACKS,
    NAMES,
    RADII,
    SPELLED,
    SUBMODELS,
    format_radius,
)

SHARES_ONLY = "Shares only: measured before the answers of single networks were kept."
_ENVIRONMENT = Environment(
    loader=PackageLoader("leaderboard.paper"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.globals |= {
    "CLAIM_ATTACKS": CLAIM_ATTACKS,
    "NAMES": NAMES,
    "OUTCOMES": OUTCOMES,
    "SHARES_ONLY": SHARES_ONLY,
    "TOLERANCE": TOLERANCE,
    "CLEAN_TOLERANCE": CLEAN_TOLERANCE,
    "PAPER_IMAGES": PAPER_IMAGES,
    "RADII": RADII,
    "SPELLED": SPELLED,
    "SUBMODELS": SUBMODELS,
    "by_parity": parities,
    "describe": describe,
    "radius": format_radius,
}
_ENVIRONMENT.filters |= {
    "code": lambda name: f"`{name}`",
    "difference": format_difference,
    "inert": escape,
    "percent": format_percent,
    "points": format_points,
    "score": format_score,
    "spelled": NAMES.get,
}


def render(template: str, **values: Any) -> str:
    """A template's text."""
    return _ENVIRONMENT.get_template(f"{template}.j2").render(values)


def render_macro(template: str, macro: str, *values: Any, **more: Any) -> str:
    """The text of one of a template's macros, in one line."""
    module: Any = _ENVIRONMENT.get_template(f"{template}.j2").module
    return " ".join(getattr(module, macro)(*values, **more).split())
