"""The numbers of the paper's tables beside ours, each with a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from leaderboard.metrics import Score
from leaderboard.paper.names import PAPER_ATTACKS, SUBMODELS
from leaderboard.paper.studies import Study

# A number of ours within so much of the paper's MRA reproduces it; on clean images, where five
# points are many times the errors, within less.
TOLERANCE, CLEAN_TOLERANCE = 0.05, 0.01
# The adversarially trained populations that its authors released have another n than the paper's.
OF_THE_PAPERS_SIZE = ("ulm", "clm")
REPRODUCED, NOT_REPRODUCED, NOT_COMPARABLE = "reproduced", "not reproduced", "not comparable"


@dataclass(frozen=True)
class Comparison:
    """One published MRA beside ours, both in [0, 1].

    Attributes:
        submodels: n of ours.
        trainings: how many training seeds ours is of.
        verdict: one of the three words above.
        reason: why it is not comparable, or empty.
    """

    table: str
    dataset: str
    eps: float
    attack: str
    defense: str
    paper: float
    ours: Score | None
    submodels: int | None
    trainings: int
    verdict: str
    reason: str

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.ours is None else self.ours.value - self.paper

    @property
    def by_chance(self) -> bool:
        """Whether ours does not reproduce the paper's but has it in its interval."""
        return self.verdict == NOT_REPRODUCED and self._within

    @property
    def apart(self) -> bool:
        """Whether ours reproduces the paper's but has it outside its interval."""
        return self.verdict == REPRODUCED and not self._within

    @property
    def _within(self) -> bool:
        return self.ours is not None and self.ours.low <= self.paper <= self.ours.high


def compare(tables: Mapping[str, Any], studies: Mapping[str, Study]) -> list[Comparison]:
    """Every number of the paper's Tables 1 to 5, in their order."""
    found = []
    for number, table in sorted(tables.items()):
        if "rows" in table:
            eps = float(Fraction(str(table["eps"])))
            for attack in (a for a in PAPER_ATTACKS if a in table["rows"]):
                for defense, percent in table["rows"][attack].items():
                    cell = (number, table["dataset"], eps, attack, defense, percent / 100)
                    found.append(_one(*cell, studies))
        else:
            for dataset in (name for name in table if name != "attack"):
                for defense, percent in table[dataset].items():
                    cell = (number, dataset, 0.0, "none", defense, percent / 100)
                    found.append(_one(*cell, studies))
    return found


def _one(
    number: str,
    dataset: str,
    eps: float,
    attack: str,
    defense: str,
    paper: float,
    studies: Mapping[str, Study],
) -> Comparison:
    study = studies.get(dataset)
    row = study.row(defense, eps) if study else None
    ours = row.score(attack) if row else None
    submodels = row.submodels if row else None
    trainings = len(row.by_attack.get(attack, {})) if row else 0
    verdict, reason = _verdict(study, attack, paper, ours)
    if not reason and defense in OF_THE_PAPERS_SIZE and submodels != SUBMODELS:
        verdict, reason = NOT_COMPARABLE, f"n = {submodels}, the paper's {SUBMODELS}"
    return Comparison(
        *(number, dataset, eps, attack, defense, paper, ours),
        *(submodels, trainings, verdict, reason),
    )


def _verdict(study: Study | None, attack: str, paper: float, ours: Score | None) -> tuple[str, str]:
    if study is None or ours is None:
        return NOT_COMPARABLE, "not measured"
    if study.obstacle:
        return NOT_COMPARABLE, study.obstacle
    if attack == "pgd-eot":
        return NOT_COMPARABLE, "ours draws networks, the authors' script runs it on one"
    return (REPRODUCED if near(attack, ours.value, paper) else NOT_REPRODUCED), ""


def near(attack: str, ours: float, paper: float | None) -> bool:
    """Whether the paper has a number, and an MRA of ours reproduces it."""
    tolerance = CLEAN_TOLERANCE if attack == "none" else TOLERANCE
    return paper is not None and abs(ours - paper) <= tolerance


def counts(comparisons: Sequence[Comparison]) -> dict[str, int]:
    """How many numbers got each verdict."""
    words = (REPRODUCED, NOT_REPRODUCED, NOT_COMPARABLE)
    return {word: sum(one.verdict == word for one in comparisons) for word in words}
