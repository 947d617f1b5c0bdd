"""The page on speed and cost."""

from collections.abc import Sequence
from pathlib import Path

from .. import templating
from ..board import Board
from ..drawing import Figure
from ..pages import FIRST_LINE
from .timing import Timing


def report(_: Board, results: Path) -> tuple[dict[str, str], list[Figure]]:
    """The page by file name, and no figure, from a folder's timings."""
    return {"SPEED.md": page(Timing.read_all(results))}, []


def page(timings: Sequence[Timing]) -> str:
    """Timings in the words of the page."""
    templates = templating.templates(__package__)
    return templating.render(templates, "speed.md", timings=timings, first_line=FIRST_LINE)
