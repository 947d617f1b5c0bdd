"""Where things lie by default, whether they can be written, and what becomes of unusable ones."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TypeVar

from ..files import RecordError
from ..leaderboard import committed

Content = TypeVar("Content")
# A disk with less free is full: a record and its page would not fit.
LEAST_FREE = 2**20
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


def obstacle(folder: Path) -> str | None:
    """What keeps files from being written to a folder, made if need be; None: nothing does."""
    there = next((p for p in (folder, *folder.parents) if os.path.lexists(p)), folder)
    if not os.path.isdir(there):
        return f"{there} is no folder"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{there} cannot be written to"
    if shutil.disk_usage(there).free < LEAST_FREE:
        return f"the disk of {there} is full"
    return None


def set_aside(path: Path) -> Path:
    """Rename an unusable file or folder to `<name>.unusable`, or `<name>.unusable-2` and so on."""
    for number in count(1):
        aside = path.with_name(f"{path.name}.unusable" + (f"-{number}" if number > 1 else ""))
        if not aside.exists():
            break
    return path.rename(aside)


def kept(path: Path, read: Callable[[Path], Content], *, look: bool = False) -> Iterator[Content]:
    """What `read` makes of a file, then of the committed one that it stands beside.

    An unusable file is set aside with a warning, or passed over where this is only a look.
    """
    if path.exists():
        try:
            yield read(path)
        except RecordError as error:
            if not look:
                warnings.warn(f"{error}. Set aside as {set_aside(path).name}", stacklevel=3)
    if (beside := committed(path)) and beside.exists():
        yield read(beside)
