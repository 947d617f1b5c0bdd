"""Timings: what the suite's own work costs, beside other tools on the same machine in one run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from leaderboard.files import Name, Sealed, read_sealed, write_sealed
from leaderboard.records import RecordError, read_each

# Files hold no infinity and nothing that is no number.
Figure = Annotated[float, msgspec.Meta(ge=0)]


class Timing(Sealed, frozen=True, kw_only=True):
    """One piece of work, timed in turn with others' ways to do it.

    Attributes:
        budget: the budget's name, which says how much was timed.
        work: what was done, in words; unit: of all figures.
        ours: the suite's figure; the median of the rounds.
        others: figures to compare it with, by what was done instead.
        growth: further figures of the suite's, by how much work there was, such as "n = 5".
        note: how the suite did it.
        measured_at: UTC, ISO 8601.
    """

    name: Name
    budget: Name
    work: str
    unit: str
    ours: Figure
    others: Mapping[str, Figure] = {}
    growth: Mapping[str, Figure] = {}
    note: str = ""
    measured_at: str
    environment: Mapping[str, str]

    def __post_init__(self) -> None:
        if missing := {"device", "processor", "threads", "torch"} - self.environment.keys():
            raise ValueError(f"its environment lacks {', '.join(sorted(missing))}")


def folder_of(results: Path) -> Path:
    """Where the timings of a folder of records lie."""
    return results / "speed"


def write(timing: Timing, results: Path) -> Path:
    """Write a timing, in place of an older one from the same device, and return the file's path."""
    device = re.sub(r"[^a-z0-9]+", "-", timing.environment["device"].lower()).strip("-")
    path = folder_of(results) / f"{timing.name}-{timing.budget}-{device}.json"
    write_sealed(path, msgspec.to_builtins(timing))
    return path


def read_all(results: Path) -> list[Timing]:
    """All timings, in the order of their file names; see `read_each`."""
    return read_each(sorted(folder_of(results).glob("*.json")), _read)


def _read(path: Path) -> Timing:
    try:
        return msgspec.convert(read_sealed(path), Timing)
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: not a usable timing ({error})") from error
