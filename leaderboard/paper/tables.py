"""The numbers of the paper's tables beside what was measured, and checked against each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import permutations
from typing import Any, NamedTuple

from scipy.special import ndtri

from ...metrics import CONFIDENCE, Score
from .. import gates
from ..rows import Row
from .evidence import COMPARED
from .grids import LIKE_PGD, Way
from .names import PAPER_ATTACKS, PAPER_IMAGES, SUBMODELS, near, tolerance
from .study import Study

# What must hold of the numbers under two attacks, the stronger first. `pgd-eot` has no check: on
# one deterministic network, as the paper ran it, it is PGD.
CHECKS = {
    ("pgd", "fgsm"): "iterated no weaker than single-step",
    ("autoattack", "pgd"): "ensemble of attacks no weaker than its parts",
}


@dataclass(frozen=True)
class Comparison:
    """One published MRA beside the measured one, both in [0, 1].

    Attributes:
        beside: the other numbers of its row in the paper's table.
    """

    table: str
    dataset: str
    eps: float
    attack: str
    defense: str
    paper: float
    study: Study | None
    beside: list[Comparison] = field(default_factory=list, repr=False, compare=False)

    @cached_property
    def row(self) -> Row | None:
        """What was measured of the same defense at the same radius."""
        entry = self.study.entry(self.defense, self.eps) if self.study else None
        return entry.row if entry else None

    @cached_property
    def measured(self) -> Score | None:
        """MRA under the same attack."""
        if self._on_one_network:
            return self._on_one_network.score
        return self.row.score(self.attack) if self.row else None

    @cached_property
    def _on_one_network(self) -> Way | None:
        """PGD-EOT as the authors' script runs it, with the numbers of PGD."""
        grids = self.study.grids.values() if self.study and self.attack == "pgd-eot" else ()
        ways = (way for grid in grids for row in grid.rows for way in row if way.training.standard)
        sought = self.defense, self.attack, LIKE_PGD
        same = (way for way in ways if (way.defense, way.attack, way.cell.run) == sought)
        return next((way for way in same if abs(way.eps - self.eps) < 1e-6), None)

    @property
    def difference(self) -> float | None:
        """Measured minus published."""
        return None if self.measured is None else self.measured.value - self.paper

    @property
    def near(self) -> bool:
        """Whether the measured one is as near as a reproduced number."""
        return self.measured is not None and near(self.attack, self.measured.value, self.paper)

    @property
    def in_kind(self) -> bool:
        """Whether it is apart from others of its row where the paper's is, and alike where that is.

        Apart: the paired difference has the sign of the paper's, by its interval.
        """
        most = tolerance(self.attack)
        for other in self.beside:
            gap, difference = self.paper - other.paper, self._minus(other)
            if difference is None or (abs(gap) <= most < abs(difference.value)):
                return False
            if abs(gap) > most and not (difference.low > 0 if gap > 0 else difference.high < 0):
                return False
        return True

    def _minus(self, other: Comparison) -> Score | None:
        """The measured difference to another number of its row, over the images of both."""
        by_seed = [
            one.row.by_attack.get(self.attack, {}) if one.row else {} for one in (self, other)
        ]
        return gates.excess(*by_seed)

    @property
    def inside(self) -> bool:
        """Whether the measured interval contains the paper's number."""
        return self.measured is not None and self.measured.low <= self.paper <= self.measured.high

    @property
    def reason(self) -> str:
        """Why it is not comparable, or empty."""
        if self.study is None or self.row is None or self.measured is None:
            return "not measured"
        if self.study.obstacle:
            return self.study.obstacle
        if self.attack == "pgd-eot" and not self._on_one_network:
            return "this suite draws networks, the authors' script runs it on one"
        if self.study.in_kind:
            missing = [other.defense for other in self.beside if other.measured is None]
            return f"{', '.join(missing)} not measured" if missing else ""
        # The adversarially trained populations that its authors released have another n.
        if self.defense in COMPARED and self.row.submodels != SUBMODELS:
            return f"n = {self.row.submodels}, the paper's {SUBMODELS}"
        return ""

    @property
    def verdict(self) -> str:
        """Reproduced or not, in kind or not on smaller networks, or not comparable."""
        if self.reason:
            return "not comparable"
        if self.study and self.study.in_kind:
            return "in kind" if self.in_kind else "not in kind"
        return "reproduced" if self.near else "not reproduced"

    @cached_property
    def reach(self) -> Score | None:
        """Where MRA of networks trained anew would lie, if the paper's number lies there, too."""
        networks = self.study.grids.get("networks") if self.study and not self.reason else None
        for way in sum(networks.rows, ()) if networks else ():
            same = (way.defense, way.attack) == (self.defense, self.attack)
            if same and abs(way.eps - self.eps) < 1e-6:
                return way.score if way.score.low <= self.paper <= way.score.high else None
        return None


def compare(tables: Mapping[str, Any], studies: Mapping[str, Study]) -> list[Comparison]:
    """Every number of the paper's Tables 1 to 5, in their order."""
    compared = [Comparison(*number, studies.get(number[1])) for number in _published(tables)]
    for one, other in permutations(compared, 2):
        if (one.table, one.dataset, one.attack) == (other.table, other.dataset, other.attack):
            one.beside.append(other)
    return compared


def _published(tables: Mapping[str, Any]) -> Iterator[tuple[str, str, float, str, str, float]]:
    """Table, dataset, eps, attack, defense and MRA of each number."""
    for name, table in sorted(tables.items()):
        if "rows" in table:
            eps = float(Fraction(str(table["eps"])))
            places = [(table["dataset"], eps, a, table["rows"].get(a, {})) for a in PAPER_ATTACKS]
        else:
            places = [(name, 0.0, "none", table[name]) for name in table if name != "attack"]
        for dataset, eps, attack, row in places:
            for defense, percent in row.items():
                yield name, dataset, eps, attack, defense, percent / 100


class PaperCheck(NamedTuple):
    """Whether published MRA under a strong attack is no higher than under a weak number.

    Attributes:
        excess: MRA under the strong attack minus that under the weak one; any above 0 fails.
        by_chance: whether it is within sampling error; published numbers cannot be paired by image.
        measured: the same difference between measured ones; None where there is none.
    """

    name: str
    strong: Comparison
    weak: Comparison
    excess: float
    by_chance: bool
    measured: Score | None


def check_paper(compared: Sequence[Comparison]) -> list[PaperCheck]:
    """The checks on each column of the paper's tables."""
    by_place = {(number.table, number.defense, number.attack): number for number in compared}
    quantile, checks = float(ndtri((1 + CONFIDENCE) / 2)), []
    for table, defense in dict.fromkeys(
        (number.table, number.defense) for number in compared if number.eps
    ):
        for attacks, name in CHECKS.items():
            strong, weak = pair = [by_place[table, defense, attack] for attack in attacks]
            excess = strong.paper - weak.paper
            error = math.sqrt(
                sum(number.paper * (1 - number.paper) for number in pair) / PAPER_IMAGES
            )
            by_seed = [
                number.row.by_attack.get(number.attack, {}) if number.row else {} for number in pair
            ]
            judged = strong.study and not strong.study.obstacle
            measured = gates.excess(*by_seed) if judged else None
            by_chance = abs(excess) < quantile * error
            checks.append(PaperCheck(name, strong, weak, excess, by_chance, measured))
    return checks
