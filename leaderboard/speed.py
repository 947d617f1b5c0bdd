"""Timings: what the suite's own work costs, beside other tools on the same machine in one run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from leaderboard.files import read_sealed, write_sealed
from leaderboard._types import NAME, check_types
from leaderboard.records import RecordError, read_each

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One piece of work, timed in turn with others' ways to do it.

    Attributes:
        name: its id.
        budget: the budget's name, which says how much was timed.
        work: what was done, in words.
        unit: of all figures.
        ours: the suite's figure; the median of the rounds.
        others: figures to compare it with, by what was done instead.
        growth: further figures of the suite's, by how much work there was, such as "n = 5".
        note: how the suite did it.
        measured_at: UTC, ISO 8601.
        environment: versions, device, commit.
    """

    name: str
    budget: str
    work: str
    unit: str
    ours: float
    others: Mapping[str, float] = field(default_factory=dict)
    growth: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    measured_at: str
    environment: Mapping[str, str]


def folder_of(results: Path) -> Path:
    """Where the timings of a folder of records lie."""
    return results / "speed"


def write(timing: Timing, results: Path) -> Path:
    """Write a timing, in place of an older one from the same device, and return the file's path."""
    device = re.sub(r"[^a-z0-9]+", "-", timing.environment["device"].lower()).strip("-")
    path = folder_of(results) / f"{timing.name}-{timing.budget}-{device}.json"
    write_sealed(path, {"schema_version": SCHEMA_VERSION, **asdict(timing)})
    return path


def read_all(results: Path) -> list[Timing]:
    """All timings, in the order of their file names.

    Raises:
        RecordError: some cannot be used; the message names each.
    """
    return read_each(sorted(folder_of(results).glob("*.json")), _read)


def _read(path: Path) -> Timing:
    try:
        data = read_sealed(path)
        version = data.pop("schema_version")
        if version != SCHEMA_VERSION:
            raise ValueError(f"schema version {version}, this version reads {SCHEMA_VERSION}")
        timing = Timing(**data)
        check_types(timing)
        if missing := {"device", "processor", "threads", "torch"} - timing.environment.keys():
            raise ValueError(f"its environment lacks {', '.join(sorted(missing))}")
        for name in (timing.name, timing.budget):
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name: a-z, 0-9 and hyphens")
        figures = [timing.ours, *timing.others.values(), *timing.growth.values()]
        if not all(math.isfinite(figure) and figure >= 0 for figure in figures):
            raise ValueError(f"figures must be numbers of 0 or more, got {figures}")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RecordError(f"{path}: not a usable timing ({error})") from error
    return timing
