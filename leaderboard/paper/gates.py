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
    """A check that can be made on published MRAs: an attack leaves no more than a weaker one.

    Attributes:
        strong, weak: attacks; `left` by each, in [0, 1].
    """

    table: str
    defense: str
    name: str
    strong: str
    weak: str
    left: tuple[float, float]

    @property
    def excess(self) -> float:
        """What the strong attack leaves more; without images to pair, any fails."""
        return self.left[0] - self.left[1]

    @property
    def by_chance(self) -> bool:
        """Whether the draws alone may have done it, on test images of which none is paired."""
        variance = sum(share * (1 - share) for share in self.left) / PAPER_IMAGES
        quantile = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
        return abs(self.excess) < quantile * math.sqrt(variance)


def check_paper(tables: Mapping[str, Any]) -> list[PaperCheck]:
    """The checks on each column of the paper's tables.

    None of `pgd-eot`, which on one deterministic network, as the paper ran it, is PGD.
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
