"""Every score, from `correct[n, N]`: whether draw or member i classifies image j correctly.

The unit of replication is the image, or the block of images that shared a draw of the attacker's,
never one of n * N trials. docs/statistics.md says what is sampled, and how the intervals are made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, comb, ndtri, stdtrit

Correct = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
# Shares that differ by less are equal.
ROUNDING = 1e-9
# How much choosing among equals can correlate halves; see `best_member`.
EQUALS = 0.36


@dataclass(frozen=True)
class Score:
    """A mean with its 95% confidence interval; all three in [0, 1]."""

    value: float
    low: float
    high: float

    def __sub__(self, fixed: float) -> Score:
        return Score(self.value - fixed, self.low - fixed, self.high - fixed)


@dataclass(frozen=True)
class Variance:
    """An estimated variance of a mean."""

    value: float
    freedom: float

    def __add__(self, other: Variance) -> Variance:
        """Of like sources, with the degrees of freedom of Satterthwaite (1946)."""
        total = self.value + other.value
        if total == 0:
            return self
        share = self.value / total
        inverse = share**2 / self.freedom + (1 - share) ** 2 / other.freedom
        return Variance(total, 1 / inverse if inverse else math.inf)


def half_width(*sources: Variance) -> float:
    """Half of the confidence interval of a mean that varies for several reasons (Banerjee)."""
    quantiles = stdtrit([source.freedom for source in sources], (1 + CONFIDENCE) / 2)
    return math.sqrt(sum(q**2 * s.value for q, s in zip(quantiles, sources, strict=True)))


def variance_of_mean(values: Floats) -> Variance:
    """Of independent values."""
    return Variance(float(values.var(ddof=1)) / len(values), len(values) - 1)


def mean(values: npt.NDArray[np.floating[Any]]) -> Score:
    """The mean of independent values with its interval; endless for a single value."""
    exact = np.asarray(values, np.float64)
    value = float(exact.mean())
    half = half_width(variance_of_mean(exact)) if len(exact) > 1 else math.inf
    return Score(value, value - half, value + half)


def another_mean(shares: npt.NDArray[np.floating[Any]], count: int) -> Score:
    """The mean of independent shares, and where that of `count` further ones would lie.

    Student's prediction interval, within [0, 1], and all of it for a single share.
    """
    known = mean(shares)
    half = math.sqrt(1 + len(shares) / count) * (known.high - known.value)
    return Score(known.value, max(0.0, known.value - half), min(1.0, known.value + half))


def hull(first: Score, second: Score) -> tuple[float, float]:
    """The least interval that holds both."""
    return min(first.low, second.low), max(first.high, second.high)


@dataclass(frozen=True, eq=False)
class Answers:
    """`correct`, and how its rows and images belong together: what every score is computed from.

    Attributes:
        correct: (n * draws, N), the rows of one member beside each other.
        probabilities: (n,) with which members are drawn; None: uniform.
        draws: fresh ones of each member; 1: members are deterministic, and s_j is exact.
        block: consecutive images that share a draw of the attacker's: a cluster.
        selecting: (N,) s_j estimated on other draws, by which attacks are compared; None: s_j.
        choice: variance of the mean because the member was chosen; see `best_member`.
    """

    correct: npt.NDArray[Any]
    probabilities: Sequence[float] | None = None
    draws: int = 1
    block: int = 1
    selecting: Floats | None = None
    choice: float = 0.0

    @property
    def images(self) -> int:
        """N."""
        return int(self.correct.shape[-1])

    @cached_property
    def weights(self) -> Floats:
        """(n * draws,) of the rows; their sum is 1."""
        members = len(self.correct) // self.draws
        uniform = np.full(members, 1 / members)
        law = uniform if self.probabilities is None else np.asarray(self.probabilities, np.float64)
        return np.repeat(law / self.draws, self.draws)

    @cached_property
    def s(self) -> Floats:
        """s_j: the probability that the deployed model answers image j correctly, (N,)."""
        if self.probabilities is None:
            return np.asarray(self.correct.mean(axis=0, dtype=np.float64))
        return self.weights @ self.correct.astype(np.float64)

    @property
    def selected(self) -> Floats:
        """The estimate of s_j that an attacker may choose by."""
        return self.s if self.selecting is None else self.selecting

    def first(self, images: int) -> Answers:
        """On the first images only."""
        chosen = None if self.selecting is None else self.selecting[:images]
        return replace(self, correct=self.correct[..., :images], selecting=chosen)

    @cached_property
    def shared_variance(self) -> Variance:
        """Of the mean, for what all images share: the draws, and the choice of a member."""
        total = Variance(self.choice, math.inf)
        if self.draws > 1:
            by_member = self.correct.mean(axis=1, dtype=np.float64).reshape(-1, self.draws)
            for member, weight in zip(by_member, self.weights[:: self.draws], strict=True):
                variance = variance_of_mean(member)
                total += Variance((weight * self.draws) ** 2 * variance.value, variance.freedom)
        return total


# By training seed.
PerSeed = Mapping[int, Answers]


def standard_error(answers: Answers) -> float:
    """That of robust accuracy over images, one seed; 0 for a single image."""
    return math.sqrt(_over_images(answers.s, answers.block).value) if answers.images > 1 else 0.0


def score(per_seed: Sequence[Answers]) -> Score:
    """Accuracy over one or more training seeds measured on the same images, with its interval.

    The interval is the exact binomial one for as many independent images as would have the same
    variance (Korn and Graubard, 1998).

    Raises:
        ValueError: no seed, no image, or a different number of images.
    """
    if not per_seed or len({answers.images for answers in per_seed}) != 1:
        raise ValueError("a score needs at least one seed, all on the same images")
    if per_seed[0].images == 0:
        raise ValueError("a score needs at least one image")
    s = np.stack([answers.s for answers in per_seed])
    block = max(answers.block for answers in per_seed)
    value = float(np.clip(s.mean(), 0, 1))
    if s.shape[1] <= block:
        return Score(value, 0.0, 1.0)
    seeds = variance_of_mean(s.mean(axis=1)) if len(s) > 1 else per_seed[0].shared_variance
    images = _over_images(s.mean(axis=0), block)
    half = half_width(images, seeds)
    clusters = -(-s.shape[1] // block)
    # Where all images are alike their spread says nothing.
    if images.value < ROUNDING**2:
        half = max(half, 1 - lower_bound(clusters, 0))
    if min(value, 1 - value) < ROUNDING:
        value, equivalent = float(round(value)), float(clusters)
    else:
        equivalent = value * (1 - value) * (ndtri((1 + CONFIDENCE) / 2) / half) ** 2
    right, wrong = value * equivalent, (1 - value) * equivalent
    return Score(value, lower_bound(right, wrong), 1 - lower_bound(wrong, right))


def mean_score(by_seed: PerSeed) -> Score | None:
    """The score over all seeds, or None without any."""
    return score([*by_seed.values()]) if by_seed else None


def lower_bound(right: float, wrong: float) -> float:
    """The lower end of the exact binomial interval of a share (Clopper and Pearson)."""
    return float(betaincinv(right, wrong + 1, (1 - CONFIDENCE) / 2)) if right > 0 else 0.0


def on_shared_images(answers: Sequence[Answers]) -> list[Answers]:
    """All cut to the first images that all were measured on; their order is always the same."""
    shared = min((each.images for each in answers), default=0)
    return [each.first(shared) for each in answers]


def strongest_attack(by_attack: Sequence[Answers]) -> npt.NDArray[np.intp]:
    """For each image the number of the attack with the lowest `selected`, (N,).

    Of equals the strongest on average, then the first: few draws are often all wrong by luck.
    """
    ranked = sorted(range(len(by_attack)), key=lambda k: float(by_attack[k].selected.mean()))
    selected = np.stack([by_attack[k].selected for k in ranked])
    chosen: npt.NDArray[np.intp] = np.asarray(ranked)[selected.argmin(axis=0)]
    return chosen


def worst_case(by_attack: Sequence[Answers]) -> Answers:
    """The outcome under an attacker who, for each image, has the best of several attacks.

    For each image the attack is *chosen* by `selected` and *scored* by `correct`: by the same draws
    of a random member, luck would pass for an attack.

    Raises:
        ValueError: no attack, or answers of different shapes.
    """
    if not by_attack or len({answers.correct.shape for answers in by_attack}) != 1:
        raise ValueError("the worst case needs at least one attack, all on the same population")
    first = by_attack[0]
    at = strongest_attack(by_attack), np.arange(first.images)
    selected = np.stack([answers.selected for answers in by_attack])[at]
    return replace(
        first,
        correct=np.stack([answers.correct.T for answers in by_attack])[at].T,
        block=max(answers.block for answers in by_attack),
        selecting=None if first.selecting is None else selected,
    )


def best_member(alone: Answers) -> Answers:
    """The most robust member, cross-fitted: chosen on one half of the images, scored on the other.

    Chosen and scored on the same images or draws, the best of equals would look better than they
    are. Fewer than four draws are not halved: no half would tell its spread.

    Args:
        alone: members, each deployed and attacked by itself: (n * draws, N).
    """
    members = alone.correct.reshape(-1, alone.draws, alone.images)
    k, half = len(members), np.arange(alone.images) // alone.block % 2
    if k == 1 or not half.any():
        best = members.mean(axis=(1, 2)).argmax()
        return Answers(members[best], draws=alone.draws, block=alone.block)
    rows = alone.draws // 2 if alone.draws > 3 else alone.draws
    chosen = np.empty((rows, alone.images), alone.correct.dtype)
    draws = slice(rows), slice(-rows, None)
    for here in (0, 1):
        best = members[:, draws[1 - here], half != here].mean(axis=(1, 2)).argmax()
        chosen[:, half == here] = members[best][draws[here], half == here]
    apart = members.mean(axis=1) - members.mean(axis=(0, 1))
    unshared = sum(_over_images(member, alone.block).value for member in apart) / (k - 1)
    if alone.draws > 1:
        unshared += sum(variance_of_mean(draws).value for draws in members.mean(axis=2)) / k
    return Answers(chosen, draws=rows, block=alone.block, choice=EQUALS * unshared)


def persistent(answers: Answers, tries: float) -> float | None:
    """The mean of s_j^k: all of k independent draws, or endless ones, answer an image correctly.

    Of a random network it is estimated without bias by the share of sets of k of its draws that are
    all right; None where there are fewer draws, or several random members.
    """
    if answers.draws == 1:
        never_wrong = answers.s > 1 - ROUNDING
        return float(np.where(never_wrong, 1.0, answers.s**tries).mean())
    if len(answers.correct) > answers.draws or tries > answers.draws:
        return None
    right = answers.correct.sum(axis=0)
    return float((comb(right, tries) / comb(answers.draws, tries)).mean())


def shared_difference(first: PerSeed, second: PerSeed) -> Score | None:
    """The paired difference on the seeds and images of both; None where a side has no seed.

    Without common seeds, over all of each side.
    """
    if not first or not second:
        return None
    if common := sorted(first.keys() & second.keys()):
        first, second = ({seed: side[seed] for seed in common} for side in (first, second))
    shared = iter(on_shared_images([*first.values(), *second.values()]))
    return difference(*({seed: next(shared) for seed in side} for side in (first, second)))


def difference(first: PerSeed, second: PerSeed) -> Score:
    """Accuracy of the first minus that of the second on the same images, paired, with its interval.

    To the pairs one either way is added for each image of a block (Agresti and Min, 2005). Where
    all are equal the interval reaches as far as the exact bound for N images.

    Raises:
        ValueError: no seed, or different images.
    """
    listed = [*first.values(), *second.values()]
    if not first or not second or len({answers.images for answers in listed}) != 1:
        raise ValueError("a paired comparison needs the same images on both sides")
    one, other = (np.stack([side[seed].s for seed in sorted(side)]) for side in (first, second))
    pairs = one.mean(axis=0) - other.mean(axis=0)
    value, block = float(pairs.mean()), max(answers.block for answers in listed)
    if len(pairs) <= block:
        return Score(value, -1.0, 1.0)
    images = _over_images(pairs, block)
    sources = [Variance(images.value + 2 * block / len(pairs) ** 2, images.freedom)]
    seeds = [one - other] if first.keys() == second.keys() else [one, other]
    sources += [variance_of_mean(side.mean(axis=1)) for side in seeds if len(side) > 1]
    single = (side for side in (first, second) if len(side) == 1)
    sources += [answers.shared_variance for side in single for answers in side.values()]
    half = half_width(*sources)
    if images.value < ROUNDING**2:
        half = max(half, 1 - lower_bound(-(-len(pairs) // block), 0))
    return Score(value, max(-1.0, value - half), min(1.0, value + half))


def _over_images(values: Floats, block: int) -> Variance:
    """Of a mean over images (N,), of which `block` in a row are a cluster."""
    starts = np.arange(0, len(values), block)
    sums = np.add.reduceat(values - values.mean(), starts)
    clusters = len(starts)
    value = clusters / (clusters - 1) * float((sums**2).sum()) / len(values) ** 2
    return Variance(value, clusters - 1)
