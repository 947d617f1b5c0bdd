"""Where the page lies on disk: beside the records, rebuilt from them or checked against them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from leaderboard import baselines, records, speed
from leaderboard.files import write_atomically
from leaderboard.plots import figures
from leaderboard.records import Record
from leaderboard.render import first_table, render

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
_README_BLOCK = re.compile(r"(?<=<!-- first table -->\n).*?(?=<!-- end of first table -->)", re.S)


def page_path(results: Path) -> Path:
    """The page of a folder of records: `LEADERBOARD.md` beside the folder."""
    return results.parent / "LEADERBOARD.md"


def publish(results: Path) -> Path:
    """Write the page, its figures and, for the official results, the README's table.

    Returns:
        The page's path.

    Raises:
        RecordError: a record that cannot be used; nothing is written then.
    """
    with FileLock(results.with_name(f".{results.name}.lock")):
        return _publish(results)


def _publish(results: Path) -> Path:
    texts, drawn = _expected(results)
    for old in (results.parent / "figures").glob("sweep-*.svg"):
        if old not in drawn:
            old.unlink(missing_ok=True)
    for path, text in {**drawn, **texts}.items():
        write_atomically(path, text.encode())
    return page_path(results)


def stale(results: Path) -> list[Path]:
    """The files that are not what the records say.

    A figure is compared by the digest of its data, since its text depends on the version of the
    library that drew it.
    """
    texts, drawn = _expected(results)
    wrong = [path for path, text in texts.items() if not _same(path, text)]
    for path, svg in drawn.items():
        if not path.exists() or _data_digest(path.read_text()) != _data_digest(svg):
            wrong.append(path)
    return wrong


def _expected(results: Path) -> tuple[dict[Path, str], dict[Path, str]]:
    """The texts and the figures that the records ask for, by path."""
    measured = records.read_all(results)
    texts = {page_path(results): render(measured, speed.read_all(results), baselines.load())}
    if results.resolve() == RESULTS.resolve() and README.exists():
        texts[README] = with_first_table(README.read_text(), measured)
    figure_folder = results.parent / "figures"
    return texts, {figure_folder / name: svg for name, svg in figures(measured).items()}


def with_first_table(readme: str, measured: Sequence[Record]) -> str:
    """The README's text with the page's first table between its markers."""
    return _README_BLOCK.sub(lambda _: f"\n{first_table(measured)}\n", readme)


def _same(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


def _data_digest(svg: str) -> str | None:
    found = re.search(r"data ([0-9a-f]{64})", svg)
    return found[1] if found else None
