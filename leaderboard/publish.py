"""Where the page lies on disk: beside the records, rebuilt from them or checked against them."""

import re
from itertools import chain
from pathlib import Path

from filelock import FileLock

from . import baselines, records
from .curves import figures
from .drawing import MARK, Figure
from .files import write_atomically
from .paper import grids
from .paper.evidence import Evidence
from .paper.figures import gallery
from .paper.report import render_paper, result
from .paper.studies import studies
from .render import FIRST_LINE, render
from .speed import Timing

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
_README_BLOCK = re.compile(r"(?<=<!-- result -->\n).*?(?=<!-- end of result -->)", re.S)


def page_path(results: Path) -> Path:
    """The page of a folder of records: `LEADERBOARD.md` beside the folder."""
    return results.parent / "LEADERBOARD.md"


def fresh(results: Path) -> bool:
    """Whether the page was written after every record, so that nothing need be rendered."""
    page = page_path(results)
    if not page.exists():
        return False
    # A record that was removed leaves its folder changed.
    return page.stat().st_mtime > max(
        p.stat().st_mtime for p in (results, *results.rglob("*.json"))
    )


def publish(results: Path) -> Path:
    """Write the page, the report on the paper, the README's part, and figures of changed data.

    Returns:
        The page's path.

    Raises:
        RecordError: a record that cannot be used; nothing is written then.
        ValueError: a file that is not ours has the page's or the report's name; likewise.
    """
    with FileLock(results.with_name(f".{results.name}.lock")):
        texts, figures = _expected(results)
        for path in texts.keys() - {README}:
            if path.exists() and not _text(path).startswith(FIRST_LINE):
                raise ValueError(f"{path} is not a page of this suite: move it, or --results")
        for old in (results.parent / "figures").glob("*.svg"):
            if old not in figures and f"<dc:title>{MARK}" in _text(old):
                old.unlink(missing_ok=True)
        for path, figure in figures.items():
            if not figure.is_in(path):
                write_atomically(path, figure.svg().encode())
        for path, text in texts.items():
            write_atomically(path, text.encode())
    return page_path(results)


def stale(results: Path) -> list[Path]:
    """The files that are not what the records say; a figure that is of other data."""
    texts, figures = _expected(results)
    wrong = [p for p, text in texts.items() if _text(p) != text]
    return wrong + [path for path, figure in figures.items() if not figure.is_in(path)]


def _expected(results: Path) -> tuple[dict[Path, str], dict[Path, Figure]]:
    """The texts and the figures that the records ask for, by path."""
    measured, published = records.read_all(results), baselines.load()
    found = studies(measured, Evidence.read_all(results), grids.read_all(results))
    texts = {
        page_path(results): render(measured, Timing.read_all(results), published),
        results.parent / "PAPER.md": render_paper(found),
    }
    if results.resolve() == RESULTS.resolve() and README.exists():
        texts[README] = with_result(README.read_text("utf-8"), result(found))
    drawn = chain(figures(measured), *map(gallery, found.values()))
    return texts, {results.parent / "figures" / figure.file: figure for figure in drawn}


def with_result(readme: str, text: str) -> str:
    """The README with what was found between its markers."""
    return _README_BLOCK.sub(lambda _: f"\n{text}\n\n", readme)


def _text(path: Path) -> str:
    """What a file says, whatever it is; nothing if it is not there."""
    return path.read_text("utf-8", "replace") if path.exists() else ""
