"""Markdown that shows what it is given, whoever gave it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tabulate import tabulate


def escape(text: str) -> str:
    """Text that came from a record, made inert in a Markdown table."""
    flat = " ".join(text.split())
    special = r"[\\`*\[\]<>|~&]|(?<![a-zA-Z0-9])_|_(?![a-zA-Z0-9])"
    return re.sub(special, lambda match: f"&#{ord(match[0])};", flat)


def markdown_table(headers: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A GitHub table, or nothing without rows; numbers are printed as given."""
    text: str = tabulate(body, headers, tablefmt="github", disable_numparse=True)
    return f"{text}\n" if body else ""
