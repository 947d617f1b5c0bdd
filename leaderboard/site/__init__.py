"""The board as a static site that needs no server: `python -m leaderboard --site DIR`."""

import re
from base64 import b64encode
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ...files import write_atomically
from ..columns import COLUMNS
from ..drawing import style
from ..publish import board_of, expected, redraw
from ..templating import render, templates


def write(results: Path, folder: Path) -> Path:
    """Write the table of all rows, every page and every figure; return the table's path.

    Raises:
        ImportError: the extra `site` is not installed.
        RecordError: a record that cannot be used; nothing is written then.
    """
    from markdown_it import MarkdownIt
    from mdit_py_plugins.anchors import anchors_plugin

    markdown = MarkdownIt("commonmark").enable("table").use(anchors_plugin, max_level=4)
    library, own = files("itables") / "html", files(__package__)
    board, by_name = board_of(results), {}
    texts, figures = expected(board, results)
    for path, text in texts.items():
        if path.is_relative_to(results.parent):
            title, *_ = re.findall("^# (.*)", text, re.M)
            name = path.relative_to(results.parent).with_suffix(".html").as_posix()
            by_name[name] = {"title": title, "body": _linked(markdown.render(text))}
    nav = {name: page["title"] for name, page in by_name.items() if not re.search("[/-]", name)}
    # Without a server browsers import no module from a file, but from a text.
    script = _json((library / "dt_bundle.js").read_text("utf-8"))
    written = {
        "index.html": render(_templates, "index.html", board=board, nav=nav, root=""),
        "data.js": render(_templates, "data.js", board=board),
        "datatables.js": f"const MODULE = new Blob([{script}], {{ type: 'text/javascript' }});",
        "datatables.css": (library / "dt_bundle.css").read_text("utf-8"),
        **{name: (own / name).read_text("utf-8") for name in ("site.css", "site.js")},
    }
    for name, page in by_name.items():
        root = "../" * name.count("/")
        written[name] = render(_templates, "page.html", nav=nav, root=root, **page)
    for name, text in written.items():
        write_atomically(folder / name, text.encode())
    for path, figure in figures.items():
        redraw(figure, folder / path.relative_to(results.parent))
    return folder / "index.html"


def _linked(page: str) -> str:
    """A page whose links lead to the site's pages, and whose tables scroll."""
    page = re.sub(r'(<a href="[^":]*)\.md', r"\1.html", page.replace('href="results/"', ""))
    page = page.replace("<table>", '<div class="scroll" tabindex="0"><table>')
    return page.replace("</table>", "</table></div>")


def _json(content: Any, **_: Any) -> str:
    return msgspec.json.encode(content).decode()


def _bits(correct: Any) -> str:
    """Row after row, the first bit the highest, as base64."""
    return b64encode(np.packbits(correct.astype(bool)).tobytes()).decode()


_templates = templates(__package__)
_templates.autoescape = True
_templates.policies["json.dumps_function"] = _json
_templates.filters["bits"] = _bits
_templates.globals |= {"style": style, "meanings": {c.header: c.meaning for c in COLUMNS}}
