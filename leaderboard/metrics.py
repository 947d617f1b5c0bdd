"""Every score, from `correct[n, N]`: whether submodel i classifies perturbed image j correctly.

The unit of replication is the image. Submodels answer the same image and are correlated, so
intervals come from the spread of s_j over images, never from n * N independent trials; and, where a
population was trained several times, from the spread of its scores over training seeds. Both are
sampled, so their variances add up. A few seeds say little about their own spread: quantiles are
Student's, with the degrees of freedom of a sum of variances (Satterthwaite, 1946).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Correct = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
# Shares that differ by less are equal.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Score:
    """A mean with its 95% confidence interval; all three in [0, 1]."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class _Variance:
    """An estimated variance of a mean."""

    value: float
    freedom: float

    def __add__(self, other: _Variance) -> _Variance:
        total = self.value + other.value
        if total == 0:
            return self
        share = self.value / total
        freedom = 1 / (share**2 / self.freedom + (1 - share) ** 2 / other.freedom)
        return _Variance(total, freedom)

    @property
    def half_width(self) -> float:
        """Half of the confidence interval."""
        quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, self.freedom))
        return quantile * math.sqrt(self.value)


def _of_the_mean(values: Floats) -> _Variance:
    return _Variance(float(values.var(ddof=1)) / len(values), len(values) - 1)


def mean(values: npt.NDArray[np.floating[Any]]) -> Score:
    """The mean of independent values with its interval; endless for a single value."""
    exact = np.asarray(values, np.float64)
    value = float(exact.mean())
    half = _of_the_mean(exact).half_width if len(exact) > 1 else math.inf
    return Score(value, value - half, value + half)


def another_mean(shares: npt.NDArray[np.floating[Any]], count: int) -> Score:
    """The mean of independent shares, and where that of further ones would lie, within [0, 1].

    Student's prediction interval: the variances of both means add up. It is all of [0, 1] for a
    single share.

    Args:
        shares: (k,).
        count: over how many further shares the other mean is.
    """
    own = mean(shares)
    half = math.sqrt(1 + len(shares) / count) * (own.high - own.value)
    return Score(own.value, max(0.0, own.value - half), min(1.0, own.value + half))


def hull(first: Score, second: Score) -> tuple[float, float]:
    """The least interval that holds both."""
    return min(first.low, second.low), max(first.high, second.high)


def network_shares(left: npt.NDArray[np.floating[Any]]) -> Floats:
    """What each network adds to MRA, as the one attacked and as one that answers.

    Their mean is MRA, and their spread that of both roles: a network's answers to images made for
    others are alike in all rows of `left`, so the spread of its rows alone would lack them.

    Args:
        left: (n, n), the share of images that network j answers right when i is attacked.

    Returns:
        (n,), not bounded by 0 and 1.
    """
    exact = np.asarray(left, np.float64)
    return np.asarray(exact.mean(axis=1) + exact.mean(axis=0) - exact.mean())


def means_apart(
    first: npt.NDArray[np.floating[Any]], second: npt.NDArray[np.floating[Any]]
) -> Score:
    """The mean of some independent shares minus that of others, with Welch's interval.

    It is all of [-1, 1] where a side has one share only.
    """
    ours, theirs = (np.asarray(side, np.float64) for side in (first, second))
    value = float(ours.mean() - theirs.mean())
    told_apart = min(len(ours), len(theirs)) > 1
    half = (_of_the_mean(ours) + _of_the_mean(theirs)).half_width if told_apart else math.inf
    return Score(value, max(-1.0, value - half), min(1.0, value + half))


def standard_error(correct: Correct) -> float:
    """That of MRA over images, one seed: (n, N); 0 for a single image."""
    answers = expected_correctness(correct)
    return math.sqrt(_of_the_mean(answers).value) if len(answers) > 1 else 0.0


def expected_correctness(correct: Correct) -> Floats:
    """s_j = (1/n) sum_i correct[i, j]: (..., n, N) -> (N,), over all leading axes.

    The probability that the deployed model, which draws uniformly, answers image j correctly.
    """
    return np.asarray(correct.reshape(-1, correct.shape[-1]).mean(axis=0, dtype=np.float64))


def submodel_accuracies(correct: Correct) -> Floats:
    """(1/N) sum_j correct[i, j] for each submodel: (n, N) -> (n,)."""
    return np.asarray(correct.mean(axis=-1, dtype=np.float64))


def mra(correct: Correct) -> float:
    """The model robustness average, paper Eq. 6: the mean of all submodels' accuracies."""
    return float(correct.mean(dtype=np.float64))


def score(per_seed: Sequence[Correct]) -> Score:
    """MRA over one or more training seeds measured on the same images, with its interval.

    The variance is that of the mean over images of the seed-averaged s_j plus, with several seeds,
    that of the mean of the seeds' MRAs. The spread of s_j says little where nearly all are 0, or 1:
    there the interval reaches at least as far as the exact binomial bound for N images all wrong,
    or all right (about 3 / N).

    Args:
        per_seed: one (..., N) array a seed, (n, N) for a population; N may not differ.

    Raises:
        ValueError: no seed, no image, or a different number of images.
    """
    if not per_seed or len({correct.shape[-1] for correct in per_seed}) != 1:
        raise ValueError("a score needs at least one seed, all on the same images")
    images = per_seed[0].shape[-1]
    if images == 0:
        raise ValueError("a score needs at least one image")
    answers = np.stack([expected_correctness(correct) for correct in per_seed])
    value, half = float(answers.mean()), _half_width(answers.mean(axis=0), [answers])
    bound = _bound(images)
    low = 0.0 if value == 0 else max(0.0, min(value - half, 1 - bound))
    high = 1.0 if value == 1 else min(1.0, max(value + half, bound))
    return Score(value, low, high)


def on_shared_images(by_attack: Sequence[Correct]) -> list[Correct]:
    """The arrays (..., N) cut to the first images that all were measured on.

    Images always come in the same order, so that fewer of them are the first of more.
    """
    shared = min((correct.shape[-1] for correct in by_attack), default=0)
    return [correct[..., :shared] for correct in by_attack]


def worst_case(by_attack: Sequence[Correct]) -> Correct:
    """The outcome under an attacker who, for each image, has the best of several attacks.

    For each image the column of the attack that left the lowest s_j: k arrays (n, N) -> (n, N).
    Its MRA is the worst-case MRA, at or below the MRA of every attack.

    Raises:
        ValueError: no attack, or arrays of different shapes.
    """
    if not by_attack or len({correct.shape for correct in by_attack}) != 1:
        raise ValueError("the worst case needs at least one attack, all on the same population")
    stacked = np.stack(by_attack)
    lowest = stacked.mean(axis=1).argmin(axis=0)
    return np.asarray(stacked[lowest, :, np.arange(stacked.shape[2])].T)


@dataclass(frozen=True)
class Transfer:
    """How attacks carry over between submodels.

    Attributes:
        accuracies: T[a, b], the accuracy of submodel b on images crafted on submodel a: (n, n).
        own: D, the mean of the diagonal: every submodel attacked by itself.
        others: O, the mean off the diagonal: attacked through another submodel; NaN for n = 1.
    """

    accuracies: Floats
    own: float
    others: float

    @property
    def expected_mra(self) -> float:
        """E[MRA] = D / n + (1 - 1 / n) O: how much of MRA is mere n."""
        n = len(self.accuracies)
        return self.own / n + (1 - 1 / n) * self.others if n > 1 else self.own


def transfer(correct: Correct) -> Transfer:
    """The transfer tensor from correct[a, b, j], crafted on a and scored on b: (n, n, N)."""
    accuracies = correct.mean(axis=2, dtype=np.float64)
    n = len(accuracies)
    off_diagonal = accuracies[~np.eye(n, dtype=bool)]
    others = float(off_diagonal.mean()) if n > 1 else float("nan")
    return Transfer(accuracies, float(accuracies.diagonal().mean()), others)


def persistent(correct: Correct, tries: int) -> float:
    """The mean of s_j^k: all of k independent draws answer a re-sent image correctly."""
    return float((expected_correctness(correct) ** tries).mean())


def never_fooled(correct: Correct) -> float:
    """The limit of `persistent` for endless tries: the share of images with s_j = 1."""
    return float((expected_correctness(correct) == 1).mean())


PerSeed = Mapping[int, Correct]


def shared_difference(first: PerSeed, second: PerSeed) -> Score | None:
    """The paired difference on the first images that both sides were measured on.

    None where a side has no seed.
    """
    if not first or not second:
        return None
    shared = iter(on_shared_images([*first.values(), *second.values()]))
    return difference(*({seed: next(shared) for seed in side} for side in (first, second)))


def difference(first: PerSeed, second: PerSeed) -> Score:
    """MRA of the first minus the second on the same images, paired, with its interval in [-1, 1].

    The variance is that of the mean over images of the paired differences of seed-averaged s_j,
    plus that of the mean over seeds: of the differences, where both sides have the same seeds; else
    of each side that has several. A tie is where the interval holds 0. Where all pairs are equal
    their spread says nothing, and the interval reaches at least as far as the exact bound for N
    images (about 3 / N).

    Args:
        first, second: an array (..., N) for each training seed; all of the same images.

    Raises:
        ValueError: no seed, or different images.
    """
    listed = [*first.values(), *second.values()]
    if not first or not second or len({correct.shape[-1] for correct in listed}) != 1:
        raise ValueError("a paired comparison needs the same images on both sides")
    ours, theirs = (
        np.stack([expected_correctness(side[seed]) for seed in sorted(side)])
        for side in (first, second)
    )
    pairs = ours.mean(axis=0) - theirs.mean(axis=0)
    paired = first.keys() == second.keys()
    value = float(pairs.mean())
    half = _half_width(pairs, [ours - theirs] if paired else [ours, theirs])
    return Score(value, max(-1.0, value - half), min(1.0, value + half))


def _half_width(images: Floats, seeds: Sequence[Floats]) -> float:
    """Half the interval of a mean over images (N,) and over each of several seeds (k, N)."""
    if len(images) == 1:
        return 1.0
    variance = _of_the_mean(images)
    for several in seeds:
        if len(several) > 1:
            variance += _of_the_mean(several.mean(axis=1))
    alike = float(np.ptp(images)) < ROUNDING
    return max(variance.half_width, _bound(len(images)) if alike else 0.0)


def _bound(images: int) -> float:
    """How large a share may be of which so many images show nothing."""
    return float(1 - (1 - CONFIDENCE) ** (1 / images))
