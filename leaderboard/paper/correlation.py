"""Correlations of diversity with robustness, over the pairs of a population."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ...arrays import Array
from .evidence import COMPARED, DIVERSITY, OUTCOMES, Evidence, pairs

# Relabelings of submodels tried for a p-value; the first of a fixed sequence.
PERMUTATIONS = 9999
SIGNIFICANT = 0.05


def parities(pair_count: int) -> dict[str, npt.NDArray[np.bool_]]:
    """Which pairs are of two even submodels, of two odd ones, or of one of each."""
    first, second = pairs(submodels_of(pair_count))
    odd = first % 2 + second % 2
    return {"two even": odd == 0, "one of each": odd == 1, "two odd": odd == 2}


def submodels_of(pair_count: int) -> int:
    """The n of n (n - 1) / 2 pairs."""
    return int(1 + (1 + 8 * pair_count) ** 0.5) // 2


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation over the pairs of one population's submodels.

    Counter-linking pushes even submodels one way and odd ones the other, so pairs of CLM are ranked
    among those of the same parities.

    Attributes:
        measure, outcome: of `DIVERSITY` and `OUTCOMES`.
        rho, p: None where one side does not vary; p is two-sided, of a permutation test that
            relabels submodels (Mantel, 1967), since pairs that share one are not independent.
    """

    defense: str
    measure: str
    outcome: str
    rho: float | None
    p: float | None

    @property
    def significant(self) -> bool:
        """Whether p is below 5%."""
        return self.p is not None and self.p < SIGNIFICANT

    @property
    def starred(self) -> str:
        """`+0.31*`, with a star where it is significant; an en dash where there is none."""
        return "–" if self.rho is None else f"{self.rho:+.2f}{'*' * self.significant}"

    def __str__(self) -> str:
        """`+0.31 (p 0.042)`, or an en dash."""
        p = self.p or 0.0
        p_words = f"{p:.3f}" if p >= 0.001 else "< 0.001"
        return "–" if self.rho is None else f"{self.rho:+.2f} (p {p_words})"


@lru_cache(maxsize=8)
def correlations(evidence: Evidence) -> tuple[Correlation, ...]:
    """Every measure of diversity with every outcome, within each population."""
    correlated = []
    for defense in COMPARED:
        for number, measure in enumerate(DIVERSITY):
            x = evidence.arrays[f"{defense} measures"][number]
            for outcome in OUTCOMES:
                y = evidence.arrays[f"{defense} {outcome}"]
                rho, p = mantel(x, y, within_parities=defense == "clm")
                correlated.append(Correlation(defense, measure, outcome, rho, p))
    return tuple(correlated)


def mantel(
    x: Array, y: Array, *, within_parities: bool = False
) -> tuple[float | None, float | None]:
    """Spearman's rho of two values for each pair of submodels, and its p by relabeling submodels.

    Args:
        x, y: (pairs,), in the order of `leaderboard.paper.evidence.pairs`.
        within_parities: see `Correlation`.
    """
    submodels = submodels_of(len(x))
    groups, exchangeable = [np.ones(len(x), bool)], [np.arange(submodels)]
    if within_parities:
        groups = list(parities(len(x)).values())
        exchangeable = [np.arange(parity, submodels, 2) for parity in (0, 1)]
    ranks_x, ranks_y = (_ranks(values, groups) for values in (x, y))
    if ranks_x is None or ranks_y is None:
        return None, None
    first, second = pairs(submodels)
    square = np.zeros((submodels, submodels))
    square[first, second] = square[second, first] = ranks_x
    random = np.random.default_rng(0)
    orders = np.empty((PERMUTATIONS, submodels), int)
    for some in exchangeable:
        orders[:, some] = random.permuted(np.tile(some, (PERMUTATIONS, 1)), axis=1)
    by_chance = square[orders[:, first], orders[:, second]] @ ranks_y
    rho = float(ranks_x @ ranks_y)
    as_extreme = int((np.abs(by_chance) >= abs(rho) - 1e-12).sum())
    return rho, (1 + as_extreme) / (1 + PERMUTATIONS)


def _ranks(
    values: Array, groups: Sequence[npt.NDArray[np.bool_]]
) -> npt.NDArray[np.float64] | None:
    """Ranks within each group, as shares of its size, centred; of length one; None: all alike."""
    ranks = np.zeros(len(values))
    for group in groups:
        if group.any():
            # As scipy.stats does, which takes half a second to import.
            _, places, counts = np.unique(values[group], return_inverse=True, return_counts=True)
            of_group = (np.cumsum(counts) - (counts - 1) / 2)[places]
            ranks[group] = (of_group - of_group.mean()) / (len(of_group) + 1)
    length = float(np.linalg.norm(ranks))
    # Two pairs always correlate.
    return ranks / length if length > 0 and len(values) > 2 else None
