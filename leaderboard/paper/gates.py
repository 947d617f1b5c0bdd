"""Checks that can be made on the paper's own published numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scipy import stats

from leaderboard.metrics import CONFIDENCE

# The test images of MNIST, and of CIFAR-10.
PAPER_IMAGES = 10_000


@dataclass(frozen=True)
class PaperCheck:
    """Whether published MRA under an attack is no higher than under a weaker one.

    Attributes:
        strong, weak: attacks; accuracies: MRA under each, in [0, 1].
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
    return [
        PaperCheck(
            number,
            defense,
            name,
            strong,
            weak,
            (table["rows"][strong][defense] / 100, table["rows"][weak][defense] / 100),
        )
        for number, table in sorted(tables.items())
        if "rows" in table
        for defense in table["rows"]["pgd"]
        for name, strong, weak in (
            ("iterated no weaker than single-step", "pgd", "fgsm"),
            ("ensemble of attacks no weaker than its parts", "autoattack", "pgd"),
        )
    ]
