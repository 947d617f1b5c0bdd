"""Where things lie by default."""

from __future__ import annotations

import os
from pathlib import Path

# Populations of committed records that come with the suite, laid out as the store's.
RELEASED = Path(__file__).parent.parent / "leaderboard" / "populations"


def cache_folder() -> Path:
    """Where the suite keeps what it can make again: data, populations, how to compute."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "randomized-defense-bench"
