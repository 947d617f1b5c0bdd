"""Where things lie by default."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where the suite keeps what it can make again: data, populations, how to compute."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "randomized-defense-bench"
