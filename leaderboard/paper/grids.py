"""Grids of trainings x attacks: other ways to measure the paper's numbers, one file each.

A grid says in words what it is of; what was measured are ordinary records beside it. Some cells
were measured before the answers of single members were kept: they hold shares only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ... import metrics
from ...arrays import Count
from ...files import Name
from ...metrics import Answers, Score
from .. import records
from ..records import Record, Share
from .evidence import ADVERSARIAL, COMPARED, Measured
from .names import CASCADE, near, paper_mra
from .transfer import network_shares, transfer

# The suite's populations that each grid stands beside.
GRIDS = {
    "variants": COMPARED,
    "variants-adv": ADVERSARIAL,
    "retraining": COMPARED,
    "epochs": ADVERSARIAL,
    "retraining-adv": ADVERSARIAL,
    "networks": ADVERSARIAL,
}
# The way to run PGD-EOT whose other numbers are those of PGD.
LIKE_PGD = "like PGD"
# What is measured at the largest radius that defenses are ranked at, not at the first.
AT_LARGEST_RADIUS = ("variants-adv", "epochs", "retraining-adv", "networks")


class _Part(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A part of a file."""


class Cell(_Part, frozen=True, kw_only=True):
    """One training under one attack: a record, or what was kept in place of one.

    Attributes:
        attack: of the paper's tables; the cascade stands for the worst case over the row.
        run: how it was run, in words.
        standard: whether the suite runs it so; "ours" in files.
        record: the key of its record.
        right: for each image, how many members answer it correctly.
        accuracies: (n, n), of member j on images crafted on member i.
    """

    attack: Name
    run: str = ""
    standard: bool = msgspec.field(default=True, name="ours")
    record: str = ""
    right: bytes = b""
    accuracies: tuple[tuple[Share, ...], ...] = ()


class Training(_Part, frozen=True, kw_only=True):
    """One population, a row of a grid.

    Attributes:
        name: how it was trained, in words.
        standard: whether it is the suite's population; "ours" in files.
        more: for how long it was trained on, in words.
        population_sha256: of its weights, where there are records.
    """

    defense: Name
    name: str = ""
    standard: bool = msgspec.field(default=True, name="ours")
    more: str = ""
    submodels: Count
    population_sha256: str = ""
    cells: tuple[Cell, ...] = ()


class Layout(Measured, frozen=True, kw_only=True, eq=False):
    """What a grid's file holds; its kind is one of `GRIDS`."""

    FOLDER, KINDS = "studies/grids", GRIDS
    images: Count
    eps: float
    trainings: tuple[Training, ...]

    @property
    def determined_by(self) -> list[Any]:
        """Its numbers of images and submodels, and its radius."""
        return [self.images, self.eps, [training.submodels for training in self.trainings]]


@dataclass(frozen=True, eq=False)
class Way:
    """One of the paper's numbers, measured in one way.

    Attributes:
        defense, attack, eps: which number of the paper's tables it stands beside.
        score: MRA; under the protocol "transfer", its interval is where the MRA of as many members
            trained anew would lie.
        paper: the number itself, or None where the paper has none; near: whether this is near it.
        accuracies: (n, n) under the protocol "transfer", else None.
    """

    training: Training
    cell: Cell
    defense: str
    attack: str
    eps: float
    score: Score
    paper: float | None
    near: bool
    accuracies: npt.NDArray[np.float64] | None


@dataclass(frozen=True, eq=False)
class Grid:
    """A grid with its scores, a row for each training."""

    layout: Layout
    rows: tuple[tuple[Way, ...], ...]

    @property
    def shares_only(self) -> bool:
        """Whether the answers of single members were not kept."""
        return any(not way.cell.record for row in self.rows for way in row)

    @property
    def near_all(self) -> list[str]:
        """The names of the trainings that are near all of the paper's numbers, each in one way."""
        return [
            row[0].training.name
            for row in self.rows
            if {way.attack for way in row if way.near} == {way.attack for way in row} - {CASCADE}
        ]


def folder_of(results: Path) -> Path:
    """Where the grids' records lie, beside a folder of records that are ranked."""
    return results / "studies"


def read_all(results: Path) -> list[Grid]:
    """All grids whose records are there, in the order of the file names.

    A run that was interrupted leaves a grid of records that it has replaced: such a grid is left
    out until the run is repeated.

    Raises:
        RecordError: some file cannot be used; the message names each.
    """
    by_key = {record.case.key: record for record in records.read_all(folder_of(results))}
    weights = {key: record.population_sha256 for key, record in by_key.items()}
    return [
        scored(layout, by_key)
        for layout in Layout.read_all(results)
        if all(
            weights.get(cell.record) == training.population_sha256
            for training in layout.trainings
            for cell in training.cells
            if cell.record
        )
    ]


def scored(layout: Layout, by_key: Mapping[str, Record]) -> Grid:
    """A grid with its scores, from its records by key, or from shares."""
    return Grid(layout, tuple(_row(layout, training, by_key) for training in layout.trainings))


def _row(layout: Layout, training: Training, by_key: Mapping[str, Record]) -> tuple[Way, ...]:
    attacked = [
        by_key[cell.record].answers
        for cell in training.cells
        if cell.record and cell.standard and cell.attack != "none"
    ]
    ways = []
    for cell in training.cells:
        record = by_key.get(cell.record)
        accuracies = np.asarray(cell.accuracies) if cell.accuracies else None
        if record and record.case.protocol == "transfer":
            accuracies = transfer(record.correct)
        if accuracies is not None:
            score = metrics.another_mean(network_shares(accuracies), len(accuracies))
        elif record and cell.attack == CASCADE:
            score = metrics.score([metrics.worst_case(attacked)])
        elif record:
            score = record.score
        else:
            s = np.frombuffer(cell.right, np.uint8) / training.submodels
            score = metrics.score([Answers(s[np.newaxis])])
        which = training.defense, cell.attack, layout.eps if cell.attack != "none" else 0.0
        paper = paper_mra(layout.dataset, *which)
        close = near(cell.attack, score.value, paper)
        ways.append(Way(training, cell, *which, score, paper, close, accuracies))
    return tuple(ways)
