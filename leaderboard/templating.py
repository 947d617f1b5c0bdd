"""Prose and tables, in Jinja templates; numbers are computed elsewhere and printed by filters."""

import re
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from . import formats


def templates(package: str) -> Environment:
    """A package's templates, then this one's, with the formats of numbers as filters."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in (package, __package__)]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    functions = {"describe": formats.describe, "plus_minus": formats.plus_minus, "zip": zip}
    environment.globals |= functions
    environment.filters.update(
        code=lambda name: f"`{name}`",
        difference=formats.format_difference,
        eps=formats.format_eps,
        inert=formats.escape,
        paragraph=lambda text: " ".join(text.split()),
        percent=formats.format_percent,
        points=formats.format_points,
        score=formats.format_score,
        table=_aligned,
    )
    return environment


def render(environment: Environment, template: str, **values: Any) -> str:
    """A template's text, without white space around it and with one empty line at most."""
    text = environment.get_template(f"{template}.j2").render(values)
    return re.sub(r"\n{3,}", "\n\n", text.strip())


def _aligned(text: str) -> str:
    """A Markdown table with aligned, inert cells; nothing without rows. Rows may break at bars."""
    rows = re.split(r"\|\s*\n\s*\|", text.strip()[1:-1])
    header, *body = ([cell.strip() for cell in row.split("|")] for row in rows)
    return formats.markdown_table(header, body)
