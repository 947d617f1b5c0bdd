"""The board as a static site that needs no server: `python -m leaderboard --site DIR`."""

import re
from base64 import b64encode
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from ...files import write_atomically
from .. import metrics
from ..board import Board, Entry
from ..columns import COLUMNS
from ..drawing import style
from ..formats import describe, format_difference, format_eps, format_percent, plus_minus
from ..publish import board_of, draw, expected

# So many images are shown one by one.
IMAGES = 1000


def write(results: Path, folder: Path) -> Path:
    """Write the table of all rows, every page and every figure; return the table's path.

    Raises:
        ImportError: the extra `site` is not installed.
        RecordError: a record that cannot be used; nothing is written then.
    """
    from markdown_it import MarkdownIt

    library, own = files("itables") / "html", files(__package__)
    board, markdown = board_of(results), MarkdownIt("commonmark").enable("table")
    texts, figures = expected(board, results)
    data, script = _data(board), _json((library / "dt_bundle.js").read_text("utf-8"))
    pages = {
        path.relative_to(results.parent).with_suffix(".html").as_posix(): text
        for path, text in texts.items()
        if path.is_relative_to(results.parent)
    }
    titles = {name: re.findall("^# (.*)", text, re.M)[0] for name, text in pages.items()}
    nav = {name: title for name, title in titles.items() if not re.search("[/-]", name)}
    written = {
        "index.html": _templates.get_template("index.html.j2").render(nav=nav, **data),
        **{name: (own / name).read_text("utf-8") for name in ("site.css", "site.js")},
        "datatables.css": (library / "dt_bundle.css").read_text("utf-8"),
        # Without a server browsers import no module from a file, but from a text.
        "datatables.js": f'const MODULE = new Blob([{script}], {{ type: "text/javascript" }});\n',
        "data.js": f"const BOARD = {_json(data)};\n",
    }
    for name, text in pages.items():
        body, root = _linked(markdown.render(text)), "../" * name.count("/")
        page = _templates.get_template("page.html.j2")
        written[name] = page.render(title=titles[name], body=body, root=root, nav=nav)
    for name, text in written.items():
        write_atomically(folder / name, text.encode())
    for path, figure in figures.items():
        draw(figure, folder / path.relative_to(results.parent))
    return folder / "index.html"


def _json(content: Any) -> str:
    return msgspec.json.encode(content).decode()


def _linked(page: str) -> str:
    """A page with links to the site's own, anchors, and tables that scroll."""

    def anchored(match: re.Match[str]) -> str:
        name = re.sub(r"<.*?>|[^\w -]", "", match[2]).lower().replace(" ", "-")
        return f'<h{match[1]} id="{name}">{match[2]}</h{match[1]}>'

    page = re.sub(r"<h(\d)>(.*?)</h\1>", anchored, page)
    page = re.sub(r'(<a href="[^":]*)\.md', r"\1.html", page.replace('href="results/"', ""))
    return re.sub(
        "<table>(.*?)</table>", r'<div class="scroll" tabindex="0">\g<0></div>', page, flags=re.S
    )


def _data(board: Board) -> dict[str, Any]:
    """All rows, and in words by how much every two of a ranking differ: claimed, worst case."""
    numbers = {entry: number for number, entry in enumerate(board.entries)}
    pairs = {}
    for ranking in {entry.ranking: None for entry in numbers}:
        for a, b in combinations(ranking.entries, 2):
            sides = a.row.claimed_by_seed, b.row.claimed_by_seed
            differences = metrics.shared_difference(*sides), ranking.leads[a, b]
            pairs[f"{numbers[a]} {numbers[b]}"] = [*map(format_difference, differences)]
    return {"rows": [_facts(entry) for entry in numbers], "pairs": pairs}


def _facts(entry: Entry) -> dict[str, Any]:
    """A row as it is shown, compared and downloaded."""
    row, section, at = entry.row, entry.ranking.section, entry.ranking
    seed, answers = next(iter(row.worst_by_seed.items()), (None, None))
    named = row.label, row.submodels
    facts = {
        "dataset": section.setting.dataset,
        "budget": section.setting.budget,
        "norm": at.norm,
        "eps": format_eps(at.eps, at.unit),
        "rank": at.ranks.get(entry),
        "defense": row.defense,
        "label": row.label,
        "random": row.facts.random,
        "networks": row.submodels,
        "clean": row.score("none"),
        "claimed": row.claimed,
        "worst": row.worst,
        "verdict": entry.verdict.word if entry.verdict else "–",
        "bound": not row.complete,
        "reference": row.facts.reference,
        "data": describe(section.setting),
        "color": style(row.defense)["color"],
        "curve": next((c.points for c in section.curves if (c.label, c.submodels) == named), {}),
        "seed": seed,
        "members": 0 if answers is None else len(answers.correct),
        "images": 0 if answers is None else min(answers.images, IMAGES),
        "correct": "" if answers is None else _bits(answers.first(IMAGES).correct),
    }
    parts = (
        *(facts[name] for name in ("dataset", "budget", "norm", "eps", "label")),
        row.submodels,
    )
    return facts | {"id": re.sub(r"[^a-z0-9.]+", "-", " ".join(map(str, parts)).lower())}


def _bits(correct: Any) -> str:
    """(rows, N) bool as base64, row after row, the first bit the highest."""
    return b64encode(np.packbits(correct.astype(bool)).tobytes()).decode()


_templates = Environment(
    loader=PackageLoader(__package__),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters.update(percent=format_percent, plus_minus=plus_minus)
_templates.globals["meanings"] = {column.header: column.meaning for column in COLUMNS}
