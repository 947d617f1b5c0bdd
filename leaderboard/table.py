"""Rows of the page: records gathered by what may be ranked together."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from leaderboard.metrics import Score, score
from leaderboard.records import Record

# The attacks of the paper's protocol. A row is ranked once all of them were run on it.
PAPER_ATTACKS = ("fgsm", "mifgsm", "pgd", "pgd-eot", "autoattack")


@dataclass(frozen=True, order=True)
class Setting:
    """Rows with the same setting were measured on the same images under the same budget."""

    dataset: str
    budget: str
    source: str
    sha256: str
    images: int
    images_per_draw: int


@dataclass(frozen=True)
class Row:
    """One defense in one setting at one eps, over all its training seeds.

    Attributes:
        by_attack: each attack's records by seed; "none" holds the clean ones.
    """

    defense: str
    submodels: int
    by_attack: dict[str, dict[int, Record]]

    @property
    def records(self) -> list[Record]:
        """All records of the row."""
        return [record for by_seed in self.by_attack.values() for record in by_seed.values()]

    def score(self, attack: str) -> Score | None:
        """MRA under one attack, or None where it was not run."""
        by_seed = self.by_attack.get(attack)
        return score([record.correct for record in by_seed.values()]) if by_seed else None

    @property
    def minimum(self) -> Score | None:
        """The lowest MRA over the attacks run, clean images excluded."""
        scores = [self.score(attack) for attack in self.by_attack if attack != "none"]
        return min((s for s in scores if s), key=lambda s: s.value, default=None)

    @property
    def complete(self) -> bool:
        """Whether all attacks of the paper's protocol were run."""
        return all(attack in self.by_attack for attack in PAPER_ATTACKS)

    @property
    def seeds(self) -> list[int]:
        """The training seeds behind the row."""
        return sorted({record.cell.seed for record in self.records})

    @property
    def training_seconds(self) -> float:
        """To train the populations of all seeds."""
        return sum({r.population_sha256: r.training_seconds for r in self.records}.values())

    @property
    def attack_seconds(self) -> float:
        """To craft all perturbed images of the row."""
        return sum(record.attack_seconds for record in self.records)


def settings(records: Iterable[Record]) -> dict[Setting, list[Record]]:
    """Records by setting, in the order of dataset and budget."""
    grouped: dict[Setting, list[Record]] = {}
    for record in records:
        cell = record.cell
        setting = Setting(
            cell.dataset,
            cell.budget,
            cell.source,
            cell.sha256,
            cell.images,
            cell.images_per_draw,
        )
        grouped.setdefault(setting, []).append(record)
    return dict(sorted(grouped.items()))


def rows(records: Iterable[Record], norm: str, eps: float) -> list[Row]:
    """A setting's rows at one norm and eps: complete rows first, each part by falling minimum.

    Clean images have no eps: their records belong to every row of the same population. Of two
    records that differ only in the attack's version or parameters the newer counts.
    """
    grouped: dict[str, Row] = {}
    for record in records:
        cell = record.cell
        if cell.attack != "none" and (cell.norm, cell.eps) != (norm, eps):
            continue
        identity = json.dumps(
            [cell.defense, cell.defense_version, dict(cell.defense_parameters), cell.submodels],
            sort_keys=True,
        )
        row = grouped.setdefault(identity, Row(cell.defense, cell.submodels, {}))
        measured = row.by_attack.setdefault(cell.attack, {})
        older = measured.get(cell.seed)
        if older is None or older.measured_at < record.measured_at:
            measured[cell.seed] = record
    attacked = [row for row in grouped.values() if row.minimum]
    return sorted(
        attacked,
        key=lambda r: (not r.complete, -(r.minimum.value if r.minimum else 0), r.defense),
    )
