"""Where the page lies on disk: beside the records, rebuilt from them or checked against them."""

from __future__ import annotations

import re
from pathlib import Path

from leaderboard import baselines, records
from leaderboard.files import write_atomically
from leaderboard.plots import figures
from leaderboard.render import first_table, render

RESULTS = Path(__file__).parent / "results"
_README_BLOCK = re.compile(r"(?<=<!-- first table -->\n).*?(?=<!-- end of first table -->)", re.S)


def page_path(results: Path) -> Path:
    """The page of a folder of records: `LEADERBOARD.md` beside the folder."""
    return results.parent / "LEADERBOARD.md"


def publish(results: Path) -> Path:
    """Write the page and its figures, and return the page's path.

    Raises:
        RecordError: a record that cannot be used; nothing is written then.
    """
    measured = list(records.read_all(results))
    text = render(measured, baselines.load())
    for name, svg in figures(measured).items():
        write_atomically(results.parent / "figures" / name, svg.encode())
    write_atomically(page_path(results), text.encode())
    return page_path(results)


def stale(results: Path) -> list[Path]:
    """The files that are not what the records say: the page and its figures.

    A figure is compared by the digest of its data, since its text depends on the version of the
    library that drew it.
    """
    measured = list(records.read_all(results))
    expected = {page_path(results): render(measured, baselines.load())}
    wrong = [path for path, text in expected.items() if not _same(path, text)]
    for name, svg in figures(measured).items():
        path = results.parent / "figures" / name
        if not path.exists() or _data_digest(path.read_text()) != _data_digest(svg):
            wrong.append(path)
    return wrong


def with_first_table(readme: str, results: Path) -> str:
    """The README's text with the page's first table between its markers."""
    table = first_table(records.read_all(results))
    return _README_BLOCK.sub(lambda _: f"\n{table}\n", readme)


def _same(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


def _data_digest(svg: str) -> str | None:
    found = re.search(r"data ([0-9a-f]{64})", svg)
    return found[1] if found else None
