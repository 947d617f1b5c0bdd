"""Where things lie by default."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ..leaderboard.files import obstacle

# Populations of committed records that come with the suite, laid out as the store's.
RELEASED = Path(__file__).parent.parent / "leaderboard" / "populations"


def cache_folder() -> Path:
    """Where the suite keeps what it can make again: data, populations, how to compute.

    Among temporary files where there is no home that can be written to, as in many containers.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    name = "randomized-defense-bench"
    folder = Path(os.path.expanduser(base), name)
    usable = folder.is_absolute() and (os.path.isdir(folder) or not obstacle(folder))
    return folder if usable else Path(tempfile.gettempdir(), name)
