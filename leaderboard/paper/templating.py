"""The report's templates."""

import re
from typing import Any

from .. import templating
from . import names
from .correlation import correlations, parities
from .evidence import OUTCOMES

_TEMPLATES = templating.templates(__package__)
_TEMPLATES.globals |= {
    "OUTCOMES": OUTCOMES,
    "by_parity": parities,
    "correlations": correlations,
    "paper": names,
}
_TEMPLATES.filters |= {
    # What Markdown gives a heading.
    "anchor": lambda heading: re.sub("[^a-z0-9 -]", "", heading.lower()).replace(" ", "-"),
    "spelled": names.NAMES.get,
}


def render(template: str, **values: Any) -> str:
    """A template's text; see `leaderboard.templating.render`."""
    return templating.render(_TEMPLATES, template, **values)


def render_macro(template: str, macro: str, *values: Any, **more: Any) -> str:
    """The text of one of a template's macros, in one line."""
    module: Any = _TEMPLATES.get_template(f"{template}.j2").module
    return " ".join(getattr(module, macro)(*values, **more).split())
