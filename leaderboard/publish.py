"""Where the pages lie on disk: beside the records, rebuilt from them or checked against them."""

import re
from importlib import import_module
from pathlib import Path

from filelock import FileLock

from ..files import write_atomically
from . import RESULTS, pages, records
from .board import Board
from .drawing import MARK, Figure
from .pages import FIRST_LINE

README = Path(__file__).parents[1] / "README.md"
# Packages whose module `report` makes pages and figures of their own of the board.
WINGS = ("paper", "published", "speed")
_README_BLOCK = re.compile(r"(?<=<!-- result -->\n).*?(?=<!-- end of result -->)", re.S)


def publish(results: Path) -> Path:
    """Write what is not as the records say, remove what is outdated; return the board's path.

    Raises:
        RecordError: a record that cannot be used; nothing is written then.
        ValueError: another file has a page's name; likewise.
    """
    results.mkdir(parents=True, exist_ok=True)
    with FileLock(results.with_name(f".{results.name}.lock")):
        changed = changes(results)
        for path, content in changed.items():
            foreign = isinstance(content, str) and not _text(path).startswith(FIRST_LINE)
            if foreign and path != README and path.exists():
                raise ValueError(f"{path} is not a page of this suite: move it, or --results")
        for path, content in changed.items():
            if content is None:
                path.unlink()
            elif isinstance(content, Figure):
                redraw(content, path)
            else:
                write_atomically(path, content.encode())
    return results.parent / "LEADERBOARD.md"


def redraw(figure: Figure, path: Path) -> None:
    """Write a figure's file where it is of other data; as committed where that is of the same."""
    there = RESULTS.parent / "figures" / figure.file
    if not figure.is_in(path):
        svg = _text(there) if figure.is_in(there) else figure.svg()
        write_atomically(path, svg.encode())


def changes(results: Path) -> dict[Path, str | Figure | None]:
    """What is not as the records say, by path: the text or figure it should be; None: nothing."""
    texts, figures = expected(board_of(results), results)
    folder = results.parent
    written = (folder / "RADII.md", *folder.glob("defenses/*.md"))
    own = [path for path in written if _text(path).startswith(FIRST_LINE)]
    own += [path for path in folder.glob("figures/*.svg") if f"<dc:title>{MARK}" in _text(path)]
    return {
        **{path: text for path, text in texts.items() if _text(path) != text},
        **{path: figure for path, figure in figures.items() if not figure.is_in(path)},
        **{path: None for path in own if path not in {*texts, *figures}},
    }


def board_of(results: Path) -> Board:
    """The board of a folder of records; RecordError: one cannot be used."""
    return Board(records.read_all(results))


def expected(board: Board, results: Path) -> tuple[dict[Path, str], dict[Path, Figure]]:
    """The texts and the figures that a folder's board asks for, by path."""
    texts, figures = pages.pages(board), board.figures
    for wing in WINGS:
        more = import_module(f"{__package__}.{wing}.report").report(board, results)
        texts, figures = texts | more[0], figures + more[1]
    folder = results.parent
    by_path = {folder / name: text + "\n" for name, text in texts.items()}
    if results.resolve() == RESULTS.resolve() and README.exists():
        by_path[README] = with_result(README.read_text("utf-8"), pages.result(board))
    return by_path, {folder / "figures" / figure.file: figure for figure in figures}


def with_result(readme: str, text: str) -> str:
    """The README with what was measured between its markers."""
    return _README_BLOCK.sub(lambda _: f"\n{text}\n\n", readme)


def _text(path: Path) -> str:
    """What a file says, whatever it is; nothing if it is not there."""
    return path.read_text("utf-8", "replace") if path.exists() else ""
