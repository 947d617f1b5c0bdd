"""The numbers of the paper's tables: beside ours with a verdict, and checked against each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from scipy import stats

from leaderboard.metrics import CONFIDENCE, Score
from leaderboard.paper.names import (
    CLEAN_TOLERANCE,
    PAPER_ATTACKS,
    PAPER_IMAGES,
    SUBMODELS,
    TOLERANCE,
)
from leaderboard.paper.studies import Study

# The adversarially trained populations that its authors released have another n than the paper's.
OF_THE_PAPERS_SIZE = ("ulm", "clm")
REPRODUCED, NOT_REPRODUCED, NOT_COMPARABLE = "reproduced", "not reproduced", "not comparable"


@dataclass(frozen=True)
class Comparison:
    """One published MRA beside ours, both in [0, 1].

    Attributes:
        submodels, trainings: n of ours and how many training seeds it is of; 0: not measured.
        reason: why it is not comparable, or empty.
        reach: where MRA of networks trained anew would lie, if the paper's number lies there, too.
    """

    table: str
    dataset: str
    eps: float
    attack: str
    defense: str
    paper: float
    ours: Score | None
    submodels: int
    trainings: int
    reason: str
    reach: Score | None

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.ours is None else self.ours.value - self.paper

    @property
    def near(self) -> bool:
        """Whether ours is as near as a reproduced number."""
        return self.ours is not None and near(self.attack, self.ours.value, self.paper)

    @property
    def verdict(self) -> str:
        """Reproduced, not reproduced, or not comparable."""
        if self.reason:
            return NOT_COMPARABLE
        return REPRODUCED if self.near else NOT_REPRODUCED

    @property
    def inside(self) -> bool:
        """Whether our interval contains the paper's number."""
        return self.ours is not None and self.ours.low <= self.paper <= self.ours.high


def compare(tables: Mapping[str, Any], studies: Mapping[str, Study]) -> list[Comparison]:
    """Every number of the paper's Tables 1 to 5, in their order."""
    found = []
    for number, dataset, eps, attack, defense, paper in _published(tables):
        study = studies.get(dataset)
        row = study.row(defense, eps) if study else None
        ours = row.score(attack) if row else None
        reason = ""
        if study is None or row is None or ours is None:
            reason = "not measured"
        elif study.obstacle:
            reason = study.obstacle
        elif attack == "pgd-eot":
            reason = "ours draws networks, the authors' script runs it on one"
        elif defense in OF_THE_PAPERS_SIZE and row.submodels != SUBMODELS:
            reason = f"n = {row.submodels}, the paper's {SUBMODELS}"
        submodels = row.submodels if row else 0
        trainings = len(row.by_attack.get(attack, {})) if row else 0
        reach = None if study is None or reason else _reach(study, defense, attack, eps, paper)
        where = (number, dataset, eps, attack, defense, paper)
        found.append(Comparison(*where, ours, submodels, trainings, reason, reach))
    return found


def _reach(study: Study, defense: str, attack: str, eps: float, paper: float) -> Score | None:
    networks = study.grids.get("networks")
    for way in sum(networks.rows, ()) if networks else ():
        same = (way.defense, way.attack) == (defense, attack) and abs(way.eps - eps) < 1e-6
        if same and way.score.low <= paper <= way.score.high:
            return way.score
    return None


def _published(tables: Mapping[str, Any]) -> Iterator[tuple[str, str, float, str, str, float]]:
    """Table, dataset, eps, attack, defense and MRA of each number."""
    for number, table in sorted(tables.items()):
        if "rows" in table:
            eps = float(Fraction(str(table["eps"])))
            places = [(table["dataset"], eps, a, table["rows"].get(a, {})) for a in PAPER_ATTACKS]
        else:
            places = [(name, 0.0, "none", table[name]) for name in table if name != "attack"]
        for dataset, eps, attack, row in places:
            for defense, percent in row.items():
                yield number, dataset, eps, attack, defense, percent / 100


def near(attack: str, ours: float, paper: float | None) -> bool:
    """Whether the paper has a number, and an MRA of ours reproduces it."""
    tolerance = CLEAN_TOLERANCE if attack == "none" else TOLERANCE
    return paper is not None and abs(ours - paper) <= tolerance


@dataclass(frozen=True)
class PaperCheck:
    """Whether published MRA under a strong attack is no higher than under a weak one.

    Attributes:
        accuracies: MRA under the strong attack and the weak one, in [0, 1].
    """

    table: str
    defense: str
    name: str
    strong: str
    weak: str
    accuracies: tuple[float, float]

    @property
    def excess(self) -> float:
        """MRA under the strong attack minus that under the weak one; any above 0 fails."""
        return self.accuracies[0] - self.accuracies[1]

    @property
    def by_chance(self) -> bool:
        """Whether it is within sampling error; published numbers allow no pairing of images."""
        variance = sum(share * (1 - share) for share in self.accuracies) / PAPER_IMAGES
        quantile = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
        return abs(self.excess) < quantile * math.sqrt(variance)


def check_paper(tables: Mapping[str, Any]) -> list[PaperCheck]:
    """The checks on each column of the paper's tables.

    `pgd-eot` has none: on one deterministic network, as the paper ran it, it is PGD.
    """
    checks = (
        ("iterated no weaker than single-step", "pgd", "fgsm"),
        ("ensemble of attacks no weaker than its parts", "autoattack", "pgd"),
    )
    return [
        PaperCheck(
            number, defense, name, strong, weak, (by_defense / 100, rows[weak][defense] / 100)
        )
        for number, table in sorted(tables.items())
        if (rows := table.get("rows"))
        for defense in rows["pgd"]
        for name, strong, weak in checks
        for by_defense in [rows[strong][defense]]
    ]
